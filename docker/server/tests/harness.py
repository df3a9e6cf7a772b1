"""Runs the server as a plain process, and plays its clients."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from corpus import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = Path(__file__).parents[1]
TIMEOUT_S, THREADS = 1.5, 32


class Server:
    """A running server, with few threads and little time for slow clients."""

    stopped = False

    def __init__(self, folder: Path, **env: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe, socket.create_server(("127.0.0.1", 0)) as other:
            self.port, self.metrics_port = probe.getsockname()[1], other.getsockname()[1]
        self.log = folder / "log.txt"
        self.env = os.environ | {
            "APPLICATION": "app:app",
            "MALLOC_MMAP_THRESHOLD_": "131072",  # as in the images: large answers are given back to the system at once
            "GUNICORN_CMD_ARGS": f"--threads={THREADS}",
            "STACK_CLIENT_TIMEOUT_S": str(TIMEOUT_S),
            "STACK_HEALTH_SOCKET": f"{folder}/health",
            "STACK_METRICS_PORT": str(self.metrics_port),
            "STACK_PORT": str(self.port),
            **env,
        }
        command = [sys.executable, "-B", str(SERVER / "serve.py")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=SERVER / "tests", env=self.env, stdout=log, stderr=log)

    def wait_for(self, line: str) -> None:
        until = time.monotonic() + 20
        while line not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        """Send SIGTERM, once: a second one may come when Python has given up its handlers."""
        if not self.stopped:
            self.stopped = True
            self.process.terminate()

    def connect(self, sent: str = "") -> socket.socket:
        client = socket.socket()
        client.settimeout(5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.port))
        with suppress(ConnectionError):  # the server need not listen to the end
            client.sendall(encoded(sent))
        return client

    def ask(self, sent: str) -> list[int]:
        with self.connect(sent) as client:
            return statuses(client)

    def healthcheck(self) -> int:
        return subprocess.run([sys.executable, str(SERVER / "healthcheck.py")], env=self.env, check=False).returncode

    def workers(self) -> set[str]:
        pid = self.process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()) or {str(pid)}


@contextmanager
def running(line: str = "Booting worker", **env: str) -> Iterator[Server]:
    """A server that has logged a line, and that must end well."""
    with TemporaryDirectory() as folder:
        server = Server(Path(folder), **env)
        try:
            server.wait_for(line)
            yield server
            server.stop()
            assert server.process.wait(4) == 0, server.log.read_text()
        finally:
            server.process.kill()
            server.process.wait()


def statuses(client: socket.socket) -> list[int]:
    """The statuses of all answers until the server hangs up."""
    got = b""
    with suppress(ConnectionError, TimeoutError):
        while more := client.recv(1 << 20):
            got += more
    return [int(status) for status in re.findall(rb"^HTTP/1\.\d (\d+) ", got, re.MULTILINE)]
