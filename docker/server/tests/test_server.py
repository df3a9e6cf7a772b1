"""Both servers against clients that are malicious, slow, or there while they stop or reload."""

import re
import resource
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from importlib import import_module
from unittest.mock import Mock

import pytest
from corpus import BODIES, HEADS, TRUNCATED, C, G, P, differs, encoded
from harness import ASGI, THREADS, TIMEOUT_S, WSGI, Server, read, running, statuses

CASES = [(status, sent) for table in (HEADS, BODIES) for status in table for sent in table[status]]
# Answers that have no body, though the application sends one.
CASES += [(each, P.replace("/", f"/{each}", 1) + "Content-Length: 13||HTTP/1.1 555 ") for each in (204, 304)]
GET = G + "Connection: close||"
WAIT = GET.replace("/", "/wait", 1)
CHUNKED = WAIT.replace("GET", "POST").replace("||", "|Transfer-Encoding: chunked||4|body|0||")
LARGE_GET = G.replace("/", "/large", 1) + "|"
HALF, REST = CHUNKED.replace("/wait", "/", 1)[:-6], "dy|0||"
LARGE = P + "Connection: close|Content-Length: 1000000||" + "x" * 1_000_000
LARGE_CHUNK = CHUNKED[:-10] + "100000|" + "x" * 200_000
ENDING = "asyncio.gather(args[2]({'type': 'lifespan.startup.complete'}), asyncio.sleep(99))"
BLOCKING = f"asyncio.get_running_loop().call_later(0.1, time.sleep, 99) and {ENDING}"
# A process that multiprocessing spawns must not run the server once more.
SPAWN = "__import__('multiprocessing').get_context('spawn').Process(target=print, args=['starting']).start()"
# When, which ASGI application, the exit code.
STOPPED = [("starting", f"{SPAWN} or asyncio.sleep(99)", 0)]
STOPPED += [("startup complete", ENDING, 0), ("startup complete", BLOCKING, 1)]
UNENDING = [  # a signal, an application, and what the log says once
    (signal.SIGHUP, WSGI, ("/endless takes longer than 3 s", '"path": "/endless"')),
    (signal.SIGTERM, WSGI | {"APPLICATION": "app:lambda *args: time.sleep(99)"}, ("was sent SIGALRM",)),
    (signal.SIGTERM, ASGI, ("Cancel 1 running task", '"path": "/endless"')),
]
ATTACKS = {  # how many clients do what to keep the server from answering others
    "do not read": (60, LARGE_GET),
    "do not read the answers to large bodies": (20, LARGE.replace("/", "/large", 1)),
    "do not finish large bodies": (10, LARGE[:-1]),
    "do not finish large chunks": (10, LARGE_CHUNK),
    "crowd with large bodies": (1500, LARGE[:-900_000]),
    "do not finish small bodies": (1200, P + "Content-Length: 65000||" + "x" * 60_000),
    "do not finish heads": (90, G + "A: "),
    "send large heads": (90, G + f"A: {'a' * 8000}|" * 97),
    "connect": (4100, ""),
    "stay connected": (4100, f"{G}|"),
    "do not hang up": (90, GET),
    "send many requests at a time": (30, (G + "|") * 50_000),
    "do not read endless answers": (20, G.replace("/", "/endless", 1) + "|"),
    "ask for heads of endless answers": (40, G.replace("GET /", "HEAD /endless") + "|"),
}


@pytest.mark.parametrize(("status", "sent"), CASES)
def test_smuggling(server: Server, status: int, sent: str) -> None:
    if server.env["INTERFACE"] == "asgi" and differs(sent):
        pytest.skip("uvicorn leaves no choice")
    assert server.ask(sent.replace("x|", "x|Connection: close|") if status == 200 else sent) == [status]


def test_a_malformed_body_that_is_not_read_gets_one_answer(server: Server) -> None:
    unread = C.replace("/", "/unread", 1)
    assert server.ask(unread + "5|hello!|0||") == [400 if server.env["INTERFACE"] == "asgi" else 200]
    with server.connect(unread + "1|a|") as client:
        time.sleep(0.2)  # it is being answered
        client.sendall(encoded("zz|"))
        assert statuses(client) == [200]
    assert "write_eof" not in server.log.read_text()


