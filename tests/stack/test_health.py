"""The health of every production container: of web servers, and of workers."""

from __future__ import annotations

import json
import subprocess

import pytest

from tasks.shell import output
from tasks.stack.model import Stack
from tests.stack.plugin import processes

pytestmark = pytest.mark.parametrize("service", processes())


def test_a_healthcheck_that_can_fail(stack: Stack, service: str) -> None:
    """The container's healthcheck passes beside the running process, and fails where there is none; so does /readyz."""
    running = stack.container(service).id
    config = json.loads(output("docker", "inspect", "--format", "{{json .Config}}", running))
    kind, *check = config["Healthcheck"]["Test"]
    if kind == "NONE":
        pytest.skip("its health check is disabled in compose.yaml")
    assert kind == "CMD"
    for path in ([], ["/readyz"] if "/app/healthcheck.py" in check else []):
        assert subprocess.run(["docker", "exec", running, *check, *path], check=False).returncode == 0
        alone = ["docker", "run", "--rm", "--network=none", "--entrypoint", check[0], config["Image"], *check[1:]]
        assert subprocess.run([*alone, *path], capture_output=True, check=False).returncode not in {0, 125, 126, 127}


def test_no_process_runs_as_root(stack: Stack, service: str) -> None:
    processes = output("docker", "top", stack.container(service).id, "-eo", "pid,uid,args").splitlines()[1:]
    assert processes
    assert "0" not in {line.split()[1] for line in processes}
