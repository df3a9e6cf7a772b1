"""Running tests side by side; the services' run each in its own container against the mounted source."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..images import bake
from ..images.target import NEED_NEIGHBOURS
from ..ownership import project_of_tests, session_id
from ..project import REPORTS, own_tests
from ..shell import UserError, lines, run, run_parallel
from ..stack import lifecycle
from ..stack.lifecycle import RUN
from ..stack.model import development, under_test
from ..terminal import Status, say

PART = "services"  # of the Compose projects of a session's tests: `dev` may run or end beside them
INTERRUPTED, NO_TESTS_RAN = 2, 5  # pytest's exit codes for these


def start_neighbours(services: Sequence[str]) -> None:
    """Start, for as long as this session lasts, what services' tests need that have TESTS_NEED_NEIGHBOURS.

    Raises UserError as `lifecycle.up` and `lifecycle.wait` do.
    """
    stack = development()
    needing = [service for service in services if NEED_NEIGHBOURS in stack.service(service)["build"]["args"]]
    if wanted := sorted({name for service in needing for name in stack.service(service).get("depends_on", ())}):
        bake.build(stack.with_neighbours(needing))
        lifecycle.up(tested := under_test(stack, PART), wanted)
        lifecycle.wait(tested)


def side_by_side(commands: Mapping[str, Sequence[str]], prepare: Callable[[str], object]) -> dict[str, int]:
    """Run pytest's ``commands``, by what they test, in parallel, and return the exit code of each.

    ``prepare`` is called with what is tested before its command; if it raises UserError, that has failed. A single command
    has the terminal for itself. Of several, the output of each comes in one piece, when it has ended.
    """
    if len(commands) == 1:
        (name,) = commands
        prepare(name)
        code = run(*commands[name])
        report = REPORTS / f"junit-{name}.xml"
        # Ctrl-C on a container's terminal reaches pytest alone; the code is also that of errors in collection.
        if code == INTERRUPTED and report.exists() and 'errors="0"' in report.read_text(encoding="utf-8"):
            raise KeyboardInterrupt
        return {name: code}
    with Status() as status:

        def off_the_terminal(name: str) -> tuple[int, str]:
            said: list[str] = []

            def on_line(line: str) -> None:
                said.append(line)
                status.text = f"{name}: {line}"

            try:
                prepare(name)
            except UserError as error:
                return 1, str(error)
            return lines(*commands[name], on_line=on_line), "\n".join(said)

        jobs = {name: partial(off_the_terminal, name) for name in commands}
        ended = run_parallel(jobs, lambda name, result: say(f"--- {name}\n{result[1]}"))
    return {name: code for name, (code, _) in ended.items()}


def check(codes: Mapping[str, int], *, filtered: bool) -> None:
    """Raise UserError, naming them, for the services and suites whose pytest failed.

    Where the user's arguments filter the tests, one of which none remains is fine as long as another has some. A service
    without tests is fine, too, and gets a warning.
    """
    if not codes:
        say("nothing is affected by the change; no tests were run")
    empty = [part for part, code in codes.items() if code == NO_TESTS_RAN]
    if failed := [part for part, code in codes.items() if code not in {0, NO_TESTS_RAN}]:
        raise UserError(f"tests failed: {', '.join(failed)}")
    if empty and filtered and len(empty) == len(codes):
        raise UserError(f"no test matches: {', '.join(empty)}")
    if empty and not filtered:
        say(f"warning: no tests in {', '.join(f'services/{part}/tests' for part in empty)}: nothing was tested there")


def start_of_command() -> list[str]:
    """The beginning of a plain Docker command for a service's tests: a container in this session's project of tests."""
    # docker/service.yaml reads the first variable.
    return ["env", "STACK_TESTING=true", f"COMPOSE_PROJECT_NAME={project_of_tests(session_id(), PART)}", *RUN]


def command(service: str, pytest_args: Sequence[str]) -> list[str]:
    """The Docker command that runs a service's tests, with coverage unless its own test tools lack pytest-cov."""
    tools = own_tests(service)
    coverage = ["--cov", "--cov-config=/app/pyproject.toml", f"--cov-report=xml:/app/reports/coverage-{service}.xml"]
    return [
        *(*start_of_command(), "--volume", f"{REPORTS}:/app/reports", service),
        *("pytest", f"--junitxml=/app/reports/junit-{service}.xml", "-o", f"cache_dir=/app/reports/.pytest-{service}"),
        *(coverage if not tools or "pytest-cov" in tools else []),
        *(["--color=yes"] if sys.stdout.isatty() else []),
        *pytest_args,
    ]
