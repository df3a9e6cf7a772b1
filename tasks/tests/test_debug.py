"""A port for an editor's debugger, and the terminal for pdb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ..shell import UserError
from ..stack import debug
from ..stack.model import DEBUG_PORT, Stack
from .conftest import calls, fake_docker

pytestmark = pytest.mark.usefixtures("project")
STACK = Stack("ours-1", ("docker/compose.yaml",), "dev", {"STACK_SESSION": "x"})
NO_PORT = {f"compose port pilot {DEBUG_PORT}": "echo 'no port 5678/tcp for container' >&2; exit 1"}


def changes(stack: Stack) -> dict[str, object]:
    """What the stack's last file says of pilot."""
    assert stack.files[:-1] == STACK.files
    return dict(json.loads(debug.OVERRIDE.read_text())["services"]["pilot"])


def test_without_a_debugger_the_stack_is_the_same(no_docker: Path) -> None:
    assert debug.with_debugger(STACK, "", "") is STACK
    assert not debug.OVERRIDE.exists()
    assert calls(no_docker) == []


@pytest.mark.parametrize("taken", [False, True])
def test_a_debugger_gets_a_port_of_this_machine(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: bool
) -> None:
    fake_docker(no_docker, NO_PORT)
    monkeypatch.setattr(debug, "is_taken", lambda host, port: taken and (host, port) == ("127.0.0.1", DEBUG_PORT))
    stack = debug.with_debugger(STACK, "pilot", "")
    port = DEBUG_PORT + taken
    found = changes(stack)
    assert found["ports"] == [f"127.0.0.1:{port}:{DEBUG_PORT}"]
    assert found["environment"] == {"STACK_DEBUG": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    assert stack.settings == STACK.settings
    said = capsys.readouterr().out
    assert said.startswith(f"debug pilot: 127.0.0.1:{port}")
    assert ("not 5678 as in .vscode/launch.json" in said) == taken


def test_a_debugger_keeps_the_port_that_it_has(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debug, "is_taken", pytest.fail)
    fake_docker(no_docker, {f"compose port pilot {DEBUG_PORT}": "echo 127.0.0.1:5680"})
    assert debug.debug_port(STACK, "pilot") == 5680


def test_a_service_can_have_the_terminal_and_a_debugger(no_docker: Path) -> None:
    found = changes(debug.with_debugger(STACK, "", "pilot"))
    assert found == {"stdin_open": True, "tty": True}
    fake_docker(no_docker, NO_PORT)
    found = changes(debug.with_debugger(STACK, "pilot", "pilot"))
    assert set(found) == {"environment", "ports", "stdin_open", "tty"}


def test_the_terminal_shows_what_was_printed_before(no_docker: Path, capfd: pytest.CaptureFixture[str]) -> None:
    listed = "printf '12\\tpilot\\trunning\\tUp 1 s\\t127.0.0.1:5001->8000/tcp\\n'"
    fake_docker(no_docker, {"ps --all": listed, "logs 12": "echo '(Pdb) '", "attach --sig-proxy=false 12": "echo q"})
    debug.attach_terminal(STACK, "pilot")
    lines = [line for line in capfd.readouterr().out.splitlines() if not line.startswith("$ ")]
    assert lines[0] == "pilot  http://127.0.0.1:5001"
    assert lines[2:] == ["(Pdb) ", "q"]
    fake_docker(no_docker, {"ps --all": ""})
    with pytest.raises(UserError, match="no container of pilot is running"):
        debug.attach_terminal(STACK, "pilot")
