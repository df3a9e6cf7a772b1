"""Brings the database's schema up to date: ``python3 -m journal.migrate``, run once before the service.

It applies the files of migrations/ that the database has not seen, in the order of their names, all of them or none. Any
number of these may run at a time: the first one works, the others wait for it and find nothing to do.
"""

from __future__ import annotations

from pathlib import Path

import psycopg

from .settings import Settings

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK = 0x6A6F75726E616C  # any number that nobody else in this database uses: "journal"


def migrate(conninfo: str) -> list[str]:
    """Apply what is missing and return the names of what was; raises psycopg.Error, with nothing applied, on failure."""
    applied = []
    with psycopg.connect(conninfo, connect_timeout=10) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, at timestamptz DEFAULT now())"
        )
        done = {name for (name,) in connection.execute("SELECT name FROM migrations")}
        for path in sorted(MIGRATIONS.glob("*.sql")):
            if path.name not in done:
                connection.execute(path.read_bytes())
                connection.execute("INSERT INTO migrations (name) VALUES (%s)", (path.name,))
                applied.append(path.name)
    return applied


if __name__ == "__main__":
    try:
        for name in migrate(Settings.from_environment().database):
            print(f"applied {name}")
    except (psycopg.Error, ValueError) as error:
        raise SystemExit(f"error: {error}") from None
