"""The most that images may weigh: ``[tool.stack.budgets]`` in pyproject.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..project import pyproject
from ..shell import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .weigh import Image

MEGABYTE = 1_000_000


def limits_of(image: Image) -> list[tuple[int, int]]:
    """An image's limits and its sizes in bytes: [(raw limit, raw), (gzip limit, gzip)]; [] without a budget.

    Raises UserError for a budget that is not ``{raw_mb = NUMBER, gzip_mb = NUMBER}``.
    """
    title = f"{image.service}:{image.flavor}"
    budget = pyproject().get("tool", {}).get("stack", {}).get("budgets", {}).get(title)
    if budget is None:
        return []
    numbers = budget.values() if isinstance(budget, dict) else ()
    if set(budget) != {"raw_mb", "gzip_mb"} or not all(type(number) in {int, float} for number in numbers):
        raise UserError(f"pyproject.toml: the budget of {title} must be like {{raw_mb = 32.5, gzip_mb = 12}}")
    return [
        (int(budget["raw_mb"] * MEGABYTE), image.raw_bytes),
        (int(budget["gzip_mb"] * MEGABYTE), image.gzip_bytes),
    ]


def check(images: Iterable[Image], earlier: Iterable[Image]) -> None:
    """Raise UserError for images over their budgets, naming what has grown since the earlier commit, or what is largest."""
    before = {(image.service, image.flavor): image.groups for image in earlier}
    over = []
    for image in images:
        for kind, (limit, has) in zip(("raw", "gzip"), limits_of(image), strict=False):
            if has > limit:
                old = before.get((image.service, image.flavor), {})
                growth = sorted(((size - old.get(name, 0), name) for name, size in image.groups.items()), reverse=True)
                largest = ", ".join(f"{name} {size / MEGABYTE:+.2f}" for size, name in growth[:3])
                over.append(f"{image.image} is {mb(has)} MB {kind}, over its {mb(limit)} MB ({largest})")
    if over:
        raise UserError("; ".join(over))


def mb(number: float) -> str:
    """Bytes as megabytes (10^6), two decimals."""
    return f"{number / MEGABYTE:.2f}"
