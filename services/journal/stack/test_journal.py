"""The journal service from outside: with echo and PostgreSQL, without them, and while they come and go."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.project import ROOT
from tasks.shell import CommandFailed, output
from tasks.stack.model import Stack
from tests.stack.plugin import wait_until

DATABASE = "journal-database"
MIGRATIONS = Path(__file__).parents[1] / "journal/migrations"
GONE = "503 Service Unavailable: the database does not answer\n"


@pytest.fixture
def journal(url_of: Callable[[str], str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url_of("journal"), timeout=30) as client:
        yield client


def inspect(stack: Stack, service: str) -> dict[str, Any]:
    """What `docker inspect` says of a service's container."""
    found = next(c.id for c in stack.containers() if c.service == service)
    return dict(json.loads(output("docker", "inspect", found))[0])


@contextmanager
def without(stack: Stack, journal: httpx.Client, service: str, away: str, back: str, path: str) -> Iterator[None]:
    """Take a service away for the time of the block; afterwards journal must recover by itself."""
    before = inspect(stack, "journal")["State"]["StartedAt"]
    wait_until(lambda: succeeds(stack, away, service))
    try:
        yield
    finally:
        stack.compose(back, service)
    wait_until(lambda: journal.get(path).status_code == 200)
    assert inspect(stack, "journal")["State"]["StartedAt"] == before


def succeeds(stack: Stack, *command: str) -> bool:
    """Whether a command of Compose's succeeds: a container whose healthcheck is running cannot always be paused."""
    try:
        stack.compose(*command)
    except CommandFailed:
        return False
    return True


def query(stack: Stack, sql: str) -> str:
    """What the database itself says."""
    return stack.compose("exec", "-T", DATABASE, "psql", "-U", "journal", "-d", "journal", "-Atc", sql).strip()


def test_it_stores_what_echo_answered(stack: Stack, journal: httpx.Client) -> None:
    body = b"a\x00b\xff'; DROP TABLE entries; --"
    answer = journal.request("PATCH", "/echo/some/path?x=1", content=body)
    assert answer.status_code == 200
    assert answer.text.startswith("METHOD: PATCH\nPATH: /some/path\nQUERY: x=1\nHEADERS:\nHost: echo:8000\n")
    stored = journal.get(answer.headers["Location"])
    assert (stored.content, stored.headers["Content-Type"]) == (answer.content, answer.headers["Content-Type"])
    number = int(answer.headers["Location"].rpartition("/")[2])
    assert query(stack, f"SELECT method, path, status FROM entries WHERE id = {number}") == "PATCH|/some/path?x=1|200"  # noqa: S608


def test_a_text_with_nul_is_stored_too(journal: httpx.Client) -> None:
    answer = journal.post("/echo/nul", content=b"before\x00after")
    assert journal.get(answer.headers["Location"]).content == answer.content
    assert journal.get("/entries", params={"q": "before\x00after"}).json()["entries"]


@pytest.mark.parametrize(
    ("written", "sought", "found"),
    [
        ("Grüße aus Köln", "GRÜSSE AUS KÖLN", True),
        ("100% sure", "100% s", True),
        ("100 sure", "100% s", False),
        ("under_score", "under_score", True),
        ("underXscore", "under_score", False),
        ("back\\slash", "back\\slash", True),
        ("it's", "it's", True),
    ],
)
def test_search(journal: httpx.Client, written: str, sought: str, found: bool) -> None:
    number = int(journal.post("/echo/", content=written).headers["Location"].rpartition("/")[2])
    entries = journal.get("/entries", params={"q": sought}).json()["entries"]
    assert (number in [entry["id"] for entry in entries]) is found


def test_pages(journal: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: journal.get(f"/echo/paged/{n}").headers["Location"], range(45)))
    seen: list[str] = []
    pages = 0
    following = "/entries?q=paged"
    while following:
        page = journal.get(following).json()
        seen += [entry["url"] for entry in page["entries"]]
        following = page["next"]
        pages += 1
    assert pages == 3
    assert seen == sorted(made, key=lambda url: -int(url.rpartition("/")[2]))
    assert journal.get("/entries?q=paged&page=999999999").json()["entries"] == []
    assert journal.get("/entries/99999999999999999999").status_code == 404


