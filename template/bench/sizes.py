"""What production images weigh beside the usual ones, and the recipe of the notes that this project grew from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.env import env
from tasks.images import bake, target
from tasks.project import clone_id, service_names
from tasks.sizes.weigh import Image, weigh
from tasks.stack.model import production

from . import row

RECIPES = Path(__file__).parent.parent / "references"
MEGABYTE = 1_000_000
# The raw megabytes that the originals claim for their own images, in the notes on the recipe "reducing image size".
CLAIMS = {"notes, slim (claimed)": 180, "notes, alpine (claimed)": 110}


def measure(_folder: Path, _runs: int) -> dict[str, Any]:
    """Weigh each production image, and its references on the same base: megabytes, raw and gzip."""
    services = service_names()
    prod, slim = (bake.build(services, flavor) for flavor in ("prod", "slim"))
    base = env()["STACK_BASE"].partition("@")[0]
    others = {"base alone": base} | {
        path.stem: build(path, services[0]) for path in sorted(RECIPES.glob("*.Dockerfile"))
    }
    images = {image.image: image for image in weigh([*prod, *slim, *others.values()])}
    rows = []
    for service, ours, usual in zip(services, prod, slim, strict=True):
        references = {f"{service}:slim": images[usual]} | {name: images[image] for name, image in others.items()}
        rows += of_one(f"{service}:prod", images[ours], references)
    return {"bench": "sizes", "rows": rows}


def build(recipe: Path, service: str) -> str:
    """Build a reference as a service's production image is built, and return its name."""
    ours = target.target_of(production("slim"), service)
    image = f"{clone_id()}/reference:{recipe.stem}"
    bake.bake({recipe.stem: replace(ours, dockerfile=str(recipe), target="", tags=(image,))}, "references")
    return image


def of_one(name: str, image: Image, references: dict[str, Image]) -> list[dict[str, Any]]:
    """The rows of one production image."""
    rows = []
    for reference, other in references.items():
        rows.append(row(f"{name} raw", [mb(image.raw_bytes)], "MB", reference, [mb(other.raw_bytes)]))
        rows.append(row(f"{name} gzip", [mb(image.gzip_bytes)], "MB", reference, [mb(other.gzip_bytes)]))
    return rows + [row(f"{name} raw", [mb(image.raw_bytes)], "MB", text, [size]) for text, size in CLAIMS.items()]


def mb(number: int) -> float:
    """Bytes as megabytes."""
    return number / MEGABYTE
