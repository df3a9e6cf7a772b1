"""Web sockets, which uvicorn serves for services that have websockets."""

import re
import time
from contextlib import ExitStack, suppress
from select import poll
from socket import socket

import pytest
from corpus import G
from harness import ASGI, TIMEOUT_S, Server, read, running
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

UPGRADE = f"Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: {'A' * 22}==||"
HTTP = [(G.replace("x|", f"{host}|"), [400]) for host in ("x/y", "a@b", "x|Host: y")]
# What websockets ignores is answered by HTTP, and so is what comes before the answer to an earlier request.
HTTP += [(each, [200]) for each in (G.replace("GET", "POST"), f"{G}Content-Length: 0|", G.replace("1.1", "1.0"))]
HTTP += [(f"{G.replace('/', '/wait', 1)}|{G}", [200, 200]), (G.replace("/", "/refuse", 1), [403])]
# websockets rejects the first of these, and does not answer the second.
HTTP += [(f"{G}Sec-WebSocket-Version: 12|", [400]), (G + "A: b|" * 150, [431])]
PART = b"\x82\xff" + (1_000_000).to_bytes(8, "big") + bytes(4 + 1000)  # of a message


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return ASGI


def opened(server: Server, sock: socket | None = None) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/socket?password=geheim", sock=sock, close_timeout=0.1, max_queue=1)


def test_messages_are_answered(server: Server) -> None:
    with opened(server) as client:
        for size in (0, 5, 1_000_000):
            client.send(bytes(size))
            assert client.recv(5) == str(size)
        assert client.response
        request_id = client.response.headers["X-Request-ID"]
    assert server.logged(request_id).items() >= {"path": "/socket", "status": 101}.items()
    assert "geheim" not in server.log.read_text()


@pytest.mark.parametrize(("before", "found"), HTTP)
def test_requests_that_open_no_web_socket(server: Server, before: str, found: list[int]) -> None:
    with server.connect(before + UPGRADE) as client:
        answers = re.findall(r"HTTP/1.1 (\d+) .*?\r\nx-request-id: [0-9a-f]{32}\r\n", read(client).decode(), re.DOTALL)
    assert [int(status) for status in answers] == found


@pytest.mark.parametrize("message", [bytes(2_000_000), [b"a"] * 2000])
def test_a_message_that_is_too_large_closes_the_connection(server: Server, message: bytes | list[bytes]) -> None:
    with opened(server) as client:
        with suppress(ConnectionClosed):  # it may be closed before all is sent
            client.send(message)
        with pytest.raises(ConnectionClosed):
            client.recv(5)


def test_slow_clients_are_disconnected(server: Server) -> None:
    early = server.connect()
    time.sleep(TIMEOUT_S * 0.8)  # idle for long before it becomes a web socket
    with opened(server, early) as idle, opened(server) as reader, opened(server) as sender:
        reader.send("999999")
        sender.socket.sendall(PART)
        (poller := poll()).register(reader.socket, 0)
        assert poller.poll(20_000)  # it is reset; a client that reads is not slow
        for client in (reader, sender):
            with pytest.raises(ConnectionClosed):
                list(client)
        idle.send(b"abc")
        assert idle.recv(5) == "3"


@pytest.mark.parametrize("sent", [b"\x81\x86" + bytes(4) + b"999999", PART + bytes(900_000)])
def test_clients_cannot_take_all_memory_and_are_told_when_the_server_stops(sent: bytes) -> None:
    with running(**ASGI) as server, ExitStack() as stack:
        for _ in range(150):
            attacker = stack.enter_context(server.connect(G + UPGRADE))
            attacker.recv(1000)
            with suppress(ConnectionError):
                attacker.sendall(sent)
        with opened(server) as client:
            client.send(b"abc")
            assert (client.recv(5), server.healthcheck(), server.memory_mb() < 130) == ("3", 0, True)
            server.stop()
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(5)
            assert getattr(closed.value.rcvd, "code", 0) == 1012  # service restart
