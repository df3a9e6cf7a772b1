"""What a killed session leaves behind, the next session of the same clone and host removes, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ...env import env
from ...ownership import LABEL, SESSION, TEMPORARY, host
from .clones import Clone
from .traces import traces

pytestmark = pytest.mark.slow
ELSEWHERE = "0badb007-1"  # the boot id and pid namespace of a host that is not this one


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """The sessions' folder for temporary files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def wait_for_container(clone: Clone, process: subprocess.Popen[str], label: str) -> None:
    """Wait until a session has a container with a label."""
    while not clone.docker("ps", "--quiet", "--filter", f"label={label}").split():
        assert process.poll() is None
        time.sleep(0.1)


def leave(clone: Clone, scratch: Path, session: str) -> None:
    """Leave what a killed session leaves: a container, a network and a volume of a stack under test, a folder."""
    stack = f"{clone.name}-stack-{session}"
    labels = (f"--label=stack.clone={clone.name}", f"--label={LABEL}={session}")
    clone.docker("create", *labels, f"--name={clone.name}-run-{session}", env()["STACK_BASE"], "true")
    clone.docker("network", "create", f"{stack}_default")
    clone.docker("volume", "create", f"{stack}_data")
    (scratch / f"{TEMPORARY}{session}-abcdefg").mkdir()


def test_the_next_session_removes_what_a_killed_one_has_left(
    clone: Clone, scratch: Path, make_clone: Callable[[str], Clone]
) -> None:
    other = make_clone("other")
    other.nox("-s", "dev", "--", "pilot", "--detach", TMPDIR=str(scratch))
    beside = other.left("container", "network")
    sleeper = clone.root / "services/pilot/tests/test_sleeper.py"
    sleeper.write_text("import time\n\n\ndef test_sleeps() -> None:\n    time.sleep(600)\n")
    with clone.start("-s", "test", "--", "pilot", "-k", "sleeps", TMPDIR=str(scratch)) as process:
        session = f"{host()}-{process.pid}"
        wait_for_container(clone, process, f"{LABEL}={session}")
        os.killpg(process.pid, signal.SIGKILL)
    sleeper.unlink()
    leave(clone, scratch, session)
    text = clone.nox("-s", "setup", TMPDIR=str(scratch))
    assert "removing what a killed session has left" in text
    assert traces(clone, scratch) == {}
    assert other.left("container", "network") == beside
    other.nox("-s", "down")


def test_the_next_session_removes_the_stack_of_a_killed_dev(clone: Clone, scratch: Path) -> None:
    with clone.start("-s", "dev", "--", "pilot", TMPDIR=str(scratch)) as process:
        wait_for_container(clone, process, f"com.docker.compose.project={clone.name}")
        os.killpg(process.pid, signal.SIGKILL)
    assert "removing what a killed session has left" in clone.nox("-s", "setup", TMPDIR=str(scratch))
    assert traces(clone, scratch) == {}


def test_a_detached_stack_stays(clone: Clone, scratch: Path) -> None:
    clone.nox("-s", "dev", "--", "pilot", "--detach", TMPDIR=str(scratch))
    running = clone.left("container", "network")
    assert "removing" not in clone.nox("-s", "setup", TMPDIR=str(scratch))
    assert clone.left("container", "network") == running
    clone.nox("-s", "down")


def test_sessions_of_another_host_are_left_alone(clone: Clone, scratch: Path) -> None:
    """Two machines or containers may share an engine and a path: a process id of one says nothing on the other."""
    with subprocess.Popen(["true"]) as ended:
        pass
    session = f"{ELSEWHERE}-{ended.pid}"
    with clone.start("-s", "dev", "--", "pilot", **{SESSION: session, "TMPDIR": str(scratch)}) as process:
        wait_for_container(clone, process, f"{LABEL}={session}")
        os.killpg(process.pid, signal.SIGKILL)
    leave(clone, scratch, session)
    before = clone.left("container", "network", "volume")
    assert "removing" not in clone.nox("-s", "setup", TMPDIR=str(scratch))
    assert clone.left("container", "network", "volume") == before
    assert [path.name for path in scratch.iterdir()] == [f"{TEMPORARY}{session}-abcdefg"]
