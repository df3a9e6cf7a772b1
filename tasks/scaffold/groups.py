"""Edits a service's dependency group in pyproject.toml, and keeps every other byte of it.

A program of its own, run with Poetry's environment, which has tomlkit:

    python -m tasks.scaffold.groups add NAME REQUIREMENT...
    python -m tasks.scaffold.groups copy NAME NEW
    python -m tasks.scaffold.groups remove NAME
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomlkit


def add(document: Any, name: str, *requirements: str) -> None:
    """Add a group with these requirements."""
    group = tomlkit.array()
    group.extend(requirements)
    document["dependency-groups"].append(name, group.multiline(True))


def copy(document: Any, name: str, new: str) -> None:
    """Add a group like another, its packages from libs/ included."""
    document["dependency-groups"].append(new, document["dependency-groups"][name])
    groups = document["tool"]["poetry"].get("group", {})
    for lib, path in groups.get(name, {}).get("dependencies", {}).items():
        groups.append(tomlkit.key([new, "dependencies", lib]), path)


def remove(document: Any, name: str) -> None:
    """Remove a group, its packages from libs/, and the service's size budgets."""
    document["dependency-groups"].pop(name, None)
    document["tool"]["poetry"].get("group", {}).pop(name, None)
    budgets = document["tool"].get("stack", {}).get("budgets", {})
    for image in [image for image in budgets if image.partition(":")[0] == name]:
        budgets.remove(image)


def main(path: Path, action: str, *words: str) -> None:
    """Do one of the three in the file ``path``."""
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    actions: dict[str, Callable[..., None]] = {"add": add, "copy": copy, "remove": remove}
    actions[action](document, *words)
    path.write_text(tomlkit.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main(Path("pyproject.toml"), *sys.argv[1:])
