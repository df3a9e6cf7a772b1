"""The command lines of the sessions: what may stand behind ``--``."""

from __future__ import annotations

import argparse
import itertools
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from . import changes
from .project import ROOT, choose_services
from .shell import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

FLAVORS = ("prod", "tiny", "slim", "alpine")
# The tests that belong to no service: of tasks/, of the production stack, and, where it still is there, of the template.
HOUSE = {"unit": "tasks/tests docker/dev/tests", "stack": "tests/stack", "template": "template/tests"}


def house() -> list[str]:
    """The parts of HOUSE that this clone has."""
    return [part for part, folder in HOUSE.items() if (ROOT / folder.split()[0]).is_dir()]


def parser(session: str, *, services: int | str | None = None) -> argparse.ArgumentParser:
    """A parser whose errors name the session; ``services`` says how many names of services it takes, as ``nargs`` does."""
    options = argparse.ArgumentParser(prog=f"nox -s {session} --", allow_abbrev=False)
    if services:
        options.add_argument("services", nargs=services, metavar="SERVICE")
    return options


def flags(session: str, posargs: Sequence[str], *names: str) -> argparse.Namespace:
    """Options of a session that takes nothing but flags."""
    options = parser(session)
    for name in names:
        options.add_argument(name, action="store_true")
    return options.parse_args(posargs)


def services(session: str, posargs: Sequence[str], *names: str, one: bool = False) -> argparse.Namespace:
    """Options of a session that takes flags and services: ``services`` is all of them where none is named, or just ``one``."""
    options = parser(session, services=1 if one else "*")
    for name in names:
        options.add_argument(name, action="store_true")
    args = options.parse_args(posargs)
    args.services = choose_services(args.services)
    return args


def dev(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``dev``: ``services``, ``detach``, ``local``, ``network``, and the service to ``debug`` or ``attach`` to."""
    options = parser("dev", services="*")
    options.add_argument("--detach", action="store_true")
    options.add_argument("--local", action="store_true")
    options.add_argument("--network", metavar="NAME", default="")
    options.add_argument("--debug", metavar="SERVICE", default="")
    options.add_argument("--attach", metavar="SERVICE", default="")
    args = options.parse_args(posargs)
    special = [name for name in (args.debug, args.attach) if name]
    if special and args.local:
        options.error("--debug and --attach need containers, and --local has none")
    if args.attach and not sys.stdin.isatty():
        options.error("--attach needs a terminal")
    if special:
        choose_services(special)
    args.services = choose_services([*args.services, *special] if args.services else [])
    return args


def build(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``build``: ``services`` (of those, the ones that ``--since`` leaves), ``flavor``, ``sbom``."""
    options = parser("build", services="*")
    options.add_argument("--flavor", choices=FLAVORS, default="prod")
    options.add_argument("--sbom", action="store_true")
    options.add_argument("--since", metavar="REF")
    args = options.parse_args(posargs)
    args.services = changed(choose_services(args.services), args.since)
    return args


def sizes(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``sizes``: ``services``, ``flavor`` (a list), ``against``, and the files to write the report to."""
    options = parser("sizes", services="*")
    options.add_argument("--flavor", choices=FLAVORS, action="append")
    options.add_argument("--against", metavar="REF")
    for kind in ("json", "markdown", "svg", "html"):
        options.add_argument(f"--{kind}", type=Path, metavar="FILE")
    args = options.parse_args(posargs)
    args.services = choose_services(args.services)
    args.flavor = args.flavor or ["prod"]
    return args


def new(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``new``: ``name``, and ``like`` or ``source``."""
    options = parser("new")
    options.add_argument("name", metavar="NAME")
    way = options.add_mutually_exclusive_group()
    way.add_argument("--like", metavar="SERVICE", default="")
    way.add_argument("--from", dest="source", type=Path, metavar="DIR")
    return options.parse_args(posargs)


def plan(posargs: Sequence[str]) -> list[str]:
    """Options of ``plan``: what there is to test, services and parts of the house, ``--since`` a git ref."""
    options = parser("plan")
    options.add_argument("--since", metavar="REF")
    since = options.parse_args(posargs).since or None
    return [*changed(choose_services([]), since), *concerned(since)]


def rename(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``rename``: ``name``."""
    options = parser("rename")
    options.add_argument("name", metavar="NAME")
    return options.parse_args(posargs)


def test(posargs: Sequence[str]) -> argparse.Namespace:
    """Options of ``test``: ``services`` and ``house`` (what to run), ``local``, ``watch``, and ``pytest`` (all the rest).

    The words in front, up to the first that starts with a dash or looks like a path, are names; the rest is pytest's.
    """
    options = parser("test")
    options.add_argument("--local", action="store_true")
    options.add_argument("--since", metavar="REF")
    options.add_argument("--watch", action="store_true")
    args, rest = options.parse_known_args(posargs)
    words = list(itertools.takewhile(lambda word: not re.search(r"^-|[./:]", word), rest))
    args.pytest = [word for word in rest[len(words) :] if word != "--"]
    # The template's own tests take half an hour, and nobody but its makers needs them: they want to be asked for.
    usual = ["unit"] if args.local else ["unit", "stack"]
    chosen = choose_services(words, also=house()) if words else [*choose_services([]), *usual]
    args.services = changed([name for name in chosen if name not in HOUSE], args.since)
    args.house = [name for name in concerned(args.since) if name in chosen]
    if args.watch:
        args.house = []
        if others := [*set(words).intersection(HOUSE), *(["--local"] if args.local else [])]:
            raise UserError(f"--watch reruns services' tests in their containers, and goes not with {others[0]}")
    return args


def changed(names: list[str], since: str | None) -> list[str]:
    """Of these services, those that differ from a git ref; all of them without one."""
    touched = changes.since(since)[0] if since else names
    return [name for name in names if name in touched]


def concerned(since: str | None) -> list[str]:
    """The parts of the house's tests that a change since a git ref can make fail; all of them without one."""
    if not since:
        return house()
    services, paths = changes.since(since)
    concerns = {
        "unit": any(not path.startswith("services/") for path in paths),
        "stack": bool(services) or any(path.startswith("tests/stack/") for path in paths),
        "template": any(path.startswith((*changes.FOR_ALL, "template/", "services/echo/")) for path in paths),
    }
    return [part for part in house() if concerns[part]]
