"""Makes the machine ready: installs, starts or restarts the engine where that is allowed, or says what to do."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..env import env
from ..shell import UserError, output, run
from ..terminal import say
from . import engine

SBIN = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
DAEMON_LOG = Path("/var/log/dockerd.log")
DAEMON_TIMEOUT_S = 60
PID_FILES = {"dockerd": Path("/run/docker.pid"), "containerd": Path("/run/docker/containerd/containerd.pid")}
# The label with the recipe of a base image that was built here.
RECIPE_LABEL = "stack.base.recipe"
# The systems whose packages setup can install: debian.py registers its class Debian.
DISTRIBUTIONS: list[Any] = []
_GRANTED: set[str] = set()


def distribution() -> Any:
    """The system that this machine runs, as debian.Debian describes it; None where it is not known."""
    return next((known for known in DISTRIBUTIONS if known.engine_packages()), None)


def ensure() -> dict[str, str]:
    """Make sure of a running engine with Compose and buildx of usable versions, and return what .env is to say of it.

    Raises UserError where it cannot, or may not, set one up.
    """
    state = engine.probe()
    if state.engine.name == "docker" and (set(state.versions) != set(state.engine.minimum) or state.too_old()):
        repair(state)
        state = engine.probe()
    engine.check(state, how_to_install() if state.engine.name == "docker" else "get it from your distribution")
    return {**engine.container_user(state.info), "STACK_ENGINE": state.engine.name}


def repair(state: engine.State) -> None:
    """Start the engine, or install what is missing or too old, or raise UserError with the way to do it."""
    if "permission denied" in state.trouble:
        raise UserError("you may not talk to the Docker engine: `sudo usermod -aG docker $USER`, then log in again")
    if "could not be found in this WSL" in state.trouble:  # so says Docker Desktop's script in the place of the client
        raise UserError(" ".join(state.trouble.split()))
    elsewhere = os.environ.get("DOCKER_HOST") or (state.client and engine.context())
    if elsewhere and "engine" not in state.versions:
        how = "start it" if state.client else "install Docker's client"
        raise UserError(f"the Docker engine at {elsewhere} does not answer: {how}, or choose another (DOCKER_HOST)")
    missing = [part for part in state.engine.minimum if part not in state.versions or part in state.too_old()]
    if env().get("STACK_SETUP") == "never":
        told = f"missing, too old or not running: {', '.join(missing)}"
        raise UserError(f"{told}, and STACK_SETUP=never: {how_to_install()}")
    if missing == ["engine"] and not elsewhere and engine.numbers(installed()) >= state.engine.minimum["engine"]:
        allow("start Docker", "sudo systemctl restart docker")
        restart()
    elif not elsewhere and (here := distribution()):
        packages = (*here.engine_packages(), *here.base_packages())
        allow(f"install {', '.join(packages)}", here.command, *packages)
        here.install(*here.engine_packages())
        if user := os.environ.get("SUDO_USER"):
            run("usermod", "-aG", "docker", user)
            say(f"{user} may use Docker from the next login on, or at once in `newgrp docker`")
        if engine.probe().versions.get("engine", "") != installed():
            restart()
    elif not state.client:
        raise UserError(f"no container engine was found: {how_to_install()}")


def installed() -> str:
    """The version of the installed daemon, which need not be the one that runs; "" for none."""
    daemon = shutil.which("dockerd", path=SBIN)
    return "".join(re.findall(r"version (\d+\.\d+[\w.+~-]*)", output(daemon, "--version"))[:1]) if daemon else ""


def allow(what: str, command: str, *packages: str) -> None:
    """Return if this session may change the machine: as root, without asking only in CI or without a terminal.

    It asks once for all ``packages``. Raises UserError, with the command to run, where it may not.
    """
    if packages and _GRANTED.issuperset(packages):
        return
    if os.geteuid() != 0:
        raise UserError(f"the machine is not ready, and only root can {what}. Run `{command}`")
    ask = not os.environ.get("CI") and sys.stdin.isatty()
    if ask and input(f"The machine is not ready. May I {what}? [Y/n] ").strip().lower() not in {"", "y", "yes"}:
        raise UserError(f"nothing was changed; to do it yourself: {how_to_install()}")
    _GRANTED.update(packages)


def how_to_install() -> str:
    """What to do on this machine to get a usable engine."""
    if sys.platform == "darwin":
        return "install Docker Desktop, OrbStack or colima (brew install colima docker docker-compose docker-buildx)"
    if sys.platform == "win32":
        return "install Docker Desktop and work inside WSL 2"
    if here := distribution():
        return f"install it with `{here.command}`"
    return "install Docker Engine with its compose and buildx plugins from your distribution (Fedora: moby-engine)"


def restart() -> None:
    """Start the daemon, with systemd or without it, in place of one that runs; wait until it answers."""
    daemon = None
    if Path("/run/systemd/system").is_dir():
        run("systemctl", "restart", "docker")
    else:
        stop_daemon()
        say(f"$ dockerd >>{DAEMON_LOG} &")
        with DAEMON_LOG.open("a") as log:
            command = [shutil.which("dockerd", path=SBIN) or "dockerd"]
            # In a session of its own, it outlives this one and gets no Ctrl-C.
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    until = time.monotonic() + DAEMON_TIMEOUT_S
    while "engine" not in engine.probe().versions:
        if daemon and daemon.poll() is not None:
            last = (DAEMON_LOG.read_text(errors="replace").splitlines() or ["it printed nothing"])[-1]
            raise UserError(f"the Docker daemon has ended: {last} (its log: {DAEMON_LOG})")
        if time.monotonic() > until:
            raise UserError(f"the Docker daemon does not come up: read {DAEMON_LOG}, or `journalctl -u docker`")
        time.sleep(0.2)


def stop_daemon() -> None:
    """Stop a daemon that runs (an older one, after an update), and remove stale pid files."""
    with suppress(OSError, ValueError):
        pid = int(PID_FILES["dockerd"].read_text())
        if program_of(pid).startswith("dockerd"):
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + DAEMON_TIMEOUT_S
            while program_of(pid) and time.monotonic() < until:
                time.sleep(0.1)
    remove_stale_pid_files()


def remove_stale_pid_files() -> None:
    """Remove pid files whose process has ended, or is another program by now: the daemon would refuse to start."""
    for program, path in PID_FILES.items():
        running = ""
        with suppress(OSError, ValueError):
            running = program_of(int(path.read_text()))
        if not running.startswith(program):
            path.unlink(missing_ok=True)


def program_of(pid: int) -> str:
    """The name of a process's program; "" when it has ended. A zombie, where PID 1 does not reap, has no program."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""
