"""The template's own chores: a new service, one that is adopted, one that is removed, a clone that is renamed."""

from __future__ import annotations

import ast
import keyword
import re
import shutil
import sys
import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..changes import git
from ..project import ROOT, SERVICES, choose_services, env_prefix, name, pyproject, service_names
from ..shell import UserError
from ..terminal import say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SKELETON = ROOT / "tasks" / "scaffold" / "skeleton"
PYPROJECT = ROOT / "pyproject.toml"
STACK = ROOT / "docker" / "compose.yaml"
LOCK = ROOT / "poetry.lock"
GROUPS = "[dependency-groups]\n"
LONGEST_NAME = 40  # a DNS label has 63, and Compose puts the project's name in front and a number behind
DEFAULT = ['"flask>=3.1,<4"', '"gunicorn>=27,<28"']


def check_name(wanted: str) -> None:
    """Raise UserError unless a new service can have this name: as a DNS label, a Python package, and one of ours."""
    package = wanted.replace("-", "_")
    locked = {
        package["name"].replace("-", "_") for package in tomllib.loads(LOCK.read_text(encoding="utf-8"))["package"]
    }
    reasons = {
        "must be lower-case letters and digits, words joined by single dashes": not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", wanted),
        f"must have at most {LONGEST_NAME} characters": len(wanted) > LONGEST_NAME,
        "is a word of Python's": keyword.iskeyword(package) or package in sys.stdlib_module_names,
        "is the name of a package that the services use": package in locked,
        "is taken by a folder in services/": (SERVICES / wanted).exists(),
        "has a meaning of its own here": wanted in {"unit", "stack", "template", "test", "tests", "dev", "prod", *pyproject()["dependency-groups"]},
    }  # fmt: skip
    for reason, applies in reasons.items():
        if applies:
            raise UserError(f"a service cannot be called {wanted!r}: the name {reason}")


@contextmanager
def all_or_nothing(folder: Path | None = None) -> Iterator[None]:
    """Put the files that scaffolding edits back, and take a new ``folder`` away, unless the block ends well."""
    before = {path: path.read_bytes() for path in (PYPROJECT, STACK, LOCK)}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            path.write_bytes(content)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def new(wanted: str, like: str = "") -> None:
    """Make a service: from the skeleton, or like one that exists. The lock is the caller's to refresh."""
    if like:
        (like,) = choose_services([like])
        copy(SERVICES / like, wanted)
        enlist(wanted, [f'"{requirement}"' for requirement in pyproject()["dependency-groups"][like]])
        text = PYPROJECT.read_text(encoding="utf-8")
        PYPROJECT.write_text(
            re.sub(rf"(?m)^({re.escape(like)})(\.dependencies\..*\n)", rf"\g<0>{wanted}\g<2>", text), encoding="utf-8"
        )
    else:
        copy(SKELETON, wanted)
        enlist(wanted, DEFAULT)


