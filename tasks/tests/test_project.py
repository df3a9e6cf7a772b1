"""What this clone is: its name, its services, and what a folder or a group that does not fit leads to."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import project as tasks_project
from ..project import choose_services, clone_id, libs_of, pyproject, service_names
from ..shell import UserError


@pytest.fixture(autouse=True)
def one_machine() -> Iterator[None]:
    forget = tasks_project.machine_id.cache_clear
    forget()
    yield
    forget()


def test_the_clones_id_follows_its_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = clone_id()
    assert here.startswith("ours-")
    monkeypatch.setattr(tasks_project, "ROOT", project / ".")
    assert clone_id() == here
    shutil.copytree(project, project / "copy", ignore=lambda *_: ["services"])
    monkeypatch.setattr(tasks_project, "ROOT", project / "copy")
    assert clone_id() != here


@pytest.mark.usefixtures("project")
def test_two_machines_with_a_clone_at_one_path_tell_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two containers, or a laptop and a virtual machine, that share an engine."""
    ids = set()
    for machine in ("one", "two"):
        monkeypatch.setattr(tasks_project, "machine_id", lambda machine=machine: machine)
        ids.add(clone_id())
    assert len(ids) == 2


@pytest.mark.parametrize(("contained", "expected"), [(False, "the machine-id"), (True, "the-host-name")])
def test_a_container_is_known_by_its_host_name(monkeypatch: pytest.MonkeyPatch, contained: bool, expected: str) -> None:
    """Its machine-id may be the image's, and so every container's."""
    there = {"/etc/machine-id", "/.dockerenv"} if contained else {"/etc/machine-id"}
    monkeypatch.setattr(Path, "exists", lambda path: str(path) in there)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "the machine-id\n")
    monkeypatch.setattr("platform.node", lambda: "the-host-name")
    assert tasks_project.machine_id() == expected


