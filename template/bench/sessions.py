"""What a session costs when everything is built: `test -- echo` and `dev` beside the bare Compose command that each runs."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.shell import UserError, say
from tasks.stack.stack import COMPOSE

from . import ENVIRONMENT, Copy, row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 120.0  # seconds
NOX = (sys.executable, "-m", "nox", "-s")


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Run each session, and what it is measured against, ``runs`` times in turns, in a copy of the project; seconds."""
    here = Copy(folder / "copy")
    here.nox("-s", "dev", "--", "--detach")
    port = int(here.run(*COMPOSE, "port", "echo", "8000").rpartition(":")[2])
    down(here)
    cases: dict[str, Callable[[], object]] = {
        "docker compose run --rm echo pytest": lambda: here.run(*COMPOSE, "run", "--rm", "--no-deps", "echo", "pytest"),
        "nox -s test -- echo": lambda: here.run(*NOX, "test", "--", "echo"),
        "docker compose up": lambda: until_it_answers(here, port, *COMPOSE, "up", "--detach"),
        "nox -s dev": lambda: until_it_answers(here, port, *NOX, "dev", "--", "--detach"),
        "docker compose up echo": lambda: until_it_answers(here, port, *COMPOSE, "up", "--detach", "echo"),
        "nox -s dev -- echo": lambda: until_it_answers(here, port, *NOX, "dev", "--", "echo", "--detach"),
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


def down(here: Copy) -> None:
    """Have nothing up, so that each run begins alike."""
    here.run(*COMPOSE, "down", "--remove-orphans")


def until_it_answers(here: Copy, port: int, *command: str) -> float:
    """Start a stack; return after how many seconds echo has answered, when all is up."""
    began = time.monotonic()
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, cwd=here.root, env=ENVIRONMENT, stdout=nothing, stderr=nothing) as process:
        while not answers(port):
            if time.monotonic() - began > PATIENCE:
                process.terminate()
                raise UserError(f"`{' '.join(command)}` has not brought echo up for {PATIENCE:g} s")
            time.sleep(0.01)
        return time.monotonic() - began


def answers(port: int) -> bool:
    """Whether echo does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        return connection.getresponse().read().startswith(b"METHOD: GET")
    return False
