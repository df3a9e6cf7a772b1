"""Running the services' tests again on every change, until Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, NoReturn

from ..ownership import remove_own
from ..shell import UserError, say, show, start
from ..stack.stack import leave_networks
from ..testing.containers import TESTING, container

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def watch(services: Sequence[str], pytest_args: Sequence[str]) -> NoReturn:
    """Run the services' tests on every change, until Ctrl-C; of several, each line comes with its service's name.

    Raises UserError when one of them ends by itself.
    """
    said: SimpleQueue[tuple[str, str]] = SimpleQueue()  # services and their lines; "" for the end, which no line is
    running = []
    width = max(map(len, services))
    try:
        for service in services:
            show(command := rerun(service, pytest_args), TESTING)
            # In a session of its own, so that Ctrl-C reaches nobody but us, who then put things away in order.
            process = start(
                *command,
                env=TESTING,
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
        raise UserError(f"{heard[0]}'s tests are not watched any more: their container has ended")
    finally:
        for process in running:
            process.terminate()
            process.wait()
        remove_own()
        leave_networks()


def hear(service: str, process: subprocess.Popen[str], tell: Callable[[tuple[str, str]], object]) -> None:
    """Tell what a process prints, and when it ends."""
    assert process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
    for line in process.stdout:
        tell((service, line))
    tell((service, ""))


def rerun(service: str, pytest_args: Sequence[str]) -> list[str]:
    """The plain Docker command that runs a service's tests on every change."""
    return [
        *(*container(), "--no-TTY", service),
        *("python3", "/app/rerun.py", *(["--color=yes"] if sys.stdout.isatty() else []), *pytest_args),
    ]
