"""docker/dev/live.py, as plain processes: a service in Flask, a worker, and what may happen to them."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import pytest

from tasks.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
LIVE = ROOT / "docker" / "dev" / "live.py"
PATIENCE = 20.0
APP = """
import time
from flask import Flask
from .deep.text import TEXT

app = Flask(__name__)

@app.get("/")
def index():
    return TEXT

@app.get("/slow")
def slow():
    time.sleep(1)
    return TEXT

@app.get("/die")
def die():
    import os
    os._exit(3)
"""


class Live:
    """A running live.py, or another ``program`` of its kind: its service's folder, its log, and its port."""

    def __init__(self, folder: Path, *command: str, program: Path = LIVE, **env: str) -> None:
        self.folder = folder
        self.log = folder.parent.parent / "log.txt"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.env = os.environ | {
            "FLASK_APP": "web",
            "FLASK_RUN_HOST": "127.0.0.1",
            "FLASK_RUN_PORT": str(self.port),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, program, *command],
                cwd=folder,
                env=self.env | env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def ask(self, path: str = "/") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def answers(self, text: str) -> int:
        """Wait until the answer contains a text, and return its status."""
        return until(lambda: (found := self.ask())[1].find(text) >= 0 and found[0])

    def says(self, text: str, times: int = 1) -> bool:
        """Wait until the log contains a text so many times."""
        return until(lambda: self.log.read_text().count(text) >= times)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def reloads(self) -> int:
        return self.log.read_text().count(" changed")


def until(found: Callable[[], T]) -> T:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if result := found():
                return result
        except OSError:
            result = None
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


@contextmanager
def running(folder: Path, *command: str, program: Path = LIVE, **env: str) -> Iterator[Live]:
    live = Live(folder, *command, program=program, **env)
    try:
        yield live
    finally:
        live.process.terminate()
        try:
            assert live.process.wait(PATIENCE) == 0, live.log.read_text()
            # Whatever it started is gone with it.
            assert until(lambda: not members(folder))
        finally:
            live.process.kill()


def members(folder: Path) -> list[str]:
    """The processes that work in a folder."""
    done = subprocess.run(["find", "/proc", "-maxdepth", "2", "-name", "cwd", "-lname", str(folder)], capture_output=True, text=True, check=False)  # fmt: skip
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "services" / "web"
    (folder / "web" / "deep").mkdir(parents=True)
    (folder / "web" / "__init__.py").write_text(APP)
    (folder / "web" / "deep" / "text.py").write_text("TEXT = 'one'\n")
    return folder


@pytest.fixture
def live(folder: Path) -> Iterator[Live]:
    with running(folder) as live:
        live.answers("one")
        yield live


def test_a_nested_file_is_reloaded(live: Live) -> None:
    live.write("web/deep/text.py", "TEXT = 'two'\n")
    live.answers("two")
    assert '"GET / HTTP/1.1" 200' in live.log.read_text()


def test_a_new_file_in_a_new_folder_is_seen(live: Live) -> None:
    live.write(
        "web/deep/text.py", "try:\n    from ..fresh.er.text import TEXT\nexcept ImportError:\n    TEXT = 'two'\n"
    )
    live.answers("two")
    live.write("web/fresh/er/text.py", "TEXT = 'three'\n")
    live.answers("three")
    live.write("web/fresh/er/text.py", "TEXT = 'four'\n")
    live.answers("four")


@pytest.mark.parametrize(("mistake", "name"), [("TEXT = \n", "SyntaxError"), ("1 / 0\n", "ZeroDivisionError")])
def test_a_mistake_is_shown_and_mended(live: Live, mistake: str, name: str) -> None:
    live.write("web/deep/text.py", mistake)
    assert live.answers(name) == 500
    assert "deep/text.py" in live.ask()[1]
    live.says("Traceback")
    live.says(name)
    live.write("web/deep/text.py", "TEXT = 'right again'\n")
    assert until(lambda: live.ask() == (200, "right again"))  # the old page may quote the new source


def test_a_process_that_ends_by_itself_is_told_and_starts_again_on_a_change(live: Live) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        live.ask("/die")
    assert live.answers("web ended with 3") == 500
    live.write("web/deep/text.py", "TEXT = 'two'\n")
    assert live.answers("two") == 200
    live.write("web/deep/text.py", "raise SystemExit(4)\n")
    assert live.answers("web ended with 4") == 500


