"""Runs APPLICATION as a command line, such as a worker's, and is its init.

A command that is PID 1 itself would not get SIGTERM unless it handles that, and would have to reap orphans.
"""

import os
import shlex
import shutil
import signal
import sys


def words() -> list[str]:
    """The words of APPLICATION; ends with an error where its program does not exist."""
    line = os.environ["APPLICATION"]
    try:
        found = shlex.split(line)
    except ValueError as error:
        sys.exit(f"APPLICATION is {line!r}, which is no command line: {error}")
    if not found or not shutil.which(found[0]):
        sys.exit(f"APPLICATION is {line!r}, and there is no such program")
    return found


def run() -> int:
    """Run the command, pass on signals, reap orphans; return its exit code, or 128 and the signal that has ended it."""
    os.environ.setdefault("PYTHONPATH", os.getcwd())  # noqa: PTH109
    command, signals = words(), signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # those that are blocked wait, for PID 1 as well
    # Python ignores these two.
    child = os.posix_spawnp(command[0], command, os.environ, setsigmask=[], setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
    while True:
        if (number := signal.sigwait(signals)) != signal.SIGCHLD:
            os.kill(child, number)
            continue
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            if ended.si_pid == child:
                return ended.si_status + 128 * (ended.si_code != os.CLD_EXITED)
