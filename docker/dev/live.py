"""Live reload for any process in a development container.

    live.py                     the Flask application that FLASK_APP names, on port 8000, with Werkzeug's debugger
    live.py -m MODULE [ARG...]  a module, such as a worker
    live.py FILE [ARG...]       a script

The parent holds the listening socket, so that no connection is ever refused, and has the service's libraries imported,
but never its own code. It forks a child, the service, anew on every change that a third process, the watcher, tells it
of. The parent must not have threads, because it forks; it does everything on signals: SIGUSR1 is a change, SIGUSR2 a
child's word on which libraries it had to import, SIGTERM and SIGINT end it all.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import sys
import sysconfig
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask import Flask
    from werkzeug.serving import BaseWSGIServer

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
GRACE = 3.0  # seconds that a replaced child may take to finish what it has begun
LAST_GRACE = 0.5  # the same when all is to end
IDLE = 0.2  # seconds that a connection without a request holds a replaced child
DEBUGGER = 5678  # the port for debuggers, where STACK_DEBUG opens it
LIBRARIES = tuple({sysconfig.get_path(name) + "/" for name in ("stdlib", "platstdlib", "purelib", "platlib")})
HERE = Path.cwd()


class Parent:
    """The process that forks all others; ``command`` is a module's or script's command line, empty for a web service."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.server: BaseWSGIServer | None = None
        self.report = os.memfd_create("libraries")  # where a child writes those that it had to import
        self.asked: set[str] = set()  # all that were ever in a report
        self.watcher = self.current = 0  # process ids; 0 is none
        self.leaving: dict[int, float] = {}  # children that are to end, and when they will be killed
        self.wanted = False

    def run(self) -> NoReturn:
        """Serve until SIGTERM or SIGINT."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        watch = (sys.executable, str(Path(__file__).with_name("watch.py")), str(os.getpid()))
        self.watcher = self.fork(partial(os.execv, sys.executable, watch))
        if not self.command:
            self.server = make_web_server()
        while (number := self.wait()) not in {signal.SIGTERM, signal.SIGINT}:
            if number == signal.SIGUSR1:  # a change; the first one means that the watcher is ready
                self.stop(GRACE)
                self.wanted = True
            elif number == signal.SIGUSR2:
                self.preload(os.pread(self.report, 1 << 20, 0).decode().split())
            elif number == signal.SIGCHLD:
                self.reap()
            # Requests wait for the new child in the socket's queue, whatever the old one still does; a worker is alone.
            if self.wanted and (self.server or not self.leaving):
                self.wanted = False
                self.start()
        self.end(0)

    def wait(self) -> int:
        """Wait for a signal, or until the time of a leaving child is up, which is then killed."""
        until = min(self.leaving.values(), default=float("inf"))
        info = signal.sigtimedwait(SIGNALS, max(0, min(until - time.monotonic(), 3600)))
        for pid in [pid for pid, until in self.leaving.items() if until <= time.monotonic()]:
            say(f"process {pid} does not end: killed")
            kill(pid)
            self.leaving[pid] = float("inf")
        return info.si_signo if info else 0

    def start(self, failure: str = "") -> None:
        """Fork the service, or, with ``failure``, a child that answers every request with this text."""
        os.ftruncate(self.report, 0)
        tell = partial(tell_libraries, os.getpid(), self.asked.union(sys.modules), self.report)
        run = partial(serve, self.server, failure) if self.server else partial(work, self.command)
        if os.environ.get("STACK_DEBUG") and not failure:
            run = partial(debugged, run)
        self.current = self.fork(run, tell)

    def fork(self, job: Callable[[], object], soon: Callable[[], object] | None = None) -> int:
        """Fork a child that does its job, beside it one thing more in a moment, and ends as any Python process does."""
        gc.freeze()  # children look for garbage of their own only
        if pid := os.fork():
            return pid
        os.setsid()  # so that what it starts can be killed with it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        if soon:
            timer = threading.Timer(0.5, soon)
            timer.daemon = True
            timer.start()
        job()
        sys.exit()

    def preload(self, names: Iterable[str]) -> None:
        """Import libraries for the children to come; as soon as a change or the end waits, leave the rest to the next report."""
        for name in names:
            if wanted_elsewhere():
                return
            self.asked.add(name)
            with suppress(Exception, SystemExit):
                importlib.import_module(name)

    def reap(self) -> None:
        """Take note of the children that have ended."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, code = ended[0], os.waitstatus_to_exitcode(ended[1])
                kill(pid)  # what it left running
                self.leaving.pop(pid, None)
                if pid == self.watcher:
                    self.end(1)
                if pid == self.current:
                    self.current = 0
                    self.ended(code)

    def ended(self, code: int) -> None:
        """Tell, in the browser too, that the service has ended by itself."""
        say(end := f"{HERE.name} ended with {code}; it starts again on the next change")
        if self.server:
            self.start(failure=f"{end}\n")

    def stop(self, grace: float) -> None:
        """Tell the service to end within ``grace`` seconds."""
        if self.current:
            os.kill(self.current, signal.SIGTERM)
            self.leaving[self.current] = time.monotonic() + grace
            self.current = 0

    def end(self, code: int) -> NoReturn:
        """End everything, and leave no process."""
        kill(self.watcher)
        self.watcher = 0
        self.stop(LAST_GRACE)
        self.leaving = dict.fromkeys(self.leaving, time.monotonic() + LAST_GRACE)
        while self.leaving:
            self.wait()
            self.reap()
        sys.exit(code)