def test_a_burst_is_one_reload(live: Live) -> None:
    for number in range(500):
        live.write(f"web/many/file{number}.py", "")
    live.write("web/deep/text.py", "TEXT = 'two'\n")
    live.answers("two")
    time.sleep(0.5)
    # The new folder is seen with its first files; a slow machine may take a breath in between.
    assert live.reloads() <= 2


def test_what_nobody_wrote_by_hand_is_ignored(live: Live) -> None:
    for name in (
        "__pycache__/a.py",
        ".git/index",
        ".pytest_cache/v/x",
        "web/.hidden/a.py",
        "web/a.pyc",
        "web/a.py~",
        "a.log",
    ):
        live.write(name, "x")
    time.sleep(0.5)
    # A folder's own event is no file's: only names that are ignored themselves were made.
    assert live.reloads() == 0


def test_a_request_in_flight_finishes_while_the_new_process_answers(live: Live) -> None:
    answers: list[tuple[int, str]] = []
    slow = threading.Thread(target=lambda: answers.append(live.ask("/slow")))
    slow.start()
    time.sleep(0.2)
    live.write("web/deep/text.py", "TEXT = 'two'\n")
    live.answers("two")
    assert not answers
    slow.join(PATIENCE)
    assert answers == [(200, "one")]


def test_no_connection_is_refused_or_reset(live: Live) -> None:
    failures: list[BaseException] = []
    done = threading.Event()
    count = 0

    def ask() -> None:
        nonlocal count
        while not done.is_set():
            try:
                live.ask()
                count += 1
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    for number in range(30):
        live.write("web/deep/text.py", f"TEXT = 'edit {number}.'\n")
        live.answers(f"edit {number}.")
    done.set()
    for client in clients:
        client.join()
    assert failures == []
    assert count > 30


def test_a_process_that_hangs_is_killed(live: Live) -> None:
    live.write("web/deep/text.py", "import atexit, time\natexit.register(time.sleep, 100)\nTEXT = 'hangs'\n")
    live.answers("hangs")
    live.write("web/deep/text.py", "TEXT = 'two'\n")
    live.answers("two")
    live.says("does not end: killed")


def test_polling_sees_changes_too(folder: Path) -> None:
    with running(folder, STACK_POLL="1") as live:
        live.answers("one")
        time.sleep(1.1)  # it compares times
        live.write("web/deep/text.py", "TEXT = 'two'\n")
        live.answers("two")


def test_a_worker_restarts(folder: Path) -> None:
    worker = "import sys, time, web_text\nprint(web_text.TEXT, *sys.argv[1:], flush=True)\ntime.sleep(100)\n"
    (folder / "worker.py").write_text(worker)
    (folder / "web_text.py").write_text("TEXT = 'works'\n")
    for command in (["-m", "worker"], ["worker.py"]):
        with running(folder, *command, "an argument") as live:
            live.says("works an argument")
            live.write("web_text.py", "TEXT = 'also'\n")
            live.says("also an argument")
            live.write("web_text.py", "1 / 0\n")
            live.says("ZeroDivisionError")
            live.says("ended with 1")
            live.write("web_text.py", "TEXT = 'works'\n")
            live.says("works an argument", 2)


def test_changed_dependencies_ask_for_a_rebuild(folder: Path) -> None:
    lock, project = (folder.parent.parent / name for name in ("poetry.lock", "pyproject.toml"))
    package = '[[package]]\nname = "flask"\nversion = "{}"\ngroups = ["{}"]\n'
    lock.write_text(package.format("3.0", "web") + package.format("3.0", "other"))
    project.write_text('[dependency-groups]\nweb = ["flask"]\n')
    ask = "the dependencies of web have changed: rebuild"
    with running(folder) as live:
        live.answers("one")
        time.sleep(0.5)
        lock.write_text(package.format("3.0", "web") + package.format("4.0", "other"))
        time.sleep(0.5)
        assert ask not in live.log.read_text()
        lock.write_text(package.format("3.1", "web") + package.format("4.0", "other"))
        live.says(ask)
        project.write_text('[dependency-groups]\nweb = ["flask", "httpx"]\n')
        live.says(ask, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_everything(folder: Path, number: signal.Signals) -> None:
    (folder / "worker.py").write_text(
        "import signal, subprocess, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "subprocess.Popen(['sleep', '100'])\nprint('works', flush=True)\ntime.sleep(100)\n"
    )
    with running(folder, "-m", "worker") as live:
        live.says("works")
        assert len(members(folder)) == 4
        live.process.send_signal(number)
        assert live.process.wait(PATIENCE) == 0
