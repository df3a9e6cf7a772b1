"""Compose projects: what a stack's environment is, what its compose files can get wrong, how its containers are."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from .. import env, ownership
from ..images.target import target_of
from ..project import clone_id
from ..shell import UserError
from ..stack import model
from ..stack.model import Container, Stack
from .conftest import calls, fake_docker


@pytest.fixture
def stack() -> Stack:
    return Stack("ours-1", ("docker/compose.yaml",), "dev")


def test_a_fault_in_a_compose_file_is_told_as_one(stack: Stack, no_docker: Path) -> None:
    said = "dependency cycle detected: pilot -> other -> pilot"
    fake_docker(no_docker, {"compose config": f"echo warning >&2; echo '{said}' >&2; exit 15"})
    with pytest.raises(UserError, match=f"the stack's compose files have a fault: {said}"):
        stack.model  # noqa: B018


def test_a_fault_in_yaml_is_told_with_the_file(stack: Stack, no_docker: Path, project: Path) -> None:
    said = "echo 'yaml: line 3: did not find expected key' >&2; exit 15"
    other = project / "services/other/compose.yaml"
    fake_docker(no_docker, {"compose config": said, f"compose --file={other} config": said, "compose --file": "exit 0"})
    told = "have a fault: services/other/compose.yaml: yaml: line 3: did not find expected key$"
    with pytest.raises(UserError, match=told):
        stack.model  # noqa: B018


@pytest.mark.parametrize("file", ["docker/compose.yaml", "docker/service.yaml"])
def test_a_fault_in_the_stacks_own_yaml_is_told_with_the_file(
    stack: Stack, no_docker: Path, project: Path, file: str
) -> None:
    """After a merge: Compose tells the line of docker/compose.yaml, or of the file that services extend, and no file."""
    said = "echo 'yaml: line 4: mapping values are not allowed in this context' >&2; exit 15"
    answers = {"compose config": said, f"compose --file={file} config": said}
    if file == "docker/service.yaml":
        answers[f"compose --file={project}/services/other/compose.yaml config"] = said
    fake_docker(no_docker, answers | {"compose --file": "exit 0"})
    with pytest.raises(UserError, match=f"have a fault: {file}: yaml: line 4: mapping values"):
        stack.model  # noqa: B018


def test_a_service_that_was_removed_by_hand_is_told_with_the_way_out(stack: Stack, no_docker: Path) -> None:
    gone = "open /clone/services/pilot/compose.yaml: no such file or directory"
    fake_docker(no_docker, {"compose config": f"echo '{gone}' >&2; exit 1"})
    with pytest.raises(UserError, match=f"{gone}; bring services/pilot back, then `nox -s remove -- pilot`"):
        stack.model  # noqa: B018


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (  # HOME is a folder that this user may not read, and that has Docker's plugins
            "WARNING: Error loading config file: open /home/x/.docker/config.json: permission denied\n"
            "unknown flag: --format\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]\n\nRun 'docker --help' for more information",
            "WARNING: Error loading config file: open /home/x/.docker/config.json: permission denied",
        ),
        ("unknown shorthand flag: 'f' in -f\nSee 'docker --help'.\nFor more help, see x", "unknown shorthand flag"),
        ("unknown flag: --format", "unknown flag: --format"),
    ],
)
def test_a_compose_that_does_not_work_is_no_fault_of_the_files(
    stack: Stack, no_docker: Path, said: str, told: str
) -> None:
    (no_docker / "said").write_text(said)
    fake_docker(no_docker, {"compose config": f"cat '{no_docker}/said' >&2; exit 125"})
    with pytest.raises(UserError, match="`docker compose` does not work for this user: ") as failed:
        stack.model  # noqa: B018
    assert told in str(failed.value)
    assert "fault" not in str(failed.value)


@pytest.mark.parametrize(
    ("arguments", "more", "told"),
    [
        ({"INTERFACE": "wsgj"}, {}, "pilot in compose.yaml: INTERFACE is 'wsgj'; it must be wsgi, asgi, command"),
        ({}, {"environment": {"INTERFACE": "worker"}}, "INTERFACE is 'worker'"),
        ({}, {"environment": {"INTERFACE": None}}, ""),
        ({"INTERFACE": "asgi"}, {"healthcheck": {"disable": False}}, ""),
        (
            {"INTERFACE": "command"},
            {"healthcheck": {"disable": False}},
            "a command without `ports` needs `healthcheck:",
        ),
        ({"INTERFACE": "command"}, {"healthcheck": {"disable": True}}, ""),
        ({"INTERFACE": "command"}, {"healthcheck": {"test": ["CMD", "x"]}}, ""),
        ({"INTERFACE": "command"}, {"ports": [{"target": 8000}]}, ""),
        ({"INTERFACE": "command"}, {"command": ["migrate"]}, ""),
    ],
)
def test_an_interface_that_cannot_run_is_told_before_a_build(
    stack: Stack, no_docker: Path, arguments: dict[str, str], more: dict[str, object], told: str
) -> None:
    build = {"args": {"SERVICE": "pilot", **arguments}}
    found = {"services": {"pilot": {"command": None, "build": build, **more}}}  # as Compose says that there is none
    fake_docker(no_docker, {"compose config": f"cat <<'E'\n{json.dumps(found)}\nE"})
    with pytest.raises(UserError, match=told) if told else nullcontext():
        assert stack.model == found


def test_a_model_is_asked_for_once(stack: Stack, no_docker: Path) -> None:
    fake_docker(no_docker, {"compose config --format json": 'echo "{\\"project\\": \\"$COMPOSE_PROJECT_NAME\\"}"'})
    assert stack.model == Stack("ours-1", ("docker/compose.yaml",), "dev").model == {"project": "ours-1"}
    assert Stack("ours-2", ("docker/compose.yaml",), "dev").model == {"project": "ours-2"}
    assert len(calls(no_docker)) == 2


def test_neighbours_are_found_through_jobs_and_databases(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, no_docker: Path
) -> None:
    depends: dict[str, object] = {
        "pilot": {"build": {"args": {"SERVICE": "pilot"}}, "depends_on": {"pilot-migrate": {}}},
        # As Compose has it where a profile is not chosen.
        "other-worker": {
            "build": {"args": {"SERVICE": "other"}},
            "depends_on": {"redis": {}, "x": {"required": False}},
        },
        "pilot-mail": {"build": {"args": {"SERVICE": "pilot"}}, "depends_on": {"other-worker": {}}},
        "redis": {"image": "redis"},
        "pilot-migrate": {"depends_on": {"pilot-database": {}, "scout": {}}},
        "pilot-database": {},
        "scout": {"build": {"args": {"SERVICE": "scout"}}, "depends_on": {"pilot": {}}},
        "other": {"build": {"args": {"SERVICE": "other"}}},
    }
    fake_docker(no_docker, {"compose config": f"echo '{json.dumps({'services': depends})}'"})
    monkeypatch.setattr(model, "service_names", lambda: ["other", "pilot", "scout"])
    assert stack.processes([]) == []
    assert stack.processes(["pilot", "scout"]) == ["pilot", "pilot-mail", "scout"]
    assert stack.processes(["pilot-database", "pilot-mail"]) == ["pilot-mail", "pilot-database"]  # for `logs`
    assert stack.with_neighbours(["pilot"]) == ["other", "pilot", "scout"]  # other, because pilot-mail needs its image
    assert stack.with_neighbours(["other"]) == ["other"]
    assert stack.model["services"]["other-worker"]["depends_on"] == {"redis": {}}


@pytest.mark.parametrize(
    "services",
    [
        {"other": {}},  # docker/compose.yaml does not include it
        {"pilot": {"build": {"args": {"SERVICE": "pilo"}}}},
        {"pilot-web": {"build": {"args": {"SERVICE": "pilot"}}}},
        {"pilot": {"image": "postgres:17"}},
    ],
)
def test_a_service_that_the_stack_lacks_is_told(
    stack: Stack, no_docker: Path, services: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a session does without it, or builds something else."""
    monkeypatch.setattr(model, "service_names", lambda: ["pilot"])
    fake_docker(no_docker, {"compose config": f"echo '{json.dumps({'services': services})}'"})
    told = "^no service pilot with `SERVICE: pilot`: see its compose.yaml, and docker/compose.yaml$"
    for ask in (stack.processes, stack.with_neighbours, lambda names: target_of(stack, names[0])):
        with pytest.raises(UserError, match=told):
            ask(["pilot"])


