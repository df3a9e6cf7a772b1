"""What the stack's compose files can get wrong, and which ports services get."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from .. import ownership
from ..machine import podman
from ..shell import UserError
from ..stack import ports
from ..stack import stack as compose
from .conftest import write_tool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, object]]:
    """The services of a stack that is not up, with nothing set in .env."""
    services: dict[str, dict[str, object]] = {}
    monkeypatch.setattr(ports, "model", lambda: {"services": services})
    monkeypatch.setattr(ports, "containers", list)
    monkeypatch.setattr(ports, "env", dict)
    return services


def port(number: int) -> dict[str, object]:
    return {"ports": [{"published": str(number), "host_ip": "127.0.0.1", "target": 8000}]}


def test_two_services_that_want_one_port(stack: dict[str, dict[str, object]]) -> None:
    stack |= {"echo": port(5000), "pilot": port(5000)}
    with pytest.raises(UserError, match="echo and pilot both want port 5000 of this machine"):
        ports.free(["echo", "pilot"])


def test_a_taken_port_gives_way_to_the_next(
    stack: dict[str, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        stack |= {"echo": port(taken)}
        assert int(ports.free(["echo"])["ECHO_PORT"]) > taken
        monkeypatch.setattr(ports, "env", lambda: {"ECHO_PORT": str(taken)})
        with pytest.raises(UserError, match="is taken, and ECHO_PORT asks for it"):
            ports.free(["echo"])


def test_a_fault_in_a_compose_file_is_told_as_one(no_docker: Path) -> None:
    write_tool(no_docker / "docker", "echo 'dependency cycle detected: echo -> journal -> echo' >&2; exit 15")
    with pytest.raises(
        UserError, match="compose files have a fault: dependency cycle detected: echo -> journal -> echo"
    ):
        compose.model()


@pytest.mark.parametrize(("flavor", "change", "expected"), [("slim", "", "early"), ("tiny", "base:2", "late")])
def test_what_was_asked_ahead_counts_unless_a_setting_is_another_by_now(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, flavor: str, change: str, expected: str
) -> None:
    write_tool(no_docker / "docker", """echo "{\\"said\\": \\"$SAID\\"}\"""")
    monkeypatch.setenv("STACK_BASE", "")
    monkeypatch.setenv("SAID", "early")
    with compose.foreseen(flavor):
        monkeypatch.setenv("STACK_BASE", change)
    monkeypatch.setenv("SAID", "late")
    assert compose.model(compose.flavored(flavor)) == {"said": expected}


def test_what_tests_the_stack_bears_this_sessions_name(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ownership.OWNER, raising=False)
    write_tool(no_docker / "docker", "exit 0")
    with compose.production_stack_removed():
        assert os.environ.pop(ownership.OWNER) == str(os.getpid())


def test_what_podman_cannot_do_is_told_beforehand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STACK_ENGINE", "podman")
    with (
        pytest.raises(UserError, match="tests/stack asks what Podman answers otherwise"),
        compose.production_stack_removed(),
    ):
        pass
    monkeypatch.setattr(podman, "SYSTEMD", tmp_path / "none")
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UserError, match="Podman needs systemd for health checks"):
        compose.up(["echo"], {})
