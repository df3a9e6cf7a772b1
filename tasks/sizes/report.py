"""The report on weighed images: tables, JSON, the changes since an earlier commit, and budgets."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ..changes import base_of, git
from ..cli import FLAVORS
from ..env import chosen_by_user, parse
from ..ownership import temporary_folder
from ..project import REPORTS, pyproject, service_names
from ..shell import UserError, output, run
from ..terminal import say, table
from .weigh import Image, weigh

MEGABYTE = 1_000_000
Row = list[str]


def show(images: Sequence[Image], earlier: Sequence[Image] | None, args: argparse.Namespace) -> None:
    """Print the report; write it where ``args`` (of the session ``sizes``) asks for it, and as JSON to reports/."""
    tables = {"images": overview(images), "where the bytes are (MB, raw)": inside(images)}
    if args.against and earlier is not None:
        tables = {f"changes since {args.against}": changes(images, earlier)} | tables
    for title, rows in tables.items():
        say(f"\n{title}\n{table(rows)}")
    for path in filter(None, (REPORTS / "sizes.json", args.json)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_json(images), encoding="utf-8")
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


def changes(images: Iterable[Image], earlier: Iterable[Image]) -> list[Row]:
    """What grew or shrank: each image, and below it its groups, the biggest movers first."""
    before = {(image.service, image.flavor): image for image in earlier}
    rows = [["image", "group", "raw MB", "gzip MB"]]
    for image in images:
        if not (old := before.get((image.service, image.flavor))):
            rows.append([image.image, "new", mb(image.raw_bytes, "+"), mb(image.gzip_bytes, "+")])
            continue
        raw, zipped = image.raw_bytes - old.raw_bytes, image.gzip_bytes - old.gzip_bytes
        rows.append([image.image, "", mb(raw, "+"), mb(zipped, "+")])
        moves = {group: image.groups.get(group, 0) - old.groups.get(group, 0) for group in image.groups | old.groups}
        rows += [["", g, mb(move, "+"), ""] for g, move in sorted(moves.items(), key=lambda m: -abs(m[1])) if move]
    return rows


def as_markdown(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def as_json(images: Iterable[Image]) -> str:
    """The report as JSON; scripts rely on its names."""
    driver = output("docker", "info", "--format", "{{.Driver}}").strip()
    return json.dumps({"images": [image.as_json() for image in images], "storage_driver": driver}, indent=2) + "\n"


def limits_of(image: Image) -> list[tuple[int, int]]:
    """An image's limits and its sizes in bytes: [(raw limit, raw), (gzip limit, gzip)]; [] without a budget.

    Raises UserError for a budget that is not ``{raw_mb = NUMBER, gzip_mb = NUMBER}``.
    """
    title = f"{image.service}:{image.flavor}"
    if (budget := pyproject().get("tool", {}).get("stack", {}).get("budgets", {}).get(title)) is None:
        return []
    limits = budget if isinstance(budget, dict) else {}
    found = {"raw_mb": image.raw_bytes, "gzip_mb": image.gzip_bytes}
    if set(limits) != set(found) or not all(type(limit) in {int, float} for limit in limits.values()):
        raise UserError(f"pyproject.toml: the budget of {title} must be like {{raw_mb = 32.5, gzip_mb = 12}}")
    return [(int(limits[kind] * MEGABYTE), size) for kind, size in found.items()]


def check_budgets(images: Iterable[Image], earlier: Iterable[Image]) -> None:
    """Raise UserError for images over their budgets, naming what has grown since the earlier commit, or what is largest."""
    before = {(image.service, image.flavor): image.groups for image in earlier}
    over = []
    known = {f"{service}:{flavor}" for service in service_names() for flavor in FLAVORS}
    if unknown := sorted(pyproject().get("tool", {}).get("stack", {}).get("budgets", {}).keys() - known):
        raise UserError(f"pyproject.toml has a budget for {', '.join(unknown)}, which is no SERVICE:FLAVOR")
    for image in images:
        for kind, (limit, has) in zip(("raw", "gzip"), limits_of(image), strict=False):
            if has > limit:
                old = before.get((image.service, image.flavor), {})
                growth = sorted(((size - old.get(name, 0), name) for name, size in image.groups.items()), reverse=True)
                largest = ", ".join(f"{name} {mb(size, '+' if old else '')}" for size, name in growth[:3])
                over.append(f"{image.image} is {mb(has)} MB {kind}, over its {mb(limit)} MB ({largest})")
    if over:
        raise UserError("; ".join(over))


def mb(number: float, sign: str = "") -> str:
    """Bytes as megabytes (10^6), two decimals; of a difference, with the sign "+" or "-"."""
    return f"{number / MEGABYTE:{sign}.2f}"


def weigh_at(ref: str, services: Sequence[str], flavors: Sequence[str]) -> list[Image] | None:
    """Build a commit in a worktree, on the same engine, weigh its images, and remove it all again.

    A commit that does not build has none, with a warning: what mends it must not fail by it. Raises UserError for a
    ``ref`` that git does not know.
    """
    base_of(ref)
    with temporary_folder() as folder:
        tree = folder / "tree"
        nox = (sys.executable, "-m", "nox", "-f", str(tree / "noxfile.py"))
        try:
            output("git", "-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(tree), ref)
            if not (found := [service for service in services if (tree / "services" / service).is_dir()]):
                return []  # without names, `build` would build all services
            for flavor in flavors:
                if run(*nox, "-s", "build", "--", *found, "--flavor", flavor, env=chosen_by_user()):
                    for logs in tree.glob("reports/logs"):  # its words name one
                        shutil.copytree(logs, REPORTS / "logs", dirs_exist_ok=True)
                    say(f"warning: {ref} does not build, for the reason above: there is nothing to compare with")
                    return None
            clone = parse((tree / ".env").read_text(encoding="utf-8"))["COMPOSE_PROJECT_NAME"]
            return weigh([f"{clone}/{service}:{flavor}" for flavor in flavors for service in found])
        finally:
            if (tree / ".env").exists():
                # The worktree goes all the same, and then this session ends.
                with suppress(KeyboardInterrupt, UserError):
                    output(*nox, "-s", "clean")
            shutil.rmtree(tree, ignore_errors=True)
            git("worktree", "prune")
