"""A program of docker/dev as a process on the host, in a service's folder."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.project import ROOT

TIMEOUT_S = 30.0


class Program:
    """One that runs: its folder, its log, its port."""

    def __init__(self, folder: Path, *command: str, **env: str) -> None:
        self.folder, self.log = folder, folder / "all.log"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        settings = {"FLASK_RUN_HOST": "127.0.0.1", "FLASK_RUN_PORT": str(self.port), "PYTHONUNBUFFERED": "1"}
        settings |= {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder.parent)}
        program = [sys.executable, str(ROOT / "docker/dev" / command[0]), *command[1:]]
        env = os.environ | settings | env
        with self.log.open("w") as log:
            self.process = subprocess.Popen(program, cwd=folder, env=env, stdout=log, stderr=log)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def until(self, found: Callable[[], Any]) -> Any:
        end = time.monotonic() + TIMEOUT_S
        while True:
            with suppress(OSError):
                if result := found():
                    return result
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)

    def says(self, text: str) -> None:
        self.until(lambda: text in self.log.read_text())

    def get(self, path: str = "/", **fields: str) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)) as connection:
            connection.request("GET", path, headers=fields)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def answers(self, text: str) -> int:
        """Wait until the answer contains a text, and return its status."""
        return int(self.until(lambda: text in (answer := self.get())[1] and answer[0]))

    def processes(self, word: str = "") -> list[str]:
        """Those that work in the folder, and have this in their command line."""
        found = []
        for link in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):  # of one that has ended
                if link.readlink() == self.folder and word in link.with_name("cmdline").read_text():
                    found.append(link.parent.name)
        return found


@contextmanager
def running(folder: Path, *command: str, **env: str) -> Iterator[Program]:
    """Run a program; it ends on SIGTERM, or has been sent another signal, and nothing of it is left."""
    program = Program(folder, *command, **env)
    try:
        yield program
        program.process.terminate()
        assert program.process.wait(TIMEOUT_S) == 0, program.log.read_text()
        program.until(lambda: not program.processes())
    finally:
        program.process.kill()
