"""What images weigh, read from their layers themselves (``docker image save``), the same on every storage driver."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..machine import engine
from ..shell import UserError
from ..terminal import say

GZIP_LEVEL = 6  # Docker's

# Which part of an image a file belongs to: the first pattern that matches its path; the last one matches everything.
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
        return dict(sum((Counter(layer.groups) for layer in self.layers), Counter[str]()).most_common())

    def as_json(self) -> dict[str, Any]:
        """The image as ``sizes -- --json`` has it."""
        return {**asdict(self), "raw_bytes": self.raw_bytes, "gzip_bytes": self.gzip_bytes, "groups": self.groups}


def weigh(names: Sequence[str]) -> list[Image]:
    """Weigh images that are on the engine, one pass over all their layers; raises UserError when it does not save them."""
    say(f"weighing {', '.join(names)} ...")
    layers: dict[str, Layer] = {}
    manifest: list[dict[str, Any]] = []
    try:
        with (
            subprocess.Popen(["docker", "image", "save", *names], stdout=subprocess.PIPE) as process,
            tarfile.open(fileobj=process.stdout, mode="r|") as saved,
        ):
            for member in saved:
                content = saved.extractfile(member) if member.isfile() else None  # some engines add links
                if content and member.name == "manifest.json":
                    manifest = json.load(content)
                elif content and re.search(r"^blobs/|\.tar$", member.name) and (layer := weigh_layer(content.read())):
                    layers[member.name] = layer
    except tarfile.ReadError:
        raise UserError("`docker image save` has failed (see above), or a layer is compressed by zstd") from None
    paths = {tag: entry["Layers"] for entry in manifest for tag in entry["RepoTags"] or ()}
    paths |= {engine.current().plain_name(tag): path for tag, path in paths.items()}
    images = []
    for name in names:
        title, _, flavor = name.rpartition(":")
        others = [[other for other in names if other != name and path in paths[other]] for path in paths[name]]
        found = [replace(layers[path], shared_with=shared) for path, shared in zip(paths[name], others, strict=True)]
        images.append(Image(name, title.rpartition("/")[2], flavor, found))
    return images


def weigh_layer(blob: bytes) -> Layer | None:
    """Weigh one blob of a saved image; None for one that is no layer (a configuration, in JSON)."""
    if blob[:1] == b"{":
        return None
    raw = gzip.decompress(blob) if blob[:2] == b"\x1f\x8b" else blob
    groups = Counter[str]()
    with tarfile.open(fileobj=io.BytesIO(raw)) as files:
        for member in filter(tarfile.TarInfo.isfile, files):
            groups[group_of(member.name.removeprefix("./"))] += member.size
    return Layer(f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw), len(gzip.compress(raw, GZIP_LEVEL)), {**groups})


def group_of(path: str) -> str:
    """The group that a file of an image belongs to, by its path."""
    return next(group.format(*found.groups()) for group, pattern in GROUPS if (found := re.match(pattern, path)))
