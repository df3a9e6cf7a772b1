from __future__ import annotations

import base64
import io

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from .conftest import LIMIT

JSON = {"Accept": "application/json"}


def body_of(text: str) -> bytes:
    """What a reader of the text answer takes for the body that was sent."""
    head, _, rest = text.partition("\n\n")
    assert head.startswith("METHOD: ")
    label, _, body = rest.partition("\n")
    assert label in {"BODY:", "BODY (base64):"}
    return decoded(body, "utf-8" if label == "BODY:" else "base64")


def decoded(body: str, encoding: str) -> bytes:
    return base64.b64decode(body) if encoding == "base64" else body.encode(encoding)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-NEW"])
@pytest.mark.parametrize("path", ["/", "/a", "/a/b/", "/a//b", "/a%0Ab", "/%E2%82%AC/%2e"])
def test_every_method_on_every_path(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.text.startswith(f"METHOD: {method}\nPATH: {path}\nQUERY: \nHEADERS:\n")


def test_a_path_that_begins_twice(client: FlaskClient) -> None:
    assert client.get("/", environ_overrides={"PATH_INFO": "//a"}).status_code == 200


def test_layout(client: FlaskClient) -> None:
    answer = client.post("/a?b=c&d", data="hello", headers={"User-Agent": "test", "X-One": "1"}, content_type="text/x")
    head, _, body = answer.text.partition("\n\n")
    method, path, query, title, *headers = head.split("\n")
    assert (method, path, query, title) == ("METHOD: POST", "PATH: /a", "QUERY: b=c&d", "HEADERS:")
    expected = ["Content-Length: 5", "Content-Type: text/x", "Host: localhost", "User-Agent: test", "X-One: 1"]
    assert sorted(headers) == expected
    assert body == "BODY:\nhello"


def test_head_has_no_body(client: FlaskClient) -> None:
    answer = client.head("/")
    assert (answer.status_code, answer.data) == (200, b"")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sent=st.binary(max_size=LIMIT))
def test_echoed_bytes_equal_sent_bytes(client: FlaskClient, sent: bytes) -> None:
    assert body_of(client.post("/", data=sent).text) == sent
    answer = client.post("/", data=sent, headers=JSON).get_json()
    assert decoded(answer["body"], answer["body_encoding"]) == sent


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    name=st.from_regex(r"[A-Za-z0-9-]{1,20}", fullmatch=True),
    value=st.from_regex(r"[\x21-\x7e\xa0-\xff]*", fullmatch=True),
)
def test_a_header_is_shown_and_not_sent_back(client: FlaskClient, name: str, value: str) -> None:
    answer = client.get("/", headers={f"X-{name}": value})
    assert f"{value}\n" in answer.text
    assert set(answer.headers.keys()) == {"Content-Type", "Content-Length", "X-Content-Type-Options"}


def test_json(client: FlaskClient) -> None:
    answer = client.put("/x?y=1", data=b"\xff", headers=JSON)
    assert answer.content_type == "application/json"
    body = answer.get_json()
    assert ["Accept", "application/json"] in body.pop("headers")
    assert body == {"method": "PUT", "path": "/x", "query": "y=1", "body": "/w==", "body_encoding": "base64"}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("*/*", "text/plain"),
        ("text/html", "text/plain"),
        ("application/json;q=0.5, text/plain", "text/plain"),
        ("text/plain;q=0.5, application/json", "application/json"),
        ("nonsense;;q=x", "text/plain"),
    ],
)
def test_accept(client: FlaskClient, accept: str, kind: str) -> None:
    assert client.get("/", headers={"Accept": accept}).mimetype == kind


def test_forms_are_echoed_too(client: FlaskClient) -> None:
    answer = client.post("/", data={"a": "1 2", "b": "é"})
    assert body_of(answer.text) == b"a=1+2&b=%C3%A9"
    upload = client.post("/", data={"file": (io.BytesIO(b"contents"), "name.txt")})
    assert b"contents" in body_of(upload.text)


def test_nothing_becomes_html(client: FlaskClient) -> None:
    answer = client.post(
        "/<script>?<b>", data="<script>alert(1)</script>", headers={"X-A": "<b>", "Accept": "text/html"}
    )
    assert answer.mimetype == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def send(client: FlaskClient, size: int, *, chunked: bool) -> TestResponse:
    if chunked:
        environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
        return client.post("/", input_stream=io.BytesIO(b"x" * size), environ_overrides=environ)
    return client.post("/", data=b"x" * size)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_limit_on_bodies(client: FlaskClient, chunked: bool) -> None:
    assert body_of(send(client, LIMIT, chunked=chunked).text) == b"x" * LIMIT
    answer = send(client, LIMIT + 1, chunked=chunked)
    assert (answer.status_code, answer.text) == (413, "413 Request Entity Too Large\n")
    assert answer.content_type == "text/plain; charset=utf-8"


def test_healthz(client: FlaskClient) -> None:
    assert client.get("/healthz").text == "ok\n"
