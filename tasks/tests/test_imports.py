"""Imports run one way, from sessions down to shell and terminal, and optional parts are imported by noxfile.py alone."""

from __future__ import annotations

import ast
from functools import cache

import grimp

from ..project import ROOT

# From the top down: a module may import those of lower layers, and of its own folder. Folders in one set do not import
# each other.
LAYERS: list[str | set[str]] = [
    {"release", "deploy", "audit"},
    *("session", "scaffold"),
    {"testing", "sizes", "lint"},
    *("images", "stack", "machine"),
    *("cli", "venv", "ownership", "changes", "env", "project", "shell", "terminal"),
]


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("tasks", exclude_type_checking_imports=True, cache_dir=None)


def test_imports_run_down() -> None:
    illegal = graph().find_illegal_dependencies_for_layers(LAYERS, containers={"tasks"})
    routes = [route for found in illegal for route in found.routes]
    assert [f"{'|'.join(route.heads)} -> {' -> '.join([*route.middle, *route.tails])}" for route in routes] == []


def test_every_module_is_in_a_layer() -> None:
    layers = {name for layer in LAYERS for name in ({layer} if isinstance(layer, str) else layer)}
    assert {module.removeprefix("tasks.") for module in graph().find_children("tasks")} <= layers | {"tests"}


def test_no_imports_go_in_a_circle() -> None:
    packages = [module for module in sorted(graph().modules) if graph().find_children(module)]
    assert {package: circle for package in packages if (circle := graph().nominate_cycle_breakers(package))} == {}


def test_optional_parts_are_imported_by_noxfile_and_their_own_tests_only() -> None:
    statements = ast.parse((ROOT / "noxfile.py").read_text()).body
    optional = [
        alias.name for statement in statements if isinstance(statement, ast.Import) for alias in statement.names
    ]
    for module in [name for name in optional if name.startswith("tasks.")]:
        own = f"tasks.tests.test_{module.rpartition('.')[2]}"
        assert [it for it in graph().find_modules_that_directly_import(module) if not it.startswith(own)] == []
