"""What images weigh, read from their layers themselves (``docker image save``), the same on every storage driver."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
import zlib
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any

from .run import Problem, output, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MEGABYTE = 1_000_000
CHUNK = 1 << 20
# The raw megabytes that the originals claim for their own images, in the notes on the recipe "reducing image size".
CLAIMS = {"the notes' slim": 180, "the notes' alpine": 110}

# Which part of an image a file belongs to: the first pattern that matches its path.
GROUPS = (
    ("service", r"app/"),
    ("{0}", r".*/(?:site|dist)-packages/([A-Za-z0-9_]+)"),
    ("dependencies", r"venv/"),
    ("interpreter", r"usr/(?:local/)?(?:bin/python3[.\d]*|lib/(?:[\w-]+/)?libpython3[^/]*)$"),
    ("standard library", r"usr/(?:local/)?lib/python3"),
    ("shared libraries", r"(?:usr/)?(?:local/)?lib(?:64)?/.*\.so[.\d]*$"),
    ("operating system", r""),
)


@dataclass
class Layer:
    """A layer: its digest (of the uncompressed tar), its sizes in bytes, and the bytes of its files by group."""

    digest: str
    raw_bytes: int
    gzip_bytes: int
    groups: dict[str, int]
    shared_with: list[str] = field(default_factory=list)


@dataclass
class Image:
    """An image and its layers, from the base up."""

    image: str
    service: str
    flavor: str
    layers: list[Layer]

    @property
    def raw_bytes(self) -> int:
        """The layers' size in bytes as they lie on a disk."""
        return sum(layer.raw_bytes for layer in self.layers)

    @property
    def gzip_bytes(self) -> int:
        """The layers' size in bytes as they are pulled: each one compressed by gzip, at the level that Docker uses."""
        return sum(layer.gzip_bytes for layer in self.layers)

    def as_json(self) -> dict[str, Any]:
        """The image as ``sizes -- --json`` has it."""
        groups: dict[str, int] = {}
        for layer in self.layers:
            for group, size in layer.groups.items():
                groups[group] = groups.get(group, 0) + size
        keys = ("digest", "raw_bytes", "gzip_bytes", "shared_with")
        return {
            "image": self.image,
            "service": self.service,
            "flavor": self.flavor,
            "raw_bytes": self.raw_bytes,
            "gzip_bytes": self.gzip_bytes,
            "layers": [{key: getattr(layer, key) for key in keys} for layer in self.layers],
            "groups": dict(sorted(groups.items(), key=lambda item: -item[1])),
        }


def report(built: Sequence[str], references: Sequence[str], json_file: Path | None, markdown_file: Path | None) -> None:
    """Weigh images, print the table, and write the files that are asked for."""
    say(f"weighing {len(built) + len(references)} images ...")
    weighed = weigh([*built, *references])
    images, others = weighed[: len(built)], weighed[len(built) :]
    text = table(images, others)
    say(text)
    if json_file:
        json_file.write_text(as_json(images, others), encoding="utf-8")
    if markdown_file:
        with markdown_file.open("a", encoding="utf-8") as file:
            file.write(f"```\n{text}\n```\n")


