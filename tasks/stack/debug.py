"""Development with a debugger: a port for an editor's, or the terminal for pdb."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from ..env import env
from ..project import ROOT
from ..shell import CommandFailed, output, run, say
from ..stack.ports import next_free
from ..stack.stack import COMPOSE, DEBUGGER, containers, urls


def settings(debug: str, attach: str) -> dict[str, str]:
    """Settings that open a port of loopback for the debugger of one service, and give one a terminal; "" is none.

    They name a Compose file, written here, that changes these services and is forgotten by whatever runs without them.
    """
    changes: dict[str, dict[str, Any]] = {}
    if debug:
        port = free_port(debug)
        say(
            f"debug {debug}: 127.0.0.1:{port}"
            + ("" if port == DEBUGGER else f", and not {DEBUGGER} as in .vscode/launch.json")
        )
        changes[debug] = {
            "environment": {"STACK_DEBUG": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
            "ports": [f"127.0.0.1:{port}:{DEBUGGER}"],
        }
    if attach:
        changes[attach] = changes.get(attach, {}) | {"stdin_open": True, "tty": True}
    if not changes:
        return {}
    path = ROOT / ".nox" / "debug.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"services": changes}), encoding="utf-8")
    return {"COMPOSE_FILE": f"{env()['COMPOSE_FILE']}{os.pathsep}{path}", "COMPOSE_ENV_FILES": ".env"}


def free_port(service: str) -> int:
    """The port that the service's debugger has already, or else the first free one from DEBUGGER on."""
    with suppress(CommandFailed):
        return int(output(*COMPOSE, "port", service, str(DEBUGGER)).rpartition(":")[2])
    return next_free(DEBUGGER)


def attach(service: str) -> None:
    """Give this terminal to a service until it ends, or until the user leaves it."""
    urls()
    say(f"{service} has this terminal, for breakpoint(); Ctrl-C, or Ctrl-P Ctrl-Q, ends the session")
    container = next(c.id for c in containers() if c.service == service)
    run("docker", "logs", container)  # what it has said, and asked, already
    run("docker", "attach", "--sig-proxy=false", container)
