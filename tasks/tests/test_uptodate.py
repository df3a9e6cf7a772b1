"""What counts as a change to an image, and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ..images import uptodate
from ..images.target import Target
from ..project import ROOT
from .conftest import calls, fake_docker

Edit = Callable[["Repository"], object]


class Repository:
    """A project of two services, one of which uses a lib, and an engine that has their images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = {"base:1": "id-0"}
        self.targets = {name: self.target(name) for name in ("other", "pilot")}
        for name in ("docker/Dockerfile", "poetry.lock", "libs/plain/plain/__init__.py", "README.md"):
            self.write(name, "first")
        for name in self.targets:
            self.write(f"services/{name}/{name}/__init__.py", "first")
            self.images |= {f"clone/{name}:prod": f"id-{name}", f"project/{name}:prod": f"id-{name}"}
        (root / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())

    def target(self, name: str) -> Target:
        tags = (f"clone/{name}:prod", f"project/{name}:prod")
        return Target("/c", "docker/Dockerfile", "prod", {"SERVICE": name, "STACK_BASE": "base:1"}, {}, tags, ())

    def change(self, name: str, target: str) -> None:
        self.targets[name] = replace(self.targets[name], target=target)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def stale(self, flavor: str = "prod") -> list[str]:
        inputs = uptodate.fingerprints(self.targets, flavor, self.images)
        return uptodate.stale(self.targets, inputs, self.images)

    def build(self, flavor: str = "prod") -> None:
        uptodate.record(self.targets, uptodate.fingerprints(self.targets, flavor, self.images))


@pytest.fixture
def repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    found = Repository(project)
    monkeypatch.setattr(uptodate, "present", lambda: dict(found.images))
    monkeypatch.setattr(uptodate, "libs_of", lambda service: ["plain"] if service == "pilot" else [])
    return found


@pytest.mark.parametrize(
    ("edit", "stale"),
    [
        (lambda it: it.build(), []),
        (lambda it: it.write("services/other/other/deep/new.py", "new"), ["other"]),
        (lambda it: (it.root / "services/other/other/__init__.py").chmod(0o755), ["other"]),
        (lambda it: (it.root / "services/pilot/pilot/__init__.py").unlink(), ["pilot"]),
        (lambda it: it.write("libs/plain/plain/__init__.py", "new"), ["pilot"]),
        (lambda it: it.write("docker/Dockerfile", "new"), ["other", "pilot"]),
        (lambda it: it.write(".dockerignore", "*\n!docker\n!services\n"), ["other", "pilot"]),
        (lambda it: it.write("poetry.lock", "new"), ["other", "pilot"]),
        (lambda it: it.images.update({"base:1": "id-new"}), ["other", "pilot"]),
        (lambda it: it.images.pop("clone/other:prod"), ["other"]),
        (lambda it: it.images.update({"project/other:prod": "another clone's"}), ["other"]),
        (lambda it: it.change("other", "slim"), ["other"]),
        (lambda it: it.write("README.md", "new"), []),
        (lambda it: it.write("services/other/other/__pycache__/x.pyc", "new"), []),
        (lambda it: it.write("services/other/.editor", "new"), []),
        (lambda it: it.write("services/other/instance/data.sqlite3", "new"), []),
        (lambda it: it.write("services/other/other/instance/x.py", "new"), ["other"]),
        (
            lambda it: (it.root / "services/pilot/db.sqlite3").symlink_to("instance/db.sqlite3"),
            ["pilot"],
        ),  # not there yet
        (lambda it: os.mkfifo(it.root / "services/pilot/fifo"), []),
        (lambda it: it.write("services/other/other/f\udcfcr", "new"), ["other"]),  # a name in Latin-1
        (lambda it: it.write("reports/built.json", "{"), ["other", "pilot"]),
    ],
)
def test_what_makes_an_image_stale(repository: Repository, edit: Edit, stale: list[str]) -> None:
    assert repository.stale() == ["other", "pilot"]
    repository.build()
    edit(repository)
    assert repository.stale() == stale


def test_what_else_dockerignore_lets_in(repository: Repository) -> None:
    repository.write(".dockerignore", "*\n!docker\n!/shared/\n! *.toml\n")
    repository.build()
    for name in ("shared/data.json", "more.toml", "README.md"):
        repository.write(name, "new")
        assert repository.stale() == ([] if name == "README.md" else ["other", "pilot"])
        repository.build()


def test_a_name_that_is_not_utf_8_counts_as_any_other(repository: Repository) -> None:
    repository.build()
    Path(os.fsdecode(os.fsencode(repository.root) + b"/services/pilot/\xe9.txt")).touch()
    assert repository.stale() == ["pilot"]


def test_source_is_no_part_of_a_development_image(repository: Repository) -> None:
    repository.build("dev")
    repository.write("services/other/other/__init__.py", "new")
    repository.write("libs/plain/plain/__init__.py", "new")
    assert repository.stale("dev") == []
    for name in ("pyproject.toml", "poetry.lock"):  # of a service with a lock of its own
        repository.write(f"services/other/{name}", "new")
        assert repository.stale("dev") == ["other"]
        repository.build("dev")
    repository.write("poetry.lock", "new")
    assert repository.stale("dev") == ["other", "pilot"]


def test_an_image_that_was_built_by_hand_since_is_stale(repository: Repository) -> None:
    repository.build()
    repository.images |= {"clone/other:prod": "by hand", "project/other:prod": "by hand"}
    assert repository.stale() == ["other"]


def test_a_build_replaces_the_image_before_and_no_other(repository: Repository, no_docker: Path) -> None:
    fake_docker(no_docker, {"image rm id-other": "echo 'a container uses it' >&2; exit 1"})
    inputs = uptodate.fingerprints(repository.targets, "prod", repository.images)
    before = dict(repository.images)
    repository.images |= {"clone/other:prod": "id-new", "project/other:prod": "id-new"}
    uptodate.record(repository.targets, inputs)
    uptodate.remove_replaced(repository.targets, before)
    assert calls(no_docker) == ["image rm id-other"]
    assert repository.stale() == []


def test_the_engines_images_are_known_by_all_their_names(no_docker: Path) -> None:
    """Those without a name are none of them: else the image that a build has replaced would count as one in use."""
    others = 'case "$*" in *dangling=false*) ;; *) echo "<none>:<none> sha256:2" ;; esac'
    fake_docker(no_docker, {"image ls": f"echo ours/a:dev sha256:1; {others}"})
    assert uptodate.present() == {"ours/a:dev": "sha256:1"}
