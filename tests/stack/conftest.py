"""The production stack, up once for all tests here, from images that `nox -s stack` has built."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks.ownership import labels
from tasks.project import ROOT, env_prefix, service_names
from tasks.shell import UserError, output
from tasks.stack import stack as compose

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from pytest_docker.plugin import Services

# Every service on a free port of its own, beside whatever else runs on this machine.
SETTINGS = compose.stack() | {f"{env_prefix(name)}_PORT": "0" for name in service_names()}


@pytest.fixture(scope="session")
def docker_compose_command() -> str:
    os.environ.update(SETTINGS)
    return "docker compose"


@pytest.fixture(scope="session")
def docker_compose_file() -> list[str]:
    return [str(ROOT / SETTINGS["COMPOSE_FILE"])]


@pytest.fixture(scope="session")
def docker_compose_project_name() -> str:
    return SETTINGS["COMPOSE_PROJECT_NAME"]


@pytest.fixture(scope="session")
def docker_setup() -> list[str]:
    return ["up --detach --no-build"]


@pytest.fixture(scope="session")
def stack(docker_services: Services) -> Iterator[Services]:
    compose.wait(SETTINGS)
    yield docker_services
    compose.keep_log(SETTINGS)


@contextmanager
def alone(image: str) -> Iterator[str]:
    """The id of a container of its own, just started, that a test may stop."""
    started = output("docker", "run", "--detach", *labels(), "--publish=127.0.0.1::8000", image).strip()
    try:
        yield started
    finally:
        output("docker", "rm", "--force", started)


def port_of(started: str) -> int:
    """The port of this machine on which such a container answers."""
    return int(output("docker", "port", started, "8000").rpartition(":")[2])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a test that fails what state the stack is in, and what its services have said meanwhile."""
    report = yield
    with suppress(UserError):  # no engine, no log
        if report.failed:
            states = [f"{container.service} {container}" for container in compose.containers(SETTINGS)]
            said = compose.log(SETTINGS, f"--since={call.start}")[-compose.LAST_LINES :]
            report.sections.append(
                ("the stack (all it said: reports/logs/stack-production.log)", "\n".join([*states, *said]))
            )
    return report


@pytest.fixture
def echo(stack: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.port_for('echo', 8000)}", timeout=10) as client:
        yield client


@pytest.fixture
def journal(stack: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.port_for('journal', 8000)}", timeout=30) as client:
        yield client
