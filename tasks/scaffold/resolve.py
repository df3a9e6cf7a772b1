"""Locks what an adopted service needs, and tells what stands in the way; a part of adopt.py."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from .. import venv
from ..project import SERVICES, has_own_lock, toml
from ..shell import CommandFailed, UserError
from ..terminal import say
from . import service
from .environment import template
from .requirements import applies, image_python, python

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from nox import Session

# How Poetry tells that requirements exclude each other: two of one package, or some that follow from others.
CONFLICT = re.compile(r"Incompatible constraints (?:.+\n?)*|(?:.+\n)*.*version solving failed")


def lock(session: Session, args: Namespace, lines: list[str], *choices: list[str]) -> None:
    """Lock a service's requirements with those of all services; by themselves where asked for, and where that fails.

    ``choices`` are what its tests may be run with if the shared test tools are not enough, the best first. Raises UserError
    where there is no solution.
    """
    name, tests = args.name, choices[0] if choices else []
    why = "--own-lock asks for it" if args.own_lock else "its tests need more than the shared test tools"
    if not args.own_lock and not tests:
        before = {path: path.read_bytes() for path in service.EDITED if path.exists()}
        service.edit_group(session, "add", name, *lines)
        try:
            venv.poetry(session, "lock", silent=True)
            warn(session, name)
            return
        except CommandFailed as error:
            # What else may fail, such as the network, would fail again, and so does what no version matches.
            if not (found := CONFLICT.search(error.text)) or "doesn't match any versions" in found[0]:
                raise UserError(reason(session, error.text, lines)) from None
            why = f"what it needs does not go with what the others need: {conclusion(found[0])}"
        for path, content in before.items():
            path.write_bytes(content)
    versions = sorted([sys.version_info[:2], tuple(map(int, image_python().split(".")))])
    words = {"name": name, "python": f">={versions[0][0]}.{versions[0][1]},<{versions[-1][0]}.{versions[-1][1] + 1}"}
    words["lines"] = json.dumps(lines, indent=4)
    words["tests"] = f"\n[dependency-groups]\ntests = {json.dumps(tests, indent=4)}\n" if tests else ""
    file = SERVICES / name / "pyproject.toml"
    settings = file.read_text(encoding="utf-8")
    file.write_text(template("pyproject.toml.in", words) + settings, encoding="utf-8")
    try:
        venv.poetry(session, f"--directory=services/{name}", "lock", silent=True)
    except CommandFailed as error:
        told = reason(session, error.text, [*lines, *tests])
        if not tests:
            raise UserError(told) from None
        then = "other versions of what its tests need are tried" if choices[1:] else "what its tests need is left out"
        say(f"warning: {then}, because {told}")
        file.write_text(settings, encoding="utf-8")
        lock(session, args, lines, *choices[1:])
        return
    say(f"services/{name} gets a pyproject.toml and a poetry.lock of its own: {why}")
    warn(session, name)


def reason(session: Session, text: str, wanted: Iterable[str]) -> str:
    """Why Poetry cannot lock requirements, in one line."""
    for one in map(Requirement, wanted):
        if (host := re.search(r"://([^/]+)", one.url or "")) and host[1] in text:
            return f"{one} cannot be fetched: check the address and the network"
    if lost := re.search(r"depends on (\S+) \(.*\) which doesn't match any versions", text):
        return f"no version matches {lost[0].removeprefix('depends on ').partition(' which')[0]}; {with_wheels(session, lost[1])}"
    told = CONFLICT.search(text)
    lines = [line.strip() for line in text.splitlines() if not line.startswith(("Resolving", "Updating"))]
    why = conclusion(told[0]) if told else next(filter(None, lines), "Poetry says nothing")
    return f"the requirements cannot be resolved: {why}"


def conclusion(conflict: str) -> str:
    """What follows in the end from Poetry's explanation, which may have a hundred steps."""
    return " ".join(conflict.split()).rpartition(" So, ")[2]


def warn(session: Session, name: str) -> None:
    """Say which locked packages have no wheel for the Python of the images, where there is no compiler."""
    own = has_own_lock(name)
    path, groups = (SERVICES / name / "poetry.lock", {"main", "tests"}) if own else (service.LOCK, {name})
    for package in toml(path.read_text(encoding="utf-8")).get("package", ()):
        files, marker = [file["file"] for file in package.get("files", ())], package.get("markers")
        here = groups & {*package.get("groups", ())} and applies(Marker(marker) if isinstance(marker, str) else None)
        if here and files and not any(map(fits, files)):
            told = f"warning: {package['name']} {package['version']} has no wheel for Python {image_python()}"
            say(f"{told}; if it needs a compiler, its build will fail; {with_wheels(session, package['name'])}")


def fits(file: str) -> bool:
    """Whether a file of an index is a wheel for the Python of the images."""
    version = [int(part) for part in image_python().split(".")]
    name, places = f"cp{version[0]}{version[1]}", ["linux", "any"]
    known = {*cpython_tags(version, [name], places), *compatible_tags(version, name, places)}
    try:
        tags = parse_wheel_filename(file)[3]
    except InvalidWheelFilename:
        return False
    return any(Tag(one.interpreter, one.abi, re.sub(".*linux.*", "linux", one.platform)) in known for one in tags)


def with_wheels(session: Session, package: str) -> str:
    """Which versions of a package have a wheel for the Python of the images."""
    words = ("pip", "index", "versions", package, "--only-binary=:all:", f"--python-version={image_python()}")
    try:
        told = python(session, "-m", *words)
    except CommandFailed:
        told = ""
    found = told.partition("Available versions: ")[2].partition("\n")[0].split(", ")
    have = f"a wheel for Python {image_python()}"
    return f"versions {found[-1]} to {found[0]} have {have}" if found[0] else f"no version of it has {have}"
