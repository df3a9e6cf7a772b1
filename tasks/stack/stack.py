"""The stack: its model, its ports, up, waiting until it is healthy, logs, and a `down` that always cleans up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import ownership
from ..env import env, official_base
from ..machine import podman
from ..project import REPORTS, ROOT, clone_id, name, service_names
from ..shell import CommandFailed, UserError, answer, ask, output, run, say, start, stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

COMPOSE = ("docker", "compose")
# How many lines of its log are shown of a service that has failed.
LAST_LINES = 30
# The port for debuggers, inside containers, as docker/dev/live.py has it.
DEBUGGER = 5678
# By settings, the questions for the stack's model that were asked ahead.
FORESEEN: dict[tuple[tuple[str, str], ...], subprocess.Popen[str]] = {}
# The label of networks that `dev -- --network` made.
SHARED = "stack.network"
# Compose looks for .env beside the file that it is told to use, and ours lies in the root of the clone.
PRODUCTION = {"COMPOSE_FILE": "docker/compose.prod.yaml", "COMPOSE_ENV_FILES": ".env"}


def flavored(flavor: str) -> dict[str, str]:
    """Settings that make Compose see a flavor of the images."""
    if flavor == "dev":
        return {}
    settings = {**PRODUCTION, "STACK_FLAVOR": flavor}
    if flavor == "alpine":
        # The same stage as `slim`, on the sister of the official base.
        settings |= {"STACK_TARGET": "slim", "STACK_BASE": official_base().replace("-slim", "-alpine")}
    return settings


def model(settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The stack as Compose understands it (``docker compose config``); raises UserError when a file has a fault."""
    return _model(tuple((settings or {}).items()))


