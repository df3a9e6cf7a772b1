"""`nox -s rename`, in clones of this project with what a fresh clone of the template has."""

from __future__ import annotations

import subprocess
import tomllib
from typing import TYPE_CHECKING

import pytest

from ..project import name
from ..scaffold.rename import without_credentials
from .scaffolding import commit, git

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Nox = Callable[..., subprocess.CompletedProcess[str]]

ARCHIVED = "0123456789" * 4


@pytest.fixture
def fresh(clone: Path) -> Path:
    """A clone in git, with a folder template/ and with lines that refer to it."""
    (clone / "template").mkdir(exist_ok=True)
    (clone / "template/bench.py").write_text("print('for makers')\n")
    (clone / "tasks/VERSION").write_text("$Format:%H$\n")
    with (clone / "CONTRIBUTING.md").open("a") as file:
        file.write("\nBefore.\nSee template/. <!-- template only -->\nAfter: template only.\n")
        file.write("\nSee template/. <!-- template only -->\nAnd more. <!-- template only -->\n\nThe end.\n")
    with (clone / "noxfile.py").open("a") as file:
        file.write("\n\nif True:  # template only\n    import template.bench  # template only\n")
    git(clone, "init", "-q")
    git(clone, "remote", "add", "origin", "https://me:secret@example.invalid/us/template.git")
    commit(clone)
    return clone


def test_a_fresh_clone_becomes_ones_own(nox: Nox, fresh: Path) -> None:
    first = git(fresh, "rev-parse", "HEAD").strip()
    lock = (fresh / "poetry.lock").read_bytes()
    done = nox("-s", "rename", "--", "pier-nine")
    assert f"{name()} is pier-nine now" in done.stdout, done.stderr
    assert tomllib.loads((fresh / "pyproject.toml").read_text())["project"]["name"] == "pier-nine"
    assert (fresh / "README.md").read_text().startswith("# pier-nine\n")
    assert (fresh / "tasks/VERSION").read_text() == f"{first}\nhttps://example.invalid/us/template.git\n"
    assert not (fresh / "template").exists()
    assert (fresh / "CONTRIBUTING.md").read_text().endswith("\nBefore.\nAfter: template only.\n\nThe end.\n")
    text = (fresh / "noxfile.py").read_text()
    assert "template.bench" not in text
    assert not text.endswith("\n\n")
    assert (fresh / "poetry.lock").read_bytes() == lock
    assert nox("-l").returncode == 0
    assert git(fresh, "log", "--format=%s") == "all\n"


def test_a_downloaded_archive_tells_its_commit(nox: Nox, fresh: Path) -> None:
    (fresh / "tasks/VERSION").write_text(f"{ARCHIVED}\n")
    git(fresh, "remote", "remove", "origin")
    commit(fresh)
    assert "nox -s clean" not in nox("-s", "rename", "--", "pier-nine").stdout
    assert (fresh / "tasks/VERSION").read_text() == f"{ARCHIVED}\n"


def test_a_second_name_leaves_where_updates_come_from(nox: Nox, fresh: Path) -> None:
    nox("-s", "rename", "--", "pier-nine")
    version = (fresh / "tasks/VERSION").read_text()
    git(fresh, "remote", "set-url", "origin", "https://example.invalid/me/pier.git")
    commit(fresh)
    (fresh / "reports").mkdir(exist_ok=True)
    (fresh / "reports/built.json").write_text("{}")
    assert "`nox -s clean` removes what has run as pier-nine" in nox("-s", "rename", "--", "pier-ten").stdout
    assert tomllib.loads((fresh / "pyproject.toml").read_text())["project"]["name"] == "pier-ten"
    assert (fresh / "tasks/VERSION").read_text() == version


def test_git_puts_the_commit_into_an_archive(fresh: Path) -> None:
    first = git(fresh, "rev-parse", "HEAD").strip()
    git(fresh, "archive", "--output=all.tar", "HEAD")
    done = subprocess.run(
        ["tar", "xOf", "all.tar", "tasks/VERSION"], cwd=fresh, check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{first}\n"


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("No Name", "lower-case letters"),
        ("../x", "lower-case letters"),
        ("a" * 41, "at most 40"),
        ("ours", "git does not have"),
    ],
)
def test_mistakes_change_nothing(nox: Nox, fresh: Path, wanted: str, told: str) -> None:
    if wanted == "ours":
        (fresh / "mine").write_text("")
    before = git(fresh, "status", "--porcelain")
    done = nox("-s", "rename", "--", wanted)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert git(fresh, "status", "--porcelain") == before


def test_a_name_that_is_not_found_changes_nothing(nox: Nox, fresh: Path) -> None:
    path = fresh / "pyproject.toml"
    path.write_text(path.read_text().replace(f'name = "{name()}"', f"name = '{name()}'"))
    commit(fresh)
    done = nox("-s", "rename", "--", "pier-nine")
    assert "pyproject.toml has no line `name = " in done.stderr
    assert git(fresh, "status", "--porcelain") == ""
    assert (fresh / "template/bench.py").exists()


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://me:secret@host.invalid:8443/a.git", "https://host.invalid:8443/a.git"),
        ("https://token@host.invalid/a", "https://host.invalid/a"),
        ("git@host.invalid:us/a.git", "git@host.invalid:us/a.git"),
        ("ssh://git@host.invalid/a", "ssh://git@host.invalid/a"),
        ("/srv/a b@c", "/srv/a b@c"),
        ("", ""),
    ],
)
def test_no_credentials_are_written_down(url: str, kept: str) -> None:
    assert without_credentials(url) == kept