def copy(model: Path, wanted: str, only: str = "") -> None:
    """Copy a service's files, or ``only`` one of them, under a new name: in them too, and on a port of its own."""
    old, package = model.name, wanted.replace("-", "_")
    port = free_port()
    for path in sorted(model.rglob(only or "*")):
        if path.is_dir() or "__pycache__" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        word = package if path.suffix == ".py" else wanted
        text = re.sub(rf"\b({re.escape(old)}|{old.replace('-', '_')})(?![a-zA-Z0-9])", word, text)
        text = re.sub(rf"\b{env_prefix(old)}_", f"{env_prefix(wanted)}_", text)
        if path.name == "compose.yaml":
            text = re.sub(r"(_PORT:-)\d+", rf"\g<1>{port}", text)
            if package != wanted:
                text = text.replace(f"SERVICE: {wanted}\n", f"SERVICE: {wanted}\n        PACKAGE: {package}\n")
        inside = str(path.relative_to(model)).replace(old.replace("-", "_"), package)
        target = SERVICES / wanted / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def adopt(wanted: str, source: Path) -> None:
    """Make a service of an existing WSGI project: its code, tests and dependencies, nothing in its code changed.

    Raises UserError where no application, or no list of dependencies, is to be found.
    """
    if not source.is_dir():
        raise UserError(f"there is no folder {source}")
    code, application = find_application(source)
    requirements = find_requirements(source)
    folder = SERVICES / wanted
    copy(SKELETON, wanted, only="compose.yaml")
    for item in [
        code,
        *(path for path in source.iterdir() if re.fullmatch(r"tests?|conftest\.py|test_.*\.py", path.name)),
    ]:
        if item.is_dir():
            shutil.copytree(item, folder / item.name, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.pyc"))
        else:
            shutil.copy(item, folder / item.name)
    (folder / "tests").mkdir(exist_ok=True)
    stack = folder / "compose.yaml"
    text = re.sub(r" +PACKAGE: .*\n", "", stack.read_text(encoding="utf-8"))
    lines = f"        PACKAGE: {code.name}\n        APPLICATION: {application}\n"
    stack.write_text(
        text.replace(f"        SERVICE: {wanted}\n", f"        SERVICE: {wanted}\n{lines}"), encoding="utf-8"
    )
    if any(
        "instance" in path.read_text(encoding="utf-8", errors="replace") for path in (folder / code.name).rglob("*.py")
    ):
        with stack.open("a", encoding="utf-8") as file:
            file.write(f"    volumes:\n      - {wanted}-data:/app/instance\n\nvolumes:\n  {wanted}-data:\n")
    # docker/server is made for one version of gunicorn, whatever the project has used.
    others = [f'"{requirement}"' for requirement in requirements if not re.match(r"gunicorn\b", requirement)]
    enlist(wanted, [*others, *DEFAULT[1:]])


def find_application(source: Path) -> tuple[Path, str]:
    """The package or module with the WSGI application, and what gunicorn calls it: ``flaskr:create_app()``."""
    places = [
        path
        for path in sorted(source.iterdir())
        if (path / "__init__.py").is_file() and path.name not in {"test", "tests"}
    ]
    places += sorted(source.glob("*.py"))
    for place in places:
        module = place / "__init__.py" if place.is_dir() else place
        for node in ast.parse(module.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and node.name in {"create_app", "make_app"}:
                return place, f"{place.stem}:{node.name}()"
            if isinstance(node, ast.Assign) and {"app", "application"} & {
                t.id for t in node.targets if isinstance(t, ast.Name)
            }:
                found = next(t.id for t in node.targets if isinstance(t, ast.Name) and t.id in {"app", "application"})
                return place, f"{place.stem}:{found}"
    raise UserError(
        f"{source} has no WSGI application that could be found: a create_app() or an `app` in a package or module"
    )


def find_requirements(source: Path) -> list[str]:
    """The project's own dependencies, from pyproject.toml or requirements.txt."""
    if (source / "pyproject.toml").is_file():
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
        if "dependencies" in project:
            return list(project["dependencies"])
    if (source / "requirements.txt").is_file():
        lines = (source / "requirements.txt").read_text(encoding="utf-8").splitlines()
        return [line.partition(" #")[0].strip() for line in lines if re.match(r"[A-Za-z0-9]", line)]
    raise UserError(f"{source} has neither a requirements.txt nor dependencies in a pyproject.toml: add one of them")


def enlist(wanted: str, requirements: list[str]) -> None:
    """Give a service its dependency group and its place in the stack."""
    text = PYPROJECT.read_text(encoding="utf-8")
    group = "".join([f"{wanted} = [\n", *(f"    {requirement},\n" for requirement in requirements), "]\n"])
    PYPROJECT.write_text(text.replace(GROUPS, GROUPS + group, 1), encoding="utf-8")
    stack = STACK.read_text(encoding="utf-8")
    STACK.write_text(re.sub(r"(?<=^include:\n)", include(wanted), stack, count=1, flags=re.MULTILINE), encoding="utf-8")


def remove(wanted: str) -> Path:
    """Take a service out of everything, and return its folder, which the caller may delete when all else went well.

    Raises UserError while git does not have all of it, and while another service needs it.
    """
    folder = SERVICES / wanted
    if git("status", "--porcelain", "--", str(folder)) and git("log", "-1", "--", str(folder)):
        raise UserError(f"services/{wanted} has changes that git does not have: commit or stash them first")
    for other in service_names():
        text = (SERVICES / other / "compose.yaml").read_text(encoding="utf-8")
        if other != wanted and re.search(rf"(?m)^\s*(- )?{re.escape(wanted)}:?\s*$|//{re.escape(wanted)}:", text):
            raise UserError(f"services/{other}/compose.yaml needs {wanted}: change it first")
    unlist(wanted)
    return folder


def unlist(wanted: str) -> None:
    """Take a service's dependency group, its budget and its place in the stack away again."""
    text = PYPROJECT.read_text(encoding="utf-8")
    left = re.sub(rf"(?m)^{re.escape(wanted)} = \[\n(?:.*\n)*?\]\n", "", text, count=1)
    left = re.sub(rf"(?m)^{re.escape(wanted)}\.dependencies\..*\n", "", left)
    left = re.sub(rf'(?m)^"{re.escape(wanted)}:\w+" = .*\n', "", left)
    if wanted in tomllib.loads(left)["dependency-groups"]:
        raise UserError(
            f"pyproject.toml: the dependency group {wanted} is not written as a list over several lines; remove it by hand"
        )
    PYPROJECT.write_text(left, encoding="utf-8")
    STACK.write_text(STACK.read_text(encoding="utf-8").replace(include(wanted), "", 1), encoding="utf-8")


def rename(wanted: str) -> None:
    """Make a fresh clone somebody's own: the project's name everywhere, and nothing left of what only its makers need."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", wanted) or len(wanted) > LONGEST_NAME:
        raise UserError(
            f"a project cannot be called {wanted!r}: lower-case letters and digits, words joined by single dashes"
        )
    if git("status", "--porcelain"):
        raise UserError(
            "there are changes that git does not have, and `rename` removes files: commit or stash them first"
        )
    old = name()
    edits = {
        PYPROJECT: (rf'(?m)^name = "{old}"$', f'name = "{wanted}"'),
        ROOT / "README.md": (r"\A# .*\n", f"# {wanted}\n"),
        ROOT / ".env.example": (rf"(?m)^(\w+)={old}$", rf"\g<1>={wanted}"),
    }
    for path in [
        ROOT / "docker" / "service.yaml",
        SKELETON / "compose.yaml",
        *SERVICES.glob("*/compose.yaml"),
    ]:
        edits[path] = (rf":-{old}\}}", f":-{wanted}}}")
    for path, (pattern, replacement) in edits.items():
        path.write_text(re.sub(pattern, replacement, path.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.rmtree(ROOT / "template", ignore_errors=True)
    say(f"{old} is {wanted} now; look at `git diff`, and commit it")


def include(service: str) -> str:
    """A service's line in docker/compose.yaml."""
    return f"  - ../services/{service}/compose.yaml\n"


def free_port() -> int:
    """The port after the last one that a service has."""
    texts = [path.read_text(encoding="utf-8") for path in SERVICES.glob("*/compose.yaml")]
    return max((int(port) for text in texts for port in re.findall(r"_PORT:-(\d+)", text)), default=4999) + 1
