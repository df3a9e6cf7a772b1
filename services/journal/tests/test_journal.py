from __future__ import annotations

import socket

import pytest
from flask.testing import FlaskClient
from journal.views import LONGEST_BODY, PAGE

from .conftest import make_client

PLAIN = "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "X-NEW"])
@pytest.mark.parametrize(
    ("path", "target"),
    [("/echo/", "/"), ("/echo/a/b?c=d%20e&f", "/a/b?c=d%20e&f"), ("/echo/%E2%82%AC%20//x/", "/%E2%82%AC%20//x/")],
)
def test_every_method_and_path_reaches_the_neighbour(client: FlaskClient, method: str, path: str, target: str) -> None:
    answer = client.open(path, method=method, data=b"\xffbody", headers={"X-One": "1"})
    assert answer.status_code == 200
    assert answer.data.startswith(f"{method} {target}\n".encode())
    assert answer.data.endswith(b"\xffbody")
    assert b"X-One: 1\r\n" in answer.data


def test_the_address_that_dev_prints_tells_what_to_do(client: FlaskClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "/entries" in answer.text


def test_headers_of_the_connection_stay_behind(client: FlaskClient) -> None:
    answer = client.post("/echo/", headers={"Keep-Alive": "5", "Host": "outside", "TE": "trailers"})
    assert not {"Keep-Alive", "Te"} & {line.partition(":")[0] for line in answer.text.splitlines()}
    assert "Host: 127.0.0.1" in answer.text


def test_an_answer_is_stored_as_it_came(client: FlaskClient) -> None:
    answer = client.post("/echo/tea", data=b"\x00\xff")
    assert (answer.status_code, answer.headers["Location"]) == (418, "/entries/1")
    stored = client.get("/entries/1")
    assert (stored.status_code, stored.data, stored.content_type) == (200, answer.data, answer.content_type)
    assert client.get("/entries").get_json()["entries"][0]["status"] == 418


def test_pages(client: FlaskClient) -> None:
    for number in range(PAGE + 1):
        client.get(f"/echo/{number}")
    client.get("/echo/other")
    first = client.get("/entries").get_json()
    assert [entry["id"] for entry in first["entries"]] == list(range(PAGE + 2, 2, -1))
    last = client.get(first["next"]).get_json()
    assert [entry["path"] for entry in last["entries"]] == ["/1", "/0"]
    assert last["next"] is None
    assert client.get("/entries?q=OTHER").get_json()["entries"][0]["path"] == "/other"
    assert client.get("/entries?page=999999999").get_json() == {"entries": [], "next": None}


def test_the_next_page_keeps_the_search(client: FlaskClient) -> None:
    for _ in range(PAGE + 1):
        client.get("/echo/a%26b")
    assert client.get("/entries?q=a%2526b").get_json()["next"] == "/entries?q=a%2526b&page=2"


@pytest.mark.parametrize("page", ["0", "-1", "x", "1.5", "²", "1000000000", "1" * 5000])
def test_a_page_that_can_be_none(client: FlaskClient, page: str) -> None:
    answer = client.get(f"/entries?page={page}")
    assert (answer.status_code, answer.content_type) == (400, PLAIN)
    assert answer.text == "400 Bad Request: page must be a whole number, from 1 on\n"


def test_errors_are_plain(client: FlaskClient) -> None:
    assert client.get("/entries/7").text == "404 Not Found: there is no entry 7\n"
    assert client.get("/nowhere").text == "404 Not Found\n"
    assert client.post("/entries").text == "405 Method Not Allowed\n"
    answer = client.post("/echo/", data=b"x" * (LONGEST_BODY + 1))
    assert (answer.status_code, answer.text, answer.content_type) == (413, "413 Request Entity Too Large\n", PLAIN)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_echo_is_away(without_echo: FlaskClient) -> None:
    answer = without_echo.post("/echo/x")
    assert (answer.status_code, answer.content_type) == (503, PLAIN)
    assert answer.text == "503 Service Unavailable: 127.0.0.1 does not answer\n"
    assert without_echo.get("/entries").status_code == 200
    assert without_echo.get("/healthz").text == "ok\n"
    assert without_echo.get("/readyz").status_code == 503


@pytest.mark.parametrize("path", ["/echo/x", "/entries", "/entries/1", "/readyz"])
def test_the_database_is_away(without_database: FlaskClient, path: str) -> None:
    answer = without_database.get(path)
    assert (answer.status_code, answer.content_type) == (503, PLAIN)
    assert answer.text == "503 Service Unavailable: the database does not answer\n"
    assert without_database.get("/healthz").text == "ok\n"


def test_it_is_ready_with_echo_and_the_database(client: FlaskClient) -> None:
    assert client.get("/readyz").text == "ok\n"


def test_a_database_that_says_nothing(echo_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for client in make_client(echo_url, f"postgresql://journal@127.0.0.1:{silent.getsockname()[1]}/journal"):
            assert client.get("/entries").status_code == 503
