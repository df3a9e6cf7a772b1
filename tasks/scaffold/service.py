"""Makes a service, from the skeleton or like another one, and removes one."""

from __future__ import annotations

import keyword
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from string import Template

from nox import Session

from .. import project, venv
from ..changes import git
from ..project import ROOT, SERVICES, choose_services, env_prefix, has_own_lock, libs_of, pyproject, service_names
from ..shell import UserError, output
from ..terminal import Status
from ..testing.host import SUITES
from . import like

SKELETON = ROOT / "tasks" / "scaffold" / "skeleton"
STACK = ROOT / "docker" / "compose.yaml"
LOCK = ROOT / "poetry.lock"
EDITED = (ROOT / "pyproject.toml", STACK, LOCK)
REMOVED = ROOT / ".nox" / "removed"  # a removed service's folder, until all else went well
# By interface, the server and what it needs; docker/server is made for these versions.
SERVERS = {"wsgi": ("gunicorn>=27,<28",), "asgi": ("uvicorn>=0.54,<1", "httptools>=0.6,<1")}
# What services of each kind need, and further arguments of their images' builds.
KINDS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "flask": (("flask>=3.1,<4", *SERVERS["wsgi"]), {}),
    "fastapi": (("fastapi>=0.160,<1", *SERVERS["asgi"]), {"INTERFACE": "asgi"}),
    "worker": ((), {}),
}
# Further ways to make a service, and to lock what it needs, by the option of `new` that asks for one; optional parts add theirs.
WAYS: dict[str, Callable[[Session, Namespace], None]] = {}


class Skeleton(Template):
    """Text with %name, %package, %{PREFIX} and the like; compose files use $ themselves."""

    delimiter = "%"


def check_name(wanted: str) -> None:
    """Raise UserError unless a new service can have this name: as a DNS label, a Python package, and one of ours."""
    package = wanted.replace("-", "_")
    # What may stand behind `--` in a service's place, and Flask's folder, which neither git nor images take from here.
    special = {"prod", "test", "template", "instance", *SUITES}
    project.check_label("a service", wanted)
    reasons = {
        f"{package} is a keyword of Python, which no package can be called": keyword.iskeyword(package),
        f"its package would hide Python's own module {package}": package in sys.stdlib_module_names,
        "services/ has a folder of this name": (SERVICES / wanted).exists(),
        "pyproject.toml has a dependency group of this name": wanted in pyproject().get("dependency-groups", ()),
        # As words of YAML, or with _HOST, which would be the engine's address.
        "it has a meaning of its own here": wanted in special | {"null", "true", "false", "docker", "container"},
    }
    if found := [reason for reason, applies in reasons.items() if applies]:
        raise UserError(f"a service cannot be called {wanted!r}: {found[0]}")
    for other in service_names():
        if f"  {wanted}:" in (SERVICES / other / "compose.yaml").read_text("utf-8", "replace").splitlines():
            raise UserError(f"a service cannot be called {wanted!r}: services/{other}/compose.yaml has one, too")


def check_imports(service: str, packages: set[str], *groups: str) -> None:
    """Raise UserError if a service's own ``packages`` hide one that it imports: those that its lock has for ``groups``."""
    locks = [pyproject(str(path)) for path in (LOCK, SERVICES / service / LOCK.name) if path.exists()]
    found = [package for lock in locks for package in lock.get("package", ())]
    used = {package["name"].replace("-", "_") for package in found if {*groups} & {*package.get("groups", ())}}
    for hidden in sorted(packages & used):
        raise UserError(f"services/{service}: its own {hidden} would hide the package {hidden} that it uses: rename it")


@contextmanager
def all_or_nothing(service: str) -> Iterator[None]:
    """Put everything back, a service's folder too, if the block fails or is interrupted.

    Waits while another session does the same.
    """
    folder = SERVICES / service
    with STACK.open("r+") as locked:
        import fcntl  # which Windows lacks, where `setup` says what to do

        with Status("waiting for another session that makes or removes a service"):
            fcntl.flock(locked, fcntl.LOCK_EX)
        was_there = folder.exists()
        before = {path: path.read_bytes() for path in EDITED if path.exists()}
        shutil.rmtree(REMOVED, ignore_errors=True)
        try:
            yield
        except BaseException:
            for path, content in before.items():
                path.write_bytes(content)
            if not was_there:
                shutil.rmtree(folder, ignore_errors=True)
            elif REMOVED.exists():
                REMOVED.rename(folder)
            raise
        shutil.rmtree(REMOVED, ignore_errors=True)


