"""The journal service from outside: with echo and PostgreSQL, without them, and while they come and go."""

from __future__ import annotations

import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tasks.project import ROOT
from tasks.shell import CommandFailed, output
from tasks.stack import stack as compose

from .conftest import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

DATABASE = "journal-database"
GONE = "503 Service Unavailable: the database does not answer\n"


def docker_compose(*arguments: str) -> str:
    """Run Compose on the stack."""
    return output(*compose.COMPOSE, *arguments, env=SETTINGS)


def inspect(service: str, settings: dict[str, str] = SETTINGS) -> dict[str, Any]:
    """What `docker inspect` says of a service's container."""
    found = next(c.id for c in compose.containers(settings) if c.service == service)
    return dict(json.loads(output("docker", "inspect", found))[0])


def wait_until(met: Callable[[], bool], patience: float = 40) -> None:
    until = time.monotonic() + patience
    while not met():
        assert time.monotonic() < until, "it does not come to that"
        time.sleep(0.2)


@contextmanager
def without(journal: httpx.Client, service: str, away: str, back: str, path: str) -> Iterator[None]:
    """Take a service away for the time of the block; afterwards journal must recover by itself."""
    before = inspect("journal")["State"]["StartedAt"]
    wait_until(lambda: succeeds(away, service))
    try:
        yield
    finally:
        docker_compose(back, service)
    wait_until(lambda: journal.get(path).status_code == 200)
    assert inspect("journal")["State"]["StartedAt"] == before


def succeeds(*command: str) -> bool:
    """Whether a command of Compose's goes well: a container whose healthcheck is just running cannot always be paused."""
    try:
        docker_compose(*command)
    except CommandFailed:
        return False
    return True


def query(sql: str) -> str:
    """What the database itself says."""
    return docker_compose("exec", "-T", DATABASE, "psql", "-U", "journal", "-d", "journal", "-Atc", sql).strip()


def test_it_stores_what_echo_answered(journal: httpx.Client) -> None:
    body = b"a\x00b\xff'; DROP TABLE entries; --"
    answer = journal.request("PATCH", "/echo/some/path?x=1", content=body)
    assert answer.status_code == 200
    assert answer.text.startswith("METHOD: PATCH\nPATH: /some/path\nQUERY: x=1\nHEADERS:\nHost: echo:8000\n")
    stored = journal.get(answer.headers["Location"])
    assert (stored.content, stored.headers["Content-Type"]) == (answer.content, answer.headers["Content-Type"])
    number = int(answer.headers["Location"].rpartition("/")[2])
    assert query(f"SELECT method, path, status FROM entries WHERE id = {number}") == "PATCH|/some/path?x=1|200"  # noqa: S608


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
def test_the_database_goes_and_comes_back(journal: httpx.Client, away: str, back: str) -> None:
    journal.get("/entries")  # so that a connection is open
    with without(journal, DATABASE, away, back, "/entries"):
        for path in ("/entries", "/echo/x"):
            answer = journal.get(path)
            assert (answer.status_code, answer.text) == (503, GONE)
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert journal.get("/healthz").status_code == 200
    assert journal.post("/echo/x").status_code == 200


def test_echo_goes_and_comes_back(journal: httpx.Client) -> None:
    with without(journal, "echo", "stop", "start", "/echo/x"):
        answer = journal.get("/echo/x")
        assert (answer.status_code, answer.text) == (503, "503 Service Unavailable: echo does not answer\n")
        assert journal.get("/entries").status_code == 200


def test_migrations_run_side_by_side_change_nothing_twice(journal: httpx.Client) -> None:
    """From a database that has none of it: one of them does all, and none of them fails."""
    assert journal.get("/healthz").status_code == 200
    query("DROP TABLE entries, migrations")
    assert journal.get("/entries").text == "503 Service Unavailable: the database has not been migrated yet\n"
    run = (*compose.COMPOSE, "run", "--rm", "--no-deps", "-T", "journal-migrate")
    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(lambda _: output(*run, env=SETTINGS).split("\n"), range(4)))
    files = sorted(path.name for path in (ROOT / "services/journal/journal/migrations").glob("*.sql"))
    assert [line for lines in said for line in lines if line] == [f"applied {name}" for name in files]
    assert query("SELECT string_agg(name, ' ' ORDER BY name) FROM migrations") == " ".join(files)
    assert journal.get("/entries").json() == {"entries": [], "next": None}


