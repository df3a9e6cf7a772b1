"""The container engine: find it, check its version, install and start it where we may, say what is wrong where not.

``sudo python3 -B -m tasks.machine.engine`` does the part that needs root, and nothing in the clone.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ..machine.debian import distribution, install
from ..shell import UserError, ask, output, run, say

# The oldest versions that will do: healthchecks with a start interval, `include` with `extends`, secrets in bake.
MINIMUM = {"engine": (25, 0), "compose": (2, 24), "buildx": (0, 12)}
# Podman's service in the place of Docker's engine; tasks/podman.py builds there, without buildx.
MINIMUM_WITH_PODMAN = {"engine": (5, 0), "compose": (2, 24)}
WITHOUT = "or go on without containers: nox -s dev -- --local, nox -s test -- --local"

PACKAGES = {
    "debian": ("docker.io", "docker-cli", "docker-compose", "docker-buildx"),
    "ubuntu": ("docker.io", "docker-compose-v2", "docker-buildx"),
}
SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
DAEMON_LOG = Path("/var/log/dockerd.log")
SUDO = "sudo python3 -B -m tasks.machine.engine"


class State(NamedTuple):
    """What was found of the engine: a version for each part, or why it cannot be had; what it can; whether it is Podman."""

    versions: dict[str, str]
    client: bool
    trouble: str
    info: dict[str, Any]
    podman: bool = False


def ensure() -> dict[str, str]:
    """Make sure of a running engine with Compose and buildx of usable versions, and return what .env is to say of it.

    Raises UserError where it cannot, or may not, set one up.
    """
    state = probe()
    if not state.podman and set(state.versions) != set(MINIMUM):
        mend(state)
        state = probe()
    check(state)
    return {**caller(state.info), "STACK_ENGINE": "podman" if state.podman else "docker"}


def caller(info: dict[str, Any]) -> dict[str, str]:
    """Who a container must run as to be, on mounted files, who runs this: settings for docker/service.yaml.

    ``info`` is what ``docker info`` says.
    """
    security = " ".join(info.get("SecurityOptions") or ())
    rootless = "name=rootless" in security  # the engine runs as the caller, and maps root to itself
    mapped = "name=userns" in security  # user ids in containers are shifted, unless a container opts out
    return {
        "STACK_UID": "0" if rootless else str(os.getuid()),
        "STACK_GID": "0" if rootless else str(os.getgid()),
        "STACK_USERNS": "host" if mapped else "",
        # Rootless, and without the right to it from systemd, an engine starts nothing whose processors it is to limit.
        "STACK_CPUS": "" if info.get("CpuCfsQuota", True) else "0",
    }


def probe() -> State:
    """Ask Docker's client, which knows about contexts and DOCKER_HOST, for the engine's version and for its own plugins'."""
    if not shutil.which("docker"):
        return State({}, client=False, trouble="no container engine was found", info={})
    version = ask("docker", "version", "--format", "{{json .Server}}")
    info = ask("docker", "info", "--format", "{{json .}}")
    answers = []
    for process in (version, info):
        try:
            out, err = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = "", "the engine has not answered for 10 s"
        answers.append((json.loads(out or "null") or {}, err.strip()))
    (server, trouble), (about, _) = answers
    plugins = about.get("ClientInfo", {}).get("Plugins") or ()
    said = {"engine": server.get("Version", "")} | {plugin["Name"]: plugin.get("Version", "") for plugin in plugins}
    versions = {part: found[0] for part in MINIMUM if (found := re.search(r"\d+\.\d+[\w.+~-]*", said.get(part, "")))}
    podman = any("Podman" in component["Name"] for component in server.get("Components") or ())
    return State(versions, client=True, trouble=trouble, info=about, podman=podman)


def check(state: State) -> None:
    """Raise UserError for a part that is missing or too old."""
    way = "get it from your distribution" if state.podman else how_to_install()
    for part, least in (MINIMUM_WITH_PODMAN if state.podman else MINIMUM).items():
        whose = "Podman" if state.podman and part == "engine" else "Docker"
        version = state.versions.get(part)
        if version is None:
            reason = f": {state.trouble.splitlines()[-1]}" if state.trouble and part == "engine" else ""
            raise UserError(f"{whose}'s {part} cannot be used{reason}; {way}, {WITHOUT}")
        numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
        if numbers < least:
            wanted = ".".join(map(str, least))
            raise UserError(f"{whose}'s {part} is {version}, which is too old: {wanted} or newer is needed; {way}")


