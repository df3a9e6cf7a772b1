"""The health of every service's production container."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tasks.project import clone_id, service_names
from tasks.shell import output

if TYPE_CHECKING:
    from tasks.stack.model import Stack

pytestmark = pytest.mark.parametrize("service", service_names())


def test_a_healthcheck_that_can_fail(stack: Stack, service: str) -> None:
    """The image's own healthcheck and readiness probe pass beside the running server, and fail where there is none."""
    image = f"{clone_id()}/{service}:prod"
    config = json.loads(output("docker", "image", "inspect", "--format", "{{json .Config}}", image))
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    inside = ["docker", "exec", stack.container(service).id, *check]
    without_server = ["docker", "run", "--rm", "--network=none", "--entrypoint", check[0], image, *check[1:]]
    for path in ([], ["/readyz"]):
        assert subprocess.run([*inside, *path], check=False).returncode == 0
        assert subprocess.run([*without_server, *path], capture_output=True, check=False).returncode == 1


def test_no_process_runs_as_root(stack: Stack, service: str) -> None:
    processes = output("docker", "top", stack.container(service).id, "-eo", "pid,uid,args").splitlines()[1:]
    assert processes
    assert "0" not in {line.split()[1] for line in processes}