@pytest.mark.parametrize(("away", "back"), [("stop", "start"), ("pause", "unpause"), ("kill", "start")])
def test_the_database_goes_and_comes_back(stack: Stack, journal: httpx.Client, away: str, back: str) -> None:
    journal.get("/entries")  # so that a connection is open
    with without(stack, journal, DATABASE, away, back, "/entries"):
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(journal.get, ("/entries", "/echo/x", "/readyz")))
        for answer in answers:
            assert (answer.status_code, answer.text) == (503, GONE)
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert journal.get("/healthz").status_code == 200
    assert journal.post("/echo/x").status_code == 200


def test_echo_goes_and_comes_back(stack: Stack, journal: httpx.Client) -> None:
    with without(stack, journal, "echo", "stop", "start", "/echo/x"):
        answer = journal.get("/echo/x")
        assert (answer.status_code, answer.text) == (503, "503 Service Unavailable: echo does not answer\n")
        assert journal.get("/entries").status_code == 200
        assert [journal.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 503]
    wait_until(lambda: journal.get("/readyz").status_code == 200)


def test_a_trace_is_passed_on_and_logged(stack: Stack, journal: httpx.Client) -> None:
    answer = journal.get("/echo/traced")
    (trace_id,) = re.findall(r"^Traceparent: 00-([0-9a-f]{32})-[0-9a-f]{16}-01$", answer.text, re.MULTILINE)
    for service in ("journal", "echo"):
        container = stack.container(service).id
        wait_until(lambda container=container: trace_id in output("docker", "logs", container))  # type: ignore[misc]
        (line,) = [json.loads(line) for line in output("docker", "logs", container).splitlines() if trace_id in line]
        assert (line["method"], line["path"][-7:], line["status"]) == ("GET", "/traced", 200)


def test_migrations_run_side_by_side_change_nothing_twice(stack: Stack, journal: httpx.Client) -> None:
    """From a database that has none of it: one of them does all, and none of them fails."""
    assert journal.get("/healthz").status_code == 200
    query(stack, "DROP TABLE entries, migrations")
    assert journal.get("/entries").text == "503 Service Unavailable: the database has not been migrated yet\n"
    with ThreadPoolExecutor(4) as pool:
        run = ("run", "--rm", "--no-deps", "-T", "journal-migrate")
        said = list(pool.map(lambda _: stack.compose(*run).split("\n"), range(4)))
    files = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert [line for lines in said for line in lines if line] == [f"applied {name}" for name in files]
    assert query(stack, "SELECT string_agg(name, ' ' ORDER BY name) FROM migrations") == " ".join(files)
    assert journal.get("/entries").json() == {"entries": [], "next": None}


def test_the_database_is_hardened(stack: Stack, journal: httpx.Client) -> None:
    assert journal.get("/healthz").status_code == 200
    found = inspect(stack, DATABASE)
    host = found["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["ReadonlyRootfs"] is True
    assert "no-new-privileges" in str(host["SecurityOpt"])
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert not any(found["NetworkSettings"]["Ports"].values())
    assert {mount["Type"] for mount in found["Mounts"] if mount["Destination"] == "/var/lib/postgresql/data"} == {
        "volume"
    }
    processes = output("docker", "top", found["Id"], "-eo", "pid,uid,args").splitlines()[1:]
    assert "0" not in {line.split()[1] for line in processes}


def test_the_password_shows_nowhere(stack: Stack, journal: httpx.Client) -> None:
    """Not in what Docker tells of containers, not in a process list, not in a log, and not under git."""
    assert journal.get("/healthz").status_code == 200
    password = (ROOT / ".secrets" / DATABASE).read_text()
    assert len(password) > 30
    for service in ("journal", "journal-migrate", DATABASE):
        assert password not in json.dumps(inspect(stack, service))
    assert password not in stack.compose("top")
    assert password not in stack.compose("logs")
    assert subprocess.run(["git", "grep", "-q", "-e", password], cwd=ROOT, check=False).returncode == 1
    assert output("git", "-C", str(ROOT), "check-ignore", f".secrets/{DATABASE}")


def test_the_database_stops_cleanly(stack: Stack, journal: httpx.Client) -> None:
    with without(stack, journal, DATABASE, "stop", "start", "/entries"):
        assert inspect(stack, DATABASE)["State"]["ExitCode"] == 0
        assert "database system is shut down" in stack.compose("logs", "--tail", "5", DATABASE)
