"""Sessions that are interrupted, at twenty points, leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .clones import Clone
from .traces import traces

pytestmark = pytest.mark.slow
# Each session is interrupted after these parts of the time that it takes otherwise.
POINTS = {
    "setup": (("-s", "setup"), (0.5, 0.8)),
    "dev": (("-s", "dev"), (0.2, 0.4, 0.6, 0.8)),
    "test": (("-s", "test", "--", "pilot", "deck", "stack", "-k", "one_point"), (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)),
    "build": (("-s", "build", "--", "--sbom"), (0.2, 0.5, 0.8, 0.95)),
    "sizes": (("-s", "sizes", "--", "pilot", "--against", "HEAD"), (0.2, 0.5, 0.8)),
    "new": (("-s", "new", "--", "third"), (0.3, 0.8)),
}
# Ctrl-C and a closed terminal reach every process of the session, a service manager's or a CI's SIGTERM only the first.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = {130, *(-number for number in SIGNALS)}  # nox's own, or, before it has started, Python's
ROUNDS = 2  # a session that ended before its point is tried again, with the time that it took
CASES = [(name, part) for name, (_, parts) in POINTS.items() for part in parts]


@pytest.fixture(scope="module")
def clone(make_clone: Callable[[str], Clone]) -> Clone:
    """A clone with one short test in each suite, in which each session has its virtual environment already."""
    made = make_clone("interrupted")
    for path, arguments in (("services/pilot/tests", ""), ("services/deck/tests", ""), ("tests/stack", "stack")):
        (made.root / path / "test_one_point.py").write_text(f"def test_one_point({arguments}):\n    pass\n")
    made.commit("Add short tests")
    made.nox("-s", "new", "--", "third")
    made.nox("-s", "remove", "--", "third")
    made.nox(*POINTS["test"][0])
    return made


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sessions' folder for temporary files."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def takes() -> dict[str, float]:
    """How long sessions take in seconds, after a change to what all images are built with, as far as that is known."""
    return {}


def measure(clone: Clone, scratch: Path, name: str) -> float:
    """How long a session takes; for `dev`, until it has printed a URL and is interrupted."""
    change(clone)
    began = time.monotonic()
    with clone.start(*POINTS[name][0], TMPDIR=str(scratch)) as process:
        if name == "dev":
            assert process.stdout
            next(line for line in process.stdout if line.startswith("pilot  http://"))
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=600)
    took = time.monotonic() - began
    tidy(clone)
    return took


def change(clone: Clone) -> None:
    """Make every image out of date, so that builds really build."""
    for name in ("build/slice/__main__.py", "dev/watch.py"):
        with (clone.root / "docker" / name).open("a") as file:
            file.write(f"# {time.time_ns()}\n")
    clone.commit("Change what images are built with")


def tidy(clone: Clone) -> None:
    """Undo what a session that ended well has changed."""
    if (clone.root / "services/third").exists():
        clone.nox("-s", "remove", "--", "third")


@pytest.mark.parametrize(
    ("name", "part", "number"),
    [(*case, SIGNALS[index % len(SIGNALS)]) for index, case in enumerate(CASES)],
    ids=[f"{name}-{part}-{SIGNALS[index % len(SIGNALS)].name}" for index, (name, part) in enumerate(CASES)],
)
def test_an_interrupted_session_leaves_nothing(
    clone: Clone, scratch: Path, takes: dict[str, float], name: str, part: float, number: signal.Signals
) -> None:
    if name not in takes:
        takes[name] = measure(clone, scratch, name)
    for _ in range(ROUNDS):
        change(clone)
        began = time.monotonic()
        with clone.start(*POINTS[name][0], TMPDIR=str(scratch)) as process:
            try:
                text, _ = process.communicate(timeout=takes[name] * part)
            except subprocess.TimeoutExpired:
                if number == signal.SIGTERM:
                    process.send_signal(number)
                else:
                    os.killpg(process.pid, number)
                text, _ = process.communicate(timeout=60)
                assert process.returncode in INTERRUPTED, text
                # pytest and Poetry show a traceback of their own while they start.
                assert not re.search(r'File "[^"]*/(noxfile|tasks/)', text), text
                break
        takes[name] = time.monotonic() - began
        tidy(clone)
    else:
        pytest.skip(f"{name} ended before its point {ROUNDS} times")
    assert traces(clone, scratch) == {}, text
