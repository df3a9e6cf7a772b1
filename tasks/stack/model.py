"""Compose projects and what they contain: a Stack is one project, a Container one of its containers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from ..env import ENV, env, official_base
from ..ownership import LABEL, SESSION, project_of_tests, session_id
from ..project import ROOT, SERVICES, clone_id, env_prefix, service_names
from ..shell import CommandFailed, UserError, ask, output

COMPOSE = ("docker", "compose")
DEVELOPMENT_FILE = "docker/compose.yaml"
PRODUCTION_FILE = "docker/compose.prod.yaml"
INTERFACES = ("wsgi", "asgi", "command")  # as docker/server/serve.py has them
# Arguments of builds that docker/Dockerfile does not name: BuildKit's own, and one that is read here.
ELSEWHERE = re.compile(r"(?i)\w+_proxy|BUILDKIT_\w+|TESTS_NEED_NEIGHBOURS")
DEBUG_PORT = 5678  # the debugger's port in containers, as docker/dev has it


@dataclass(frozen=True)
class Container:
    """One container: its id, service, state, health ("" without a healthcheck), exit code, and ports of this machine."""

    id: str
    service: str
    state: str
    health: str = ""
    exit_code: int = 0
    port: int = 0  # that of the container's port 8000, where services listen, or else the first of TCP; 0 for none
    ports: tuple[int, ...] = ()
    session: str = ""  # that has started it; "" for none that still matters to it
    address: str = ""  # what people are told: the URL for port 8000; what listens on others may be no web server

    def __str__(self) -> str:
        return f"exited with {self.exit_code}" if self.state == "exited" else f"is {self.health or self.state}"

    @property
    def ready(self) -> bool:
        """Whether dependent services may start: it is healthy, or a job that has ended with exit code 0."""
        running = self.state == "running" and self.health in {"", "healthy"}
        return running or (self.state == "exited" and not self.exit_code)

    @property
    def failed(self) -> bool:
        """Whether it will not become ready any more."""
        return self.health == "unhealthy" or (self.state in {"exited", "dead"} and self.exit_code != 0)


@dataclass(frozen=True)
class Stack:
    """One Compose project: its name, its Compose files, the flavor of its images, and further settings (ports)."""

    project: str
    files: tuple[str, ...]
    flavor: str
    settings: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def env(self) -> dict[str, str]:
        """The environment that makes `docker compose` see this stack."""
        found = {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": os.pathsep.join(self.files),
            "COMPOSE_ENV_FILES": ".env" if ENV.exists() else os.devnull,  # `down` and `logs` may come before `setup`
        }
        if self.flavor != "dev":
            found["STACK_FLAVOR"] = self.flavor
        if self.flavor == "alpine":
            # The stage `slim`, on the official base's Alpine sister, which has another digest and no Debian release.
            found |= {"STACK_TARGET": "slim", "STACK_BASE": re.sub("-slim.*", "-alpine", official_base())}
        return found | dict(self.settings)

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` on this stack and return its output; raises CommandFailed when it fails."""
        return output(*COMPOSE, *arguments, env=self.env)

    @cached_property
    def model(self) -> dict[str, Any]:
        """The stack as Compose understands it (``docker compose config``); raises UserError when a file has a fault."""
        return _config(tuple(self.env.items()))

    def containers(self) -> list[Container]:
        """The containers, ended ones too: `docker ps` tells in a tenth of the time of `docker compose ps`."""
        parts = ("ID", 'Label "com.docker.compose.service"', "State", "Status", "Ports", f'Label "{LABEL}"')
        filters = [f"--filter=label=com.docker.compose.{it}" for it in (f"project={self.project}", "oneoff=False")]
        listed = output("docker", "ps", "--all", *filters, "--format", "\t".join(f"{{{{.{part}}}}}" for part in parts))
        return sorted((_container(line) for line in listed.splitlines()), key=lambda found: found.service)

    def container(self, service: str) -> Container:
        """The container of a service; raises UserError when it has none that runs."""
        if found := [it for it in self.containers() if it.service == service and it.state == "running"]:
            return found[0]
        up = f"COMPOSE_FILE={PRODUCTION_FILE} COMPOSE_ENV_FILES=.env docker compose up -d"
        how = "nox -s dev" if self.flavor == "dev" else up
        raise UserError(f"no container of {service} is running: `{how}` starts it")

    def service(self, name: str) -> dict[str, Any]:
        """The Compose service that a service's image is built for.

        Raises UserError where the stack has none, and where it has a build argument that nothing reads.
        """
        build = self.model["services"].get(name, {}).get("build", {})
        if build.get("args", {}).get("SERVICE") != name:
            raise UserError(f"no service {name} with `SERVICE: {name}`: see its compose.yaml, and docker/compose.yaml")
        known = re.findall(r"(?m)^ARG (\w+)", (ROOT / build.get("dockerfile", "docker/Dockerfile")).read_text("utf-8"))
        if unknown := sorted(word for word in {*build["args"]} - {*known} if not ELSEWHERE.fullmatch(word)):
            raise UserError(f"{name} in compose.yaml: its Dockerfile has no `ARG {unknown[0]}`: correct that name")
        return dict(self.model["services"][name])

    def processes(self, services: Sequence[str]) -> list[str]:
        """The Compose services of these names, or that run these services' images: a web server, its workers, its jobs."""
        for service in {*services} & {*service_names()}:
            self.service(service)
        return [name for name, spec in self.model["services"].items() if {name, built_as(name, spec)} & {*services}]

    def with_neighbours(self, services: Sequence[str]) -> list[str]:
        """Services and those that they depend on, directly or not: what Compose starts for them, and this clone builds."""
        found = self.processes(services)
        for process in found:  # which grows
            found += [name for name in self.model["services"][process].get("depends_on", ()) if name not in found]
        return self.built(found)

    def built(self, processes: Iterable[str]) -> list[str]:
        """The services whose images these Compose services run, of those that this clone builds."""
        return sorted({built_as(name, self.model["services"][name]) for name in processes} & {*service_names()})


