"""Finds the application in an existing project; a part of adopt.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from symtable import symtable
from typing import NamedTuple

from ..shell import UserError
from .environment import KNOWN, LOOK, text_of

# What makes an application with the interface that it has, and which files are not its code.
MAKERS = {maker: interface for interface, makers in KNOWN["makers"].items() for maker in makers}
CACHES, LEFT, DATA, TESTS = KNOWN["files"].values()
ASGI, FACTORIES, CELERY, MODULES, NAMES = KNOWN["names"].values()


class Application(NamedTuple):
    """What runs: the expression ``call`` in ``module``, which is imported from the folder ``root``.

    ``interface`` is wsgi, asgi or aiohttp; "" where the code does not tell. With the interface command, ``call`` is a command line.
    """

    root: Path
    module: str
    call: str
    interface: str
    said_by: str = "its code"


def find_application(code: Code, wanted: str = "") -> Application:
    """The application that is ``wanted`` (MODULE:NAME, or a command line), or that a file for servers names, or the only one in the code."""
    source = code.source
    if " " in re.sub(r"[\"'(].*", "", wanted) or wanted in code.scripts:
        return Application(source, "", wanted, "command", "--app")
    for said_by, text in [("--app", wanted)] if wanted else named(source):
        if one := code.resolve(text):
            interface = one.interface or ("asgi" if one.module.endswith("asgi") else code.interface or "wsgi")
            return one._replace(said_by=said_by, interface=interface)
    for ini in (wanted or "production.ini development.ini").split():  # of Pyramid and the like
        if "\n[app:main]" in f"\n{text_of(source / ini)}":
            return Application(source, "paste.deploy", f'loadapp("config:{ini}", relative_to=".")', "wsgi", ini)
    if wanted:
        raise UserError(f"--app {wanted}: there is no such module in {source}, or it has nothing of that name")
    known = [one for one in code.every if one.interface not in {"", "command"}]
    made = [one for one in code.every if not one.interface]
    # What a factory has made counts only where that takes arguments, or where its own module adds routes and the like.
    routed = [one for one in made if f"\n@{one.call}." in text_of(one.root / f"{one.module.replace('.', '/')}.py")]
    found = [one._replace(interface=code.interface) for one in routed or made * (not known)] or known
    if len(found := [*dict.fromkeys(found or code.every or code.commands())]) == 1:
        return found[0]
    if not found:
        lost = f"no application found, see docs/adopting.md; say --app MODULE:NAME, or a command: {code.proposals}"
        raise UserError(f"{source}: {lost if code.trees else 'it has no Python code, or none but tests'}")
    # By its folder, too: two may have modules of one name.
    choices = [(f"{one.root.relative_to(source) / one.module}:" if one.module else "") + one.call for one in found]
    listed = " or ".join(f"--app '{choice}'" for choice in choices[:6]) + ", ..." * (len(choices) > 6)
    raise UserError(f"{source} has {len(choices)} applications: choose with {listed}")


def said(source: Path, table: str) -> Iterator[tuple[str, str]]:
    """What the lines say that a table of known.toml looks for in files, each after the file's name."""
    for name, line in KNOWN[table].items():
        yield from ((name, found) for found in re.findall(line, text_of(source / name).replace("\\\n", " ")))


def named(source: Path) -> Iterator[tuple[str, str]]:
    """The applications that files for servers may name, the likeliest first, each after the file's name."""
    for name, line in said(source, "servers"):
        words = sorted(LOOK["word"].findall(line), key=lambda word: ":" not in word and not word.endswith(".py"))
        yield from ((name, word) for word in words)  # a word alone may be a folder
    yield from ((f"{name}.py", f"{name}:{call}") for name in MODULES for call in [*NAMES, ""])


