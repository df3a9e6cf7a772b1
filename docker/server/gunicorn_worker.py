"""gunicorn's threaded worker, made safe against clients that are slow, or malformed in their bodies."""

from __future__ import annotations

import select
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import InvalidChunkSize, InvalidHeader, NoMoreData, UnsupportedTransferCoding
from gunicorn.http.parser import RequestParser
from gunicorn.util import close_graceful, write_error
from gunicorn.workers.gthread import ThreadWorker

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# Clients must send at least so many bytes a second, but may fall this many seconds behind.
RATE = 1000
PATIENCE = 10
# Bodies of more bytes, or of unknown length, are read so many at a time, lest slow clients fill the memory together.
LARGE = 64 * 1024
LARGE_AT_A_TIME = 16


class Source:
    """A connection's reading side; for its reader, a client that lets it wait too long has gone."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.left = 0.0  # seconds to wait

    def recv(self, size: int) -> bytes:
        """Read as a socket does."""
        began = time.monotonic()
        self.sock.settimeout(max(self.left, 0.001))
        try:
            data = self.sock.recv(size)
        except TimeoutError:
            return b""
        finally:
            self.sock.settimeout(None)
        self.left = min(self.left - (time.monotonic() - began) + len(data) / RATE, PATIENCE)
        return data


class Whole(LengthReader):  # type: ignore[misc]  # gunicorn has no types
    """A body of a stated length, which gunicorn would take for complete wherever its client hangs up."""

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, or what is left of the body; raises NoMoreData when it ends before."""
        wanted = min(self.length, size)
        data: bytes = super().read(size)
        if len(data) < wanted:
            raise NoMoreData
        return data


class Chunks(ChunkedReader):  # type: ignore[misc]
    """A chunked body, whose faults are told at once also where gunicorn would wait for more."""

    def parse_chunk_size(self, unreader: Any, data: bytes | None = None) -> tuple[int, bytes]:
        """Refuse a size that no file has: somebody hopes that it overflows."""
        size, rest = super().parse_chunk_size(unreader, data)
        if size >= 1 << 63:
            raise InvalidChunkSize(b"%x" % size)
        return size, rest

    def read_into(self, unreader: Any, buf: bytearray) -> None:
        """Refuse a line that has ended in a bare LF."""
        if b"\n" in buf.partition(b"\r\n")[0]:
            raise InvalidChunkSize(bytes(buf[:20]))
        super().read_into(unreader, buf)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, made safe against clients that are slow, or malformed in their bodies."""

    def load_wsgi(self) -> None:
        """Put a judge in front of the application."""
        super().load_wsgi()
        self.wsgi: WSGIApplication = partial(judge, self.wsgi)
        self.large = threading.Semaphore(LARGE_AT_A_TIME)

    def handle(self, conn: Any) -> object:
        """Answer the next request of a connection, in a thread."""
        if conn.parser is None:
            conn.parser = RequestParser(self.cfg, Source(conn.sock), conn.client)
        conn.parser.unreader.sock.left = PATIENCE
        more = super().handle(conn)
        if not more:
            # gunicorn does this in its main thread, where all others would wait with it until the client hangs up, too.
            close_graceful(conn.sock)
            conn.close = lambda **_: None
        return more

    def handle_request(self, req: Any, conn: Any) -> object:
        """Answer a request, if it is one: RFC 9112, sections 3.2 and 6.1."""
        if req.version > (1, 0) and "HOST" not in dict(req.headers):
            raise InvalidHeader("HOST", req=req)
        for name, value in req.headers:
            if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
                raise UnsupportedTransferCoding(value)
        unreader = conn.parser.unreader
        length = getattr(req.body.reader, "length", None)
        req.body.reader = Chunks(req, unreader) if length is None else Whole(unreader, length)
        if length is not None and length <= LARGE:
            return super().handle_request(req, conn)
        if not self.large.acquire(timeout=PATIENCE):
            self.log.warning("%d large bodies are being read already: 503 to %s", LARGE_AT_A_TIME, conn.client[0])
            write_error(conn.sock, 503, "Service Unavailable", "Too many large bodies at a time")
            return False
        try:
            return super().handle_request(req, conn)
        finally:
            self.large.release()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Take new connections or not; before the end, those too that are waiting already."""
        if not self.alive:
            for listener in self.sockets * self.cfg.backlog:
                if not select.select([listener], [], [], 0)[0]:
                    break
                self.accept(listener)
        super().set_accept_enabled(enabled)


def judge(app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call the application; what it answers to a malformed body, most likely 500, becomes 400, which is the truth."""
    body: Any = environ["wsgi.input"]

    def start(*response: Any) -> Any:
        if body.failed:
            raise InvalidChunkSize(b"the body is malformed or incomplete")
        return start_response(*response)

    return app(environ, start)
