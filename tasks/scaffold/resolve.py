"""Locks what an adopted service needs, and tells what stands in the way; a part of adopt.py."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Set
from pathlib import Path

from nox import Session
from packaging.utils import canonicalize_name
from packaging.version import Version

from .. import venv
from ..env import env
from ..project import SERVICES, has_own_lock, pyproject
from ..shell import CommandFailed, UserError, ask
from ..terminal import say
from . import service
from .environment import KNOWN, template
from .requirements import applies, image_python

Versions = Set[tuple[str, str]]  # names and versions of packages

# How Poetry tells that requirements exclude each other: two of one package, or some that follow from others.
CONFLICT = re.compile(r"Incompatible constraints (?:.+\n?)*|(?:.+\n)*.*version solving failed")
# A package in a poetry.lock, as far as Poetry needs it to take that version if it can.
PACKAGE = '{{name = "{}", version = "{}", optional = false, python-versions = "*", files = []}}'


def lock(session: Session, name: str, lines: list[str], choices: list[list[str]], why: str, kept: Versions) -> None:
    """Lock a service's requirements: by themselves where ``why`` says so, and where the others have other versions.

    ``choices`` are what tests may be run with then, the best first, and ``kept`` is what the project's own lock has. Raises
    UserError where there is no solution.
    """
    file, own = SERVICES / name / "pyproject.toml", SERVICES / name / "poetry.lock"
    settings, shared = file.read_text(encoding="utf-8"), versions(service.LOCK)
    if failed := attempt(session, name, settings, kept or shared, lines, []):
        raise UserError(failed)
    production = versions(own)
    if why or (theirs := different(shared, production)):
        locked = production | {one for one in kept or shared if one[0] not in dict(production)}
        for tests in [*choices, ["pytest", "pytest-cov"], []]:
            if not (failed := attempt(session, name, settings, locked, lines, tests)) and production <= versions(own):
                break
            then = "is tried in other versions" if tests in choices[:-1] else "is left out"
            say(f"warning: what its tests need {then}, because {failed or 'production would get other versions'}")
        say(f"services/{name} gets a pyproject.toml and a poetry.lock of its own: {why or f'the others have {theirs}'}")
        if moved := different(production, kept):
            say(f"warning: other versions than in the project's own lock: {moved}")
    else:
        file.write_text(settings, encoding="utf-8")
        own.unlink(missing_ok=True)
        service.edit_group(session, "add", name, *lines)
        venv.poetry(session, "lock", silent=True)
    if lacking := ", ".join(" ".join(one) + wheels(session, *one) for one in without_wheels(name)):
        say(f"warning: no wheel for Python {image_python()}: {lacking}; see docs/adopting.md, or --unpin for pins")


def attempt(session: Session, name: str, settings: str, kept: Versions, lines: list[str], tests: list[str]) -> str:
    """Lock requirements, and what tests need, in a service's folder, at the versions ``kept`` if these go and have wheels; return why that fails, or ""."""
    words = {"name": name, "python": pyproject()["project"]["requires-python"], "lines": json.dumps(lines, indent=4)}
    words["tests"] = f"\n[dependency-groups]\ntests = {json.dumps(tests, indent=4)}\n" if tests else ""
    text, here = template("pyproject.toml.in", words) + settings, f'python_version == "{image_python()}"'
    (SERVICES / name / "pyproject.toml").write_text(text, encoding="utf-8")
    words["packages"] = ", ".join(PACKAGE.format(*one) for one in sorted(kept))
    (SERVICES / name / "poetry.lock").write_text(template("poetry.lock.in", words), encoding="utf-8")
    try:
        venv.poetry(session, f"--directory=services/{name}", "lock", silent=True)
    except CommandFailed as error:
        added = tests or lines
        if "requires Python" in error.text and here not in "".join(added):
            # Else Poetry looks for versions that this machine's Python could use, too.
            say(f"it is locked for Python {image_python()} alone, because {reason(error.text)}")
            added[:] = [f"{line.partition(';')[0].strip()} ; {here}" for line in added]
            return attempt(session, name, settings, kept, lines, tests)
        return reason(error.text)
    # Nobody has asked for these versions, and no image could have them; nor for those that need others at such versions, or,
    # if these are not kept, what they need besides: an old typing-extensions goes with an old Pydantic.
    lacking = {package for package, _ in without_wheels(name)}
    packages = pyproject(str(SERVICES / name / "poetry.lock")).get("package", ())
    holding = {one["name"] for one in packages if lacking & one.get("dependencies", {}).keys()}
    beside = {name for one in packages if one["name"] in holding for name in one.get("dependencies", ())}
    if given_up := dict(kept).keys() & lacking or dict(kept).keys() & holding or dict(kept).keys() & beside:
        return attempt(session, name, settings, {one for one in kept if one[0] not in given_up}, lines, tests)
    return ""


def versions(lock: Path) -> set[tuple[str, str]]:
    """The names and versions of the packages in a lock, Poetry's or another, that images have; none where there is no such file."""
    packages = pyproject(str(lock)).get("package", ()) if lock.is_file() else ()
    packages = [one for one in packages if applies(one.get("markers"))]
    # One like 2.3+cpu is in an index of its own, and one's own package may have none.
    return {(canonicalize_name(one["name"]), one["version"]) for one in packages if "+" not in one.get("version", "+")}


def different(first: Versions, second: Versions) -> str:
    """The packages of the ``first`` that the ``second`` has in other versions."""
    return ", ".join(" ".join(one) for one in sorted(first - second) if one[0] in dict(second))


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
    own = (SERVICES / name / "poetry.lock", {"main", "tests"})
    path, groups = own if has_own_lock(name) else (service.LOCK, {name})
    for package in pyproject(str(path)).get("package", ()):
        files = [file["file"] for file in package.get("files", ())]
        here = groups & {*package.get("groups", ())} and applies(package.get("markers"))
        if here and files and not any(map(fits, files)) and package["name"] not in KNOWN["compiled"]:
            yield package["name"], package["version"]


def wheels(session: Session, package: str, version: str) -> str:
    """Which later versions of a package have a wheel for the Python of the images, as far as the index tells."""
    words = ("-m", "pip", "index", "versions", package, "--only-binary=:all:", f"--python-version={image_python()}")
    listed = ask(venv.python(session), *words, env=env()).communicate()[0].partition("Available versions: ")[2]
    later = [each for each in re.findall(r"[^\s,]+", listed.partition("\n")[0]) if Version(each) > Version(version)]
    return f" ({later[-1]} to {later[0]} have one)" if later else " (no later version has one)" * bool(listed)


def fits(file: str) -> bool:
    """Whether a file of an index is a wheel for the Python of the images."""
    now = int(image_python().split(".")[1])
    older = "|".join(f"cp3{number}" for number in range(2, now + 1))
    return bool(re.search(rf"-(\S*py3\d*-none|cp3{now}-(cp3{now}|none)|({older})-abi3)-(any|\S*linux\S*)\.whl$", file))
