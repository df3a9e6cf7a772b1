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
from tasks import cli, ownership, venv
from tasks.env import write_env, write_secrets
from tasks.images import bake, bases
from tasks.lint import lint as run_linters
from tasks.machine import engine
from tasks.project import REPORTS, SERVICES, service_names
from tasks.scaffold import service
from tasks.shell import UserError, interruptible, run_parallel, say
from tasks.sizes import report, weigh
from tasks.stack import debug, ports
from tasks.stack import stack as compose
from tasks.testing import containers, watch

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
            ownership.owner()
            try:
                function(session)
            except UserError as problem:
                session.error(str(problem))

        return nox.session(venv_backend=None if venv else "none")(body)

    return register


@session()
def setup(session: nox.Session) -> None:
    """Make this machine ready: container engine, base images, .env. Does nothing where all is well."""
    cli.flags("setup", session.posargs)
    service_names()
    ready()


def ready(*flavors: str) -> None:
    """What `setup` does; the sessions that need it begin with it, as soon as they have understood their arguments.

    They say which ``flavors`` they are going to ask Compose about.
    """
    with compose.foreseen(*flavors):
        facts = engine.ensure()
        for _, found in run_parallel({"bases": bases.ensure, "stale": ownership.reap}):
            facts |= found or {}
        write_env(facts)
        write_secrets()
    compose.reap()


@session(venv=True)
def dev(session: nox.Session) -> None:
    """Run the stack from source, reloading on change: -- [SERVICE...] [--detach] [--network NAME] [--local] [--debug SERVICE] [--attach SERVICE]"""
    args = cli.dev(session.posargs)
    if args.local:
        venv.install(session, *args.services)
        venv.dev(session, args.services)
        return
    ready("dev")
    wanted = compose.with_neighbours(args.services)
    bake.build(wanted)
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
    args = cli.test(session.posargs)
    codes: dict[str, int] = {}
    in_containers = args.services and not args.local
    if in_containers or "stack" in args.house:
        ready("dev" if in_containers else "prod")
    if args.watch and args.services:
        bake.build(args.services)
        watch.watch(args.services, args.pytest)
    if args.services and args.local:
        venv.install(session, "tests", *args.services)
        codes |= venv.test(session, args.services, args.pytest)
    elif args.services:
        bake.build(args.services)
        codes |= containers.in_containers(args.services, args.pytest)
    for part in args.house:
        venv.install(session, "stack" if part == "stack" else "host")
        with compose.production_stack_removed() if part == "stack" else nullcontext():
            if part == "stack":
                bake.build(service_names(), "prod")
            codes[part] = venv.pytest(session, part, args.pytest)
    containers.check(codes, filtered=bool(args.pytest))


@session(venv=True)
def build(session: nox.Session) -> None:
    """Build production images, and prove them: -- [SERVICE...] [--since REF] [--flavor F] [--sbom]"""
    args = cli.build(session.posargs)
    ready(args.flavor)
    names = bake.build(args.services, args.flavor) if args.services else []
    if args.sbom:
        venv.sbom(session, names)


@session(venv=True)
def sizes(session: nox.Session) -> None:
    """Say what images weigh: -- [SERVICE...] [--flavor F]... [--against REF] [--json|--markdown|--svg|--html FILE]"""
    args = cli.sizes(session.posargs)
    ready(*args.flavor)
    earlier = report.weigh_at(args.against, args.services, args.flavor) if args.against else []
    names = [name for flavor in args.flavor for name in bake.build(args.services, flavor)]
    weighed, references = weigh.weigh_all(names, bake.references())
    report.show(weighed, references, earlier, args)
    venv.picture(session, svg=args.svg, html=args.html)
    report.check_budgets(weighed, earlier)


@session(venv=True)
def lint(session: nox.Session) -> None:
    """Check style, types, Dockerfiles, workflows, schemas and the lock: -- [--fix]"""
    args = cli.flags("lint", session.posargs, "--fix")
    venv.install(session, "host", "lint", "tests", *service_names())
    run_linters(session, fix=args.fix)


@session(venv=True)
def lock(session: nox.Session) -> None:
    """Bring poetry.lock up to date with pyproject.toml, or run another command of Poetry's: -- [add --group echo httpx]"""
    venv.poetry(session, *(session.posargs or ["lock"]))


@session(venv=True)
def new(session: nox.Session) -> None:
    """Make a service: -- NAME [--like SERVICE | --from DIR]"""
    args = cli.new(session.posargs)
    service.check_name(args.name)
    with service.all_or_nothing(SERVICES / args.name):
        if args.source:
            service.adopt(args.name, args.source)
        else:
            service.new(args.name, args.like)
        venv.poetry(session, "lock")
    say(f"services/{args.name} is there: nox -s test -- {args.name}")


@session(venv=True)
def remove(session: nox.Session) -> None:
    """Remove a service to the last line: -- NAME"""
    args = cli.services("remove", session.posargs, one=True)
    (service,) = args.services
    with service.all_or_nothing():
        kept = service.remove(service)
        venv.poetry(session, "lock")
    shutil.rmtree(kept)
    say(f"services/{service} is gone")


@session()
def rename(session: nox.Session) -> None:
    """Make a fresh clone your own project: -- NAME"""
    service.rename(cli.rename(session.posargs).name)


@session()
def shell(session: nox.Session) -> None:
    """Open a shell in a service's container, or beside its production container: -- SERVICE [--prod]"""
    args = cli.services("shell", session.posargs, "--prod", one=True)
    (service,) = args.services
    if code := compose.side_shell(service) if args.prod else compose.shell(service):
        session.error(f"the shell ended with {code}")


@session()
def logs(session: nox.Session) -> None:
    """Follow the stack's log: -- [SERVICE...]"""
    args = cli.services("logs", session.posargs)
    compose.follow(*args.services)


@session()
def down(session: nox.Session) -> None:
    """Stop the development stack; its data stays."""
    cli.flags("down", session.posargs)
    compose.down()


@session()
def clean(session: nox.Session) -> None:
    """Remove everything of this clone: containers, networks, volumes, images, reports; nothing else."""
    cli.flags("clean", session.posargs)
    ownership.clean()
    shutil.rmtree(REPORTS, ignore_errors=True)


@session()
def plan(session: nox.Session) -> None:
    """Tell GitHub Actions what there is to test, for its matrix: -- [--since REF]"""
    line = f"parts={json.dumps(cli.plan(session.posargs))}"
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
