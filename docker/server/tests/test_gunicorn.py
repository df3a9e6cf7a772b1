"""What the server uses of gunicorn that is not documented, and how it starts requests."""

import time
from collections import deque
from hashlib import sha256
from importlib import import_module
from inspect import getsource
from pkgutil import resolve_name
from threading import Lock
from unittest.mock import Mock, patch

import gunicorn

worker = import_module("gunicorn_worker")
# What the server calls or sets attributes and globals of, besides what it overrides; and a digest of the source of all.
USED = """arbiter:Arbiter.handle_term arbiter:Arbiter.stop config:Config.__getattr__ http.body:Body http.body:ChunkedReader
http.body:LengthReader http.message:HeaderPolicy http.parser:Parser.finish_body http.unreader:SocketUnreader
http.wsgi:Response http.wsgi:create util:write_error workers.base:Worker.handle_error workers.gthread:TConn
workers.gthread:ThreadWorker.accept workers.gthread:ThreadWorker.finish_request workers.gthread:ThreadWorker.murder_pending"""
DIGEST = "8898155e25df3ac178f78907ecf96b7b9053ba8d04de9a911dd7ad2071a1f1dd"


def test_gunicorn_is_as_the_server_expects_it() -> None:
    ours, theirs = worker.Worker, worker.Worker.__base__
    overridden = [name for name in vars(ours) if callable(getattr(theirs, name, None))]
    used = [resolve_name(f"gunicorn.{name}") for name in USED.split()] + [getattr(theirs, name) for name in overridden]
    digest = sha256("".join(map(getsource, used)).encode()).hexdigest()
    told = f"gunicorn {gunicorn.__version__} has changed: review docker/server/gunicorn_*.py, then set DIGEST"
    assert (len(overridden), digest) == (8, DIGEST), told


def test_answers_have_the_date() -> None:
    with patch.object(worker.time, "time", side_effect=[0, 0.9, 61]):
        assert [worker.util.http_date()[-12:-4] for _ in range(3)] == ["00:00:00", "00:00:00", "00:01:01"]


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
