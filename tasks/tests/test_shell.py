"""Commands: what is shown of them, how they fail, and that an interrupt ends them all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, main_thread
from types import FrameType
from typing import Any

import pytest

from .. import shell
from ..project import ROOT
from ..shell import CommandFailed, UserError, output, run_parallel
from .conftest import write_tool

URL = "https://user:secret@mirror/simple"


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """SIGINT as it is on a terminal: a script's background job ignores it, and so would the commands of these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
    shell.INTERRUPTED.clear()


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_failure_is_told_by_its_last_line() -> None:
    assert output("echo", "out") == "out\n"
    with pytest.raises(CommandFailed, match=r"`sh -c '.*' \.\.\.` failed: two") as failed:
        output("sh", "-c", "echo one >&2; echo two >&2; exit 3")
    assert failed.value.text == "one\ntwo"
    with pytest.raises(CommandFailed, match=r"failed: docker: why$"):
        output("sh", "-c", "printf \"docker: why\\n\\nRun 'docker run --help' for more information\\n\" >&2; exit 1")
    with pytest.raises(CommandFailed, match="failed: it printed nothing"):
        output("false")
    with pytest.raises(UserError, match="no-such-program is not installed"):
        output("no-such-program")


def test_a_program_in_a_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system answers EACCES for a folder on the PATH that is another user's, and for a file that may not be executed."""
    (tmp_path / "no-such-program").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no-such-program is not installed"):
        output("no-such-program")


def test_what_is_no_text_is_read_all_the_same() -> None:
    """A service may log in another encoding than this machine's."""
    assert output("printf", r"f\374r\n") == "f\ufffdr\n"


def test_an_engine_that_is_gone_is_told_as_such() -> None:
    with pytest.raises(CommandFailed, match="the Docker engine does not answer any more"):
        output("sh", "-c", "echo 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1")
    with pytest.raises(CommandFailed, match="the Docker engine does not answer any more"):  # it ends in the middle
        output("sh", "-c", "echo 'error during connect: Post \"http://x/containers/1/stop\": EOF' >&2; exit 1")


def test_credentials_are_in_nothing_that_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs/step.log"
    assert "secret" not in str(UserError(f"no answer from {URL}"))
    shell.show(("pip", "install", "--index-url", URL))
    shell.step("a step", "echo", URL, log=log)
    with pytest.raises(CommandFailed) as failed:
        shell.step("a step", "sh", "-c", f"echo 'cannot reach {URL}'; exit 1", log=log)
    assert str(failed.value).endswith("failed: cannot reach https://***@mirror/simple")
    assert "https://***@mirror/simple" in log.read_text()
    out = capsys.readouterr().out
    assert "$ pip install --index-url https://***@mirror/simple" in out
    assert "secret" not in out + log.read_text()


def test_a_step_is_one_line_and_its_output_is_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "logs/step.log"
    shell.step("a step", "sh", "-c", "echo $WORD; echo 2 >&2", log=log, env={"WORD": "1"})
    assert log.read_text() == "$ sh -c 'echo $WORD; echo 2 >&2'\n1\n2\n"
    assert capsys.readouterr().out.startswith("a step: 0.")


def test_lines_come_one_by_one_and_input_goes_in() -> None:
    found: list[str] = []
    assert shell.lines("sh", "-c", "cat; exit 3", on_line=found.append, stdin="a\nb\n") == 3
    assert found == ["a", "b"]


def test_a_command_that_fails_before_it_reads_is_told_as_such() -> None:
    """Docker's client, where it may not write its configuration."""
    found: list[str] = []
    assert shell.lines("sh", "-c", "exec <&-; echo why; exit 3", on_line=found.append, stdin="x" * 1_000_000) == 3
    assert found == ["why"]


def test_a_command_that_ignores_an_interrupt_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shell, "STOP_TIMEOUT_S", 0.1)
    write_tool(tmp_path / "deaf", f"trap '' INT; touch {tmp_path}/ready; while :; do sleep 0.05; done")
    process = shell.start(str(tmp_path / "deaf"))
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    shell.stop(process)
    assert process.returncode == -signal.SIGKILL


def test_jobs_run_in_parallel_and_are_told_as_they_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    wait = f"until [ -e {tmp_path}/go ]; do sleep 0.01; done; echo slow"
    jobs = {"slow": lambda: output("sh", "-c", wait), "fast": lambda: output("touch", f"{tmp_path}/go")}
    ended: list[str] = []
    assert run_parallel(jobs, lambda name, _: ended.append(name)) == {"slow": "slow\n", "fast": ""}
    assert sorted(ended) == ["fast", "slow"]
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert run_parallel({name: partial(str, name) for name in "abc"}) == {name: name for name in "abc"}
    assert run_parallel({}) == {}


def test_one_that_fails_ends_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)

    def fail() -> str:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise UserError("no")

    def sleep() -> str:
        return output("sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 600")

    with pytest.raises(UserError, match="no"):
        run_parallel({"sleep": sleep, "fail": fail, "late": lambda: output("touch", f"{tmp_path}/late")})
    assert not alive(int((tmp_path / "pid").read_text()))
    assert not (tmp_path / "late").exists()


