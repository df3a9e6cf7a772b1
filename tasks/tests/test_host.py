"""Which tests run on the host, with what, and which a change affects."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from nox import Session

from .. import changes, venv
from ..images import bake
from ..shell import UserError
from ..stack import lifecycle
from ..testing import containers, host
from ..testing.host import Suite
from .conftest import calls, fake_docker

SESSION = cast("Session", None)


@pytest.fixture(autouse=True)
def tests(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with tests of its tooling and of its stack, and with another suite."""
    for path in (
        "tasks/tests/test_a.py",
        "docker/dev/tests/test_b.py",
        "services/pilot/stack/test_c.py",
        "more/test_d.py",
    ):
        (project / path).parent.mkdir(parents=True)
        (project / path).touch()
    (project / "docker/empty/tests").mkdir(parents=True)
    more = Suite(("more",), "host", ("more/",), by_default=False, options=("--more",))
    monkeypatch.setattr(host, "SUITES", host.SUITES | {"more": more})
    monkeypatch.setattr(host, "libs_of", {"pilot": ["ink"], "other": []}.__getitem__)
    monkeypatch.setattr(containers, "start_neighbours", lambda _: None)
    return project


def test_a_suite_is_there_where_its_tests_are(tests: Path) -> None:
    assert {"unit", "stack", "more"} <= set(host.suites())
    assert host.paths(host.SUITES["unit"]) == ["docker/dev/tests", "tasks/tests"]
    assert "more" not in host.suites(by_default=True)
    (tests / "services/pilot/stack/test_c.py").unlink()
    assert "stack" not in host.suites()


@pytest.mark.parametrize(
    ("posargs", "named"),
    [
        ("-x -k limit", "-x -k limit"),
        ("pilot tests/test_x.py", "pilot tests/test_x.py"),
        ("services/pilot/tests/test_x.py::test_y -x", "pilot ./tests/test_x.py::test_y -x"),
        ("pilot services/pilot/tests/ -x", "pilot pilot ./tests/ -x"),
        ("services/pilot/pilot/test_x.py", "pilot ./pilot/test_x.py"),
        ("services/pilot/tests", "pilot ./tests"),
        ("services/pilot -x", "pilot -x"),
        ("services/pilot/", "pilot"),
        ("libs/ink/tests/test_i.py -x", "pilot ../../libs/ink/tests/test_i.py -x"),
        ("stack services/pilot/stack/test_c.py", "stack stack services/pilot/stack/test_c.py"),
        ("services/pilot/stack/test_c.py", "stack services/pilot/stack/test_c.py"),
        ("-m slow tasks/tests/test_a.py::test_z", "unit -m slow tasks/tests/test_a.py::test_z"),
        ("more", "more more"),
    ],
)
def test_a_path_names_what_it_belongs_to(posargs: str, named: str) -> None:
    assert host.with_names(posargs.split()) == named.split()


