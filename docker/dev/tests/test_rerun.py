"""docker/dev/rerun.py: when tests run, in which order, and what it says of them."""

from __future__ import annotations

import os
import re
import runpy
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.project import ROOT

from .process import Program, running

VERDICT = re.compile(r"^web: (.*) in [\d.]+ s$", re.MULTILINE)
TEST = """
import {name}

def test_{name}():
    with open("../order.txt", "a") as file:
        file.write("{name} ")
    assert {name}.VALUE == {value}
"""
SLOW = """
import signal, subprocess, time

def test_slow():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "100"])
    open("../slow.txt", "w").close()
    time.sleep(100)
"""
DIES = """
import os, subprocess

def test_dies():
    subprocess.Popen(["sleep", "100"])
    os._exit(0)
"""


@pytest.fixture(scope="module")
def rerun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """What the tests of this module share: each leaves two tests that pass, of two modules."""
    folder = tmp_path_factory.mktemp("rerun") / "web"
    (folder / "tests").mkdir(parents=True)
    for name, value in (("one", 1), ("two", 2)):
        (folder / f"{name}.py").write_text(f"VALUE = {value}")
        (folder / f"tests/test_{name}.py").write_text(TEST.format(name=name, value=value))
    # Neither plugins nor Hypothesis, which some environments have: every run would take their time.
    (folder.parent / "without").mkdir()
    (folder.parent / "without/hypothesis.py").write_text("raise ImportError")
    env = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{folder.parent}/without"}
    with running(folder, "rerun.py", PYTEST_ADDOPTS=f"-o cache_dir={folder.parent}/cache", **env) as rerun:
        assert verdict(rerun, 0) == "2 passed"
        yield rerun
        start_slow_run(rerun)


def verdict(rerun: Program, after: int) -> str:
    """Wait for the verdict that follows so many others."""
    return str(rerun.until(lambda: VERDICT.findall(rerun.log.read_text())[after:])[0])


def save(rerun: Program, name: str, text: str) -> str:
    """Write a file, and return the verdict on it."""
    after = len(VERDICT.findall(rerun.log.read_text()))
    rerun.write(name, text)
    return verdict(rerun, after)


def start_slow_run(rerun: Program) -> None:
    """Have a test run that does not end on SIGTERM, and has started a process."""
    (rerun.folder.parent / "slow.txt").unlink(missing_ok=True)
    rerun.write("tests/test_slow.py", SLOW)
    rerun.until((rerun.folder.parent / "slow.txt").exists)


def test_a_failure_is_shown_once_and_mended(rerun: Program) -> None:
    before = len(rerun.log.read_text())
    assert save(rerun, "one.py", "VALUE = object()") == "1 failed, 1 passed"
    said = rerun.log.read_text()[before:]
    assert "E   " in said
    assert said.count("tests/test_one.py::test_one") == 1
    assert save(rerun, "one.py", "VALUE = 1") == "2 passed"


def test_what_failed_runs_first_then_the_newest_file(rerun: Program) -> None:
    order = rerun.folder.parent / "order.txt"
    for name, value, other, other_value in (("one", 1, "two", 2), ("two", 2, "one", 1)):
        order.unlink()
        test = f"tests/test_{name}.py"
        assert save(rerun, test, TEST.format(name=name, value=-1)) == "1 failed, 1 passed"
        text = TEST.format(name=other, value=other_value)
        assert save(rerun, f"tests/test_{other}.py", text) == "1 failed, 1 passed"
        assert save(rerun, test, TEST.format(name=name, value=value)) == "2 passed"
        assert order.read_text().split() == [name, other] * 3


@pytest.mark.parametrize("name", ["one.py", "tests/test_one.py", "tests/conftest.py"])
def test_a_syntax_error_is_a_verdict_and_is_mended(rerun: Program, name: str) -> None:
    path = rerun.folder / name
    text = path.read_text() if path.exists() else ""
    assert save(rerun, name, "def value(:\n") == "1 error"
    rerun.says("SyntaxError")
    assert save(rerun, name, text) == "2 passed"


def test_a_change_ends_the_run_and_what_it_has_started(rerun: Program) -> None:
    start_slow_run(rerun)
    assert save(rerun, "tests/test_slow.py", "") == "2 passed"
    rerun.until(lambda: len(rerun.processes()) == 3)  # the parent, the watcher and the next run


def test_a_run_that_dies_is_told_and_what_it_has_started_is_ended(rerun: Program) -> None:
    rerun.write("tests/test_dies.py", DIES)
    rerun.says("the test run of web ended with 0")
    rerun.until(lambda: not rerun.processes("sleep"))
    assert save(rerun, "tests/test_dies.py", "") == "2 passed"


def test_multiprocessing_can_spawn(rerun: Program) -> None:
    spawns = "import multiprocessing as m\nwith m.get_context('spawn').Pool(1) as p:\n    VALUE = p.map(len, 'a')[0]"
    assert save(rerun, "one.py", spawns) == "2 passed"
    assert save(rerun, "one.py", "VALUE = 1") == "2 passed"


def test_a_change_is_seen_that_leaves_the_second_and_the_size_as_they_were(rerun: Program) -> None:
    """It is all that Python compares bytecode by, and that of two.py is there."""
    while not [*rerun.folder.parent.glob("bytecode/**/two.*.pyc")]:
        time.sleep(0.5)  # until the libraries are preloaded: then it writes bytecode
        assert save(rerun, "two.py", "VALUE = 2") == "2 passed"
    soon = time.time() + 100  # it stays young for as long as this test may take
    for value, expected in ((2, "2 passed"), (3, "1 failed, 1 passed"), (2, "2 passed")):
        (rerun.folder / "two.py~").write_text(f"VALUE = {value}")
        os.utime(rerun.folder / "two.py~", (soon, soon))
        after = len(VERDICT.findall(rerun.log.read_text()))
        (rerun.folder / "two.py~").rename(rerun.folder / "two.py")
        assert verdict(rerun, after) == expected


@pytest.mark.filterwarnings("default")
def test_the_parent_imports_nothing_but_libraries_and_shows_no_warnings_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """Hypothesis, for one, warns whoever imports its plugin without pytest; Django imports a service's settings."""
    for name, text in {
        "library/warns.py": "import warnings\nwarnings.warn('loud')\nwarnings.simplefilter('error')",
        "library/asks.py": "import settings_of_service",
        "service/settings_of_service.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        monkeypatch.syspath_prepend((tmp_path / name).parent)
    program, path = runpy.run_path(str(ROOT / "docker/dev/supervisor.py")), [*sys.path]
    supervisor = program["Supervisor"]("web", 1)
    monkeypatch.setitem(supervisor.preload.__globals__, "LIBRARIES", (f"{tmp_path}/library/",))
    os.pwrite(supervisor.imported, b"warns asks", 0)
    supervisor.preload()
    assert {"warns", "asks", "settings_of_service"}.intersection(sys.modules) == {"warns"}
    assert (sys.path, recwarn.list) == (path, [])
    with pytest.raises(UserWarning):
        warnings.warn("an error now", stacklevel=1)
