"""What the server uses of gunicorn that is not documented, and how it starts requests."""

from __future__ import annotations

import inspect
import time
from collections import deque
from importlib import import_module
from pkgutil import resolve_name
from threading import Lock

import gunicorn
import pytest
from harness import SERVER

# Functions, their arguments, and names that they use.
USED = """
arbiter:Arbiter.handle_term (self) StopIteration
arbiter:Arbiter.stop (self, graceful=True) LISTENERS close_sockets kill_workers
http.body:Body.__init__ (self, reader) failed reader
http.body:ChunkedReader.__init__ (self, req, unreader)
http.body:ChunkedReader.parse_trailers (self, unreader, data) read_into limit_trailer_section
http.body:LengthReader.__init__ (self, unreader, length) length
http.message:HeaderPolicy._peer_is_trusted_proxy (self) peer_addr
http.message:Message.__init__ (self, cfg, unreader, peer_addr) _expected_100_continue headers max_buffer_headers must_close
http.parser:Parser.__init__ (self, cfg, source, source_addr) mesg unreader
http.unreader:SocketUnreader.chunk (self, size_hint=None) max_body_chunk recv sock
http.wsgi:create (req, sock, client, server, cfg, response_class=None, response_args=()) _expected_100_continue
util:write_error (sock, status_int, reason, mesg)
workers.base:Worker.init_process (self) load_wsgi run
workers.gthread:TConn.__init__ (self, cfg, sock, client, server) client parser server sock
workers.gthread:ThreadWorker.__init__ (self, *args, **kwargs) method_queue poller tpool
workers.gthread:ThreadWorker._keepalive_after (self, conn, keepalive) finish_body
workers.gthread:TConn.set_timeout (self) timeout
workers.gthread:ThreadWorker.accept (self, listener) TConn enqueue_req
workers.gthread:ThreadWorker.murder_pending (self) pending_conns timeout
workers.gthread:ThreadWorker.on_pending_socket_readable (self, conn, client) data_ready enqueue_req pending_conns
workers.gthread:ThreadWorker.enqueue_req (self, conn) handle submit tpool
workers.gthread:ThreadWorker.handle (self, conn) _keepalive_after handle_request sock
workers.gthread:ThreadWorker.handle_request (self, req, conn) sock wsgi
workers.gthread:ThreadWorker.run (self) alive murder_pending nr_conns set_accept_enabled wait_for_and_dispatch_events
workers.gthread:ThreadWorker.wait_for_and_dispatch_events (self, timeout) select
workers.gthread:ThreadWorker.set_accept_enabled (self, enabled) sockets
"""


@pytest.mark.parametrize("line", USED.strip().splitlines())
def test_internals(line: str) -> None:
    name, rest = line.split(" ", 1)
    arguments, _, names = rest.rpartition(")")
    function = resolve_name(f"gunicorn.{name}")
    assert (str(inspect.signature(function)), set(names.split()) - set(function.__code__.co_names)) == (
        f"{arguments})",
        set(),
    ), f"gunicorn {gunicorn.__version__} has changed {name}: review docker/server/gunicorn_*.py, then adapt this line"


def test_few_requests_at_a_time_compete_for_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SERVER)
    gunicorn_worker = import_module("gunicorn_worker")
    worker = gunicorn_worker.Worker.__new__(gunicorn_worker.Worker)
    started: list[object] = []
    monkeypatch.setattr(worker, "start", lambda conn, _: started.append(conn), raising=False)
    facts = {"alive": True, "tpool": None, "starting": Lock(), "measured": (0.0, 0.0, 0.0)}
    worker.__dict__ |= {**facts, "waiting": deque(range(100)), "busy": {}}

    def started_after(seconds: float, not_busy: object = None) -> int:
        time.sleep(seconds)
        worker.start_waiting(not_busy)
        return len(started)

    monkeypatch.setattr(gunicorn_worker, "BUSY_S", 60.0)
    monkeypatch.setattr(gunicorn_worker, "MOST", 0.0)
    assert started_after(0) == started_after(0) == 16
    assert started_after(0, started[0]) == 17
    monkeypatch.setattr(gunicorn_worker, "BUSY_S", 0.01)
    assert started_after(0.02) == 33
    monkeypatch.setattr(gunicorn_worker, "BUSY_S", 60.0)
    monkeypatch.setattr(gunicorn_worker, "MOST", 0.5)
    assert started_after(0.1) == 100  # they wait for something else
