"""The echo service in production against clients that are malicious, slow, or there while it stops or reloads."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from tasks.project import ROOT
from tasks.shell import output, start
from tasks.stack import stack as compose

from .conftest import SETTINGS, alone, port_of
from .test_echo import IMAGE, container, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_docker.plugin import Services

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
HALF = POST + b"Content-Length: 4\r\n\r\nab"  # the other half is b"cd"
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

# Requests that two servers could understand differently, or that are none; what is sent -> what is answered.
CORPUS = {
    "length and chunks": (POST + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", 400),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2c\r\n" + SECOND, 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "two equal lengths": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    **{
        f"length {length!r}": (POST + b"Content-Length: " + length + b"\r\n\r\nhello", 400)
        for length in (b"", b"+5", b"-5", b"0x5", b"5 5", b"1_0", b"5.0", b"\xb2", b"9" * 5000)
    },
    "coded and chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "coded, then chunked": (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, not last": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "unknown coding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "no coding": (POST + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n", 501),
    "identity": (POST + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", 400),
    "space before the colon": (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "control character in the coding": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunks in HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", 400),
    **{
        f"chunk size {size!r}": (CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n", 400)
        for size in (
            b"",
            b"zz",
            b"0x5",
            b"+5",
            b"-5",
            b"0_5",
            b" 5",
            b"5 ",
            b"5;=",
            b"5;a\nb",
            b"8" + b"0" * 15,
            b"f" * 99,
        )
    },
    "chunk longer than its size": (CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n", 400),
    "chunk ends in bare LF": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", 400),
    "chunk size ends in bare LF": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", 400),
    "chunks with bare LF only": (CHUNKED + b"5\nhello\n0\n\n", 400),
    "trailer with bare LF": (CHUNKED + b"0\r\nA: b\n\n", 400),
    "trailer that is none": (CHUNKED + b"0\r\nnonsense\r\n\r\n", 400),
    "length in a trailer": (CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n", 400),
    "folded header": (GET + b"A: b\r\n c\r\n\r\n", 400),
    "folded coding": (POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    "folded first line": (b"GET / HTTP/1.1\r\n A: b\r\nHost: x\r\n\r\n", 400),
    "bare LF only": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "bare LF in the request line": (b"GET / HTTP/1.1\nHost: x\r\n\r\n", 400),
    "bare LF in the head": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400),
    "bare LF after the head": (GET + b"\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n", 400),
    "CR CR LF": (b"GET / HTTP/1.1\r\r\nHost: x\r\r\n\r\n", 400),
    "NUL in a value": (GET + b"A: b\0c\r\n\r\n", 400),
    "NUL in a name": (GET + b"A\0: b\r\n\r\n", 400),
    "space in a name": (GET + b"A B: c\r\n\r\n", 400),
    "no name": (GET + b": b\r\n\r\n", 400),
    "no colon": (GET + b"nonsense\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"Host: y\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "binary": (b"\0\1\2\3\r\n\r\n", 400),
    "long target": (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "long header": (GET + b"A: " + b"a" * 20_000 + b"\r\n\r\n", 431),
    "many headers": (GET + b"A: b\r\n" * 200 + b"\r\n", 431),
    "endless head": (GET + b"A: b\r\n" * 200_000, 431),
}
# Those whose client hangs up in the middle.
TRUNCATED = {
    "length": POST + b"Content-Length: 10\r\n\r\nhello",
    "chunk": CHUNKED + b"a\r\nhello",
    "between chunks": CHUNKED + b"5\r\nhello\r\n",
}


@pytest.fixture
def port(stack: Services) -> int:  # noqa: ARG001
    """Echo's port, which is another one since other tests have stopped and started it."""
    return next(container.port for container in compose.containers(SETTINGS) if container.service == "echo")


def connect(port: int, sent: bytes) -> socket.socket:
    """A connection on which something has been sent."""
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.sendall(sent)
    return client


def received(client: socket.socket, end: bytes = b"") -> bytes:
    """All that the server sends, until ``end`` comes or it hangs up."""
    got = b""
    while not (end and got.endswith(end)) and (more := client.recv(65536)):
        got += more
    return got


