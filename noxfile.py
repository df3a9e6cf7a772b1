# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""The front door: every session of the yard. `nox -l` lists them; what stands behind is in tasks/."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (this line is for those who have an older one)
    sys.exit("Python 3.11 or newer is needed on the host, and this is {}.{}".format(*sys.version_info))

import functools
import json
import os
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING

import nox

sys.path.insert(0, str(Path(__file__).parent))  # nox does not
from tasks import cli as options
from tasks import lint as checks
from tasks import ownership as leftovers
from tasks import services
from tasks import venv as host
from tasks.images import bake as images
from tasks.images import bases
from tasks.machine import engine
from tasks.project import REPORTS, write_env, write_secrets
from tasks.scaffold import service as scaffold
from tasks.shell import Problem, interruptible, say, together
from tasks.sizes import report
from tasks.sizes import weigh as weight
from tasks.stack import debug, ports
from tasks.stack import stack as compose
from tasks.testing import containers as testing
from tasks.testing import watch as watching

if TYPE_CHECKING:
    from collections.abc import Callable

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["test", "lint"]


def session(*, venv: bool = False) -> Callable[[Callable[[nox.Session], None]], object]:
    """A nox session that tells a user's mistake in one line; with ``venv`` it has a virtual environment of its own."""

    def register(function: Callable[[nox.Session], None]) -> object:
        @functools.wraps(function)
        def body(session: nox.Session) -> None:
            interruptible()
            leftovers.owner()
            try:
                function(session)
            except Problem as problem:
                session.error(str(problem))

        return nox.session(venv_backend=None if venv else "none")(body)

    return register


@session()
def setup(session: nox.Session) -> None:
    """Make this machine ready: container engine, base images, .env. Does nothing where all is well."""
    options.flags("setup", session.posargs)
    services.names()
    ready()


def ready(*flavors: str) -> None:
    """What `setup` does; the sessions that need it begin with it, as soon as they have understood their arguments.

    They say which ``flavors`` they are going to ask Compose about.
    """
    with compose.foreseen(*flavors):
        facts = engine.ensure()
        for _, found in together({"bases": bases.ensure, "leftovers": leftovers.reap}):
            facts |= found or {}
        write_env(facts)
        write_secrets()
    compose.reap()


@session(venv=True)
def dev(session: nox.Session) -> None:
    """Run the stack from source, reloading on change: -- [SERVICE...] [--detach] [--network NAME] [--local] [--debug SERVICE] [--attach SERVICE]"""
    args = options.dev(session.posargs)
    if args.local:
        host.install(session, *args.services)
        host.dev(session, args.services)
        return
    ready("dev")
    wanted = compose.with_neighbours(args.services)
    images.build(wanted)
    settings = ports.free(wanted) | debug.settings(args.debug, args.attach)
    with compose.running(args.services, settings, keep=args.detach):
        compose.join(args.network)
        if args.attach:
            debug.attach(args.attach)
        elif args.detach:
            compose.wait()
            compose.urls()
        else:
            compose.follow()


@session(venv=True)
def test(session: nox.Session) -> None:
    """Run all tests: -- [SERVICE... | unit | stack] [--since REF] [--local | --watch] [pytest's arguments]"""
    args = options.test(session.posargs)
    codes: dict[str, int] = {}
    in_containers = args.services and not args.local
    if in_containers or "stack" in args.house:
        ready("dev" if in_containers else "prod")
    if args.watch and args.services:
        images.build(args.services)
        watching.watch(args.services, args.pytest)
    if args.services and args.local:
        host.install(session, "tests", *args.services)
        codes |= host.test(session, args.services, args.pytest)
    elif args.services:
        images.build(args.services)
        codes |= testing.in_containers(args.services, args.pytest)
    for part in args.house:
        host.install(session, "stack" if part == "stack" else "host")
        with compose.stack_gone_afterwards() if part == "stack" else nullcontext():
            if part == "stack":
                images.build(services.names(), "prod")
            codes[part] = host.pytest(session, part, args.pytest)
    testing.check(codes, filtered=bool(args.pytest))


