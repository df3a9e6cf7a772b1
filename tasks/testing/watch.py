"""Running the services' tests again on every change, until Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from subprocess import DEVNULL, PIPE, STDOUT, Popen
from threading import Thread
from typing import NoReturn

from ..shell import RUNNING, UserError, show, start
from ..stack.lifecycle import remove_tested_stacks
from ..terminal import say
from .containers import start_neighbours, start_of_command


def watch(services: Sequence[str], pytest_args: Sequence[str]) -> NoReturn:
    """Run the services' tests on every change, until Ctrl-C; of several, each line comes with its service's name.

    Raises UserError when one of them ends by itself.
    """
    printed: SimpleQueue[tuple[str, str]] = SimpleQueue()  # services and their lines; "" is the end of a process
    try:
        start_neighbours(services)
        for service in services:
            show(command := rerun(service, pytest_args))
            # In a session of its own: Ctrl-C reaches only this process, which then cleans up in order.
            child = start(*command, start_new_session=True, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
            Thread(target=forward, args=(service, child, printed.put), daemon=True).start()
        while (item := printed.get())[1]:
            say((f"{item[0]:{max(map(len, services))}} | " if len(services) > 1 else "") + item[1].rstrip("\n"))
        raise UserError(f"{item[0]}'s tests are not watched any more: their container has ended")
    finally:
        for process in list(RUNNING):
            process.kill()  # Docker's client can miss a signal in its first moments; below, what it leaves is removed
            process.wait()
        remove_tested_stacks()


def forward(service: str, process: Popen[str], put: Callable[[tuple[str, str]], object]) -> None:
    """Pass on what a process prints, and its end."""
    with process:
        for line in process.stdout or ():
            put((service, line))
    put((service, ""))


def rerun(service: str, pytest_args: Sequence[str]) -> list[str]:
    """The plain Docker command that runs a service's tests on every change."""
    color = ["--color=yes"] if sys.stdout.isatty() else []
    return [*start_of_command(), "--no-TTY", service, "python3", "/app/rerun.py", *color, *pytest_args]
