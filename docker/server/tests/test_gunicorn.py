"""What the server uses of gunicorn that is not documented, and how it starts requests."""

import time
from collections import deque
from importlib import import_module
from inspect import getfullargspec, signature
from pkgutil import resolve_name
from threading import Lock
from unittest.mock import Mock, patch

import gunicorn

worker = import_module("gunicorn_worker")
# What the server overrides; what it calls with how many arguments; names that gunicorn's functions must use for what the server
# sets to have an effect.
OVERRIDDEN = {"load_wsgi", "set_accept_enabled", "enqueue_req", "wait_for_and_dispatch_events", "handle"}
OVERRIDDEN |= {"handle_request", "run", "_keepalive_after"}
CALLED = {"http.body:LengthReader.read": 2, "workers.gthread:ThreadWorker.accept": 2, "util:write_error": 4}
CALLED |= {"workers.base:Worker.handle_error": 5, "workers.gthread:TConn.set_timeout": 1}
USED = {
    "arbiter:Arbiter.handle_term": {"StopIteration"},
    "arbiter:Arbiter.reap_workers": {"WORKER_BOOT_ERROR", "APP_LOAD_ERROR"},
    "http.body:ChunkedReader.parse_trailers": {"limit_trailer_section"},
    "http.unreader:SocketUnreader.chunk": {"max_body_chunk", "recv", "sock"},
    "http.wsgi:create": {"_expected_100_continue"},
    "http.wsgi:Response.write": {"_omits_body", "response_length", "sent"},
    "workers.gthread:ThreadWorker._keepalive_after": {"finish_body"},
    "workers.gthread:ThreadWorker.enqueue_req": {"handle", "tpool"},
    "workers.gthread:ThreadWorker.handle": {"_keepalive_after", "handle_request", "data_ready"},
    "workers.gthread:ThreadWorker.murder_pending": {"pending_conns", "timeout", "nr_conns"},
    "workers.gthread:ThreadWorker.run": {"set_accept_enabled", "wait_for_and_dispatch_events", "murder_pending"},
}


def test_gunicorn_is_as_the_server_expects_it() -> None:
    told = f"gunicorn {gunicorn.__version__} has changed: review docker/server/gunicorn_*.py, then adapt this test"
    ours, theirs = worker.Worker, worker.Worker.__base__
    assert {name for name in vars(ours) if callable(getattr(theirs, name, None))} == OVERRIDDEN, told
    for name in OVERRIDDEN:  # without annotations, as gunicorn has none
        assert getfullargspec(getattr(ours, name))[:-1] == getfullargspec(getattr(theirs, name))[:-1], (told, name)
    for name, arguments in CALLED.items():
        signature(resolve_name(f"gunicorn.{name}")).bind(*range(arguments))
    missing = {name: USED[name] - set(resolve_name(f"gunicorn.{name}").__code__.co_names) for name in USED}
    assert not any(missing.values()), (told, missing)


def test_few_requests_at_a_time_compete_for_the_processor() -> None:
    started: list[int] = []
    one = worker.Worker.__new__(worker.Worker)
    one.alive, one.tpool, one.starting, one.measured = True, None, Lock(), (0.0, 0.0, 0)
    one.waiting, one.busy = deque(range(100)), {}
    one.start = lambda conn, _: started.append(conn)
    for most, busy_s, pause_s, not_busy, unread, freed, expected in [
        (0.0, 60.0, 0, None, 1 << 30, True, 0),  # when the threads of disconnected clients have freed their memory
        (0.0, 60.0, 0, None, 0, False, 16),
        (0.0, 60.0, 0, 0, 0, False, 17),  # one has ended, or its client is slow
        (0.0, 0.01, 0.02, None, 0, False, 33),
        (0.5, 60.0, 0.1, None, 1 << 30, False, 33),  # when slow clients have read their answers
        (0.5, 60.0, 0.1, None, 0, False, 49),  # they wait for something else than the processor
    ]:
        slow = {Mock(disconnected=freed, answer_bytes=unread)}
        with patch.multiple(worker, MOST=most, BUSY_S=busy_s), patch.object(worker.Client, "slow", slow):
            time.sleep(pause_s)
            one.start_waiting(not_busy)
        assert len(started) == expected
