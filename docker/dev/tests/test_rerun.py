"""docker/dev/rerun.py, as a plain process: when tests run, in which order, and what it says of them."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tasks.project import ROOT

from .test_live import Live, members, running, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RETEST = ROOT / "docker" / "dev" / "rerun.py"
TELLS = sys.version_info >= (3, 12)  # which functions a test calls
VERDICT = re.compile(r"^web: (.*) in [\d.]+ s$", re.MULTILINE)


def note(name: str) -> str:
    """Code that writes down that a test runs."""
    return f"    with open('../order.txt', 'a') as file:\n        file.write('{name} ')\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "services" / "web"
    (folder / "tests").mkdir(parents=True)
    (folder / "one.py").write_text("def value():\n    return 1\n")
    (folder / "two.py").write_text("def value():\n    return 2\n")
    for name in ("one", "two"):
        (folder / "tests" / f"test_{name}.py").write_text(
            f"import {name}\ndef test_{name}():\n{note(name)}    assert {name}.value() == {name}.value()\n"
        )
    (folder / "tests" / "test_zero.py").write_text(f"def test_zero():\n{note('zero')}")
    return folder


@pytest.fixture
def retest(folder: Path) -> Iterator[Live]:
    with running(
        folder, "-p", "no:cacheprovider", program=RETEST, PYTHONPATH=str(folder), TMPDIR=str(folder.parent)
    ) as retest:
        assert verdict(retest, 1) == "3 passed"
        yield retest


def verdict(retest: Live, number: int) -> str:
    """Wait for the run of this number, counted from 1, to end, and return what it found."""
    until(lambda: len(VERDICT.findall(retest.log.read_text())) >= number)
    return str(VERDICT.findall(retest.log.read_text())[number - 1])


def order(retest: Live) -> list[str]:
    """The tests that ran since the last call."""
    file = retest.folder.parent / "order.txt"
    names = file.read_text().split()
    file.write_text("")
    return names


def test_a_change_gets_a_verdict_and_failures_are_shown(retest: Live) -> None:
    retest.write("one.py", "def value():\n    return object()\n")
    assert verdict(retest, 2) == "1 failed, 2 passed"
    log = retest.log.read_text()
    assert "E   " in log
    assert log.count("tests/test_one.py::test_one") == 1
    retest.write("one.py", "def value():\n    return 3\n")
    assert verdict(retest, 3) == "3 passed"


def test_what_failed_runs_first_then_what_the_change_touches(retest: Live) -> None:
    assert order(retest) == ["zero", "two", "one"]  # the newest file first
    retest.write("one.py", "def value():\n    return 11\n")
    verdict(retest, 2)
    assert order(retest) == (["one", "zero", "two"] if TELLS else ["zero", "two", "one"])
    retest.write("tests/test_zero.py", f"def test_zero():\n{note('zero')}    assert False\n")
    assert verdict(retest, 3) == "1 failed, 2 passed"
    order(retest)
    retest.write("two.py", "def value():\n    return 22\n")
    assert verdict(retest, 4) == "1 failed, 2 passed"
    assert order(retest) == (["zero", "two", "one"])


@pytest.mark.parametrize("name", ["one.py", "tests/test_one.py", "tests/conftest.py"])
def test_a_syntax_error_is_a_verdict_and_is_mended(retest: Live, name: str) -> None:
    path = retest.folder / name
    text = path.read_text() if path.exists() else ""
    retest.write(name, "def value(:\n")
    assert verdict(retest, 2) == "1 error"
    retest.says("SyntaxError")
    retest.write(name, text)
    assert verdict(retest, 3) == "3 passed"


def test_a_change_ends_the_run_that_is_under_way(retest: Live) -> None:
    slow = (
        "import time, subprocess\ndef test_slow():\n    subprocess.Popen(['sleep', '100'])\n    {}    time.sleep(100)\n"
    )
    retest.write("tests/test_slow.py", slow.format(note("slow").strip() + "\n"))
    until(lambda: "slow" in (retest.folder.parent / "order.txt").read_text())
    retest.write("tests/test_slow.py", "def test_slow():\n    pass\n")
    assert verdict(retest, 2) == "4 passed"
    assert until(lambda: len(members(retest.folder)) == 3)  # it, the watcher, and the next run


def test_a_run_that_dies_is_told(retest: Live) -> None:
    retest.write("tests/test_zero.py", "import os\ndef test_zero():\n    os._exit(0)\n")
    retest.says("web's tests ended with 0 and without a verdict")
    retest.write("tests/test_zero.py", "def test_zero():\n    pass\n")
    assert verdict(retest, 2) == "3 passed"


def test_a_change_of_the_code_is_seen_however_often(retest: Live) -> None:
    """What a run has imported of the service's own must not stay for the next."""
    for number in range(4):
        good = number % 2
        retest.write("tests/test_two.py", f"import two\ndef test_two():\n    assert two.value() == {number}\n")
        verdict(retest, 2 * number + 2)
        retest.write("two.py", f"def value():\n    return {number if good else -1}\n")
        assert verdict(retest, 2 * number + 3) == ("3 passed" if good else "1 failed, 2 passed")


def test_a_change_is_seen_that_leaves_the_second_and_the_size_as_they_were(retest: Live) -> None:
    """It is all that Python compares bytecode by, and that of two.py is there."""
    retest.write("tests/test_two.py", "import two\ndef test_two():\n    assert two.value() == 2\n")
    runs = 2
    while verdict(retest, runs) and not [*retest.folder.parent.glob("bytecode/**/two.*.pyc")]:
        retest.write("two.py", "def value():\n    return 2\n")
        runs += 1
    soon = time.time() + 100  # it stays young for as long as this test may take
    for number in (2, 3):
        draft = retest.folder / "two.py~"
        draft.write_text(f"def value():\n    return {number}\n")
        os.utime(draft, (soon, soon))
        draft.rename(retest.folder / "two.py")
        runs += 1
        assert verdict(retest, runs) == ("3 passed" if number == 2 else "1 failed, 2 passed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_run_and_everything(folder: Path, number: signal.Signals) -> None:
    (folder / "tests" / "test_slow.py").write_text(
        "import signal, subprocess, time\ndef test_slow():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"    subprocess.Popen(['sleep', '100'])\n{note('slow')}    time.sleep(100)\n"
    )
    with running(folder, program=RETEST, PYTHONPATH=str(folder), TMPDIR=str(folder.parent)) as retest:
        until(lambda: "slow" in (folder.parent / "order.txt").read_text())
        retest.process.send_signal(number)
        assert retest.process.wait(20) == 0
