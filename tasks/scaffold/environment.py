"""Finds what an existing project reads from its environment, and the databases and brokers that it uses; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ..project import env_prefix, toml
from .service import Skeleton

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

FOLDER = Path(__file__).with_name("adopting")  # what is written into services
READERS = re.compile(r"os\.environ(\.get|\.setdefault|\.pop)?|(os\.)?getenv|config|env(\.\w+)?")
# The name of a database in the working directory.
DATABASE = re.compile(r"(?:sqlite(?:\+\w+)?:///(?:\./)?)?([\w-]+\.(?:db|sqlite3?))")
# Each has what adopting/neighbours.toml says.
TABLES = toml((FOLDER / "neighbours.toml").read_text(encoding="utf-8"))
NEIGHBOURS = [SimpleNamespace(**{"name": name, "url": ""} | table) for name, table in TABLES.items()]


def variables(trees: Iterable[ast.Module]) -> set[str]:
    """The environment variables that code reads: by os.environ, environs, decouple, or as a field of pydantic's settings."""
    names = {name for tree in trees for node in ast.walk(tree) for name in read(node)}
    return {name for name in names if re.fullmatch(r"[A-Z][A-Z\d_]+", name)}


def databases(trees: Collection[ast.Module]) -> list[str]:
    """The names of SQLite's files in code that uses it, without those that are in other folders."""
    trees = [*trees] if any("sqlite" in ast.unparse(tree).lower() for tree in trees) else []
    texts = {str(node.value) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return sorted({found[1] for text in texts if (found := DATABASE.fullmatch(text))})


def read(node: ast.AST) -> Iterator[str]:
    """The names of variables that a node may read."""
    if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("BaseSettings") for base in node.bases):
        fields = [inner.target for inner in node.body if isinstance(inner, ast.AnnAssign)]
        yield from (target.id.upper() for target in fields if isinstance(target, ast.Name))
    place, key = None, None
    if isinstance(node, ast.Call) and node.args:
        place, key = node.func, node.args[0]
    elif isinstance(node, ast.Subscript):
        place, key = node.value, node.slice
    if place and isinstance(key, ast.Constant) and isinstance(key.value, str) and READERS.fullmatch(ast.unparse(place)):
        yield key.value


def neighbours(packages: Iterable[str], trees: Iterable[ast.Module]) -> list[SimpleNamespace]:
    """The databases and brokers that a project's packages and URLs in its code are for."""
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    urls = [text for text in texts if isinstance(text, str) and "://" in text[:30]]
    found = [*packages, *(f"{url.partition('://')[0]}:" for url in urls)]
    return [one for one in NEIGHBOURS if any(map(re.compile(one.uses).fullmatch, found))]


def compose_lines(service: str, found: Iterable[SimpleNamespace], read: Iterable[str]) -> tuple[str, str, str]:
    """Lines of compose.yaml that provide neighbours: of the service itself, further services, and volumes."""
    provided = [one for one in found if one.url]
    urls = [
        f"      {variable}: {one.url}\n"
        for one in provided
        for variable in sorted(name for name in read if re.fullmatch(one.variable, name)) or [one.usual]
    ]
    waits = [f"      %name-{one.name}:\n        condition: service_healthy\n" for one in provided]
    itself = f"    environment: &environment\n{''.join(urls)}    depends_on:\n{''.join(waits)}" if provided else ""
    words = {"name": service, "PREFIX": env_prefix(service)}
    services = "\n".join(template(f"{one.name}.yaml", words) for one in provided)
    clone = "    labels:\n      stack.clone: ${STACK_CLONE:-local}\n"
    volumes = "".join(f"  %name-{one.name}:\n{clone}" for one in provided)
    return Skeleton(itself).substitute(words), services, Skeleton(volumes).substitute(words)


def template(file: str, words: Mapping[str, str]) -> str:
    """The text of a file in adopting/ with these words in it."""
    return Skeleton((FOLDER / file).read_text(encoding="utf-8")).substitute(words)
