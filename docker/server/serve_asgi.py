"""Serves an ASGI application with uvicorn, httptools and websockets, with the same limits as gunicorn_worker.py has."""

import asyncio
import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import server_limits as limits
import uvicorn
from asgi_clients import Http, too_large
from server_telemetry import TRUSTED, Exchange
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE, STATUS_LINE

LARGE_BODY_SLOTS = asyncio.Semaphore(limits.LARGE_BODIES)
# The fields that are read or made here, and their names in capitals.
READ = ("CONTENT-LENGTH", "HOST", "TRANSFER-ENCODING", "X-FORWARDED-FOR")
NAMES = {name.lower().encode(): name for name in (*READ, "TRACEPARENT", "TRACESTATE", "X-REQUEST-ID")}

# The fields of an application's answer that are not sent, and those where its status allows no body.
OURS = {b"x-request-id"}
NO_BODY = dict.fromkeys((204, 304), OURS | {b"content-length", b"transfer-encoding"})


class Middleware:
    """Logs and counts requests, rejects ambiguous ones, and calls the application with few large bodies at a time."""

    def __init__(self, app: Any) -> None:
        self.app = ProxyHeadersMiddleware(app, TRUSTED)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Serve a request."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        slot = gone = False
        exchange = Exchange(health_check=not scope["server"] or scope["server"][1] is None)
        # None of these functions may call itself, or another that calls it: each request would be cyclic garbage.

        def release() -> None:
            nonlocal slot
            if slot:
                slot = False
                LARGE_BODY_SLOTS.release()

        async def receive_event() -> Any:
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
                ours = NO_BODY.get(exchange.status, OURS)
                fields = [field for field in event.get("headers", ()) if field[0].lower() not in ours]
                faults = [name for name, value in fields if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value)]
                if faults or exchange.status not in STATUS_LINE:  # uvicorn would close the connection without an answer
                    raise ValueError(f"the answer is invalid: status {exchange.status}, fields {faults}")
                fields.append((b"x-request-id", exchange.request_id.encode()))
                event = {**event, "headers": fields}
                exchange.started = True
            exchange.bytes += len(event.get("body") or b"")
            await send(event)
            if event["type"] == "http.response.body" and not event.get("more_body"):
                exchange.end()  # the application may go on for long

        headers, method, path = scope["headers"], scope.get("method", "GET"), scope["raw_path"].decode("latin-1")
        target = scope.get("stack.target", scope["raw_path"]).decode("latin-1")
        known = [(NAMES[name], value.decode("latin-1")) for name, value in headers if name in NAMES]
        fields = dict(known)
        made = exchange.start((scope["client"] or ("",))[0], method, path, fields)
        scope["headers"] = [field for field in headers if NAMES.get(field[0]) not in made]
        scope["headers"] += [(name.lower().encode(), value.encode()) for name, value in made.items() if value]
        try:
            length = fields.get("CONTENT-LENGTH", "0")  # a long one is zeros; Python takes no more than 4,300 digits
            status = too_large(target, headers) or 400 * (len(length) > 20)
            status = status or limits.fault(method, scope["http_version"], target, known) or scope.get("stack.status")
            if not status and (int(length) > limits.LARGE_BYTES or "TRANSFER-ENCODING" in fields):
                with suppress(TimeoutError):
                    slot = await asyncio.wait_for(LARGE_BODY_SLOTS.acquire(), 2 * limits.TIMEOUT_S)
                status = 0 if slot else 503
            await (respond(scope, send, exchange, status) if status else self.app(scope, receive_event, send_and_count))
            if not exchange.started and not gone:
                raise RuntimeError("the application has not answered")
        except BaseException as error:
            if gone and not exchange.started:
                return None  # frameworks raise then; to log that for each client of an attack would take all the time
            if not exchange.started:
                await respond(scope, send, exchange, 500)
            error.add_note(f"request_id: {exchange.request_id}")
            raise  # for uvicorn to log it
        finally:
            release()
            exchange.end()


async def respond(scope: Any, send: Any, exchange: Exchange, status: int) -> None:
    """Answer in the application's place."""
    exchange.started, exchange.status, exchange.bytes = True, status, 0
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    fields = [(b"content-length", b"0"), (b"connection", b"close"), (b"x-request-id", exchange.request_id.encode())]
    await send({"type": f"{prefix}.response.start", "status": status, "headers": fields})
    await send({"type": f"{prefix}.response.body", "body": b""})


class Server(uvicorn.Server):
    """uvicorn, which loses no connection that waits to be accepted when it is stopped."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what is waiting, then shut down, and let the process end: exit handlers run, and the log is written."""
        limits.refuse_new_connections(sockets or [])
        await asyncio.sleep(0.1)
        await super().shutdown(sockets)
        self._captured_signals.clear()  # which uvicorn would raise again
        end = threading.Timer(2, os._exit, [0])  # threads that the application has left would go on
        end.daemon = True
        end.start()


def run() -> None:
    """Serve until SIGTERM."""
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    from serve_application import application

    path = os.environ.get("STACK_HEALTH_SOCKET", "/dev/shm/health.sock")  # noqa: S108
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    config = uvicorn.Config(
        Middleware(application),
        loop="asyncio",  # uvloop, which uvicorn[standard] brings, reads as much as it likes
        http=Http,
        ws="asgi_web_socket:WebSocket" if find_spec("websockets") else "none",
        ws_max_size=limits.MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a few kB could become hundreds of MB
        access_log=False,
        proxy_headers=False,  # in Middleware
        timeout_graceful_shutdown=3,
    )
    # These lines contain query strings, which may be secret.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith('%s - "WebSocket'))
    address = "0.0.0.0", int(os.environ.get("STACK_PORT", "8000"))  # noqa: S104
    listener = socket.create_server(address, backlog=config.backlog)
    # As asyncio does for sockets of its own: answers would wait 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Server(config).run(sockets=[listener, socket.create_server(path, family=socket.AF_UNIX)])
