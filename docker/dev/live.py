"""Live reload for any process in a development container.

    live.py                     what INTERFACE says: a web application on port 8000, by Werkzeug with its debugger (wsgi)
                                or by uvicorn (asgi), or a command. APPLICATION names it, as MODULE:NAME or
                                MODULE:FACTORY(), or is the command line
    live.py -m MODULE [ARG...]  a module, such as a worker
    live.py PROGRAM [ARG...]    a script, or a program on the PATH, such as celery

The parent holds the listening socket: it never closes, so no connection is refused while children are replaced.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import runpy
import select
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor import NAME, Supervisor

GRACE_S = 3.0  # for the requests that a replaced child has begun
IDLE_S = 0.2  # how long a connection without a request holds a replaced child
REPORT_S = 0.5  # when a child reports its libraries, after its start
DEBUGGER = 5678  # the port for editors' debuggers, where STACK_DEBUG opens it
HEALTH_CHECK = re.compile(r'127\.0\.0\.1[ :].*"GET /healthz HTTP/[\d.]+" [2-4]')  # in a log, where it passes


def wsgi_server(listener: socket.socket) -> Callable[[Any], None]:
    """In the parent: prepare Werkzeug's server; return what serves an application, or a text as an error, in a child."""
    from werkzeug.debug import DebuggedApplication
    from werkzeug.serving import WSGIRequestHandler, make_server
    from werkzeug.wrappers import Response

    stopping = threading.Event()
    debugger = DebuggedApplication(Response(), evalex=True)

    class Handler(WSGIRequestHandler):
        def handle(self) -> None:
            # Browsers open connections ahead of requests. One that is still idle must not get the old code's answer.
            while not select.select([self.connection], [], [], IDLE_S)[0]:
                if stopping.is_set():
                    return
            super().handle()

    host, port = listener.getsockname()
    server = make_server(host, port, debugger, threaded=True, request_handler=Handler, fd=listener.fileno())
    server.daemon_threads = False  # type: ignore[attr-defined]  # the server's end waits for requests in flight

    def stop(*_: object) -> None:
        stopping.set()
        threading.Thread(target=server.shutdown).start()

    def serve(app: Any) -> None:
        debugger.app = Response(app, 500, mimetype="text/plain") if isinstance(app, str) else app
        signal.signal(signal.SIGTERM, stop)
        server.serve_forever()
        time.sleep(IDLE_S)  # an interpreter's end takes time that the new child can use better

    return serve


def asgi_server(listener: socket.socket) -> Callable[[Any], None]:
    """In the parent: import uvicorn; return what serves an application, or a text as an error, in a child."""
    import asyncio

    uvicorn: Any = importlib.import_module("uvicorn")  # a dependency of the services that need it

    def serve(app: Any) -> None:
        async def error(scope: Any, _receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                headers = [(b"content-type", b"text/plain; charset=utf-8")]
                await send({"type": "http.response.start", "status": 500, "headers": headers})
                await send({"type": "http.response.body", "body": app.encode()})

        # Not uvloop, for which accepting cannot be stopped before the connections that are accepted already are closed.
        config = uvicorn.Config(error if isinstance(app, str) else app, loop="asyncio")
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # no lines for its start and its end
        server = uvicorn.Server(config)

        def stop(*_: object) -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.remove_reader, listener)  # new connections are the new child's
            loop.call_soon_threadsafe(loop.call_later, IDLE_S, setattr, server, "should_exit", True)

        server.handle_exit = stop  # what it does on SIGTERM
        server.run([listener])

    return serve


def load() -> Any:
    """Import the application; return a text where that fails."""
    try:
        module, _, expression = os.environ["APPLICATION"].partition(":")
        return eval(expression or "application", vars(importlib.import_module(module)))  # noqa: S307 (the service's own words)
    except Exception:
        traceback.print_exc()
        return traceback.format_exc()


def command_line(text: str) -> list[str]:
    """The words of a command line, without the interpreter where that only runs a module or a script."""
    words = shlex.split(text)
    if not words:
        raise ValueError("it is empty")
    return words[1:] if re.fullmatch(r"python3?", words[0]) and re.match("-m|[^-]", "".join(words[1:2])) else words


def run_command(command: list[str]) -> None:
    """Be ``python3 -m module ...``, ``python3 script ...`` or ``program ...``."""
    if command[0] == "-m":
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        return
    if not (found := command[0] if Path(command[0]).is_file() else shutil.which(command[0])):
        sys.exit(f"live: there is no program {command[0]}")
    if not (found.endswith(".py") or re.match(rb"#!.*python", Path(found).read_bytes()[:200])):
        os.execv(found, command)  # noqa: S606
    sys.argv = [found, *command[1:]]
    sys.path[0] = str(Path(found).resolve().parent)
    runpy.run_path(found, run_name="__main__")


def listen_for_debugger() -> None:
    """Open the port for editors' debuggers, as soon as the child before this one has closed it."""
    import debugpy  # noqa: T100 (for whoever asked for it)

    while True:
        with suppress(OSError):
            socket.create_server(("", DEBUGGER)).close()
            break
        time.sleep(0.05)
    debugpy.listen(("0.0.0.0", DEBUGGER), in_process_debug_adapter=True)  # noqa: S104, T100 (a container's own)


def main(command: list[str]) -> None:
    """Run a command, or without one a web application."""
    os.environ.update(FLASK_DEBUG="1", FLASK_RUN_FROM_CLI="true", WERKZEUG_RUN_MAIN="true")
    interface, application = os.environ.get("INTERFACE", "wsgi"), os.environ.get("APPLICATION", "")
    if not command and interface == "command":
        try:
            command = command_line(application)
        except ValueError as error:
            sys.exit(f"live: APPLICATION is {application!r}, which is no command line: {error}")
    if not command:
        servers = {"wsgi": wsgi_server, "asgi": asgi_server}
        if interface not in servers:
            sys.exit(f"live: INTERFACE is {interface!r}; it must be wsgi, asgi or command")
        address = os.environ.get("FLASK_RUN_HOST", "0.0.0.0"), int(os.environ.get("FLASK_RUN_PORT", "8000"))  # noqa: S104 (a container's own)
        listener = socket.create_server(address, backlog=1024)
        listener.setblocking(False)  # another child may have accepted the connection
        serve = servers[interface](listener)
        for log in ("werkzeug", "uvicorn.access"):
            logging.getLogger(log).addFilter(lambda record: not HEALTH_CHECK.match(record.getMessage()))
    supervisor = Supervisor(NAME, GRACE_S, serving=not command)
    supervisor.run()
    # From here on this is a child.
    failure = supervisor.wait_for_turn()
    if os.environ.get("STACK_DEBUG") and not failure:
        listen_for_debugger()
    app = None if command else failure or load()
    timer = threading.Timer(REPORT_S, supervisor.report)
    timer.daemon = True
    timer.start()
    if command:
        run_command(command)
    else:
        serve(app)


if __name__ == "__main__":
    os.dup2(1, 2)
    main(sys.argv[1:])
