"""Serves an ASGI application with uvicorn, httptools and websockets, with the same limits as gunicorn_worker.py has."""

import asyncio
import faulthandler
import os
import signal
import socket
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import server_limits as limits
import uvicorn
from asgi_clients import Http, too_large
from server_telemetry import TRUSTED, Exchange
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HEADER_RE, HEADER_VALUE_RE
from uvicorn.server import logger

LARGE_BODY_SLOTS = asyncio.Semaphore(limits.LARGE_BODIES)
QUEUE = asyncio.Semaphore(100)  # for these; a request that waits holds some of its body, even when its client has gone
MOST_DROPPED = 1000  # events for a client that has gone: frameworks notice sooner; others might go on for ever
# The fields of an application's answer that are not sent, and those where its status allows no body.
OURS = {b"x-request-id", b"transfer-encoding"}
NO_BODY = dict.fromkeys((204, 304), OURS | {b"content-length"})


class Request(Exchange):
    """A request, and the application's answer to it."""

    started = False  # whether a part of the answer is sent
    received = 0  # bytes of the body that the application has
    dropped = 0  # events
    has_slot = False  # whether it has one of LARGE_BODY_SLOTS
    ends_with_connection = False  # whether the answer's body does, in place of a length: HTTP/1.0 has no chunks

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        super().__init__(health_check=not scope["server"] or scope["server"][1] is None)
        self.scope, self.receive_event, self.send_event = scope, receive, send
        self.state = scope.pop("stack.state")  # uvicorn's; in the scope, which it has, it would be cyclic garbage

    def gone(self) -> bool:
        """Whether the client has gone; uvicorn tells that only the last request that it has sent."""
        return self.state.disconnected or self.state.transport.is_closing()  # type: ignore[no-any-return]

    async def receive(self) -> Any:
        """Receive an event for the application; raises ConnectionError where the body is large and has no turn."""
        event = await self.receive_event()
        self.received += len(event.get("body") or b"")
        if self.received > limits.LARGE_BYTES and not self.started and not await self.has_turn():
            await self.respond(503)
            self.state.disconnected = True
            raise ConnectionError("too many requests with large bodies")
        return event

    async def has_turn(self) -> bool:
        """Wait for one of LARGE_BODY_SLOTS, if necessary; False when too many wait already, or it takes too long."""
        if not self.has_slot and not QUEUE.locked():
            async with QUEUE:
                with suppress(TimeoutError):
                    self.has_slot = await asyncio.wait_for(LARGE_BODY_SLOTS.acquire(), 2 * limits.TIMEOUT_S)
        return self.has_slot

    async def send(self, event: Any) -> None:
        """Send an event of the application's; raises ValueError for an invalid head."""
        if self.gone() and self.scope["type"] == "http":
            self.dropped += 1
            if self.dropped > MOST_DROPPED:
                raise ConnectionError("the client has gone")
            await asyncio.sleep(0)
        elif self.started:
            await self.send_part(event)
        elif event["type"] == "websocket.close":
            await self.respond(403)
        else:
            head = self.checked(event)
            self.release_slot()
            self.started = True
            if self.ends_with_connection:
                self.state.chunked_encoding = False
            await self.send_event(head)

    async def send_part(self, event: Any) -> None:
        """Send what comes after the head."""
        body, more = event.get("body") or b"", event.get("more_body")
        bodiless = self.scope.get("method") == "HEAD" or self.status in NO_BODY
        if bodiless:  # what the application sends is dropped, and may be endless
            event, body, more = {"type": event["type"]}, b"", False
        self.bytes += len(body)
        if self.ends_with_connection:
            self.state.expected_content_length = len(body)
        last = event["type"] == "http.response.body" and not more
        still_sends = last and self.state.more_body and not self.state.keep_alive
        if still_sends:
            self.state.keep_alive = True  # else uvicorn closes the connection at once
        await self.send_event(event)
        if still_sends:
            self.state.transport.get_protocol().close_gracefully()
        if more:
            await asyncio.sleep(0)  # all others would have to wait for an application that waits for nothing
        elif last:
            self.state.disconnected |= bodiless
            self.end()  # the application may go on for long

    def checked(self, head: Any) -> Any:
        """An answer's head with the request's id; raises ValueError where uvicorn would close the connection without answer."""
        accepts = head["type"] == "websocket.accept"
        self.status = 101 if accepts else int(head["status"])
        ours = NO_BODY.get(self.status, OURS)
        fields = [field for field in head.get("headers", ()) if field[0].lower() not in ours]
        lengths = [value for name, value in fields if name.lower() == b"content-length"]
        faults = [name for name, value in fields if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value)]
        faults += lengths * (len(lengths) > 1 or not all(map(bytes.isdigit, lengths)))
        if faults or not (accepts or 200 <= self.status < 600):
            raise ValueError(f"the answer is invalid: status {self.status}, fields {faults}")
        self.ends_with_connection = self.scope["http_version"] == "1.0" and not lengths
        if self.scope["type"] == "http" and self.state.waiting_for_100_continue:
            # The client need not send the body, and its next request would be taken for that.
            fields.append((b"connection", b"close"))
        return {**head, "status": self.status, "headers": [*fields, (b"x-request-id", self.request_id.encode())]}

    async def respond(self, status: int) -> None:
        """Answer in the application's place."""
        kind = "websocket.http.response" if self.scope["type"] == "websocket" else "http.response"
        fields = [(b"content-length", b"0"), (b"connection", b"close")]
        await self.send({"type": f"{kind}.start", "status": status, "headers": fields})
        await self.send({"type": f"{kind}.body", "body": b""})

    def release_slot(self) -> None:
        """Let the next request with a large body have its turn."""
        if self.has_slot:
            self.has_slot = False
            LARGE_BODY_SLOTS.release()


