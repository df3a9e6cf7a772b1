"""The production stack, up once for all tests here, from images that `nox -s stack` has built."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks import compose, services
from tasks.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_docker.plugin import Services

# Every service on a free port of its own, beside whatever else runs on this machine.
SETTINGS = compose.stack() | {f"{name.upper().replace('-', '_')}_PORT": "0" for name in services.names()}


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
def stack(docker_services: Services) -> Services:
    compose.wait(SETTINGS)
    return docker_services


@pytest.fixture
def echo(stack: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.port_for('echo', 8000)}", timeout=10) as client:
        yield client


@pytest.fixture
def journal(stack: Services) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.port_for('journal', 8000)}", timeout=30) as client:
        yield client
