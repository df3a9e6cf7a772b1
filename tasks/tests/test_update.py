"""`nox -s update`, with real repositories: a template that moves on, and clones of it that are renamed and changed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .. import changes, cli, project
from ..project import ROOT
from ..scaffold import update
from ..shell import UserError
from .scaffolding import commit, git


def nox(root: Path, *args: str) -> str:
    """What a session says."""
    command = [sys.executable, "-m", "nox", "--no-venv", "-s", *args]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bring(*args: str) -> None:
    """Run `update` in this process."""
    update.update(cli.update(args))


def edit(root: Path, path: str, old: str, new: str) -> None:
    text = (root / path).read_text()
    assert old in text
    (root / path).write_text(text.replace(old, new, 1))


def conflicts(root: Path) -> list[str]:
    return sorted({line.split("\t")[1] for line in git(root, "ls-files", "--unmerged").splitlines()})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a template, with a file of 40 lines among its tooling, and a clone of it that was renamed.

    It has what sessions need, because git takes its time for each file.
    """
    folder = tmp_path_factory.mktemp("made")
    for path in git(ROOT, "ls-files", "-co", "--exclude-standard").splitlines():
        needed = "/" not in path or path.startswith(("tasks/", "docker/compose", "template/sessions"))
        if needed and not re.search("/(tests|skeleton)/", path) and (ROOT / path).exists():
            (folder / "template" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "template" / path).write_bytes((ROOT / path).read_bytes())
    template = folder / "template"
    (template / "template").mkdir(exist_ok=True)
    (template / "template/makers").write_text("ours\n")
    (template / "tasks/VERSION").write_text("$Format:%H$\n")
    (template / "docker/optional").mkdir(parents=True)
    (template / "docker/lines").write_text("".join(f"{number}\n" for number in range(40)))
    (template / "docker/optional/part").write_text("one\n")
    git(template, "init", "-q", "-b", "main")
    commit(template)
    git(folder, "clone", "-q", str(template), "mine")
    nox(folder / "mine", "rename", "--", "harbour")
    commit(folder / "mine")
    return folder


