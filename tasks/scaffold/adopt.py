"""Makes a service of an existing project, and changes nothing in its code: `new NAME --from DIR [--app MODULE:NAME]`.

Optional, with application.py, requirements.py and test_adopt.py: delete these and the line in noxfile.py that names it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .. import cli
from ..project import ROOT, SERVICES, pyproject
from ..shell import UserError
from ..terminal import say
from . import service
from .application import JUNK, LEFT, TESTS, find_application, matches
from .requirements import find_requirements

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from nox import Session


def add_options(parser: ArgumentParser) -> None:
    """Add its options to ``new``'s command line."""
    parser.add_argument("--from", dest="source", type=Path, metavar="DIR", help="adopt the project in this folder")
    parser.add_argument(
        "--app", metavar="MODULE:NAME", default="", help="with --from: the application, where it is not found"
    )


def adopt(session: Session, args: Namespace) -> None:
    """Copy the project ``args.source`` to the service ``args.name``, with its tests, data and requirements.

    Raises UserError where no application, several, or no requirements are found.
    """
    if args.like or not args.source:
        raise UserError("--app goes with --from DIR, and neither of them with --like")
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
    service.fill(args.name, arguments | ({"INTERFACE": "asgi"} if found.interface == "asgi" else {}), "compose.yaml.in")
    (folder / "tests").mkdir(exist_ok=True)
    if any(b"instance_" in path.read_bytes() for path in folder.rglob("*.py")):  # Flask's instance_path
        with (folder / "compose.yaml").open("a", encoding="utf-8") as file:
            file.write(f"    volumes:\n      - {args.name}-data:/app/instance\n\nvolumes:\n  {args.name}-data:\n")
    ours = [*service.SERVERS.values(), *pyproject()["dependency-groups"]["tests"]]
    names = {Requirement(line).name for line in ours if isinstance(line, str)}
    lines = [str(one) for one in wanted if canonicalize_name(one.name) not in names]
    service.edit_group(session, "add", args.name, *lines, service.SERVERS[found.interface])
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


cli.OPTIONS["new"].append(add_options)
service.WAYS |= {"source": adopt, "app": adopt}
