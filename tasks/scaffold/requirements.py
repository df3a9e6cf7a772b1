"""Finds what an existing project says that it needs; a part of adopt.py."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import tomllib
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import nox.project
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .. import venv
from ..env import env, official_base
from ..ownership import temporary_folder
from ..shell import CommandFailed, UserError, output
from ..terminal import say
from .application import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from nox import Session
    from packaging.markers import Marker

    Line = tuple[str, str]  # a requirement as it is written, after its file

FILES = [f"requirements{place}.txt" for place in ("", "/prod", "/production", "/base", "/common", "/main")]
# What a project calls the extra, the group or the file with what its tests need.
TESTS = ("test", "tests", "testing", "dev", "development", "local")
TEST_FILES = [f"requirements{place}{{}}.txt" for place in ("-", "_", "/", ".d/")]
TEST_FILES += ["{}-requirements.txt", "{}.requirements.txt"]
# Asks Poetry for the dependencies of a project that has them in Poetry's own form.
ASK_POETRY = """
import json, pathlib, sys; from poetry.core.factory import Factory
package = Factory().create_poetry(pathlib.Path(sys.argv[1])).package
groups = {name: package.dependency_group(name) for name in package.dependency_group_names()}
print(json.dumps({name: [one.to_pep_508() for one in group.dependencies] for name, group in groups.items()}))
"""
# Asks a project's own build, such as its setup.py, for its metadata.
ASK_BUILD = """
import json, sys; from build.util import project_wheel_metadata
found = project_wheel_metadata(sys.argv[1])
print(json.dumps([f"{found['Name']}=={found['Version']}", *(found.get_all("Requires-Dist") or ())]))
"""


@dataclass(frozen=True)
class Needs:
    """What a project needs, on the Python of the images, and what its tests need besides; its own NAME==VERSION, or ""."""

    main: list[Requirement]
    tests: list[Requirement]
    distribution: str
    left: list[str]  # extras and groups that are not taken


def find_needs(session: Session, source: Path, extras: Iterable[str] = ()) -> Needs:
    """Read what a project needs from its files, with its own extras or groups named; raises UserError, with file and line, for what is no requirement."""
    path, config = source / "pyproject.toml", configparser.ConfigParser(interpolation=None)
    try:
        data = tomllib.loads(text_of(path))
        config.read(source / "setup.cfg", encoding="utf-8")
        groups = {name: [*nox.project.dependency_groups(data, name)] for name in data.get("dependency-groups", {})}
    except (ValueError, LookupError, configparser.Error) as error:
        raise UserError(f"{source}: pyproject.toml or setup.cfg does not parse: {error}") from None
    project, poetry = data.get("project", {}), data.get("tool", {}).get("poetry", {})
    metadata = dict(config["metadata"]) if config.has_section("metadata") else {}
    made, _ = parse_email(text_of(source / "PKG-INFO"))
    # A version that only its build tells is 0: what asks for it finds something.
    names = [f"{table.get('name')}=={table.get('version')}" for table in (project, poetry, metadata, made)]
    names += [f"{table.get('name')}==0" for table in (project, poetry, metadata)]
    distribution = next((name for name in names if re.fullmatch(r"(?!None=)[\w.-]+==v?\d[\w.+!-]*", name)), "")
    for name, lines in project.get("optional-dependencies", {}).items():
        groups[name] = [*groups.get(name, ()), *lines]  # some have an extra and a group of one name
    built = project or "build-system" in data or config.has_section("options") or (source / "setup.py").is_file()
    files = [source / name for name in FILES if (source / name).is_file()]
    main: list[Line] = []
    if "dependencies" in project:
        main = [(str(path), line) for line in project["dependencies"]]
    elif "dependencies" in poetry:
        groups |= ask(session, ASK_POETRY, source, f"{path}: Poetry cannot read it")
        main = [(str(path), line) for line in groups.pop("main")]
    elif files and not (built and {*extras} - groups.keys()):  # such an extra may be in the metadata
        main = [*listed(files[0])]
    elif built:
        distribution, *lines = ask_build(session, source)
        main = [("its metadata", line) for line in lines]
        for line in lines:
            for extra in re.findall(r"extra == ['\"]([^'\"]+)", line):
                groups.setdefault(extra, []).append(line)
    elif not (groups and extras):
        lost = f"no requirements in pyproject.toml, setup.cfg, setup.py or {', '.join(FILES)}: add one of them"
        ways = [f"--extra {name}" for name in groups]
        ways += [f"--from {path.parent}" for name in ("pyproject.toml", FILES[0]) for path in source.glob(f"*/{name}")]
        raise UserError(" or ".join([f"{source}: {lost}", *ways]))
    for extra in extras:
        if extra not in groups:
            raise UserError(f"{source} has no extra or group {extra}; it has {', '.join(groups) or 'none'}")
        main += [(str(path), line) for line in groups[extra]]
    own = canonicalize_name(distribution.partition("==")[0])
    left = [name for name in groups if name not in {*TESTS, *extras}]
    more = for_images(own, tests(source, path, groups), *TESTS)
    return Needs(for_images(own, main, *extras), more, distribution, left)


def tests(source: Path, path: Path, groups: Mapping[str, Iterable[str]]) -> list[Line]:
    """What the tests need: the first extra, group or file with a name for that, and pytest's plugins in the others."""
    found = {kind: [(str(path), line) for line in groups[kind]] for kind in TESTS if kind in groups}
    for kind, name in product(TESTS, TEST_FILES):
        if (file := source / name.format(kind)).is_file():
            try:
                found.setdefault(kind, [*listed(file)])
            except UserError as error:  # no reason to leave the rest
                say(f"warning: {name.format(kind)}, for tests, is left out: {error}")
    first, *others = [*found.values()] or [[]]
    return first + [(place, line) for lines in others for place, line in lines if line.startswith("pytest-")]