def test_a_body_after_an_upgrade_that_is_ignored_is_no_request(server: Server) -> None:
    body = encoded(f"{G}|")
    with server.connect(P + f"Connection: Upgrade, close|Upgrade: h2c|Content-Length: {len(body)}||") as client:
        time.sleep(0.2)
        client.sendall(body)
        assert read(client).endswith(b"\r\n\r\n" + body)


def test_trailers_are_no_header_fields(server: Server) -> None:
    with server.connect(C.replace("/", "/ids", 1) + "0|X-Request-ID: evil||" + GET) as client:
        assert b"evil" not in read(client)


def test_http_1_0_has_no_chunks(server: Server) -> None:
    with server.connect(G.replace("/", "/endless", 1).replace("1.1", "1.0") + "|") as client:
        assert client.makefile("rb").read(4096).endswith(bytes(2000))


def test_100_continue_only_if_the_application_reads_the_body(server: Server) -> None:
    head = P + "Connection: close|Content-Length: 5|Expect: 100-continue||"
    assert server.ask(head + "hello") == [100, 200]
    with server.connect(head.replace("/", "/unread", 1).replace("Connection: close|", "")) as client:
        assert b"connection: close" in read(client).lower()  # else a next request would be taken for the body


def test_who_still_sends_gets_the_answer(server: Server) -> None:
    with server.connect(LARGE.replace("/", "/unread", 1).replace("1000000", "20000000")) as client:
        client.sendall(bytes(19_000_000))
        assert statuses(client) == [200]


@pytest.mark.parametrize("sent", [GET, WAIT, HALF + REST, LARGE_GET, *TRUNCATED])
def test_who_sends_no_more_still_gets_an_answer(server: Server, sent: str) -> None:
    with server.connect(sent) as client:
        client.shutdown(socket.SHUT_WR)
        found = [400] if sent in TRUNCATED else [200]
        assert statuses(client) in (found, [] if server.env["INTERFACE"] == "asgi" else found)  # as uvicorn has it


@pytest.mark.parametrize(("last", "status"), [(GET, 200), ("nonsense||", 400), (G + "Host: y||", 400)])
def test_requests_sent_together_are_answered_in_order(server: Server, last: str, status: int) -> None:
    late = G.replace("/", "/late", 1) + "|"  # an error after an answer cuts off no other
    sent = late + late.replace("GET", "HEAD") + WAIT.replace("Connection: close|", "") + (G + "|") * 50
    assert server.ask(sent + last) in ([200] * 53 + [status], [200] * 53)
    if server.env["INTERFACE"] == "asgi":
        assert set(re.findall("ConnectionRefusedError: (.*)\nrequest_id: ", server.log.read_text())) == {"GET", "HEAD"}


def test_who_hangs_up_during_an_upload_is_forgotten(server: Server) -> None:
    before = len(server.log.read_text())
    for _ in range(20):  # more than may send large bodies at a time
        server.connect(LARGE[:-500_000]).close()
    with server.connect(WAIT) as client:
        client.setsockopt(*import_module("server_limits").RESET)
    answers = (server.ask(LARGE) for _ in range(50))
    assert next(answer for answer in answers if answer != [503]) == [200]  # 503: the others are still being handled
    assert "Traceback" not in server.log.read_text()[before:]
    while '"path": "/wait"' not in (log := server.log.read_text()[before:]):
        time.sleep(0.01)
    assert '"bytes": -' not in log