@contextmanager
def variant(tmp_path: Path, changes: str) -> Iterator[dict[str, str]]:
    """Settings for a stack of its own, with changes to it (a Compose file), that is gone after the block."""
    override = tmp_path / "override.yaml"
    override.write_text(changes)
    settings = SETTINGS | {
        "COMPOSE_FILE": f"{ROOT / SETTINGS['COMPOSE_FILE']}:{override}",
        "COMPOSE_PROJECT_NAME": f"{SETTINGS['COMPOSE_PROJECT_NAME']}-variant",
    }
    try:
        yield settings
    finally:
        compose.down(volumes=True, settings=settings)


def test_start_is_delayed_until_the_database_is_ready(tmp_path: Path) -> None:
    """A database that comes up 10 s late: nobody who needs it starts before, and nobody has to try twice."""
    late = '["sh", "-c", "sleep 10; exec docker-entrypoint.sh postgres"]'
    with variant(tmp_path, f"services:\n  {DATABASE}:\n    entrypoint: {late}\n") as settings:
        output(*compose.COMPOSE, "up", "--detach", "--no-build", env=settings)
        compose.wait(settings)
        database, migrate, journal = (inspect(name, settings) for name in (DATABASE, "journal-migrate", "journal"))
        ready = next(check for check in database["State"]["Health"]["Log"] if check["ExitCode"] == 0)["Start"]
        assert migrate["State"]["StartedAt"] > utc(ready)
        assert journal["State"]["StartedAt"] > migrate["State"]["FinishedAt"]
        assert migrate["RestartCount"] == journal["RestartCount"] == 0
        ask = "from urllib.request import urlopen as u; print(u('http://127.0.0.1:8000/entries').status)"
        assert output("docker", "exec", journal["Id"], "python3", "-c", ask) == "200\n"


def utc(moment: str) -> str:
    """A time that Docker states in the machine's zone, as it states others: in UTC."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


def test_addresses_and_credentials_are_read_from_the_environment(tmp_path: Path) -> None:
    """Other names, another user, database and password: they only work together if each is really read."""
    (tmp_path / "password").write_text("another one")
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
    environment: {{POSTGRES_USER: somebody, POSTGRES_DB: things}}
    networks: {{default: {{aliases: [store.test]}}}}
secrets:
  journal-database: {{file: {tmp_path}/password}}
"""
    with variant(tmp_path, changes) as settings:
        output(*compose.COMPOSE, "up", "--detach", "--no-build", env=settings)
        compose.wait(settings)
        ask = "from urllib.request import urlopen as u; print(u('http://127.0.0.1:8000/echo/x').read().decode())"
        answer = output("docker", "exec", inspect("journal", settings)["Id"], "python3", "-c", ask)
        assert "Host: neighbour.test:8000\n" in answer
        command = ("exec", "-T", DATABASE, "psql", "-U", "somebody", "-d", "things", "-Atc", "SELECT path FROM entries")
        assert output(*compose.COMPOSE, *command, env=settings) == "/x\n"
        # A password that is not the database's is refused, so the right one was read.
        login = "import psycopg; psycopg.connect('postgresql://somebody:wrong@store.test/things')"
        done = subprocess.run(
            ["docker", "exec", inspect("journal", settings)["Id"], "python3", "-c", login],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "password authentication failed" in done.stderr


def test_the_database_is_hardened(journal: httpx.Client) -> None:
    assert journal.get("/healthz").status_code == 200
    found = inspect(DATABASE)
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


def test_the_password_shows_nowhere(journal: httpx.Client) -> None:
    """Not in what Docker tells of containers, not in a process list, not in a log, and not under git."""
    assert journal.get("/healthz").status_code == 200
    password = (ROOT / ".secrets" / DATABASE).read_text()
    assert len(password) > 30
    for service in ("journal", "journal-migrate", DATABASE):
        assert password not in json.dumps(inspect(service))
    assert password not in docker_compose("top")
    assert password not in docker_compose("logs")
    assert subprocess.run(["git", "grep", "-q", "-e", password], cwd=ROOT, check=False).returncode == 1
    assert output("git", "-C", str(ROOT), "check-ignore", f".secrets/{DATABASE}")


def test_the_database_stops_cleanly(journal: httpx.Client) -> None:
    with without(journal, DATABASE, "stop", "start", "/entries"):
        assert inspect(DATABASE)["State"]["ExitCode"] == 0
        assert "database system is shut down" in docker_compose("logs", "--tail", "5", DATABASE)
