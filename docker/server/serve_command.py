"""Runs APPLICATION as a command line, such as a worker's."""

import os
import shlex
import shutil
import signal
import sys
from typing import NoReturn


def words() -> list[str]:
    """The command; ends with an error where its program does not exist, also while an image is built."""
    line = os.environ["APPLICATION"]
    try:
        command = shlex.split(line)
    except ValueError as error:
        sys.exit(f"APPLICATION is {line!r}, which is no command line: {error}")
    if not command or not shutil.which(command[0]):
        sys.exit(f"APPLICATION is {line!r}, and there is no such program")
    return command


def run() -> NoReturn:
    """Become the command."""
    os.environ.setdefault("PYTHONPATH", os.getcwd())  # noqa: PTH109
    command = words()
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
        signal.signal(ignored, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606
