"""A stack's life: up, waiting until it is healthy, logs, a shell, and a `down` that always cleans up."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from threading import Thread

from .. import ownership
from ..env import env
from ..machine import engine
from ..project import REPORTS, ROOT, clone_id
from ..shell import CommandFailed, UserError, answer, ask, output, run, start, step, stop
from ..terminal import say
from .model import COMPOSE, Container, Stack, development, production

READY_TIMEOUT_S = 120
POLL_S = 0.2
RUN = (*COMPOSE, "--progress=quiet", "run", "--rm", "--no-deps")  # begins a command in a container by itself
# Colours of what runs in containers, and what Compose 2.25 and 2.26 begin each line of a log with (issue 11727 of Compose).
ESCAPES = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
LAST_LINES = 30  # of its log, shown of a service that has failed
# What optional parts do when a stack has come up, with the session's arguments, and gone down.
ON_UP: list[Callable[[Stack, argparse.Namespace], None]] = []
ON_DOWN: list[Callable[[], None]] = []


def up(stack: Stack, services: Sequence[str] = ()) -> None:
    """Create and start a stack, or some Compose services, in the background; raises UserError when Docker cannot."""
    engine.current().check_health_checks()
    # Without --no-build: Compose builds images that are missing, those of other Dockerfiles than docker/Dockerfile.
    options = ("up", "--detach", "--remove-orphans", "--quiet-pull", *services)
    title = f"starting {', '.join(services) or 'the stack'}"
    try:
        step(title, *COMPOSE, "--progress=plain", *options, log=REPORTS / f"logs/up-{stack.flavor}.log", env=stack.env)
    except CommandFailed as failed:
        if any(container.failed for container in stack.containers()):
            wait(stack)  # names it; of others, such as one whose port is taken, Compose knows more
        raise UserError(f"the stack did not start: {failed.last}") from None


def wait(stack: Stack, *, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Wait until every container is ready.

    Raises UserError, after the last lines of the service that is in the way, when one has failed or takes too long.
    """
    until = time.monotonic() + timeout_s
    while True:
        found = stack.containers()
        late = [container for container in found if not container.ready]
        if not found:
            raise UserError("nothing is running any more: another session has stopped the stack")
        if not late:
            return
        if bad := [c for c in found if c.failed] or (late if time.monotonic() > until else []):
            said = log(stack, bad[0].service)
            asked = [line for line in said if "/healthz" in line]  # all but the last would push out why
            shown = [line for line in said if "/healthz" not in line][-LAST_LINES:] + asked[-1:]
            say("\n".join(shown + last_of_health_check(bad[0])))
            raise UserError(f"{bad[0].service} {bad[0]}; its last lines stand above, all of it is in {keep_log(stack)}")
        time.sleep(POLL_S)


def last_of_health_check(container: Container) -> list[str]:
    """The last line that a container's health check has printed, which is in no log; [] without one."""
    form = "{{range .State.Health.Log}}{{println .Output}}{{end}}"
    printed = output("docker", "inspect", "--format", form, container.id) if container.health else ""
    return [f"health check: {line}" for line in printed.splitlines() if line.strip()][-1:]


def log(stack: Stack, *options: str) -> list[str]:
    """The lines of a stack's log; ``options`` are those of ``docker compose logs``, services among them."""
    return ESCAPES.sub("", stack.compose("logs", "--no-color", *options)).splitlines()


def keep_log(stack: Stack) -> Path:
    """Write a stack's whole log to reports/, and return the path, relative to the clone's root."""
    path = REPORTS / "logs" / f"stack-{'development' if stack.flavor == 'dev' else 'production'}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*log(stack, "--timestamps"), ""]), encoding="utf-8")
    return path.relative_to(ROOT)


def urls(stack: Stack) -> None:
    """Print where each service is on this machine."""
    for container in stack.containers():
        if container.port:
            say(f"{container.service}  {container.address}")


def follow(stack: Stack, *services: str) -> None:
    """Show the log on this terminal until the stack ends; print the URLs as soon as all services are ready.

    Raises UserError when there is no stack, and when a container has ended with an error; a service that runs and is not
    ready can be mended while it does.
    """
    if not stack.containers():
        raise UserError("nothing is running: `nox -s dev` starts it")
    colour, pipe = ((), None) if sys.stdout.isatty() else (("--no-color",), PIPE)
    command = (*COMPOSE, "logs", "--follow", *colour, *services)
    with start(*command, env=stack.env, stdin=DEVNULL, stdout=pipe) as logs:
        reader = Thread(target=forward if pipe else Popen.wait, args=[logs], daemon=True)
        reader.start()
        try:
            try:
                wait(stack)
            except UserError as error:
                if any(not found.ready and found.state != "running" for found in stack.containers()):
                    raise
                say(str(error))
            urls(stack)
            logs.wait()
        finally:
            logs.kill()  # it has nothing to clean up, and in its first moments Docker's client can miss an interrupt
            reader.join(POLL_S)


