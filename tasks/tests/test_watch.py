"""The services' tests on every change, until Ctrl-C."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ..shell import UserError
from ..testing import watch
from .conftest import calls, fake_docker
from .test_shell import alive

pytestmark = pytest.mark.usefixtures("project")
RUN = "compose --progress=quiet run --rm --no-deps --no-TTY"
CLEAN = {"network ls": "", "volume ls": "", "ps --all --quiet": "echo 12", "rm": ""}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services whose neighbours were asked for."""
    services: list[str] = []
    monkeypatch.setattr(watch, "start_neighbours", services.extend)
    return services


def test_a_container_that_ends_is_told(no_docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = f'echo $$ >"{no_docker}/pid"; exec sleep 60'
    fake_docker(
        no_docker,
        {
            f"{RUN} pilot": f"until [ -s '{no_docker}/pid' ]; do sleep 0.01; done; echo 1 passed; echo broken >&2",
            f"{RUN} other": script,
            **CLEAN,
        },
    )
    with pytest.raises(UserError, match="pilot's tests are not watched any more: their container has ended"):
        watch.watch(["other", "pilot"], ["-k", "x"])
    assert "pilot | 1 passed\npilot | broken\n" in capsys.readouterr().out
    assert f"{RUN} pilot python3 /app/rerun.py -k x" in calls(no_docker)
    assert not alive(int((no_docker / "pid").read_text()))
    assert "rm --force --volumes 12" in calls(no_docker)


def test_lines_of_a_single_service_come_as_they_are(
    no_docker: Path, capsys: pytest.CaptureFixture[str], started: list[str]
) -> None:
    fake_docker(no_docker, {RUN: "echo '\\033[1m1 passed'", **CLEAN})
    with pytest.raises(UserError):
        watch.watch(["pilot"], [])
    assert capsys.readouterr().out.splitlines()[1:] == ["\033[1m1 passed"]
    assert started == ["pilot"]


def test_ctrl_c_ends_all_containers(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = "trap '' INT TERM"  # as Docker's client is in its first moments
    fake_docker(no_docker, {RUN: f'{deaf}; echo $$ >>"{no_docker}/pids"; echo watching; exec sleep 60', **CLEAN})

    def interrupted(_text: str) -> None:
        while (no_docker / "pids").read_text().count("\n") < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "say", interrupted)
    monkeypatch.setattr(watch, "show", lambda _command: None)
    with pytest.raises(KeyboardInterrupt):
        watch.watch(["other", "pilot"], [])
    assert not any(map(alive, map(int, (no_docker / "pids").read_text().split())))
    assert "rm --force --volumes 12" in calls(no_docker)
