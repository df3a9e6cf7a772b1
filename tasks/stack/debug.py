"""Development with a debugger: a port for an editor's, or the terminal for pdb."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..project import ROOT
from ..shell import CommandFailed, run
from ..terminal import say
from .lifecycle import urls
from .model import DEBUG_PORT, Stack
from .ports import is_taken

OVERRIDE = ROOT / ".nox" / "debug.json"


def with_debugger(stack: Stack, debug: str, attach: str) -> Stack:
    """The stack with a port of 127.0.0.1 for the debugger of one service, and a terminal for one; "" is none.

    A Compose file, written here, changes these services; the next session without it undoes that.
    """
    changes: dict[str, dict[str, Any]] = {}
    if debug:
        port = debug_port(stack, debug)
        say(f"debug {debug}: 127.0.0.1:{port}" + f", not {DEBUG_PORT} as in .vscode/launch.json" * (port != DEBUG_PORT))
        environment = {"STACK_DEBUG": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        changes[debug] = {"environment": environment, "ports": [f"127.0.0.1:{port}:{DEBUG_PORT}"]}
    if attach:
        changes[attach] = changes.get(attach, {}) | {"stdin_open": True, "tty": True}
    if not changes:
        return stack
    OVERRIDE.parent.mkdir(exist_ok=True)
    OVERRIDE.write_text(json.dumps({"services": changes}), encoding="utf-8")
    return replace(stack, files=(*stack.files, str(OVERRIDE)))


def debug_port(stack: Stack, service: str) -> int:
    """The port that the service's debugger has already, or else the first free one from DEBUG_PORT on."""
    with suppress(CommandFailed, ValueError):
        return int(stack.compose("port", service, str(DEBUG_PORT)).rpartition(":")[2])
    return next(port for port in range(DEBUG_PORT, 1 << 16) if not is_taken("127.0.0.1", port))


def attach_terminal(stack: Stack, service: str) -> None:
    """Give this terminal to a service until it ends, or until the user leaves it."""
    urls(stack)
    say(f"{service} has this terminal, for breakpoint(); Ctrl-C, or Ctrl-P Ctrl-Q, ends the session")
    container = stack.container(service).id
    run("docker", "logs", container)  # what it has printed, and asked, already
    run("docker", "attach", "--sig-proxy=false", container)
