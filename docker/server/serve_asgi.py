"""Serves an ASGI application with uvicorn, httptools and websockets, with the same limits as gunicorn_worker.py has."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import sys
from contextlib import suppress
from http import HTTPStatus
from typing import Any, ClassVar

import server_limits as limits
import uvicorn
from server_telemetry import LARGE_BODIES, METRICS, METRICS_PORT, METRICS_TYPE, TRUSTED, Exchange, add
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ImportError:  # a service that has no websockets
    WebSocketsSansIOProtocol = None  # type: ignore[assignment,misc]

CONNECTION_BYTES = limits.MEMORY_BYTES // limits.CONNECTIONS
# Of memory: a request that waits for the answer to the one before, and a message that waits for the application.
PIPELINED_BYTES, QUEUED_BYTES = 3000, 500
LARGE_BODY_SLOTS = asyncio.Semaphore(limits.LARGE_BODIES)
WEB_SOCKET_STATUS = {"websocket.accept": 101, "websocket.close": 403}


class Connection(asyncio.Protocol):
    """The limits on a client, which is disconnected when it is too slow, or when all hold too much memory."""

    client: Any
    connections: Any
    loop: Any
    transport: Any
    progress = unsent = held = (
        0  # bytes: read and sent since the last check, not sent then; of memory, at the last look
    )
    time_left_s = limits.TIMEOUT_S
    held_by_all: ClassVar[int] = 0

    def is_awaited(self) -> bool:
        """Whether it is the client's turn to do something."""
        return self.transport.get_write_buffer_size() > 0

    def held_bytes(self) -> int:
        """How much memory the client makes the server hold."""
        return CONNECTION_BYTES + self.transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to watch the client."""
        transport.max_size = limits.HEAD_BYTES  # type: ignore[attr-defined]  # how much asyncio reads, and parses, at a time
        super().connection_made(transport)
        self.loop.call_later(1, self.check)
        self.limit_memory()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hold no memory any more."""
        self.limit_memory(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle what the client has sent."""
        self.progress += len(data)
        super().data_received(data)
        self.limit_memory()

    def pause_writing(self) -> None:
        """Make the application wait for the client."""
        super().pause_writing()
        self.limit_memory()

    def resume_writing(self) -> None:
        """Let the application go on; the client has read most of the buffer."""
        self.progress += limits.LARGE_BYTES
        super().resume_writing()

    def check(self) -> None:
        """Once a second, disconnect the client if it is too slow."""
        if not self.held:  # it has been closed, or is a web socket now
            return
        unsent = self.transport.get_write_buffer_size()
        self.progress += max(self.unsent - unsent, 0)
        left_s = self.time_left_s - 1 + self.progress / limits.RATE
        self.time_left_s = min(left_s, limits.TIMEOUT_S) if self.is_awaited() else limits.TIMEOUT_S
        self.progress, self.unsent = 0, unsent
        self.limit_memory()
        if self.time_left_s <= 0:
            self.disconnect()
        else:
            self.loop.call_later(1, self.check)

    def limit_memory(self, held: int | None = None) -> None:
        """Count what this client holds; if all hold too much, disconnect the slowest. One may hold any amount."""
        held = self.held_bytes() if held is None else held
        Connection.held_by_all += held - self.held
        self.held = held
        if Connection.held_by_all > limits.MEMORY_BYTES:
            *others, largest = sorted(self.connections, key=lambda each: each.held)
            others.sort(key=lambda each: (not each.client, not each.is_awaited(), each.time_left_s, -each.held))
            for slowest in others:
                if Connection.held_by_all - largest.held <= limits.MEMORY_BYTES * 15 // 16:
                    break
                slowest.disconnect()

    def disconnect(self) -> None:
        """Reset the connection."""
        self.limit_memory(0)
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


class Http(Connection, HttpToolsProtocol):
    """A connection for HTTP."""

    head_bytes: int | None = 0  # None: no head is being received
    request_bytes = 0
    half_closed = rejected = False

    def is_awaited(self) -> bool:
        """Whether the client is to send or read, or has most likely hung up."""
        sends = self.cycle is None or (self.cycle.more_body and not self.cycle.response_complete)
        return (
            super().is_awaited()
            or self.half_closed
            or self.head_bytes is not None
            or (sends and not self.flow.read_paused)
        )

    def held_bytes(self) -> int:
        """With the parts of a request that have been received, also if the application has them."""
        if self.transport.get_protocol() is not self:  # it is a web socket now
            return 0
        request = min(self.request_bytes, limits.LARGE_BYTES)
        if self.cycle:
            request = 0 if self.cycle.response_complete else max(request, len(self.cycle.body))
        return super().held_bytes() + request + PIPELINED_BYTES * len(self.pipeline)

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent, unless the head is too large."""
        if self.rejected:
            return
        self.request_bytes += len(data)
        if self.head_bytes is not None:
            self.head_bytes += len(data)
        super().data_received(data)
        if self.head_bytes is not None and self.head_bytes > limits.HEAD_BYTES:
            self.reject(431)

    def eof_received(self) -> bool:
        """Still answer a client that has sent a complete request and sends no more."""
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete or self.head_bytes is not None:
            return False
        self.cycle.keep_alive = False
        self.half_closed = True
        return True

    def on_message_begin(self) -> None:
        """Start to count the head's bytes, and those of the request."""
        super().on_message_begin()
        self.head_bytes = self.request_bytes = 0

    def on_headers_complete(self) -> None:
        """Stop counting the head's bytes."""
        super().on_headers_complete()
        self.head_bytes = None
        self.scope["stack.target"] = self.url  # type: ignore[typeddict-unknown-key]  # the path alone may hide another host

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be there already."""
        super().on_response_complete()
        self.limit_memory()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no request."""
        self.reject(400)

    def reject(self, status: int) -> None:
        """Answer and log a request that did not get as far as the application, and close the connection."""
        if self.cycle and not self.cycle.response_complete and (self.pipeline or not self.cycle.more_body):
            self.cycle.keep_alive = False  # the requests before it are answered, and nothing else
        elif not self.rejected:
            self.rejected = True
            exchange = Exchange(internal=False)
            exchange.client, exchange.status = (self.client or ("",))[0], status
            self.transport.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nX-Request-ID: {exchange.request_id}\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            self.transport.write_eof()
            self.loop.call_later(
                limits.LINGER_S, self.transport.close
            )  # it would be reset while the client still sends
            exchange.end()

    def shutdown(self) -> None:
        """Close the connection after the current request, or one that may be on its way."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(0.5, super().shutdown)
        else:
            super().shutdown()


if WebSocketsSansIOProtocol:

    class WebSocket(Connection, WebSocketsSansIOProtocol):
        """A connection that has become a web socket."""

        def partial_bytes(self) -> int:
            """How much of an incomplete message has been received."""
            return len(self.conn.reader.buffer) + sum(map(len, self.frames))

        def is_awaited(self) -> bool:
            """Whether the client is to read, or to complete a message."""
            return super().is_awaited() or (self.partial_bytes() > 0 and not self.read_paused)

        def held_bytes(self) -> int:
            """With messages that are incomplete or wait for the application."""
            return super().held_bytes() + self.partial_bytes() + QUEUED_BYTES * self.queue.qsize()


class Middleware:
    """Logs and counts requests, rejects ambiguous ones, and calls the application with few large bodies at a time."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        exchange, slot, started = Exchange(internal=not (scope["server"] or ("", 0))[1]), False, False

        def release() -> None:
            nonlocal slot
            if slot:
                slot = False
                LARGE_BODY_SLOTS.release()
                add(-1, LARGE_BODIES)

        async def send_and_count(event: Any) -> None:
            nonlocal started
            release()
            if not started:
                started = True
                exchange.status = event.get("status") or WEB_SOCKET_STATUS[event["type"]]
                event["headers"] = [*event.get("headers", ()), (b"x-request-id", exchange.request_id.encode())]
            exchange.bytes += len(event.get("body") or b"")
            await send(event)
            if event["type"] == "http.response.body" and not event.get("more_body"):
                exchange.end()  # the application may go on for long

        async def respond(status: int, body: bytes = b"") -> None:
            kind = "websocket.http" if scope["type"] == "websocket" else "http"
            fields = [
                (b"content-type", METRICS_TYPE),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            await send_and_count({"type": f"{kind}.response.start", "status": status, "headers": fields})
            await send_and_count({"type": f"{kind}.response.body", "body": body})

        if METRICS and scope["server"][1] == METRICS_PORT:
            await respond(200, METRICS.text())
            return
        headers = [(name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in scope["headers"]]
        peer, path, method = (
            (scope["client"] or ("",))[0],
            scope["raw_path"].decode("latin-1"),
            scope.get("method", "GET"),
        )
        made = exchange.start(peer, method, path, dict(headers))
        given = {name.lower().encode(): value.encode() for name, value in made.items()}
        scope["headers"] = [field for field in scope["headers"] if field[0] not in given]
        scope["headers"] += [field for field in given.items() if field[1]]
        target = scope.get("stack.target", scope["raw_path"]).decode("latin-1")
        try:
            status = too_large(target, headers) or limits.fault(method, scope["http_version"], target, headers)
            length = int(dict(headers).get("CONTENT-LENGTH", 0))
            if not status and (length > limits.LARGE_BYTES or "TRANSFER-ENCODING" in dict(headers)):
                try:
                    slot = await asyncio.wait_for(LARGE_BODY_SLOTS.acquire(), 2 * limits.TIMEOUT_S)
                    add(slot, LARGE_BODIES)
                except TimeoutError:
                    status = 503
            await (respond(status) if status else self.app(scope, receive, send_and_count))
        except BaseException:
            if not started:
                await respond(500)
            raise  # for uvicorn to log it
        finally:
            release()
            exchange.end()


def too_large(target: str, headers: list[tuple[str, str]]) -> int:
    """The status for a head that is too large or has fields with underscores, as gunicorn has it; 0 for another."""
    sizes = [len(name) + len(value) for name, value in headers]
    if len(target) > limits.LINE_BYTES:
        return 414
    if sum(sizes) > limits.HEAD_BYTES or len(sizes) > limits.FIELDS or max(sizes, default=0) > limits.LINE_BYTES:
        return 431
    return 400 if any("_" in name for name, _ in headers) else 0


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

    health = socket.socket(socket.AF_UNIX)
    path = os.environ.get("STACK_HEALTH_SOCKET", "/dev/shm/health.sock")  # noqa: S108
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    health.bind(path)
    config = uvicorn.Config(
        Middleware(ProxyHeadersMiddleware(application, TRUSTED)),
        http=Http,
        ws=WebSocket if WebSocketsSansIOProtocol else "none",
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
    Server(config).run(sockets=[*sockets, health])
