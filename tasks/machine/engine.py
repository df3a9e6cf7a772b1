"""The container engine: which one answers, in which versions, and what it can. It only asks; setup.py makes changes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..env import env
from ..shell import UserError, ask, lines, output

PROBE_TIMEOUT_S = 10


class Docker:
    """Docker's engine. Another engine (podman.py) is a subclass that says what is different, and registers in ENGINES."""

    name = "docker"
    title = "Docker"
    # The oldest versions that will do: healthchecks with a start interval, `!override` in YAML, secrets in bake.
    minimum: Mapping[str, tuple[int, ...]] = {"engine": (25, 0), "compose": (2, 24, 4), "buildx": (0, 12)}
    builder = "docker buildx bake"

    def answers(self, components: list[str]) -> bool:
        """Whether an engine with these components (of ``docker version``) is this one."""
        return not any("Podman" in component for component in components)

    def build(self, targets: Mapping[str, Mapping[str, Any]], on_line: Callable[[str], None]) -> int:
        """Build targets, as `docker buildx bake` defines them, and return the exit code."""
        plan = json.dumps({"group": {"default": {"targets": list(targets)}}, "target": targets})
        plan = re.sub(r"[$%](?=\{)", r"\g<0>\g<0>", plan)  # to bake, ${...} and %{...} are templates
        # From 0.20 on, bake refuses to read files elsewhere, such as the CA bundle; before 0.17, it knows no --allow.
        seen = {**env(), "BUILDX_BAKE_ENTITLEMENTS_FS": "0"}
        return lines("docker", "buildx", "bake", "--file=-", "--progress=plain", on_line=on_line, stdin=plan, env=seen)

    def verify_base(self, target: Mapping[str, Any]) -> str:
        """What the stage `verify` of a target starts from."""
        return str(target["target"])

    def plain_name(self, image: str) -> str:
        """An image's name as it was given to the build; some engines put a registry's name in front."""
        return image

    def check_health_checks(self) -> None:
        """Raise UserError where containers' health checks would not run."""

    def check_stack_tests(self) -> None:
        """Raise UserError where tests/stack cannot run."""


ENGINES = {"docker": Docker()}


def current() -> Docker:
    """The engine that `setup` has found."""
    return ENGINES.get(env().get("STACK_ENGINE", ""), ENGINES["docker"])


@dataclass(frozen=True)
class State:
    """What was found: a version for each part ("engine", "compose", "buildx"), why the engine is missing, what it tells."""

    versions: Mapping[str, str] = field(default_factory=dict)
    client: bool = False
    trouble: str = "no container engine was found"
    info: Mapping[str, Any] = field(default_factory=dict)
    engine: Docker = ENGINES["docker"]

    def too_old(self) -> dict[str, str]:
        """The parts that are older than the engine's minimum, with their versions."""
        return {part: found for part, found in self.versions.items() if numbers(found) < self.engine.minimum[part]}


def numbers(version: str) -> tuple[int, ...]:
    """The first three numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def probe() -> State:
    """Ask Docker's client, which knows about contexts and DOCKER_HOST, for the engine's version and its own plugins'."""
    if not shutil.which("docker"):
        return State()
    answers = []
    for process in [ask("docker", command, "--format", form) for command, form in (("version", "{{json .Server}}"), ("info", "{{json .}}"))]:  # fmt: skip
        try:
            out, err = process.communicate(timeout=PROBE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with process:
                process.kill()
            out, err = "", f"the engine has not answered for {PROBE_TIMEOUT_S} s"
        answers.append((json.loads(out) if out.startswith("{") else {}, err.strip() or out.strip()))
    (server, trouble), (info, _) = answers
    components = [component["Name"] for component in server.get("Components") or ()]
    found = next((engine for engine in ENGINES.values() if engine.answers(components)), ENGINES["docker"])
    plugins = info.get("ClientInfo", {}).get("Plugins") or ()
    told = {"engine": server.get("Version", "")} | {plugin["Name"]: plugin.get("Version", "") for plugin in plugins}
    matches = {part: re.search(r"\d+\.\d+[\w.+~-]*", told.get(part, "")) for part in found.minimum}
    versions = {part: match[0] for part, match in matches.items() if match}
    return State(versions, client=True, trouble=trouble, info=info, engine=found)


def context() -> str:
    """The name of Docker's current context, "" for the default one."""
    return "" if (name := output("docker", "context", "inspect", "--format={{.Name}}").strip()) == "default" else name


def container_user(info: Mapping[str, Any]) -> dict[str, str]:
    """The settings of docker/service.yaml that make a container write mounted files as the user who runs this.

    ``info`` is what ``docker info`` says.
    """
    security = " ".join(info.get("SecurityOptions") or ())
    rootless = "name=rootless" in security  # the engine runs as the caller, and maps root to itself
    return {
        "STACK_UID": "0" if rootless else str(os.getuid()),
        "STACK_GID": "0" if rootless else str(os.getgid()),
        # The engine shifts user ids in containers, unless a container opts out.
        "STACK_USERNS": "host" if "name=userns" in security else "",
        # A rootless engine that systemd has not delegated CPU control to cannot start containers with a CPU limit.
        "STACK_CPUS": "" if info.get("CpuCfsQuota", True) else "0",
    }


def check(state: State, how_to_install: str) -> None:
    """Raise UserError for a part that is missing or too old."""
    for part, least in state.engine.minimum.items():
        whose = state.engine.title if part == "engine" else "Docker"
        if part not in state.versions:
            reason = f": {state.trouble.splitlines()[-1]}" if state.trouble and part == "engine" else ""
            raise UserError(f"{whose}'s {part} cannot be used{reason}; {how_to_install}")
        if old := state.too_old().get(part):
            wanted = f"{'.'.join(map(str, least))} or newer is needed"
            raise UserError(f"{whose}'s {part} is {old}, which is too old: {wanted}; {how_to_install}")
