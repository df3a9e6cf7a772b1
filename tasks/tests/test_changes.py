"""Which services a change touches, on real git histories."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from .. import changes
from ..shell import UserError

if TYPE_CHECKING:
    from pathlib import Path

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
LIBS: dict[str, list[str]] = {"a": [], "b": ["shared"], "c": []}


class Repo:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "-q", "-b", "main")
        for service in LIBS:
            self.write(f"services/{service}/compose.yaml", "")
            self.write(f"services/{service}/{service}/__init__.py", service * 100)
        self.write("libs/shared/shared/__init__.py", "")
        self.write("pyproject.toml", "[project]\nname = 'x'\n[dependency-groups]\na = []\nb = []\nc = []\n")
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


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("services/a/a/__init__.py", "new", ["a"]),
        ("services/a/deep/er/file", "new", ["a"]),
        ("libs/shared/shared/__init__.py", "new", ["b"]),
        ("libs/other/x.py", "new", []),
        ("docker/Dockerfile", "new", ["a", "b", "c"]),
        ("tasks/run.py", "new", ["a", "b", "c"]),
        ("README.md", "new", []),
        ("tests/stack/test_a.py", "new", []),
        ("poetry.lock", LOCK.format(**VERSIONS | {"numpy": "2"}), ["b"]),
        ("poetry.lock", LOCK.format(**VERSIONS | {"flask": "2"}), ["a", "b"]),
        ("poetry.lock", LOCK.format(**VERSIONS | {"pytest": "2"}), ["a", "b", "c"]),
        ("poetry.lock", LOCK.format(**VERSIONS | {"ruff": "2"}), []),
        ("pyproject.toml", "[project]\nname = 'x'\n[tool.ruff]\nline-length = 1\n", []),
        ("pyproject.toml", "[project]\nname = 'x'\n[tool.pytest]\naddopts = []\n", ["a", "b", "c"]),
    ],
)
def test_paths(repo: Repo, path: str, text: str, expected: list[str]) -> None:
    start = repo.git("rev-parse", "HEAD").strip()
    repo.write(path, text)
    assert changes.since(start)[0] == expected  # not even committed
    repo.commit()
    assert changes.since(start)[0] == expected
    assert changes.since("HEAD")[0] == []


def test_a_rename_touches_both_ends(repo: Repo) -> None:
    repo.git("mv", "services/a/a/__init__.py", "services/b/b/moved.py")
    repo.commit()
    assert changes.since("HEAD~1")[0] == ["a", "b"]


def test_a_deleted_service_is_none(repo: Repo) -> None:
    repo.git("rm", "-rq", "services/a")
    repo.commit()
    assert changes.since("HEAD~1")[0] == []


def test_of_a_branch_only_this_side_counts(repo: Repo) -> None:
    repo.git("switch", "-q", "-c", "feature")
    repo.write("services/a/new", "")
    repo.commit()
    repo.git("switch", "-q", "main")
    repo.write("services/b/new", "")
    repo.commit()
    repo.git("switch", "-q", "feature")
    assert changes.since("main")[0] == ["a"]
    repo.git("merge", "-q", "-m", "merge", "main")
    assert changes.since("main")[0] == ["a"]


def test_a_shallow_clone(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write("services/a/new", "")
    repo.commit()
    shallow = tmp_path / "shallow"
    repo.git("clone", "-q", "--depth=2", f"file://{repo.root}", str(shallow))
    use(monkeypatch, shallow)
    assert changes.since("HEAD~1")[0] == ["a"]
    with pytest.raises(UserError, match="git knows no commit 'HEAD~2' here: fetch it"):
        changes.since("HEAD~2")


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match="is no git clone"):
        changes.since("HEAD")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git is not installed"):
        changes.since("HEAD")