@pytest.mark.parametrize(
    ("posargs", "told"),
    [
        (
            "services/pilot/tests/test_x.py tasks/tests",
            "these are paths of pilot and unit: name those of one at a time",
        ),
        ("stack services/pilot/tests", "these are paths of pilot and stack: name those of one at a time"),
        ("libs/pen/tests", "no service uses libs/pen, so its tests can run in no container"),
    ],
)
def test_paths_of_several_or_of_none_are_refused(posargs: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        host.with_names(posargs.split())


@pytest.mark.parametrize(
    ("path", "affected"),
    [
        ("tasks/shell.py", {"unit", "stack"}),
        ("noxfile.py", {"unit", "stack"}),
        ("poetry.lock", {"unit", "stack"}),
        ("pyproject.toml", {"unit", "stack"}),
        ("deploy/swarm.py", {"unit"}),
        (".github/workflows/ci.yml", {"unit"}),
        ("services/pilot/pilot/__init__.py", {"stack"}),
        ("more/test_d.py", {"more"}),
        ("README.md", {"unit"}),
        ("LICENSE", set()),
        ("front/www/index.html", {"stack"}),
        ("back/www/index.html", {"stack"}),
        ("side/www/index.html", {"stack"}),
        ("frontier/index.html", set()),
    ],
)
def test_a_change_affects_suites(monkeypatch: pytest.MonkeyPatch, tests: Path, path: str, affected: set[str]) -> None:
    lines = ("- ../front/compose.yaml", "- '../back/compose.yaml'", "- path: ../side/compose.yaml")
    (tests / "docker/compose.yaml").write_text("\n".join(["include:", *lines, "  - ../services/a/compose.yaml"]))
    monkeypatch.setattr(changes, "paths_since", lambda ref: [path] if ref == "main" else pytest.fail(ref))
    assert {"unit", "stack", "more"}.intersection(host.affected("main")) == affected
    assert host.affected(None) == host.suites()


def test_a_suite_runs_in_its_environment(monkeypatch: pytest.MonkeyPatch, tests: Path) -> None:
    ran: list[dict[str, list[str]]] = []
    did: list[str] = []
    monkeypatch.setattr(venv, "install", lambda _session, group: did.append(group))
    monkeypatch.setattr(venv, "python", lambda _session: "python")
    monkeypatch.setattr(bake, "build", lambda services, flavor: did.append(f"{services} {flavor}"))

    def record(commands: dict[str, list[str]], prepare: Callable[[str], object]) -> dict[str, int]:
        ran.append(commands)
        for name in commands:
            prepare(name)
        return dict.fromkeys(commands, 3)

    monkeypatch.setattr(containers, "side_by_side", record)
    monkeypatch.setattr(lifecycle, "remove_tested_stacks", lambda: did.append("removed"))
    monkeypatch.chdir(tests)
    start = ["python", "-B", "-m", "pytest"]
    report = f"--junitxml={tests}/reports/junit-more.xml"
    assert host.test(SESSION, [], ["more"], ["-x"]) == {"more": 3}
    assert ran.pop() == {"more": [*start, "--more", report, "more", "-x"]}
    host.test(SESSION, [], ["more"], ["-x", "more/test_d.py::test_it"])
    assert ran.pop() == {"more": [*start, "--more", report, "-x", "more/test_d.py::test_it"]}
    host.test(SESSION, [], ["more"], ["-k", "more"])  # a word, and not the folder
    assert ran.pop() == {"more": [*start, "--more", report, "more", "-k", "more"]}
    assert did == ["host", "host", "host"]
    host.test(SESSION, [], ["stack", "more"], [])
    assert did[3:] == ["stack", "host", "['other', 'pilot'] prod", "removed"]
    assert ran.pop()["stack"][-1] == "services/pilot/stack"


def test_services_and_suites_run_side_by_side_and_the_stack_last(
    monkeypatch: pytest.MonkeyPatch, no_docker: Path
) -> None:
    monkeypatch.setattr(venv, "install", lambda *_: None)
    monkeypatch.setattr(venv, "python", lambda _session: "echo")
    fake_docker(no_docker, {"compose": "", "ps": "", "network ls": "", "volume ls": ""})
    built: list[str] = []
    monkeypatch.setattr(bake, "build", lambda services, _: built.extend(services))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    found = host.test(SESSION, ["pilot"], ["unit", "stack"], [])
    assert [*found.items()] == [("unit", 0), ("pilot", 0), ("stack", 0)]
    assert built == ["other", "pilot"]
    assert [*host.test(SESSION, ["pilot"], [], [])] == ["pilot"]


def test_the_toolings_tests_run_again_after_a_change(
    monkeypatch: pytest.MonkeyPatch, tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(venv, "install", lambda *_: None)
    monkeypatch.setattr(venv, "python", lambda _session: "false")
    both = ["unit", "stack"]
    host.test(SESSION, [], ["unit"], [])
    assert host.due(both) == both
    monkeypatch.setattr(venv, "python", lambda _session: "echo")
    host.test(SESSION, [], ["unit"], ["-x"])
    assert host.due(both) == both
    host.test(SESSION, [], ["unit"], [])
    assert host.due(both) == ["stack"]
    assert capsys.readouterr().out.endswith("up to date: unit (`nox -s test -- unit` runs it all the same)\n")
    for path in (".github/workflows/ci.yml", "docker/dev/live.py"):
        (tests / path).parent.mkdir(parents=True, exist_ok=True)
        (tests / path).write_text("new")
        assert host.due(both) == both
        host.test(SESSION, [], ["unit"], [])
    assert host.due(both) == ["stack"]


@pytest.mark.parametrize("where", ["start_neighbours", "side_by_side"])
@pytest.mark.parametrize(("services", "suites"), [(["pilot"], []), (["pilot"], ["stack"]), ([], ["stack"])])
def test_an_interrupt_removes_the_containers(
    monkeypatch: pytest.MonkeyPatch, no_docker: Path, services: list[str], suites: list[str], where: str
) -> None:
    def interrupted(*_: object) -> dict[str, int]:
        raise KeyboardInterrupt

    monkeypatch.setattr(venv, "install", lambda *_: None)
    monkeypatch.setattr(venv, "python", lambda _session: "python")
    monkeypatch.setattr(containers, where, interrupted)
    fake_docker(no_docker, {"network ls": "echo 34", "network rm": "", "volume ls": "", "ps": "echo 12", "rm": ""})
    with pytest.raises(KeyboardInterrupt):
        host.test(SESSION, services, suites, [])
    assert "rm --force --volumes 12" in calls(no_docker)
    assert "network rm 34" in calls(no_docker)


def test_a_plan_is_printed_and_handed_to_github(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_plan(["pilot", "unit"])
    (tmp_path / "output").write_text("before=1\n")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    host.write_plan([])
    assert capsys.readouterr().out == 'parts=["pilot", "unit"]\nparts=[]\n'
    assert (tmp_path / "output").read_text() == "before=1\nparts=[]\n"