def forward(logs: Popen[str]) -> None:
    """Show a log that goes through a pipe, and end its command where nobody reads any more."""
    with suppress(BrokenPipeError):
        for line in logs.stdout or ():
            say(ESCAPES.sub("", line.rstrip("\n")))
    stop(logs)


@contextmanager
def running(stack: Stack, services: Sequence[str], args: argparse.Namespace, *, keep: bool) -> Iterator[None]:
    """Run a stack for as long as the block runs; with ``keep`` it stays up, unless the block fails.

    A stack that runs already stays as it is if the block fails, and always if another session's `dev` has started it.
    ``args`` are the session's, for optional parts.
    """
    # With another label, a container would be replaced: what runs already keeps the session that it has.
    before = [container.session for container in stack.containers() if container.state == "running"]
    if stay := bool({*before} - {"", ownership.session_id()}):
        say("another session runs this stack: it goes on when this one ends")
    try:
        up(replace(stack, settings={**stack.settings, ownership.SESSION: max(before)}) if before else stack, services)
        for join in ON_UP:
            join(stack, args)
        yield
        stay = stay or keep
    except UserError as error:
        stay = bool(before)
        raise UserError(str(error) + "; the stack, which ran before, goes on" * stay) from None
    finally:
        if not stay:
            down(stack)


def down(stack: Stack) -> None:
    """Stop a stack and remove its containers and networks; its data stays. Raises UserError if that fails."""
    command = (*COMPOSE, "--progress=plain", "down", "--remove-orphans")
    step("stopping the stack", *command, log=REPORTS / f"logs/down-{stack.flavor}.log", env=stack.env)
    remove_unused_networks()
    for remove in ON_DOWN:
        remove()


def remove_unused_networks(label: str = "") -> None:
    """Remove networks that no container uses: this clone's, such as those of tests without a stack, or with a ``label``."""
    used = ask("docker", "ps", "--all", "--format", "{{.Networks}}")
    wanted = f"--filter=label={label or f'com.docker.compose.project={clone_id()}'}"
    ours = output("docker", "network", "ls", wanted, "--format", "{{.Name}}").splitlines()
    for network in set(ours) - {*re.split("[,\\n]", answer(used))}:
        with suppress(CommandFailed):  # another session has begun to use it, or removed it
            output("docker", "network", "rm", network)


def remove_tested_stacks() -> None:
    """Remove the containers, networks and volumes of the stacks that this session has tested."""
    ownership.remove_own()
    wanted = f"--filter=name=^{ownership.project_of_tests(ownership.session_id())}[-_]"  # 12 is no part of 123
    listed = {kind: ask("docker", kind, "ls", "--quiet", wanted) for kind in ("network", "volume")}
    for removal in [ask("docker", kind, "rm", *left) for kind, it in listed.items() if (left := answer(it).split())]:
        answer(removal)


def shell(service: str, command: Sequence[str] = ("sh",)) -> int:
    """Run a command, a shell if none is given, in a service's running container or else a new one; return its exit code."""
    stack = development(attached=True)  # its label is the session's, by which an interrupt finds the container
    terminal = [] if sys.stdin.isatty() else ["--no-TTY"]
    if any(c.service == service and c.state == "running" for c in stack.containers()):
        return run(*COMPOSE, "exec", *terminal, service, *command, env=stack.env)
    try:
        return run(*RUN, *terminal, service, *command, env=stack.env)
    finally:
        ownership.remove_own()
        remove_unused_networks()


def production_shell(service: str, command: Sequence[str] = ("sh",)) -> int:
    """Run a command, a shell if none is given, beside a service's production container, which has none; return its exit code.

    It runs in a container of its own, from the base image, that shares the other's processes and network; it starts in
    the other's files.
    """
    beside = production().container(service).id
    if output("docker", "inspect", "--format", "{{.Config.Image}}", beside).strip().endswith(":dev"):
        raise UserError(f"{service} runs from source here, not from its production image: leave out --prod")
    terminal = ["--tty"] if sys.stdin.isatty() else []
    shared = [f"--pid=container:{beside}", f"--network=container:{beside}", "--cap-add=SYS_PTRACE"]
    inside = (env()["STACK_BASE"], "sh", "-c", 'cd /proc/1/root; [ ! -d app ] || cd app; exec "$@"', "-", *command)
    return run("docker", "run", "--rm", "--interactive", *terminal, *ownership.labels(), *shared, *inside)
