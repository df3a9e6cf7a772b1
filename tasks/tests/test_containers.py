"""The services' tests, each in its own container."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from .. import ownership
from ..images import bake
from ..shell import UserError
from ..stack import lifecycle
from ..stack.model import Stack, development, under_test
from ..testing import containers
from ..testing.containers import NO_TESTS_RAN, check
from .conftest import calls, fake_docker

RUN = "compose --progress=quiet run --rm --no-deps --volume"


def run(*services: str, pytest_args: Sequence[str] = ()) -> dict[str, int]:
    commands = {name: containers.command(name, pytest_args) for name in services}
    return containers.side_by_side(commands, lambda _: None)


def test_one_service_has_the_terminal(no_docker: Path, project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    session = ownership.session_id()  # as every nox session begins
    fake_docker(
        no_docker, {RUN: 'echo "testing=$STACK_TESTING session=$STACK_SESSION project=$COMPOSE_PROJECT_NAME"; exit 3'}
    )
    assert run("pilot", pytest_args=["-k", "x"]) == {"pilot": 3}
    out = capfd.readouterr().out
    assert f"testing=true session={session} project={ownership.project_of_tests(session, 'services')}" in out
    command = calls(no_docker)[0]
    assert command.startswith(
        f"{RUN} {project}/reports:/app/reports pilot pytest --junitxml=/app/reports/junit-pilot.xml"
    )
    assert command.endswith(" -k x")
    assert re.search(rf"\$ env STACK_TESTING=true COMPOSE_PROJECT_NAME=\S+ docker {command}"[:120], out)  # to be typed


@pytest.mark.usefixtures("project")
def test_neighbours_are_started_for_tests_that_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"SERVICE": "pilot"}
    other = {"build": {"args": {"SERVICE": "other"}}, "depends_on": {"pilot": {}}}
    pilot = {"build": {"args": arguments}, "depends_on": {"database": {}, "migrate": {}}, "ports": [{"target": 8000}]}
    model = {"services": {"other": other, "pilot": pilot, "database": {}, "migrate": pilot}}
    did: list[object] = []
    monkeypatch.setattr(Stack, "model", model)
    monkeypatch.setattr(bake, "build", did.append)
    monkeypatch.setattr(lifecycle, "up", lambda *asked: did.extend(asked))
    monkeypatch.setattr(lifecycle, "wait", did.append)
    containers.start_neighbours(["other", "pilot"])
    assert did == []
    arguments["TESTS_NEED_NEIGHBOURS"] = "1"
    containers.start_neighbours(["other"])
    assert did == []
    containers.start_neighbours(["other", "pilot"])
    # A project of their own, for which the session cleans up, on ports of their own: `dev` may run, or end, beside them.
    tested = under_test(development(), "services")
    assert did == [["pilot"], tested, ["database", "migrate"], tested]
    assert (tested.project, tested.flavor) == (ownership.project_of_tests(ownership.session_id(), "services"), "dev")
    assert tested.settings["PILOT_PORT"] == "0"


def test_of_several_each_comes_in_one_piece(
    no_docker: Path, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    volume = f"{RUN} {project}/reports:/app/reports"
    other = f"until [ -e '{project}/go' ]; do sleep 0.01; done; echo 1 passed"
    pilot = f"echo 'tests/test_a.py .F   [100%]'; touch '{project}/go'; echo 1 failed; exit 1"
    fake_docker(no_docker, {f"{volume} other": other, f"{volume} pilot": pilot})
    assert run("other", "pilot") == {"other": 0, "pilot": 1}
    out = capsys.readouterr().out
    assert "--- pilot\ntests/test_a.py .F   [100%]\n1 failed\n" in out
    assert "--- other\n1 passed\n" in out


def test_what_cannot_be_prepared_has_failed_and_the_others_run(capsys: pytest.CaptureFixture[str]) -> None:
    def prepare(name: str) -> None:
        if name == "stack":
            raise UserError("no image")

    commands = {"unit": ["echo", "1 passed"], "stack": ["false"]}
    assert containers.side_by_side(commands, prepare) == {"unit": 0, "stack": 1}
    out = capsys.readouterr().out
    assert "--- stack\nno image\n" in out
    assert "--- unit\n1 passed\n" in out
    with pytest.raises(UserError, match="no image"):
        containers.side_by_side({"stack": ["false"]}, prepare)


@pytest.mark.parametrize("errors", [0, 1])
def test_an_interrupt_in_the_containers_terminal(no_docker: Path, project: Path, errors: int) -> None:
    report = f"""echo '<testsuite name="pytest" errors="{errors}" failures="1">' >{project}/reports/junit-pilot.xml"""
    fake_docker(no_docker, {RUN: f"{report}; exit 2"})
    if errors:  # a file of tests that cannot be imported
        assert run("pilot") == {"pilot": 2}
    else:
        with pytest.raises(KeyboardInterrupt):
            run("pilot")


def test_failed_tests_are_named() -> None:
    check({"a": 0, "unit": 0}, filtered=False)
    with pytest.raises(UserError, match=r"^tests failed: b, unit$"):
        check({"a": 0, "b": 1, "unit": 2, "c": NO_TESTS_RAN}, filtered=True)


def test_no_tests_are_fine_where_others_have_some(capsys: pytest.CaptureFixture[str]) -> None:
    assert pytest.ExitCode.NO_TESTS_COLLECTED == NO_TESTS_RAN
    check({"a": 0, "b": NO_TESTS_RAN}, filtered=True)
    assert capsys.readouterr().out == ""
    check({"a": 0, "b": NO_TESTS_RAN}, filtered=False)
    assert capsys.readouterr().out == "warning: no tests in services/b/tests: nothing was tested there\n"
    with pytest.raises(UserError, match=r"^no test matches: a, b$"):
        check({"a": NO_TESTS_RAN, "b": NO_TESTS_RAN}, filtered=True)
    check({}, filtered=False)
    assert capsys.readouterr().out == "nothing is affected by the change; no tests were run\n"


@pytest.mark.usefixtures("project")
def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "--color=yes" not in containers.command("pilot", [])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "--color=yes" in containers.command("pilot", [])


@pytest.mark.usefixtures("project")
def test_what_failed_last_time_is_kept_beyond_the_container() -> None:
    """Else `--lf` and `--ff` know of nothing."""
    assert "cache_dir=/app/reports/.pytest-pilot" in containers.command("pilot", ["--lf"])


@pytest.mark.parametrize(("tools", "covered"), [(set(), True), ({"pytest"}, False), ({"pytest", "pytest-cov"}, True)])
def test_coverage_is_left_out_where_a_services_own_tools_have_none(
    monkeypatch: pytest.MonkeyPatch, tools: set[str], covered: bool
) -> None:
    monkeypatch.setattr(containers, "own_tests", lambda _: tools)
    assert ("--cov" in containers.command("pilot", [])) is covered
