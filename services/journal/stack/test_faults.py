"""Writers to journal while its database goes and comes back: what was acknowledged is there, and all else gets 503."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import httpx
import pytest

from tasks.ownership import labels
from tasks.project import clone_id
from tasks.shell import output
from tasks.stack.model import Stack
from tests.stack.plugin import wait_until

DATABASE, WRITERS = "journal-database", 200
AWAY_S = 3
HOLDER = f"{clone_id()}/echo:prod"  # any container takes the address that the database had


@pytest.fixture(scope="module")
def own(own_stack: Callable[[str], AbstractContextManager[Stack]]) -> Iterator[Stack]:
    """A stack whose database is taken away, while other tests use theirs."""
    with own_stack("services: {}\n") as stack:
        yield stack


def query(stack: Stack, sql: str) -> str:
    """What the database itself says."""
    return stack.compose("exec", "-T", DATABASE, "psql", "-U", "journal", "-d", "journal", "-Atc", sql)


def take_away(stack: Stack, fault: str) -> None:
    """Pause or kill the database, or remove its container."""
    stack.compose(*{"pause": ["pause"], "restart": ["kill"], "move": ["rm", "--stop", "--force"]}[fault], DATABASE)


def bring_back(stack: Stack, fault: str) -> None:
    """Bring the database back; a new container has the old one's volume, and another address."""
    if fault == "move":
        network = f"{stack.project}_default"
        holder = output("docker", "run", "--detach", *labels(), "--network", network, HOLDER).strip()
        try:
            stack.compose("up", "--detach", "--no-deps", "--no-build", DATABASE)
        finally:
            output("docker", "rm", "--force", holder)
    else:
        stack.compose({"pause": "unpause", "restart": "start"}[fault], DATABASE)


@pytest.mark.slow
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize("fault", ["restart", "pause", "move"])
def test_no_acknowledged_write_is_lost(
    own: Stack, fault: str, connection: str, record_property: Callable[[str, object], None]
) -> None:
    url = f"http://127.0.0.1:{own.container('journal').port}/echo/{fault}-{connection}"
    acknowledged: list[str] = []
    statuses: list[tuple[float, int]] = []
    stop = threading.Event()

    def write(_: int) -> None:
        with httpx.Client(timeout=30, headers={"Connection": connection}) as client:
            while not stop.is_set():
                answer = client.post(url, content=b"x")
                statuses.append((time.monotonic(), answer.status_code))
                if answer.status_code == 200:
                    acknowledged.append(answer.headers["Location"].rpartition("/")[2])
                stop.wait(0.5)

    with ThreadPoolExecutor(WRITERS) as pool:
        done = pool.map(write, range(WRITERS))
        try:
            time.sleep(AWAY_S)
            take_away(own, fault)
            time.sleep(AWAY_S)
            bring_back(own, fault)
            wait_until(lambda: query(own, "SELECT 1").strip() == "1")
            back = time.monotonic()
            wait_until(lambda: any(at > back and status == 200 for at, status in list(statuses)))
            record_property("seconds until it answers again", f"{time.monotonic() - back:.1f}")
            time.sleep(AWAY_S)
        finally:
            stop.set()
        list(done)
    assert {status for _, status in statuses} == {200, 503}
    stored = set(query(own, f"SELECT id FROM entries WHERE path = '/{fault}-{connection}'").split())  # noqa: S608
    assert set(acknowledged) - stored == set()
    assert len(acknowledged) > WRITERS
