"""Runs the server as a plain process, and plays its clients."""

import ctypes
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen, run
from tempfile import TemporaryDirectory

from corpus import encoded

TESTS = Path(__file__).parent
SERVER = TESTS.parent
sys.path.insert(0, str(SERVER))  # for tests that import its modules
TIMEOUT_S, THREADS = 1.5, 32
WSGI = {"INTERFACE": "wsgi", "APPLICATION": "app:app"}
ASGI = {"INTERFACE": "asgi", "APPLICATION": "app:asgi_app"}
# prctl(PR_SET_CHILD_SUBREAPER, 1): orphans become this process's, as they become PID 1's.
prctl = ctypes.CDLL(None).prctl
ENV = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
STARTED = {"wsgi": "Booting worker", "asgi": "startup complete"}  # in the log


# Below the ports that clients get from the system, of which another test may have thousands. Each process of tests has its
# own, and takes each once, for a server listens only some time after its port was found free.
FIRST_PORT = 10_000 + 5_000 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 4)
PORTS = iter(range(FIRST_PORT + os.getpid() % 40 * 100, FIRST_PORT + 5_000))


def free_port() -> int:
    with suppress(OSError), socket.create_server(("", next(PORTS))) as probe:
        return int(probe.getsockname()[1])
    return free_port()


class Server:
    """A running server, with few threads and little time for slow clients."""

    stopped = False

    def __init__(self, folder: Path, **env: str) -> None:
        self.port = free_port()
        self.log = folder / "log.txt"
        self.env = ENV | {
            "MALLOC_MMAP_THRESHOLD_": "131072",  # as in the images: large answers are given back to the system at once
            "GUNICORN_CMD_ARGS": f"--threads={THREADS}",
            "STACK_CLIENT_TIMEOUT_S": str(TIMEOUT_S),
            "STACK_HEALTH_TIMEOUT_S": "15",  # also on a busy machine
            "STACK_HEALTH_SOCKET": f"{folder}/health",
            "STACK_PORT": str(self.port),
            "TMPDIR": str(folder),
            **WSGI,
            **env,
        }
        args = ["setsid", sys.executable, "-B", str(SERVER / "serve.py")]
        with self.log.open("w") as log:
            self.process = Popen(args, cwd=TESTS, env=self.env, stdout=log, stderr=log, preexec_fn=lambda: prctl(36, 1))

    def wait_for(self, line: str) -> None:
        until = time.monotonic() + 20
        while line not in self.log.read_text():
            assert (self.process.poll(), time.monotonic() < until) == (None, True), self.log.read_text()
            time.sleep(0.01)

    def logged(self, request_id: str | None) -> dict[str, object]:
        """What the access log has of a request."""
        self.wait_for(f'"request_id": "{request_id}"')
        (found,) = [line for line in self.log.read_text().splitlines() if f'"request_id": "{request_id}"' in line]
        return dict(json.loads(found))

    def stop(self) -> None:
        """Send SIGTERM, once: a second one may come when Python has given up its handlers."""
        if not self.stopped:
            self.stopped = True
            self.process.terminate()

    def connect(self, sent: str = "", *, health: bool = False) -> socket.socket:
        client = socket.socket(socket.AF_UNIX if health else socket.AF_INET)
        client.settimeout(15)  # also on a busy machine
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(self.env["STACK_HEALTH_SOCKET"] if health else ("127.0.0.1", self.port))
        with suppress(ConnectionError):  # the server need not listen to the end
            client.sendall(encoded(sent))
        return client

    def ask(self, sent: str, *, health: bool = False) -> list[int]:
        with self.connect(sent, health=health) as client:
            return statuses(client)

    def healthcheck(self) -> int:
        return run([sys.executable, str(SERVER / "healthcheck.py")], env=self.env, check=False).returncode

    def workers(self) -> set[str]:
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) or {str(pid)}

    def memory_mb(self) -> float:
        """The memory of the process that answers."""
        return int(Path(f"/proc/{max(self.workers(), key=int)}/statm").read_text().split()[1]) / 256  # pages of 4 KiB


@contextmanager
def running(line: str = "", code: int = 0, /, **env: str) -> Iterator[Server]:
    """A server that has started, or logged a line, and that must end with an exit code."""
    with TemporaryDirectory() as folder:
        server = Server(Path(folder), **env)
        try:
            server.wait_for(line or STARTED[server.env["INTERFACE"]])
            yield server
            server.stop()
            assert server.process.wait(10) == code, server.log.read_text()  # Docker kills it then
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


def read(client: socket.socket, got: bytearray | None = None) -> bytearray:
    """What the server sends until it hangs up."""
    got = bytearray() if got is None else got
    while more := client.recv(1 << 20):
        got += more
    return got


def statuses(client: socket.socket) -> list[int]:
    """The statuses of all answers until the server hangs up."""
    got = bytearray()
    with suppress(ConnectionError, TimeoutError):
        read(client, got)
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", got)]
