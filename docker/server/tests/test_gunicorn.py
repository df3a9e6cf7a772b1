"""What the server uses of gunicorn that is not documented, and how it starts requests."""

from __future__ import annotations

import time
from collections import deque
from importlib import import_module
from pkgutil import resolve_name
from threading import Lock
from typing import Any

import gunicorn
import pytest
from harness import SERVER

# What the server overrides, and names that gunicorn's functions must use for what the server sets to have an effect.
OVERRIDDEN = {"load_wsgi", "set_accept_enabled", "enqueue_req", "wait_for_and_dispatch_events", "handle"}
OVERRIDDEN |= {"handle_request", "_keepalive_after"}
USED = {
    "arbiter:Arbiter.handle_term": {"StopIteration"},
    "http.body:ChunkedReader.__init__": {"limit_trailer_section"},
    "http.body:ChunkedReader.parse_chunk_size": {"read_into"},
    "http.body:ChunkedReader.parse_trailers": {"read_into"},
    "http.message:HeaderPolicy._peer_is_trusted_proxy": {"peer_addr"},
    "http.unreader:SocketUnreader.chunk": {"max_body_chunk", "recv", "sock"},
    "http.wsgi:create": {"_expected_100_continue"},
    "workers.gthread:ThreadWorker._keepalive_after": {"finish_body"},
    "workers.gthread:ThreadWorker.enqueue_req": {"handle", "tpool"},
    "workers.gthread:ThreadWorker.handle": {"_keepalive_after", "handle_request", "data_ready"},
    "workers.gthread:ThreadWorker.murder_pending": {"pending_conns", "timeout", "nr_conns"},
    "workers.gthread:ThreadWorker.run": {"set_accept_enabled", "wait_for_and_dispatch_events", "murder_pending"},
}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SERVER)
    return import_module("gunicorn_worker")


def test_gunicorn_is_as_the_server_expects_it(worker: Any) -> None:
    told = f"gunicorn {gunicorn.__version__} has changed: review docker/server/gunicorn_*.py, then adapt this test"
    base = worker.gthread.ThreadWorker
    assert {name for name in vars(worker.Worker) if hasattr(base, name) and name[:2] != "__"} == OVERRIDDEN, told
    missing = {name: USED[name] - set(resolve_name(f"gunicorn.{name}").__code__.co_names) for name in USED}
    assert not any(missing.values()), (told, missing)


def test_few_requests_at_a_time_compete_for_the_processor(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    monkeypatch.setattr(worker.Worker, "start", lambda _, conn, __: started.append(conn))
    one = worker.Worker.__new__(worker.Worker)
    facts = {"alive": True, "tpool": None, "starting": Lock(), "measured": (0.0, 0.0, 0.0)}
    one.__dict__ |= {**facts, "waiting": deque(range(100)), "busy": {}}
    for most, busy_s, pause_s, not_busy, expected in [
        (0.0, 60.0, 0, None, 16),
        (0.0, 60.0, 0, 0, 17),  # one has ended, or its client is slow
        (0.0, 0.01, 0.02, None, 33),
        (0.5, 60.0, 0.1, None, 100),  # they wait for something else than the processor
    ]:
        monkeypatch.setattr(worker, "MOST", most)
        monkeypatch.setattr(worker, "BUSY_S", busy_s)
        time.sleep(pause_s)
        one.start_waiting(not_busy)
        assert len(started) == expected