@pytest.mark.parametrize("argument", ["EXTRA", "INTERFAC", "TESTS_NEED_NEIGHBOUR"])
def test_a_build_argument_that_nothing_reads_is_told(stack: Stack, no_docker: Path, argument: str) -> None:
    """BuildKit says nothing of it."""
    known = {"SERVICE": "pilot", "EXTRAS": "x", "HTTPS_PROXY": "x", "STACK_BASE": None, "TESTS_NEED_NEIGHBOURS": "1"}
    services = {"pilot": {"build": {"args": known}}, "other": {"build": {"args": {"SERVICE": "other", argument: "1"}}}}
    fake_docker(no_docker, {"compose config": f"echo '{json.dumps({'services': services})}'"})
    assert stack.service("pilot")["build"]["args"] == known
    with pytest.raises(UserError, match=f"^other in compose.yaml: its Dockerfile has no `ARG {argument}`: correct"):
        stack.service("other")


PS = """cat <<END
2\tpilot\trunning\tUp 2 minutes (healthy)\t127.0.0.1:5678->5678/tcp, 127.0.0.1:5001->8000/tcp
1\tother\trunning\tUp 2 seconds (health: starting)\t127.0.0.1:5000->8000/tcp
3\tpilot-migrate\texited\tExited (0) 2 minutes ago\t
4\tpilot-worker\texited\tExited (137) 1 second ago\t
5\tredis\trunning\tUp 2 minutes\t6379/tcp
6\tsearch\trunning\tUp 2 minutes (unhealthy)\t
7\ttwo\trunning\tUp 1 minute (healthy)\t0.0.0.0:32768->8000/tcp, [::]:32768->8000/tcp
8\tweb\texited\tExited (0) 1 second ago\t127.0.0.1:6000-6001->8000-8001/tcp, 127.0.0.1:9100->9100/tcp
9	metrics	running	Up 1 minute	127.0.0.1:5353->53/udp, 127.0.0.1:9200->7000/tcp, 127.0.0.1:5002->8000/tcp
10	dns	running	Up 1 minute	127.0.0.1:5354->53/udp
11	office	running	Up 1 minute (healthy)	192.168.1.5:5003->8000/tcp
12	postgres	running	Up 1 minute (healthy)	192.168.1.5:5432->5432/tcp
END"""
PILOT = "http://127.0.0.1:5001"


