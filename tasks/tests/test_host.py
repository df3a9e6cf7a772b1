"""Which tests run on the host, with what, and which a change affects."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import pytest

from .. import changes, venv
from ..images import bake
from ..testing import host
from ..testing.host import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox import Session

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
    return project


def test_a_suite_is_there_where_its_tests_are(tests: Path) -> None:
    assert {"unit", "stack", "more"} <= set(host.suites())
    assert host.paths(host.SUITES["unit"]) == ["docker/dev/tests", "tasks/tests"]
    assert "more" not in host.suites(by_default=True)
    (tests / "services/pilot/stack/test_c.py").unlink()
    assert "stack" not in host.suites()


@pytest.mark.parametrize(
    ("path", "affected"),
    [
        ("tasks/shell.py", {"unit", "stack"}),
        ("noxfile.py", {"unit", "stack"}),
        (".github/workflows/ci.yml", {"unit"}),
        ("services/pilot/pilot/__init__.py", {"stack"}),
        ("more/test_d.py", {"more"}),
        ("README.md", {"unit"}),
        ("LICENSE", set()),
    ],
)
def test_a_change_affects_suites(monkeypatch: pytest.MonkeyPatch, path: str, affected: set[str]) -> None:
    monkeypatch.setattr(changes, "paths_since", lambda ref: [path] if ref == "main" else pytest.fail(ref))
    assert {"unit", "stack", "more"}.intersection(host.affected("main")) == affected
    assert host.affected(None) == host.suites()


def test_a_suite_runs_in_its_environment(monkeypatch: pytest.MonkeyPatch, tests: Path) -> None:
    ran: list[dict[str, list[str]]] = []
    did: list[str] = []
    monkeypatch.setattr(venv, "install", lambda _session, group: did.append(group))
    monkeypatch.setattr(venv, "python", lambda _session: "python")
    monkeypatch.setattr(bake, "build", lambda services, flavor: did.append(f"{services} {flavor}"))

    def record(commands: dict[str, list[str]]) -> dict[str, int]:
        ran.append(commands)
        return dict.fromkeys(commands, 3)

    @contextmanager
    def removed() -> Iterator[None]:
        yield
        did.append("removed")

    monkeypatch.setattr(host, "side_by_side", record)
    monkeypatch.setattr(host, "removed_afterwards", removed)
    monkeypatch.chdir(tests)
    start = ["python", "-B", "-m", "pytest"]
    report = f"--junitxml={tests}/reports/junit-more.xml"
    assert host.test(SESSION, ["more"], ["-x"]) == {"more": 3}
    assert ran.pop() == {"more": [*start, "--more", report, "more", "-x"]}
    host.test(SESSION, ["more"], ["-x", "more/test_d.py::test_it"])
    assert ran.pop() == {"more": [*start, "--more", report, "-x", "more/test_d.py::test_it"]}
    assert did == ["host", "host"]
    host.test(SESSION, ["more", "stack"], [])
    assert did[2:] == ["host", "stack", "['other', 'pilot'] prod", "removed"]
    assert ran.pop()["stack"][-1] == "services/pilot/stack"


def test_a_plan_is_printed_and_handed_to_github(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.write_plan(["pilot", "unit"])
    (tmp_path / "output").write_text("before=1\n")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    host.write_plan([])
    assert capsys.readouterr().out == 'parts=["pilot", "unit"]\nparts=[]\n'
    assert (tmp_path / "output").read_text() == "before=1\nparts=[]\n"
