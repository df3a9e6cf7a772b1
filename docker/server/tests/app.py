"""An application to test the server with: it answers with the body, /ids with two header fields, /large with 8 MB.

/unread does not read the body, /fail raises, and /wait takes 1 s, and answers with how many requests do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

WAITING: set[object] = set()


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
    if path == "/wait":
        WAITING.add(request := object())
        time.sleep(1)
        answer = str(len(WAITING)).encode()
        WAITING.remove(request)
    start_response(status, [("Content-Length", str(len(answer)))])
    return [answer]
