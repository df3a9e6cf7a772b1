"""The project's own budgets, in lines: a feature that needs more than it is worth goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.project import ROOT

MODULE = 200
TESTS = {"tests", "skeleton"}
# By part: its folders, and the most lines that it may have. The programs in docker/ count with their tests.
PROGRAMS = {
    "slicer": ("docker/build/slice", 450),
    "reloader and rerunner": ("docker/dev", 900),
    "server": ("docker/server", 450),
}
OPTIONAL = {"tasks/release": 400, "tasks/scaffold/adopt.py": 200}
HOST = 2_800


def modules(*places: str) -> dict[str, int]:
    """The Python modules in some folders or files, with their lines."""
    paths = [
        path
        for place in places
        for path in ((ROOT / place).rglob("*.py") if Path(place).suffix != ".py" else [ROOT / place])
    ]
    return {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in paths
        if path.exists()
    }


def without_tests(found: dict[str, int]) -> dict[str, int]:
    """Those modules that are neither tests nor the skeleton of a new service."""
    return {name: lines for name, lines in found.items() if not TESTS.intersection(Path(name).parts)}


def test_the_host_tooling() -> None:
    found = without_tests(modules("noxfile.py", "tasks"))
    counted = {name: lines for name, lines in found.items() if not name.startswith(tuple(OPTIONAL))}
    assert sum(counted.values()) <= HOST, counted


@pytest.mark.parametrize("part", OPTIONAL)
def test_an_optional_part(part: str) -> None:
    found = modules(part)
    assert sum(found.values()) <= OPTIONAL[part], found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_runs_inside_images(program: str) -> None:
    folder, most = PROGRAMS[program]
    found = modules(folder)
    assert sum(found.values()) <= most, found


def test_no_module_is_long() -> None:
    found = without_tests(modules("noxfile.py", "tasks", "docker"))
    assert {name: lines for name, lines in found.items() if lines > MODULE} == {}


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