class Code:
    """The modules in a folder, parsed, without tests, and the applications in each."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.trees: dict[Path, ast.Module] = {}
        # Virtual environments may have any name.
        self.left = [*CACHES, *LEFT, *DATA, *(path.parent.name for path in source.glob("*/pyvenv.cfg"))]
        for path in sorted(source.rglob("*.py")):
            if not any(matches(part, self.left + TESTS) for part in path.relative_to(source).parts):
                with suppress(SyntaxError, ValueError, OSError):  # a template, code for another Python, no file
                    self.trees[path] = ast.parse(path.read_bytes())
        nodes = [(path, node) for path, tree in self.trees.items() for node in ast.walk(tree)]
        self.texts = {str(node.value) for _, node in nodes if isinstance(node, ast.Constant)}
        self.imports = {name for _, node in nodes for name in imported(node)}
        # Folders whose modules import by relative names: packages, with or without __init__.py.
        self.packages = {folder for path, node in nodes for folder in path.parents[: getattr(node, "level", 0)]}
        libraries = {name.partition(".")[0] for name in self.imports} | self.imports
        self.scripts = [script for _, script in said(source, "scripts")]
        self.runs = {path: f"python -m {self.importable(path)[1].removesuffix('.__main__')}" for path in self.trees}
        mains = [run for path, run in self.runs.items() if path.stem == "__main__"]
        guarded = [run for path, run in self.runs.items() if "\nif __name__ ==" in text_of(path)]
        run = [*mains, *self.scripts, *guarded * (len(guarded) == 1), "python -m MODULE"][0]
        ways = [way for name, way in KNOWN["proposals"].items() if name in libraries] or ["python -m MODULE"]
        self.proposals = " or ".join(f"'{way.replace('python -m MODULE', run)}'" for way in dict.fromkeys(ways))
        # The interface where an application does not tell; with a server of its own, as Tornado has one, it has neither.
        wsgi = "" if "8000" in self.proposals else "wsgi"
        self.interface = "asgi" if libraries & {*ASGI} and not libraries & {"flask", "django"} else wsgi
        self.found = {path: [*self.applications(path, tree)] for path, tree in self.trees.items()}
        self.every = [one for found in self.found.values() for one in found if one.interface or self.interface]

    def commands(self) -> Iterator[Application]:
        """The modules that files say to run, as commands; none where they are servers, which need our port."""
        for name, line in said(self.source, "commands") if self.interface else ():
            for script, words in LOOK["runs"].findall(re.sub(r"""[]["',]|\nCMD""", " ", line)):
                for path in self.modules(script.removesuffix(".py").strip("./").replace("/", "."))[:1]:
                    call = " ".join([self.runs[path], *words.split()])
                    yield Application(self.importable(path)[0], "", call, "command", name)

    def applications(self, path: Path, tree: ast.Module) -> Iterator[Application]:
        """The applications, and functions that make one without being told more, in a module.

        What a factory returns has no ``interface`` here.
        """
        place = self.importable(path)
        for node in tree.body:
            calls = {ast.unparse(inner.func) for inner in ast.walk(node) if isinstance(inner, ast.Call)}
            maker = next((maker for maker in MAKERS if any(f".{call}".endswith(f".{maker}") for call in calls)), "")
            # Tornado's are called like aiohttp's.
            interface = MAKERS.get(maker, "") if maker != "web.Application" or "aiohttp.web" in self.imports else ""
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                positional = [argument.arg for argument in node.args.posonlyargs + node.args.args]
                required = positional[len(node.args.defaults) :] or None in node.args.kw_defaults
                # Only aiohttp's server awaits what makes its application.
                factory = {interface, node.name} & {"aiohttp", *FACTORIES * isinstance(node, ast.FunctionDef)}
                if factory and not required and any(isinstance(it, ast.Return) and it.value for it in ast.walk(node)):
                    yield Application(*place, f"{node.name}()", interface or self.interface)
                elif node.name in NAMES and (raw := KNOWN["parameters"].get(" ".join(positional))):
                    yield Application(*place, node.name, raw)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                made = interface or any(call.rpartition(".")[2] in FACTORIES for call in calls)
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if interface == "command" or ast.unparse(target) in CELERY:
                        yield Application(place[0], "", f"python -m celery --app={place[1]} worker", "command")
                    elif isinstance(target, ast.Name) and (made or (calls and target.id == NAMES[0])):
                        yield Application(*place, target.id + ".server" * (maker == "Dash"), interface)

    def resolve(self, text: str) -> Application | None:
        """The application that ``text`` means: ``module:name``, ``module:factory('x')``, ``module``, ``src/module.py``."""
        name, _, call = text.partition(":")
        for path in self.modules(name.removesuffix(".py").strip("./").replace("/", ".")):
            # A server imports it as it is said.
            inside = ".".join(path.relative_to(self.source).with_suffix("").parts)
            root, module = (self.source, inside) if name == inside else self.importable(path)
            first = re.split(r"\W", call)[0]
            for one in sorted(self.found[path], key=lambda one: one.call not in NAMES):
                if one.module and first in {"", re.split(r"\W", one.call)[0]}:
                    # A factory is called, though it is not said.
                    return one._replace(root=root, module=module, call=one.call if call in {"", first} else call)
            bound = {one.get_name() for one in symtable(text_of(path), "", "exec").get_symbols() if one.is_local()}
            starred = call and "import *" in text_of(path)
            if usual := [each for each in ([first] if call else NAMES) if each in bound or starred]:
                return Application(root, module, call or usual[0], "")
        return None

    def modules(self, name: str) -> list[Path]:
        """The modules that a name may mean: by convention, a module for servers wherever it is, if there is one."""
        if name in MODULES and self.source / f"{name}.py" not in self.found:
            # Deeper ones are a library's own, for one framework of several.
            found = [path for path in self.found if path.stem == name and self.importable(path)[1].count(".") < 2]
            return found if len(found) == 1 else []
        inside = self.source / name.replace(".", "/")
        exact = [path for path in (inside.with_suffix(".py"), inside / "__init__.py") if path in self.found]
        return exact or [path for path in self.found if self.importable(path)[1] == name]

    def importable(self, path: Path) -> tuple[Path, str]:
        """The folder that a module is imported from, and its name then."""
        root = next(root for root in path.parents if root == self.source or not self.is_package(root))
        return root, ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")

    def is_package(self, folder: Path) -> bool:
        """Whether modules are imported as parts of a folder: it has an __init__.py, or others import from it all the same."""
        names = (f".{name}".partition(f".{folder.name}.")[2].replace(".", "/") for name in self.imports)
        named = any((folder / name).is_dir() or (folder / f"{name}.py").is_file() for name in names if name)
        # Django's manage.py imports what is beside it.
        django = (folder / "manage.py").is_file()
        return named or folder in self.packages or (not django and (folder / "__init__.py").is_file())


def imported(node: ast.AST) -> Iterator[str]:
    """What a statement imports, by absolute names."""
    if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
        module = getattr(node, "module", "")  # which `import x` has not
        yield from {module, *(f"{module}.{alias.name}".strip(".") for alias in node.names)} - {""}


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file's name is like one of the patterns."""
    return any(fnmatch(name, pattern) for pattern in patterns)
