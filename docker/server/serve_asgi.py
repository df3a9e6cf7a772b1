"""Serves an ASGI application with uvicorn, httptools and websockets, with the same limits as gunicorn_worker.py has."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from contextlib import suppress
from typing import Any

import server_limits as limits
import uvicorn
from asgi_clients import Http
from server_telemetry import LARGE_BODIES, METRICS, METRICS_PORT, METRICS_TYPE, TRUSTED, Exchange, add
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

LARGE_BODY_SLOTS = asyncio.Semaphore(limits.LARGE_BODIES)
# The fields that are read or made here, and their names in capitals.
READ = ("CONTENT-LENGTH", "HOST", "TRANSFER-ENCODING", "X-FORWARDED-FOR", "X-FORWARDED-PROTO")
NAMES = {name.lower().encode(): name for name in (*READ, "TRACEPARENT", "TRACESTATE", "X-REQUEST-ID")}


class Middleware:
    """Logs and counts requests, rejects ambiguous ones, and calls the application with few large bodies at a time."""

    def __init__(self, app: Any) -> None:
        self.app, self.app_behind_proxy = app, ProxyHeadersMiddleware(app, TRUSTED)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Serve a request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        port, slot, gone = (scope["server"] or ("", None))[1], False, False
        exchange = Exchange(internal=port in (None, METRICS_PORT))
        # None of these functions may call itself, or another that calls it: each request would be cyclic garbage.

        def release() -> None:
            nonlocal slot
            if slot:
                slot = False
                LARGE_BODY_SLOTS.release()
                add({LARGE_BODIES: -1})

        async def receive_and_note() -> Any:
            nonlocal gone
            event = await receive()
            gone = event["type"].endswith("disconnect")
            return event

        async def send_and_count(event: Any) -> None:
            if not exchange.started:
                release()
                if event["type"] == "websocket.close":
                    await respond(scope, send, exchange, 403)
                    return
                exchange.status = 101 if event["type"] == "websocket.accept" else int(event["status"])
                fields = [field for field in event.get("headers", ()) if field[0].lower() != b"x-request-id"]
                fields.append((b"x-request-id", exchange.request_id.encode()))
                event = {**event, "headers": fields}
                exchange.started = True
            exchange.bytes += len(event.get("body") or b"")
            await send(event)
            if event["type"] == "http.response.body" and not event.get("more_body"):
                exchange.end()  # the application may go on for long

        if METRICS and port == METRICS_PORT:
            return await respond(scope, send, exchange, 200, METRICS.text())
        headers, method, path = scope["headers"], scope.get("method", "GET"), scope["raw_path"].decode("latin-1")
        target = scope.get("stack.target", scope["raw_path"]).decode("latin-1")
        known = [(NAMES[name], value.decode("latin-1")) for name, value in headers if name in NAMES]
        fields = dict(known)
        made = exchange.start((scope["client"] or ("",))[0], method, path, fields)
        scope["headers"] = [field for field in headers if NAMES.get(field[0]) not in made]
        scope["headers"] += [(name.lower().encode(), value.encode()) for name, value in made.items() if value]
        app = self.app_behind_proxy if "X-FORWARDED-FOR" in fields or "X-FORWARDED-PROTO" in fields else self.app
        try:
            status = too_large(target, headers) or limits.fault(method, scope["http_version"], target, known)
            length = fields.get("CONTENT-LENGTH", "0")
            status = status or 400 * (len(length) > 20)  # these are zeros; Python takes no more than 4,300 digits
            if not status and (int(length) > limits.LARGE_BYTES or "TRANSFER-ENCODING" in fields):
                with suppress(TimeoutError):
                    slot = await asyncio.wait_for(LARGE_BODY_SLOTS.acquire(), 2 * limits.TIMEOUT_S)
                add({LARGE_BODIES: slot})
                status = 0 if slot else 503
            await (respond(scope, send, exchange, status) if status else app(scope, receive_and_note, send_and_count))
            if not exchange.started and not gone:
                raise RuntimeError("the application has not answered")
        except BaseException:
            if gone and not exchange.started:
                return None  # frameworks raise then; to log that for each client of an attack would take all the time
            release()
            if not exchange.started:
                await respond(scope, send, exchange, 500)
            raise  # for uvicorn to log it
        finally:
            release()
            exchange.end()


async def respond(scope: Any, send: Any, exchange: Exchange, status: int, body: bytes = b"") -> None:
    """Answer in the application's place; only metrics have a body."""
    exchange.started, exchange.status, exchange.bytes = True, status, len(body)
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    kind = METRICS_TYPE if body else b"text/plain"
    fields = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    fields.append((b"x-request-id", exchange.request_id.encode()))
    await send({"type": f"{prefix}.response.start", "status": status, "headers": fields})
    await send({"type": f"{prefix}.response.body", "body": body})
    exchange.end()


def too_large(target: str, headers: list[tuple[bytes, bytes]]) -> int:
    """The status for a head that is too large or has fields with underscores, as gunicorn has it; 0 for another."""
    if len(target) > limits.LINE_BYTES:
        return 414
    sizes = [len(name) + len(value) for name, value in headers]
    if sum(sizes) > limits.HEAD_BYTES or len(sizes) > limits.FIELDS or max(sizes, default=0) > limits.LINE_BYTES:
        return 431
    return 400 if b"_" in b"".join([name for name, _ in headers]) else 0


class Server(uvicorn.Server):
    """uvicorn, which loses no connection that waits to be accepted when it is stopped."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what is waiting, then shut down."""
        limits.refuse_new_connections(sockets or [])
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def run() -> None:
    """Serve until SIGTERM."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    from serve_application import application

    web_socket: Any = "none"
    with suppress(ImportError):  # a service without websockets
        import asgi_web_socket

        web_socket = asgi_web_socket.WebSocket
    health = socket.socket(socket.AF_UNIX)
    path = os.environ.get("STACK_HEALTH_SOCKET", "/dev/shm/health.sock")  # noqa: S108
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    health.bind(path)
    config = uvicorn.Config(
        Middleware(application),
        loop="asyncio",  # uvloop, which uvicorn[standard] brings, reads as much as it likes
        http=Http,
        ws=web_socket,
        ws_max_size=limits.MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a few kB could become hundreds of MB
        access_log=False,
        proxy_headers=False,  # in Middleware
        timeout_graceful_shutdown=3,
    )
    # These lines contain query strings, which may be secret.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith('%s - "WebSocket'))
    ports = [int(os.environ.get("STACK_PORT", "8000")), *([METRICS_PORT] if METRICS else [])]
    sockets = [socket.create_server(("0.0.0.0", port), backlog=config.backlog) for port in ports]  # noqa: S104
    # As asyncio does for sockets of its own: answers would wait 40 ms for the client's acknowledgement.
    for each in sockets:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Server(config).run(sockets=[*sockets, health])
