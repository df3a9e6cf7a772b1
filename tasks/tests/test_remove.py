"""`nox -s remove`, and what `new` and `remove` put back when they fail."""

from __future__ import annotations

import threading
import tomllib
from pathlib import Path

import pytest

from .. import venv
from ..scaffold import service
from ..shell import UserError
from .scaffolding import NO_SESSION, PYPROJECT, commit, git, make, small_project, take_away

USERS = ("POSTGRES_USER: pilot", "user: pilot", "URL: postgresql://pilot@two-postgres/two", "- --username=pilot")


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_project(tmp_path / "ours", monkeypatch)


def test_remove_undoes_new_to_the_last_byte(ours: Path) -> None:
    make("one")
    make("two", model="one")
    make("three", model="pilot")
    for name in ("one", "three", "two"):
        take_away(name)
    assert git(ours, "status", "--porcelain", "--ignored") == ""


def test_remove_takes_all_that_is_the_services(ours: Path) -> None:
    take_away("pilot")
    data = tomllib.loads((ours / "pyproject.toml").read_text())
    assert data["dependency-groups"].keys() == {"tests"}
    assert not data["tool"]["poetry"].get("group")
    assert data["tool"]["stack"]["budgets"] == {}
    text = (ours / "pyproject.toml").read_text()
    assert [line for line in text.splitlines() if "pilot" in line] == []
    assert {line for line in PYPROJECT.splitlines() if line.startswith("#")} <= {*text.splitlines()}
    assert "pilot" not in (ours / "docker/compose.yaml").read_text()
    assert not (ours / "services/pilot").exists()


def test_a_stack_without_services_is_valid(ours: Path) -> None:
    before = (ours / "docker/compose.yaml").read_text()
    take_away("pilot")
    assert "\ninclude: []\n\n# More." in (ours / "docker/compose.yaml").read_text()
    make("pilot")
    assert (ours / "docker/compose.yaml").read_text() == before


@pytest.mark.parametrize(
    "line",
    [
        "depends_on: [pilot]",
        "depends_on: [a, pilot]",
        "- pilot",
        "pilot:",
        "URL: http://pilot:8000",
        "URL: http://u@pilot/x",
        "URL: ${URL:-http://pilot}",
    ],
)
def test_what_another_service_needs_is_not_removed(ours: Path, line: str) -> None:
    make("two")
    compose = ours / "services/two/compose.yaml"
    compose.write_text(f"{compose.read_text()}    {line}\n")
    commit(ours)
    with pytest.raises(UserError, match=r"services/two/compose.yaml, line \d+, names pilot: change it first"):
        take_away("pilot")
    assert git(ours, "status", "--porcelain") == ""


def test_anothers_compose_file_that_is_not_utf_8_is_no_obstacle(ours: Path) -> None:
    """What is wrong with it is for Compose to tell."""
    make("two")
    compose = ours / "services/two/compose.yaml"
    compose.write_bytes(compose.read_bytes() + b"# \xe4\n")
    make("three")
    take_away("pilot")
    assert sorted(path.name for path in (ours / "services").iterdir()) == ["three", "two"]


@pytest.mark.parametrize("line", ["# like pilot", "- two-data:/app/pilot", "X: pilot-x", "X: a.pilot", *USERS])
def test_what_only_looks_like_a_service_is_no_obstacle(ours: Path, line: str) -> None:
    make("two")
    compose = ours / "services/two/compose.yaml"
    compose.write_text(f"{compose.read_text()}    {line}\n")
    take_away("pilot")
    assert not (ours / "services/pilot").exists()


@pytest.mark.parametrize("untracked", ["all", "no"])
def test_a_service_with_changes_is_not_removed(ours: Path, untracked: str) -> None:
    """Not even if the user's git shows no new files."""
    git(ours, "config", "status.showUntrackedFiles", untracked)
    (ours / "services/pilot/notes").write_text("mine")
    with pytest.raises(UserError, match="changes that git does not have"):
        take_away("pilot")
    assert git(ours, "status", "--porcelain", "--untracked-files") == "?? services/pilot/notes\n"


def test_a_stack_that_is_written_in_another_way_is_told(ours: Path) -> None:
    (ours / "docker/compose.yaml").write_text("include: [../services/pilot/compose.yaml]\n")
    commit(ours)
    with pytest.raises(UserError, match="no line `include:`"):
        make("two")
    with pytest.raises(UserError, match=r"no line `- \.\./services/pilot/compose\.yaml`"):
        take_away("pilot")
    assert git(ours, "status", "--porcelain") == ""


def test_a_merge_conflict_in_the_stack_is_told(ours: Path) -> None:
    text = "include:\n<<<<<<< HEAD\n=======\n  - ../services/pilot/compose.yaml\n>>>>>>> other\n"
    (ours / "docker/compose.yaml").write_text(text)
    with pytest.raises(UserError, match=r"docker/compose\.yaml has a merge conflict, or"):
        make("two")
    with pytest.raises(UserError, match=r"docker/compose\.yaml has a merge conflict, or"):
        take_away("pilot")
    assert (ours / "docker/compose.yaml").read_text() == text
    assert not (ours / "services/two").exists()


@pytest.mark.parametrize("failure", [UserError("no index"), KeyboardInterrupt()])
@pytest.mark.parametrize("action", ["new", "like", "remove"])
def test_what_fails_or_is_interrupted_changes_nothing(
    ours: Path, monkeypatch: pytest.MonkeyPatch, action: str, failure: BaseException
) -> None:
    def fail(*words: object) -> None:
        if "lock" in words:
            (ours / "poetry.lock").write_text("half")
            raise failure

    monkeypatch.setattr(venv, "poetry", fail)
    with pytest.raises(type(failure)):
        take_away("pilot") if action == "remove" else make("two", model="pilot" if action == "like" else "")
    assert git(ours, "status", "--porcelain", "--ignored") == ""


def test_a_removed_folder_comes_back(ours: Path) -> None:
    def interrupted() -> None:
        with service.all_or_nothing("pilot"):
            service.remove(NO_SESSION, "pilot")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert git(ours, "status", "--porcelain", "--ignored") == ""


def test_of_two_at_once_one_waits_for_the_other(ours: Path) -> None:
    """Else the first that fails would undo what the other has done."""

    def second() -> None:
        with pytest.raises(RuntimeError), service.all_or_nothing("second"):
            raise RuntimeError

    thread = threading.Thread(target=second, daemon=True)
    with service.all_or_nothing("first"):
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        (ours / "poetry.lock").write_text("of the first")
    thread.join(9)
    assert not thread.is_alive()
    assert (ours / "poetry.lock").read_text() == "of the first"
