from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from ..project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


DOCKER = shutil.which("docker")


@pytest.fixture
def docker() -> str:
    """The real client, for the few tests that ask Compose how it reads a file; they need no engine."""
    return DOCKER or pytest.skip("this machine has no Docker client")


@pytest.fixture(autouse=True)
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder at the front of the PATH; its `docker` fails any test that would reach for the real one."""
    tools = tmp_path / "bin"
    tools.mkdir()
    write_tool(tools / "docker", 'echo "a unit test called docker $*" >&2; exit 99')
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    for name in ("DOCKER_HOST", "STACK_SETUP", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STACK_ENGINE", "docker")  # whatever setup has found here
    return tools


def write_tool(path: Path, script: str) -> None:
    """Make a program out of lines of shell."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def pretend(
    tools: Path,
    *,
    engine: str = "26.1.5",
    compose: str = "2.26.1-4",
    buildx: str = "0.13.1+ds1",
    security: str = "seccomp,profile=builtin",
    cpu: str = "true",
    kind: str = "Engine",
) -> None:
    """A client whose engine and plugins have these versions; "" for one that is missing, "down" for a silent engine."""
    server = f'{{"Version":"{engine}","Components":[{{"Name":"{kind}"}}]}}'
    server = f"echo '{server}'" if engine[:1].isdigit() else f"echo null; echo '{engine}' >&2; exit 1"
    plugins = [
        {"Name": name, "Version": version} for name, version in (("compose", compose), ("buildx", buildx)) if version
    ]
    info = {"SecurityOptions": [f"name={security}"], "CpuCfsQuota": cpu == "true", "ClientInfo": {"Plugins": plugins}}
    write_tool(
        tools / "docker",
        f"""case "$1 $2" in
        "version --format") {server} ;;
        "info --format") echo '{json.dumps(info)}' ;;
        "container ls" | "network ls" | "volume ls") ;;
        "context show") echo "${{PRETEND_CONTEXT:-default}}" ;;
        *) exit 99 ;;
        esac""",
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what git tracks here, or would, in a folder with spaces and letters beyond ASCII."""
    target = tmp_path / "a clöne of ours"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, files.split("\0")):
        source = ROOT / name
        if source.exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())
    return target


@pytest.fixture
def nox(clone: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs nox in the clone, as a user would: ``nox("-s", "build", "--", "echo")``."""

    def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nox", "--no-venv", *args]
        env = {**os.environ, "NO_COLOR": "1", **environment}
        return subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, check=False)

    return run
