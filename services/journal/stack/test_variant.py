"""The journal service on a stack of its own, with other names and a database that comes up late."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.shell import CommandFailed, output
from tasks.stack.model import Stack

OwnStack = Callable[[str], AbstractContextManager[Stack]]

DATABASE = "journal-database"


def inspect(stack: Stack, service: str) -> dict[str, Any]:
    """What `docker inspect` says of a service's container."""
    found = next(c.id for c in stack.containers() if c.service == service)
    return dict(json.loads(output("docker", "inspect", found))[0])


def utc(moment: str) -> str:
    """A time that Docker states in the machine's zone, as it states others: in UTC."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


@pytest.fixture(scope="module")
def variant(own_stack: OwnStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose database comes up 2 s late, with other names, another user, database and password.

    The names and credentials only work together if each is really read from the environment.
    """
    password = tmp_path_factory.mktemp("secrets") / "password"
    password.write_text("another one")
    password.chmod(0o644)  # for the database's user, whatever the umask is
    late = '["sh", "-c", "sleep 2; exec docker-entrypoint.sh postgres"]'
    changes = f"""
services:
  journal: &us
    environment:
      ECHO_URL: http://neighbour.test:8000
      JOURNAL_DATABASE_URL: postgresql://somebody@store.test/things
  journal-migrate: *us
  echo:
    networks: {{default: {{aliases: [neighbour.test]}}}}
  {DATABASE}:
    entrypoint: {late}
    environment: {{POSTGRES_USER: somebody, POSTGRES_DB: things}}
    networks: {{default: {{aliases: [store.test]}}}}
secrets:
  journal-database: {{file: {password}}}
"""
    with own_stack(changes) as stack:
        yield stack


def in_journal(stack: Stack, code: str) -> str:
    """What Python code prints in journal's container."""
    return output("docker", "exec", stack.container("journal").id, "python3", "-c", code)


def test_start_is_delayed_until_the_database_is_ready(variant: Stack) -> None:
    """No container that needs the database starts before it is ready, and none has to be restarted."""
    database, migrate, journal = (inspect(variant, name) for name in (DATABASE, "journal-migrate", "journal"))
    ready = next(check for check in database["State"]["Health"]["Log"] if check["ExitCode"] == 0)["Start"]
    assert migrate["State"]["StartedAt"] > utc(ready)
    assert journal["State"]["StartedAt"] > migrate["State"]["FinishedAt"]
    assert migrate["RestartCount"] == journal["RestartCount"] == 0


def test_addresses_and_credentials_are_read_from_the_environment(variant: Stack) -> None:
    ask = "from urllib.request import urlopen as u; print(u('http://127.0.0.1:8000/echo/x').read().decode())"
    assert "Host: neighbour.test:8000\n" in in_journal(variant, ask)
    command = ("exec", "-T", DATABASE, "psql", "-U", "somebody", "-d", "things", "-Atc", "SELECT path FROM entries")
    assert variant.compose(*command) == "/x\n"
    # A password that is not the database's is refused, so the right one was read.
    with pytest.raises(CommandFailed, match="password authentication failed"):
        in_journal(variant, "import psycopg; psycopg.connect('postgresql://somebody:wrong@store.test/things')")
