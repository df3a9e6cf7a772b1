"""Which linters run, and that they are pointed at what is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from nox import Session

from .. import lint, venv
from ..project import ROOT, has_own_lock, service_names


class FakeSession:
    """A session that records the commands that it would run, and in which folder."""

    def __init__(self) -> None:
        self.folder = ROOT
        self.ran: list[tuple[Path, tuple[str, ...]]] = []

    def run(self, *command: str) -> None:
        self.ran.append((self.folder, command))

    @contextmanager
    def chdir(self, folder: Path) -> Iterator[None]:
        self.folder = folder
        yield
        self.folder = ROOT


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The dependency groups that are installed."""
    groups: list[str] = []
    monkeypatch.setattr(venv, "install", lambda _session, *names: groups.extend(names))
    return groups


@pytest.mark.parametrize("fix", [False, True])
def test_every_linter_runs_on_files_that_exist(monkeypatch: pytest.MonkeyPatch, fix: bool) -> None:
    monkeypatch.chdir(ROOT)
    poetry: list[str] = []
    monkeypatch.setattr(venv, "poetry", lambda _session, *arguments: poetry.extend(arguments))
    session = FakeSession()
    lint.lint(cast("Session", session), fix=fix)
    programs = {command[0] for _, command in session.ran}
    expected = {"ruff", "mypy", "hadolint", "shellcheck", "check-jsonschema"}
    assert programs == expected | ({"zizmor"} if Path(".github").exists() else set())
    places = [".", *(f"services/{service}" for service in service_names() if has_own_lock(service))]
    assert poetry == [word for place in places for word in (f"--directory={place}", "check", "--lock")]
    assert ("ruff", "check", *(["--fix"] if fix else []), ".") in [command for _, command in session.ran]
    for folder, command in session.ran:
        words = [word for word in command[1:] if not word.startswith("-") and word not in {"check", "format"}]
        assert words
        assert "config-file" not in " ".join(command)  # what is checked in its own folder has its own settings, if any
        assert [word for word in words if not (folder / word).exists()] == []


def test_another_ci_than_githubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without workflows, zizmor and check-jsonschema would fail because they have nothing to look at."""
    monkeypatch.setattr(venv, "poetry", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    session = FakeSession()
    lint.lint(cast("Session", session), fix=False)
    assert "zizmor" not in {command[0] for _, command in session.ran}
    assert not any(
        "vendor.github-workflows" in word or "dependabot" in word for _, command in session.ran for word in command
    )


def test_packages_of_a_service_without_types_are_not_needed(
    installed: list[str], monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    """Those without a wheel, such as mysqlclient, would need their libraries on this machine."""
    (project / "services/other/other").mkdir()
    (project / "services/other/other/py.typed").touch()
    (project / "services/third").mkdir()
    monkeypatch.setattr(lint, "service_names", lambda: ["other", "pilot", "third"])
    monkeypatch.setattr(lint, "libs_of", {"other": [], "pilot": [], "third": ["pen"]}.__getitem__)
    monkeypatch.setattr(venv, "poetry", lambda *_: None)
    session = FakeSession()
    lint.lint(cast("Session", session), fix=False)
    assert installed == ["host", "lint", "tests", "other", "third"]
    packages = [folder for folder, command in session.ran if command[0] == "mypy" and folder != ROOT]
    assert packages == [project / "services/other", project / "libs/pen"]


def test_two_services_may_call_a_stack_test_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """To mypy, two files of one name that are in no package are one module twice."""
    for service in ("one", "two"):
        (tmp_path / service / "stack").mkdir(parents=True)
        (tmp_path / service / "stack/test_api.py").touch()
    monkeypatch.setattr(lint, "SERVICES", tmp_path)
    monkeypatch.setattr(venv, "poetry", lambda *_: None)
    session = FakeSession()
    lint.lint(cast("Session", session), fix=False)
    checked = [[word for word in command if str(tmp_path) in word] for _, command in session.ran if "mypy" in command]
    assert [f"{tmp_path}/one/stack"] in checked
    assert [f"{tmp_path}/two/stack"] in checked
    assert max(map(len, checked)) == 1
