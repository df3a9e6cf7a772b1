"""`nox -s rename`, in clones of this project with what a fresh clone of the template has."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from ..project import name
from ..scaffold import rename
from ..shell import UserError
from .conftest import move_root
from .scaffolding import commit, git

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


@pytest.fixture
def here(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same clone for `rename` in this process, which is faster than nox."""
    move_root(fresh, monkeypatch)
    return fresh


def test_a_fresh_clone_becomes_ones_own(nox: Nox, fresh: Path) -> None:
    first = git(fresh, "rev-parse", "HEAD").strip()
    lock = (fresh / "poetry.lock").read_bytes()
    done = nox("-s", "rename", "--", "pier-nine")
    assert f"{name()} is pier-nine now" in done.stdout, done.stderr
    described = tomllib.loads((fresh / "pyproject.toml").read_text())["project"]
    assert (described["name"], described["description"]) == ("pier-nine", "pier-nine")
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


def test_a_downloaded_archive_tells_its_commit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "tasks/VERSION").write_text(f"{ARCHIVED}\n")
    git(here, "remote", "remove", "origin")
    commit(here)
    rename.rename("pier-nine")
    assert "nox -s clean" not in capsys.readouterr().out
    assert (here / "tasks/VERSION").read_text() == f"{ARCHIVED}\n"


def test_a_second_name_leaves_where_updates_come_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rename.rename("pier-nine")
    version = (here / "tasks/VERSION").read_text()
    git(here, "remote", "set-url", "origin", "https://example.invalid/me/pier.git")
    commit(here)
    (here / "reports").mkdir(exist_ok=True)
    (here / "reports/built.json").write_text("{}")
    rename.rename("pier-ten")
    assert "`nox -s clean` removes what has run as pier-nine" in capsys.readouterr().out
    assert tomllib.loads((here / "pyproject.toml").read_text())["project"]["name"] == "pier-ten"
    assert (here / "tasks/VERSION").read_text() == version


def test_commits_that_were_made_before_are_not_the_templates(here: Path) -> None:
    """A service, for example: without it in the base, `update` would remove it."""
    first = git(here, "rev-parse", "HEAD").strip()
    git(here, "update-ref", "refs/remotes/origin/HEAD", first)
    (here / "mine").write_text("")
    commit(here)
    rename.rename("pier-nine")
    assert (here / "tasks/VERSION").read_text().splitlines()[0] == first


def test_colors_in_git_change_nothing(here: Path) -> None:
    git(here, "config", "color.ui", "always")
    rename.rename("pier-nine")
    assert "template.bench" not in (here / "noxfile.py").read_text()


def test_git_puts_the_commit_into_an_archive(fresh: Path) -> None:
    first = git(fresh, "rev-parse", "HEAD").strip()
    git(fresh, "archive", "--output=all.tar", "HEAD")
    done = subprocess.run(
        ["tar", "xOf", "all.tar", "tasks/VERSION"], cwd=fresh, check=True, capture_output=True, text=True
    )
    assert done.stdout == f"{first}\n"


def test_mistakes_change_nothing(here: Path) -> None:
    for wanted, told in (("No Name", "lower-case"), ("../x", "lower-case"), ("a" * 41, "at most 40")):
        with pytest.raises(UserError, match=told):
            rename.rename(wanted)
    assert git(here, "status", "--porcelain") == ""
    (here / "mine").write_text("")
    with pytest.raises(UserError, match="such as mine"):
        rename.rename("ours")
    assert git(here, "status", "--porcelain") == "?? mine\n"


def test_a_name_that_is_not_found_changes_nothing(here: Path) -> None:
    path = here / "pyproject.toml"
    path.write_text(path.read_text().replace(f'name = "{name()}"', f"name = '{name()}'"))
    commit(here)
    with pytest.raises(UserError, match=r"pyproject.toml has no line `name = "):
        rename.rename("pier-nine")
    assert git(here, "status", "--porcelain") == ""
    assert (here / "template/bench.py").exists()


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
    assert rename.without_credentials(url) == kept
