"""Which ports services get, and that nox and plain Compose see the same ones."""

from __future__ import annotations

import errno
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from .. import env, ownership, session
from ..images import bases
from ..machine import setup
from ..shell import UserError
from ..stack import model, ports
from ..stack.model import Stack
from .conftest import fake_docker

STACK = Stack("ours-1", ("docker/compose.yaml",), "dev")


def service(*published: str) -> str:
    """A service's part of a model, as JSON in shell's double quotes: a port may be a variable."""
    found = [{"published": port, "host_ip": "127.0.0.1", "target": 8000, "protocol": "tcp"} for port in published]
    more = [{"target": 9}, {"published": published[0], "protocol": "udp"}, {**found[0], "host_ip": "::1"}]
    return json.dumps({"ports": found + more}).replace('"', '\\"')


class Machine:
    """A machine on which ports are taken, and a stack whose service `pilot` wants port 5000."""

    def __init__(self, tools: Path, project: Path) -> None:
        self.tools = tools
        self.project = project
        self.taken: set[int] = set()
        self.has("")

    def has(self, containers: str, **others: str) -> None:
        """Let the engine have containers, and the stack further services with these ports."""
        ports = {"pilot": "${PILOT_PORT:-5000}", **others}
        services = ", ".join(f'\\"{name}\\": {service(*port.split())}' for name, port in ports.items())
        # Like Compose: variables of the environment, even empty ones, win over those of .env.
        read = f'[ -n "${{PILOT_PORT+set}}" ] || eval "$(grep -s ^PILOT_PORT= "{self.project}/.env" | tail -1)"'
        config = f'{read}\necho "{{\\"services\\": {{{services}}}}}"'
        fake_docker(self.tools, {"compose config": config, "ps --all": containers})
        variables = " ".join(f"{name.upper()}_PORT" for name in ports)
        (self.project / "services/pilot/compose.yaml").write_text(f"# variables of all ports: {variables}")