def wanted_elsewhere() -> bool:
    """Whether a change or the end waits."""
    return bool(signal.sigpending() & {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT})


def say(line: str) -> None:
    """Print a line to the log at once."""
    print(f"live: {line}", flush=True)


def kill(group: int) -> None:
    """Kill a child and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def tell_libraries(parent: int, known: set[str], report: int) -> None:
    """Tell the parent which libraries this child had to import itself."""
    files = {name: str(getattr(module, "__dict__", {}).get("__file__")) for name, module in list(sys.modules.items())}
    names = [
        name
        for name, file in files.items()
        if name not in known and file.startswith(LIBRARIES) and "/debugpy/" not in file
    ]
    if names and os.getppid() == parent:
        os.pwrite(report, "\n".join(names).encode(), 0)
        os.kill(parent, signal.SIGUSR2)


def debugged(job: Callable[[], object]) -> None:
    """Do a job with the port for debuggers open."""
    import debugpy  # noqa: T100 (for whoever asked for it)

    late = time.monotonic() + 1
    while True:
        with suppress(OSError):
            socket.create_server(("", DEBUGGER)).close()
            break
        time.sleep(0.05)
        if time.monotonic() > late:  # the child before this one has stopped somewhere, or its editor does not let go
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if b"/debugpy/adapter" in (process / "cmdline").read_bytes():
                        os.kill(int(process.name), signal.SIGKILL)
    debugpy.listen(("0.0.0.0", DEBUGGER))  # noqa: S104, T100 (a container's own)
    job()


def work(command: list[str]) -> None:
    """Be ``python3 -m module ...`` or ``python3 script ...``."""
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path.insert(0, str(HERE))
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path.insert(0, str((HERE / command[0]).parent))
        runpy.run_path(command[0], run_name="__main__")


def make_stub() -> Flask:
    """Make an application that answers a few requests: this fills caches and quickens code, for all children."""
    from flask import Flask

    stub = Flask("live", static_folder=None)
    stub.add_url_rule("/", view_func=str, methods=["GET", "POST"])
    for _ in range(3):
        stub.test_client().get("/")
        stub.test_client().post("/", data={"a": "b"})
    return stub


def make_web_server() -> BaseWSGIServer:
    """Listen, and make the server that all children inherit, so that they need not; what it serves is a stub."""
    from werkzeug.debug import DebuggedApplication
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        def handle(self) -> None:
            # Browsers open connections ahead of requests. One that is still idle must not get the old code's answer.
            stopping = self.server.stopping  # type: ignore[attr-defined]
            select.select([self.connection, stopping], [], [])
            if select.select([self.connection], [], [], IDLE)[0]:
                super().handle()

    host, port = os.environ.get("FLASK_RUN_HOST", "0.0.0.0"), int(os.environ.get("FLASK_RUN_PORT", "8000"))  # noqa: S104 (a container's own)
    listener = socket.create_server((host, port), backlog=1024)
    listener.setblocking(False)  # an old and a new child may both wait for the same connection
    debugged = DebuggedApplication(make_stub(), evalex=True)
    server = make_server(host, port, debugged, threaded=True, request_handler=Handler, fd=listener.fileno())
    server.timeout = 0  # for another child may have been faster
    server.daemon_threads = False  # type: ignore[attr-defined]  # so that server_close waits for them
    return server


def serve(server: BaseWSGIServer, failure: str) -> None:
    """Be the web service until SIGTERM, then finish the requests that have begun."""
    from flask.cli import ScriptInfo
    from werkzeug.wrappers import Response

    parent = os.getppid()
    app: WSGIApplication = Response(failure, 500, mimetype="text/plain")
    try:
        app = app if failure else ScriptInfo(os.environ.get("FLASK_APP")).load_app()
    except Exception as error:
        traceback.print_exc()
        app = partial(again, error, error.__traceback__)
    server.app.app = app  # type: ignore[attr-defined]  # inside the debugger
    stopping, stop = os.pipe()
    server.stopping = stopping  # type: ignore[attr-defined]
    signal.signal(signal.SIGTERM, lambda *_: os.write(stop, b"."))
    while os.getppid() == parent:
        ready, _, _ = select.select([server.fileno(), stopping], [], [], 1)
        if stopping in ready:
            break
        if ready:
            server.handle_request()
    time.sleep(IDLE)  # an interpreter's end takes time that the new child can use better
    server.server_close()


def again(error: Exception, where: TracebackType | None, _environ: WSGIEnvironment, _start: StartResponse) -> NoReturn:
    """A WSGI application that shows why there is no other one."""
    raise error.with_traceback(where)


if __name__ == "__main__":
    os.environ.update(FLASK_DEBUG="1", FLASK_RUN_FROM_CLI="true", WERKZEUG_RUN_MAIN="true")
    sys.path.pop(0)  # this folder, which is not the service's
    os.dup2(1, 2)
    Parent(sys.argv[1:]).run()
