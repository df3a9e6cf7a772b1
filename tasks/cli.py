"""The sessions' command lines: what may follow ``--``."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from . import changes, venv
from .project import SERVICES, choose_services, service_names
from .shell import UserError

FLAVORS = ("prod", "slim", "alpine")
KINDS = ("flask", "fastapi", "worker")
# By session, what optional parts add to its parser.
OPTIONS: dict[str, list[Callable[[argparse.ArgumentParser], object]]] = {"build": [], "dev": [], "new": []}


def parser(session: str, *, services: int | str | None = None) -> argparse.ArgumentParser:
    """A parser whose errors name the session; ``services``: how many names of services it takes, as ``nargs``."""
    options = argparse.ArgumentParser(prog=f"nox -s {session} --", allow_abbrev=False)
    if services:
        options.add_argument("services", nargs=services, metavar="SERVICE", help="default: all" * (services == "*"))
    for add in OPTIONS.get(session, ()):
        add(options)
    return options


def flags(session: str, posargs: Sequence[str], *names: str) -> argparse.Namespace:
    """Options of a session that takes nothing but flags."""
    options = parser(session)
    for name in names:
        options.add_argument(name, action="store_true")
    return options.parse_args(posargs)


def services(session: str, posargs: Sequence[str], *, one: bool = False) -> list[str]:
    """The services that a session takes: all of them where none is named, or just ``one``."""
    return choose_services(parser(session, services=1 if one else "*").parse_args(posargs).services)


def dev(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``dev``: ``services``, ``detach``, and the service to ``debug`` or ``attach`` to."""
    options = parser("dev", services="*")
    options.add_argument("--detach", action="store_true", help="return when every service is healthy")
    options.add_argument("--debug", metavar="SERVICE", default="", help="open a port for an editor's debugger")
    options.add_argument("--attach", metavar="SERVICE", default="", help="give it the terminal, for breakpoint()")
    args = options.parse_args(posargs)
    if args.attach and not sys.stdin.isatty():
        options.error("--attach needs a terminal")
    special = choose_services(list(filter(None, (args.debug, args.attach)))) if args.debug or args.attach else []
    args.services = choose_services([*args.services, *special] if args.services else [])
    return args


