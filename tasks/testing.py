"""Running the services' tests, each in its own container against the mounted source, side by side."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .compose import COMPOSE, containers, down
from .project import REPORTS
from .run import Problem, lines, run, say

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_TESTS_RAN = 5  # pytest's exit code for it


def in_containers(services: Sequence[str], pytest_args: Sequence[str]) -> dict[str, int]:
    """Run the services' tests and return pytest's exit code for each.

    One service has the terminal for itself. Of several, the output of each comes in one piece, when it has ended.
    """
    REPORTS.mkdir(exist_ok=True)
    try:
        if len(services) == 1:
            return {services[0]: run(*command(services[0], pytest_args))}
        codes = {}
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for service, code, text in pool.map(lambda service: (service, *apart(service, pytest_args)), services):
                say(f"--- {service}\n{text}")
                codes[service] = code
        return codes
    finally:
        # The tests ran in the stack's own network, which is nobody's any more unless the stack is up.
        if not containers():
            down(quiet=True)


def check(codes: dict[str, int], *, filtered: bool) -> None:
    """Raise Problem, naming them, for the parts whose pytest did not end well.

    Where the user's own arguments filter the tests, a part of which none remains is fine as long as another has some.
    """
    if not codes:
        say("nothing is concerned: no test was run")
    fine = {0, NO_TESTS_RAN} if filtered and 0 in codes.values() else {0}
    if failed := [part for part, code in codes.items() if code not in fine]:
        empty = all(codes[part] == NO_TESTS_RAN for part in failed)
        raise Problem(f"{'no test ran' if empty else 'tests failed'}: {', '.join(failed)}")


def command(service: str, pytest_args: Sequence[str]) -> list[str]:
    """The plain Docker command that runs a service's tests."""
    return [
        *(*COMPOSE, "run", "--rm", "--no-deps", "--volume", f"{REPORTS}:/app/reports", service),
        *("pytest", f"--junitxml=/app/reports/junit-{service}.xml"),
        *("--cov", f"--cov-report=xml:/app/reports/coverage-{service}.xml"),
        *(["--color=yes"] if sys.stdout.isatty() else []),
        *pytest_args,
    ]


def apart(service: str, pytest_args: Sequence[str]) -> tuple[int, str]:
    """Run a service's tests off the terminal: their exit code and their output."""
    text: list[str] = []
    code = lines(*command(service, pytest_args), on_line=text.append)
    return code, "\n".join(text)
