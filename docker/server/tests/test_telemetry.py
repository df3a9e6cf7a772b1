"""The access log, ids and metrics of both servers."""

import os
import re
import runpy
import select
import socket
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from threading import Event

import pytest
from corpus import G, encoded
from harness import SERVER, WSGI, Server, free_port, read, running

TRACE, MADE = "4bf92f3577b34da6a3ce929d0e0e4736", r"[0-9a-f]{32}"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
FAILURES = "fail", "exit", "pipe", "stop", "none", "headless", "invalid", "length", "negative", "twice", "103"
ERRORS = [(400, "x||"), (400, f"{G}Host: y||"), (431, G + f"A: {'a' * 8000}|" * 5)]
ERRORS += [(500, G.replace("/", f"/{path}?password=geheim", 1) + "|") for path in FAILURES]


@pytest.fixture(scope="module")
def settings(settings: dict[str, str]) -> dict[str, str]:
    more = {"WEB_CONCURRENCY": "2", "FORWARDED_ALLOW_IPS": "192.0.2.0/24, 127.0.0.1"}
    return settings | more | {"STACK_METRICS_PORT": str(free_port())}


def get(server: Server, path: str, port: int = 0, **fields: str) -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", port or server.port, timeout=5)
    connection.request("GET", path, headers={"Connection": "close", **{k.replace("_", "-"): fields[k] for k in fields}})
    answer = connection.getresponse()
    return answer, answer.read().decode()


def test_a_request_is_logged_with_its_ids(server: Server) -> None:
    # A health check passes with 404, too: a service needs no such path.
    assert (server.healthcheck(), server.ask(G.replace("/", "/404", 1) + "|", health=True)) == (0, [404])
    path, forwarded = "/ids?password=x", {"X_Forwarded_For": "1.1.1.1, 192.0.2.7", "X_Forwarded_Proto": "https"}
    answer, text = get(server, path, 0, X_Request_ID="proxy-1", Traceparent=PARENT, **forwarded)
    assert (answer.headers.get_all("X-Request-ID"), text) == (["proxy-1"], f"proxy-1 {PARENT} https")
    line = server.logged("proxy-1")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", str(line.pop("time")))
    assert 0 <= float(str(line.pop("duration_ms"))) < 1000
    expected = {"request_id": "proxy-1", "trace_id": TRACE, "client": "192.0.2.7", "method": "GET", "path": "/ids"}
    assert line == {**expected, "status": 200, "bytes": int(answer.headers["Content-Length"])}
    assert not re.search("/healthz|/404", server.log.read_text())
    made = runpy.run_path(str(SERVER / "server_telemetry.py"))
    assert len({made["random"].seed(1) or made["new_id"]() for _ in range(9)}) == 9  # as an application may do


@pytest.mark.skipif(not any(path.read_text() for path in Path("/proc/net").glob("if_inet6")), reason="no IPv6")
def test_clients_have_ipv4_or_ipv6(server: Server) -> None:
    """Also the metrics' client. Where the log has an address, FORWARDED_ALLOW_IPS has it, too."""
    for address, scheme in (("::1", b"http"), ("127.0.0.1", b"https")):
        with socket.create_connection((address, server.port)) as client:
            client.sendall(encoded(G.replace("/", "/ids", 1) + "X-Forwarded-Proto: https|Connection: close||"))
            assert read(client).endswith(b" " + scheme)
        server.wait_for(f'"client": "{address}"')
        socket.create_connection((address, int(server.env["STACK_METRICS_PORT"]))).close()


