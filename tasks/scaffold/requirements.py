"""Finds what an existing project says that it needs; a part of adopt.py."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser, Error
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import nox.project
from nox import Session
from packaging.markers import Marker
from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .. import venv
from ..env import env, official_base
from ..ownership import temporary_folder
from ..shell import CommandFailed, UserError, output
from ..terminal import say
from .application import KNOWN, text_of

Line = tuple[str, str]  # a requirement as it is written, after its file

# What has a project's requirements, and what it calls the extra, the group or the file with what its tests need.
FILES, TESTS, TEST_FILES = (KNOWN["requirements"][name] for name in ("files", "tests", "test_files"))
# Asks Poetry for the dependencies of a project that has them in Poetry's own form.
ASK_POETRY = """
import json, pathlib, sys; from poetry.core.factory import Factory
package = Factory().create_poetry(pathlib.Path(sys.argv[1])).package
print(json.dumps({name: [one.to_pep_508() for one in package.dependency_group(name).dependencies] for name in package.dependency_group_names()}))
"""
# Asks a project's own build, such as its setup.py, for its metadata.
ASK_BUILD = """
import importlib.metadata, json, pathlib, sys, tempfile; from build import ProjectBuilder, env; import pyproject_hooks
with env.DefaultIsolatedEnv() as place, tempfile.TemporaryDirectory() as folder:
    build = ProjectBuilder.from_isolated_env(place, sys.argv[1], pyproject_hooks.quiet_subprocess_runner)
    place.install(build.build_system_requires), place.install(build.get_requires_for_build("wheel"))
    made = importlib.metadata.PathDistribution(pathlib.Path(build.metadata_path(folder)))
    print(json.dumps([made.read_text("entry_points.txt") or "", f"{made.name}=={made.version}", *(made.requires or ())]))
"""


@dataclass(frozen=True)
class Needs:
    """What a project needs, on the Python of the images, and what its tests need besides.

    ``distribution`` is its own NAME==VERSION, and ``entry_points`` the text of its entry_points.txt; "" where it has none.
    """

    main: list[Requirement]
    tests: list[Requirement]
    distribution: str
    entry_points: str
    left: list[str]  # extras and groups that are not taken


def find_needs(session: Session, source: Path, extras: Iterable[str] = ()) -> Needs:
    """Read what a project needs from its files, with its own extras or groups named; raises UserError, with file and line, for what is no requirement."""
    path, config = source / "pyproject.toml", ConfigParser(interpolation=None)
    try:
        data = tomllib.loads(text_of(path))
        config.read(source / "setup.cfg", encoding="utf-8")
        groups = {name: [*nox.project.dependency_groups(data, name)] for name in data.get("dependency-groups", {})}
    except (ValueError, LookupError, Error) as error:
        raise UserError(f"{source}: pyproject.toml or setup.cfg does not parse: {error}") from None
    project, (poetry, uv) = data.get("project", {}), (data.get("tool", {}).get(tool, {}) for tool in ("poetry", "uv"))
    metadata = dict(config["metadata"]) if config.has_section("metadata") else {}
    made, _ = parse_email(text_of(source / "PKG-INFO"))
    # A version that only its build tells is 0: what asks for it finds something.
    names = [f"{table.get('name')}=={table.get('version')}" for table in (project, poetry, metadata, made)]
    names += [f"{table.get('name')}==0" for table in (project, poetry, metadata)]
    distribution = next((name for name in names if re.fullmatch(r"(?!None=)[\w.-]+==v?\d[\w.+!-]*", name)), "")
    points = distribution and entry_points(source, project, poetry, config)
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
        with temporary_folder() as folder:  # setuptools writes to the folder that it builds
            shutil.copytree(source, folder / "source", symlinks=True)
            points, distribution, *lines = ask(session, ASK_BUILD, folder / "source", f"{source}: its build fails")
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
    found = for_images(own, main, *extras)
    if near := [one.name for one in found if re.search("'(path|workspace)'", str(uv.get("sources", {}).get(one.name)))]:
        raise UserError(f"{path}: {', '.join(near)}: in folders beside it ([tool.uv.sources]); see libs/README.md")
    return Needs(found, for_images(own, tests(source, path, groups), *TESTS), distribution, points, left)


def entry_points(source: Path, project: Mapping[str, Any], poetry: Mapping[str, Any], config: ConfigParser) -> str:
    """The entry_points.txt of a project, from its tables in pyproject.toml and setup.cfg, or else as setuptools made it."""
    scripts = {"console_scripts": own} if (own := project.get("scripts", poetry.get("scripts"))) else {}
    found = dict(config["options.entry_points"]) if config.has_section("options.entry_points") else {}
    for group, table in (scripts | poetry.get("plugins", {}) | project.get("entry-points", {})).items():
        found[group] = "".join(f"{name} = {value}\n" for name, value in table.items() if isinstance(value, str))
    texts = [f"[{group}]\n{text.strip()}\n" for group, text in found.items() if text]
    made = [*source.glob("*.egg-info/entry_points.txt"), *source.glob("src/*.egg-info/entry_points.txt")]
    return "".join(texts or map(text_of, made))


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


def names(requirements: Iterable[str]) -> set[str]:
    """The names of the packages that are asked for, as indexes spell them."""
    return {canonicalize_name(Requirement(line).name) for line in requirements}


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
    """The requirements that images have; raises UserError, with the place, for what is none."""
    found: dict[Requirement, None] = {}
    for place, line in lines:
        try:
            one = Requirement(line)
        except InvalidRequirement as error:
            raise UserError(f"{place}: {line!r} is no requirement: {str(error).splitlines()[0]}") from None
        if canonicalize_name(one.name) != own and applies(one.marker, *extras):
            one.marker = None if "extra ==" in str(one.marker) else one.marker
            found[one] = None
    return [*found]


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
            name = egg or "".join(re.findall(r"^git\+.*/([\w.-]+?)(?:\.git)?(?:@[^/]*)?$", url))
            yield place, f"{name} @ {url}" if name and " @ " not in url else line
