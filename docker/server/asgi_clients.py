"""uvicorn's connections with limits on slow and greedy clients, as gunicorn_clients.py has them."""

import asyncio
import re
import sys
from http import HTTPStatus
from typing import Any, ClassVar

import server_limits as limits
from httptools import HttpRequestParser
from server_telemetry import Exchange
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION_BYTES = limits.MEMORY_BYTES // limits.CONNECTIONS
PIPELINED = 100  # requests that wait for the answer to one before
PIPELINED_BYTES = 3000  # of memory, for each
NO_PATH = re.compile(rb"^(https?://[^/?]+)(?=\?|$)")  # RFC 9112, section 3.2.2; uvicorn expects a path


def too_large(target: str, headers: list[tuple[bytes, bytes]]) -> int:
    """The status for a head that is too large or has fields with underscores, as gunicorn has it; 0 for another."""
    if len(target) > limits.LINE_BYTES:
        return 414
    sizes = [len(name) + len(value) for name, value in headers]
    if sum(sizes) > limits.HEAD_BYTES or len(sizes) > limits.FIELDS or max(sizes, default=0) > limits.LINE_BYTES:
        return 431
    return 400 if b"_" in b"".join([name for name, _ in headers]) else 0


class Client(asyncio.Protocol):
    """A client, which is disconnected when it is too slow, or when all make the server hold too much memory."""

    client: Any
    connections: Any
    loop: Any
    transport: Any
    read_bytes = 8192  # that asyncio reads, and that are parsed, at a time: more could be many small chunks
    progress = unsent = 0  # bytes that the client has sent and read since the last check; those it had not read then
    time_left_s = limits.TIMEOUT_S
    held = 0  # bytes of memory; 0: it is not connected
    held_by_all: ClassVar[int] = 0

    def is_awaited(self) -> bool:
        """Whether it is the client's turn to do something."""
        return bool(self.transport.get_write_buffer_size())

    def held_bytes(self) -> int:
        """How much memory the client makes the server hold."""
        # From Python 3.12 on, asyncio keeps what is sent in part as a whole, and get_write_buffer_size() counts the rest.
        parts = self.transport._buffer
        whole = len(parts) if isinstance(parts, bytearray) else sum(len(getattr(part, "obj", part)) for part in parts)
        return CONNECTION_BYTES + whole

    def connection_made(self, transport: Any) -> None:
        """Start to watch the client."""
        transport.max_size = self.read_bytes
        super().connection_made(transport)
        self.client = self.client and (limits.ipv4(self.client[0]), self.client[1])
        self.loop.call_later(1, self.check)
        self.limit_memory(self.held_bytes())

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching the client."""
        self.limit_memory(0)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Handle what the client has sent."""
        self.progress += len(data)
        super().data_received(data)
        self.limit_memory(self.held_bytes())

    def pause_writing(self) -> None:
        """Make the application wait for the client."""
        super().pause_writing()
        self.limit_memory(self.held_bytes())

    def resume_writing(self) -> None:
        """Let the application go on; the client has read most of the buffer."""
        self.progress += limits.LARGE_BYTES
        super().resume_writing()

    def check(self) -> None:
        """Once a second, disconnect the client if it is too slow."""
        if self.held:
            self.limit_memory(self.held_bytes())
        if not self.held:  # it is disconnected, or a web socket now
            return
        unsent = self.transport.get_write_buffer_size() + limits.unread(self.transport.get_extra_info("socket"))
        left_s = self.time_left_s - 1 + (self.progress + max(self.unsent - unsent, 0)) / limits.RATE
        self.time_left_s = min(left_s, limits.TIMEOUT_S) if self.is_awaited() else limits.TIMEOUT_S
        self.progress, self.unsent = 0, unsent
        if self.time_left_s <= 0:
            self.disconnect()
        else:
            self.loop.call_later(1, self.check)

    def limit_memory(self, held: int) -> None:
        """Count what this client holds; if all hold too much, disconnect the slowest, except the one that holds most.

        Of those that are equally slow, and of those that are not, it is the ones that hold most: an attack may be a crowd of
        clients that wait for their turn, and who has just connected is not to pay for it.
        """
        more = held - self.held
        Client.held_by_all += more
        self.held = held
        if more > 0 and Client.held_by_all > limits.MEMORY_BYTES:  # disconnect() calls this, too
            *others, largest = sorted(self.connections, key=lambda each: each.held)
            others.sort(key=lambda each: (not each.client, each.time_left_s, -each.held))
            for slowest in others:  # some more than needed, because sorting takes time
                if Client.held_by_all - largest.held <= limits.MEMORY_BYTES * 15 // 16:
                    break
                slowest.disconnect()

    def disconnect(self) -> None:
        """Close the connection; reset it if the client has not read all: the system would keep that for long."""
        self.limit_memory(0)
        if self.transport.get_write_buffer_size():
            self.transport.get_extra_info("socket").setsockopt(*limits.RESET)
        self.transport.abort()


