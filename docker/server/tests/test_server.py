"""The server against clients that are malicious, slow, or there while it stops or reloads."""

from __future__ import annotations

import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from corpus import BODIES, HEADS, TRUNCATED, C, G, P, encoded
from harness import THREADS, TIMEOUT_S, Server, running, statuses

if TYPE_CHECKING:
    from collections.abc import Iterator

CASES = [(status, sent) for table in (HEADS, BODIES) for status in table for sent in table[status]]
GET = G + "Connection: close||"
LARGE_GET = G.replace("/", "/large", 1) + "|"
HALF, REST = P + "Connection: close|Content-Length: 4||ab", b"cd"
LARGE = P + "Connection: close|Content-Length: 1000000||" + "x" * 1_000_000
ATTACKS = {  # how many clients do what to keep the server from answering others
    "do not read": (90, LARGE_GET),
    "do not read the answers to large bodies": (20, LARGE.replace("/", "/large", 1)),
    "do not finish large bodies": (10, LARGE[:-1]),
    "do not finish small bodies": (90, HALF),
    "do not finish heads": (90, G + "A: "),
    "send large heads": (90, G + f"A: {'a' * 8000}|" * 97),
    "do not hang up": (90, GET),
    "do nothing": (90, ""),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        yield started


@pytest.mark.parametrize(("status", "sent"), CASES)
def test_smuggling(server: Server, status: int, sent: str) -> None:
    assert server.ask(sent.replace("x|", "x|Connection: close|") if status == 200 else sent) == [status]


@pytest.mark.parametrize("sent", TRUNCATED)
def test_a_truncated_body_is_not_taken_for_a_complete_one(server: Server, sent: str) -> None:
    with server.connect(sent) as client:
        client.shutdown(socket.SHUT_WR)
        assert statuses(client) == [400]


def test_a_malformed_body_that_is_not_read_gets_one_answer(server: Server) -> None:
    assert server.ask(C.replace("/", "/unread", 1) + "5|hello!|0||") == [200]


def test_100_continue_only_if_the_application_reads_the_body(server: Server) -> None:
    head = P + "Content-Length: 5|Expect: 100-continue|"
    assert server.ask(head + "Connection: close||hello") == [100, 200]
    assert server.ask(head.replace("/", "/unread", 1) + "|") == [200]


def attack(kind: str, share: int = 1, **settings: str) -> tuple[str, int, list[int], list[int], bool]:
    """What others get during an attack: the health check's exit code, two answers; whether memory stays free."""
    number, sent = ATTACKS[kind][0] // share, ATTACKS[kind][1]
    with running(**settings) as server, ThreadPoolExecutor(number) as pool:
        attackers = [pool.submit(server.connect, sent) for _ in range(number)]
        time.sleep(0.5)
        found = server.healthcheck(), server.ask(GET), server.ask(LARGE)
        memory_kb = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{max(server.workers())}/status").read_text())[0]
        for attacker in attackers:
            attacker.result().close()
    return kind, *found, int(memory_kb) < 90_000


def test_attacks() -> None:
    with ThreadPoolExecutor(len(ATTACKS)) as pool:
        assert list(pool.map(attack, ATTACKS)) == [(kind, 0, [200], [200], True) for kind in ATTACKS]


def test_slow_clients_are_disconnected(server: Server) -> None:
    with ExitStack() as stack:
        reader, *others = [stack.enter_context(server.connect(sent)) for sent in (LARGE_GET, "", G, HALF, LARGE[:-1])]
        time.sleep(TIMEOUT_S + 0.5)
        with pytest.raises(ConnectionResetError):
            b"".join(iter(lambda: reader.recv(1 << 20), b""))
        assert [statuses(client) for client in others] == [[], [], [400], [400]]


def test_requests_that_wait_do_so_together() -> None:
    def ask(server: Server) -> int:
        with server.connect(GET.replace("/", "/wait", 1)) as client:
            return int(b"".join(iter(lambda: client.recv(4096), b"")).rpartition(b"\r\n")[2])

    with running(GUNICORN_CMD_ARGS="--threads=100") as server, ThreadPoolExecutor(100) as pool:
        assert max(pool.map(ask, [server] * 100)) > 40


def test_requests_in_flight_are_answered_before_the_end() -> None:
    with running() as server, ExitStack() as stack:
        late, *clients = [stack.enter_context(server.connect(sent)) for sent in ("", *[HALF] * (THREADS // 2))]
        server.stop()
        server.wait_for("Handling signal: term")
        time.sleep(0.5)
        with pytest.raises(ConnectionRefusedError):  # a proxy asks another server then
            socket.create_connection(("127.0.0.1", server.port))
        late.sendall(encoded(HALF))
        for client in (late, *clients):
            client.sendall(REST)
        assert [statuses(client) for client in (late, *clients)] == [[200]] * (1 + len(clients))


def test_no_connection_is_reset_when_a_busy_server_stops() -> None:
    def ask(server: Server) -> set[int]:
        found: set[int] = set()
        with suppress(ConnectionRefusedError):
            while True:
                with closing(HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection:
                    connection.request("GET", "/", headers={"Connection": "close"})
                    found.add(connection.getresponse().status)
        return found

    with ThreadPoolExecutor(50) as pool, running() as server:
        answers = pool.map(ask, [server] * 50)
        time.sleep(1)
        server.stop()
        assert set.union(*answers) == {200}


def test_it_can_be_stopped_while_it_starts() -> None:
    def stop(age: float) -> None:
        with running("Starting gunicorn"):
            time.sleep(age)

    with ThreadPoolExecutor() as pool:
        list(pool.map(stop, [0, 0.05, 0.1, 0.2, 0.4]))


def test_a_reload_loses_no_request(server: Server) -> None:
    before = server.workers()

    def ask(number: int) -> set[int]:
        found: set[int] = set()
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection:
            for count in range(300):
                if (number, count) == (0, 50):
                    server.process.send_signal(signal.SIGHUP)
                connection.request("GET", "/", headers={"Connection": "close"} if number % 2 else {})
                with connection.getresponse() as answer:
                    found.add(answer.status)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert set.union(*pool.map(ask, range(4))) == {200}
    assert not server.workers() & before