def ask_build(session: Session, source: Path) -> list[str]:
    """A project's NAME==VERSION and its requirements, from the metadata that its build makes."""
    with temporary_folder() as folder:  # setuptools writes to the folder that it builds
        shutil.copytree(source, folder / "source", symlinks=True)
        return list(ask(session, ASK_BUILD, folder / "source", f"{source}: its build gives no metadata"))


def ask(session: Session, program: str, source: Path, failure: str) -> Any:
    """Run a program about a folder where Poetry is installed; return what it prints, which is JSON."""
    venv.poetry(session, "--version", "--quiet")  # installs it
    try:
        return json.loads(python(session, "-W", "ignore", "-c", program, str(source)).splitlines()[-1])
    except CommandFailed as error:
        raise UserError(f"{failure}: {error.last}") from None


def python(session: Session, *words: str) -> str:
    """Run Python where Poetry and pip are installed, with the machine's package index; return what it prints."""
    index = env().get("PIP_INDEX_URL")
    return output(venv.python(session), *words, env={"PIP_INDEX_URL": index} if index else {})


def image_python() -> str:
    """The version of Python in the images, such as 3.13."""
    return official_base().partition(":")[2].partition("-")[0]


def applies(marker: Marker | None, *extras: str) -> bool:
    """Whether a marker holds in the images, with one of these extras."""
    version = image_python()
    image = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux"}
    image |= {"platform_system": "Linux", "os_name": "posix"}
    return marker is None or any(marker.evaluate({**image, "extra": extra}) for extra in ("", *extras))


def for_images(own: str, lines: Iterable[Line], *extras: str) -> list[Requirement]:
    """The requirements that images have; raises UserError for what is none."""
    found = [one for one in parse(lines) if canonicalize_name(one.name) != own and applies(one.marker, *extras)]
    for one in found:
        if "extra ==" in str(one.marker):
            one.marker = None
    return [*dict.fromkeys(found)]


def parse(lines: Iterable[Line]) -> list[Requirement]:
    """Parse requirements; raises UserError, with the place, for what is none."""
    found = []
    for place, line in lines:
        try:
            found.append(Requirement(line))
        except InvalidRequirement as error:
            raise UserError(f"{place}: {line!r} is no requirement: {str(error).splitlines()[0]}") from None
    return found


def listed(path: Path) -> Iterator[Line]:
    """The requirements in a file for pip and in those that it includes; no constraints, because Poetry locks versions."""
    kept = ""
    for number, raw in enumerate(text_of(path).splitlines(), 1):
        kept += re.sub(r"(^|\s)#.*", "", raw).strip()
        if kept.endswith("\\"):
            kept = kept[:-1] + " "
            continue
        line, kept = re.split(r"\s--hash", kept)[0].removeprefix("-e ").removeprefix("--editable ").strip(), ""
        option, _, value = re.sub(r"=|(?<=^-r)(?=\w)", " ", line, count=1).partition(" ")
        place, file = f"{path}, line {number}", path.parent / value.strip()
        url, _, egg = line.partition("#egg=")
        if option in {"-r", "--requirement"}:
            if not file.is_file():
                raise UserError(f"{place}: there is no file {value.strip()}")
            yield from listed(file)
        elif line.startswith(("-", ".")):
            say(f"{place}: not taken: {line}")
        elif line:
            yield place, f"{egg} @ {url}" if egg and " @ " not in url else line
