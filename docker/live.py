"""Live reload for any process in a development container.

    python3 live.py                     the Flask application that FLASK_APP names, with Werkzeug's debugger
    python3 live.py -m MODULE [ARG...]  a module, such as a worker; or a script: live.py FILE [ARG...]

Three kinds of processes. The parent holds the listening socket, so that no connection is ever refused, and has the
service's libraries imported, but never its own code. It forks a child, the service itself, anew on every change. A
watcher tells the parent of changes. The parent has no threads, because it forks, and does everything on signals:
SIGUSR1 is a change, SIGUSR2 a child's word on which libraries it uses, SIGTERM and SIGINT end it all.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import runpy
import select
import signal
import socket
import sys
import sysconfig
import threading
import time
import tomllib
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
GRACE = 3.0  # seconds that a replaced child may take for the requests it has begun
SHORT_GRACE = 0.5  # the same when all is to end
QUIET = 100  # milliseconds without a change, after which a burst of them is over
LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})
# What editors, tests and the service itself write beside the source.
IGNORED = re.compile(r"(^|/)(\.|__pycache__(/|$)|4913$)|(~|___|\.(py[co]|sw[a-p]|tmp|log|(db|sqlite3?)(-\w+)?))$")
# File systems of Docker Desktop, virtual machines and networks: the kernel here does not hear of changes made there.
DEAF = re.compile(r"virtiofs|9p|fakeowner|nfs4?|cifs|vboxsf|prl_fs|(fuse\.)?(grpcfuse|osxfs)")
HOST, PORT = os.environ.get("FLASK_RUN_HOST", "0.0.0.0"), int(os.environ.get("FLASK_RUN_PORT", "8000"))  # noqa: S104 (a container's own)


def say(line: str) -> None:
    """Print a line to the log at once."""
    print(f"live: {line}", flush=True)


class Parent:
    """The process that forks the others; ``command`` is a module's or script's command line, [] for a web service."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.listener = None if command else socket.create_server((HOST, PORT), backlog=1024)
        self.tried: set[str] = set()  # libraries that were asked for
        self.watcher = self.current = 0  # process ids; 0 is none
        self.leaving: dict[int, float] = {}  # children that were told to end, and when they will be killed
        self.wanted = self.seen = self.polling = False

    def run(self) -> NoReturn:
        """Serve until SIGTERM or SIGINT."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.watcher = self.fork(partial(watch, os.getpid(), polling=False))
        if self.listener:
            self.listener.setblocking(False)  # old and new child may both wait for the same connection
            say(f"{Path.cwd().name} on port {PORT}")
            self.preload(["flask.cli", "werkzeug.debug", "werkzeug.serving"])
        while True:
            match self.wait():
                case signal.SIGUSR1:  # a change, or for the first time: the watcher is ready
                    self.stop(GRACE)
                    self.wanted = True
                case signal.SIGUSR2:
                    self.preload(os.pread(self.report, 1 << 20, 0).decode().split())
                case signal.SIGCHLD:
                    self.reap()
                case signal.SIGTERM | signal.SIGINT:
                    self.end(0)
            # Requests wait for the new child in the socket's queue, and need the old one no more. Of a worker there is
            # never more than one.
            if self.wanted and (self.listener or not self.leaving):
                self.wanted = False
                self.start()

    def wait(self) -> int:
        """Wait for a signal, or until the time of a leaving child is up, whom it kills."""
        left = min(self.leaving.values(), default=float("inf")) - time.monotonic()
        info = signal.sigtimedwait(SIGNALS, max(0, min(left, 3600)))
        for pid, until in self.leaving.items():
            if until < time.monotonic():
                self.leaving[pid] = float("inf")
                say(f"process {pid} does not end: killed")
                kill(pid)
        return info.si_signo if info else 0

    def start(self, failure: str = "") -> None:
        """Fork the service; with ``failure`` a child that answers every request with this text."""
        with suppress(AttributeError):
            os.close(self.report)
        self.report = os.memfd_create("libraries")
        known = self.tried.union(sys.modules)
        tell = threading.Timer(0.5, partial(tell_libraries, os.getpid(), known, self.report))
        tell.daemon = True
        job = partial(serve, self.listener, failure, first=not self.seen) if self.listener else partial(work, self.command)
        self.current = self.fork(job, tell)
        self.seen = True

    def fork(self, job: Callable[[], object], beside: threading.Thread | None = None) -> int:
        """Fork a child that does its job, in a session of its own, and ends as any Python process does."""
        if pid := os.fork():
            return pid
        os.setsid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if beside:
            beside.start()
        job()
        sys.exit()

    def preload(self, names: Iterable[str]) -> None:
        """Import libraries, so that children find them imported; stops for a signal, the next child will ask again."""
        for name in names:
            if signal.sigpending() & set(SIGNALS):
                break
            if name.partition(".")[0] not in os.environ.get("SLIPWAY_COLD", "").split(","):
                with suppress(Exception, SystemExit):
                    importlib.import_module(name)
                if threading.active_count() > 1:
                    say(f"importing {name} starts threads; if children hang, set SLIPWAY_COLD to its package")
            self.tried.add(name)
        gc.collect()
        gc.freeze()

    def reap(self) -> None:
        """Take note of the children that have ended."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, code = ended[0], os.waitstatus_to_exitcode(ended[1])
                kill(pid)  # what it started and left running
                self.leaving.pop(pid, None)
                if pid == self.watcher:
                    self.revive_watcher()
                elif pid == self.current:
                    self.current = 0
                    say(end := f"{Path.cwd().name} ended with {code}; it starts again on the next change")
                    if self.listener and not self.wanted:
                        self.start(failure=f"{end}\n")

    def revive_watcher(self) -> None:
        """Replace a watcher that failed, for example for want of inotify watches, by one that polls."""
        if self.polling:
            self.end(1)
        self.polling = True
        self.watcher = self.fork(partial(watch, os.getpid(), polling=True))

    def stop(self, grace: float) -> None:
        """Tell the service to end within ``grace`` seconds."""
        if self.current:
            with suppress(ProcessLookupError):
                os.kill(self.current, signal.SIGTERM)
            self.leaving[self.current] = time.monotonic() + grace
            self.current = 0

    def end(self, code: int) -> NoReturn:
        """End everything, and leave no process."""
        kill(self.watcher)
        self.watcher = 0
        self.stop(0)
        until = time.monotonic() + SHORT_GRACE
        self.leaving = dict.fromkeys(self.leaving, until)
        while self.leaving and time.monotonic() < until + SHORT_GRACE:
            if self.wait() == signal.SIGCHLD:
                self.reap()
        sys.exit(code)


def kill(pid: int) -> None:
    """Kill a child and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tell_libraries(parent: int, known: set[str], report: int) -> None:
    """Tell the parent which libraries this child had to import itself."""
    files = {name: str(getattr(module, "__dict__", {}).get("__file__")) for name, module in list(sys.modules.items())}
    names = [name for name, file in files.items() if name not in known and file.startswith(LIBRARIES)]
    if names and os.getppid() == parent:
        os.write(report, "\n".join(names).encode())
        os.kill(parent, signal.SIGUSR2)
