"""Runs APPLICATION as a command line, such as a worker's."""

import os
import shlex
import shutil
import signal
import sys
from typing import NoReturn


def run() -> NoReturn:
    """Become the command; ends with an error where its program does not exist."""
    os.environ.setdefault("PYTHONPATH", os.getcwd())  # noqa: PTH109
    line = os.environ["APPLICATION"]
    try:
        command = shlex.split(line)
    except ValueError as error:
        sys.exit(f"APPLICATION is {line!r}, which is no command line: {error}")
    if not command or not shutil.which(command[0]):
        sys.exit(f"APPLICATION is {line!r}, and there is no such program")
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python
        signal.signal(ignored, signal.SIG_DFL)
    os.execvp(command[0], command)  # noqa: S606
