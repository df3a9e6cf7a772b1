"""Finds what an existing project says that it needs; a part of adopt.py."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Collection, Iterable, Mapping
from configparser import ConfigParser, Error
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nox.project
from nox import Session
from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .. import venv
from ..env import chosen_by_user, env, official_base
from ..shell import CommandFailed, UserError, output
from ..terminal import say
from .environment import KNOWN, text_of

# What has a project's requirements, and what it calls the extra, the group or the file with what its tests need.
FILES, LOCKS, LINTERS, SETTINGS, TESTS, TEST_FILES = KNOWN["requirements"].values()
# How a file for pip names the project beside it, and its extras.
ITSELF = re.compile(r"^(?:-e\s*|--editable[\s=]+)?\.(?:\[(.*)\])?\s*$", re.MULTILINE)
# Asks Poetry for the dependencies of a project that has them in Poetry's own form, and for the Pythons that it allows.
POETRY = """import json, pathlib, sys; from poetry.core.factory import Factory
package = Factory().create_poetry(pathlib.Path(sys.argv[1])).package
groups = {name: [one.to_pep_508() for one in package.dependency_group(name).dependencies] for name in package.dependency_group_names()}
print(json.dumps([groups, ["==" * it[0].isdigit() + it for it in str(package.python_constraint).split(" || ")]]))"""
# Asks it for those in a Pipfile, where a commit and a URL have other names, and for the Python there.
PIPENV = """import json, pathlib, sys, tomllib; from poetry.core.factory import Factory
file = tomllib.loads(pathlib.Path(sys.argv[1], "Pipfile").read_text(encoding="utf-8"))
told = lambda one: {{"ref": "rev", "file": "url"}.get(key, key): value for key, value in one.items()} if isinstance(one, dict) else one
needs = lambda table: [Factory.create_dependency(name, told(one)).to_pep_508() for name, one in file.get(table, {}).items()]
print(json.dumps([{"main": needs("packages"), "dev": needs("dev-packages")}, [f"=={file['requires']['python_version']}.*" if "python_version" in file.get("requires", {}) else ""]]))"""
# Asks a project's own build, such as its setup.py, for its metadata.
BUILD = """import importlib.metadata, json, pathlib, shutil, sys, tempfile; from build import ProjectBuilder, env
with env.DefaultIsolatedEnv() as place, tempfile.TemporaryDirectory() as folder:
    # setuptools writes to the folder that it builds.
    build = ProjectBuilder.from_isolated_env(place, shutil.copytree(sys.argv[1], f"{folder}/source", symlinks=True))
    place.install(build.build_system_requires), place.install(build.get_requires_for_build("wheel"))
    made = importlib.metadata.PathDistribution(pathlib.Path(build.metadata_path(folder)))
    print(json.dumps([made.read_text("entry_points.txt") or "", f"{made.name}=={made.version}", *(made.requires or ())]))"""


class Needs(NamedTuple):
    """What a project needs, on the Python of the images, and what its tests need besides.

    ``distribution`` is its own NAME==VERSION, and ``entry_points`` the text of its entry_points.txt; "" where it has none.
    """

    main: list[Requirement]
    tests: list[Requirement]
    distribution: str
    entry_points: str
    left: list[str]  # extras and groups that are not taken
    settings: dict[str, Any]  # for pytest
    pins: Collection[tuple[str, str]]  # the packages and versions that constraints name


def find_needs(session: Session, source: Path, extras: Iterable[str] = (), *roots: Path) -> Needs:
    """Read what a project needs from its files, with its own extras or groups named, and its settings for pytest, also those in ``roots``; raises UserError, with file and line, for what is no requirement."""
    path = source / "pyproject.toml"
    data, setup, groups = read_settings(source, *roots)
    project, poetry, uv = data.get("project", {}), *(data.get("tool", {}).get(tool, {}) for tool in ("poetry", "uv"))
    table = {**setup["metadata"], **poetry, **project}
    # A version that only its build tells is 0: what asks for it finds something.
    versions = [f"{table.get('name', '')}=={version}" for version in (table.get("version"), "0")]
    distribution = next((name for name in versions if re.fullmatch(r"[\w.-]+==v?\d[\w.+!-]*", name)), "")
    points = distribution and own_entry_points(table, setup["options.entry_points"])
    files = [source / name for name in FILES if (source / name).is_file()]
    built = project or "build-system" in data or setup.has_section("options") or (source / "setup.py").is_file()
    main, limits = list[Requirement](), list[Requirement]()
    pythons = [project.get("requires-python") or setup.get("options", "python_requires", fallback="")]
    # What pip-compile or uv has written is as good as a lock.
    compiled = files and "autogenerated by" in text_of(files[0]) and not any((source / name).exists() for name in LOCKS)
    pipenv = "" if files or built else "".join(map(str, source.glob("Pipfile")))
    if "dependencies" in poetry or "group" in poetry or pipenv:
        theirs, pythons = ask(session, PIPENV if pipenv else POETRY, source, f"{pipenv or path}: Poetry cannot read it")
        groups |= theirs
        main = parse(path, groups.pop("main", ()))
    elif "dependencies" in project and not compiled and (project["dependencies"] or not files):
        main = parse(path, project["dependencies"])
    elif files or built:
        missing = {*extras} - groups.keys()  # they may be in the metadata
        itself = ITSELF.findall(text_of(files[0])) if files and built else []
        main = listed(files[0], limits) if files and not (built and missing) else []
        if built and (not files or missing or itself or "entry_points" in text_of(source / "setup.py")):
            instead = ["", distribution] if files else []
            points, distribution, *lines = ask(session, BUILD, source, f"{source}: its build fails", instead)
            for extra, line in [(it, one) for one in lines for it in re.findall(r"extra == ['\"]([^'\"]+)", one)]:
                groups.setdefault(extra, []).append(line)
            if itself or not main:
                names = {canonicalize_name(one.name) for one in main}
                main += [one for one in parse("its metadata", lines) if canonicalize_name(one.name) not in names]
            extras = [*extras, *re.findall(r"[\w-]+", ",".join(itself))]
    elif not (groups and extras):
        ways = [f"no requirements in pyproject.toml, setup.cfg, setup.py, Pipfile or {', '.join(FILES)}: add one"]
        ways += [f"--extra {name}" for name in groups]
        ways += [f"--from {path.parent}" for name in ("pyproject.toml", FILES[0]) for path in source.glob(f"*/{name}")]
        raise UserError(f"{source}: {' or '.join(ways)}")
    if not any(it.specifier.contains(f"{image_python()}.99") for it in parse(path, [f"python{it}" for it in pythons])):
        say(f"warning: it asks for Python {' or '.join(pythons)}, images have {image_python()}: see docs/adopting.md")
    own = canonicalize_name(distribution.partition("==")[0])
    asked = [*extras]
    for extra in asked:
        if extra not in groups:
            raise UserError(f"{source} has no extra or group {extra}; it has {', '.join(groups) or 'none'}")
        main += parse(path, groups[extra])
        # One may consist of others of the project.
        asked += sorted({name for one in main if canonicalize_name(one.name) == own for name in one.extras} - {*asked})
    found = for_images(own, main, *asked)
    # An index may have something else under such a name, and no image has this machine's folders.
    others = {canonicalize_name(name) for name, at in uv.get("sources", {}).items() if "'index'" not in str(at)}
    if near := [it.name for it in found if ("file:" in it.url if it.url else canonicalize_name(it.name) in others)]:
        raise UserError(f"{source}: {', '.join(near)}: in folders beside it, or at URLs ([tool.uv.sources])")
    limited = {canonicalize_name(one.name): one.specifier for one in limits if applies(one.marker)}
    for one in [one for one in found if not one.url and canonicalize_name(one.name) in limited]:
        one.specifier &= limited[canonicalize_name(one.name)]
    pins = {(name, str(limit)[2:]) for name, limit in limited.items() if re.fullmatch(r"==[\w.]+", str(limit))}
    needed, left = for_images(own, tests(source, path, groups), *TESTS), groups.keys() - {*TESTS, *asked}
    return Needs(found, needed, distribution, points, sorted(left), pytest_settings(data, setup), pins)


def read_settings(source: Path, *roots: Path) -> tuple[dict[str, Any], ConfigParser, dict[str, list[str]]]:
    """What a project's pyproject.toml and its files like setup.cfg, also in ``roots``, say, and the requirements in groups and extras."""
    setup = ConfigParser(interpolation=None, strict=False)
    setup.read_dict({"metadata": {}, "options.entry_points": {}, "pytest": {}, "tool:pytest": {}})
    try:
        data = tomllib.loads(text_of(source / "pyproject.toml"))
        setup.read([place / name for place in (source, *roots) for name in SETTINGS], "utf-8-sig")
        groups = {name: [*nox.project.dependency_groups(data, name)] for name in data.get("dependency-groups", {})}
    except (ValueError, LookupError, Error) as error:
        told = f"{source}: pyproject.toml, setup.cfg, tox.ini or pytest.ini does not parse: {error}"
        raise UserError(told.replace("\n", " ")) from None
    found, tool = [*data.get("project", {}).get("optional-dependencies", {}).items()], data.get("tool", {})
    # As older versions of uv and PDM have it.
    older = {"dev": tool.get("uv", {}).get("dev-dependencies", ())} | tool.get("pdm", {}).get("dev-dependencies", {})
    for name, one in tool.get("hatch", {}).get("envs", {}).items():
        found.append((name.removeprefix("hatch-"), [*one.get("dependencies", ()), *one.get("extra-dependencies", ())]))
    for name, lines in [one for one in [*found, *older.items()] if one[1]]:
        # Some have an extra and a group of one name; Hatch's may have its own variables, and PDM's the project itself.
        groups[name] = [*groups.get(name, ()), *(line for line in lines if not re.search("{|^-e", line))]
    return data, setup, groups


