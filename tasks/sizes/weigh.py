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

from ..machine import engine
from ..shell import UserError, output
from ..terminal import say

if TYPE_CHECKING:
    from collections.abc import Sequence

CHUNK = 1 << 20

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

    @property
    def groups(self) -> dict[str, int]:
        """The bytes of the image's files, by what they are: the largest group first."""
        found: dict[str, int] = {}
        for layer in self.layers:
            for group, size in layer.groups.items():
                found[group] = found.get(group, 0) + size
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def as_json(self) -> dict[str, Any]:
        """The image as ``sizes -- --json`` has it."""
        keys = ("digest", "raw_bytes", "gzip_bytes", "shared_with")
        return {
            "image": self.image,
            "service": self.service,
            "flavor": self.flavor,
            "raw_bytes": self.raw_bytes,
            "gzip_bytes": self.gzip_bytes,
            "layers": [{key: getattr(layer, key) for key in keys} for layer in self.layers],
            "groups": self.groups,
        }


def weigh(names: Sequence[str]) -> list[Image]:
    """Weigh images that are on the engine, one pass over all their layers; raises UserError for one that is not."""
    say(f"weighing {len(names)} images ...")
    layers: dict[str, Layer] = {}
    manifest: list[dict[str, Any]] = []
    for name in names:
        if not output("docker", "image", "ls", "--quiet", name).strip():
            raise UserError(f"there is no image {name}: build it first (nox -s build)")
    with (
        subprocess.Popen(["docker", "image", "save", *names], stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as saved,
    ):
        for member in saved:
            content = saved.extractfile(member) if member.isfile() else None  # some engines add links
            if content and member.name == "manifest.json":
                manifest = json.load(content)
            elif content and re.search(r"^blobs/|\.tar$", member.name) and (layer := weigh_layer(content)):
                layers[member.name] = layer
    paths = {tag: entry["Layers"] for entry in manifest for tag in entry["RepoTags"] or ()}
    paths |= {engine.current().plain_name(tag): path for tag, path in paths.items()}
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
        if found := re.match(pattern, path.removeprefix("./")):
            return group.format(*found.groups())
    raise AssertionError  # the last pattern matches everything
