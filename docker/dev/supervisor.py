"""Forks children from a warm parent, and replaces the running one on every change; what they run is the caller's.

The parent imports the libraries that its children had to import, but never the code that changes. It must not have
threads, because it forks; it does everything on signals: SIGUSR1 is a change, SIGUSR2 is a child's report of the
libraries that it has imported, SIGTERM and SIGINT end everything.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import sysconfig
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

END = {signal.SIGTERM, signal.SIGINT}
SIGNALS = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, *END}
END_GRACE_S = 0.5  # what children have after SIGTERM when everything ends
HERE = Path.cwd()
NAME = HERE.name  # of the service
DONE = 100  # the exit code of a child that has not failed
LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class Supervisor:
    """The parent of a running child, of the next one, and of replaced ones, which have ``grace_s`` seconds after SIGTERM.

    With ``serving`` there is always one that runs: the next one starts while the one before it finishes, and one that has
    failed is followed by one that is told how.
    """

    def __init__(self, name: str, grace_s: float, *, serving: bool = False) -> None:
        self.name, self.grace_s, self.serving, self.pid = name, grace_s, serving, os.getpid()
        self.watcher = self.current = self.next = 0  # process ids; 0 is none
        self.turn = (0, 0)  # the pipe that gives the next child its turn
        self.leaving: dict[int, float] = {}  # replaced children, and when they will be killed
        self.imported = os.memfd_create("imported")  # a child's report
        self.preloaded: set[str] = set()  # libraries that the parent has imported, or has failed to import

    def run(self) -> None:
        """Supervise until SIGTERM or SIGINT. Returns in each child, which then prepares itself and waits for its turn."""
        # Neither this folder nor its modules may hide those of the service, and multiprocessing must not run the program
        # again, as it does with a __main__ that has a file, in processes that it spawns: there it would find no supervisor.
        sys.path[0] = str(HERE)
        del sys.modules[__name__], sys.modules["__main__"].__file__
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.watcher = self.fork()
        if not self.watcher:
            os.execv(sys.executable, (sys.executable, Path(__file__).with_name("watch.py"), str(self.pid)))  # noqa: S606
        due, failure = False, ""
        while (number := self.wait()) not in END:
            if number == signal.SIGUSR1:  # the first one means that the watcher is ready
                self.stop(self.grace_s)
                due, failure = True, ""
            elif number == signal.SIGUSR2:
                self.preload()
            elif number == signal.SIGCHLD and (failure := self.reap()):
                due = self.serving
            start = due and (self.serving or not self.leaving)
            if number == signal.SIGUSR2 or (start and not self.next):
                self.prepare()
                if not self.next:
                    return
            if start:
                due = False
                with suppress(BrokenPipeError):  # it has ended: SIGCHLD will tell
                    os.write(self.turn[1], f"{failure}\n".encode())
                os.close(self.turn[1])
                self.current, self.next = self.next, 0
        self.end(0)

    def wait(self) -> int:
        """Wait for a signal, or until a child's time to end is up, and kill that child."""
        until = min(self.leaving.values(), default=float("inf"))
        info = signal.sigtimedwait(SIGNALS, max(0, min(until - time.monotonic(), 3600)))
        for pid in [pid for pid, until in self.leaving.items() if until <= time.monotonic()]:
            print(f"live: process {pid} does not end: killed", flush=True)
            kill(pid)
            self.leaving[pid] = float("inf")
        return info.si_signo if info else 0

    def fork(self) -> int:
        """Fork, and return the child's process id, or 0 in the child."""
        gc.freeze()  # children collect only garbage of their own
        if not (pid := os.fork()):
            os.setsid()  # what it starts can be killed with it
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return pid

    def prepare(self) -> None:
        """Fork the next child, in the place of one that lacks the libraries imported since."""
        if self.next:
            os.close(self.turn[1])
            kill(self.next)
        self.turn = os.pipe()
        self.next = self.fork()
        os.close(self.turn[0] if self.next else self.turn[1])

    def wait_for_turn(self) -> str:
        """In a child: wait until it has to run; return how the one before it has failed, or ""."""
        # This writes to nearly all memory: what is copied for it need not be copied when there is work to do.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        if not (message := os.read(self.turn[0], 4096)):
            sys.exit()  # the parent has ended
        return message.decode().strip()

    def report(self) -> None:
        """In a child: tell the parent which libraries are imported."""
        files = {name: str(getattr(module, "__dict__", {}).get("__file__")) for name, module in [*sys.modules.items()]}
        names = [name for name, file in files.items() if file.startswith(LIBRARIES) and "/debugpy/" not in file]
        os.ftruncate(self.imported, 0)
        os.pwrite(self.imported, "\n".join(names).encode(), 0)
        os.kill(self.pid, signal.SIGUSR2)

    def preload(self) -> None:
        """Import the libraries that a child has reported."""
        names = os.pread(self.imported, 1 << 20, 0).decode().split()
        # Some import code of the service, as Django's do with DJANGO_SETTINGS_MODULE: it would not be reloaded any more.
        path, sys.path = sys.path, [entry for entry in sys.path if f"{entry}/".startswith(LIBRARIES)]
        # The child has shown their warnings. What they set with the module `warnings` has to stay.
        show, warnings.showwarning = warnings.showwarning, lambda *_: None
        for name in [name for name in names if name not in self.preloaded]:
            with suppress(Exception, SystemExit):
                importlib.import_module(name)
        sys.path, warnings.showwarning = path, show
        self.preloaded.update(names)

    def reap(self) -> str:
        """Take note of children that have ended, and return how the running one has failed, or ""."""
        failure = ""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, code = ended[0], os.waitstatus_to_exitcode(ended[1])
                kill(pid)  # orphans that it has left
                self.leaving.pop(pid, None)
                if pid == self.watcher:
                    self.end(1 if code else DONE)  # it has ended because the folder is another one now
                if pid == self.next:
                    os.close(self.turn[1])
                    self.next = 0
                if pid == self.current:
                    self.current = 0
                    if code != DONE:
                        failure = f"{self.name} ended with {code}; the next change starts it again"
                        print(f"live: {failure}", flush=True)
        return failure

    def stop(self, grace_s: float) -> None:
        """Tell the running child to end; no child has more than ``grace_s`` seconds from now on."""
        until = time.monotonic() + grace_s
        if self.current:
            os.kill(self.current, signal.SIGTERM)
            self.leaving[self.current] = until
            self.current = 0
        self.leaving = {pid: min(until, earlier) for pid, earlier in self.leaving.items()}

    def end(self, code: int) -> NoReturn:
        """End everything and leave no process; with DONE, begin again in the folder that has the name now."""
        kill(self.watcher)
        self.watcher = 0
        self.stop(END_GRACE_S)
        while self.leaving:
            self.wait()
            self.reap()
        if code == DONE:
            os.chdir(HERE)
            os.execv(sys.executable, sys.orig_argv)  # noqa: S606
        sys.exit(code)


def kill(pid: int) -> None:
    """Kill a child and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
