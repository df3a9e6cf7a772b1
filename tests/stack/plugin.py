"""Pytest plugin for tests of the production stack: tests/stack and services/*/stack.

``stack`` is the production stack of all services. The files run in parallel (pytest-xdist), each in one of two processes that
have a stack each; a test that stops a service must leave the stack as it was.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from pytest_docker.plugin import get_docker_services

from tasks.ownership import labels
from tasks.project import ROOT, service_names
from tasks.shell import UserError, output
from tasks.stack import lifecycle
from tasks.stack.model import COMPOSE, Stack, production, under_test

TIMEOUT_S = 40
STACK = under_test(production(), os.environ.get("PYTEST_XDIST_WORKER", ""))


@contextmanager
def started(stack: Stack, folder: Path) -> Iterator[Stack]:
    """A stack that runs while the block does, with free ports of this machine; ``folder`` takes a Compose file for them.

    Raises UserError where it does not start.
    """
    running = with_free_ports(stack, folder / "ports.yaml")
    os.environ.update(running.env)  # for what pytest-docker runs
    files = [str(ROOT / file) for file in running.files]
    # The images are those that Compose has built, of other Dockerfiles than docker/Dockerfile.
    down = ["--progress=quiet down --volumes --rmi=local --timeout=0"]
    with get_docker_services(" ".join(COMPOSE), files, running.project, [], down):
        lifecycle.up(running)  # says why a stack does not start
        lifecycle.wait(running)
        yield running


def with_free_ports(stack: Stack, override: Path) -> Stack:
    """The stack with any free port in place of each that a compose.yaml fixes, so that several run at once."""
    ports = {name: spec.get("ports", ()) for name, spec in stack.model["services"].items()}
    fixed = {name: found for name, found in ports.items() if any(port.get("published", "0") != "0" for port in found)}
    free = {name: json.dumps([port | {"published": "0"} for port in found]) for name, found in fixed.items()}
    lines = [f"  {name}: {{ports: !override {found}}}\n" for name, found in free.items()]
    override.write_text("".join(["services:\n", *lines]), encoding="utf-8")
    return replace(stack, files=(*stack.files, str(override))) if fixed else stack


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The running stack, every service on a free port."""
    try:
        with started(STACK, tmp_path_factory.mktemp("stack")) as running:
            yield running
            lifecycle.keep_log(running)
    except UserError as error:
        request.session.shouldfail = str(error)  # else every test would tell it again
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def processes() -> list[str]:
    """Every Compose service that runs an image of ours, web servers and workers; not the jobs, which end."""
    specs = STACK.model["services"].values()
    needs = [item for spec in specs for item in spec.get("depends_on", {}).items()]
    jobs = {name for name, need in needs if need["condition"] == "service_completed_successfully"}
    return [name for name in STACK.processes(service_names()) if name not in jobs]


@pytest.fixture
def url_of(stack: Stack) -> Callable[[str], str]:
    """A function: the URL of a service on this machine, which changes when its container is restarted."""
    return lambda service: f"http://127.0.0.1:{stack.container(service).port}"


@pytest.fixture(scope="session")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Iterator[Stack]]:
    """A function: with a Compose file's text as changes, a context manager for a stack of the test's own."""

    @contextmanager
    def make(changes: str) -> Iterator[Stack]:
        folder = tmp_path_factory.mktemp("stack")
        override = folder / "override.yaml"
        override.write_text(changes, encoding="utf-8")
        part = "-".join(filter(None, (os.environ.get("PYTEST_XDIST_WORKER"), "own")))
        with started(replace(under_test(production(), part), files=(*STACK.files, str(override))), folder) as own:
            yield own

    return make  # type: ignore[return-value]  # contextmanager's type has no short name


@contextmanager
def alone(image: str) -> Iterator[str]:
    """A container of an image by itself, just started, that a test may stop; yields its id."""
    started = output("docker", "run", "--detach", *labels(), "--publish=127.0.0.1::8000", image).strip()
    try:
        yield started
    finally:
        output("docker", "rm", "--force", started)


def port_of(started: str) -> int:
    """The port of this machine on which such a container answers."""
    return int(output("docker", "port", started, "8000").rpartition(":")[2])


def wait_until(met: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Wait for a condition; one that raises httpx.TransportError or UserError is not met yet."""
    until = time.monotonic() + timeout_s
    while True:
        with suppress(httpx.TransportError, UserError):
            if met():
                return
        assert time.monotonic() < until, f"not met within {timeout_s} s"
        time.sleep(0.1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what state the stack is in, and what its services have logged meanwhile."""
    report = yield
    with suppress(UserError):  # no engine, no log
        if report.failed:
            states = [f"{container.service} {container}" for container in STACK.containers()]
            logged = lifecycle.log(STACK, f"--since={call.start}")[-lifecycle.LAST_LINES :]
            title = "the stack (its whole log: reports/logs/stack-production.log)"
            report.sections.append((title, "\n".join([*states, *logged])))
    return report
