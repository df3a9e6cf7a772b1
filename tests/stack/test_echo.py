"""The echo service from outside, as it runs in production."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks.project import clone_id
from tasks.shell import output

from .conftest import alone, port_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_docker.plugin import Services

IMAGE = f"{clone_id()}/echo:prod"
LIMIT = 1024 * 1024


def container(stack: Services) -> str:
    """The id of the stack's echo container."""
    return str(stack._docker_compose.execute("ps --quiet echo").decode().strip())


def test_it_echoes(echo: httpx.Client) -> None:
    answer = echo.post("/a/b?c=d", content=b"\xff\x00body")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("METHOD: POST\nPATH: /a/b\nQUERY: c=d\nHEADERS:\n")
    assert answer.text.endswith("\n\nBODY (base64):\n/wBib2R5")


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 20 * LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_limit_on_bodies(echo: httpx.Client, size: int, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, 65536):
            yield b"x" * min(65536, size - start)

    try:
        answer = echo.post("/", content=chunks() if chunked else b"x" * size)
    except (httpx.WriteError, httpx.ReadError):
        # The server may hang up on a body that it will not read; what it must not do is take it.
        assert size > LIMIT + 1
        return
    assert answer.status_code == (200 if size <= LIMIT else 413)


def test_a_healthcheck_that_can_fail(stack: Services) -> None:
    """The image's own healthcheck passes beside the running server, and fails where there is none."""
    config = json.loads(output("docker", "image", "inspect", "--format", "{{json .Config}}", IMAGE))
    kind, *check = config["Healthcheck"]["Test"]
    assert kind == "CMD"
    assert subprocess.run(["docker", "exec", container(stack), *check], check=False).returncode == 0
    alone = ["docker", "run", "--rm", "--network=none", "--entrypoint", check[0], IMAGE, *check[1:]]
    assert subprocess.run(alone, capture_output=True, check=False).returncode == 1


def test_nobody_runs_as_root(stack: Services) -> None:
    processes = output("docker", "top", container(stack), "-eo", "pid,uid,args").splitlines()[1:]
    assert processes
    assert "0" not in {line.split()[1] for line in processes}


def test_it_stops_gracefully() -> None:
    """SIGTERM with a request half sent: the request is answered, and the container ends by itself with exit code 0."""
    with alone(IMAGE) as started:
        wait_for(port := port_of(started))
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
            time.sleep(0.3)
            began = time.monotonic()
            stopping = threading.Thread(target=output, args=("docker", "stop", started))
            stopping.start()
            time.sleep(1)
            client.sendall(b"cd")
            answer = client.recv(65536)
            while not answer.endswith(b"abcd") and (more := client.recv(65536)):
                answer += more
        stopping.join()
        took = time.monotonic() - began
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\n\nBODY:\nabcd")
        assert output("docker", "inspect", "--format", "{{.State.ExitCode}}", started).strip() == "0"
        assert took < 5


def wait_for(port: int) -> None:
    """Wait until a server answers on a port, 20 seconds at most."""
    for _ in range(200):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail("the server does not come up")
