"""Measurements of the project, each beside a reference that runs at the same time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

SERVICE = "echo"  # the sample that is measured


def row(
    case: str, values: Sequence[float], unit: str, reference: str, beside: Sequence[float], **more: object
) -> dict[str, Any]:
    """A row of a bench's table: a case's values, and the ratio of their median to that of the reference's values."""
    digits = 1 if unit == "ms" else 2
    return {
        "case": case,
        "median": round(statistics.median(values), digits),
        "max": round(max(values), digits),
        "unit": unit,
        "runs": len(values),
        "reference": f"{reference}: {statistics.median(beside):.{digits}f}",
        "ratio": round(statistics.median(values) / statistics.median(beside), 3),
        **more,
    }


def timed(do: Callable[[], object], runs: int) -> list[float]:
    """How long something takes, in seconds, each of some times."""
    times = []
    for _ in range(runs):
        began = time.monotonic()
        do()
        times.append(time.monotonic() - began)
    return times
