"""Finds the application in an existing project; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from ..env import parse
from ..shell import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

# What makes an application, and the interface that it has.
MAKERS = {"Flask": "wsgi", "get_wsgi_application": "wsgi"}
MAKERS |= dict.fromkeys(("FastAPI", "Starlette", "Quart", "get_asgi_application"), "asgi")
FACTORIES = {"create_app", "make_app"}
# Where an application is named, and how the lines begin that name it.
STARTERS = {"Procfile": ("web:",), "Dockerfile": ("CMD", "ENTRYPOINT")}
STARTERS |= dict.fromkeys(("gunicorn.conf.py", "gunicorn_conf.py", "config/gunicorn.py"), ("wsgi_app",))
JUNK = (".*", "__pycache__", "*.py[co]", "*.egg-info", "node_modules", "venv", "env", "build", "dist")
# What is not taken along besides: what is said elsewhere here, documents, the data of a development server.
LEFT = (
    *("pyproject.toml", "*.lock", "Pipfile*", "requirements*", "setup.py", "PKG-INFO", "MANIFEST.in", "Makefile"),
    *("Dockerfile*", "docker-compose*", "compose*.y*ml", "Procfile", "[A-Z]*.md", "[A-Z]*.rst", "LICENSE*"),
    *("docs", "examples", "instance", "*.db", "*.sqlite3", "stack"),
)
TESTS = ("tests", "test", "test_*.py", "*_test.py", "conftest.py", "pytest.ini", "tox.ini", "setup.cfg")


@dataclass(frozen=True)
class Application:
    """What a server runs: ``module:call``, to be imported from the folder ``root``; ``interface`` is wsgi or asgi."""

    root: Path
    module: str
    call: str
    interface: str
    said_by: str = "its code"


def find_application(source: Path, wanted: str = "") -> Application:
    """The application that is ``wanted`` (MODULE:NAME), or that a file for servers names, or the only one in the code."""
    skipped = (*JUNK, *LEFT, *TESTS)
    inside = {path: path.relative_to(source).parts for path in sorted(source.rglob("*.py"))}
    paths = [path for path, parts in inside.items() if not any(matches(part, skipped) for part in parts)]
    known = {path: list(applications(source, path)) for path in paths}
    for said_by, text in [("--app", wanted)] if wanted else named(source):
        if one := resolve(source, text, known):
            return replace(one, said_by=said_by)
    if wanted:
        raise UserError(f"--app {wanted}: there is no such module in {source}, or it has nothing of that name")
    every = [one for found in known.values() for one in found]
    # What a factory has made counts only where that takes arguments; of Django's two interfaces, wsgi does.
    found = [one for one in every if one.interface] or [replace(one, interface="wsgi") for one in every]
    if {one.call for one in found} == {"application"}:
        found = [one for one in found if one.interface == "wsgi"] or found
    if len(found) > 1:
        choices = " or ".join(f"--app '{one.module}:{one.call}'" for one in found)
        raise UserError(f"{source} has {len(found)} applications: choose with {choices}")
    if not found:
        raise UserError(
            f"{source}: no application found: neither FLASK_APP in .flaskenv or .env, nor {', '.join(STARTERS)} name one, and "
            f"no module calls {', '.join(MAKERS)} or defines {' or '.join(sorted(FACTORIES))}; --app MODULE:NAME names it"
        )
    return found[0]


def resolve(source: Path, text: str, known: Mapping[Path, list[Application]]) -> Application | None:
    """The application that ``text`` means: ``module:name``, ``module:factory('x')``, ``module``, ``src/module.py``."""
    name, _, call = text.partition(":")
    for path, found in known.items():
        root, module = importable(source, path)
        from_source = ".".join(path.relative_to(source).with_suffix("").parts)
        if name.removesuffix(".py").replace("/", ".") in {module, from_source}:
            for one in found:
                if not call or call.partition("(")[0] == one.call.partition("(")[0]:
                    return replace(one, call=call if "(" in call else one.call, interface=one.interface or "wsgi")
            if call and re.search(rf"\b{re.escape(call.partition('(')[0])}\b", path.read_text("utf-8", "replace")):
                return Application(root, module, call, "wsgi")
    return None


def named(source: Path) -> Iterator[tuple[str, str]]:
    """The applications that files for servers may name, the likeliest first, each after the file's name."""
    for name in (".flaskenv", ".env"):
        if (source / name).is_file() and (text := parse((source / name).read_text(encoding="utf-8")).get("FLASK_APP")):
            yield name, text
    for name, starts in STARTERS.items():
        if (source / name).is_file():
            for line in (source / name).read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
                found = (
                    re.findall(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(?:\([^)]*\))?", line) if line.startswith(starts) else []
                )
                yield from ((name, text) for text in found)


def applications(source: Path, path: Path) -> Iterator[Application]:
    """The applications, and functions that make one without being told more, in a module.

    What a factory returns has no ``interface`` here.
    """
    try:
        nodes = ast.parse(path.read_bytes()).body
    except SyntaxError:  # a template, or code for another Python
        return
    for node in nodes:
        calls = {getattr(n.func, "id", getattr(n.func, "attr", "")) for n in ast.walk(node) if isinstance(n, ast.Call)}
        interface = next((MAKERS[call] for call in calls & MAKERS.keys()), "")
        if isinstance(node, ast.FunctionDef):
            places = len(node.args.posonlyargs + node.args.args)
            required = places > len(node.args.defaults) or None in node.args.kw_defaults
            returns = any(isinstance(inner, ast.Return) for inner in ast.walk(node))
            if returns and not required and (interface or node.name in FACTORIES):
                yield Application(*importable(source, path), f"{node.name}()", interface or "wsgi")
        elif isinstance(node, ast.Assign | ast.AnnAssign) and (interface or calls & FACTORIES):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield Application(*importable(source, path), target.id, interface)


def importable(source: Path, path: Path) -> tuple[Path, str]:
    """The folder that a module is imported from, and its name then."""
    root = path.parent
    while (root / "__init__.py").is_file() and root != source:
        root = root.parent
    return root, ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file's name is like one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)
