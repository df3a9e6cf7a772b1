"""gunicorn's threaded worker, hardened against slow clients and ambiguous requests (request smuggling)."""

import errno
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import lru_cache, partial
from http import HTTPStatus
from socket import AF_UNIX
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from gunicorn import util
from gunicorn.http import errors, message
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers import gthread
from gunicorn_clients import Client, memory_is_being_freed
from server_limits import HEAD_BYTES, LARGE_BYTES, MEMORY_BYTES, TIMEOUT_S, fault, ipv4
from server_telemetry import is_trusted

SocketUnreader.max_body_chunk = LARGE_BYTES  # gunicorn reads up to 1 MiB more than the application has asked for
# What gunicorn would find out for each request; its settings, too (see load_wsgi): all this is a sixth of a request's time.
http_date = lru_cache(1)(util.http_date)
util.http_date = lambda: http_date(int(time.time()))
message._ip_in_allow_list = lambda peer, *_: is_trusted(peer)
DECODING = threading.RLock()
# So many requests at a time compete for the processor, and more, step by step, while this process does not take most of its
# time. One that takes longer than BUSY_S seconds does not count any more: most likely, it waits for something else.
BUSY, BUSY_S = 16, 0.1
MOST, MEASURED_S = 0.8, 0.01
# What paths, with a slash behind them, begin with; gunicorn would take /xa for a path below /x.
PREFIX = os.environ.get("SCRIPT_NAME", "").rstrip("/") + "/"


class BodyReader:
    """Reads a request's body for the application: sends 100 Continue, and detects a body that ends too early."""

    def __init__(self, req: Any, client: Client) -> None:
        self.req, self.client, self.reader, self.bytes_read = req, client, req.body.reader, 0
        self.length = getattr(self.reader, "length", None)
        # One thread at a time decodes chunks: each of many that take much time would keep others waiting for Python's lock.
        self.decoding = DECODING if self.length is None else threading.RLock()
        self.has_turn: bool | None = None  # with chunks that turn out to be large; None: they have not
        self.reader.limit_trailer_section = HEAD_BYTES
        self.expects_continue = req._expected_100_continue and self.length != 0
        if self.expects_continue:
            req.force_close()  # unless the application reads: the client may send the body without being asked, or not
        req._expected_100_continue = False  # gunicorn would send 100 at once

    def read(self, size: int) -> bytes:
        """Read ``size`` bytes, or what is left. Raises NoMoreData when the body ends too early."""
        if self.expects_continue:
            self.expects_continue = self.req.must_close = False
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        with self.decoding:
            data: bytes = self.reader.read(size)
        self.bytes_read += len(data)
        if len(data) < size and self.bytes_read < (self.length or 0):
            raise errors.NoMoreData
        return data

    @contextmanager
    def receiving(self, received: int) -> Iterator[None]:
        """Let others decode chunks while this client sends; wait for a turn when the body turns out to be large.

        What is not in the chunks, but between them, counts 16 times: it takes much time. Raises BrokenPipeError where it gets
        no turn.
        """
        self.decoding.release()
        try:
            if self.has_turn is None and 16 * received - 15 * (self.bytes_read + self.reader.buf.tell()) > LARGE_BYTES:
                self.has_turn = self.client.start_large_body()
            if self.has_turn is False:
                raise BrokenPipeError(errno.EPIPE, "too many requests with large bodies")
            yield
        finally:
            self.decoding.acquire()


