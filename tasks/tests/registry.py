"""A registry for tests: Debian's docker-registry, as a process on 127.0.0.1 with a folder of the test's own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Self

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = shutil.which("docker-registry")
# The user "user" with the password "password", by bcrypt.
HTPASSWD = "user:$2y$05$XvIYjuCwCJfxvQgrJrDZ5OlqyM4Ivaw3.5pPhBnkMPPDjoTbPsG0i\n"


class LocalRegistry:
    """A registry that can be stopped and started again with what it has."""

    def __init__(self, folder: Path, *, auth: bool = False) -> None:
        if not PROGRAM:
            pytest.skip("there is no docker-registry here: apt-get install docker-registry")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        config = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
            "http": {"addr": self.host},
        }
        if auth:
            (folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        self.config = folder / "registry.yml"
        self.config.write_text(json.dumps(config))
        self.start()

    def start(self) -> None:
        assert PROGRAM
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([PROGRAM, "serve", str(self.config)], stdout=quiet, stderr=quiet)
        address, port = self.host.split(":")
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex((address, int(port))):
                    return
            time.sleep(0.1)
        pytest.fail("the registry did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
