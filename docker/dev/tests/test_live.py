"""docker/dev/live.py with supervisor.py and watch.py: web applications, commands, and what may happen to them."""

from __future__ import annotations

import http.client
import os
import re
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.project import ROOT

from .process import TIMEOUT_S, Program, running

APP = """
import asyncio, os, pathlib, flask
from .deep.text import TEXT

async def answer(path):
    if path == "/die":
        os._exit(3)
    if path == "/slow":
        pathlib.Path("begun.log").touch()
        while not os.path.exists("finish.log"):
            await asyncio.sleep(0.01)
    return TEXT

app = flask.Flask(__name__)
app.before_request(lambda: asyncio.run(answer(flask.request.path)))

def make():
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = (await answer(scope["path"])).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})
    return app
"""
WORKER = """
import signal, subprocess, sys, time, text
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen(["sleep", "100"])
print(text.TEXT, *sys.argv[1:])
time.sleep(100)
"""


@pytest.fixture(scope="module", params=["wsgi", "asgi"])
def web(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Program]:
    """An application that the tests of this module share, in any order; its first process hangs when it has to end."""
    env = {"APPLICATION": "web:app"}
    if request.param == "asgi":
        pytest.importorskip("uvicorn")
        env = {"INTERFACE": "asgi", "APPLICATION": "web:{0: make}[0]()"}
    folder = tmp_path_factory.mktemp(request.param) / "web"
    (folder / "web/deep").mkdir(parents=True)
    (folder / "web/__init__.py").write_text(APP)
    (folder / "web/deep/text.py").write_text("import atexit, time\natexit.register(time.sleep, 99)\nTEXT = 'hangs'")
    with running(folder, "live.py", **env) as web:
        web.answers("hangs")
        web.write("web/deep/text.py", "TEXT = 'replaced'")
        web.answers("replaced")
        yield web
        web.says("does not end: killed")


def test_a_nested_file_and_a_new_folder_are_reloaded(web: Program) -> None:
    web.write("web/deep/text.py", "try:\n    from ..new.er.text import TEXT\nexcept ImportError:\n    TEXT = 'nested'")
    web.answers("nested")
    for text in ("new folder", "new folder again"):
        web.write("web/new/er/text.py", f"TEXT = '{text}'")
        web.answers(text)


def test_the_debugger_answers_only_trusted_host_names(tmp_path: Path) -> None:
    """Others would be a web page's that resolve to this machine (DNS rebinding)."""
    (tmp_path / "web.py").write_text(
        "import flask\napp = flask.Flask(__name__)\n@app.get('/fail')\ndef fail():\n    1 / 0\n"
    )
    with running(tmp_path, "live.py", APPLICATION="web:app", WERKZEUG_DEBUG_PIN="off") as web:
        web.until(lambda: web.get()[0] == 404)
        for host, console, evaluates in (
            *((f"{name}:{web.port}", 200, True) for name in ("127.0.0.1", "localhost")),
            *((name, 400, False) for name in ("evil.example", "127.0.0.1.evil.example", "evil.example:80")),
        ):
            status, page = web.get("/fail", Host=host)
            assert (status, f"EVALEX = {str(evaluates).lower()}" in page) == (500, True)
            secret, frame = re.findall(r'SECRET = "(\w+)"', page)[0], re.findall(r'id="frame-(\d+)"', page)[-1]
            command = f"/fail?__debugger__=yes&cmd=6*7&frm={frame}&s={secret}"
            assert "42" in web.get(command, Host=host)[1] if evaluates else web.get(command, Host=host)[0] >= 400
            assert web.get("/console", Host=host)[0] == console


def test_the_log_has_requests_but_no_passing_health_check(web: Program) -> None:
    before = len(web.log.read_text())
    for path in ("/healthz", "/", "/healthz?x"):
        web.get(path)
    web.says('"GET /healthz?x HTTP/1.1" 200')
    web.says('"GET / HTTP/1.1" 200')
    assert "GET /healthz HTTP/1.1" not in web.log.read_text()[before:]


