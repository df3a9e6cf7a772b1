"""What the benches have in common."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tasks.shell import UserError

from ..copying import copy_project

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# A user's, where Python keeps bytecode.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def row(
    case: str, times: Sequence[float], unit: str, reference: str, beside: Sequence[float], **more: object
) -> dict[str, Any]:
    """A row of a bench's table: a case's times, and the ratio of their median to that of the reference's times."""
    digits = 1 if unit == "ms" else 2
    return {
        "case": case,
        "median": round(statistics.median(times), digits),
        "max": round(max(times), digits),
        "unit": unit,
        "runs": len(times),
        "reference": f"{reference}: {statistics.median(beside):.{digits}f}",
        "ratio": round(statistics.median(times) / statistics.median(beside), 3),
        **more,
    }


class Copy:
    """A copy of this project, and what is run in it."""

    def __init__(self, root: Path, *, without: tuple[str, ...] = ()) -> None:
        """Make the copy, but for the folders ``without``."""
        self.root = root
        copy_project(root, without=without)

    def run(self, *command: str, settings: Mapping[str, str] | None = None) -> str:
        """Run a command here and return what it prints; raises UserError, with its last words, when it fails."""
        everything = {**ENVIRONMENT, **(settings or {})}
        done = subprocess.run(command, cwd=self.root, env=everything, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(
                f"{' '.join(command[:6])} failed in the bench: {(done.stdout + done.stderr).strip()[-300:]}"
            )
        return done.stdout

    def nox(self, *words: str) -> None:
        """Run a session here."""
        self.run(sys.executable, "-m", "nox", *words)
