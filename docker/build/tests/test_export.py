"""What is exported of a lock, with Poetry pretended: it is only where images are built."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import pytest

LIB = 'common @ file:///lock/libs/common ; python_version >= "3.11"\n'


def pinned(name: str, rest: str = "") -> str:
    """A requirement as Poetry exports it."""
    return f"{name}==1.0{rest} \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\n"


class Exporter:
    """Writes what a group's requirements are said to be."""

    def __init__(self, poetry: Any, _: object) -> None:
        self.poetry = poetry

    def only_groups(self, groups: list[str]) -> Self:
        (self.group,) = groups
        return self

    def export(self, kind: str, folder: Path, name: str) -> None:
        assert kind == "requirements.txt"
        (folder / name).write_text(self.poetry.texts[self.group])


class Poetry:
    """Makes the project in a folder, from the groups that it is said to have."""

    def __init__(self) -> None:
        self.projects: dict[str, dict[str, str]] = {}
        self.fresh = True

    def create_poetry(self, folder: Path) -> Any:
        texts = self.projects[str(folder)]
        package = SimpleNamespace(dependency_group_names=lambda *, include_optional: texts.keys() if include_optional else ())  # fmt: skip
        return SimpleNamespace(texts=texts, locker=SimpleNamespace(is_fresh=lambda: self.fresh), package=package)


@pytest.fixture
def poetry() -> Poetry:
    return Poetry()


@pytest.fixture
def export(poetry: Poetry, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, as a module."""
    names = {"cleo.io.null_io": ("NullIO", object), "poetry.factory": ("Factory", lambda: poetry), "poetry_plugin_export.exporter": ("Exporter", Exporter)}  # fmt: skip
    for name, (attribute, value) in names.items():
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            monkeypatch.setitem(sys.modules, ".".join(parts[:length]), module := ModuleType(name))
        setattr(module, attribute, value)
    spec = importlib.util.spec_from_file_location("export", Path(__file__).parents[1] / "export.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What uv was asked; it finds `tool` and `common`."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        Path(command[-1].removeprefix("--output-file=")).write_text(pinned("tool") + pinned("common"))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def text(folder: Path, group: str, name: str = "requirements.txt") -> str:
    return (folder / group / name).read_text()


def test_a_group_has_what_an_index_has_and_the_names_of_our_libs(export: Any, poetry: Poetry, tmp_path: Path) -> None:
    poetry.projects["."] = {"pilot": pinned("flask") + LIB + pinned("werkzeug"), "tests": pinned("pytest")}
    export.main(tmp_path)
    assert text(tmp_path, "pilot") == pinned("flask") + pinned("werkzeug")
    assert text(tmp_path, "pilot", "libs.txt") == "common\n"
    assert (text(tmp_path, "tests"), text(tmp_path, "tests", "libs.txt")) == (pinned("pytest"), "")


def test_a_lock_that_is_out_of_date(export: Any, poetry: Poetry, tmp_path: Path) -> None:
    poetry.projects["."], poetry.fresh = {}, False
    with pytest.raises(SystemExit, match=r"^pyproject\.toml changed significantly since poetry\.lock"):
        export.main(tmp_path)


def test_a_service_with_a_lock_and_test_tools_of_its_own(
    export: Any, poetry: Poetry, commands: list[list[str]], tmp_path: Path
) -> None:
    """What production has is not there once more for tests, unless it is for another Python."""
    main = pinned("common") + pinned("old", ' ; python_version < "3"') + pinned("new", ' ; python_version >= "3"')
    tests = pinned("pytest") + pinned("common") + pinned("old") + pinned("new")
    poetry.projects["services/pilot"] = {"main": main + LIB, "tests": tests}
    (tmp_path / "dev").mkdir()
    export.main(tmp_path, "pilot")
    assert (text(tmp_path, "pilot"), text(tmp_path, "pilot", "libs.txt")) == (main, "common\n")
    assert text(tmp_path, "tests") == pinned("pytest") + pinned("old")
    (command,) = commands
    assert "--group=dev" in command
    constraints = [f"--constraint={tmp_path}/{group}/requirements.txt" for group in ("pilot", "tests")]
    assert command[-3:] == [*constraints, f"--output-file={tmp_path}/dev/requirements.txt"]


def test_a_service_with_a_lock_of_its_own_and_the_shared_test_tools(
    export: Any, poetry: Poetry, commands: list[list[str]], tmp_path: Path
) -> None:
    poetry.projects["services/pilot"] = {"main": pinned("common")}
    for group in ("tests", "dev"):
        (tmp_path / group).mkdir()
    export.main(tmp_path, "pilot")
    assert [word for command in commands for word in command if word.startswith("--group")] == ["--group=tests", "--group=dev"]  # fmt: skip
    assert sum(word.startswith("--constraint") for word in commands[0]) == 1
    assert text(tmp_path, "tests") == pinned("tool")


@pytest.mark.parametrize("group", ["tests", "dev"])
def test_shared_tools_that_do_not_go_with_a_services_own_lock(
    export: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str
) -> None:
    said = "  x No solution found:\n  Because pilot needs pytest<8,\n      and tests needs pytest>=9, we can conclude"
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", said))
    with pytest.raises(SystemExit) as error:
        export.resolve(group, tmp_path, [tmp_path / "pilot"])
    start = f"the shared group {group} does not go with pilot's own lock: pilot needs pytest<8"
    assert error.value.code == start + ("; a group tests of its own replaces it" if group == "tests" else "")
