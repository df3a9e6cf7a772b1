# /// script
# dependencies = ["nox>=2025.2.9"]
# ///
"""All nox sessions; the implementation is in tasks/. `nox -l` lists them, `nox -s SESSION -- --help` explains one."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (this line is for those who have an older one)
    sys.exit("Python 3.11 or newer is needed on the host, and this is {}.{}".format(*sys.version_info))

import shutil

import nox

sys.path.insert(0, str(Path(__file__).parent))  # nox does not
from tasks import cli, ownership
from tasks.images import bake
from tasks.lint import lint as run_linters
from tasks.project import REPORTS, choose_services, service_names
from tasks.scaffold import rename as scaffold_rename, service, update as scaffold_update
from tasks.session import ready, session
from tasks.sizes import report, weigh
from tasks.stack import debug, lifecycle
from tasks.stack.model import development
from tasks.terminal import say
from tasks.testing import containers, host, watch

# Optional parts: to delete one, delete its files and its line here.
import tasks.machine.debian  # setup installs the engine, and builds base images from docker/bases without a registry
import tasks.machine.podman  # Podman in Docker's place
import tasks.scaffold.adopt  # new -- --from
import tasks.stack.network  # dev -- --network
import tasks.release  # publish
import tasks.deploy  # deploy what was published
import tasks.audit  # audit
import template.sessions  # template only

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv" if shutil.which("uv") else "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["test", "lint"]


@session()
def setup(session: nox.Session) -> None:
    """Make this machine ready: container engine, base images, .env. Does nothing where all is well."""
    cli.flags("setup", session.posargs)
    choose_services([])
    ready(choose_ports=True)


@session()
def dev(session: nox.Session) -> None:
    """Run the stack from source, reloading on change: -- [SERVICE...] [--detach] [--debug SERVICE] [--attach SERVICE]"""
    args = cli.dev(session.posargs)
    ready(choose_ports=True)
    stack = development(attached=not args.detach)
    bake.build(stack.with_neighbours(args.services))
    stack = debug.with_debugger(stack, args.debug, args.attach)
    # Without names, all that Compose has, as plain `docker compose up` starts it: what no service depends on, too.
    processes = [] if args.services == service_names() else stack.processes(args.services)
    with lifecycle.running(stack, processes, args, keep=args.detach):
        if args.attach:
            debug.attach_terminal(stack, args.attach)
        elif args.detach:
            lifecycle.wait(stack)
            lifecycle.urls(stack)
        else:
            lifecycle.follow(stack)


@session(venv=True)
def test(session: nox.Session) -> None:
    """Run all tests: -- [SERVICE... | unit | stack] [--since REF] [--watch] [pytest's arguments]"""
    args = cli.test(host.with_names(session.posargs), host.suites(), host.suites(by_default=True))
    if args.services or "stack" in args.suites or "slow" in args.pytest:
        ready()
    if args.services:
        bake.build(args.services)
        if args.watch:
            watch.watch(args.services, args.pytest)
    suites = [suite for suite in host.affected(args.since) if suite in args.suites]
    suites = suites if session.posargs else host.due(suites)
    containers.check(host.test(session, args.services, suites, args.pytest), filtered=bool(args.pytest))


@session(venv=True)
def build(session: nox.Session) -> None:
    """Build production images and verify them: -- [SERVICE...] [--since REF] [--flavor F] [--sbom]"""
    args = cli.build(session.posargs)
    ready()
    images = bake.build(args.services, args.flavor)
    for do in args.then:
        do(session, images)


@session()
def sizes(session: nox.Session) -> None:
    """Show what images weigh: -- [SERVICE...] [--flavor F]... [--against REF] [--json|--markdown FILE]"""
    args = cli.sizes(session.posargs)
    ready()
    before = report.weigh_at(args.against, args.services, args.flavor) if args.against else []
    images = weigh.weigh([name for flavor in args.flavor for name in bake.build(args.services, flavor)])
    report.show(images, before, args)
    report.check_budgets(images, before or [])


@session(venv=True)
def lint(session: nox.Session) -> None:
    """Check style, types, Dockerfiles, workflows, schemas and the lock: -- [--fix]"""
    args = cli.flags("lint", session.posargs, "--fix")
    run_linters(session, fix=args.fix)


@session(venv=True)
def lock(session: nox.Session) -> None:
    """Update poetry.lock to pyproject.toml, or run another command of Poetry's: -- [--service NAME] [add --lock --group SERVICE PACKAGE]"""
    service.lock(session, *cli.lock(session.posargs))


@session(venv=True)
def new(session: nox.Session) -> None:
    """Make a service: -- NAME [--kind flask|fastapi|worker | --like SERVICE | --from DIR [--app MODULE:NAME] [--unpin] [--own-lock]]"""
    args = cli.new(session.posargs)
    with service.all_or_nothing(args.name):
        service.new(session, args)
    say(f"services/{args.name} is there: nox -s test -- {args.name}")


@session(venv=True)
def remove(session: nox.Session) -> None:
    """Remove a service to the last line: -- NAME"""
    (name,) = cli.services("remove", session.posargs, one=True)
    with service.all_or_nothing(name):
        service.remove(session, name)
    say(f"services/{name} is gone")


@session()
def rename(session: nox.Session) -> None:
    """Make a fresh clone your own project: -- NAME"""
    scaffold_rename.rename(cli.name("rename", session.posargs))


@session()
def update(session: nox.Session) -> None:
    """Merge the template's newer tooling into your project: -- [URL|PATH] [REF]"""
    scaffold_update.update(cli.update(session.posargs))


@session()
def shell(session: nox.Session) -> None:
    """Run a shell or a command in a service's container, or beside its production container: -- SERVICE [--prod] [COMMAND...]"""
    args = cli.shell(session.posargs)
    ready()
    (process,) = choose_services(args.services, also=development().model["services"])
    if not args.prod:
        bake.build(development().built([process]))
    begin = lifecycle.production_shell if args.prod else lifecycle.shell
    if code := begin(process, args.command or ["sh"]):
        session.error(f"it ended with {code}")


@session()
def logs(session: nox.Session) -> None:
    """Follow the stack's log: -- [SERVICE...]"""
    stack = development()
    lifecycle.follow(stack, *stack.processes(cli.logs(session.posargs, stack.model["services"])))


@session()
def down(session: nox.Session) -> None:
    """Stop the development stack; its data stays."""
    cli.flags("down", session.posargs)
    lifecycle.down(development())


@session()
def clean(session: nox.Session) -> None:
    """Remove everything of this clone: containers, networks, volumes, images, reports; nothing else."""
    cli.flags("clean", session.posargs)
    ownership.clean()
    shutil.rmtree(REPORTS, ignore_errors=True)


@session()
def plan(session: nox.Session) -> None:
    """Print what there is to test, as GitHub Actions reads it for a matrix: -- [--since REF]"""
    since = cli.plan(session.posargs)
    host.write_plan([*cli.affected(service_names(), since), *host.affected(since)])
