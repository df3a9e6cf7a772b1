"""An application to test the server with: it answers with the body, /large with 8 MB; /unread does not read the body."""

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
    if path == "/large":
        answer = b"x" * 8_000_000
    start_response(status, [("Content-Length", str(len(answer)))])
    return [answer]
