"""Finds what an existing project reads from its environment, and the databases and brokers that it uses; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

from ..project import env_prefix, toml
from .service import Skeleton

FOLDER = Path(__file__).with_name("adopting")  # what is written into services
# How code, as ast writes it, reads a variable: by os.environ, environs, decouple, or a function such as getenv or env_bool; env[...] and env.get(...) are a dictionary, as of WSGI.
# %s are os.environ and the names that a module imports it by.
# The first group is a function that fails without the variable, unless it is told a default; the last is what follows the name, which is none that each process has.
READERS = r"(?<![\w.])(?:(?:%s)(?:\.\w+)?[(\[]|[\w.]*(?:\wenv|env\w)\w*\(|(config[(\[]|env(?:\.(?!(?:get|pop|setdefault)\()\w+)?\())'(?!(?:PATH|HOME)')([A-Z][A-Z\d_]+)'(\W)"
ENVIRON = re.compile(r"^\s*from os import (?:.*, )?environ(?: as (\w+))?(?:,|$)", re.MULTILINE)
# The name of a database in the working directory, or in a folder there; and as code joins it, which is no variable with a default.
DATABASE = re.compile(r"(?:sqlite(?:\+\w+)?:///(?:\./)?)?((?:[\w-]+/)?[\w-]+\.(?:db|sqlite3?))")
JOINED = re.compile(r"""["'](?![A-Z\d_]+["'])([\w-]+)["']\s*[,/]\s*["']([\w-]+\.(?:db|sqlite3?))["']""")
WAITS = "    depends_on:  # tests that need these: TESTS_NEED_NEIGHBOURS in docs/recipes.md\n"
NEIGHBOURS = [SimpleNamespace(**one) for one in toml((FOLDER / "neighbours.toml").read_text("utf-8"))["neighbour"]]
# Packages that come without wheels, and what Debian calls the headers that they are compiled with.
COMPILED: dict[str, str] = toml((FOLDER / "compiled.toml").read_text(encoding="utf-8"))


def variables(trees: Iterable[ast.Module]) -> dict[str, bool]:
    """The environment variables that code reads, as READERS says or by pydantic's settings, and whether it fails without."""
    found: dict[str, bool] = {}
    for text in map(ast.unparse, trees):
        own = "|".join([r"os\.environ", *(name or "environ" for name in ENVIRON.findall(text))])
        for function, key, end in re.findall(READERS % own, text):
            found[key] = found.get(key, False) or (end == (")" if function else "]") and f"'{key}' in" not in text)
    for node in [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]:
        if any(ast.unparse(base).endswith("BaseSettings") for base in node.bases):
            found |= {ast.unparse(f.target).upper(): not f.value for f in node.body if isinstance(f, ast.AnnAssign)}
    return found


def databases(texts: Collection[str], imports: Collection[str], *files: str) -> list[str]:
    """The names of SQLite's files beside the code: among the ``texts`` of code that uses it, and in ``files``, for Paste or of code."""
    used = any("sqlite" in text.lower() for text in [*texts, *imports])
    found = {*texts, *("/".join(names) for text in files for names in JOINED.findall(text))} if used else set()
    found.update(name for text in files for name in re.findall(r"%\(here\)s/(\S+)", text))
    names = {name[1] for text in found if (name := DATABASE.fullmatch(text))}
    return sorted(name for name in names if not any(other.endswith(f"/{name}") for other in names))


def neighbours(packages: Collection[str], texts: Iterable[str]) -> Iterator[SimpleNamespace]:
    """The databases and brokers that a project's packages and URLs in its code are for, with the driver that a URL names."""
    schemes = {scheme for text in texts for scheme in re.findall(r"^([a-z]+\+\w+$|[a-z]+(?:\+\w+)?(?=://))", text)}
    for one in NEIGHBOURS:
        own = [scheme for scheme in schemes if re.fullmatch(one.uses, f"{scheme}:")]
        if own or any(re.fullmatch(one.uses, package) for package in packages):
            # Where code has several, it replaces one by the other.
            url = re.sub(r"^\w+", own[0], one.url) if len(own) == 1 and "+" in own[0] else one.url
            yield SimpleNamespace(**vars(one) | {"url": url})


def compose_lines(service: str, found: Iterable[SimpleNamespace], read: Mapping[str, bool]) -> tuple[str, str, str]:
    """Lines of compose.yaml that provide neighbours, and variables that the code needs: of the service itself, further services, and volumes."""
    provided = [one for one in found if one.url]
    values = {name: '"8000"' if name == "PORT" else '""' for name in sorted(read) if read[name] or name == "PORT"}
    for one in provided:
        told = [(one.variable, one.url), *one.parts.items()]
        own = {name: value for pattern, value in told for name in sorted(read) if re.fullmatch(pattern, name)}
        values |= own or {one.usual: one.url}
    variables = "".join(f"      {name}: {value}\n" for name, value in values.items())
    waits = [f"      %name-{one.name}: {{condition: service_healthy}}\n" for one in provided]
    itself = "".join(["    environment: &environment\n", variables, *(waits and [WAITS, *waits])]) if values else ""
    words = {"name": service, "PREFIX": env_prefix(service)}
    services = "".join("\n" + template(f"{one.name}.yaml", words) for one in provided)
    volumes = "".join(template("volume.yaml", words | {"volume": one.name}) for one in provided)
    return Skeleton(itself).substitute(words), services, volumes


def template(file: str, words: Mapping[str, str]) -> str:
    """The text of a file in adopting/ with these words in it."""
    return Skeleton((FOLDER / file).read_text(encoding="utf-8")).substitute(words)