def new(session: Session, args: Namespace) -> None:
    """Make the service ``args.name`` from the skeleton, or as another option says."""
    check_name(args.name)
    if ways := [WAYS[option] for option in WAYS if getattr(args, option, None)]:
        ways[0](session, args)
    elif args.like:
        (model,) = choose_services([args.like])
        like.copy(model, args.name, free_port())
        if not has_own_lock(model):
            edit_group(session, "copy", model, args.name)
    else:
        package = args.name.replace("-", "_")
        requirements, arguments = KINDS[args.kind]
        own = {"SERVICE": args.name} | ({"PACKAGE": package} if package != args.name else {})
        fill(args.name, own | arguments, kind=args.kind)
        edit_group(session, "add", args.name, *requirements)
    text = re.sub(r"(?m)^include:( \[\])?\n", f"include:\n{include(args.name)}", STACK.read_text("utf-8"), count=1)
    if include(args.name) not in text or "\n<<<<<<< " in text:
        raise UserError("docker/compose.yaml has a merge conflict, or no line `include:` for services: mend it first")
    STACK.write_text(text, encoding="utf-8")
    if not ways and not has_own_lock(args.name):
        venv.poetry(session, "lock")
    # A folder without __init__.py, such as babel/ with translations, hides no package.
    folder = SERVICES / args.name
    modules = [*(path.parent for path in folder.glob("*/__init__.py")), *folder.glob("*.py")]
    # Plugins of the service may depend on it under its name as a distribution: they get what is here.
    itself = re.findall(r'DISTRIBUTION: "(.+)==', (folder / "compose.yaml").read_text("utf-8", "replace"))
    names = {path.stem for path in modules} - {"tests", "stack", *(name.lower().replace("-", "_") for name in itself)}
    check_imports(args.name, names, args.name, "main", "dev", "tests")


def fill(service: str, arguments: Mapping[str, str], only: str = "*", kind: str = "flask") -> None:
    """Write the files of a skeleton, or ``only`` one of them; ``arguments`` are those of its image's build."""
    package = service.replace("-", "_")
    words = {"name": service, "package": package, "PREFIX": env_prefix(service), "port": str(free_port())}
    words["arguments"] = "\n        ".join(f"{key}: {value}" for key, value in arguments.items())
    # Of two files of one name the kind's own stays.
    for path in [path for part in ("all", kind) for path in sorted((SKELETON / part).rglob(only))]:
        inside = "/".join(path.relative_to(SKELETON).parts[1:]).replace("PACKAGE", package).removesuffix(".in")
        target = SERVICES / service / inside
        if path.is_file() and "__pycache__" not in path.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text(encoding="utf-8")
            target.write_text(Skeleton(text).substitute(words) if path.suffix == ".in" else text, encoding="utf-8")


def edit_group(session: Session, *words: str) -> None:
    """Edit pyproject.toml with tasks/scaffold/groups.py."""
    venv.pip(session, "--quiet", "pip", "--requirement", "docker/build/tools.txt")  # Poetry, and with it tomlkit
    output(venv.python(session), "-m", "tasks.scaffold.groups", *words)


def lock(session: Session, *arguments: str) -> None:
    """Run Poetry, which removes a group with its last package, and others that are empty; services' groups come back."""
    groups = pyproject().get("dependency-groups", {})
    for group in groups:
        libs_of(group)  # Poetry must not take one from the package index
    if LOCK.exists():
        pyproject(str(LOCK))
    named = re.search(r" (?:-G|--group)[ =]?(\S+)", " ".join(arguments))
    if arguments[0] == "add" and not (named and (named[1] in groups or (SERVICES / named[1]).is_dir())):
        raise UserError(f"no image would get it: `--group NAME` must name one of {', '.join(groups)}")
    venv.poetry(session, *arguments)
    kept = pyproject().get("dependency-groups", {})
    lost = sorted(name for name in groups.keys() - kept.keys() if (SERVICES / name).is_dir())
    for name in lost:
        edit_group(session, "add", name)
    if lost:
        venv.poetry(session, "lock")


def remove(session: Session, service: str) -> None:
    """Remove a service: its folder, its dependency group, its size budgets, its place in the stack and in the lock.

    Raises UserError while git does not have all of it, and while another service's compose.yaml names it.
    """
    folder = SERVICES / service
    if git("status", "--porcelain", "-unormal", "--", str(folder)) and git("log", "-1", "--", str(folder)):
        raise UserError(f"services/{service} has changes that git does not have: commit or discard them first")
    # A whole word, or a URL's host, but no part of a path, and no user's name.
    name = re.compile(rf"(?<![\w.-])(?<![^/]/)(?<!(?i:user): )(?<!name=){service}(?![\w.@-])")
    for path in sorted({*SERVICES.glob("*/compose.yaml")} - {folder / "compose.yaml"}):
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if name.search(line.partition("#")[0]):
                raise UserError(f"{path.relative_to(SERVICES.parent)}, line {number}, names {service}: change it first")
    text = STACK.read_text(encoding="utf-8")
    if include(service) not in text or "\n<<<<<<< " in text:
        raise UserError(f"docker/compose.yaml has a merge conflict, or no line `{include(service).strip()}`: mend it")
    left = re.sub(r"^include:\n(?! )", "include: []\n", text.replace(include(service), ""), flags=re.MULTILINE)
    STACK.write_text(left, encoding="utf-8")
    edit_group(session, "remove", service)
    if not has_own_lock(service):
        venv.poetry(session, "lock")
    REMOVED.parent.mkdir(exist_ok=True)
    folder.rename(REMOVED)


def include(service: str) -> str:
    """A service's line in docker/compose.yaml."""
    return f"  - ../services/{service}/compose.yaml\n"


def free_port() -> int:
    """The port after the last one that a service has."""
    return max(map(int, re.findall(r"_PORT:-(\d+)", project.compose_texts())), default=4999) + 1