@cache
def _model(settings: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    with suppress(KeyError, CommandFailed):  # nobody foresaw this; it failed for a reason that may be gone by now
        return dict(json.loads(answer(FORESEEN.pop(settings))))
    try:
        return dict(json.loads(answer(_ask(settings))))
    except CommandFailed as failed:
        raise UserError(f"the stack's compose files have a fault: {failed.last}") from None


def _ask(settings: tuple[tuple[str, str], ...]) -> subprocess.Popen[str]:
    # With many services, Go's looking for garbage is a quarter of the time that this takes.
    return ask(*COMPOSE, "config", "--format", "json", env={"GOGC": "1000", **dict(settings)})


@contextmanager
def foreseen(*flavors: str) -> Iterator[None]:
    """Have Compose read the stack's files beside what the block does: with many services, that takes it a while.

    It is for nothing when .env is another one after the block.
    """
    before = env()
    with suppress(UserError):  # the block may be about to install Docker
        for settings in (tuple(flavored(flavor).items()) for flavor in flavors):
            FORESEEN[settings] = _ask(settings)
    kept = False
    try:
        yield
        kept = env() == before
    finally:
        while FORESEEN and not kept:
            with FORESEEN.popitem()[1] as question:
                question.kill()


class Container(NamedTuple):
    """One container of the stack: its id, service, state, health ("" without a healthcheck), exit code and host port."""

    id: str
    service: str
    state: str
    health: str
    exit_code: int
    port: int

    def __str__(self) -> str:
        return f"exited with {self.exit_code}" if self.state == "exited" else f"is {self.health or self.state}"

    @property
    def ready(self) -> bool:
        """Whether those who wait for this container may go on; a job that has ended well is done, not lost."""
        return (self.state == "running" and self.health in {"", "healthy"}) or (
            self.state == "exited" and not self.exit_code
        )

    @property
    def failed(self) -> bool:
        """Whether waiting for this container has become pointless."""
        return self.health == "unhealthy" or (self.state in {"exited", "dead"} and self.exit_code != 0)


def containers(settings: Mapping[str, str] | None = None) -> list[Container]:
    """The stack's containers, ended ones too. ``docker ps`` knows them as well as ``docker compose ps``, in a tenth of the time."""
    project = (settings or {}).get("COMPOSE_PROJECT_NAME") or env()["COMPOSE_PROJECT_NAME"]
    labels = (f"com.docker.compose.project={project}", "com.docker.compose.oneoff=False")
    filters = [f"--filter=label={label}" for label in labels]
    form = "\t".join(["{{.ID}}", '{{.Label "com.docker.compose.service"}}', "{{.State}}", "{{.Status}}", "{{.Ports}}"])
    found = []
    for line in output("docker", "ps", "--all", *filters, "--format", form).splitlines():
        identity, service, state, status, ports = line.split("\t")
        health = re.search(r"\((?:health: )?(starting|healthy|unhealthy)\)", status)
        code = re.search(r"Exited \((\d+)\)", status)
        port = re.search(rf":(\d+)->(?!{DEBUGGER}/)", ports)
        numbers = (int(match[1]) if match else 0 for match in (code, port))
        found.append(Container(identity, service, state, health[1] if health else "", *numbers))
    return sorted(found, key=lambda container: container.service)


def with_neighbours(services: Sequence[str]) -> list[str]:
    """Services, and those that they depend on, directly or not: what Compose starts for them, and this clone builds."""
    defined = model()["services"]
    found: dict[str, None] = {}
    waiting = list(services)
    while waiting:
        service = waiting.pop()
        if service not in found:
            found[service] = None
            waiting += defined[service].get("depends_on", ())
    return sorted(found.keys() & set(service_names()))


def up(services: Sequence[str], settings: Mapping[str, str]) -> None:
    """Create and start the stack in the background; raises UserError when Docker cannot."""
    podman.need_health_checks()
    command = (*COMPOSE, "up", "--detach", "--no-build", "--remove-orphans", "--quiet-pull", *services)
    if run(*command, env=settings):
        wait(patience=0)  # names the one that is in the way
        raise UserError("the stack did not start; Docker's own words stand above")


def wait(settings: Mapping[str, str] | None = None, *, patience: float = 120) -> None:
    """Wait until every container is ready, at most ``patience`` seconds.

    Raises UserError, after the last lines of the service that is in the way, when one has failed or takes too long.
    """
    until = time.monotonic() + patience
    while True:
        found = containers(settings)
        late = [c for c in found if not c.ready]
        if not late:
            return
        if lost := [c for c in found if c.failed] or (late if time.monotonic() > until else []):
            service = lost[0].service
            say("\n".join(log(settings, service)[-LAST_LINES:]))
            raise UserError(f"{service} {lost[0]}; its last lines stand above, everything is in {keep_log(settings)}")
        time.sleep(0.2)


def log(settings: Mapping[str, str] | None, *options: str) -> list[str]:
    """The lines of the stack's log; ``options`` are those of ``docker compose logs``, services among them."""
    return output(*COMPOSE, "logs", "--no-color", *options, env=settings).splitlines()


def keep_log(settings: Mapping[str, str] | None) -> Path:
    """Write the stack's whole log to reports/, and return where, as seen from the clone's root."""
    path = REPORTS / "logs" / f"stack-{'production' if settings else 'development'}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*log(settings, "--timestamps"), ""]), encoding="utf-8")
    return path.relative_to(ROOT)


def join(network: str) -> None:
    """Put the stack's containers on a network that other stacks share, each as ``<service>.<project>``.

    The network is made when it is missing; `down` removes it when nobody is on it any more. "" means none.
    """
    if not network:
        return
    if not output("docker", "network", "ls", "--quiet", "--filter", f"name=^{network}$").strip():
        output("docker", "network", "create", "--label", f"{SHARED}=yes", network)
    joined = output("docker", "network", "inspect", "--format", "{{json .Containers}}", network)
    for container in containers():
        alias = f"{container.service}.{name()}"
        if container.id not in joined:
            output("docker", "network", "connect", "--alias", alias, network, container.id)
        say(f"on {network}: {alias}")


def leave_networks() -> None:
    """Remove the stack's own networks, and the shared ones of ours, that no container is on any more."""
    used = ask("docker", "ps", "--all", "--format", "{{.Networks}}")
    form = f'{{{{.Name}}}} {{{{.Label "com.docker.compose.project"}}}} {{{{.Label "{SHARED}"}}}}'
    listed = [line.split(" ") for line in output("docker", "network", "ls", "--format", form).splitlines()]
    ours = {network for network, project, shared in listed if project == clone_id() or shared}
    for network in ours - {*re.split("[,\\n]", answer(used))}:
        with suppress(CommandFailed):  # another session has begun to use it, or removed it
            output("docker", "network", "rm", network)


def urls() -> None:
    """Print where each service answers."""
    for container in containers():
        if container.port:
            say(f"{container.service}  http://127.0.0.1:{container.port}")


@contextmanager
def running(services: Sequence[str], settings: Mapping[str, str], *, keep: bool) -> Iterator[None]:
    """Have the stack up for as long as the block runs; with ``keep`` it stays up, unless the block fails."""
    stay = False
    ownership.ATTACHED.parent.mkdir(exist_ok=True)
    ownership.ATTACHED.write_text(ownership.owner(), encoding="utf-8")
    try:
        up(services, settings)
        yield
        stay = keep
    finally:
        if stay:
            ownership.ATTACHED.unlink(missing_ok=True)
        else:
            down()


def reap() -> None:
    """Take down the stack of a session that was killed, or whose engine was."""
    mark = ownership.ATTACHED
    if mark.exists() and ownership.orphaned(mark.read_text(encoding="utf-8"), r"(\d+)$"):
        say("setup: taking down the stack that a killed session has left")
        down()


def follow(*services: str) -> None:
    """Show the log on this terminal until the stack ends; say where each service answers as soon as all are ready."""
    with start(*COMPOSE, "logs", "--follow", *services, stdin=subprocess.DEVNULL) as logs:
        try:
            wait()
            urls()
            logs.wait()
        finally:
            stop(logs)


def down(*, volumes: bool = False, settings: Mapping[str, str] | None = None) -> None:
    """Stop the stack and remove its containers and networks, with ``volumes`` its data too."""
    every = ["--volumes"] if volumes else []
    run(*COMPOSE, "down", "--remove-orphans", *every, env=settings)
    leave_networks()
    if not settings:
        ownership.ATTACHED.unlink(missing_ok=True)


def stack() -> dict[str, str]:
    """Settings for the stack that tests/stack runs: from production images, apart from the one under development."""
    return {**PRODUCTION, "COMPOSE_PROJECT_NAME": ownership.stack_name(ownership.owner())}


@contextmanager
def production_stack_removed() -> Iterator[None]:
    """Whatever the block does, nothing of the stack that tests/stack runs is left after it."""
    if podman.chosen():
        raise UserError(
            "tests/stack asks what Podman answers otherwise: name services (nox -s test -- echo), or take Docker"
        )
    settings = stack()  # now, so that pytest inherits this session's name
    try:
        yield
    finally:
        down(volumes=True, settings=settings)
        ownership.remove_own()


def shell(service: str) -> int:
    """Open a shell in a service's running container, or else in a new one, and return its exit code."""
    if any(c.service == service and c.state == "running" for c in containers()):
        return run(*COMPOSE, "exec", service, "sh")
    return run(*COMPOSE, "run", "--rm", "--no-deps", service, "sh")


def side_shell(service: str) -> int:
    """Open a shell beside a service's production container, which has none, and return its exit code.

    It runs in a container of its own, from the base image; it shares the other's processes and network, and starts in
    the other's files.
    """
    beside = next((c.id for c in containers(PRODUCTION) if c.service == service and c.state == "running"), None)
    if not beside:
        raise UserError(
            f"no container of {service} is running: COMPOSE_FILE={PRODUCTION['COMPOSE_FILE']} docker compose up -d"
        )
    terminal = ["--tty"] if sys.stdin.isatty() else []
    shared = [f"--pid=container:{beside}", f"--network=container:{beside}", "--cap-add=SYS_PTRACE"]
    command = (env()["STACK_BASE"], "sh", "-c", "cd /proc/1/root/app && exec sh")
    return run("docker", "run", "--rm", "--interactive", *terminal, *ownership.labels(), *shared, *command)
