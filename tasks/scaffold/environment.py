"""Finds what an existing project reads from its environment, and the databases and brokers that it uses; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

from ..project import env_prefix, toml
from .service import Skeleton

FOLDER = Path(__file__).with_name("adopting")  # what is written into services
# How code, as ast writes it, reads a variable: by os.environ, environs, or decouple.
READERS = re.compile(r"(?<![\w.])(?:os\.environ(?:\.\w+)?|(?:os\.)?getenv|config|env(?:\.\w+)?)[(\[]'([A-Z][A-Z\d_]+)'")
# The name of a database in the working directory.
DATABASE = re.compile(r"(?:sqlite(?:\+\w+)?:///(?:\./)?)?([\w-]+\.(?:db|sqlite3?))")
# Each has what adopting/neighbours.toml says.
TABLES = toml((FOLDER / "neighbours.toml").read_text(encoding="utf-8"))
NEIGHBOURS = [SimpleNamespace(**{"name": name, "url": ""} | table) for name, table in TABLES.items()]
# Packages that come without wheels, and what Debian calls the headers that they are compiled with.
COMPILED: dict[str, str] = toml((FOLDER / "compiled.toml").read_text(encoding="utf-8"))


def variables(trees: Iterable[ast.Module]) -> set[str]:
    """The environment variables that code reads: as READERS says, or as a field of pydantic's settings."""
    names = {name for tree in trees for name in READERS.findall(ast.unparse(tree))}
    for node in [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
        if any(ast.unparse(base).endswith("BaseSettings") for base in node.bases):
            fields = [ast.unparse(inner.target) for inner in node.body if isinstance(inner, ast.AnnAssign)]
            names |= {name.upper() for name in fields}
    return names


def databases(texts: Collection[str], *configurations: str) -> list[str]:
    """The names of SQLite's files beside the code: among the ``texts`` of code that uses it, and in files for Paste."""
    found = {*texts} if any("sqlite" in text.lower() for text in texts) else set()
    found.update(name for text in configurations for name in re.findall(r"%\(here\)s/(\S+)", text))
    return sorted({name[1] for text in found if (name := DATABASE.fullmatch(text))})


def neighbours(packages: Iterable[str], texts: Iterable[str]) -> list[SimpleNamespace]:
    """The databases and brokers that a project's packages and URLs in its code are for."""
    found = [*packages, *(f"{text.partition('://')[0]}:" for text in texts if "://" in text[:30])]
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
    waiting = f"    depends_on:  # tests that need these: see docs/recipes.md\n{''.join(waits)}"
    itself = f"    environment: &environment\n{''.join(urls)}{waiting}" if provided else ""
    words = {"name": service, "PREFIX": env_prefix(service)}
    services = "\n".join(template(f"{one.name}.yaml", words) for one in provided)
    volumes = "".join(
        f"  %name-{one.name}:\n    labels:\n      stack.clone: ${{STACK_CLONE:-local}}\n" for one in provided
    )
    return Skeleton(itself).substitute(words), services, Skeleton(volumes).substitute(words)


def template(file: str, words: Mapping[str, str]) -> str:
    """The text of a file in adopting/ with these words in it."""
    return Skeleton((FOLDER / file).read_text(encoding="utf-8")).substitute(words)
