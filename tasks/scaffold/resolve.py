"""Locks what an adopted service needs, and tells what stands in the way; a part of adopt.py."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

from nox import Session
from packaging.version import Version

from .. import venv
from ..env import env
from ..project import SERVICES, has_own_lock, pyproject, toml
from ..shell import CommandFailed, UserError, output
from ..terminal import say
from . import service
from .environment import COMPILED, template
from .requirements import applies, by_name, image_python

# How Poetry tells that requirements exclude each other: two of one package, or some that follow from others.
CONFLICT = re.compile(r"Incompatible constraints (?:.+\n?)*|(?:.+\n)*.*version solving failed")


def lock(session: Session, name: str, lines: list[str], choices: list[list[str]], why: str) -> None:
    """Lock a service's requirements with those of all services; by themselves where ``why`` says so, and where that fails.

    ``choices`` are what tests may be run with then, the best first. Raises UserError where there is no solution.
    """
    if why := why or conflict(session, name, lines):
        lock_alone(session, name, lines, choices)
        say(f"services/{name} gets a pyproject.toml and a poetry.lock of its own: {why}")
    pinned = by_name(line for line in lines if "==" in line.partition(";")[0])
    lacking = []
    for package, version in without_wheels(name):
        lacking.append(f"{package} {version}" + (wheels(session, package, version) if package in pinned else ""))
    if lacking:
        told = f"warning: without a wheel for Python {image_python()}: {', '.join(lacking)}"
        say(f"{told}; what needs a compiler does not build: see docs/adopting.md, and --unpin for what is pinned")


def conflict(session: Session, name: str, lines: list[str]) -> str:
    """Lock a service's requirements with those of all services; return why they exclude each other, or ""."""
    service.edit_group(session, "add", name, *lines)
    try:
        venv.poetry(session, "lock", silent=True)
    except CommandFailed as error:
        # What else may fail, such as the network, would fail again, and so does what no version matches.
        if not (found := CONFLICT.search(error.text)) or "doesn't match any versions" in found[0]:
            raise UserError(reason(error.text)) from None
        service.edit_group(session, "remove", name)
        return f"what it needs does not go with what the others need: {conclusion(found[0])}"
    return ""


def lock_alone(session: Session, name: str, lines: list[str], choices: list[list[str]]) -> None:
    """Lock a service's requirements by themselves, with the first of ``choices`` that goes with them, else with none."""
    file, here = SERVICES / name / "pyproject.toml", f'python_version == "{image_python()}"'
    settings = file.read_text(encoding="utf-8")
    low, high = sorted([sys.version_info[1], int(image_python().split(".")[1])])
    left = [*choices, []]
    while left:
        tests = left.pop(0)
        words = {"name": name, "python": f">=3.{low},<3.{high + 1}", "lines": json.dumps(lines, indent=4)}
        words["tests"] = f"\n[dependency-groups]\ntests = {json.dumps(tests, indent=4)}\n" if tests else ""
        file.write_text(template("pyproject.toml.in", words) + settings, encoding="utf-8")
        try:
            venv.poetry(session, f"--directory=services/{name}", "lock", silent=True)
        except CommandFailed as error:
            if "requires Python" in error.text and here not in "".join([*lines, *tests]):
                # Else Poetry looks for versions that this machine's Python could use, too.
                say(f"it is locked for Python {image_python()} alone, because {reason(error.text)}")
                lists = (lines, tests, *left)
                lines, *left = ([f"{line.partition(';')[0].strip()} ; {here}" for line in each] for each in lists)
            elif tests:
                then = "is tried in other versions" if left[1:] else "is left out"
                say(f"warning: what its tests need {then}, because {reason(error.text)}")
            else:
                raise UserError(reason(error.text)) from None
        else:
            left = [[]] if tests == shared_tools() else []  # these need no group of its own


def shared_tools() -> list[str]:
    """The test tools that all services share."""
    return [line for line in pyproject()["dependency-groups"]["tests"] if isinstance(line, str)]


def reason(text: str) -> str:
    """Why Poetry cannot lock requirements, in one line."""
    lines = [line.strip() for line in text.splitlines() if not line.startswith(("Resolving", "Updating"))]
    told = [conclusion(conflict[0]) for conflict in CONFLICT.finditer(text)] or [*filter(None, lines)]
    return f"the requirements cannot be resolved: {[*told, 'Poetry says nothing'][0]}"


def conclusion(conflict: str) -> str:
    """What follows in the end from Poetry's explanation, which may have a hundred steps; after one cause alone, the step before."""
    before, _, last = " ".join(conflict.split()).rpartition(" So, ")
    return last + f": {before.rpartition('. ')[2].rstrip('.')}" * (" and " not in last and before != "")


def without_wheels(name: str) -> Iterator[tuple[str, str]]:
    """Name and version of what is locked for a service and has no wheel for the Python of the images, besides what `new` knows how to compile."""
    own = has_own_lock(name)
    path, groups = (SERVICES / name / "poetry.lock", {"main", "tests"}) if own else (service.LOCK, {name})
    for package in toml(path.read_text(encoding="utf-8")).get("package", ()):
        files, marker = [file["file"] for file in package.get("files", ())], package.get("markers")
        here = groups & {*package.get("groups", ())} and applies(marker if isinstance(marker, str) else None)
        if here and files and not any(map(fits, files)) and package["name"] not in COMPILED:
            yield package["name"], package["version"]


def wheels(session: Session, package: str, version: str) -> str:
    """Which later versions of a package have a wheel for the Python of the images, as far as the index tells."""
    words = ("-m", "pip", "index", "versions", package, "--only-binary=:all:", f"--python-version={image_python()}")
    try:
        listed = output(venv.python(session), *words, env=env()).partition("Available versions: ")[2]
    except CommandFailed:
        return ""
    later = [each for each in re.findall(r"[^\s,]+", listed.partition("\n")[0]) if Version(each) > Version(version)]
    return f" ({later[-1]} to {later[0]} have one)" if later else " (no later version has one)"


def fits(file: str) -> bool:
    """Whether a file of an index is a wheel for the Python of the images."""
    minor = int(image_python().split(".")[1])
    older = "|".join(f"cp3{number}" for number in range(2, minor + 1))
    tags = rf"[\w.]*py3\d*-none|cp3{minor}-(cp3{minor}|none)|({older})-abi3"
    return re.search(rf"-({tags})-(any|[\w.]*linux[\w.]*)\.whl$", file) is not None