def test_a_status_of_no_class_is_logged() -> None:
    """By gunicorn; uvicorn knows none from 600 on. A health check knows the path that all others begin with.

    Flask-Sock answers with 101 by itself, and raises StopIteration when a web socket has ended.
    """
    with running(**WSGI, SCRIPT_NAME="/x") as server:
        answer, _ = get(server, "/x/999")
        assert answer.status == server.logged(answer.headers["X-Request-ID"])["status"] == 999
        assert server.ask(G.replace("/", "/x/stop", 1) + "Sec-WebSocket-Key: x|X-Request-ID: socket||") == []
        assert server.logged("socket")["status"] == 101
        assert server.healthcheck() == 0
        assert [get(server, path)[0].status for path in ("/x", "/x/", "/xa", "/y")] == [200, 200, 404, 404]
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("parent", ["", PARENT.upper(), PARENT.replace(TRACE, "0" * 32), f"ff{PARENT[2:]}"])
def test_ids_that_are_missing_or_malformed_are_made(server: Server, parent: str) -> None:
    answer, text = get(server, "/ids", X_Request_ID="a b", Traceparent=parent)
    found = re.fullmatch(f"({MADE}) 00-({MADE})-[0-9a-f]{{16}}-01 http", text)
    assert found
    assert answer.headers["X-Request-ID"] == found[1]
    assert server.logged(found[1])["trace_id"] == found[2] != TRACE


def test_only_a_trusted_proxy_names_requests_and_the_log_can_be_off(settings: dict[str, str]) -> None:
    more = {"FORWARDED_ALLOW_IPS": "192.0.2.0/24", "STACK_ACCESS_LOG": "off", "STACK_METRICS_PORT": ""}
    with running(**settings | more) as server:
        answer, text = get(server, "/ids", X_Request_ID="mine", Traceparent=PARENT)
        assert text == f"{answer.headers['X-Request-ID']} {PARENT} http"
        assert re.fullmatch(MADE, answer.headers["X-Request-ID"])
        assert "request_id" not in server.log.read_text()


def test_a_log_that_nobody_reads_stops_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    read, written = Event(), list[bytes]()
    monkeypatch.setattr(os, "write", lambda _, text: written.append(text) if read.wait(10) else None)
    log = runpy.run_path(str(SERVER / "server_telemetry.py"))["Log"]()
    for number in range(30_000):
        log.write(b"%d\n" % number)
    assert len(log.lines) <= 10_000
    read.set()
    log.thread.shutdown()
    assert b"".join(written).endswith(b"29998\n29999\n")
    assert max(map(len, written)) <= select.PIPE_BUF


@pytest.mark.parametrize(("status", "sent"), ERRORS)
def test_errors_have_an_id_too(server: Server, status: int, sent: str) -> None:
    with server.connect(sent) as client:
        head = client.recv(65536).decode()
    assert head.startswith(f"HTTP/1.1 {status} ")
    (request_id,) = re.findall(rf"^x-request-id: ({MADE})\r$", head, re.MULTILINE | re.IGNORECASE)
    assert server.logged(request_id)["status"] == status
    assert "geheim" not in server.log.read_text()


def numbers(server: Server) -> dict[str, float]:
    lines = get(server, "/metrics", int(server.env["STACK_METRICS_PORT"]))[1].splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_metrics(server: Server) -> None:
    before = numbers(server)
    for path in ("/", "/large", "/fail"):
        server.logged(get(server, path)[0].headers["X-Request-ID"])
    after = numbers(server)
    assert {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name)}.items() >= {
        'http_request_duration_seconds_count{status="2xx"}': 2,
        'http_request_duration_seconds_bucket{le="1.0",status="2xx"}': 2,
        'http_request_duration_seconds_count{status="5xx"}': 1,
    }.items()


def test_opentelemetry_is_set_up_by_the_environment() -> None:
    """tasks/tests/slow/test_opentelemetry.py has a collector."""
    otel = dict.fromkeys(("OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none") | {"OTEL_BSP_SCHEDULE_DELAY": "100"}
    with running(APPLICATION="flask:Flask('x')", OTEL_TRACES_EXPORTER="console", **otel) as server:
        get(server, "/", Traceparent=PARENT)
        server.wait_for(f'"trace_id": "0x{TRACE}"')


def test_counts_outlive_a_worker_process() -> None:
    with running(STACK_METRICS_PORT=str(free_port())) as server:
        server.logged(get(server, "/")[0].headers["X-Request-ID"])
        (worker,) = server.workers()
        assert server.ask(G.replace("/", "/die", 1) + "|") == []
        server.logged(get(server, "/")[0].headers["X-Request-ID"])
        assert server.workers() != {worker}
        assert numbers(server)['http_request_duration_seconds_count{status="2xx"}'] == 2
