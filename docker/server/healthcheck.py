"""Asks the server in this container whether it is alive, or with /readyz as argument, ready; the exit code is the answer.

In production it has a listener for that. A server that has no such path, and says so, is alive and ready.
"""

import os
import socket
import sys
from http.client import HTTPConnection

socket.setdefaulttimeout(float(os.environ.get("STACK_HEALTH_TIMEOUT_S", "2")))
connection = HTTPConnection("127.0.0.1", 8000)
listener = os.environ.get("STACK_HEALTH_SOCKET", "/dev/shm/health.sock")  # noqa: S108
# gunicorn rejects paths that do not begin with SCRIPT_NAME.
path = os.environ.get("SCRIPT_NAME", "") + (sys.argv[1] if len(sys.argv) > 1 else "/healthz")
try:
    if os.path.exists(listener):  # noqa: PTH110 (pathlib takes 20 ms to import)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(listener)
    connection.request("GET", path)
    raise SystemExit(connection.getresponse().status >= 500)
except OSError as error:
    sys.exit(f"{path} gets no answer: {error}")