def test_a_mac_is_known_by_its_uuid_in_every_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host name is what DHCP says: another name for the stack would be one without the data."""
    said = '+-o J314s  <class IOPlatformExpertDevice>\n    {\n      "IOPlatformUUID" = "8C0A7E3F-0000-4000-8000-0123456789AB"\n'
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(tasks_project, "output", lambda *_: said)
    assert tasks_project.machine_id() == "8C0A7E3F-0000-4000-8000-0123456789AB"


@pytest.mark.parametrize("name", ["Not A Name", "", "-a", "a_"])
def test_a_project_name_that_cannot_name_images(project: Path, name: str) -> None:
    (project / "pyproject.toml").write_text(f"[project]\nname = '{name}'\n")
    with pytest.raises(UserError, match="name must be lower-case letters"):
        clone_id()


def test_the_services_are_the_folders(project: Path) -> None:
    (project / "services/.hidden").mkdir()
    (project / "services/__pycache__").mkdir()
    (project / "services/README.md").touch()
    for left in (
        ".coverage",
        ".ruff_cache/0.15/1",
        "gone/__pycache__/x.pyc",
        "instance/db.sqlite3",
    ):  # by tests and by `dev`, of a branch with this service
        (project / "services/gone" / left).parent.mkdir(parents=True, exist_ok=True)
        (project / "services/gone" / left).touch()
    assert service_names() == ["other", "pilot"]
    assert choose_services([]) == ["other", "pilot"]
    assert choose_services(["pilot", "pilot", "unit"], also=["unit"]) == ["pilot", "unit"]
    with pytest.raises(UserError, match=r"there is no service 'polit'; the services are: other, pilot \(or unit\)$"):
        choose_services(["polit"], also=["unit"])


def test_a_project_without_services(project: Path) -> None:
    """git keeps no empty folder, so a clone has no services/."""
    shutil.rmtree(project / "services")
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert service_names() == []
    assert choose_services(["unit"], also=["unit"]) == ["unit"]
    for wanted in ([], ["pilot"]):
        with pytest.raises(UserError, match="there is no service yet: `nox -s new"):
            choose_services(wanted, also=["unit"])


GROUPS = "[project]\nname = 'x'\n[dependency-groups]\nother = []\npilot = []\n"


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("pyproject.toml", "[project\n", "pyproject.toml does not parse: .*line 1"),
        ("pyproject.toml", GROUPS.replace("pilot = []\n", ""), "has no dependency group 'pilot' for services/pilot"),
        ("services/new/empty", "", "services/new has no compose.yaml"),
        ("services/my_tool/compose.yaml", "", "a service cannot be called 'my_tool': it must be lower-case letters"),
    ],
)
def test_what_does_not_fit_is_told(project: Path, file: str, text: str, told: str) -> None:
    (project / file).parent.mkdir(exist_ok=True)
    (project / file).write_text(text)
    with pytest.raises(UserError, match=told):
        service_names()


def test_a_lock_with_marks_of_a_merge_is_told(project: Path) -> None:
    (project / "poetry.lock").write_text("<<<<<<< HEAD\n")
    with pytest.raises(UserError, match=r"^poetry\.lock does not parse: .*: after a merge, `git checkout --ours` it"):
        pyproject(str(project / "poetry.lock"))


def test_libs_are_those_that_the_service_asks_for(project: Path) -> None:
    (project / "libs/plain/plain").mkdir(parents=True)
    uses = "[tool.poetry.group]\npilot.dependencies.plain = {path = 'libs/plain', develop = true}\n"
    others = (
        "pilot.dependencies.flask = {version = '3', extras = ['async']}\npilot.dependencies.x = {path = 'vendor/x'}\n"
    )
    groups = GROUPS.replace("pilot = []", "pilot = ['flask', {include-group = 'other'}]")
    (project / "pyproject.toml").write_text(groups + uses + others)
    assert (libs_of("pilot"), libs_of("other")) == (["plain"], [])
    (project / "libs/plain/plain").rmdir()
    with pytest.raises(UserError, match="pilot uses libs/plain, and there is no package libs/plain/plain"):
        service_names()


def test_libs_of_a_group_that_is_included_count_too(project: Path) -> None:
    (project / "libs/plain/plain").mkdir(parents=True)
    groups = GROUPS.replace("other = []", "other = [{include-group = 'plain'}]\nplain = [{include-group = 'other'}]")
    groups = groups.replace("pilot = []", "pilot = [{include-group = 'other'}]")
    (project / "pyproject.toml").write_text(
        groups + "[tool.poetry.group]\nplain.dependencies.plain = {path = 'libs/plain'}\n"
    )
    assert libs_of("pilot") == ["plain"]
    (project / "libs/plain/plain").rmdir()
    with pytest.raises(UserError, match=r"'plain'} uses libs/plain, and there is no package libs/plain/plain"):
        service_names()


def test_libs_of_libs_count_too_and_a_circle_is_told(project: Path) -> None:
    for lib, used in (("paper", "ink"), ("ink", "water"), ("water", "")):
        (project / "libs" / lib / lib).mkdir(parents=True)
        line = f"[tool.poetry.dependencies]\npython = '*'\n{used} = {{path = '../{used}'}}\n" if used else ""
        (project / f"libs/{lib}/pyproject.toml").write_text(line)
    uses = "[tool.poetry.group]\npilot.dependencies.paper = {path = 'libs/paper'}\n"
    (project / "pyproject.toml").write_text(GROUPS + uses)
    assert libs_of("pilot") == ["ink", "paper", "water"]
    (project / "libs/water/pyproject.toml").write_text("[tool.poetry.dependencies]\nink = {path = '../ink'}\n")
    with pytest.raises(UserError, match=r"libs use each other in a circle: ink -> water -> ink$"):
        service_names()


@pytest.mark.parametrize("file", ["pyproject.toml", "libs/paper/pyproject.toml", "services/third/pyproject.toml"])
def test_a_lib_must_not_come_from_the_package_index(project: Path, file: str) -> None:
    """Where only the path is missing, Poetry takes somebody else's package of that name, or `--since` does not see the lib."""
    for lib in ("ink_well", "paper"):
        (project / "libs" / lib / lib).mkdir(parents=True)
    (project / "services/third").mkdir()
    for name in ("compose.yaml", "poetry.lock"):
        (project / "services/third" / name).touch()
    (project / "services/third/pyproject.toml").write_text("[project]\nname = 'third'\n")
    uses = GROUPS + "[tool.poetry.group]\npilot.dependencies.paper = {path = 'libs/paper'}\n"
    (project / "pyproject.toml").write_text(uses)
    assert service_names() == ["other", "pilot", "third"]
    named = "[project]\nname = 'x'\ndependencies = ['flask', 'ink-well>=1']\n"
    (project / file).write_text(
        uses.replace("other = []", "other = ['ink-well>=1']") if file == "pyproject.toml" else named
    )
    with pytest.raises(
        UserError, match=f"^{file}: .* uses libs/ink_well without its path: add it, as libs/README.md says"
    ):
        service_names()


OWN = """[project]
name = "third"
[tool.poetry.dependencies]
paper = {path = "../../libs/paper", develop = true}
"""


def test_a_service_with_a_lock_of_its_own_needs_no_group(project: Path) -> None:
    folder = project / "services/third"
    folder.mkdir()
    (folder / "compose.yaml").touch()
    (folder / "pyproject.toml").write_text(OWN)
    with pytest.raises(UserError, match=r"no dependency group 'third' .* or `nox -s lock -- --service third`"):
        service_names()
    (folder / "poetry.lock").write_text(
        '[[package]]\nname = "pytest"\ngroups = ["tests"]\n[[package]]\nname = "flask"\ngroups = ["main"]\n'
    )
    with pytest.raises(
        UserError, match=r"services/third/pyproject.toml: third uses libs/paper, and there is no package"
    ):
        service_names()
    (project / "libs/paper/paper").mkdir(parents=True)
    assert service_names() == ["other", "pilot", "third"]
    assert libs_of("third") == ["paper"]
    assert tasks_project.own_tests("third") == {"pytest"}
    assert tasks_project.own_tests("pilot") == set()
    root = project / "pyproject.toml"
    root.write_text(root.read_text().replace("[dependency-groups]\n", "[dependency-groups]\nthird = []\n"))
    with pytest.raises(UserError, match=r"services/third has a poetry.lock of its own: remove the dependency group"):
        service_names()
