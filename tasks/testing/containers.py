"""Running the services' tests, each in its own container against the mounted source, side by side."""

from __future__ import annotations

import re
import shutil
import sys
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from ..ownership import LABEL, owner, remove_own
from ..project import REPORTS
from ..shell import UserError, lines, run, run_parallel, say
from ..stack.stack import COMPOSE, leave_networks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NO_TESTS_RAN = 5  # pytest's exit code for it
TESTING = {"STACK_TESTING": "true"}  # what docker/service.yaml asks
CLEAR = "\r\x1b[K"  # what empties the terminal's last line
DONE = 100  # per cent


def in_containers(services: Sequence[str], pytest_args: Sequence[str]) -> dict[str, int]:
    """Run the services' tests and return pytest's exit code for each.

    One service has the terminal for itself. Of several, the output of each comes in one piece, when it has ended.
    """
    REPORTS.mkdir(exist_ok=True)
    try:
        if len(services) == 1:
            return {services[0]: run(*command(services[0], pytest_args), env=TESTING)}
        codes = {}
        progress = Progress(len(services))
        jobs = {service: partial(apart, service, pytest_args, partial(progress, service)) for service in services}
        for service, (code, text) in run_parallel(jobs):
            codes[service] = code
            progress.say(f"--- {service} ({len(codes)} of {len(services)})\n{text}")
        return codes
    except BaseException:
        remove_own()
        raise
    finally:
        # The tests ran in the stack's own network, which is nobody's any more unless the stack is up.
        leave_networks()


def check(codes: dict[str, int], *, filtered: bool) -> None:
    """Raise UserError, naming them, for the parts whose pytest did not end well.

    Where the user's own arguments filter the tests, a part of which none remains is fine as long as another has some.
    """
    if not codes:
        say("nothing is concerned: no test was run")
    fine = {0, NO_TESTS_RAN} if filtered and 0 in codes.values() else {0}
    if failed := [part for part, code in codes.items() if code not in fine]:
        empty = all(codes[part] == NO_TESTS_RAN for part in failed)
        raise UserError(f"{'no test ran' if empty else 'tests failed'}: {', '.join(failed)}")


def container() -> list[str]:
    """The beginning of the plain Docker command that runs something in a service's container, until its name."""
    return [*COMPOSE, "run", "--rm", "--no-deps", f"--label={LABEL}={owner()}"]


def command(service: str, pytest_args: Sequence[str]) -> list[str]:
    """The plain Docker command that runs a service's tests."""
    return [
        *(*container(), "--volume", f"{REPORTS}:/app/reports", service),
        *("pytest", f"--junitxml=/app/reports/junit-{service}.xml"),
        *("--cov", "--cov-config=/app/pyproject.toml", f"--cov-report=xml:/app/reports/coverage-{service}.xml"),
        *(["--color=yes"] if sys.stdout.isatty() else []),
        *pytest_args,
    ]


def apart(service: str, pytest_args: Sequence[str], on_line: Callable[[str], None]) -> tuple[int, str]:
    """Run a service's tests off the terminal: their exit code and their output."""
    text: list[str] = []

    def take(line: str) -> None:
        text.append(line)
        on_line(line)

    return lines(*command(service, pytest_args), on_line=take, env=TESTING), "\n".join(text)


class Progress:
    """How far the tests of each service are, on the last line of the terminal; nothing where there is none."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.percent: dict[str, int] = {}
        self.lock = Lock()

    def __call__(self, service: str, line: str) -> None:
        """Take a line of pytest's."""
        found = re.search(r"\[ *(\d+)%\]", line)
        with self.lock:
            self.percent[service] = int(found[1]) if found else self.percent.get(service, 0)
            self.draw()

    def say(self, text: str) -> None:
        """Print what is to stay."""
        with self.lock:
            say(f"{CLEAR}{text}" if sys.stdout.isatty() else text)
            self.draw()

    def draw(self) -> None:
        """Draw the line."""
        if sys.stdout.isatty():
            done = sum(percent == DONE for percent in self.percent.values())
            under_way = [f"{service} {percent} %" for service, percent in self.percent.items() if percent != DONE]
            line = f"{done} of {self.number} done; {', '.join(under_way)}"
            print(CLEAR + line[: shutil.get_terminal_size().columns - 1] if under_way else CLEAR, end="", flush=True)
