"""What a session costs when everything is built: `test` and `dev` beside the plain Compose command that each runs."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks.shell import UserError
from tasks.stack.model import COMPOSE
from tasks.terminal import say
from tasks.tests.slow.clones import ENVIRONMENT, Clone

from . import SERVICE, row

TIMEOUT_S = 120.0
NOX = (sys.executable, "-m", "nox", "-s")


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Run each session, and what it is measured against, ``runs`` times in turns, in a copy of the project; seconds."""
    here = Clone.copy_of_this(folder / "copy")
    here.nox("-s", "dev", "--", "--detach")
    port = int(here.compose("port", SERVICE, "8000").rpartition(":")[2])
    down(here)
    cases: dict[str, Callable[[], object]] = {
        f"docker compose run --rm {SERVICE} pytest": lambda: here.compose(
            "run", "--rm", "--no-deps", "--no-TTY", SERVICE, "pytest"
        ),
        f"nox -s test -- {SERVICE}": lambda: here.nox("-s", "test", "--", SERVICE),
        "docker compose up": lambda: until_it_answers(here, port, *COMPOSE, "up", "--detach"),
        "nox -s dev": lambda: until_it_answers(here, port, *NOX, "dev", "--", "--detach"),
        f"docker compose up {SERVICE}": lambda: until_it_answers(here, port, *COMPOSE, "up", "--detach", SERVICE),
        f"nox -s dev -- {SERVICE}": lambda: until_it_answers(here, port, *NOX, "dev", "--", SERVICE, "--detach"),
    }
    times: dict[str, list[float]] = {case: [] for case in cases}
    try:
        for number in range(runs):
            for case, do in cases.items():
                began = time.monotonic()
                took = do()
                times[case].append(took if isinstance(took, float) else time.monotonic() - began)
                down(here)
            say(f"{number + 1} runs of {runs}")
    finally:
        here.nox("-s", "clean")
    pairs = list(zip(list(cases)[::2], list(cases)[1::2], strict=True))
    return {
        "bench": "sessions",
        "rows": [row(ours, times[ours], "s", bare, times[bare]) for bare, ours in pairs],
    }


def down(here: Clone) -> None:
    """Stop the stack, so that each run begins alike."""
    here.compose("down", "--remove-orphans")


def until_it_answers(here: Clone, port: int, *command: str) -> float:
    """Start a stack; return after how many seconds the sample has answered, when everything has started."""
    began = time.monotonic()
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=here.root, env=ENVIRONMENT, stdout=nothing, stderr=nothing) as process:
        while not answers(port):
            if time.monotonic() - began > TIMEOUT_S:
                process.terminate()
                raise UserError(f"`{' '.join(command)}` has not started {SERVICE} within {TIMEOUT_S:g} s")
            time.sleep(0.01)
        return time.monotonic() - began


def answers(port: int) -> bool:
    """Whether the sample answers at this port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        return connection.getresponse().read().startswith(b"METHOD: GET")
    return False
