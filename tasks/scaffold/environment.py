"""Finds what an existing project reads from its environment, and the databases and brokers that it uses; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..project import env_prefix
from .service import Skeleton

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The lines of compose.yaml for a neighbour.
FOLDER = Path(__file__).with_name("neighbours")
READERS = re.compile(r"os\.environ(\.get|\.setdefault|\.pop)?|(os\.)?getenv|config|env(\.\w+)?")


@dataclass(frozen=True)
class Neighbour:
    """A database or a broker: the packages that speak to it, its URLs' schemes, and, if it can be provided, its URL."""

    name: str
    packages: str
    schemes: str
    url: str = ""
    variable: str = ""  # what the code may call the variable with the URL
    usual: str = ""  # what it is called where no such variable is found


NEIGHBOURS = (
    Neighbour(
        "valkey",
        r"(.*-)?redis(-.*)?|rq|arq|hiredis|valkey",
        "rediss?|valkey",
        "redis://%name-valkey:6379/0",
        r".*(REDIS|CELERY|BROKER|VALKEY).*UR[LI]|.*RESULT_BACKEND",
        "REDIS_URL",
    ),
    Neighbour(
        "postgres",
        r"psycopg.*|asyncpg|pg8000|aiopg",
        r"postgres(ql)?",
        "postgresql://app:${%{PREFIX}_DATABASE_PASSWORD:-development}@%name-postgres:5432/app",
        r".*(DATABASE|DB|POSTGRES|PG|SQLALCHEMY).*(UR[LI]|DSN)",
        "DATABASE_URL",
    ),
    Neighbour("MySQL", r"pymysql|mysqlclient|aiomysql|mysql-.*", "mysql|mariadb"),
    Neighbour("MongoDB", r"pymongo|motor|mongoengine|beanie", r"mongodb(\+srv)?"),
    Neighbour("RabbitMQ", r"(aio-?)?pika|aioamqp", "amqps?"),
)


def variables(trees: Iterable[ast.Module]) -> set[str]:
    """The environment variables that code reads: by os.environ, environs, decouple, or as a field of pydantic's settings."""
    return {
        name
        for tree in trees
        for node in ast.walk(tree)
        for name in read(node)
        if re.fullmatch(r"[A-Z][A-Z\d_]+", name)
    }


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


def neighbours(packages: Iterable[str], trees: Iterable[ast.Module]) -> list[Neighbour]:
    """The databases and brokers that a project's packages and URLs in its code are for."""
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    urls = [text for text in texts if isinstance(text, str) and "://" in text[:30]]
    return [
        one
        for one in NEIGHBOURS
        if any(re.fullmatch(one.packages, package) for package in packages)
        or any(re.match(rf"({one.schemes})(\+\w+)?://", url) for url in urls)
    ]


def compose_lines(service: str, found: Iterable[Neighbour], read: Iterable[str]) -> tuple[str, str, str]:
    """Lines of compose.yaml that provide neighbours: of the service itself, further services, and volumes."""
    provided = [one for one in found if one.url]
    urls = [
        f"      {variable}: {one.url}\n"
        for one in provided
        for variable in sorted(name for name in read if re.fullmatch(one.variable, name)) or [one.usual]
    ]
    waits = [f"      %name-{one.name}:\n        condition: service_healthy\n" for one in provided]
    itself = f"    environment: &environment\n{''.join(urls)}    depends_on:\n{''.join(waits)}" if provided else ""
    services = "\n".join((FOLDER / f"{one.name}.yaml").read_text(encoding="utf-8") for one in provided)
    volumes = "".join(
        f"  %name-{one.name}:\n    labels:\n      stack.clone: ${{STACK_CLONE:-local}}\n" for one in provided
    )
    words = {"name": service, "PREFIX": env_prefix(service)}
    itself, services, volumes = (Skeleton(text).substitute(words) for text in (itself, services, volumes))
    return itself, services, volumes
