"""What only the template's makers need: the session `bench`, and the test suite template."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import nox

from tasks import changes, cli
from tasks.ownership import temporary_folder
from tasks.session import ready, session
from tasks.terminal import say, table
from tasks.testing.host import SUITES, Suite

BENCHES = ("reload", "verdict", "sessions", "scale", "sizes", "load", "servers", "cluster")

SUITES["template"] = Suite(
    ("template/tests",), "host", (*changes.AFFECTS_ALL, "template/", "README.md"), by_default=False, options=("-m", "")
)


@session()
def bench(session: nox.Session) -> None:
    """Measure the project beside its references: -- reload|verdict|sessions|scale|sizes|load|servers|cluster [--runs N] [--json FILE]"""
    parser = cli.parser("bench")
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args(session.posargs)
    ready()
    with temporary_folder() as folder:
        found = import_module(f"template.bench.{args.name}").measure(folder, args.runs)
    rows = found["rows"]
    columns = list(dict.fromkeys(column for row in rows for column in row))  # not every case has all
    say(table([columns, *([str(row.get(column, "")) for column in columns] for row in rows)]))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