class Worker(gthread.ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A thread for each request; slow clients cannot take all threads and all memory."""

    def load_wsgi(self) -> None:
        """Load the application, and give health checks a listener and threads of their own."""
        super().load_wsgi()
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self.waiting: deque[Any] = deque()  # connections with a request that no thread handles yet
        self.busy: dict[Any, float] = {}  # connections whose requests compete for the processor, and since when
        self.starting = threading.Lock()
        self.measured = 0.0, 0.0, BUSY  # when, the processor's time until then, and the limit since then
        self.wsgi: WSGIApplication = partial(body_middleware, self.wsgi)
        # The other threads, three in sixteen, are always left for clients that are not slow.
        Client.limit = self.cfg.threads * 3 // 4
        Client.queue = threading.Semaphore(self.cfg.threads // 16)
        self.health_pool = ThreadPoolExecutor(100)  # /readyz may take its time, and must not keep /healthz waiting
        for listener in [listener for listener in self.sockets if listener.family == AF_UNIX]:
            self.sockets.remove(listener)
            listener.setblocking(False)
            self.poller.register(listener, selectors.EVENT_READ, self.accept)

    def run(self) -> None:
        """Serve until SIGTERM; then disconnect clients whose requests take longer than the graceful time."""
        super().run()
        for client in list(Client.served):
            self.log.warning("%s takes longer than %s s: disconnected", client.exchange.path, self.cfg.graceful_timeout)
            client.disconnect()
        signal.alarm(3)  # threads may need LINGER_S; those that go on would keep the process until gunicorn kills it
        self.tpool.shutdown()  # they cannot write to the access log any more when the process ends

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop accepting connections; before the worker ends, accept those that are waiting, and refuse others."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                for _ in range(self.cfg.backlog):
                    self.accept(listener)
                listener.close()  # in the backlog, they would be lost; a client that is refused can ask another replica

    def enqueue_req(self, conn: Any) -> None:
        """Have a thread handle a connection's next request, as soon as it is there."""
        conn.data_ready = conn.initialized or conn.wait_for_data(0)
        if not conn.data_ready:  # an idle connection needs no thread
            conn.set_timeout()
            self.pending_conns.append(conn)
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))
        elif isinstance(conn.server, str):  # the path of the health checks' listener
            self.start(conn, self.health_pool)
        else:
            self.waiting.append(conn)
            self.start_waiting()

    def start(self, conn: Any, pool: ThreadPoolExecutor) -> None:
        """Have a thread handle a connection's next request."""
        pool.submit(self.handle, conn).add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))

    def start_waiting(self, not_busy: Any = None) -> None:
        """Start requests, not too many at a time; one connection is not busy any more."""
        with self.starting:
            self.busy.pop(not_busy, None)
            now = time.monotonic()
            while self.waiting and not memory_is_being_freed():
                if len(self.busy) >= BUSY and self.alive and len(self.busy) >= self.limit(now):
                    longest, since = next(iter(self.busy.items()))
                    if since > now - BUSY_S:
                        break
                    del self.busy[longest]
                conn = self.waiting.popleft()
                self.busy[conn] = now
                self.start(conn, self.tpool)

    def limit(self, now: float) -> int:
        """How many requests may compete for the processor: some more where this process takes little of its time, and memory."""
        last, used, _ = self.measured
        if now > last + MEASURED_S:
            unread = sum(client.answer_bytes for client in list(Client.slow))
            takes_much = time.process_time() - used > MOST * (now - last) or unread > MEMORY_BYTES // 2
            self.measured = now, time.process_time(), BUSY if takes_much else BUSY + len(self.busy)
        return self.measured[2]

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events and handle them; when there are too many connections, close the one that is idle for longest."""
        super().wait_for_and_dispatch_events(min(timeout, MEASURED_S) if self.waiting else timeout)
        self.start_waiting()
        idle_longest = [connections[0] for connections in (self.pending_conns, self.keepalived_conns) if connections]
        if idle_longest and self.nr_conns >= self.worker_connections:
            min(idle_longest, key=lambda conn: conn.timeout).timeout = 0

    def handle(self, conn: Any) -> object:
        """Handle a connection's next request, in a thread."""
        if not isinstance(conn.sock, Client):
            conn.sock = Client(conn.sock, lambda: self.start_waiting(conn))
            conn.client = conn.client and (ipv4(conn.client[0]), conn.client[1])
        conn.sock.start_request(health_check=isinstance(conn.server, str))
        keep = super().handle(conn)
        Client.served.remove(conn.sock)
        conn.sock.exchange.end()
        conn.sock.not_slow()
        conn.sock.end_large_body()
        if not keep:
            # gunicorn does this in its main thread, where all others would wait until this client hangs up.
            conn.sock.close_gracefully()
            conn.close = lambda **_: None
        elif conn.parser:
            conn.parser.mesg = None  # an idle connection needs no memory for its last request
        self.start_waiting(conn)
        return keep

    def handle_request(self, req: Any, conn: Any) -> object:
        """Answer a request unless it is ambiguous, or for another application."""
        status = fault(req.method, "1.1" if req.version >= (1, 1) else "1.0", req.uri, req.headers)
        status = status or 404 * (not f"{req.path}/".startswith((PREFIX, "*")))
        req.headers = conn.sock.exchange.start((conn.client or ("",))[0], req.method, req.path, req.headers)
        req.body.reader = body = BodyReader(req, conn.sock)
        conn.sock.received = conn.parser.unreader.buf.tell()
        conn.sock.receiving = body.receiving if body.length is None else nullcontext
        if not status and (body.length or 0) > LARGE_BYTES and not conn.sock.start_large_body():
            status = 503
        try:
            if not status:
                return super().handle_request(req, conn)
        except BaseException as error:
            req.uri = req.path  # which is logged: the query may be secret
            # Flask-Sock has answered by the socket itself, and its web socket has ended.
            taken = isinstance(error, StopIteration) and "SEC-WEBSOCKET-KEY" in dict(req.headers)
            answering = conn.sock.exchange.status = conn.sock.exchange.status or 101 * taken
            not_answered = OSError, StopIteration  # which gunicorn takes for its own, and closes the connection
            if body.has_turn is False and not answering:
                status = 503
            elif isinstance(error, Exception) and (answering or req.body.failed or not isinstance(error, not_answered)):
                raise
            else:  # sys.exit() would end the process
                raise (StopIteration if answering else RuntimeError) from error
        util.write_error(conn.sock, status, HTTPStatus(status).phrase, "")
        return False

    def _keepalive_after(self, conn: Any, keepalive: object) -> bool:
        """Whether the connection can be used again; not if the answer is too short, or what was not read is malformed."""
        try:
            answer = conn.parser.mesg.body.reader.answer
            complete = answer.response_length in (None, answer.sent) or answer._omits_body
            return complete and bool(super()._keepalive_after(conn, keepalive))
        except Exception:  # gunicorn would send a second answer
            return False


def body_middleware(app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Call the application; its answer to a malformed body, most likely 500, is replaced by 400, its request id by ours."""
    body: Any = environ["wsgi.input"]

    def start(status: str, fields: Any, *error: Any) -> Any:
        if body.failed:
            raise errors.InvalidChunkSize(b"the body is malformed or incomplete")
        lengths = [value for name, value in fields if name.lower() == "content-length"]
        if status[0] == "1" or len(lengths) > 1 or not all(map(str.isdigit, lengths)):
            raise ValueError(f"the answer is invalid: status {status}, Content-Length {lengths}")
        body.reader.expects_continue = False
        body.reader.answer = start_response.__self__  # type: ignore[attr-defined]
        environ["gunicorn.socket"].time_left_s = TIMEOUT_S
        return start_response(status, [field for field in fields if field[0].lower() != "x-request-id"], *error)

    answer = app(environ, start)
    if environ["REQUEST_METHOD"] != "HEAD":
        return answer
    try:
        next(iter(answer), None)  # which may start it; its body is not sent, and may be endless
    finally:
        getattr(answer, "close", list)()
    return []