def weigh(names: Sequence[str]) -> list[Image]:
    """Weigh images that are on the engine, one pass over all their layers; raises Problem for one that is not."""
    layers: dict[str, Layer] = {}
    manifest: list[dict[str, Any]] = []
    for name in names:
        if not output("docker", "image", "ls", "--quiet", name).strip():
            raise Problem(f"there is no image {name}: build it first (nox -s build)")
    with (
        subprocess.Popen(["docker", "image", "save", *names], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as saved,
    ):
        for member in saved:
            content = saved.extractfile(member)
            if content and member.name == "manifest.json":
                manifest = json.load(content)
            elif content and member.name.startswith("blobs/") and (layer := weigh_layer(content)):
                layers[member.name] = layer
    paths = {tag: entry["Layers"] for entry in manifest for tag in entry["RepoTags"] or ()}
    return [
        Image(
            image=name,
            service=name.rpartition(":")[0].rpartition("/")[2],
            flavor=name.rpartition(":")[2],
            layers=[
                replace(layers[path], shared_with=[other for other in names if other != name and path in paths[other]])
                for path in paths[name]
            ],
        )
        for name in names
    ]


def weigh_layer(blob: IO[bytes]) -> Layer | None:
    """Weigh one blob of a saved image in a single pass; None for one that is no layer (a configuration, in JSON)."""
    tap = Tap(blob)
    if tap.start[:1] == b"{":
        return None
    groups: dict[str, int] = {}
    with tarfile.open(fileobj=tap, mode="r|") as files:  # type: ignore[call-overload]
        for member in files:
            if member.isfile():
                group = group_of(member.name)
                groups[group] = groups.get(group, 0) + member.size
    while tap.read(CHUNK):
        pass
    return Layer(f"sha256:{tap.digest.hexdigest()}", tap.raw, tap.gzip_bytes(), groups)


class Tap:
    """A file that counts, hashes and compresses what is read through it; a blob that is gzip already is unpacked first."""

    def __init__(self, blob: IO[bytes]) -> None:
        self.blob = blob
        self.start = blob.read(2)
        self.unzip = zlib.decompressobj(wbits=31) if self.start == b"\x1f\x8b" else None
        self.zip = zlib.compressobj(wbits=31)
        self.ahead = self.unzip.decompress(self.start) if self.unzip else self.start
        self.digest = hashlib.sha256()
        self.raw = 0
        self.zipped = 0

    def read(self, size: int) -> bytes:
        """Read at most ``size`` bytes of the uncompressed blob."""
        while len(self.ahead) < size and (chunk := self.blob.read(CHUNK)):
            self.ahead += self.unzip.decompress(chunk) if self.unzip else chunk
        data, self.ahead = self.ahead[:size], self.ahead[size:]
        self.digest.update(data)
        self.raw += len(data)
        self.zipped += len(self.zip.compress(data))
        return data

    def gzip_bytes(self) -> int:
        """The size in bytes of what was read, compressed."""
        return self.zipped + len(self.zip.flush())


def group_of(path: str) -> str:
    """The group that a file of an image belongs to, by its path."""
    for group, pattern in GROUPS:
        if found := re.match(pattern, path):
            return group.format(*found.groups())
    raise AssertionError  # the last pattern matches everything


def table(images: Sequence[Image], references: Sequence[Image]) -> str:
    """A table of all images: raw and gzip megabytes in total and per layer, with ratios to each reference."""
    rows = [("image", "layer", "raw MB", "gzip MB")]
    for image in (*images, *references):
        rows.append((image.image, f"all {len(image.layers)}", mb(image.raw_bytes), mb(image.gzip_bytes)))
        rows += [("", layer.digest[7:19], mb(layer.raw_bytes), mb(layer.gzip_bytes)) for layer in image.layers]
    wide = max(len(row[0]) for row in rows)
    text = [f"{name:{wide}}  {layer:>12}  {raw:>8}  {zipped:>8}" for name, layer, raw, zipped in rows]
    text += ["", "in ratio to", *ratios(images, references)]
    return "\n".join(text)


def ratios(images: Sequence[Image], references: Sequence[Image]) -> list[str]:
    """Lines that set each image against the references of this run, and against what the originals claim."""
    text = []
    for image in images:
        for other in references:
            raw, zipped = image.raw_bytes / other.raw_bytes, image.gzip_bytes / other.gzip_bytes
            text.append(f"  {other.image}: {image.image} is {raw:.2f} x raw, {zipped:.2f} x gzip")
        for name, claim in CLAIMS.items():
            text.append(
                f"  {name} ({claim} MB claimed): {image.image} is {image.raw_bytes / MEGABYTE / claim:.2f} x raw"
            )
    return text


def mb(size: int) -> str:
    """Bytes as megabytes (10^6), two decimals."""
    return f"{size / MEGABYTE:.2f}"


def as_json(images: Sequence[Image], references: Sequence[Image]) -> str:
    """The report as JSON; DESIGN's names are relied on by scripts."""
    report = {
        "images": [image.as_json() for image in images],
        "references": [image.as_json() for image in references],
        "storage_driver": output("docker", "info", "--format", "{{.Driver}}").strip(),
    }
    return json.dumps(report, indent=2) + "\n"
