"""Finds what an existing project reads from its environment, and the databases and brokers that it uses; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..project import env_prefix
from .service import Skeleton

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The lines of compose.yaml for a neighbour.
FOLDER = Path(__file__).with_name("neighbours")
READERS = re.compile(r"os\.environ(\.get|\.setdefault|\.pop)?|(os\.)?getenv|config|env(\.\w+)?")
# A neighbour, the packages that speak to it, and the schemes of its URLs.
NEIGHBOURS = {
    "valkey": (r"(.*-)?redis(-.*)?|rq|arq|hiredis|valkey", "rediss?|valkey"),
    "postgres": (r"psycopg.*|asyncpg|pg8000|aiopg", r"postgres(ql)?"),
    "MySQL": (r"pymysql|mysqlclient|aiomysql|mysql-.*", "mysql|mariadb"),
    "MongoDB": (r"pymongo|motor|mongoengine|beanie", r"mongodb"),
    "RabbitMQ": (r"(aio-?)?pika|aioamqp", "amqps?"),
}


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


def neighbours(packages: Iterable[str], trees: Iterable[ast.Module]) -> list[str]:
    """The databases and brokers that a project's packages and URLs in its code are for."""
    texts = [node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    urls = [text for text in texts if isinstance(text, str) and "://" in text[:30]]
    return [
        name
        for name, (package, scheme) in NEIGHBOURS.items()
        if any(re.fullmatch(package, one) for one in packages)
        or any(re.match(rf"({scheme})(\+\w+)?://", url) for url in urls)
    ]


def provided(service: str, neighbour: str) -> str:
    """How compose.yaml provides a neighbour, with the lines where they are known."""
    path = FOLDER / f"{neighbour}.yaml"
    if not path.is_file():
        return f"add it to services/{service}/compose.yaml, or set its URL there"
    lines = Skeleton(path.read_text(encoding="utf-8")).substitute(name=service, PREFIX=env_prefix(service))
    return f"these lines at the end of services/{service}/compose.yaml provide it, with its URL in the variable that the code reads:\n{lines}"
