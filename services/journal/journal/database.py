"""The entries, in PostgreSQL."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from threading import Timer
from typing import Any

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool
from werkzeug.exceptions import ServiceUnavailable

from .neighbour import Answer

TIMEOUT_S = 2.0  # for a connection, and for an answer
Connection = psycopg.Connection[DictRow]


class Database:
    """The database at ``conninfo``; every method raises ServiceUnavailable while it is away."""

    def __init__(self, conninfo: str) -> None:
        self.pool = ConnectionPool(
            conninfo,
            connection_class=Connection,
            kwargs={"row_factory": dict_row, "connect_timeout": ceil(TIMEOUT_S)},
            min_size=0,  # so that nothing but a request ever looks for a database that is away
            max_size=8,  # for each worker; more requests wait for one another
            timeout=TIMEOUT_S,
            reconnect_timeout=0,
            check=check,
            open=False,  # its threads would not survive gunicorn's fork
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection with a transaction around the block."""
        self.pool.open()
        try:
            with self.pool.connection() as connection, deadline(connection):
                yield connection
        except psycopg.errors.UndefinedTable:
            raise ServiceUnavailable("the database has not been migrated yet") from None
        except psycopg.OperationalError:
            raise ServiceUnavailable("the database does not answer") from None

    def store(self, method: str, path: str, answer: Answer) -> int:
        """Write an entry and return its number."""
        text = f"{method} {path}\n{answer.body.decode(errors='replace')}"
        row = (method, path, answer.status, answer.content_type, answer.body, folded(text))
        with self.connection() as connection:
            stored = connection.execute(
                "INSERT INTO entries (method, path, status, content_type, answer, searchable)"
                " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
                row,
            ).fetchone()
        return int(stored["id"]) if stored else 0

    def find(self, query: str, offset: int, limit: int) -> list[dict[str, Any]]:
        """The entries that contain ``query``, in whatever case, the newest first; "" finds all."""
        pattern = "%" + re.sub(r"([\\%_])", r"\\\1", folded(query)) + "%"
        with self.connection() as connection:
            return connection.execute(
                "SELECT id, written_at, method, path, status, content_type, length(answer) AS bytes FROM entries"
                " WHERE searchable LIKE %s ORDER BY id DESC OFFSET %s LIMIT %s",
                (pattern, offset, limit),
            ).fetchall()

    def get(self, number: int) -> dict[str, Any] | None:
        """One entry, None where there is none of that number."""
        with self.connection() as connection:
            return connection.execute("SELECT * FROM entries WHERE id = %s::numeric", (number,)).fetchone()


def folded(text: str) -> str:
    """A text as it is searched: case does not matter, and NUL, which PostgreSQL's texts cannot hold, is a space."""
    return text.casefold().replace("\0", " ")


def check(connection: Connection) -> None:
    """Raise OperationalError for a connection that is dead, or whose server is."""
    with deadline(connection):
        ConnectionPool.check_connection(connection)


@contextmanager
def deadline(connection: Connection) -> Iterator[None]:
    """Hang up when the block takes longer than TIMEOUT_S: a frozen server would keep us waiting for ever."""
    timer = Timer(TIMEOUT_S, hang_up, [connection])
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def hang_up(connection: Connection) -> None:
    """Shut a connection's socket down, which its own thread takes for a server that is gone."""
    with socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