def test_containers_are_read_from_docker_ps(stack: Stack, no_docker: Path) -> None:
    fake_docker(no_docker, {"ps --all": PS})
    found = {container.service: container for container in stack.containers()}
    assert list(found) == sorted(found)
    assert found["pilot"] == Container("2", "pilot", "running", "healthy", 0, 5001, (5001,), "", PILOT)
    assert (found["other"].port, found["other"].health) == (5000, "starting")
    assert found["two"].port == 32768
    assert (found["web"].port, found["web"].ports) == (6000, (6000, 6001, 9100))  # Docker writes neighbours as a range
    assert (found["metrics"].port, found["metrics"].ports) == (5002, (9200, 5002))  # UDP has no URL
    assert (found["dns"].port, found["dns"].ports) == (0, ())
    addresses = ["http://127.0.0.1:32768", "", "http://192.168.1.5:5003", "192.168.1.5:5432"]
    assert [found[name].address for name in ("two", "dns", "office", "postgres")] == addresses
    ready = {name for name, container in found.items() if container.ready}
    assert ready == {"pilot", "pilot-migrate", "redis", "two", "web", "metrics", "dns", "office", "postgres"}
    assert {name for name, container in found.items() if container.failed} == {"pilot-worker", "search"}
    assert [str(found[name]) for name in ("pilot-worker", "search", "redis")] == [
        "exited with 137",
        "is unhealthy",
        "is running",
    ]
    (asked,) = calls(no_docker)
    assert "--filter=label=com.docker.compose.project=ours-1 --filter=label=com.docker.compose.oneoff=False" in asked
    assert stack.container("pilot").id == "2"
    for missing in ("pilot-worker", "none"):
        with pytest.raises(UserError, match=f"no container of {missing} is running: `nox -s dev` starts it"):
            stack.container(missing)


@pytest.mark.usefixtures("project")
def test_the_development_stack_is_the_one_that_compose_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ownership.SESSION, raising=False)
    stack = model.development()
    assert stack.env == {
        "COMPOSE_PROJECT_NAME": clone_id(),
        "COMPOSE_FILE": "docker/compose.yaml",
        "COMPOSE_ENV_FILES": "/dev/null",  # there is no .env yet
        "STACK_SESSION": "",  # it outlives the session, which is no reason to remove it
    }
    assert model.development(attached=True).env["STACK_SESSION"] == ownership.session_id()
    env.ENV.write_text("COMPOSE_PROJECT_NAME=mine\nCOMPOSE_FILE=docker/compose.yaml:mine.yaml\n")
    stack = model.development()
    assert (stack.project, stack.files) == ("mine", ("docker/compose.yaml", "mine.yaml"))
    assert stack.env["COMPOSE_ENV_FILES"] == ".env"


def test_production_is_of_a_flavor(project: Path) -> None:
    (project / "docker/Dockerfile").write_text("FROM python:3.13-slim@sha256:12 AS official\n")
    found = model.production("slim").env
    assert (found["STACK_FLAVOR"], found["COMPOSE_FILE"]) == ("slim", "docker/compose.prod.yaml")
    assert "STACK_TARGET" not in found
    alpine = model.production("alpine").env
    assert (alpine["STACK_TARGET"], alpine["STACK_BASE"]) == ("slim", "python:3.13-alpine")


@pytest.mark.usefixtures("project")
def test_the_stack_under_test_has_a_name_and_ports_of_its_own(no_docker: Path) -> None:
    ports = [{"published": "5000", "target": 8000}]
    services = {"a-pilot": {"ports": ports}, "other": {"ports": ports}, "database": {"ports": []}, "job": {}}
    fake_docker(no_docker, {"compose config": f"echo '{json.dumps({'services': services})}'"})
    stack = model.under_test(model.production(), "gw1")
    assert stack.project == f"{ownership.project_of_tests(ownership.session_id())}-gw1"
    assert stack.project.startswith(clone_id())
    chosen = {"A_PILOT_PORT": "0", "A_PILOT_HOST": "127.0.0.1", "OTHER_PORT": "0", "OTHER_HOST": "127.0.0.1"}
    assert stack.settings == {"STACK_SESSION": ownership.session_id(), **chosen}
    assert model.under_test(model.production()).project == ownership.project_of_tests(ownership.session_id())