def pytest_settings(data: Mapping[str, Any], setup: ConfigParser) -> dict[str, Any]:
    """A project's own settings for pytest, from the first of its files that has some, without coverage, which is ours."""
    table = data.get("tool", {}).get("pytest", {})
    settings = dict[str, Any](setup["pytest"]) or table.get("ini_options", table) or dict(setup["tool:pytest"])
    text = words if isinstance(words := settings.get("addopts", ""), str) else shlex.join(words)
    # Options of pytest-cov, with the word after them that may be theirs, colors, which would be in the reason of a failed
    # build, and folders, which may be elsewhere here.
    kept = re.sub(r"--cov\b[\w-]*(?:=\S+|\s+(?!-)\S+)?|--color[=\s]\S+|(?<!\S)[\w./]+/(?=\s|$)", "", text)
    return settings | ({"addopts": shlex.split(kept)} if text else {})


def own_entry_points(table: Mapping[str, Any], setuptools: Mapping[str, str]) -> str:
    """The entry_points.txt of a project, from its tables in pyproject.toml and setup.cfg."""
    tables = {"console_scripts": table.get("scripts"), **table.get("plugins", {}), **table.get("entry-points", {})}
    texts = dict(setuptools)
    for group, values in [(group, values) for group, values in tables.items() if values]:
        texts[group] = "\n".join(f"{key} = {value}" for key, value in values.items() if isinstance(value, str))
    return "".join(f"[{group}]\n{text.strip()}\n" for group, text in texts.items() if text)


