"""Serves an ASGI application with uvicorn and httptools, with the same limits as gunicorn_worker.py as far as they go."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import uvicorn
from server_limits import (
    ANSWERS_BYTES,
    FIELDS,
    HEAD_BYTES,
    HOST,
    LARGE_BODIES,
    LARGE_BYTES,
    LINE_BYTES,
    RATE,
    TIMEOUT_S,
    is_ambiguous,
    refuse_new_connections,
)
from server_telemetry import LARGE_BODIES as LARGE_BODIES_GAUGE
from server_telemetry import METRICS, METRICS_PORT, Exchange, add
from uvicorn.protocols.http import httptools_impl

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

LARGE_BODY_SLOTS = asyncio.Semaphore(LARGE_BODIES)


class Cycle(httptools_impl.RequestResponseCycle):
    """A request and its answer, which are logged and counted."""

    async def run_asgi(self, app: Any) -> None:
        """Call the application."""
        address = self.scope["server"]
        if METRICS and address and address[1] == METRICS_PORT:
            self.transport.write(METRICS.response())
            self.transport.close()
            return
        self.exchange = Exchange(internal=not (address and address[1]))
        fields = {name.decode("latin-1").upper(): value.decode("latin-1") for name, value in self.scope["headers"]}
        peer = (self.scope["client"] or ("",))[0]
        fields = self.exchange.start(peer, self.scope["method"], self.scope["raw_path"].decode("latin-1"), fields)
        given = {name.lower().encode(): value.encode() for name, value in fields.items()}
        headers = [field for field in self.scope["headers"] if field[0] not in given]
        self.scope["headers"] = headers + [field for field in given.items() if field[1]]
        self.default_headers = [*self.default_headers, (b"x-request-id", given[b"x-request-id"])]
        try:
            await super().run_asgi(app)
        finally:
            self.exchange.end()

    async def send(self, message: Any) -> None:
        """Send a part of the answer."""
        self.exchange.status = message.get("status", self.exchange.status)
        self.exchange.bytes += len(message.get("body", b""))
        await super().send(message)
        if self.response_complete:
            self.exchange.end()


httptools_impl.RequestResponseCycle = Cycle  # type: ignore[misc]


class Protocol(httptools_impl.HttpToolsProtocol):
    """A connection; its client is disconnected when it is too slow, or when all hold too much memory."""

    head_bytes: int | None = 0  # None: no head is being received
    progress = unsent = 0  # bytes, since the last check and at that time
    time_left_s = TIMEOUT_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to watch the client."""
        super().connection_made(transport)
        self.loop.call_later(1, self.check)

    def on_message_begin(self) -> None:
        """Start to count the head's bytes."""
        super().on_message_begin()
        self.head_bytes = 0

    def on_headers_complete(self) -> None:
        """Stop counting the head's bytes."""
        super().on_headers_complete()
        self.head_bytes = None
        self.scope["stack.target"] = self.url  # type: ignore[typeddict-unknown-key]  # the path alone may hide another host

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent, unless the head is too large."""
        self.progress += len(data)
        super().data_received(data)
        if self.head_bytes is not None:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.reject(431)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no request."""
        self.reject(400)

    def reject(self, status: int) -> None:
        """Answer and log a request that did not get as far as the application."""
        exchange = Exchange(internal=False)
        exchange.client, exchange.status = (self.client or ("",))[0], status
        self.transport.write(
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nX-Request-ID: {exchange.request_id}\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        self.transport.close()
        exchange.end()

    def pause_writing(self) -> None:
        """Make the application wait for the client; if the answers are too large together, disconnect the slowest."""
        super().pause_writing()
        readers = [each for each in self.connections if isinstance(each, Protocol)]
        while sum(each.transport.get_write_buffer_size() for each in readers) > ANSWERS_BYTES and len(readers) > 1:
            slowest = min(readers, key=lambda each: each.time_left_s)
            slowest.disconnect()
            readers.remove(slowest)

    def resume_writing(self) -> None:
        """Let the application go on; the client has read most of the buffer."""
        self.progress += LARGE_BYTES
        super().resume_writing()

    def check(self) -> None:
        """Once a second, disconnect the client if it is too slow."""
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # or it is a web socket now
            return
        unsent = self.transport.get_write_buffer_size()
        more_body = self.cycle is None or (self.cycle.more_body and not self.cycle.response_complete)
        waiting = unsent or self.head_bytes is not None or (more_body and not self.flow.read_paused)
        progress = self.progress + max(self.unsent - unsent, 0)
        self.time_left_s = min(self.time_left_s - 1 + progress / RATE, TIMEOUT_S) if waiting else TIMEOUT_S
        self.progress, self.unsent = 0, unsent
        if self.time_left_s <= 0:
            self.disconnect()
        else:
            self.loop.call_later(1, self.check)

    def disconnect(self) -> None:
        """Reset the connection."""
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()

    def shutdown(self) -> None:
        """Close the connection after the current request, or one that may be on its way."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(0.5, super().shutdown)
        else:
            super().shutdown()


def fault(method: str, version: str, target: str, headers: list[tuple[bytes, bytes]]) -> int:
    """The status for an ambiguous or too large request; 0 for a good one."""
    fields: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        fields.setdefault(name, []).append(value)
    hosts, codings = [host.decode("latin-1") for host in fields.get(b"host", [])], fields.get(b"transfer-encoding", [])
    sizes = [len(name) + len(value) for name, value in headers]
    if len(target) > LINE_BYTES:
        return 414
    if sum(sizes) > HEAD_BYTES or len(sizes) > FIELDS or max(sizes, default=0) > LINE_BYTES:
        return 431
    if len(hosts) > 1 or (version == "1.1" and not hosts) or not all(map(HOST.fullmatch, hosts)):
        return 400
    if version not in ("1.0", "1.1") or is_ambiguous(target, "".join(hosts)):
        return 400
    if method == "CONNECT" or any(b"_" in name for name in fields) or (codings and version == "1.0"):
        return 400
    return 501 if codings and [coding.lower() for coding in codings] != [b"chunked"] else 0


class Middleware:
    """Rejects ambiguous requests, and calls the application with few large bodies at a time."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = list(scope["headers"])
        status = fault(scope["method"], scope["http_version"], scope["stack.target"].decode("latin-1"), headers)  # type: ignore[typeddict-item]
        length = int(dict(headers).get(b"content-length", 0))
        slot = not status and (length > LARGE_BYTES or any(name == b"transfer-encoding" for name, _ in headers))
        if slot:
            try:
                await asyncio.wait_for(LARGE_BODY_SLOTS.acquire(), 2 * TIMEOUT_S)
            except TimeoutError:
                status, slot = 503, False
        add(slot, LARGE_BODIES_GAUGE)

        def release() -> None:
            nonlocal slot
            if slot:
                slot = False
                LARGE_BODY_SLOTS.release()
                add(-1, LARGE_BODIES_GAUGE)

        async def send_and_release(event: ASGISendEvent) -> None:
            release()
            await send(event)

        if status:
            close: Any = [(b"connection", b"close"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": status, "headers": close, "trailers": False})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            await self.app(scope, receive, send_and_release)
        finally:
            release()


class Server(uvicorn.Server):
    """uvicorn, which loses no connection that waits to be accepted when it is stopped."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what is waiting, then shut down."""
        refuse_new_connections(sockets or [])
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
    config = uvicorn.Config(Middleware(application), http=Protocol, access_log=False, timeout_graceful_shutdown=3)
    ports = [int(os.environ.get("STACK_PORT", "8000")), *([METRICS_PORT] if METRICS else [])]
    sockets = [socket.create_server(("0.0.0.0", port), backlog=config.backlog) for port in ports]  # noqa: S104
    Server(config).run(sockets=[*sockets, health])
