"""Locks what an adopted service needs, and tells what stands in the way; a part of adopt.py."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from nox import Session
from packaging.markers import Marker

from .. import venv
from ..project import SERVICES, has_own_lock, pyproject, toml
from ..shell import CommandFailed, UserError
from ..terminal import say
from . import service
from .environment import COMPILED, template
from .requirements import applies, image_python, python

# How Poetry tells that requirements exclude each other: two of one package, or some that follow from others.
CONFLICT = re.compile(r"Incompatible constraints (?:.+\n?)*|(?:.+\n)*.*version solving failed")


def lock(session: Session, name: str, lines: list[str], choices: list[list[str]], why: str) -> None:
    """Lock a service's requirements, as `solve` does, and say what has no wheel for the Python of the images."""
    solve(session, name, lines, choices, why)
    hint = "; --unpin takes newer versions" * any("==" in line for line in lines)
    for package in without_wheels(name):
        told = f"warning: {package['name']} {package['version']} has no wheel for Python {image_python()}"
        found = range_of(wheels(session, package["name"]))
        say(f"{told}; if it needs a compiler, its build will fail; {found}{hint}")


def solve(session: Session, name: str, lines: list[str], choices: list[list[str]], why: str) -> None:
    """Lock requirements with those of all services; by themselves where ``why`` says so, and where that fails.

    ``choices`` are what tests may be run with then, the best first. Raises UserError where there is no solution.
    """
    if not why:
        service.edit_group(session, "add", name, *lines)
        try:
            venv.poetry(session, "lock", silent=True)
            return
        except CommandFailed as error:
            # What else may fail, such as the network, would fail again, and so does what no version matches.
            if not (found := CONFLICT.search(error.text)) or "doesn't match any versions" in found[0]:
                raise UserError(reason(session, error.text)) from None
            why = f"what it needs does not go with what the others need: {conclusion(found[0])}"
        service.edit_group(session, "remove", name)
    tests, here = choices[0] if choices else [], f'python_version == "{image_python()}"'
    pythons = sorted([sys.version_info[:2], tuple(map(int, image_python().split(".")))])
    words = {"name": name, "python": f">={pythons[0][0]}.{pythons[0][1]},<{pythons[-1][0]}.{pythons[-1][1] + 1}"}
    words["lines"] = json.dumps(lines, indent=4)
    words["tests"] = f"\n[dependency-groups]\ntests = {json.dumps(tests, indent=4)}\n" if tests else ""
    file = SERVICES / name / "pyproject.toml"
    settings = file.read_text(encoding="utf-8")
    file.write_text(template("pyproject.toml.in", words) + settings, encoding="utf-8")
    try:
        venv.poetry(session, f"--directory=services/{name}", "lock", silent=True)
    except CommandFailed as error:
        told = reason(session, error.text)
        file.write_text(settings, encoding="utf-8")
        if "requires Python" in error.text and here not in "".join([*lines, *tests]):
            # Else Poetry looks for versions that this machine's Python could use, too.
            say(f"it is locked for Python {image_python()} alone, because {told}")
            alone = [[f"{line.partition(';')[0].strip()} ; {here}" for line in each] for each in (lines, *choices)]
            solve(session, name, alone[0], alone[1:], why)
        elif tests:
            then = "is tried in other versions" if choices[1:] else "is left out"
            say(f"warning: what its tests need {then}, because {told}")
            solve(session, name, lines, choices[1:], why)
        else:
            raise UserError(told) from None
    else:
        if tests == shared_tools():  # it needs no group of its own
            file.write_text(settings, encoding="utf-8")
            solve(session, name, lines, [], why)
            return
        say(f"services/{name} gets a pyproject.toml and a poetry.lock of its own: {why}")


def shared_tools() -> list[str]:
    """The test tools that all services share."""
    return [line for line in pyproject()["dependency-groups"]["tests"] if isinstance(line, str)]


def reason(session: Session, text: str) -> str:
    """Why Poetry cannot lock requirements, in one line."""
    if lost := re.search(r"depends on (\S+) \(.*\) which doesn't match any versions", text):
        return f"no version matches {lost[0].removeprefix('depends on ').partition(' which')[0]}; {range_of(wheels(session, lost[1]))}"
    told = CONFLICT.search(text)
    lines = [line.strip() for line in text.splitlines() if not line.startswith(("Resolving", "Updating"))]
    why = conclusion(told[0]) if told else next(filter(None, lines), "Poetry says nothing")
    return f"the requirements cannot be resolved: {why}"


def conclusion(conflict: str) -> str:
    """What follows in the end from Poetry's explanation, which may have a hundred steps."""
    return " ".join(conflict.split()).rpartition(" So, ")[2]


def without_wheels(name: str) -> Iterator[Mapping[str, Any]]:
    """What is locked for a service and has no wheel for the Python of the images, besides what `new` knows how to compile."""
    own = has_own_lock(name)
    path, groups = (SERVICES / name / "poetry.lock", {"main", "tests"}) if own else (service.LOCK, {name})
    for package in toml(path.read_text(encoding="utf-8")).get("package", ()):
        files, marker = [file["file"] for file in package.get("files", ())], package.get("markers")
        here = groups & {*package.get("groups", ())} and applies(Marker(marker) if isinstance(marker, str) else None)
        if here and files and not any(map(fits, files)) and package["name"] not in COMPILED:
            yield package


def fits(file: str) -> bool:
    """Whether a file of an index is a wheel for the Python of the images."""
    minor = int(image_python().split(".")[1])
    older = "|".join(f"cp3{number}" for number in range(2, minor + 1))
    tags = rf"[\w.]*py3\d*-none|cp3{minor}-(cp3{minor}|none)|({older})-abi3"
    return re.search(rf"-({tags})-(any|[\w.]*linux[\w.]*)\.whl$", file) is not None


def wheels(session: Session, package: str) -> list[str]:
    """The versions of a package that have a wheel for the Python of the images, the newest first."""
    words = ("pip", "index", "versions", package, "--only-binary=:all:", f"--python-version={image_python()}")
    with suppress(CommandFailed):
        told = python(session, "-m", *words)
        return re.findall(r"[^\s,]+", told.partition("Available versions: ")[2].partition("\n")[0])
    return []


def range_of(versions: list[str]) -> str:
    """Which versions have a wheel."""
    found = f"versions {versions[-1]} to {versions[0]} have" if versions else "no version of it has"
    return f"{found} a wheel for Python {image_python()}"
