"""Commands side by side, and how far they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tasks import shell as run

from ..project import ROOT
from ..testing import containers


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_jobs_side_by_side_yield_as_they_come() -> None:
    jobs = {"slow": lambda: run.output("sh", "-c", "sleep 0.5; echo 1"), "fast": lambda: run.output("echo", "2")}
    if (os.cpu_count() or 1) > 1:
        assert list(run.run_parallel(jobs)) == [("fast", "2\n"), ("slow", "1\n")]
    assert dict(run.run_parallel(jobs)) == {"fast": "2\n", "slow": "1\n"}


def test_one_that_fails_ends_the_others(tmp_path: Path) -> None:
    def fail() -> str:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise run.UserError("no")

    def sleep() -> str:
        return run.output("sh", "-c", f"echo $$ >{tmp_path}/pid; exec sleep 600")

    with pytest.raises(run.UserError, match="no"):
        list(run.run_parallel({"sleep": sleep, "fail": fail}))
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_them_all(tmp_path: Path, number: signal.Signals) -> None:
    script = f"""
        from tasks import shell as run
        run.interruptible()
        sleep = lambda: run.output("sh", "-c", "echo $$ >>{tmp_path}/pids; exec sleep 600")
        list(run.run_parallel({{"one": sleep, "two": sleep, "three": sleep}}))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stderr=subprocess.PIPE) as process:
        at_once = min(3, os.cpu_count() or 1)
        while not (tmp_path / "pids").exists() or (tmp_path / "pids").read_text().count("\n") < at_once:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == at_once
    assert not any(map(alive, pids))


def test_progress_on_a_terminal_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    progress = containers.Progress(2)
    progress("echo", "collected 9 items")
    progress("pilot", "tests/test_a.py ....      [ 42%]")
    progress.say("--- echo")
    assert capsys.readouterr().out.split(containers.CLEAR) == [
        "",
        "0 of 2 done; echo 0 %",
        "0 of 2 done; echo 0 %, pilot 42 %",
        "--- echo\n",
        "0 of 2 done; echo 0 %, pilot 42 %",
    ]


def test_progress_elsewhere_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = containers.Progress(2)
    progress("echo", "tests/test_a.py ....      [100%]")
    progress.say("--- echo")
    assert capsys.readouterr().out == "--- echo\n"