@pytest.fixture
def machine(no_docker: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(no_docker, project)
    monkeypatch.setattr(ports, "is_taken", lambda host, port: host == "127.0.0.1" and port in found.taken)
    return found


@pytest.fixture
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which everything else is ready."""
    monkeypatch.setattr(setup, "ensure", lambda: {"STACK_ENGINE": "docker"})
    monkeypatch.setattr(bases, "ensure", lambda: {"STACK_BASE": "base:1"})
    monkeypatch.setattr(ownership, "remove_stale", lambda: None)


def test_a_free_port_is_kept(machine: Machine) -> None:
    machine.has("", other="5001")
    assert ports.choose(STACK) == {}


def test_a_taken_port_gives_way_to_the_next(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.taken = {5000, 5001}
    assert ports.choose(STACK) == {"PILOT_PORT": "5002"}
    assert capsys.readouterr().out == "setup: port 5000 is taken: pilot gets 5002\n"
    env.write_env({"PILOT_PORT": "5002"})
    assert ports.choose(STACK) == {"PILOT_PORT": "5002"}
    assert capsys.readouterr().out == ""  # it is told once


def test_two_services_do_not_get_the_same_port(machine: Machine) -> None:
    machine.has("", scout="5001")
    machine.taken = {5000}
    assert ports.choose(STACK) == {"PILOT_PORT": "5001", "SCOUT_PORT": "5002"}


def test_two_services_that_want_one_port(machine: Machine) -> None:
    machine.has("", other="5000")
    with pytest.raises(UserError, match="other and pilot both want port 5000: change it for one of them"):
        ports.choose(STACK)


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_taken_port_that_the_user_has_set_is_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    machine.taken = {7000}
    if where == ".env":
        env.ENV.write_text("PILOT_PORT=7000\n")
    else:
        monkeypatch.setenv("PILOT_PORT", "7000")
    with pytest.raises(UserError, match="port 7000 is taken, and PILOT_PORT asks for it: set another one, or stop"):
        ports.choose(STACK)


def test_a_port_that_the_stack_itself_holds_is_no_conflict(machine: Machine) -> None:
    machine.has("printf '1\\tpilot\\trunning\\tUp 1 s\\t127.0.0.1:5000->8000/tcp\\n'")
    machine.taken = {5000}
    assert ports.choose(STACK) == {}


def test_a_further_port_does_not_move_the_first_one(machine: Machine) -> None:
    machine.has(
        "printf '1\\tscout\\trunning\\tUp 1 s\\t127.0.0.1:6000-6001->8000-8001/tcp\\n'", scout="6000 6001 7000-7009"
    )
    machine.taken = {6000, 6001, 7000}
    assert ports.choose(STACK) == {}
    machine.has("", scout="6000 6001")
    machine.taken = {6001}
    with pytest.raises(UserError, match=r"^port 6001 is taken, and scout asks for it: set another one, or stop"):
        ports.choose(STACK)


def test_a_port_without_a_variable_is_not_moved(machine: Machine) -> None:
    machine.has("", database="5432")
    (machine.project / "services/pilot/compose.yaml").write_text("${PILOT_PORT:-5000}, and 5432")
    machine.taken = {5000, 5432}
    with pytest.raises(UserError, match=r"^port 5432 is taken, and database asks for it: set another one, or stop"):
        ports.choose(STACK)


def test_the_variables_port_need_not_be_the_first_one(machine: Machine) -> None:
    """It is the port of the container's 8000: a fixed one stands in front of it here."""
    machine.has("", scout="6000")
    model = replace(STACK).model  # which `choose` gets, too
    model["services"]["scout"]["ports"].insert(0, {"published": "9100", "target": 9100})
    machine.taken = {6000}
    assert ports.choose(STACK) == {"SCOUT_PORT": "6001"}
    env.ENV.write_text("SCOUT_PORT=6000\n")
    with pytest.raises(UserError, match=r"^port 6000 is taken, and SCOUT_PORT asks for it"):
        ports.choose(STACK)


def another_session(*, choose_ports: bool = False) -> None:
    model._config.cache_clear()  # it is another process
    session.ready(choose_ports=choose_ports)


@pytest.mark.usefixtures("ready")
def test_a_chosen_port_is_in_env_until_the_usual_one_is_free_again(machine: Machine) -> None:
    machine.taken = {5000}
    another_session(choose_ports=True)
    assert env.env()["PILOT_PORT"] == "5001"
    assert "PILOT_PORT" not in env.chosen_by_user()
    before = env.read()
    another_session()  # which runs no stack
    another_session(choose_ports=True)
    assert env.read() == before
    machine.taken = set()
    another_session()
    assert env.read() == before  # what runs meanwhile has this port
    another_session(choose_ports=True)
    assert "PILOT_PORT" not in env.env()
    assert env.env()["STACK_BASE"] == "base:1"


@pytest.mark.usefixtures("ready")
def test_the_users_port_takes_the_place_of_a_chosen_one(machine: Machine) -> None:
    machine.taken = {5000}
    another_session(choose_ports=True)
    with env.ENV.open("a") as file:
        file.write("PILOT_PORT=7000\n")
    another_session(choose_ports=True)
    assert env.read().count("PILOT_PORT=") == 1
    assert env.env()["PILOT_PORT"] == "7000"


def test_of_a_range_docker_takes_a_free_port(machine: Machine) -> None:
    machine.has("", scout="5000-5010")
    assert ports.choose(STACK) == {}


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere", "::1"])
def test_an_address_that_cannot_be_listened_at_has_no_taken_ports(host: str) -> None:
    """Every other port would fail, too: what is wrong is told by Docker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        assert not ports.is_taken(host, free.getsockname()[1])


def test_a_port_of_ipv6_is_taken_where_something_listens() -> None:
    try:
        listening = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with listening:
        assert ports.is_taken("::1", listening.getsockname()[1])


def test_a_port_is_taken_where_something_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert ports.is_taken("127.0.0.1", port)
    assert not ports.is_taken("127.0.0.1", port)


def test_a_port_that_only_the_engine_may_open_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", denied)
    monkeypatch.setattr(socket.socket, "bind", denied)
    assert not ports.is_taken("127.0.0.1", 80)