class Http(Client, HttpToolsProtocol):
    """A client that speaks HTTP."""

    in_head = True  # whether a head is being received
    # The latter since the last head or part of a body: of a head, chunk sizes, trailers.
    request_bytes = framing_bytes = 0
    ends = False  # whether the server sends no more
    body: bytes | bytearray = b""  # what of a request's body is not passed on yet

    def is_awaited(self) -> bool:
        """Whether the client is to read, or to send."""
        cycle = self.cycle
        answering = cycle and not cycle.response_complete and (not cycle.more_body or self.flow.read_paused)
        return not answering or self.in_head or super().is_awaited()

    def held_bytes(self) -> int:
        """With a request's bytes, which the application may have by now; none when it is a web socket now."""
        if self.transport.get_protocol() is not self:
            return 0
        request: int = min(self.request_bytes, limits.LARGE_BYTES)
        if self.cycle:
            request = 0 if self.cycle.response_complete else max(request, len(self.cycle.body))
        return super().held_bytes() + request + PIPELINED_BYTES * len(self.pipeline)

    def data_received(self, data: bytes) -> None:
        """Parse what the client has sent, unless a head or trailer is too large."""
        if self.ends:
            return
        self.request_bytes += len(data)
        self.framing_bytes += len(data)
        self.chunk = data
        super().data_received(data)
        self.pass_on_body()
        self.chunk = b""
        if self.framing_bytes > limits.HEAD_BYTES:
            self.reject(431 if self.in_head else 400)

    def on_message_begin(self) -> None:
        """Start to count the head's bytes, and those of the request."""
        super().on_message_begin()
        if len(self.pipeline) >= PIPELINED:
            raise BufferError  # which rejects the request
        if not self.in_head:  # else it is the first request, and all bytes are counted
            self.framing_bytes = self.request_bytes = 0
        self.in_head, self.body = True, bytearray()

    def on_headers_complete(self) -> None:
        """Stop counting the head's bytes."""
        if self.parser.get_method() == b"CONNECT":
            raise BufferError  # which rejects the request
        if self.ignores_upgrade():
            return
        self.url = NO_PATH.sub(rb"\1/", self.url)
        super().on_headers_complete()
        self.in_head, self.framing_bytes = False, 0
        self.scope["headers"] = [*self.headers]  # uvicorn adds trailers to its own list
        # The path alone may hide another host.
        self.scope.update({"stack.target": self.url, "stack.state": self.cycle})  # type: ignore[misc]
        if self.scope["http_version"] == "1.0" and self.cycle:
            self.cycle.waiting_for_100_continue = False

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body until all of it that is there is passed on; start to count the bytes that are no body."""
        self.body += body
        self.framing_bytes = 0

    def pass_on_body(self) -> None:
        """Pass on what of a body has come, in one piece: uvicorn takes much longer for each of many small chunks."""
        if self.body:
            super().on_body(bytes(self.body))
            self.body = bytearray()

    def _should_upgrade(self) -> bool:
        """Whether to open a web socket: not after a request that has no answer yet, and not for what websockets ignores."""
        idle = not self.cycle or self.cycle.response_complete
        plain = (self.parser.get_method(), self.parser.get_http_version()) == (b"GET", "1.1")
        bodiless = {b"content-length", b"transfer-encoding"}.isdisjoint(dict(self.headers))
        small = not too_large(self.url.decode("latin-1"), self.headers)
        return idle and plain and bodiless and small and super()._should_upgrade()

    def ignores_upgrade(self) -> bool:
        """Whether the request asks for another protocol and does not get it, as from Java's clients, which ask for h2c."""
        return bool(self.parser.should_upgrade()) and not self._should_upgrade()

    def on_message_complete(self) -> None:
        """Pass on the rest of the body; ignore the end of a head that _unsupported_upgrade_warning() has parsed again."""
        self.pass_on_body()
        if not self.ignores_upgrade():
            super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Parse a request again without its field Upgrade, after which httptools takes a body for another request."""
        fields = b"".join(b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        self.parser = HttpRequestParser(self)
        upgrade: Any = sys.exc_info()[1]
        self.data_received(line + fields + b"\r\n" + self.chunk[upgrade.args[0] :])

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.time_left_s = limits.TIMEOUT_S
        super().on_response_complete()
        self.limit_memory(self.held_bytes())

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Answer what is no request."""
        self.reject(400)

    def reject(self, status: int) -> None:
        """Answer and log a request that did not get as far as the application, and close the connection."""
        if self.cycle and not self.cycle.response_complete and (self.pipeline or not self.cycle.more_body):
            # Requests before it are answered; where another answer came, it would be theirs.
            self.cycle.keep_alive = False
        elif self.cycle and self.cycle.response_started and not self.cycle.response_complete:
            self.disconnect()
        elif not self.ends:
            if self.cycle:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            exchange = Exchange(health_check=False)
            exchange.client, exchange.status = (self.client or ("",))[0], status
            self.transport.write(
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nX-Request-ID: {exchange.request_id}\r\n"
                "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
            )
            self.close_gracefully()
            exchange.end()

    def close_gracefully(self) -> None:
        """Close the connection in a while; at once, it would be reset if the client still sends, and the answer lost."""
        self.ends = True
        self.transport.write_eof()
        self.loop.call_later(limits.LINGER_S, self.transport.close)

    def shutdown(self) -> None:
        """Close the connection after the current request, or one that may be on its way."""
        self.loop.call_later(0 if self.cycle and not self.cycle.response_complete else 0.5, super().shutdown)
