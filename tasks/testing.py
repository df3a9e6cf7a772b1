"""Running the services' tests, each in its own container against the mounted source, side by side."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NoReturn

from .compose import COMPOSE, containers, down
from .project import REPORTS, clone
from .run import Problem, lines, output, run, say, start

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# A healthcheck five times a second, which the first minute of a service has, would slow them down.
QUIET = {"SLIPWAY_NO_HEALTHCHECK": "true"}
WATCH = "slipway.watch"  # the label of containers that watch: the process that they watch for
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
        leave()


def watch(services: Sequence[str], pytest_args: Sequence[str]) -> NoReturn:
    """Run the services' tests on every change, until Ctrl-C; of several, each line comes with its service's name.

    Raises Problem when one of them ends by itself.
    """
    said: SimpleQueue[tuple[str, str]] = SimpleQueue()  # services and their lines; "" for the end, which no line is
    running = []
    width = max(map(len, services))
    clear()
    try:
        for service in services:
            command = rerun(service, pytest_args)
            say("$ " + shlex.join([*map("=".join, QUIET.items()), *command]))
            # In a session of its own, so that Ctrl-C reaches nobody but us, who then put things away in order.
            process = start(
                *command,
                env=QUIET,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                errors="replace",
            )
            running.append(process)
            Thread(target=hear, args=(service, process, said.put)).start()
        while line := (heard := said.get())[1]:
            say((f"{heard[0]:{width}} | " if len(services) > 1 else "") + line.rstrip("\n"))
        raise Problem(f"{heard[0]}'s tests are not watched any more: their container has ended")
    finally:
        for process in running:
            process.terminate()
            process.wait()
        clear()
        leave()


def hear(service: str, process: subprocess.Popen[str], tell: Callable[[tuple[str, str]], object]) -> None:
    """Tell what a process prints, and when it ends."""
    assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
    for line in process.stdout:
        tell((service, line))
    tell((service, ""))


def rerun(service: str, pytest_args: Sequence[str]) -> list[str]:
    """The plain Docker command that runs a service's tests on every change."""
    return [
        *(*COMPOSE, "run", "--rm", "--no-deps", "--no-TTY", "--label", f"{WATCH}={os.getpid()}", service),
        *("python3", "/app/retest.py", *(["--color=yes"] if sys.stdout.isatty() else []), *pytest_args),
    ]


def clear() -> None:
    """Remove this process's containers that watch, and those of processes that did not come to it."""
    layout = f'{{{{.ID}}}} {{{{.Label "{WATCH}"}}}}'
    filters = (f"--filter=label=slipway.clone={clone()}", f"--filter=label={WATCH}")
    found = [line.split() for line in output("docker", "ps", "--all", *filters, "--format", layout).splitlines()]
    if lost := [container for container, pid in found if int(pid) == os.getpid() or not alive(int(pid))]:
        output("docker", "rm", "--force", *lost)


def alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def leave() -> None:
    """Remove the network that tests ran in: the stack's own, and nobody's any more unless the stack is up."""
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