def mend(state: State) -> None:
    """Start the engine that is there, or install what is missing, or raise UserError with the way to do it."""
    if "permission denied" in state.trouble:
        raise UserError(
            "you may not talk to the Docker engine: `sudo usermod -aG docker $USER`, log in again, and retry"
        )
    elsewhere = os.environ.get("DOCKER_HOST") or (state.client and context())
    if elsewhere and "engine" not in state.versions:
        raise UserError(
            f"the Docker engine at {elsewhere} does not answer: start it, or choose another (DOCKER_HOST, docker context)"
        )
    if os.environ.get("STACK_SETUP") == "never":
        missing = ", ".join(part for part in MINIMUM if part not in state.versions)
        raise UserError(f"missing or not running: {missing}, and STACK_SETUP=never: {how_to_install()}, {WITHOUT}")
    missing_plugins = {"compose", "buildx"} - set(state.versions)
    if state.client and not missing_plugins and shutil.which("dockerd", path=SBIN):
        allowed("start Docker", "sudo systemctl start docker")
        start()
    else:
        packages = packages_here()
        allowed(f"install {', '.join(packages)}", SUDO)
        install(*packages)
        if user := os.environ.get("SUDO_USER"):
            run("usermod", "-aG", "docker", user)
            say(f"{user} may use Docker from the next login on, or at once in `newgrp docker`")
        if "engine" not in probe().versions:
            start()


def context() -> str:
    """The name of Docker's current context, "" for the default one."""
    found = output("docker", "context", "show").strip()
    return "" if found == "default" else found


def allowed(what: str, command: str) -> None:
    """Return if this session may change the machine: as root, unasked only in CI or without a terminal.

    Raises UserError, with the command to run, where it may not.
    """
    if os.geteuid() != 0:
        raise UserError(f"Docker is not ready, and only root can {what}. Run `{command}`, {WITHOUT}")
    if not os.environ.get("CI") and sys.stdin.isatty():
        answer = input(f"Docker is not ready. May I {what}? [Y/n] ").strip().lower()
        if answer not in {"", "y", "yes"}:
            raise UserError(f"nothing was changed; to do it yourself: {how_to_install()}, {WITHOUT}")
    say(f"setup: going to {what}")


def how_to_install() -> str:
    """What to do on this machine to get a usable engine."""
    if sys.platform == "darwin":
        return "install Docker Desktop, OrbStack or colima (brew install colima docker docker-compose docker-buildx)"
    if sys.platform == "win32":
        return "install Docker Desktop and work inside WSL 2"
    if distribution().get("ID") in PACKAGES:
        return f"install it with `{SUDO}`"
    return "install Docker Engine with its compose and buildx plugins from your distribution (Fedora: moby-engine)"


def packages_here() -> tuple[str, ...]:
    """The packages to install on this distribution; raises UserError where we know of none."""
    here = distribution().get("ID", "")
    if here not in PACKAGES:
        raise UserError(f"no container engine was found: {how_to_install()}, {WITHOUT}")
    return PACKAGES[here]


def start(patience: float = 60) -> None:
    """Start the daemon, with systemd or without it, and wait until it answers, at most ``patience`` seconds."""
    daemon = None
    if Path("/run/systemd/system").is_dir():
        run("systemctl", "start", "docker")
    else:
        remove_stale_pid_files()
        say(f"$ dockerd >>{DAEMON_LOG} &")
        with DAEMON_LOG.open("a") as log:
            # In a session of its own, it outlives this one and hears no Ctrl-C.
            daemon = subprocess.Popen(
                [shutil.which("dockerd", path=SBIN) or "dockerd"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    until = time.monotonic() + patience
    while "engine" not in probe().versions:
        if daemon and daemon.poll() is not None:
            last = (DAEMON_LOG.read_text(errors="replace").splitlines() or ["it said nothing"])[-1]
            raise UserError(f"the Docker daemon has ended: {last} (all it said: {DAEMON_LOG})")
        if time.monotonic() > until:
            raise UserError(f"the Docker daemon does not come up: read {DAEMON_LOG}, or `journalctl -u docker`")
        time.sleep(0.2)


def remove_stale_pid_files() -> None:
    """Remove pid files whose process is gone, or is another program by now: the daemon would refuse to start."""
    for pid_file, program in (("/run/docker.pid", "dockerd"), ("/run/docker/containerd/containerd.pid", "containerd")):
        path = Path(pid_file)
        try:
            # A zombie, which stays where process 1 buries no dead, has no program any more.
            running = Path(f"/proc/{int(path.read_text())}/exe").readlink().name
        except (OSError, ValueError):
            running = ""
        if not running.startswith(program):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        ensure()
    except UserError as problem:
        sys.exit(f"error: {problem}")
