"""An application to test the server with: it answers with the body, /ids with two header fields, /large with 8 MB.

/unread does not read the body, and /fail raises. /compute and /wait take 2 ms and 1 s, and answer with how many do it at a time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

ACTIVE: set[object] = set()


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
    if path in ("/compute", "/wait"):
        ACTIVE.add(began := time.monotonic())
        time.sleep(path == "/wait")
        while time.monotonic() < began + 0.002:
            pass
        answer = str(len(ACTIVE)).encode()
        ACTIVE.remove(began)
    start_response(status, [("Content-Length", str(len(answer)))])
    return [answer]
