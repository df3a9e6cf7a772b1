"""The init of a container whose server or command is no init: PID 1 has to reap orphans, and gets only signals that it handles."""

import os
import signal
import sys


def fork() -> None:
    """Return in a child; this process passes on signals, reaps orphans, and ends as the child does, with 128 and its signal."""
    signals = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # those that are blocked wait, for PID 1 as well
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return
    while True:
        if (number := signal.sigwait(signals)) != signal.SIGCHLD:
            os.kill(child, number)
            continue
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            if ended.si_pid == child:
                sys.exit(ended.si_status + 128 * (ended.si_code != os.CLD_EXITED))