def assert_healthy(port: int) -> None:
    """The server answers, and before it lets anybody go who is slow."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=8)) as connection:
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"


def test_schemathesis_finds_no_fault(port: int, tmp_path: Path) -> None:
    arguments = ["run", str(ROOT / "services/echo/openapi.yaml"), f"--url=http://127.0.0.1:{port}", "--no-color"]
    # Echo takes methods that its description does not name, too.
    bounds = ["--exclude-checks=unsupported_method", "--max-examples=10", "--max-time=15", "--generation-database=none"]
    command = [sys.executable, "-m", "schemathesis.cli", *arguments, *bounds]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Tested: +8", done.stdout), done.stdout


@pytest.mark.parametrize("case", CORPUS)
def test_smuggling(port: int, case: str) -> None:
    sent, status = CORPUS[case]
    with connect(port, b"") as client:
        try:
            client.sendall(sent)
            answer = received(client)
        except (BrokenPipeError, ConnectionResetError):
            assert case == "endless head"  # it need not listen to the end
            answer = b"HTTP/1.1 431 "
    # Once: whatever follows is no request of its own.
    assert re.findall(rb"^HTTP/1\.1 (\d+) ", answer, re.MULTILINE) == [b"%d" % status]
    assert_healthy(port)


@pytest.mark.parametrize("case", TRUNCATED)
def test_a_body_that_ends_early_is_never_taken_for_a_whole_one(port: int, case: str) -> None:
    with connect(port, TRUNCATED[case]) as client:
        client.shutdown(socket.SHUT_WR)
        assert received(client).startswith(b"HTTP/1.1 400 ")


def test_clients_that_do_not_hang_up_are_nobodys_problem(port: int) -> None:
    with ExitStack() as clients:
        for _ in range(20):
            client = clients.enter_context(connect(port, b"GET / HTTP/1.0\r\n\r\n"))
            assert client.recv(12) == b"HTTP/1.0 200"
        assert_healthy(port)


def test_slow_clients(stack: Services, port: int) -> None:
    """Slow headers, stalled bodies, and large ones that together would not fit in memory."""
    before = process_ids(stack)
    with ExitStack() as clients:
        heads = [clients.enter_context(connect(port, GET + b"A: ")) for _ in range(200)]
        for _ in range(200):
            clients.enter_context(connect(port, HALF))
        for _ in range(50):
            large = POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 900_000
            threading.Thread(target=send, args=(clients.enter_context(connect(port, b"")), large)).start()
        for _ in range(5):
            assert_healthy(port)
            for client in heads:
                client.sendall(b"x")  # they are slow, not silent
            time.sleep(0.5)
        # None may stay for good.
        assert received(heads[0]) == b""
        assert_healthy(port)
    # Nor has any process of the server been lost over it.
    assert process_ids(stack) == before


def send(client: socket.socket, what: bytes) -> None:
    """Send as much as the server takes."""
    with suppress(OSError):
        client.sendall(what)


def process_ids(stack: Services) -> tuple[str, set[str]]:
    """The server's first process, and its workers."""
    first = output("docker", "inspect", "--format", "{{.State.Pid}}", container(stack)).strip()
    listed = output("docker", "top", container(stack), "-eo", "pid,ppid").splitlines()[1:]
    return first, {pid for pid, parent in map(str.split, listed) if parent == first}


def stop(started: str) -> None:
    """Send SIGTERM; the container must end by itself, well, and within 5 seconds."""
    output("docker", "stop", "--time=5", started)
    assert json.loads(output("docker", "inspect", "--format", "{{json .State}}", started))["ExitCode"] == 0


def wait_for_connections(started: str, number: int) -> None:
    """Wait until so many connections have reached the server: Docker's proxy takes them before it passes them on."""
    count = "print(sum(':1F40 ' in line and ' 01 ' in line for line in open('/proc/net/tcp')))"
    for _ in range(50):
        if int(output("docker", "exec", started, "python3", "-c", count)) >= number:
            return
        time.sleep(0.1)
    pytest.fail(f"{number} connections have not reached the server")


@pytest.mark.parametrize("age", [0, 1])
def test_all_that_is_in_flight_is_answered_before_the_end(age: int) -> None:
    """200 requests whose second half comes after SIGTERM, in the server's first moment and later."""
    with alone(IMAGE) as started, ExitStack() as clients:
        wait_for(port := port_of(started))
        time.sleep(age)
        waiting = [clients.enter_context(connect(port, HALF)) for _ in range(200)]
        wait_for_connections(started, len(waiting))
        stopping = threading.Thread(target=stop, args=(started,))
        stopping.start()
        time.sleep(0.5)
        for client in waiting:
            client.sendall(b"cd")
        answers = [received(client, b"\n\nBODY:\nabcd") for client in waiting]
        stopping.join()
    assert [answer[:13] for answer in answers] == [b"HTTP/1.1 200 "] * len(answers)


@pytest.mark.parametrize("age", [0, 0.05, 0.1, 0.2, 0.4])
def test_it_can_be_stopped_while_it_starts(age: float) -> None:
    with alone(IMAGE) as started:
        with start("docker", "logs", "--follow", started, stderr=subprocess.PIPE) as logs:
            assert logs.stderr
            assert "Starting gunicorn" in logs.stderr.readline()
            logs.kill()
        time.sleep(age)
        stop(started)


def test_a_reload_loses_no_request(stack: Services, port: int) -> None:
    """10,000 requests from 8 clients, two of which connect anew for each, while the server gets SIGHUP."""
    first, old = process_ids(stack)

    def ask(number: int) -> set[int | str]:
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        found: set[int | str] = set()
        for count in range(1250):
            if number == 0 and count == 400:
                output("docker", "kill", "--signal=HUP", container(stack))
            try:
                connection.request("GET", "/", headers={"Connection": "close"} if number < 2 else {})
                answer = connection.getresponse()
                answer.read()
                found.add(answer.status)
            except OSError as error:
                found.add(repr(error))
                connection.close()
        connection.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        assert set.union(*pool.map(ask, range(8))) == {200}
    same, new = process_ids(stack)
    assert same == first
    assert new
    assert not old & new