@pytest.fixture
def template(made: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", "--shared", str(made / "template"), "template")
    return tmp_path / "template"


@pytest.fixture
def mine(made: Path, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The renamed clone, with a service of its own, an edited tooling file, and an optional part deleted."""
    git(tmp_path, "clone", "-q", "--shared", str(made / "mine"), "mine")
    mine = tmp_path / "mine"
    monkeypatch.chdir(mine)
    monkeypatch.setattr(changes, "ROOT", mine)
    monkeypatch.setattr(project, "ROOT", mine)
    monkeypatch.setattr(update, "VERSION", mine / "tasks/VERSION")
    (mine / "services/own").mkdir(parents=True)
    (mine / "services/own/compose.yaml").write_text("services: {}\n")
    edit(mine, "pyproject.toml", "[dependency-groups]\n", "[dependency-groups]\nown = []\n")
    edit(mine, "docker/lines", "30\n", "mine\n")
    git(mine, "rm", "-q", "docker/optional/part")
    first = git(template, "rev-parse", "HEAD").strip()
    (mine / "tasks/VERSION").write_text(f"{first}\n{template}\n")
    commit(mine)
    return mine


def move_on(template: Path) -> str:
    """Change the template's tooling, and what is not tooling."""
    edit(template, "docker/lines", "3\n", "theirs\n")
    edit(template, "pyproject.toml", 'minversion = "9.0"', 'minversion = "9.1"')
    (template / "tasks/new_one.py").write_text("")
    (template / "docker/optional/part").write_text("two\n")
    (template / "docker/optional/another").write_text("new\n")
    (template / "template/makers").write_text("ours, changed\n")
    (template / "README.md").write_text("another\n")
    (template / "services/sample").mkdir(parents=True)
    (template / "services/sample/compose.yaml").write_text("services: {}\n")
    with (template / "CONTRIBUTING.md").open("a") as file:
        file.write("Kept.\ntemplate/makers <!-- template only -->\n")
    return commit(template)


def test_both_edits_are_kept(mine: Path, template: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = move_on(template)
    said = nox(mine, "update")
    lines = (mine / "docker/lines").read_text().split()
    assert (lines[3], lines[30]) == ("theirs", "mine")
    text = (mine / "pyproject.toml").read_text()
    assert 'minversion = "9.1"' in text
    assert "\nown = []\n" in text
    assert 'name = "harbour"' in text
    assert (mine / "tasks/new_one.py").exists()
    assert (mine / "CONTRIBUTING.md").read_text().endswith("Kept.\n")
    for path in ("services/sample", "docker/optional", "template"):
        assert not (mine / path).exists()
    assert (mine / "README.md").read_text().startswith("# harbour\n")
    assert "stay deleted: docker/optional/another, docker/optional/part\n" in said
    assert "next: git diff HEAD; nox -s lock; nox -s test lint; git commit\n" in said
    assert (mine / "tasks/VERSION").read_text() == f"{new}\n{template}\n"
    changed = "CONTRIBUTING.md docker/lines pyproject.toml tasks/VERSION tasks/new_one.py"
    assert git(mine, "diff", "--name-only", "HEAD").split() == changed.split()
    assert git(mine, "worktree", "list").count("\n") == 1
    commit(mine)
    bring()
    assert "nothing to do" in capsys.readouterr().out
    edit(template, "docker/lines", "5\n", "theirs again\n")
    commit(template)
    bring()
    assert "nox -s lock" not in capsys.readouterr().out
    assert git(mine, "diff", "--name-only", "HEAD").split() == ["docker/lines", "tasks/VERSION"]


def add_sample(template: Path, name: str) -> None:
    (template / "services" / name).mkdir(parents=True)
    (template / "services" / name / "compose.yaml").write_text("services: {}\n")
    for path, below, lines in (
        ("docker/compose.yaml", "include:", f"  - ../services/{name}/compose.yaml\n"),
        ("pyproject.toml", "[dependency-groups]", f'{name} = [\n    "{name}",\n]\n'),
        ("pyproject.toml", "[tool.poetry.group]", f'{name}.dependencies.ink = {{path = "libs/ink"}}\n'),
        ("pyproject.toml", "[tool.stack.budgets]", f'"{name}:prod" = {{raw_mb = 30}}\n'),
    ):
        text = (template / path).read_text()
        line = next(line for line in text.splitlines(keepends=True) if line.startswith(below))
        edit(template, path, line, line + lines)


def test_a_sample_that_is_not_here_makes_no_conflict(mine: Path, template: Path) -> None:
    """Where the template changes what it has of the sample, or has another one."""
    add_sample(template, "sample")
    (mine / "tasks/VERSION").write_text(f"{commit(template)}\n{template}\n")
    commit(mine)
    before = (mine / "pyproject.toml").read_text()
    edit(template, "pyproject.toml", "raw_mb = 30", "raw_mb = 31")
    edit(template, "pyproject.toml", '    "sample",\n', '    "sample>1",\n    "more",\n')
    edit(template, "pyproject.toml", 'minversion = "9.0"', 'minversion = "9.1"')
    add_sample(template, "second")
    commit(template)
    bring()
    assert (mine / "pyproject.toml").read_text() == before.replace('minversion = "9.0"', 'minversion = "9.1"')
    assert git(mine, "diff", "--name-only", "HEAD").split() == ["pyproject.toml", "tasks/VERSION"]


def test_conflicts_are_shown_as_git_shows_them(mine: Path, template: Path, capfd: pytest.CaptureFixture[str]) -> None:
    edit(template, "docker/lines", "30\n", "theirs\n")
    edit(template, "docker/lines", "0\n", "zero\n")
    new = commit(template)
    with pytest.raises(
        UserError, match=r"conflicts in docker/lines: resolve them, `git add` .*; then git diff HEAD; nox"
    ):
        bring()
    assert "UU docker/lines\n" in capfd.readouterr().out
    text = (mine / "docker/lines").read_text()
    assert text.startswith("zero\n")
    assert "<<<<<<< HEAD\nmine\n=======\ntheirs\n>>>>>>> " in text
    assert conflicts(mine) == ["docker/lines"]
    assert git(mine, "log", "-1", "--format=%s") == "all\n"
    assert (mine / "tasks/VERSION").read_text().startswith(new)


def test_a_file_deleted_there_and_edited_here_is_a_conflict(mine: Path, template: Path) -> None:
    (template / "docker/lines").unlink()
    commit(template)
    with pytest.raises(UserError, match="conflicts in docker/lines"):
        bring()
    assert (mine / "docker/lines").exists()


def test_a_file_moved_there_and_edited_here_keeps_the_edit(mine: Path, template: Path) -> None:
    (template / "docker/lines").rename(template / "docker/moved")
    commit(template)
    bring()
    assert "mine" in (mine / "docker/moved").read_text()
    assert not (mine / "docker/lines").exists()


def test_from_a_bundle_to_a_tag(mine: Path, template: Path, tmp_path: Path) -> None:
    new = move_on(template)
    git(template, "tag", "v2")
    edit(template, "docker/lines", "0\n", "too new\n")
    commit(template)
    git(template, "bundle", "create", "-q", str(tmp_path / "all.bundle"), "main", "v2")
    template.rename(tmp_path / "gone")
    bring("../all.bundle", "v2")
    assert (mine / "tasks/VERSION").read_text() == f"{new}\n{template}\n"
    commit(mine)
    bring("../all.bundle")
    assert (mine / "docker/lines").read_text().startswith("too new\n")


def test_a_url_is_remembered_for_the_next_update(mine: Path, template: Path) -> None:
    """After "Use this template", `rename` has written that of one's own repository."""
    new = move_on(template)
    (mine / "tasks/VERSION").write_text(f"{git(template, 'rev-parse', 'HEAD~1').strip()}\nhttps://localhost:9/mine\n")
    commit(mine)
    bring(f"file://{template}")
    assert (mine / "tasks/VERSION").read_text() == f"{new}\nfile://{template}\n"


def test_a_shallow_template_is_told(mine: Path, template: Path, tmp_path: Path) -> None:
    """Git fetches nothing from it into a clone that is not shallow, and does not fail."""
    move_on(template)
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{template}", "shallow")
    with pytest.raises(UserError, match="shallow is a shallow clone"):
        bring("../shallow")
    assert git(mine, "status", "--porcelain") == ""


def test_a_history_without_the_templates(mine: Path, template: Path) -> None:
    """As after GitHub's "Use this template", or where the project began with an archive: the base comes from there."""
    move_on(template)
    for path in sorted((mine / ".git").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    git(mine, "init", "-q")
    commit(mine)
    bring()
    assert "theirs" in (mine / "docker/lines").read_text()


def test_a_base_in_ones_own_history(mine: Path, template: Path) -> None:
    """After "Use this template" `rename` records a commit that only the clone has."""
    move_on(template)
    own = git(mine, "log", "--format=%H", "--reverse").split()[0]
    git(template, "checkout", "-q", "--orphan", "squashed")
    commit(template)
    (mine / "tasks/VERSION").write_text(f"{own}\n{template}\n")
    commit(mine)
    bring(str(template), "squashed")
    lines = (mine / "docker/lines").read_text().split()
    assert (lines[3], lines[30]) == ("theirs", "mine")


@pytest.mark.parametrize(
    ("version", "args", "told"),
    [
        ("$Format:%H$\n", (), "tasks/VERSION names no commit of the template"),
        ("{first}\n", (), "no second line that says where the template is"),
        ("{first}\n", ("/no/such/folder",), "no git repository to be read at /no/such/folder"),
        (
            "{first}\n",
            ("https://me:secret@localhost:9/x",),
            "no git repository to be read at https://***@localhost:9/x",
        ),
        ("{first}\n", ("{template}", "v9"), "v9` says why); it has main, or a full commit id"),
        ("{lost}\n", ("{template}",), "is neither here nor in"),
    ],
)
def test_mistakes_change_nothing(mine: Path, template: Path, version: str, args: tuple[str, ...], told: str) -> None:
    move_on(template)
    words = {"first": git(template, "rev-parse", "HEAD~1").strip(), "lost": "0123456789" * 4, "template": template}
    (mine / "tasks/VERSION").write_text(version.format(**words))
    before = commit(mine)
    with pytest.raises(UserError, match=re.escape(told)) as caught:
        bring(*(arg.format(**words) for arg in args))
    assert "secret" not in str(caught.value)
    assert git(mine, "status", "--porcelain") == ""
    assert git(mine, "rev-parse", "HEAD").strip() == before


def test_a_dirty_tree_is_left_alone(mine: Path, template: Path) -> None:
    move_on(template)
    edit(mine, "docker/lines", "10\n", "ten\n")
    with pytest.raises(UserError, match="such as docker/lines"):
        bring()
    assert git(mine, "status", "--porcelain") == " M docker/lines\n"


def test_a_folder_of_another_repository_is_not_updated(mine: Path, template: Path, tmp_path: Path) -> None:
    move_on(template)
    (mine / ".git").rename(tmp_path / "history")
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    with pytest.raises(UserError, match="mine/ is a folder of another repository"):
        bring()
    assert git(tmp_path, "status", "--porcelain") == ""


def test_without_git(mine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(UserError, match="git is not installed"):
            bring()
    (mine / ".git").rename(tmp_path / "history")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(UserError, match="is no git clone"):
        bring()


def test_an_interrupt_changes_nothing(mine: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt comes with git's last step, when all is merged."""
    move_on(template)

    def interrupted(*words: str) -> str | None:
        if words[0] == "add":
            raise KeyboardInterrupt
        return changes.git(*words)

    monkeypatch.setattr(update, "git", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bring()
    assert git(mine, "status", "--porcelain") == ""


def test_an_interrupt_while_files_are_removed_leaves_no_worktree(
    mine: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move_on(template)

    def interrupted(*words: str) -> str | None:
        if words[:2] == ("worktree", "remove") and Path(words[-1]).exists():
            raise KeyboardInterrupt
        return changes.git(*words)

    monkeypatch.setattr(update, "git", interrupted)
    monkeypatch.setattr(update, "commit", lambda *_: interrupted("worktree", "remove", str(mine)))
    with pytest.raises(KeyboardInterrupt):
        bring()
    assert git(mine, "worktree", "list").count("\n") == 1