def tests(source: Path, path: Path, groups: Mapping[str, Iterable[str]]) -> list[Requirement]:
    """What the tests need: the first extra, group or file with a name for that, and pytest's plugins in the others."""
    found = [parse(path, groups[kind]) for kind in TESTS if kind in groups]
    for file in [file for kind in TESTS for name in TEST_FILES if (file := source / name.format(kind)).is_file()]:
        try:
            found.append(listed(file, []))
        except UserError as error:  # no reason to leave the rest
            say(f"warning: {file.name}, for tests, is left out: {error}")
    first, *others = [*filter(None, found)] or [[]]
    return first + [one for more in others for one in more if one.name.startswith("pytest-")]


def by_name(lines: Iterable[str]) -> dict[str, str]:
    """Requirements by the names of their packages, as indexes spell these; of two for one package, the later."""
    return {canonicalize_name(Requirement(line).name): line for line in lines}


def ask(session: Session, program: str, source: Path, failure: str, instead: Any = None) -> Any:
    """Run a program about a folder where Poetry is installed; return what it prints, which is JSON, or ``instead`` with a warning where it fails."""
    venv.poetry(session, "--version", "--quiet")  # installs it
    try:
        return json.loads(output(venv.python(session), "-Wi", "-c", program, str(source), env=env()).splitlines()[-1])
    except CommandFailed as error:
        # What comes last is about the build, not what failed in it; and the line before a list says nothing.
        why = [error.last, *re.findall(r"(?m)^\w+Error: .+[^:]$", error.text)][-1]
        if not instead:
            raise UserError(f"{failure}: {why}") from None
        say(f"warning: {failure}: {why}")
        return instead


