"""The sessions that only the template's makers need; noxfile.py loads them while this folder is there."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import cli, ownership
from tasks.shell import say
from tasks.sizes import report

if TYPE_CHECKING:
    from collections.abc import Callable

    import nox

BENCHES = ("reload", "verdict", "sessions", "scale")


def register(
    session: Callable[..., Callable[[Callable[[nox.Session], None]], object]], ready: Callable[[], None]
) -> None:
    """Add the sessions, by noxfile.py's own decorator; ``ready`` makes the machine so."""

    @session()
    def bench(session: nox.Session) -> None:
        """Measure the project beside its references: -- reload|verdict|sessions|scale [--runs N] [--json FILE]"""
        parser = cli.parser("bench")
        parser.add_argument("name", choices=BENCHES)
        parser.add_argument("--runs", type=int, default=20)
        parser.add_argument("--json", type=Path, metavar="FILE")
        args = parser.parse_args(session.posargs)
        ready()
        measure = import_module(f"template.bench.{args.name}").measure
        with ownership.folder() as folder:
            found = measure(folder, args.runs)
        say(table(found["rows"]))
        if args.json:
            args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> str:
    """A bench's rows as aligned columns."""
    return report.as_text([list(rows[0]), *([str(value) for value in row.values()] for row in rows)])
