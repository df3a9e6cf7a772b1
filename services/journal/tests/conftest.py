from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask, Response, request
from flask.testing import FlaskClient
from journal import create_app, database
from journal.database import folded
from journal.neighbour import Answer
from journal.settings import Settings
from werkzeug.serving import make_server

NOBODY = "127.0.0.1:1"  # no one listens on port 1


class InMemory:
    """Takes the database's place: what PostgreSQL really does is tested with the stack."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def store(self, method: str, path: str, answer: Answer) -> int:
        row = {"id": len(self.rows) + 1, "written_at": datetime.now(UTC), "method": method, "path": path}
        self.rows.insert(0, row | answer._asdict())
        return len(self.rows)

    def find(self, query: str, offset: int, limit: int) -> list[dict[str, Any]]:
        found = [row for row in self.rows if folded(query) in folded(f"{row['path']}{row['body']}")]
        return [{k: v for k, v in row.items() if k != "body"} for row in found[offset : offset + limit]]

    def get(self, number: int) -> dict[str, Any] | None:
        return next((row | {"answer": row["body"]} for row in self.rows if row["id"] == number), None)


@pytest.fixture(scope="session")
def echo_url() -> Iterator[str]:
    """A neighbour of flesh and blood, which answers with what it got, and 418 to whoever asks for tea."""
    neighbour = Flask("neighbour")

    @neighbour.before_request
    def answer() -> Response:
        seen = f"{request.method} {request.environ['RAW_URI']}\n{request.headers}".encode() + request.get_data()
        return Response(seen, 418 if request.path == "/tea" else 200, mimetype="text/plain")

    server = make_server("127.0.0.1", 0, neighbour)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for a database that is away."""
    monkeypatch.setattr(database, "TIMEOUT_S", 0.3)


def make_client(echo_url: str, conninfo: str = "") -> Iterator[FlaskClient]:
    """A client of the application; without a ``conninfo``, entries are in memory."""
    app = create_app(Settings(echo_url=echo_url, database=conninfo))
    app.testing = True
    pool = app.extensions["database"].pool
    if not conninfo:
        app.extensions["database"] = InMemory()
    yield app.test_client()
    pool.close()


@pytest.fixture
def client(echo_url: str) -> Iterator[FlaskClient]:
    yield from make_client(echo_url)


@pytest.fixture
def without_echo() -> Iterator[FlaskClient]:
    yield from make_client(f"http://{NOBODY}")


@pytest.fixture
def without_database(echo_url: str) -> Iterator[FlaskClient]:
    yield from make_client(echo_url, f"postgresql://journal@{NOBODY}/journal")