@cache
def image_python() -> str:
    """The version of Python in the images, such as 3.13: as the base image's tag has it, else as its Python says."""
    base = chosen_by_user().get("STACK_BASE") or official_base()
    # In front of the tag may be a registry with its port.
    told = base if re.search(r":\d+\.\d", base) else output("docker", "run", "--rm", base, "python3", "-V")
    return str(re.findall(r"[: ](\d+\.\d+)", told)[0])


def applies(marker: Marker | str | Mapping[str, str] | None, *extras: str) -> bool:
    """Whether a marker holds in the images, with one of these extras; one for each group, as in a lock, counts as one that does."""
    image = {"python_version": image_python(), "python_full_version": f"{image_python()}.0", **KNOWN["linux"]}
    places = [image | {"extra": extra} for extra in ("", *extras)]
    return not isinstance(marker, Marker | str) or any(map(Marker(str(marker)).evaluate, places))


def for_images(own: str, requirements: Iterable[Requirement], *extras: str) -> list[Requirement]:
    """The requirements that images have, each once, without the project's ``own`` name."""
    found = [one for one in requirements if canonicalize_name(one.name) != own and applies(one.marker, *extras)]
    for one in found:
        one.marker = None if "extra ==" in str(one.marker) else one.marker
        # Else it needs a libpq of the system's, or a compiler.
        one.extras = one.extras - {"c"} | {"binary"} if one.name == "psycopg" else one.extras
    return [*dict.fromkeys(found)]


def parse(place: object, lines: Iterable[str]) -> list[Requirement]:
    """The requirements in some lines; raises UserError, with the place, for what is none."""
    try:
        return [Requirement(line := text) for text in lines]
    except InvalidRequirement as error:
        raise UserError(f"{place}: {line!r} is no requirement: {str(error).splitlines()[0]}") from None


def listed(path: Path, limits: list[Requirement], *above: Path) -> list[Requirement]:
    """The requirements in a file for pip, which those ``above`` include, and in those that it includes; adds constraints to ``limits``."""
    text, found = "\n".join(text_of(path).splitlines()), list[Requirement]()
    for raw in re.finditer(r"(?:.*\\\n)*.+", text):  # a line, and those that it continues on
        place = f"{path}, line {len(text[: raw.start()].splitlines()) + 1}"
        line = re.sub(r"\\\n|(^|\s)(#|--hash).*|^(-e|--editable)[\s=]", " ", raw[0]).strip()
        # A name behind it, and perhaps subdirectory=NAME; else git's own name for it.
        line = re.sub(r"^(\S+)#egg=([^&]+)&?(.*)", r"\2 @ \1#\3", line).rstrip("#")
        line = re.sub(r"^git\+\w+://[^/]+/[^@]*?([\w.-]+?)(?:\.git)?(?:@.*)?$", r"\1 @ \g<0>", line)
        if include := re.match(r"(?:-r|--requirement|(-c|--constraint))[\s=]*+(?!\w+://)(.+)", line):
            file = (path.parent / include[2]).resolve()
            if not file.is_file() or file in {path, *above}:
                raise UserError(f"{place}: there is no file {include[2]}, or it includes this one")
            (limits if include[1] else found).extend(listed(file, limits, path, *above))
        elif line.startswith(("-", ".")) and not ITSELF.match(line):
            say(f"{place}: not taken: {line}")
        elif line and not ITSELF.match(line):
            found += parse(place, [line])
    return found
