"""uvicorn's web sockets with limits on slow and greedy clients; only for services that have websockets."""

from typing import Any

from asgi_clients import Client
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class WebSocket(Client, WebSocketsSansIOProtocol):
    """A client that has opened a web socket."""

    read_bytes = 4096  # more could be many small messages, which take much time and memory

    def is_awaited(self) -> bool:
        """Whether the client is to read, or to complete a message."""
        return super().is_awaited() or (bool(self.frames or self.conn.reader.buffer) and not self.read_paused)

    def held_bytes(self) -> int:
        """With a message that is incomplete."""
        return super().held_bytes() + len(self.conn.reader.buffer) + sum(map(len, self.frames))

    def handle_connect(self, event: Any) -> None:
        """Have Middleware answer what websockets rejects: with an id, and a line in the log."""
        response = self.conn.accept(event)
        status, response.status_code = response.status_code, 101  # for uvicorn to go on
        self.conn.accept = lambda _: response  # type: ignore[assignment, method-assign]
        super().handle_connect(event)
        self.scope.update({"stack.status": status if status != 101 else 0, "stack.state": self})  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Handle frames; a client that sends a message in too many is disconnected, as each takes time and memory."""
        super().data_received(data)
        if len(self.frames) > 1000:
            self.disconnect()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free memory at once; websockets leaves that to the garbage collector, which does not count bytes."""
        super().connection_lost(exc)
        self.conn.reader.discard()
        self.frames.clear()