def test_a_service_without_that_path_passes_its_health_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docker/dev")
    check = runpy.run_path(str(ROOT / "docker/dev/live.py"))["HEALTH_CHECK"]
    assert check.match('127.0.0.1 - - [29/Nov/2026 13:27:01] "GET /healthz HTTP/1.1" 404 -')
    assert check.match('127.0.0.1:5000 - "GET /healthz HTTP/1.1" 404')
    assert not check.match('127.0.0.1:5000 - "GET /healthz HTTP/1.1" 500')


@pytest.mark.parametrize(("mistake", "name"), [("TEXT = \n", "SyntaxError"), ("1 / 0\n", "ZeroDivisionError")])
def test_an_error_is_shown_until_the_next_save(web: Program, mistake: str, name: str) -> None:
    web.write("web/deep/text.py", mistake)
    assert web.answers(name) == 500
    assert "deep/text.py" in web.get()[1]
    logged = web.log.read_text().count("GET /healthz HTTP/1.1")
    web.get("/healthz")
    web.until(lambda: web.log.read_text().count("GET /healthz HTTP/1.1") > logged)
    web.says(name)
    web.write("web/deep/text.py", "TEXT = 'right again'")
    assert web.answers("right again") == 200


def test_a_process_that_ends_by_itself_is_told_and_starts_again_on_a_change(web: Program) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        web.get("/die")
    assert web.answers("web ended with 3") == 500
    web.write("web/deep/text.py", "raise SystemExit(4)")
    assert web.answers("web ended with 4") == 500
    web.write("web/deep/text.py", "TEXT = 'alive'")
    assert web.answers("alive") == 200


def test_many_changes_are_one_and_generated_files_are_none(web: Program) -> None:
    before = len(web.log.read_text())
    (watcher,) = map(int, web.processes("watch.py"))
    pauses, last = 0, time.monotonic()
    for portion in range(5):
        os.kill(watcher, signal.SIGSTOP)  # on a busy machine it would see the files one by one
        for name in ("__pycache__/a.py", ".git/index", ".a/a.py", "web/a.pyc", "web/a.py~", "#a.py#", "a.log", "4913"):
            web.write(name, "x")
        for number in range(100):
            web.write(f"web/deep/file{portion}{number}.py", "")
        os.kill(watcher, signal.SIGCONT)
        time.sleep(0.02)  # longer than the watcher's steps
        pauses += time.monotonic() - last > 0.07  # which may be the end of the changes
        last = time.monotonic()
    web.write("web/deep/text.py", "TEXT = 'many'")
    web.answers("many")
    told = re.findall("live: (.*) changed", web.log.read_text()[before:])  # each is the first of those that changed
    assert len(told) <= 2 + pauses
    assert [name for name in told if not name.startswith("web/deep/")] == []


@pytest.mark.parametrize(
    ("setting", "kind", "polls"),
    [("", "ext4", None), ("", "9p", True), ("", "fuse.grpcfuse", True), ("0", "virtiofs", False), ("1", "ext4", True)],
)
def test_file_systems_that_tell_of_no_changes_are_polled(
    monkeypatch: pytest.MonkeyPatch, setting: str, kind: str, polls: bool | None
) -> None:
    here = str(Path.cwd()).replace(" ", r"\040")
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"a / xfs rw 0 0\nb {here} {kind} rw 0 0\n")
    monkeypatch.setenv("STACK_POLL", setting)
    assert runpy.run_path(str(ROOT / "docker/dev/watch.py"))["must_poll"]() is polls


def test_a_request_in_flight_is_finished_while_the_new_process_answers(web: Program) -> None:
    web.write("web/deep/text.py", "TEXT = 'old'")
    web.answers("old")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(web.get, "/slow")
        web.until((web.folder / "begun.log").exists)
        web.write("web/deep/text.py", "TEXT = 'young'")
        web.answers("young")
        assert not slow.done()
        web.write("finish.log", "")
        assert slow.result(TIMEOUT_S) == (200, "old")


