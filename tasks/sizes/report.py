"""The report on weighed images: tables, JSON, and the changes since an earlier commit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..project import REPORTS
from ..shell import output
from ..terminal import say, table
from .budgets import limits_of, mb

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from .weigh import Image

Row = list[str]


def show(images: Sequence[Image], earlier: Sequence[Image], args: argparse.Namespace) -> None:
    """Print the report; write it where ``args`` (of the session ``sizes``) asks for it, and as JSON to reports/."""
    tables = {"images": overview(images), "where the bytes are (MB, raw)": inside(images)}
    if args.layers:
        tables["layers"] = layers(images)
    if args.against:
        tables = {f"changes since {args.against}": changes(images, earlier)} | tables
    for title, rows in tables.items():
        say(f"\n{title}\n{table(rows)}")
    report = as_json(images)
    for path in filter(None, (REPORTS / "sizes.json", args.json)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report, encoding="utf-8")
    if args.markdown:
        with args.markdown.open("a", encoding="utf-8") as file:
            file.writelines(f"### {title}\n\n{as_markdown(rows)}\n\n" for title, rows in tables.items())


def overview(images: Iterable[Image]) -> list[Row]:
    """One line per image; "own" are the layers that no other image of this report has; "left" is what the budget leaves."""
    rows = [["image", "raw MB", "gzip MB", "own MB", "left, raw", "left, gzip"]]
    for image in images:
        shared = sum(layer.raw_bytes for layer in image.layers if layer.shared_with)
        left = [mb(limit - has) for limit, has in limits_of(image)] or ["", ""]
        rows.append([image.image, mb(image.raw_bytes), mb(image.gzip_bytes), mb(image.raw_bytes - shared), *left])
    return rows


def inside(images: Sequence[Image]) -> list[Row]:
    """A line for each group of files, a column for each image."""
    groups = {group: None for image in images for group in image.groups}
    return [
        ["", *(f"{image.service}:{image.flavor}" for image in images)],
        *([group, *(mb(image.groups.get(group, 0)) for image in images)] for group in groups),
    ]


def layers(images: Iterable[Image]) -> list[Row]:
    """A line for each layer."""
    rows = [["image", "layer", "raw MB", "gzip MB", "shared with"]]
    for image in images:
        for layer in image.layers:
            sizes = [mb(layer.raw_bytes), mb(layer.gzip_bytes)]
            rows.append([image.image, layer.digest[7:19], *sizes, ", ".join(layer.shared_with)])
    return rows


def changes(images: Iterable[Image], earlier: Iterable[Image]) -> list[Row]:
    """What grew or shrank: each image, and below it its groups, the biggest movers first."""
    before = {(image.service, image.flavor): image for image in earlier}
    rows = [["image", "group", "raw MB", "gzip MB"]]
    for image in images:
        old = before.get((image.service, image.flavor))
        if not old:
            rows.append([image.image, "new", delta(image.raw_bytes), delta(image.gzip_bytes)])
            continue
        raw, zipped = image.raw_bytes - old.raw_bytes, image.gzip_bytes - old.gzip_bytes
        rows.append([image.image, "", delta(raw), delta(zipped)])
        moves = {group: image.groups.get(group, 0) - old.groups.get(group, 0) for group in image.groups | old.groups}
        rows += [["", g, delta(move), ""] for g, move in sorted(moves.items(), key=lambda item: -abs(item[1])) if move]
    return rows


def delta(number: float) -> str:
    """A difference in bytes as megabytes, with its sign."""
    return f"{number / 1e6:+.2f}"


def as_markdown(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def as_json(images: Sequence[Image]) -> str:
    """The report as JSON; scripts rely on its names."""
    driver = output("docker", "info", "--format", "{{.Driver}}").strip()
    return json.dumps({"images": [image.as_json() for image in images], "storage_driver": driver}, indent=2) + "\n"
