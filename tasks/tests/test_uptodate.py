"""What counts as a change to an image, and what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..images import uptodate
from ..project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Edit = Callable[["House"], object]


class House:
    """A small repository of two services, one of which uses a lib, and an engine that has their images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = {"base:1": "id-0"}
        self.targets = {name: self.target(name) for name in ("echo", "pilot")}
        for name in ("docker/Dockerfile", "poetry.lock", "pyproject.toml", "libs/plain/plain/__init__.py", "README.md"):
            self.write(name, "first")
        for name in self.targets:
            self.write(f"services/{name}/{name}/__init__.py", "first")
            self.images |= {f"clone/{name}:prod": f"id-{name}", f"project/{name}:prod": f"id-{name}"}
        (root / ".dockerignore").write_bytes((ROOT / ".dockerignore").read_bytes())
        (root / "reports").mkdir()

    def target(self, name: str) -> dict[str, object]:
        tags = [f"clone/{name}:prod", f"project/{name}:prod"]
        return {"tags": tags, "target": "prod", "args": {"SERVICE": name, "STACK_BASE": "base:1"}}

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def stale(self, flavor: str = "prod") -> list[str]:
        inputs = uptodate.fingerprints(self.targets, flavor, self.images)
        return uptodate.stale(self.targets, inputs, self.images)

    def build(self, flavor: str = "prod") -> None:
        uptodate.record(self.targets, uptodate.fingerprints(self.targets, flavor, self.images))


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    found = House(tmp_path / "house")
    monkeypatch.setattr(uptodate, "ROOT", found.root)
    monkeypatch.setattr(uptodate, "RECORD", found.root / "reports/built.json")
    monkeypatch.setattr(uptodate, "present", lambda: dict(found.images))
    monkeypatch.setattr(uptodate, "libs_of", lambda service: ["plain"] if service == "pilot" else [])
    return found


@pytest.mark.parametrize(
    ("edit", "stale"),
    [
        (lambda house: house.build(), []),
        (lambda house: house.write("services/echo/echo/deep/new.py", "new"), ["echo"]),
        (lambda house: (house.root / "services/echo/echo/__init__.py").chmod(0o755), ["echo"]),
        (lambda house: (house.root / "services/pilot/pilot/__init__.py").unlink(), ["pilot"]),
        (lambda house: house.write("libs/plain/plain/__init__.py", "new"), ["pilot"]),
        (lambda house: house.write("docker/Dockerfile", "new"), ["echo", "pilot"]),
        (lambda house: house.write("poetry.lock", "new"), ["echo", "pilot"]),
        (lambda house: house.images.update({"base:1": "id-new"}), ["echo", "pilot"]),
        (lambda house: house.images.pop("clone/echo:prod"), ["echo"]),
        (lambda house: house.images.update({"project/echo:prod": "another clone's"}), ["echo"]),
        (lambda house: house.targets["echo"].update(target="tiny"), ["echo"]),
        (lambda house: house.write("README.md", "new"), []),
        (lambda house: house.write("services/echo/echo/__pycache__/x.pyc", "new"), []),
        (lambda house: house.write("services/echo/.editor", "new"), []),
        (lambda house: house.write("reports/built.json", "{"), ["echo", "pilot"]),
    ],
)
def test_what_makes_an_image_stale(house: House, edit: Edit, stale: list[str]) -> None:
    assert house.stale() == ["echo", "pilot"]
    house.build()
    edit(house)
    assert house.stale() == stale


def test_source_is_no_part_of_a_development_image(house: House) -> None:
    house.build("dev")
    house.write("services/echo/echo/__init__.py", "new")
    house.write("libs/plain/plain/__init__.py", "new")
    assert house.stale("dev") == []
    house.write("pyproject.toml", "new")
    assert house.stale("dev") == ["echo", "pilot"]


def test_an_image_that_was_built_by_hand_since_is_stale(house: House) -> None:
    house.build()
    house.images |= {"clone/echo:prod": "by hand", "project/echo:prod": "by hand"}
    assert house.stale() == ["echo"]
