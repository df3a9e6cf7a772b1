"""Sessions that are interrupted, at twenty points, and one that is killed: nothing of theirs is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks import ownership

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Clone

# Each session is interrupted after these parts of the time that it takes when nobody does.
POINTS = {
    "setup": (("-s", "setup"), (0.5, 0.8)),
    "dev": (("-s", "dev"), (0.2, 0.4, 0.6, 0.8)),
    "test": (
        ("-s", "test", "--", "echo", "journal", "stack", "-k", "settings or it_echoes"),
        (0.15, 0.3, 0.45, 0.6, 0.75, 0.9),
    ),
    "build": (("-s", "build"), (0.2, 0.5, 0.8)),
    "sizes": (("-s", "sizes", "--", "--against", "HEAD"), (0.2, 0.5, 0.8)),
    "new": (("-s", "new", "--", "pilot"), (0.3, 0.8)),
}
# Ctrl-C and a closed terminal reach every process of the session, a service manager's or a CI's SIGTERM only the first.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = {130, *(-number for number in SIGNALS)}  # nox's own, or, before it is up, Python's


@pytest.fixture(scope="module")
def yard(make_clone: Callable[[str], Clone]) -> Clone:
    clone = make_clone("interrupted")
    # So that later runs find their virtual environments, and take as long as one another.
    clone.nox("-s", "new", "--", "pilot")
    clone.nox("-s", "remove", "--", "pilot")
    return clone


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sessions' temporary folders are."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def takes() -> dict[str, float]:
    """How long a session takes in seconds, after a change to what all images are built with, as far as that is known."""
    return {}


def measure(yard: Clone, scratch: Path, name: str) -> float:
    """How long a session takes when nobody interrupts it; `dev`, until it answers and is gone."""
    change(yard)
    began = time.monotonic()
    with start(yard, scratch, POINTS[name][0]) as process:
        if name == "dev":
            assert process.stdout
            next(line for line in process.stdout if line.startswith("echo  http://"))
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=600)
    took = time.monotonic() - began
    tidy(yard)
    return took


def start(yard: Clone, scratch: Path, words: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start a session."""
    return yard.start(*words, TMPDIR=str(scratch))


def change(yard: Clone) -> None:
    """Make every image out of date, so that builds really build."""
    for name in ("slice/modules.py", "live.py", "server/serve.py"):
        with (yard.root / "docker" / name).open("a") as file:
            file.write(f"# {time.time_ns()}\n")
    yard.commit("a change")


def tidy(yard: Clone) -> None:
    """Put back what sessions that end well change."""
    if (yard.root / "services/pilot").exists():
        yard.nox("-s", "remove", "--", "pilot")


def left(yard: Clone, scratch: Path) -> dict[str, list[str]]:
    """All that a session may have left: things of the engine, files, worktrees, temporary folders, processes."""
    stacks = f"name=^{yard.name}-stack-"
    return {
        "containers and networks": yard.left("container", "network"),
        "volumes of stacks under test": yard.docker("volume", "ls", "--quiet", "--filter", stacks).split(),
        "changes": yard.git("status", "--porcelain").splitlines(),
        "drafts": [str(path) for path in yard.root.rglob("*.draft")],
        "worktrees": yard.git("worktree", "list").splitlines()[1:],
        "temporary folders": [str(path) for path in scratch.iterdir() if not path.name.startswith("pytest-of-")],
        "processes": list(processes(str(yard.root), str(scratch))),
    }


def processes(*places: str) -> Iterator[str]:
    """The command lines of processes on this machine, containers aside, that name one of these places."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = command.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if any(place in text for place in places) and "pytest" not in text:
            yield text


NOTHING: dict[str, list[str]] = {}
CASES = [(name, part) for name, (_, parts) in POINTS.items() for part in parts]


@pytest.mark.parametrize(
    ("name", "part", "number"),
    [(*case, SIGNALS[index % len(SIGNALS)]) for index, case in enumerate(CASES)],
    ids=[f"{name}-{part}-{SIGNALS[index % len(SIGNALS)].name}" for index, (name, part) in enumerate(CASES)],
)
def test_an_interrupted_session_leaves_nothing(
    yard: Clone, scratch: Path, takes: dict[str, float], name: str, part: float, number: signal.Signals
) -> None:
    if name not in takes:
        takes[name] = measure(yard, scratch, name)
    for _ in range(3):
        change(yard)
        began = time.monotonic()
        with start(yard, scratch, POINTS[name][0]) as process:
            try:
                said, _ = process.communicate(timeout=takes[name] * part)
            except subprocess.TimeoutExpired:
                if number == signal.SIGTERM:
                    process.send_signal(number)
                else:
                    os.killpg(process.pid, number)
                said, _ = process.communicate(timeout=60)
                assert process.returncode in INTERRUPTED, said
                assert "Traceback" not in said
                break
        takes[name] = time.monotonic() - began  # it is faster than it was
        tidy(yard)
    else:
        pytest.skip(f"{name} is done sooner each time")
    assert {what: found for what, found in left(yard, scratch).items() if found} == NOTHING, said


def test_what_a_killed_session_leaves_the_next_one_removes(
    yard: Clone, scratch: Path, make_clone: Callable[[str], Clone]
) -> None:
    other = make_clone("other")
    other.nox("-s", "dev", "--", "echo", "--detach", TMPDIR=str(scratch))
    beside = other.left("container", "network")
    sleeper = yard.root / "services/echo/tests/test_sleeper.py"
    sleeper.write_text("import time\n\n\ndef test_sleeps() -> None:\n    time.sleep(600)\n")
    with start(yard, scratch, ("-s", "test", "--", "echo", "-k", "sleeps")) as process:
        while not yard.docker("ps", "--quiet", "--filter", f"label={ownership.LABEL}={process.pid}").split():
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    sleeper.unlink()
    (scratch / f"slipway-{process.pid}-abcdefg").mkdir()
    yard.docker("network", "create", f"{yard.name}-stack-{process.pid}_default")
    yard.docker("volume", "create", f"{yard.name}-stack-{process.pid}_data")
    said = yard.nox("-s", "test", "--", "echo", "-k", "settings", TMPDIR=str(scratch))
    assert "removing what a killed session has left" in said
    assert {what: found for what, found in left(yard, scratch).items() if found} == NOTHING
    assert other.left("container", "network") == beside


def test_the_stack_of_a_killed_session_the_next_one_takes_down(yard: Clone, scratch: Path) -> None:
    with start(yard, scratch, ("-s", "dev", "--", "echo")) as process:
        while not yard.docker("ps", "--quiet", "--filter", f"label=com.docker.compose.project={yard.name}").split():
            assert process.poll() is None
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    assert "taking down the stack" in yard.nox("-s", "setup", TMPDIR=str(scratch))
    assert {what: found for what, found in left(yard, scratch).items() if found} == NOTHING
    yard.nox("-s", "dev", "--", "echo", "--detach", TMPDIR=str(scratch))
    assert "taking down" not in yard.nox("-s", "setup", TMPDIR=str(scratch))
    assert yard.left("container")
    yard.nox("-s", "down")
