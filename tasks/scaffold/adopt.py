"""Makes a service of an existing project, and changes nothing in its code: `new NAME --from DIR [--app MODULE:NAME] [--own-lock]`.

Optional, with application.py, requirements.py and test_adopt.py: delete these and the line in noxfile.py that names it.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .. import cli, venv
from ..project import ROOT, SERVICES, pyproject
from ..shell import CommandFailed, UserError
from ..terminal import say
from . import service
from .application import JUNK, LEFT, TESTS, find_application, matches
from .requirements import find_distribution, find_requirements, image_python

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from nox import Session

OWN_PYPROJECT = """\
# What services/{name} needs, resolved by itself into the poetry.lock beside this file.
# `nox -s lock -- --service {name}` updates that; a dependency group `tests` would replace the shared test tools.
[project]
name = "{name}"
version = "0"
requires-python = "{python}"  # of the images, and of the machine that locks
dependencies = [
{lines}]

[tool.poetry]
package-mode = false

{settings}"""
# How Poetry tells that requirements exclude each other: two of one package, or some that follow from others.
CONFLICT = re.compile(r"Incompatible constraints (?:.+\n?)*|(?:.+\n)*.*version solving failed")
PYTEST = re.compile(r"^\[tool\.pytest.*?(?=^\[|\Z)", re.MULTILINE | re.DOTALL)
RUFF = """\
# This code was adopted as it is. Without these lines, or with fewer of them, the project's rules hold for it, too.
exclude = ["*"]
"""


def add_options(parser: ArgumentParser) -> None:
    """Add its options to ``new``'s command line."""
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="adopt the project in this folder")
    parser.add_argument(
        "--app", metavar="MODULE:NAME", default="", help="with --from: the application, where it is not found"
    )
    parser.add_argument("--own-lock", action="store_true", help="with --from: resolve what it needs by itself")


def adopt(session: Session, args: Namespace) -> None:
    """Copy the project ``args.source`` to the service ``args.name``, with its tests, data and requirements.

    Raises UserError where no application, several, or no requirements are found.
    """
    if args.like or not args.source:
        raise UserError("--app and --own-lock go with --from DIR, and none of them with --like")
    if not args.source.is_dir():
        raise UserError(f"there is no folder {args.source}")
    source, folder = args.source.resolve(), SERVICES / args.name
    found = find_application(source, args.app)
    wanted = find_requirements(session, source)
    taken, left = copy(source, found.root, folder)
    # Production gets the package alone, or everything where there is more that it may need.
    own = found.module.partition(".")[0] + ("" if (folder / found.module.partition(".")[0]).is_dir() else ".py")
    others = [item for item in taken if item != own and not matches(item, TESTS)]
    if own not in taken:
        raise UserError(f"{own} cannot be adopted: this name is not free in services/{args.name} or in its images")
    if others and (own.endswith(".py") or any((folder / item).is_dir() or item.endswith(".py") for item in others)):
        own = "."
    arguments = {"SERVICE": args.name, "PACKAGE": own, "APPLICATION": f"{found.module}:{found.call}"}
    if distribution := find_distribution(source):
        arguments["DISTRIBUTION"] = json.dumps(distribution)
    service.fill(args.name, arguments | ({"INTERFACE": "asgi"} if found.interface == "asgi" else {}), "compose.yaml.in")
    (folder / "tests").mkdir(exist_ok=True)
    if not (folder / "ruff.toml").exists():
        (folder / "ruff.toml").write_text(RUFF, encoding="utf-8")
    if any(b"instance_" in path.read_bytes() for path in folder.rglob("*.py")):  # Flask's instance_path
        with (folder / "compose.yaml").open("a", encoding="utf-8") as file:
            file.write(f"    volumes:\n      - {args.name}-data:/app/instance\n\nvolumes:\n  {args.name}-data:\n")
    ours = [*service.SERVERS.values(), *pyproject()["dependency-groups"]["tests"]]
    names = {Requirement(line).name for line in ours if isinstance(line, str)}
    lines = [str(one) for one in wanted if canonicalize_name(one.name) not in names]
    lock(session, args, [*lines, service.SERVERS[found.interface]])
    left += [str(one) for one in wanted if str(one) not in lines]
    say(f"{found.module}:{found.call} ({found.interface}), named by {found.said_by}; taken: {', '.join(taken)}")
    say(f"left out: {', '.join(left) or 'nothing'}")


def copy(source: Path, root: Path, folder: Path) -> tuple[list[str], list[str]]:
    """Copy what is in ``root``, and what is beside it in ``source``; return what was taken and what was left out."""
    # Production images have these files in the same place.
    server = {path.name for path in (ROOT / "docker" / "server").iterdir() if path.is_file()}
    folder.mkdir()
    left = []
    for path in [path for place in dict.fromkeys((root, source)) for path in sorted(place.iterdir())]:
        target = folder / path.name
        if path == root or path in root.parents:
            continue
        if matches(path.name, JUNK + LEFT) or path.name in server or target.exists():
            left.append(str(path.relative_to(source)))
        elif path.is_dir():
            shutil.copytree(path, target, symlinks=True, ignore=shutil.ignore_patterns(*JUNK))
        else:
            shutil.copy(path, target, follow_symlinks=False)
    return sorted(path.name for path in folder.iterdir()), left


def lock(session: Session, args: Namespace, lines: list[str]) -> None:
    """Lock a service's requirements with those of all services; by themselves where asked for, and where that fails."""
    why, name = "--own-lock asks for it", args.name
    if not args.own_lock:
        before = {path: path.read_bytes() for path in service.EDITED if path.exists()}
        service.edit_group(session, "add", name, *lines)
        try:
            return venv.poetry(session, "lock", silent=True)
        except CommandFailed as error:
            # What else may fail, such as the network, would fail again.
            if not (found := CONFLICT.search(error.text)):
                raise
            why = f"what it needs does not go with what the others need: {' '.join(found[0].split())}"
        for path, content in before.items():
            path.write_bytes(content)
    versions = sorted([sys.version_info[:2], tuple(map(int, image_python().split(".")))])
    words = {"name": name, "python": f">={versions[0][0]}.{versions[0][1]},<{versions[-1][0]}.{versions[-1][1] + 1}"}
    words["lines"] = "".join(f"    {json.dumps(line)},\n" for line in lines)
    # Their settings for pytest, or none, in place of the root's, which are too strict for code that was written without.
    files = [args.source / file for file in ("pyproject.toml", "pytest.ini", "tox.ini", "setup.cfg")]
    texts = [file.read_text(encoding="utf-8") if file.is_file() else "" for file in files]
    words["settings"] = "".join(PYTEST.findall(texts[0]))
    if "pytest]" not in "".join(texts[1:]):
        words["settings"] = words["settings"] or "[tool.pytest.ini_options]\n"
    (SERVICES / name / "pyproject.toml").write_text(OWN_PYPROJECT.format(**words), encoding="utf-8")
    say(f"services/{name} gets a pyproject.toml and a poetry.lock of its own: {why}")
    return venv.poetry(session, f"--directory=services/{name}", "lock")


cli.OPTIONS["new"].append(add_options)
service.WAYS |= {"source": adopt, "app": adopt, "own_lock": adopt}
