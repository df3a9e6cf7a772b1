"""Applications to test the servers with: they answer with the body, /ids with ids and the scheme, /large with 4 MB.

/unread does not read the body, /fail, /exit, /pipe and /stop raise, /die ends the process, /none does not answer, the answer
of /headless is a body, that of /short is incomplete, that of /endless has no end, a field of /invalid has no valid name,
those of /length and /negative no valid value, /twice has it twice, /wait takes 1 s, the ASGI application fails some time
after the answer of /late, and a number is the answer's status. A web socket gets the size of each binary message, and is
flooded with messages of the size that it sends as text; /refuse accepts none.
"""

import asyncio
import atexit
import os
import signal
import time
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

RAISED: dict[str, Any] = {"/fail": ValueError, "/exit": SystemExit, "/pipe": BrokenPipeError, "/stop": StopIteration}
RAISED["/die"] = lambda *_: os._exit(1)
atexit.register(print, "the application ends")


class Stopper:
    """Stops this process where Python ignores exceptions."""

    def __del__(self) -> None:
        print("stopping", flush=True)
        signal.raise_signal(signal.SIGTERM)


def answer(path: str, body: bytes, *ids: str) -> tuple[int, list[tuple[str, str]], bytes]:
    if path in RAISED:
        raise RAISED[path](3, path)
    body = " ".join(ids).encode() if path == "/ids" else b"x" * 4_000_000 if path == "/large" else body
    length = len(body) + 100 * (path == "/short")
    fields = [("Content-Length", {"/length": "x", "/negative": "-1"}.get(path, str(length)))]
    fields *= {"/endless": 0, "/twice": 2}.get(path, 1)
    fields += [("X-Request-ID", "own")] + [("a b", "c")] * (path == "/invalid")
    return int(path[1:]) if path[1:].isdigit() else 200, fields, body


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
    path, body = environ["PATH_INFO"], b""
    try:
        body = b"" if path == "/unread" else environ["wsgi.input"].read()
    except Exception:  # as frameworks do
        path = "/500"
    time.sleep(path == "/wait")
    ids = (environ.get(name, "") for name in ("HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT", "wsgi.url_scheme"))
    status, fields, body = answer(path, body, *ids)
    if path not in ("/none", "/headless"):
        start_response(f"{status} x", fields)
    return iter(lambda: bytes(1000), None) if path == "/endless" else [body]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    event = await receive() if path != "/unread" else {}
    if scope["type"] == "websocket":
        await send({"type": "websocket.close" if path == "/refuse" else "websocket.accept"})
        while (event := await receive())["type"] != "websocket.disconnect":
            while event.get("text"):
                await send({"type": "websocket.send", "bytes": bytes(int(event["text"]))})
            await send({"type": "websocket.send", "text": str(len(event.get("bytes") or ""))})
        return
    parts = [event.get("body", b"")]
    while event.get("more_body"):
        parts.append((event := await receive()).get("body", b""))
    if path == "/parts":
        parts = [str(len(parts)).encode()]
    if event.get("type") == "http.disconnect":
        raise ConnectionError  # as frameworks do
    await asyncio.sleep(path == "/wait")
    ids = [dict(scope["headers"]).get(name, b"").decode() for name in (b"x-request-id", b"traceparent")]
    status, fields, body = answer(path, b"".join(parts), *ids, scope["scheme"])
    if path != "/none":
        headers = ((name.encode(), value.encode()) for name, value in fields)  # once, as ASGI allows
        if path != "/headless":
            await send({"type": "http.response.start", "status": status, "headers": headers})
        while path == "/endless":
            await send({"type": "http.response.body", "body": bytes(1000), "more_body": True})
        if path in ("/short", "/unread"):
            await send({"type": "http.response.body", "more_body": True})
            await asyncio.sleep(0.4 * (path == "/unread"))
        await send({"type": "http.response.body", "body": body})
        if path == "/late":
            await asyncio.sleep(0.3)
            raise ConnectionRefusedError(scope["method"])
