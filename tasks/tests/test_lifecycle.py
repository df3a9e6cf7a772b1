"""A stack comes up, is waited for, and goes down again whatever happens."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from .. import env, ownership, shell
from ..project import clone_id
from ..shell import UserError
from ..stack import lifecycle
from ..stack.model import Stack
from .conftest import calls, fake_docker

STACK = Stack("ours-1", ("docker/compose.yaml",), "dev")
ARGS = argparse.Namespace()
HEALTHY = "printf '1\\tpilot\\trunning\\tUp 1 s (healthy)\\t127.0.0.1:5001->8000/tcp\\n'"
STARTING = "printf '1\\tpilot\\trunning\\tUp 1 s (health: starting)\\t\\n'"
UNHEALTHY = "printf '1\\tpilot\\trunning\\tUp 1 s (unhealthy)\\t127.0.0.1:5001->8000/tcp\\n'"
FAILED = "printf '1\\tpilot\\texited\\tExited (3) 1 s ago\\t\\n2\\tother\\trunning\\tUp 1 s\\t\\n'"
CREATED = "printf '1\\tpilot\\tcreated\\tCreated\\t\\n'"
DOWN = "compose --progress=plain down --remove-orphans"
LOG = "compose logs --no-color"
RUN = "--progress=quiet run --rm --no-deps"
NETWORKS = {"ps --all --format {{.Networks}}": "", "network ls": ""}


@pytest.fixture(autouse=True)
def parts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No optional part joins in, and the tests wait for nothing."""
    del project
    monkeypatch.setattr(lifecycle, "ON_UP", [])
    monkeypatch.setattr(lifecycle, "ON_DOWN", [])
    monkeypatch.setattr(lifecycle, "POLL_S", 0.01)


def test_a_stack_is_waited_for_until_all_is_ready(no_docker: Path) -> None:
    later = (
        f'echo >>"{no_docker}/asked"; [ "$(wc -l <"{no_docker}/asked")" -gt 2 ] && {{ {HEALTHY}; exit; }}; {STARTING}'
    )
    fake_docker(no_docker, {"ps --all": later})
    lifecycle.wait(STACK)
    assert len(calls(no_docker)) == 3


