"""The modules of the standard library: which may go to production, and which of them code can reach."""

from __future__ import annotations

import ast
import re
import sysconfig
from encodings.aliases import aliases
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDLIB = Path(sysconfig.get_path("stdlib"))
# No service in production runs the standard library's tests, installs packages, draws windows or talks to a terminal.
LEFT_OUT = re.compile(
    r"""(?x)
    (.*/)?(test|tests|idle_test|__pycache__|site-packages|dist-packages)/.* | (.*/)?_?(ctypes_)?test[^/]*\.so
    | (_pyrepl|config-[^/]*|ensurepip|idlelib|lib2to3|pydoc_data|tkinter|turtledemo|venv)/.*
    | (turtle|_pydecimal|_pydatetime|_pyio|pydoc|sitecustomize)\.py
    | lib-dynload/(_tkinter|_test|_xx|xx|_curses|readline|_dbm|_gdbm)[^/]*
    """
)
# Too heavy for the runtime that all services share, and of use to few: they come with the service whose code names them.
ON_DEMAND = {
    "sqlite3": re.compile(r"(sqlite3|dbm\.sqlite3|_sqlite3)(\..*)?"),
    "big5|cp9(?:32|36|49|50)|euc[-_](?:jp|kr)|gb2312|gb18030|gbk|hz|iso[-_]?2022|johab|ksc|shift[-_]?jis": re.compile(
        r"_codecs_(cn|hk|iso2022|jp|kr|tw)|_multibytecodec"
    ),
}
LONGEST_CODEC = max(map(len, aliases))
NEVER_TRUE = re.compile(
    r"^(\w+\.)?TYPE_CHECKING$|^(sys\.platform|os\.name) == '(win32|nt|darwin)'|^__name__ == '__main__'$"
)
# These are no imports that anyone could read off the source: the interpreter's own, and what C code imports.
ALWAYS = (
    *(f"encodings.{codec}" for codec in ("aliases", "ascii", "idna", "latin_1", "utf_8")),
    *("http.client", "importlib.metadata", "runpy", "site"),
)
BY_C = {
    "_datetime": ("_strptime",),
    "datetime": ("_strptime",),
    "time": ("_strptime",),
    "_pickle": ("_compat_pickle", "copyreg"),
    "_decimal": ("numbers", "collections"),
    "_elementtree": ("copy", "pyexpat", "xml.etree.ElementPath"),
    "_zoneinfo": ("zoneinfo._tzpath", "zoneinfo._common"),
    "_asyncio": ("asyncio",),
}
# The standard library mentions these for people at a terminal; code of yours that imports one gets it all the same.
FOR_PEOPLE = {"doctest", "pdb", "pydoc", "unittest", "_pyrepl", "cProfile", "profile", "pstats", "rlcompleter"}


def stdlib() -> dict[str, Path]:
    """The modules of the standard library that may go to production: name -> .py file or extension module."""
    found = {}
    for path in sorted([*STDLIB.rglob("*.py"), *STDLIB.rglob("*.so")]):
        inside = path.relative_to(STDLIB)
        if not LEFT_OUT.fullmatch(str(inside)):
            parts = inside.with_name(path.name.partition(".")[0]).parts
            parts = parts[1:] if parts[0] == "lib-dynload" else parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: Path, package: str) -> Iterator[str]:
    """The names that a module imports anywhere, its functions included; ``package`` is the one that it belongs to.

    In code from outside the standard library ("" for the package), a codec counts as imported where its name stands as a
    string. The library itself knows all codecs, and uses few.
    """
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):  # a template, or code for another Python
        return
    for node in running(tree):
        if (
            not package
            and isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and len(node.value) <= LONGEST_CODEC
        ):
            codec = node.value.lower().replace("-", "_")
            yield f"encodings.{aliases.get(codec, codec)}"
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, node.module] if node.module else above)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes of a syntax tree but those that never run here: for type checkers, for Windows, for use as a script."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and NEVER_TRUE.search(ast.unparse(child.test)):
            for other in child.orelse:
                yield from running(other)
        else:
            yield from running(child)


def closure(modules: dict[str, Path], roots: Iterable[str]) -> dict[str, Path]:
    """Those of ``modules`` (the standard library) that can be reached from ``roots`` by imports."""
    reached: dict[str, Path] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in modules:
            waiting += BY_C.get(name, ())
            name = name.rpartition(".")[0]  # `from json import dumps`: the module is json
        if name in reached or name not in modules:
            continue
        reached[name] = path = modules[name]
        waiting += [name.rpartition(".")[0], *BY_C.get(name, ())]
        if path.suffix == ".py":
            package = name if path.name == "__init__.py" else name.rpartition(".")[0] or name
            aside = set() if name.partition(".")[0] in FOR_PEOPLE else FOR_PEOPLE
            waiting += (wanted for wanted in imports(path, package) if wanted.partition(".")[0] not in aside)
    return reached


def roots(folder: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The names that the code below a folder may import; for extension modules, those that stand in them as a string."""
    for path in folder.rglob("*"):
        if path.suffix == ".py":
            yield from imports(path, "")
        elif ".so" in path.name and path.is_file():
            words = set(re.findall(rb"[a-z_][a-z_.0-9]{2,}(?=\0)", path.read_bytes()))
            yield from (name for name in modules if name.encode() in words)


def demanded(folders: Iterable[Path], named: Iterable[str]) -> set[str]:
    """The parts of ON_DEMAND (their keys) that code below ``folders`` mentions, or that are asked for by name."""
    text = " ".join(named)
    for folder in folders:
        text += " ".join(path.read_text(errors="replace") for path in folder.rglob("*.py"))
    return {words for words in ON_DEMAND if re.search(rf"\b(?:{words})\b", text, re.IGNORECASE)}


def of_parts(modules: dict[str, Path], parts: Iterable[str]) -> dict[str, Path]:
    """The modules that belong to parts of ON_DEMAND."""
    patterns = [ON_DEMAND[part] for part in parts]
    return {name: path for name, path in modules.items() if any(pattern.fullmatch(name) for pattern in patterns)}