def test_an_interrupt_at_any_point_ends_all_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each line of run_parallel in turn, and at last while it waits for jobs that would take a minute."""
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(shell, "STOP_TIMEOUT_S", 2)
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(seconds / 10))  # while threads end
    jobs = {"first": str} | {f"sleep-{number}": partial(output, "sleep", "60") for number in range(4)}
    started: list[subprocess.Popen[str]] = []
    start = shell.start
    left = 0
    waited = False

    def recorded(*command: str, **options: Any) -> subprocess.Popen[str]:
        started.append(process := start(*command, **options))
        return process

    class Ended(SimpleQueue[object]):
        """Gives the first job's result; after it, nothing more would come."""

        first = True

        def get(self, *_: object) -> object:
            nonlocal left, waited
            if self.first:
                self.first = False
                return super().get()
            left, waited = 0, True
            raise KeyboardInterrupt

    def at_call(frame: FrameType, _event: str, _arg: object) -> Any:
        return at_line if frame.f_code is run_parallel.__code__ else None

    def at_line(_frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        left -= event == "line"
        if event == "line" and left == 0:
            raise KeyboardInterrupt
        return at_line

    monkeypatch.setattr(shell, "start", recorded)
    monkeypatch.setattr(shell, "SimpleQueue", Ended)
    tracer = sys.gettrace()
    for left in count(1):  # noqa: B007 (at_line counts it down)
        began = time.monotonic()
        sys.settrace(at_call)
        try:
            with pytest.raises(KeyboardInterrupt):
                run_parallel(jobs)
        finally:
            sys.settrace(tracer)
        assert time.monotonic() - began < 20
        assert {process.wait(5) for process in started} <= {-signal.SIGINT}
        if waited:
            break
    assert len(started) > 20


def test_after_an_interrupt_no_job_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not even where a command ends well after it."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)

    def interrupt() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.1)
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)

    Thread(target=interrupt).start()
    first = f"trap 'exit 0' INT; touch {tmp_path}/started; while :; do sleep 0.01; done"
    with pytest.raises(KeyboardInterrupt):
        run_parallel({"first": lambda: output("sh", "-c", first), "late": lambda: output("touch", f"{tmp_path}/late")})
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "call",
    [
        "run(*sleep)",
        "output(*sleep)",
        "lines(*sleep, on_line=print)",
        "run_parallel({name: partial(output, *sleep) for name in 'abc'})",
    ],
)
def test_a_signal_ends_commands(tmp_path: Path, number: signal.Signals, call: str) -> None:
    script = f"""
        import os
        from functools import partial
        from tasks.shell import interruptible, lines, output, run, run_parallel
        interruptible()
        os.cpu_count = lambda: 3
        sleep = ("sh", "-c", "echo $$ >>{tmp_path}/pids; exec sleep 600")
        {call}
    """
    pids = tmp_path / "pids"
    wanted = 3 if "parallel" in call else 1
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stderr=subprocess.PIPE) as process:
        while not pids.exists() or pids.read_text().count("\n") < wanted:
            time.sleep(0.01)
        process.send_signal(number)
        try:
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
            left = [pid for pid in map(int, pids.read_text().split()) if alive(pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
    assert b"KeyboardInterrupt" in said
    assert left == []


@pytest.mark.parametrize(
    "call",
    ["run(*sleep)", "output(*sleep)", "lines(*sleep, on_line=print)", "run_parallel({'a': lambda: output(*sleep)})"],
)
def test_a_signal_that_does_not_interrupt_the_wait_ends_commands(call: str) -> None:
    """As one that comes right before the wait: here another thread takes it."""
    script = f"""
        import signal, threading, time
        from tasks.shell import RUNNING, interruptible, lines, output, run, run_parallel
        def take():
            while not RUNNING:
                time.sleep(0.01)
            time.sleep(0.3)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        interruptible()
        threading.Thread(target=take).start()
        sleep = ("sleep", "20")
        {call}
    """
    with pytest.raises(subprocess.CalledProcessError) as failed:
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, check=True, capture_output=True, timeout=10
        )
    assert b"KeyboardInterrupt" in failed.value.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_command_starts_ends_it(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    started: list[subprocess.Popen[str]] = []

    class Interrupted(shell.Command):
        def __init__(self, *command: Any, **options: Any) -> None:
            super().__init__(*command, **options)
            started.append(self)
            signal.raise_signal(number)

    monkeypatch.setattr(shell, "Command", Interrupted)
    handlers = [signal.getsignal(number) for number in shell.INTERRUPTS]
    shell.interruptible()
    try:
        with pytest.raises(KeyboardInterrupt):
            shell.run("sleep", "600")
        with pytest.raises(UserError, match="missing is not installed"):
            shell.start("missing")
        with pytest.raises(KeyboardInterrupt):  # as before
            signal.raise_signal(number)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for interrupt, handler in zip(shell.INTERRUPTS, handlers, strict=True):
            signal.signal(interrupt, handler)
    assert started[0].wait(5) == -signal.SIGINT
