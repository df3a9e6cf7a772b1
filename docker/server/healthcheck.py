"""Asks the server in this container whether it is well; the exit code is the answer.

A server that has no /healthz, and says so, is alive.
"""

from http.client import HTTPConnection

connection = HTTPConnection("127.0.0.1", 8000, timeout=2)
connection.request("GET", "/healthz")
raise SystemExit(connection.getresponse().status >= 500)