def test_no_connection_is_refused_or_reset(web: Program) -> None:
    reloading = True

    def ask() -> set[int]:
        statuses = set()
        while reloading:
            began = time.monotonic()
            try:
                statuses.add(web.get()[0])
            except ConnectionError:
                # A process that ends closes connections without a request after 0.2 s; on a busy machine, this may be one.
                if time.monotonic() - began < 0.2:
                    raise
        return statuses

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(ask) for _ in range(2)]
        try:
            for number in range(10):
                web.write("web/deep/text.py", f"TEXT = 'edit {number}.'")
                web.answers(f"edit {number}.")
        finally:
            reloading = False
        assert [client.result() for client in clients] == [{200}, {200}]


@pytest.mark.parametrize(("poll", "command"), [("0", ["-m", "worker"]), ("1", ["worker.py"])])
def test_a_command_restarts_even_if_it_hangs(tmp_path: Path, poll: str, command: list[str]) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "text.py").write_text("1 / 0")
    with running(tmp_path, "live.py", *command, "argument", STACK_POLL=poll) as worker:
        worker.says("ZeroDivisionError")
        worker.says(f"{tmp_path.name} ended with 1")
        worker.write("text.py", "TEXT = 'works'")
        os.utime(tmp_path / "text.py", (time.time() + 9,) * 2)  # polling compares seconds
        worker.says("works argument")
        assert len(worker.processes()) >= 4  # the parent, the watcher, the worker and what it has started
        if poll == "0":
            worker.write("text.py", "TEXT = 'restarted'")
            worker.says("does not end: killed")
            worker.says("restarted argument")
            log = worker.log.read_text()
            assert log.index("does not end: killed") < log.index("restarted argument")  # never two at a time
        else:
            worker.process.send_signal(signal.SIGINT)
            worker.process.wait(TIMEOUT_S)


@pytest.mark.parametrize(
    "application",
    ["python3 -m worker argument", "python3 worker.py argument", "worker.py argument", "console argument", "binary"],
)
def test_a_command_line_is_run_and_restarted(tmp_path: Path, application: str) -> None:
    """A module, a script, a console script on the PATH, and a program that is no Python."""
    service, programs = tmp_path / "service", tmp_path / "bin"
    service.mkdir()
    programs.mkdir()
    (service / "worker.py").write_text("import sys, time, text\nprint(text.TEXT, *sys.argv[1:])\ntime.sleep(100)")
    (programs / "console").write_text(f"#!{sys.executable}\nimport worker\n")
    (programs / "binary").write_text('#!/bin/sh\necho $(cut -d"\'" -f2 text.py) argument\nexec sleep 100\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (service / "text.py").write_text("TEXT = 'first'")
    path = f"{programs}:{os.environ['PATH']}"
    env = {"INTERFACE": "command", "APPLICATION": application, "PATH": path, "PYTHONPATH": str(service)}
    with running(service, "live.py", **env) as worker:
        worker.says("first argument")
        worker.write("text.py", "TEXT = 'second'")
        worker.says("second argument")


def test_a_command_that_does_not_exist_waits_for_a_change(tmp_path: Path) -> None:
    with running(tmp_path, "live.py", INTERFACE="command", APPLICATION="worker.py x") as worker:
        worker.says(f"live: there is no program worker.py\nlive: {tmp_path.name} ended with 1; the next change")
        worker.write("worker.py", "print('here now')")
        worker.says("here now")


@pytest.mark.parametrize(
    ("interface", "application", "told"),
    [
        ("wsig", "x:y", "live: INTERFACE is 'wsig'; it must be wsgi, asgi or command\n"),
        ("command", "", "live: APPLICATION is '', which is no command line: it is empty\n"),
        ("command", "sleep '", """live: APPLICATION is "sleep '", which is no command line: No closing quotation\n"""),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, interface: str, application: str, told: str) -> None:
    program = Program(tmp_path, "live.py", INTERFACE=interface, APPLICATION=application)
    assert program.process.wait(TIMEOUT_S) == 1
    assert program.log.read_text() == told