def build(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``build``: ``services`` (those that ``--since`` leaves), ``flavor``, and what is done ``then`` with images."""
    options = parser("build", services="*")
    options.add_argument("--flavor", choices=FLAVORS, default="prod", help="default: prod")
    then(options, "--sbom", venv.sbom, "write a software bill of materials to reports/")
    options.add_argument("--since", metavar="REF", help="only services that a change since REF affects")
    args = options.parse_args(posargs)
    args.services = affected(choose_services(args.services), args.since)
    return args


def then(options: argparse.ArgumentParser, flag: str, do: Callable[..., None], what: str) -> None:
    """Add a flag with which ``build`` does something with the images that it has built: ``do(session, images)``."""
    options.add_argument(flag, action="append_const", dest="then", const=do, default=[], help=what)


def sizes(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``sizes``: ``services``, ``flavor`` (a list), ``against``, and the files to write to."""
    options = parser("sizes", services="*")
    options.add_argument("--flavor", choices=FLAVORS, action="append", help="may be repeated; default: prod")
    options.add_argument("--against", metavar="REF", help="show what changed since REF")
    for kind in ("json", "markdown"):
        options.add_argument(f"--{kind}", type=Path, metavar="FILE")
    args = options.parse_args(posargs)
    args.services = choose_services(args.services)
    args.flavor = args.flavor or ["prod"]
    return args


def logs(posargs: Sequence[str], known: Collection[str] = ()) -> list[str]:
    """The services that ``logs`` shows, of ours and of those that Compose has ``known``; none means everything."""
    wanted = parser("logs", services="*").parse_args(posargs).services
    return choose_services(wanted, also=known) if wanted else []


def shell(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``shell``: one of ``services``, or of Compose's others, ``prod``, and a ``command`` (a shell without one)."""
    options = parser("shell", services=1)
    options.add_argument("--prod", action="store_true", help="beside the production container, which has no shell")
    options.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND...").required = False
    args = options.parse_args(posargs)
    if "--prod" in args.command[:1]:
        args.prod = bool(args.command.pop(0))
    return args


def name(session: str, posargs: Sequence[str]) -> str:
    """The one argument of a session that takes a name."""
    options = parser(session)
    options.add_argument("name", metavar="NAME")
    return str(options.parse_args(posargs).name)


def new(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``new``: ``name``, ``kind``, ``like``."""
    options = parser("new")
    options.add_argument("name", metavar="NAME")
    options.add_argument("--kind", choices=KINDS, help="what it is made with; default: flask")
    options.add_argument("--like", metavar="SERVICE", default="", help="a copy of this service")
    args = options.parse_args(posargs)
    if args.kind and (args.like or getattr(args, "source", None)):
        options.error("--kind is for a service from the skeleton, and goes with neither --like nor --from")
    args.kind = args.kind or KINDS[0]
    return args


def lock(posargs: Sequence[str]) -> list[str]:
    """Poetry's command line: ``lock`` where nothing is asked for, in the folder of ``--service``."""
    options = parser("lock")
    options.add_argument("--service", metavar="SERVICE", help="the one whose own lock it is")
    options.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND...", help="Poetry's; default: lock")
    args, rest = options.parse_known_args(posargs)
    command = [*rest, *args.command] or ["lock"]
    # Without --lock, Poetry installs everything.
    command[1:1] = {"--lock"} - {*command} if command[0] in {"add", "remove", "update"} else ()
    files = (SERVICES / (args.service or "")).glob("pyproject.toml")
    if args.service and not any(re.search(r"(?m)^\[(project|tool\.poetry)", path.read_text("utf-8")) for path in files):
        raise UserError(f"there is no [project] in services/{args.service}/pyproject.toml: leave out --service")
    return [f"--directory=services/{args.service}", *command] if args.service else command


def plan(posargs: Sequence[str]) -> str | None:
    """Options of ``plan``: a git ref, None for everything."""
    options = parser("plan")
    options.add_argument("--since", metavar="REF")
    return options.parse_args(posargs).since or None


def test(posargs: Sequence[str], suites: Sequence[str], by_default: Sequence[str]) -> argparse.Namespace:
    """Options of ``test``: ``services`` and ``suites`` to run, ``since``, ``watch``, and ``pytest`` (all the rest).

    The words in front, up to the first that starts with a dash or looks like a path, are names; the rest is pytest's.
    ``suites`` are the test suites that may be named beside services; ``by_default`` are those that run when none is.
    """
    options = parser("test")
    options.usage = f"%(prog)s [SERVICE... | {' | '.join(suites)}] [--since REF] [--watch] [pytest's arguments]"
    options.epilog = "pytest's arguments: services/NAME/tests/test_x.py, -k WORD; -m slow for tests that take minutes"
    options.add_argument("--since", metavar="REF", help="only what a change since REF affects")
    options.add_argument("--watch", action="store_true", help="run services' tests again on every save")
    args, rest = options.parse_known_args(posargs)
    words = list(itertools.takewhile(re.compile(r"(?!-)[\w-]*").fullmatch, rest))
    args.pytest = [word for word in rest[len(words) :] if word != "--"]
    chosen = choose_services(words, also=suites) if words else [*service_names(), *by_default]
    args.services = affected([word for word in chosen if word not in suites], args.since)
    args.suites = [word for word in chosen if word in suites and not args.watch]
    if args.watch and (named := sorted({*words} & {*suites})):
        raise UserError(f"--watch reruns services' tests, and cannot be combined with {named[0]}")
    return args


def update(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``update``: ``url`` and ``ref``, "" where they are not given."""
    options = parser("update")
    options.add_argument("url", nargs="?", metavar="URL|PATH", default="", help="default: the one in tasks/VERSION")
    options.add_argument("ref", nargs="?", metavar="REF", default="", help="a branch, tag or commit; default: HEAD")
    return options.parse_args(posargs)


def affected(names: list[str], since: str | None) -> list[str]:
    """Of these services, those that a change since a git ref affects; all of them without one."""
    touched = changes.services_since(since) if since else names
    return [name for name in names if name in touched]