class Middleware:
    """Logs requests, rejects ambiguous ones, and calls the application with few large bodies at a time."""

    def __init__(self, app: Any) -> None:
        self.app = ProxyHeadersMiddleware(app, TRUSTED)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        method, path = scope.get("method", "GET"), scope["raw_path"].decode("latin-1")
        target = scope.get("stack.target", scope["raw_path"]).decode("latin-1")
        headers = [(name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in scope["headers"]]
        made = request.start((scope["client"] or ("",))[0], method, path, headers)
        try:
            # A long one is zeros; Python takes no more than 4,300 digits.
            length = dict(headers).get("CONTENT-LENGTH", "0")
            status = too_large(target, scope["headers"]) or 400 * (len(length) > 20)
            status = status or limits.fault(method, scope["http_version"], target, headers) or scope.get("stack.status")
            scope["headers"] = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in made]
            if not status and int(length) > limits.LARGE_BYTES and not await request.has_turn():
                status = 503
            await (request.respond(status) if status else self.app(scope, request.receive, request.send))
            if not request.started and not request.gone():
                raise RuntimeError("the application has not answered")
        except BaseException as error:
            expected = isinstance(error, ConnectionError) and (request.began or request.dropped > MOST_DROPPED)
            if request.gone() and (not request.started or expected):
                return  # frameworks raise then; to log that for each client of an attack would take all the time
            if not request.started:
                await request.respond(500)
            if isinstance(error, asyncio.CancelledError):  # by uvicorn, which says so: it takes too long after SIGTERM
                request.state.disconnected = True
                return
            error.add_note(f"request_id: {request.request_id}")
            if request.began:
                raise  # for uvicorn to log it, and to close the connection
            # The answer is complete, and uvicorn would close the connection under the client's next request.
            logger.error("Exception in ASGI application", exc_info=error)
        finally:
            request.release_slot()
            request.end()
            request.state.body = bytearray()  # the garbage collector may come late: it does not count bytes


class Server(uvicorn.Server):
    """uvicorn, which ends at once while the application starts, and loses no connection when it is stopped later."""

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Handle SIGTERM; uvicorn would wait until the application has started, however long that takes."""
        if not self.started:
            os._exit(0)
        # Later than all that shutdown() waits for, so only where it gets no turn: the log tells what blocks the event loop.
        faulthandler.dump_traceback_later(9, exit=True)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept what is waiting, then shut down, and let the process end: exit handlers run, and the log is written."""
        limits.refuse_new_connections(sockets or [])
        await asyncio.sleep(0.1)
        try:
            await asyncio.wait_for(super().shutdown(sockets), 6)
        except TimeoutError:
            logger.error("The application has not shut down within 6 s")
        self._captured_signals.clear()  # which uvicorn would raise again
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        signal.alarm(2)  # threads that the application has left would go on


def run() -> None:
    """Serve until SIGTERM."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # which has gunicorn reload, and would end this process
    sys.path.insert(0, os.getcwd())  # noqa: PTH109
    from serve_application import application

    with suppress(FileNotFoundError):
        os.unlink(limits.HEALTH_SOCKET)  # noqa: PTH108
    config = uvicorn.Config(
        Middleware(application),
        loop="asyncio",  # uvloop, which uvicorn[standard] brings, reads as much as it likes
        http=Http,
        ws="asgi_web_socket:WebSocket" if find_spec("websockets") else "none",
        ws_max_size=limits.MESSAGE_BYTES,
        ws_per_message_deflate=False,  # a few kB could become hundreds of MB
        access_log=False,
        proxy_headers=False,  # in Middleware
        timeout_keep_alive=999,  # check() closes idle connections
        timeout_graceful_shutdown=3,
    )
    # These lines contain query strings, which may be secret.
    logger.addFilter(lambda record: not str(record.msg).startswith('%s - "WebSocket'))
    ipv6 = ":" in limits.ADDRESS
    family, address = socket.AF_INET6 if ipv6 else socket.AF_INET, (limits.ADDRESS, limits.PORT)
    listener = socket.create_server(address, family=family, backlog=config.backlog, dualstack_ipv6=ipv6)
    # As asyncio does for sockets of its own: answers would wait 40 ms for the client's acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Server(config).run(sockets=[listener, socket.create_server(limits.HEALTH_SOCKET, family=socket.AF_UNIX)])
