"""What is made of weighed images: tables, JSON, comparisons with references, with an earlier state, with budgets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from .. import ownership
from ..project import REPORTS, ROOT, pyproject
from ..shell import UserError, output, run, say
from ..sizes.weigh import Image, weigh

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence
    from pathlib import Path

MEGABYTE = 1_000_000
UNITS = {"": 1, "B": 1, "kB": 1000, "KB": 1000, "MB": MEGABYTE, "KiB": 1024, "MiB": 1024**2}
# The raw megabytes that the originals claim for their own images, in the notes on the recipe "reducing image size".
CLAIMS = {"notes: slim (claimed)": 180, "notes: alpine (claimed)": 110}
Row = list[str]


def show(
    images: Sequence[Image], references: Sequence[Image], earlier: Sequence[Image], args: argparse.Namespace
) -> None:
    """Print the report; write it where ``args`` (of the session ``sizes``) asks for it, and as JSON to reports/."""
    tables = {
        "images": overview(images),
        "in ratio to": ratios(images, references),
        "where the bytes are (MB, raw)": inside(images),
        "layers": layers([*images, *references]),
    }
    if args.against:
        tables = {f"changes since {args.against}": changes(images, earlier)} | tables
    for title, rows in tables.items():
        say(f"\n{title}\n{as_text(rows)}")
    report = as_json(images, references)
    for path in filter(None, (REPORTS / "sizes.json", args.json)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report, encoding="utf-8")
    if args.markdown:
        with args.markdown.open("a", encoding="utf-8") as file:
            file.writelines(f"### {title}\n\n{as_markdown(rows)}\n\n" for title, rows in tables.items())


def overview(images: Iterable[Image]) -> list[Row]:
    """One line per image; "shared" are the layers that another image of this report has too."""
    rows = [["image", "raw MB", "gzip MB", "layers", "shared MB", "own MB", "left of the budget (raw, gzip MB)"]]
    for image in images:
        shared = sum(layer.raw_bytes for layer in image.layers if layer.shared_with)
        spare = [mb(limit - has) for limit, has in budget(image)]
        sizes = [mb(size) for size in (image.raw_bytes, image.gzip_bytes)]
        rows.append(
            [image.image, *sizes, str(len(image.layers)), mb(shared), mb(image.raw_bytes - shared), ", ".join(spare)]
        )
    return rows


def ratios(images: Iterable[Image], references: Sequence[Image]) -> list[Row]:
    """Each image against the references of this run, and against what the originals claim."""
    rows = [["reference", "raw MB", "gzip MB", *(f"{image.service}:{image.flavor} is (raw, gzip)" for image in images)]]
    for other in references:
        shares = [f"{i.raw_bytes / other.raw_bytes:.2f} x, {i.gzip_bytes / other.gzip_bytes:.2f} x" for i in images]
        rows.append([other.image, mb(other.raw_bytes), mb(other.gzip_bytes), *shares])
    for name, claim in CLAIMS.items():
        rows.append([name, mb(claim * MEGABYTE), "", *(f"{i.raw_bytes / MEGABYTE / claim:.2f} x" for i in images)])
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


def weigh_at(ref: str, services: Sequence[str], flavors: Sequence[str]) -> list[Image]:
    """Build another state of this project in a worktree, on the same engine, weigh its images, and remove it all again.

    Raises UserError for a ``ref`` that git does not know, and when that state does not build.
    """
    if subprocess.run(
        ["git", "rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}"], cwd=ROOT, capture_output=True
    ).returncode:
        raise UserError(f"git knows no commit {ref!r}: fetch it, or name another one")
    with ownership.folder() as folder:
        tree = folder / "tree"
        nox = (sys.executable, "-m", "nox", "-f", str(tree / "noxfile.py"))
        try:
            output("git", "worktree", "add", "--detach", str(tree), ref)
            found = [service for service in services if (tree / "services" / service).is_dir()]
            names = []
            for flavor in flavors:
                if run(*nox, "-s", "build", "--", *found, "--flavor", flavor):
                    raise UserError(f"{ref} does not build; its own words stand above")
                names += [f"{of(tree, 'STACK_CLONE')}/{service}:{flavor}" for service in found]
            return weigh(names)
        finally:
            if (tree / ".env").exists():
                run(*nox, "-s", "clean", quiet=True)
            shutil.rmtree(tree, ignore_errors=True)
            output("git", "worktree", "prune")


def of(tree: Path, variable: str) -> str:
    """A machine fact of another clone."""
    text = (tree / ".env").read_text(encoding="utf-8")
    return next(line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{variable}="))


def budget(image: Image) -> list[tuple[int, int]]:
    """An image's limits and what it has of them, in bytes: (raw, raw), (gzip, gzip); [] without a budget.

    From ``[tool.stack.budgets]`` in pyproject.toml; raises UserError for a budget that is not a size.
    """
    limits = pyproject().get("tool", {}).get("stack", {}).get("budgets", {}).get(f"{image.service}:{image.flavor}")
    if limits is None:
        return []
    if not isinstance(limits, dict) or set(limits) != {"raw", "gzip"}:
        raise UserError(
            f'pyproject.toml: the budget of {image.service}:{image.flavor} must be like {{raw = "32 MB", gzip = "12 MB"}}'
        )
    return [(size(limits["raw"]), image.raw_bytes), (size(limits["gzip"]), image.gzip_bytes)]


def size(text: object) -> int:
    """Read a size like "32 MB" or "12.5 MiB" in bytes; raises UserError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKM]?i?B?)", str(text))
    if not found or found[2] not in UNITS:
        raise UserError(f'pyproject.toml: {text!r} is no size; write it like "32 MB" or "12.5 MiB"')
    return int(float(found[1]) * UNITS[found[2]])


def check_budgets(images: Iterable[Image], earlier: Iterable[Image]) -> None:
    """Raise UserError for images over their budgets, naming what moved since the earlier state, or else what is biggest."""
    before = {(image.service, image.flavor): image.groups for image in earlier}
    over = []
    for image in images:
        for kind, (limit, has) in zip(("raw", "gzip"), budget(image), strict=False):
            if has > limit:
                old = before.get((image.service, image.flavor), {})
                moves = sorted(((n - old.get(g, 0), g) for g, n in image.groups.items()), reverse=True)
                movers = ", ".join(f"{group} {delta(move)}" for move, group in moves[:3])
                over.append(f"{image.image} is {mb(has)} MB {kind}, over its {mb(limit)} MB ({movers})")
    if over:
        raise UserError("; ".join(over))


def mb(number: float) -> str:
    """Bytes as megabytes (10^6), two decimals."""
    return f"{number / MEGABYTE:.2f}"


def delta(number: float) -> str:
    """A difference in bytes as megabytes, with its sign."""
    return f"{number / MEGABYTE:+.2f}"


def as_text(rows: list[Row]) -> str:
    """Rows as aligned columns; all but the first column to the right where they are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if re.match(r"[+-]?\d", cell) else f"{cell:{width}}"
            for cell, width in zip(row, widths, strict=True)
        )
        for row in rows
    )


def as_markdown(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def as_json(images: Sequence[Image], references: Sequence[Image]) -> str:
    """The report as JSON; scripts rely on its names."""
    report: dict[str, Any] = {
        "images": [image.as_json() for image in images],
        "references": [image.as_json() for image in references],
        "storage_driver": output("docker", "info", "--format", "{{.Driver}}").strip(),
    }
    return json.dumps(report, indent=2) + "\n"