def test_a_service_that_fails_is_told_with_its_last_lines(
    no_docker: Path, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(
        f"printf '\\033[2K\\033[35;1mline\\033[0m {number}\\n'; echo GET /healthz 500;" for number in range(40)
    )
    fake_docker(no_docker, {"ps --all": FAILED, f"{LOG} pilot": lines, f"{LOG} --timestamps": "echo the whole log"})
    with pytest.raises(UserError, match=r"pilot exited with 3; .* all of it is in reports/logs/stack-development\.log"):
        lifecycle.wait(STACK)
    assert capsys.readouterr().out.splitlines() == [
        *(f"line {number}" for number in range(10, 40)),
        "GET /healthz 500",
    ]
    assert (project / "reports/logs/stack-development.log").read_text() == "the whole log\n"


def test_a_service_that_takes_too_long_is_told(no_docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the last words of its health check, which are not in its log: a program that the image lacks, perhaps."""
    health = "printf 'timed out\\n\\nexec: test: not found\\n\\n'"
    fake_docker(no_docker, {"ps --all": STARTING, LOG: "echo still starting", "inspect --format": health})
    with pytest.raises(UserError, match="pilot is starting; its last lines stand above"):
        lifecycle.wait(STACK, timeout_s=0.05)
    assert capsys.readouterr().out == "still starting\nhealth check: exec: test: not found\n"


def test_a_stack_that_is_kept_stays_up(no_docker: Path, capsys: pytest.CaptureFixture[str], project: Path) -> None:
    joined: list[tuple[Stack, argparse.Namespace]] = []
    lifecycle.ON_UP.append(lambda stack, args: joined.append((stack, args)))
    up = "compose --progress=plain up --detach --remove-orphans --quiet-pull pilot"
    fake_docker(no_docker, {up: "echo Container $COMPOSE_PROJECT_NAME-pilot-1 Started", "ps --all": HEALTHY})
    with lifecycle.running(STACK, ["pilot"], ARGS, keep=True):
        lifecycle.urls(STACK)
    assert joined == [(STACK, ARGS)]
    out = capsys.readouterr().out
    assert out.startswith("starting pilot: 0.")
    assert out.endswith("\npilot  http://127.0.0.1:5001\n")
    assert "Container ours-1-pilot-1 Started" in (project / "reports/logs/up-dev.log").read_text()
    assert not [call for call in calls(no_docker) if " down" in call]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UserError("x"), None])
def test_a_stack_goes_down_whatever_happens(no_docker: Path, error: BaseException | type[BaseException] | None) -> None:
    gone: list[bool] = []
    lifecycle.ON_DOWN.append(lambda: gone.append(True))
    networks = NETWORKS | {"network ls": "echo left", "network rm": ""}
    fake_docker(no_docker, {"compose --progress=plain up": "", "ps --all --filter": "", DOWN: "", **networks})

    def session(*, keep: bool) -> None:
        with lifecycle.running(STACK, [], ARGS, keep=keep):
            if error:
                raise error

    if error:
        with pytest.raises((KeyboardInterrupt, UserError)):
            session(keep=True)
    else:
        session(keep=False)
    assert gone == [True]
    assert DOWN in calls(no_docker)
    assert "network rm left" in calls(no_docker)


@pytest.mark.parametrize(("error", "keep"), [(UserError, False), (UserError, True), (KeyboardInterrupt, False)])
@pytest.mark.parametrize("session", ["", "another-1"])
def test_a_stack_that_runs_before_stays_as_it_is(
    no_docker: Path, session: str, error: type[BaseException], keep: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second `dev` of a clone replaces no container for its label, and stops nothing that it has not started."""
    other = "printf '1\\tadminer\\trunning\\tUp 1 s\\t\\t\\n'"
    pilot = f"printf '2\\tpilot\\trunning\\tUp 1 s\\t\\t{session}\\n'"
    up = f'echo "labelled <$STACK_SESSION>" >"{no_docker}/label"'
    fake_docker(
        no_docker, {"compose --progress=plain up": up, "ps --all --filter": f"{other}; {pilot}", DOWN: "", **NETWORKS}
    )
    with pytest.raises(error) as raised, lifecycle.running(STACK, [], ARGS, keep=keep):
        raise error("x")
    assert (no_docker / "label").read_text() == f"labelled <{session}>\n"
    # Ctrl-C stops a stack that was detached.
    assert (DOWN in calls(no_docker)) is (error is KeyboardInterrupt and not session)
    assert ("another session runs this stack" in capsys.readouterr().out) is bool(session)
    assert ("the stack, which ran before, goes on" in str(raised.value)) is (error is UserError)


def test_a_stack_that_another_session_stops_meanwhile_is_told(no_docker: Path) -> None:
    """Else `dev -- --detach` would end with 0."""
    fake_docker(no_docker, {"ps --all": ""})
    with pytest.raises(UserError, match="nothing is running any more: another session has stopped the stack"):
        lifecycle.wait(STACK)


def test_a_stack_that_does_not_start_names_the_service_in_the_way(no_docker: Path) -> None:
    up = f"touch '{no_docker}/up'; echo 'port is taken'; exit 1"
    common = {"compose --progress=plain up": up, DOWN: "", LOG: "", **NETWORKS}
    fake_docker(no_docker, {"ps --all --filter": f"[ ! -e '{no_docker}/up' ] || {FAILED}", **common})
    with pytest.raises(UserError, match="pilot exited with 3"), lifecycle.running(STACK, [], ARGS, keep=True):
        pytest.fail("it did not start")
    assert DOWN in calls(no_docker)
    for others in ("", STARTING, CREATED):
        fake_docker(no_docker, {"ps --all --filter": others, **common})
        with pytest.raises(UserError, match="the stack did not start: port is taken"):
            lifecycle.up(STACK)


def test_networks_of_this_clone_that_nothing_uses_are_removed(no_docker: Path) -> None:
    fake_docker(
        no_docker,
        {
            "ps --all --format {{.Networks}}": "echo bridge; echo used,shared",
            f"network ls --filter=label=com.docker.compose.project={clone_id()}": "echo used; echo left; echo busy; echo a space",
            "network rm busy": "exit 1",
            "network rm": "",
        },
    )
    lifecycle.remove_unused_networks()
    removed = sorted(call for call in calls(no_docker) if " rm " in call)
    assert removed == ["network rm a space", "network rm busy", "network rm left"]


def test_a_log_that_is_followed_ends_with_the_session(no_docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    follow = f'trap "" INT; echo $$ >"{no_docker}/pid"; exec sleep 60'  # as Docker's client does, if only for a moment
    began = time.monotonic()
    fake_docker(no_docker, {"compose logs --follow --no-color": follow, "ps --all": FAILED, LOG: ""})
    with pytest.raises(UserError, match="pilot exited with 3"):
        lifecycle.follow(STACK, "pilot")
    assert time.monotonic() - began < shell.STOP_TIMEOUT_S / 2
    escaped = {"compose logs --follow --no-color pilot": "printf '\\033[2Kpilot-1 | \\033[1mready\\033[0m\\n'"}
    fake_docker(no_docker, escaped | {"ps --all": HEALTHY})
    lifecycle.follow(STACK, "pilot")
    assert "compose logs --follow --no-color pilot" in calls(no_docker)
    assert sorted(capsys.readouterr().out.splitlines()[-2:]) == ["pilot  http://127.0.0.1:5001", "pilot-1 | ready"]
    fake_docker(
        no_docker, {"compose logs --follow --no-color": "", "ps --all": UNHEALTHY, LOG: "echo why", "inspect": ""}
    )
    lifecycle.follow(STACK)  # a save may mend it
    said = capsys.readouterr().out.splitlines()
    assert (said[0], said[1].partition(";")[0]) == ("why", "pilot is unhealthy")
    assert said[2:] == ["pilot  http://127.0.0.1:5001"]
    fake_docker(no_docker, {"ps --all": ""})
    with pytest.raises(UserError, match="nothing is running"):
        lifecycle.follow(STACK)


def test_a_log_on_a_terminal_goes_there_as_it_is(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(
        no_docker, {"compose logs --follow pilot": f"sleep 0.3; touch '{no_docker}/shown'", "ps --all": HEALTHY}
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lifecycle.follow(STACK, "pilot")
    assert (no_docker / "shown").exists()  # nothing has ended it before


def test_a_url_has_the_address_that_the_port_is_published_on(
    no_docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_docker(no_docker, {"ps --all": HEALTHY.replace("127.0.0.1", "192.168.1.5")})
    lifecycle.urls(STACK)
    assert capsys.readouterr().out == "pilot  http://192.168.1.5:5001\n"


def test_what_tests_of_the_stack_leave_is_removed(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of another session whose process id begins with the same digits."""
    monkeypatch.delenv(ownership.SESSION, raising=False)
    ours = ownership.project_of_tests(ownership.session_id())  # which pytest inherits
    listed = f"printf '%s\\n' {ours}_data {ours}-gw0_data {ours}9_data | grep -E \"${{4#--filter=name=}}\""
    fake_docker(no_docker, {"ps": "echo 12", "rm": "", "network ls": "", "volume ls": listed, "volume rm": ""})
    lifecycle.remove_tested_stacks()
    made = calls(no_docker)
    assert "rm --force --volumes 12" in made
    assert f"volume rm {ours}_data {ours}-gw0_data" in made


@pytest.mark.parametrize(("listed", "begin"), [(HEALTHY, "exec"), (FAILED, RUN), ("", RUN)])
def test_a_shell_opens_where_the_service_runs_or_in_a_container_of_its_own(
    no_docker: Path, listed: str, begin: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    networks = {"ps --all --quiet": "", "ps --all --format": "", "network ls": "echo left", "network rm": ""}
    said = 'echo "in $COMPOSE_PROJECT_NAME"; exit 3'
    fake_docker(no_docker, networks | {"ps --all --filter": listed, f"compose {begin}": said})
    assert lifecycle.shell("pilot", ["ls", "-l"]) == 3
    assert f"in {clone_id()}" in capfd.readouterr().out
    assert f"compose {begin} --no-TTY pilot ls -l" in calls(no_docker)
    assert (calls(no_docker)[-1] == "network rm left") is (begin == RUN)  # a container of its own had a network


def test_an_interrupted_command_leaves_no_container(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose ends at a signal, and the container goes on: it is found by its label."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    left, label = no_docker / "left", f"label=stack.session={ownership.session_id()}"
    fake_docker(
        no_docker,
        {
            "ps --all --filter": "",
            f"compose {RUN}": f'echo "$STACK_SESSION" >{left}; kill -INT $PPID; exec sleep 60',
            "ps --all --quiet": f'case "$*" in *"{label}") [ ! -e {left} ] || cat {left} ;; esac',
            f"rm --force --volumes {ownership.session_id()}": f"rm {left}",
            "ps --all --format": "",
            "network ls": "echo left",
            "network rm": "",
        },
    )
    with pytest.raises(KeyboardInterrupt):
        lifecycle.shell("pilot", ["sleep", "60"])
    assert not left.exists()
    assert calls(no_docker)[-1] == "network rm left"


@pytest.mark.parametrize(
    ("process", "prod", "built"),
    [
        ("pilot", False, [["pilot"]]),
        ("pilot", True, []),
        ("pilot-mail", False, [["pilot"]]),
        ("database", False, [[]]),
        ("databas", False, []),
    ],
)
def test_the_image_of_a_shell_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, process: str, prod: bool, built: list[list[str]]
) -> None:
    """Also of another process of a service; a database's is not built here."""
    import noxfile

    asked: list[list[str]] = []
    pilot = {"build": {"args": {"SERVICE": "pilot"}}}
    services = {"pilot": pilot, "pilot-mail": pilot, "database": {"image": "postgres:17"}}
    monkeypatch.setattr(Stack, "model", {"services": services})
    monkeypatch.setattr("tasks.session.interruptible", lambda: None)
    monkeypatch.setattr(noxfile, "ready", lambda: None)
    monkeypatch.setattr("tasks.images.bake.build", asked.append)
    monkeypatch.setattr(lifecycle, "shell", lambda *_: 0)
    monkeypatch.setattr(lifecycle, "production_shell", lambda *_: 0)
    session = argparse.Namespace(posargs=[process, *["--prod"] * prod], error=pytest.fail)
    run = cast("Callable[[object], None]", noxfile.shell)
    if process in services:
        run(session)
    else:
        told = r"no service 'databas'; the services are: other, pilot \(or pilot-mail, database\)"
        with pytest.raises(pytest.fail.Exception, match=told):
            run(session)
    assert asked == built


def test_a_production_container_is_looked_into_from_another_one(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    env.ENV.write_text("STACK_BASE=python:3.13-slim\n")
    fake_docker(no_docker, {"ps --all": HEALTHY, "run": "exit 3", "inspect": "echo x/pilot:prod"})
    assert lifecycle.production_shell("pilot") == 3
    command = calls(no_docker)[-1]
    assert command.startswith("run --rm --interactive ")
    assert "--pid=container:1 --network=container:1" in command
    assert command.endswith('python:3.13-slim sh -c cd /proc/1/root; [ ! -d app ] || cd app; exec "$@" - sh')
    assert f"--label=stack.session={ownership.session_id()}" in command
    with pytest.raises(
        UserError, match=r"`COMPOSE_FILE=docker/compose\.prod\.yaml COMPOSE_ENV_FILES=\.env docker compose up -d`"
    ):
        lifecycle.production_shell("other")
    lifecycle.production_shell("pilot", ["ls", "-l"])
    assert calls(no_docker)[-1].endswith(" - ls -l")
    fake_docker(no_docker, {"ps --all": HEALTHY, "inspect": "echo x/pilot:dev"})
    with pytest.raises(UserError, match="pilot runs from source here"):
        lifecycle.production_shell("pilot")