def built_as(name: str, spec: Mapping[str, Any]) -> str:
    """The service whose image a Compose service runs; one that is not built here has its own name."""
    return str(spec.get("build", {}).get("args", {}).get("SERVICE", name))


@cache
def _config(env: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    try:
        # With many services, Go's garbage collection is a quarter of the time.
        found = dict(json.loads(output(*COMPOSE, "config", "--format", "json", env={"GOGC": "1000", **dict(env)})))
    except CommandFailed as failed:
        if "For more help" in failed.last or "unknown flag" in failed.text:
            raise UserError(f"`docker compose` does not work for this user: {failed.text.splitlines()[0]}") from None
        # Compose does not say in which file YAML has a fault.
        paths = ["docker/service.yaml", *SERVICES.glob("*/compose.yaml"), DEVELOPMENT_FILE, PRODUCTION_FILE]
        for path in paths if failed.last.startswith("yaml: ") else ():
            if failed.last in ask(*COMPOSE, f"--file={path}", "config").communicate()[1]:
                failed.last = f"{str(path).removeprefix(f'{ROOT}/')}: {failed.last}"
        gone = re.search(r"open .*services/(.+)/compose\.yaml: no such file", failed.last)
        how = f"; bring services/{gone[1]} back, then `nox -s remove -- {gone[1]}`" if gone else ""
        raise UserError(f"the stack's compose files have a fault: {failed.last}{how}") from None
    services = found.get("services", {})
    for name, spec in services.items():
        _check(name, spec)
        for absent in {*spec.get("depends_on", ())} - {*services}:
            del spec["depends_on"][absent]  # it is not required, and in a profile that is not chosen
    return found


def _check(name: str, spec: Mapping[str, Any]) -> None:
    """Raise UserError for a process of ours that its container could only fail with."""
    given = {**spec.get("build", {}).get("args", {}), **(spec.get("environment") or {})}
    if "SERVICE" not in given or spec.get("command"):
        return
    interface, health = given.get("INTERFACE") or "wsgi", spec.get("healthcheck", {})
    if interface not in INTERFACES:
        raise UserError(f"{name} in compose.yaml: INTERFACE is {interface!r}; it must be {', '.join(INTERFACES)}")
    if interface == "command" and not (health.get("test") or health.get("disable") or spec.get("ports")):
        need = "`healthcheck: {test: [CMD, ...]}`, or `healthcheck: {disable: true}` to have none"
        raise UserError(f"{name} in compose.yaml: a command without `ports` needs {need}")


def _container(line: str) -> Container:
    identity, service, state, status, ports, *session = line.split("\t")
    health = "".join(re.findall(r"\((?:health: )?(starting|healthy|unhealthy)\)", status))
    code = int("".join(re.findall(r"Exited \((\d+)\)", status)) or 0)
    # As in 127.0.0.1:5000-5001->8000-8001/tcp; Docker sorts them by the containers' ports.
    reached = ports.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 (nothing is bound here)
    found = re.findall(rf"(\S+):(\d+)(?:-(\d+))?->(?!{DEBUG_PORT}/)(\d+)[-\d]*/tcp", reached)
    taken = tuple(port for _, first, last, _ in found for port in range(int(first), int(last or first) + 1))
    host, port, _, inside = min(found, key=lambda published: published[3] != "8000", default=("", 0, "", ""))
    address = f"{'http://' * (inside == '8000')}{host}:{port}" if port else ""
    return Container(identity, service, state, health, code, int(port), taken, "".join(session), address)


def development(*, attached: bool = False) -> Stack:
    """The stack that `dev` runs from source; ``attached``: only for as long as this session lasts."""
    session = session_id() if attached else ""
    files = env().get("COMPOSE_FILE", DEVELOPMENT_FILE).split(os.pathsep)
    return Stack(env().get("COMPOSE_PROJECT_NAME") or clone_id(), tuple(files), "dev", {SESSION: session})


def production(flavor: str = "prod") -> Stack:
    """The stack of production images that `docker compose` runs with COMPOSE_FILE=docker/compose.prod.yaml."""
    return Stack(env().get("COMPOSE_PROJECT_NAME") or clone_id(), (PRODUCTION_FILE,), flavor, {SESSION: ""})


def under_test(stack: Stack, part: str = "") -> Stack:
    """A stack for this session's tests, on free ports of 127.0.0.1; ``part`` tells apart several of a session."""
    ports = dict.fromkeys(port_variables(stack.model), "0")
    hosts = dict.fromkeys((f"{port.removesuffix('PORT')}HOST" for port in ports), "127.0.0.1")
    settings = {SESSION: session_id(), **ports, **hosts}
    return replace(stack, project=project_of_tests(session_id(), part), settings=settings)


def port_variables(model: Mapping[str, Any]) -> dict[str, str]:
    """The variables that set services' ports on this machine (``PILOT_PORT``), by the names of the services with a port."""
    services = sorted(model["services"].items())
    return {f"{env_prefix(service)}_PORT": service for service, spec in services if any(spec.get("ports") or ())}
