"""Which services a change affects, on real git histories."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .. import changes
from ..project import ROOT
from ..shell import UserError
from .conftest import write_tool

LOCK = """
[[package]]
name = "flask"
version = "{flask}"
groups = ["a", "b"]
files = []

[[package]]
name = "numpy"
version = "{numpy}"
groups = ["b"]
files = []

[[package]]
name = "pytest"
version = "{pytest}"
groups = ["tests", "host"]
files = []

[[package]]
name = "ruff"
version = "{ruff}"
groups = ["lint"]
files = []
"""
VERSIONS = {"flask": "1", "numpy": "1", "pytest": "1", "ruff": "1"}
PYPROJECT = "[project]\nname = 'x'\n[dependency-groups]\na = []\nb = []\nc = []\n"
LIBS: dict[str, list[str]] = {"a": [], "b": ["shared"], "c": []}


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("services/a/a/__init__.py", "", ["a"]),
        ("services/a/deep/er/file", "", ["a"]),
        ("services/a/poetry.lock", "", ["a"]),
        ("libs/shared/shared/__init__.py", "", ["b"]),
        ("libs/other/x.py", "", []),
        ("docker/Dockerfile", "", ["a", "b", "c"]),
        ("tasks/shell.py", "", ["a", "b", "c"]),
        ("README.md", "", []),
        ("tests/stack/test_a.py", "", []),
        ("poetry.lock", LOCK.format(**VERSIONS | {"numpy": "2"}), ["b"]),
        ("poetry.lock", LOCK.format(**VERSIONS | {"flask": "2"}), ["a", "b"]),
        ("poetry.lock", LOCK.format(**VERSIONS | {"pytest": "2"}), ["a", "b", "c"]),
        ("poetry.lock", LOCK.format(**VERSIONS | {"ruff": "2"}), []),
        ("poetry.lock", LOCK.format(**VERSIONS | {"numpy": "1\"\nmarkers = \"python_version < '3'"}), ["b"]),
        ("poetry.lock", LOCK.format(**VERSIONS | {"ruff": "1\"\nmarkers = \"python_version < '3'"}), []),
        ("pyproject.toml", f"{PYPROJECT}[tool.ruff]\nline-length = 1\n", []),
        ("pyproject.toml", f"{PYPROJECT}[tool.pytest]\naddopts = []\n", ["a", "b", "c"]),
        ("pyproject.toml", f"{PYPROJECT}[tool.coverage.run]\nbranch = true\n", ["a", "b", "c"]),
    ],
)
def test_what_a_path_affects(path: str, text: str, expected: list[str]) -> None:
    before = {"pyproject.toml": PYPROJECT, "poetry.lock": LOCK.format(**VERSIONS)}
    after = before | ({path: text} if path in before else {})
    assert changes.affected([path], LIBS, before, after) == expected


class Repo:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "-q", "-b", "main")
        for service in LIBS:
            self.write(f"services/{service}/compose.yaml", "")
            self.write(f"services/{service}/{service}/__init__.py", service * 100)
        self.write("libs/shared/shared/__init__.py", "")
        self.write("pyproject.toml", PYPROJECT)
        self.write("poetry.lock", LOCK.format(**VERSIONS))
        self.commit()

    def git(self, *args: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always")
        return subprocess.run(
            ["git", *identity, *args], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD").strip()


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    repo = Repo(tmp_path)
    use(monkeypatch, tmp_path)
    return repo


def use(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(changes, "ROOT", root)
    monkeypatch.setattr(changes, "service_names", lambda: [s for s in LIBS if (root / "services" / s).is_dir()])
    monkeypatch.setattr(changes, "libs_of", LIBS.__getitem__)


def test_what_is_not_committed_counts_too(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD").strip()
    repo.write("services/a/new", "new")
    repo.write("poetry.lock", LOCK.format(**VERSIONS | {"numpy": "2"}))
    assert changes.services_since(start) == ["a", "b"]
    assert sorted(changes.paths_since(start)) == ["poetry.lock", "services/a/new"]
    repo.commit()
    assert changes.services_since(start) == ["a", "b"]
    assert changes.services_since("HEAD") == []


def test_a_rename_affects_both_ends(repo: Repo) -> None:
    repo.git("mv", "services/a/a/__init__.py", "services/b/b/moved.py")
    repo.commit()
    assert changes.services_since("HEAD~1") == ["a", "b"]


def test_a_project_in_a_folder_of_another_repository(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("services", "libs", "pyproject.toml", "poetry.lock"):
        (repo.root / "inner").mkdir(exist_ok=True)
        repo.git("mv", path, "inner")
    repo.commit()
    use(monkeypatch, repo.root / "inner")
    repo.write("inner/services/a/new", "")
    repo.write("inner/poetry.lock", LOCK.format(**VERSIONS | {"numpy": "2"}))
    repo.write("services/c/other", "")  # not this project's
    repo.git("add", "--all")
    assert changes.services_since("HEAD") == ["a", "b"]
    assert sorted(changes.paths_since("HEAD")) == ["poetry.lock", "services/a/new"]


def test_a_deleted_service_is_none(repo: Repo) -> None:
    repo.git("rm", "-rq", "services/a")
    repo.commit()
    assert changes.services_since("HEAD~1") == []


def test_of_a_branch_only_this_side_counts(repo: Repo) -> None:
    repo.git("switch", "-q", "-c", "feature")
    repo.write("services/a/new", "")
    repo.commit()
    repo.git("switch", "-q", "main")
    repo.write("services/b/new", "")
    repo.commit()
    repo.git("switch", "-q", "feature")
    assert changes.services_since("main") == ["a"]
    repo.git("merge", "-q", "-m", "merge", "main")
    assert changes.services_since("main") == ["a"]


def test_a_lock_that_two_branches_have_changed_still_parses(repo: Repo) -> None:
    repo.write(".gitattributes", (ROOT / ".gitattributes").read_text())
    repo.commit()
    repo.git("switch", "-q", "-c", "feature")
    repo.write("poetry.lock", LOCK.format(**VERSIONS) + "theirs = 1\n")
    repo.commit()
    repo.git("switch", "-q", "main")
    repo.write("poetry.lock", ours := LOCK.format(**VERSIONS) + "ours = 1\n")
    repo.commit()
    with pytest.raises(subprocess.CalledProcessError):  # `git add` has to say that `nox -s lock` has run
        repo.git("merge", "-q", "feature")
    assert (repo.root / "poetry.lock").read_text() == ours


def test_a_shallow_clone(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write("services/a/new", "")
    repo.commit()
    shallow = tmp_path / "shallow"
    repo.git("clone", "-q", "--depth=2", f"file://{repo.root}", str(shallow))
    use(monkeypatch, shallow)
    assert changes.services_since("HEAD~1") == ["a"]
    with pytest.raises(UserError, match="git knows no commit 'HEAD~2' here: fetch it"):
        changes.services_since("HEAD~2")


def test_a_lock_that_names_no_groups_counts_as_changed() -> None:
    """Poetry's before 2.0, in an old commit, or one that does not parse."""
    after = {"poetry.lock": LOCK.format(**VERSIONS)}
    for before, expected in (('[[package]]\nname = "flask"\nversion = "1"\n', ["b"]), ("[[package", ["b"])):
        assert changes.affected([], {"b": []}, {"poetry.lock": before}, after) == expected


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match="is no git clone"):
        changes.services_since("HEAD")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        changes.services_since("HEAD")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('[ "$LC_ALL" = C ] && echo fatal: not a git repository || echo Schwerwiegend: Kein Git-Repository', "is no git clone"),
        ("echo fatal: detected dubious ownership in repository; echo git config safe.directory /x", "safe.directory /x"),
    ],
)  # fmt: skip
def test_a_folder_that_git_refuses(no_docker: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str) -> None:
    """In whatever language it says so, and where another user has made the clone."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    write_tool(no_docker / "git", f"({said}) >&2; exit 128")
    with pytest.raises(UserError, match=told):
        changes.services_since("HEAD")


def test_files_that_differ_from_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    monkeypatch.setattr(changes, "ROOT", clone)
    git = ("git", "-C", str(clone), "-c", "user.name=test", "-c", "user.email=test@example.invalid")
    subprocess.run([*git, "init", "--quiet"], check=True)
    with pytest.raises(UserError, match="git knows no commit 'HEAD'"):
        changes.clean_commit()
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=x"], check=True)
    assert changes.clean_commit() == subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    subprocess.run([*git, "config", "status.showUntrackedFiles", "no"], check=True)
    (clone / ".git/index").write_text("broken")
    with pytest.raises(UserError, match=r"git -C .* failed"):
        changes.clean_commit()
    (clone / ".git/index").unlink()
    (clone / "new").touch()
    with pytest.raises(UserError, match=r"^files differ from the commit \(1, such as new\): commit or discard them$"):
        changes.clean_commit()
