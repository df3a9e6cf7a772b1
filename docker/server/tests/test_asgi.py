"""The server for ASGI applications: the same tests, except where uvicorn leaves no choice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
from corpus import differs
from harness import TIMEOUT_S, Server, running, statuses
from test_server import CASES, HALF, LARGE, LARGE_GET, REST, attack

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = {"INTERFACE": "asgi", "APPLICATION": "asgi_app:app", "line": "startup complete"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(**SETTINGS) as started:
        yield started


@pytest.mark.parametrize(("status", "sent"), [case for case in CASES if not differs(case[1])])
def test_smuggling(server: Server, status: int, sent: str) -> None:
    assert server.ask(sent.replace("x|", "x|Connection: close|") if status == 200 else sent) == [status]


def test_attacks() -> None:
    # Fewer clients are enough to exceed the memory; asyncio copies much in Python 3.11.
    kinds = ["do not read", "send large heads"]
    with ThreadPoolExecutor(len(kinds)) as pool:
        assert list(pool.map(partial(attack, share=6, **SETTINGS), kinds)) == [
            (kind, 0, [200], [200], True) for kind in kinds
        ]


def test_slow_clients_are_disconnected(server: Server) -> None:
    with ExitStack() as stack:
        reader, *others = [
            stack.enter_context(server.connect(sent)) for sent in (LARGE_GET, "", "GET", HALF, LARGE[:-1])
        ]
        time.sleep(TIMEOUT_S + 1.5)
        with pytest.raises(ConnectionResetError):
            b"".join(iter(lambda: reader.recv(1 << 20), b""))
        assert [statuses(client) for client in others] == [[], [], [], []]


def test_requests_in_flight_are_answered_before_the_end() -> None:
    with running(**SETTINGS) as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect(HALF)) for _ in range(16)]
        late = stack.enter_context(server.connect(HALF[:10]))
        server.stop()
        server.wait_for("Shutting down")
        late.sendall(HALF[10:].replace("|", "\r\n").encode())
        time.sleep(0.2)
        for client in [*clients, late]:
            client.sendall(REST)
        assert [statuses(client) for client in [*clients, late]] == [[200]] * 17
