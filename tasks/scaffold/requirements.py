"""Finds what an existing project says that it needs; a part of adopt.py."""

from __future__ import annotations

import configparser
import re
import tomllib
from typing import TYPE_CHECKING

from nox.command import CommandFailed
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from ..env import official_base
from ..shell import UserError
from ..terminal import say
from . import service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox import Session

FILES = [f"requirements{place}.txt" for place in ("", "/prod", "/production", "/base", "/main")]
# Asks Poetry for the dependencies of a project that has them in Poetry's own form.
ASK_POETRY = """
import pathlib, sys; from poetry.core.factory import Factory
for found in Factory().create_poetry(pathlib.Path(sys.argv[1])).package.requires: print(found.to_pep_508())
"""


def find_requirements(session: Session, source: Path) -> list[Requirement]:
    """What a project needs on the Python of the images; raises UserError, with file and line, for what is no requirement."""
    wanted: list[Requirement] = []
    for place, line in written(session, source):
        try:
            wanted.append(Requirement(line))
        except InvalidRequirement as error:
            raise UserError(f"{place}: {line!r} is no requirement: {str(error).splitlines()[0]}") from None
    version = image_python()
    image = {"python_version": version, "python_full_version": f"{version}.0", "sys_platform": "linux", "extra": ""}
    names = [canonicalize_name(one.name) for one in wanted]
    # Poetry takes several requirements of one package only where no Python can want two of them: here just one is left.
    for one in [one for one in wanted if one.marker and names.count(canonicalize_name(one.name)) > 1]:
        if one.marker and one.marker.evaluate(image):
            one.marker = None
        else:
            wanted.remove(one)
    return [one for one in wanted if "extra ==" not in str(one.marker)]


def image_python() -> str:
    """The version of Python in the images, such as 3.13."""
    return official_base().partition(":")[2].partition("-")[0]


def find_distribution(source: Path) -> str:
    """A project's own name and version, as NAME==VERSION; "" where they are not written down, or computed."""
    path, config = source / "pyproject.toml", configparser.ConfigParser(interpolation=None)
    data = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    config.read(source / "setup.cfg", encoding="utf-8")
    metadata = dict(config["metadata"]) if config.has_section("metadata") else {}
    for table in (data.get("project", {}), data.get("tool", {}).get("poetry", {}), metadata):
        line = f"{table.get('name')}=={table.get('version')}"
        if re.fullmatch(r"[\w.-]+==v?\d[\w.+!-]*", line):
            return line
    return ""


def written(session: Session, source: Path) -> Iterator[tuple[str, str]]:
    """The requirements as they are written, each after its file, from the first place that has some."""
    path, config = source / "pyproject.toml", configparser.ConfigParser(interpolation=None)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        config.read(source / "setup.cfg", encoding="utf-8")
    except (ValueError, configparser.Error) as error:
        raise UserError(f"{source}: pyproject.toml or setup.cfg does not parse: {error}") from None
    files = [source / name for name in FILES if (source / name).is_file()]
    if "dependencies" in data.get("project", {}):
        yield from ((str(path), line) for line in data["project"]["dependencies"])
    elif "dependencies" in data.get("tool", {}).get("poetry", {}):
        try:
            answer = service.python(session, "-c", ASK_POETRY, str(source))
        except CommandFailed:
            raise UserError(f"{path}: Poetry cannot read it; its own words stand above") from None
        yield from ((str(path), line) for line in answer.splitlines())
    elif config.has_option("options", "install_requires"):
        yield from (("setup.cfg", line) for line in config["options"]["install_requires"].splitlines() if line)
    elif files:
        yield from listed(files[0])
    elif groups := data.get("dependency-groups", {}):
        chosen = next((group for group in ("main", "prod", "production", "default") if group in groups), "")
        if not chosen:
            raise UserError(
                f"{path}: which of the groups {', '.join(groups)} does the application need? Copy it to [project]"
            )
        yield from ((str(path), line) for line in groups[chosen])
    else:
        raise UserError(
            f"{source}: no requirements in pyproject.toml, setup.cfg or {', '.join(FILES)}: add one of them"
        )


def listed(path: Path) -> Iterator[tuple[str, str]]:
    """The requirements in a file for pip and in those that it includes, each after its file and line."""
    kept = ""
    for number, raw in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        kept += re.sub(r"(^|\s)#.*", "", raw).strip()
        if kept.endswith("\\"):
            kept = kept[:-1] + " "
            continue
        line, kept = re.split(r"\s--hash", kept)[0].removeprefix("-e ").strip(), ""
        option, _, value = line.replace("=", " ", 1).partition(" ")
        place = f"{path}, line {number}"
        url, _, egg = line.partition("#egg=")
        if option in {"-r", "--requirement"}:
            if not (path.parent / value.strip()).is_file():
                raise UserError(f"{place}: there is no file {value.strip()}")
            yield from listed(path.parent / value.strip())
        elif line.startswith(("-", ".")):
            say(f"{place}: not taken: {line}")
        elif line:
            yield place, f"{egg} @ {url}" if egg and " @ " not in url else line