@session(venv=True)
def build(session: nox.Session) -> None:
    """Build production images, and prove them: -- [SERVICE...] [--since REF] [--flavor F] [--sbom]"""
    args = options.build(session.posargs)
    ready(args.flavor)
    names = images.build(args.services, args.flavor) if args.services else []
    if args.sbom:
        host.sbom(session, names)


@session(venv=True)
def sizes(session: nox.Session) -> None:
    """Say what images weigh: -- [SERVICE...] [--flavor F]... [--against REF] [--json|--markdown|--svg|--html FILE]"""
    args = options.sizes(session.posargs)
    ready(*args.flavor)
    earlier = report.weigh_at(args.against, args.services, args.flavor) if args.against else []
    names = [name for flavor in args.flavor for name in images.build(args.services, flavor)]
    weighed, references = weight.weigh_all(names, images.references())
    report.show(weighed, references, earlier, args)
    host.picture(session, svg=args.svg, html=args.html)
    report.check_budgets(weighed, earlier)


@session(venv=True)
def lint(session: nox.Session) -> None:
    """Check style, types, Dockerfiles, workflows, schemas and the lock: -- [--fix]"""
    args = options.flags("lint", session.posargs, "--fix")
    host.install(session, "host", "lint", "tests", *services.names())
    checks.lint(session, fix=args.fix)


@session(venv=True)
def lock(session: nox.Session) -> None:
    """Bring poetry.lock up to date with pyproject.toml, or run another command of Poetry's: -- [add --group echo httpx]"""
    host.poetry(session, *(session.posargs or ["lock"]))


@session(venv=True)
def new(session: nox.Session) -> None:
    """Make a service: -- NAME [--like SERVICE | --from DIR]"""
    args = options.new(session.posargs)
    scaffold.check_name(args.name)
    with scaffold.all_or_nothing(services.SERVICES / args.name):
        if args.source:
            scaffold.adopt(args.name, args.source)
        else:
            scaffold.new(args.name, args.like)
        host.poetry(session, "lock")
    say(f"services/{args.name} is there: nox -s test -- {args.name}")


@session(venv=True)
def remove(session: nox.Session) -> None:
    """Remove a service to the last line: -- NAME"""
    args = options.services("remove", session.posargs, one=True)
    (service,) = args.services
    with scaffold.all_or_nothing():
        kept = scaffold.remove(service)
        host.poetry(session, "lock")
    shutil.rmtree(kept)
    say(f"services/{service} is gone")


@session()
def rename(session: nox.Session) -> None:
    """Make a fresh clone your own project: -- NAME"""
    scaffold.rename(options.rename(session.posargs).name)


@session()
def shell(session: nox.Session) -> None:
    """Open a shell in a service's container, or beside its production container: -- SERVICE [--prod]"""
    args = options.services("shell", session.posargs, "--prod", one=True)
    (service,) = args.services
    if code := compose.side_shell(service) if args.prod else compose.shell(service):
        session.error(f"the shell ended with {code}")


@session()
def logs(session: nox.Session) -> None:
    """Follow the stack's log: -- [SERVICE...]"""
    args = options.services("logs", session.posargs)
    compose.follow(*args.services)


@session()
def down(session: nox.Session) -> None:
    """Stop the development stack; its data stays."""
    options.flags("down", session.posargs)
    compose.down()


@session()
def clean(session: nox.Session) -> None:
    """Remove everything of this clone: containers, networks, volumes, images, reports; nothing else."""
    options.flags("clean", session.posargs)
    leftovers.clean()
    shutil.rmtree(REPORTS, ignore_errors=True)


@session()
def plan(session: nox.Session) -> None:
    """Tell GitHub Actions what there is to test, for its matrix: -- [--since REF]"""
    line = f"parts={json.dumps(options.plan(session.posargs))}"
    say(line)
    if target := os.environ.get("GITHUB_OUTPUT"):
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@session()
def gate(session: nox.Session) -> None:
    """Fail unless every job of a workflow went well: -- RESULT..."""
    if bad := sorted(set(session.posargs) - {"success", "skipped"}):
        session.error(f"not every job went well: {', '.join(bad)}")


if (Path(__file__).parent / "template").is_dir():
    from template.sessions import register

    register(session, ready)