@pytest.mark.parametrize("kind", ATTACKS)
def test_attacks(settings: dict[str, str], kind: str) -> None:
    number, sent = ATTACKS[kind]
    # The server waits longer for attackers than others wait for answers, except where these must wait for attackers.
    settings = settings | {"STACK_CLIENT_TIMEOUT_S": "1.5" if "do not finish large" in kind else "30"}
    resource.setrlimit(resource.RLIMIT_NOFILE, (8000, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with running(**settings) as server, ThreadPoolExecutor(100) as pool:
        attackers = [pool.submit(server.connect, sent) for _ in range(number)]
        wait(attackers, timeout=1)
        time.sleep(0.5)
        with server.connect() as late:
            time.sleep(0.5)
            late.sendall(encoded(GET))
            assert statuses(late) == [200]
        found = server.healthcheck(), server.ask(GET), "crowd" in kind or server.ask(LARGE), server.memory_mb() < 150
        for attacker in attackers:
            with suppress(OSError):
                attacker.result().close()
        assert (*found, server.ask(GET)) == (0, [200], "crowd" in kind or [200], True, [200])


@pytest.mark.parametrize(("unsent", "held"), [(bytearray(b"abc"), 3), ([memoryview(b"abcdef")[4:], b"gh"], 8)])
def test_what_asyncio_has_sent_in_part_is_held_as_a_whole(unsent: object, held: int) -> None:
    client = import_module("asgi_clients").Client()
    client.transport = Mock(_buffer=unsent)
    assert client.held_bytes() == import_module("asgi_clients").CONNECTION_BYTES + held


def test_small_chunks_do_not_keep_others_waiting(settings: dict[str, str]) -> None:
    """One thread at a time decodes them; uvicorn decodes few in one turn of its event loop, and passes them on in one piece."""
    sent = C + "1|x|" * 40_000 + "0||"
    with ThreadPoolExecutor(60) as pool, running(**settings) as server:
        if settings == ASGI:
            with server.connect(sent.replace("x|", "x|Connection: close|", 1).replace("/", "/parts", 1)) as client:
                assert 20 < int(read(client).split()[-1]) < 200  # parts that the application gets

        def attack(_number: int) -> None:
            while True:  # until the server refuses connections
                with socket.create_connection(("127.0.0.1", server.port), 15) as client, suppress(ConnectionError):
                    client.sendall(encoded(sent))
                    client.recv(1)

        pool.map(attack, range(60))
        began = time.monotonic()
        for _ in range(3):
            assert (server.healthcheck(), server.ask(GET)) == (0, [200])
        assert time.monotonic() < began + 12  # it takes twice as long where all threads decode at once


def test_slow_clients_are_disconnected(server: Server) -> None:
    late = [400] if server.env["INTERFACE"] == "wsgi" else []
    with ExitStack() as stack:
        last = LARGE_GET.replace("x|", "x|Connection: close|")
        sent = (LARGE_GET, LARGE_GET, last, *[f"{G}|"] * 2, "", G, HALF, LARGE[:-1])
        steady, *clients = [stack.enter_context(server.connect(each)) for each in sent]
        answer = stack.enter_context(steady.makefile("rb"))
        *readers, active, idle, silent, head, small, large = clients
        for _ in range(6):
            time.sleep(TIMEOUT_S / 6 + 0.25)
            active.sendall(encoded(f"{G}|"))
            assert len(answer.read(50_000)) == 50_000  # much less than systems buffer
        for reader in readers:
            with pytest.raises(ConnectionResetError):
                read(reader)
        assert [read(client).count(b"HTTP/1.1 200 ") for client in (active, idle)] == [7, 1]  # without a reset
        assert [statuses(client) for client in (silent, head, small, large)] == [[], [], late, late]


@pytest.mark.parametrize("health", [False, True])
def test_requests_that_wait_do_so_together(settings: dict[str, str], health: bool) -> None:
    with running(**settings, GUNICORN_CMD_ARGS="") as server, ThreadPoolExecutor(100) as pool:
        began = time.monotonic()
        assert list(pool.map(lambda sent: server.ask(sent, health=health), [WAIT, CHUNKED] * 50)) == [[200]] * 100
        assert time.monotonic() < began + 4


@pytest.mark.parametrize("sent", [LARGE_CHUNK, CHUNKED[:-10] + "1|x|" * 5000])
def test_bodies_of_unknown_length_that_are_large_or_take_much_time_get_one_answer(sent: str) -> None:
    with running() as server, ExitStack() as stack:
        clients = [stack.enter_context(server.connect(sent)) for _ in range(20)]
        found = {tuple(statuses(client)) for client in clients}
        assert {(503,)} <= found <= {(503,), (400,), ()}
        assert "Traceback" not in server.log.read_text()


def test_requests_in_flight_are_answered_before_the_end(settings: dict[str, str]) -> None:
    with running(**settings) as server, ExitStack() as stack:
        late, *clients = [stack.enter_context(server.connect(sent)) for sent in ("", *[HALF] * (THREADS // 2))]
        server.stop()
        # A proxy asks another server then. The system may drop what comes at that very moment; it is repeated after 1 s.
        with suppress(ConnectionRefusedError, TimeoutError):
            while True:
                socket.create_connection(("127.0.0.1", server.port), timeout=0.2).close()
                time.sleep(0.01)  # thousands would make it disconnect those that wait
        late.sendall(encoded(P + "Connection: close|Content-Length: 8||"))
        time.sleep(0.2)
        for client in (late, *clients):
            client.sendall(encoded(REST))
        assert [statuses(client) for client in (late, *clients)] == [[200]] * (1 + len(clients))
        server.process.wait()
        assert "the application ends" in server.log.read_text()


def ask_often(server: Server, number: int, *, keep_alive: bool = False) -> set[int]:
    """The statuses of many requests in a row, until the server refuses connections."""
    found: set[int] = set()
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=5)) as connection, suppress(ConnectionRefusedError):
        for _ in range(number):
            connection.request("GET", "/", headers={} if keep_alive else {"Connection": "close"})
            with connection.getresponse() as answer:
                found.add(answer.status)
    return found


def test_answers_do_not_wait_for_acknowledgements(server: Server) -> None:
    began = time.monotonic()
    assert ask_often(server, 100, keep_alive=True) == {200}
    assert time.monotonic() < began + 2.5  # Nagle's algorithm and delayed acknowledgements would take 40 ms each


def test_no_request_is_lost_by_a_busy_server_that_reloads_or_stops(settings: dict[str, str]) -> None:
    with ThreadPoolExecutor(50) as pool, running(**settings) as server:
        answers = [
            pool.submit(ask_often, server, 100_000, keep_alive=settings == WSGI and number < 10) for number in range(50)
        ]
        time.sleep(0.3)
        before = server.workers()
        server.process.send_signal(signal.SIGHUP)
        while server.workers() & before and settings == WSGI:  # uvicorn does not reload
            time.sleep(0.1)
        server.stop()
        assert set.union(*(each.result() for each in answers)) == {200}


@pytest.mark.parametrize(("number", "env", "told"), UNENDING)
def test_requests_that_do_not_end_are_cut_off(number: int, env: dict[str, str], told: tuple[str, ...]) -> None:
    with running(STACK_CLIENT_TIMEOUT_S="30", **env) as server, server.connect(G.replace("/", "/endless", 1) + "|"):
        time.sleep(0.5)  # it is being answered
        workers, began = server.workers(), time.monotonic()
        server.process.send_signal(number)
        server.stopped = number == signal.SIGTERM
        while server.process.poll() is None and server.workers() & workers:
            assert time.monotonic() < began + 9  # Docker kills it soon
            time.sleep(0.1)
        log = server.log.read_text()
        assert ({log.count(each) for each in told}, "Traceback" in log) == ({1}, False)


def test_it_can_be_stopped_where_exceptions_are_ignored(settings: dict[str, str]) -> None:
    with running("stopping", **settings | {"APPLICATION": "app:Stopper() and app"}) as server:
        server.stopped = True


@pytest.mark.parametrize(("line", "lifespan", "code"), STOPPED)
def test_it_can_be_stopped_when_an_asgi_application_cannot(line: str, lifespan: str, code: int) -> None:
    with running(line, code, **ASGI | {"APPLICATION": f"app:lambda *args: {lifespan}"}) as server:
        server.stop()
        server.process.wait()  # for longer than others, which Docker would kill


@pytest.mark.parametrize("age", [0, 0.05, 0.1, 0.2, 0.4])
def test_it_can_be_stopped_while_it_starts(age: float) -> None:
    with running("Starting gunicorn"):
        time.sleep(age)
