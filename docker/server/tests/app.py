"""An application to test the server with: it answers with the body, /ids with two header fields, /large with 8 MB.

/unread does not read the body, and /fail raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    status, path = "200 OK", environ["PATH_INFO"]
    try:
        answer = b"" if path == "/unread" else environ["wsgi.input"].read()
    except Exception:  # as frameworks do
        status, answer = "500 Internal Server Error", b""
    if path == "/fail":
        raise ValueError(path)
    if path == "/ids":
        answer = f"{environ['HTTP_X_REQUEST_ID']} {environ['HTTP_TRACEPARENT']}".encode()
    if path == "/large":
        answer = b"x" * 8_000_000
    start_response(status, [("Content-Length", str(len(answer)))])
    return [answer]
