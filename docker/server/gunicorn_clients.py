"""Limits on slow clients: how long a thread waits for one, and how many threads and bytes all may hold together."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from select import POLLIN, POLLOUT, poll
from socket import MSG_DONTWAIT, MSG_TRUNC, SHUT_RDWR, SHUT_WR, socket
from typing import Any, ClassVar

from gunicorn.http.errors import LimitRequestHeaders
from server_limits import HEAD_BYTES, LARGE_BODIES, LARGE_BYTES, LINGER_S, MEMORY_BYTES, RATE, RESET, TIMEOUT_S, unread
from server_telemetry import Exchange

LARGE_BODY_SLOTS = threading.Semaphore(LARGE_BODIES)
SLOW_S = 0.005  # a client is slow when it has sent nothing for so long, or when it does not read at once


class Client(socket):
    """A client's socket, as gunicorn uses it; when it blocks for long, the client counts as slow."""

    limit = 0  # on how many clients may be slow at a time
    queue: ClassVar[threading.Semaphore]  # of clients that wait for one of LARGE_BODY_SLOTS
    served: ClassVar[set[Client]] = set()
    slow: ClassVar[set[Client]] = set()
    slow_changed = threading.Condition()

    def __init__(self, sock: socket, does_not_compute: Callable[[], object]) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        # Has the worker not count this request among those that compete for the processor.
        self.does_not_compute = does_not_compute
        self.disconnected = self.large_body = False

    def setblocking(self, _flag: object) -> None:
        """Do nothing: each operation says itself that it does not block, and what counts as slow is counted here."""

    settimeout = setblocking

    def start_request(self, *, health_check: bool) -> None:
        """Reset what is counted for each request."""
        self.served.add(self)
        self.exchange = Exchange(health_check=health_check)
        # Bytes of the head, or of what comes after it; the context in which more of the latter are received.
        self.received, self.receiving = 0, None
        self.answer_bytes, self.waited_s = 0, 0.0
        self.time_left_s = TIMEOUT_S

    def recv(self, size: int) -> bytes:  # type: ignore[override]
        """Receive; nothing when the client is too slow. Raises an exception when it has sent too much."""
        if not self.receiving and self.received >= HEAD_BYTES:
            raise LimitRequestHeaders(f"the head has more than {HEAD_BYTES} bytes")
        with (self.receiving or nullcontext)(self.received):
            data: bytes = self.when_ready(POLLIN, super().recv, size) or b""
        self.not_slow()
        self.time_left_s = min(self.time_left_s + len(data) / RATE, TIMEOUT_S)
        self.received += len(data)
        return data

    def sendall(self, data: bytes) -> None:  # type: ignore[override]
        """Send, an answer's head with the request's id; raises BrokenPipeError when the client is too slow."""
        if not self.exchange.status and data[9:10] != b"1":  # 100 Continue and the like are no answers yet
            line, _, rest_of_head = data.partition(b"\r\n")
            data = b"%s\r\nX-Request-ID: %s\r\n%s" % (line, self.exchange.request_id.encode(), rest_of_head)
            self.exchange.status = int(data[9:12])
            self.exchange.bytes = -data.index(b"\r\n\r\n") - 4
            self.end_large_body()
        rest = memoryview(data)
        self.answer_bytes = len(data)
        while rest:
            sent = self.when_ready(POLLOUT, self.send, rest)
            if sent is None:
                self.disconnect()
                raise BrokenPipeError(errno.EPIPE, "the client reads too slowly")
            rest = rest[sent:]
        self.not_slow()
        self.answer_bytes = 0
        self.exchange.bytes += len(data)

    def when_ready(self, event: int, operation: Callable[..., Any], argument: object) -> Any:
        """Do an operation of the socket as soon as it does not block; None when the client is too slow."""
        while True:
            try:
                return operation(argument, MSG_DONTWAIT)
            except BlockingIOError:
                poller = poll()
            poller.register(self, event)
            self.slow_since = time.monotonic() - self.waited_s
            ready = self.waits(poller, SLOW_S) if event == POLLIN else []
            if not ready:
                self.is_slow()
            while not ready and self.time_left_s > 0:
                before = unread(self)
                ready = self.waits(poller, min(self.time_left_s, TIMEOUT_S / 4))
                if event == POLLOUT:
                    self.time_left_s = min(self.time_left_s + (before - unread(self)) / RATE, TIMEOUT_S)
            if not ready:
                return None

    def waits(self, poller: Any, timeout_s: float) -> Any:
        """Wait for the client for so many seconds, and count them; what is ready, as `poll` tells it."""
        began = time.monotonic()
        ready = poller.poll(timeout_s * 1000)
        waited_s = time.monotonic() - began
        self.waited_s += waited_s
        self.time_left_s -= waited_s
        return ready

    def is_slow(self) -> None:
        """Count this client as slow; if too many are, or hold too much memory, the slowest are disconnected."""
        with self.slow_changed:
            self.slow.add(self)
            while not self.disconnected:
                connected = [client for client in self.slow if not client.disconnected]
                readers = [client for client in connected if client.answer_bytes]
                if len(connected) > self.limit:
                    self.disconnect_slowest(connected)
                elif len(readers) > 1 and sum(client.answer_bytes for client in readers) > MEMORY_BYTES:
                    self.disconnect_slowest(readers)
                elif self.answer_bytes and memory_is_being_freed():
                    self.slow_changed.wait()
                else:
                    break
        self.does_not_compute()  # now that there is memory for another request

    def not_slow(self) -> None:
        """Do not count this client as slow any more."""
        if self in self.slow:
            with self.slow_changed:
                self.slow.remove(self)
                self.slow_changed.notify_all()

    def start_large_body(self) -> bool:
        """Wait for a turn, if necessary that of a slow client; False when too many wait already, or it takes too long."""
        if self.queue.acquire(blocking=False):
            self.does_not_compute()
            for _ in range(2):
                self.large_body = self.large_body or LARGE_BODY_SLOTS.acquire(timeout=TIMEOUT_S / 2)
                if not self.large_body:
                    with self.slow_changed:
                        self.disconnect_slowest(client for client in self.slow if client.large_body)
            self.queue.release()
        return self.large_body

    def end_large_body(self) -> None:
        """Let the next client have its turn."""
        if self.large_body:
            self.large_body = False
            LARGE_BODY_SLOTS.release()

    def disconnect_slowest(self, clients: Iterable[Client]) -> None:
        """Disconnect the one of some clients that was waited for longest during its request."""
        if slowest := min(clients, key=lambda client: client.slow_since, default=None):
            slowest.disconnect()
            self.slow_changed.notify_all()

    def disconnect(self) -> None:
        """Reset the connection; a thread that waits for this client goes on."""
        self.disconnected = True
        with suppress(OSError):
            self.setsockopt(*RESET)
            self.shutdown(SHUT_RDWR)

    def discard(self, size: int, flags: int) -> bytes:
        """Receive without copying (Linux): when many large bodies are refused, reading them would take all the time."""
        return super().recv(size, flags | MSG_TRUNC)

    def close_gracefully(self) -> None:
        """Close the connection when the client has received the answer and hung up, or after a while."""
        until, self.time_left_s = time.monotonic() + LINGER_S, LINGER_S
        self.does_not_compute()
        with suppress(OSError):
            self.shutdown(SHUT_WR)
            while time.monotonic() < until and self.when_ready(POLLIN, self.discard, LARGE_BYTES):
                pass
        self.not_slow()
        self.close()


def memory_is_being_freed() -> bool:
    """Whether threads hold much memory for clients that are disconnected: they will free it soon."""
    return sum(client.answer_bytes for client in list(Client.slow) if client.disconnected) > MEMORY_BYTES // 4
