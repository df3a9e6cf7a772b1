"""What app.py is, for ASGI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope


async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    assert scope["type"] == "http"
    body, more = b"", scope["path"] != "/unread"
    while more:
        event: Any = await receive()
        if event["type"] == "http.disconnect":
            return
        body, more = body + event["body"], event["more_body"]
    if scope["path"] == "/fail":
        raise ValueError
    if scope["path"] == "/ids":
        fields = dict(scope["headers"])
        body = fields[b"x-request-id"] + b" " + fields[b"traceparent"]
    answer = b"x" * 8_000_000 if scope["path"] == "/large" else body
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": answer, "more_body": False})
