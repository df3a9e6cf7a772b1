"""The project's own budgets, in lines of code: a feature that needs more than it is worth goes.

Blank lines, comments and docstrings do not count, so that nobody saves on these.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tasks.project import ROOT

MODULE = 200
TESTS = {"tests", "skeleton"}
# By part: its folders, and the most lines that it may have. The programs in docker/ count with their tests.
PROGRAMS = {
    "slicer": ("docker/build/slice", 450),
    "reloader and rerunner": ("docker/dev", 812),
    "server": ("docker/server", 1_732),  # WSGI, ASGI with WebSockets, commands, metrics
}
ADOPT = tuple(
    f"tasks/scaffold/{name}.py" for name in ("adopt", "application", "requirements", "resolve", "environment")
)
OPTIONAL = {("tasks/release",): 400, ("tasks/deploy.py",): 157, ADOPT: 651, ("tasks/audit.py",): 127}
HOST = 2_800


def code_lines(path: Path) -> int:
    """The lines of a module without blank lines, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            docstrings.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(map(str.strip, text.splitlines()), start=1)
    return sum(bool(line) and line[0] != "#" and number not in docstrings for number, line in lines)


def modules(*places: str) -> dict[str, int]:
    """The Python modules in some folders or files, with their lines."""
    paths = [
        path
        for place in places
        for path in ((ROOT / place).rglob("*.py") if Path(place).suffix != ".py" else [ROOT / place])
    ]
    return {str(path.relative_to(ROOT)): code_lines(path) for path in paths if path.exists()}


def without_tests(found: dict[str, int]) -> dict[str, int]:
    """Those modules that are neither tests nor the skeleton of a new service."""
    return {name: lines for name, lines in found.items() if not TESTS.intersection(Path(name).parts)}


def test_the_host_tooling() -> None:
    found = without_tests(modules("noxfile.py", "tasks"))
    counted = {name: lines for name, lines in found.items() if not name.startswith(sum(OPTIONAL, ()))}
    assert sum(counted.values()) <= HOST, counted


@pytest.mark.parametrize("part", OPTIONAL)
def test_an_optional_part(part: tuple[str, ...]) -> None:
    found = modules(*part)
    assert sum(found.values()) <= OPTIONAL[part], found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_that_runs_inside_images(program: str) -> None:
    folder, most = PROGRAMS[program]
    found = modules(folder)
    assert sum(found.values()) <= most, found


def test_no_module_is_long() -> None:
    found = without_tests(modules("noxfile.py", "tasks", "docker"))
    assert {name: lines for name, lines in found.items() if lines > MODULE} == {}


def test_the_readme_has_the_command_of_ci_run() -> None:
    """A clone's README is its own; this one says what tasks/tests expect of .ci/run."""
    assert re.search(r"(?m)^ {4}pip install nox && nox -s test\b", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
