"""Release images: built so that the same commit gives the same digest, and taken out of the engine as OCI blobs."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nox import Session

from .. import cli
from ..images import bake
from ..images.target import Target, target_of
from ..machine import engine
from ..project import REPORTS, clone_id, pyproject
from ..shell import UserError, output
from ..stack.model import production
from ..terminal import say

OCI = "application/vnd.oci.image"
MANIFEST = f"{OCI}.manifest.v1+json"
INDEX = f"{OCI}.index.v1+json"
LABEL = "org.opencontainers.image"


@dataclass(frozen=True)
class Image:
    """A service's image as a registry takes it: manifest and blobs, and for each platform the descriptor of its manifest.

    An image of several platforms has an index as its manifest, and no blobs. The size is what clients download, in bytes.
    """

    service: str
    manifest: bytes
    manifests: Sequence[Mapping[str, Any]]
    size: int
    blobs: Sequence[Path] = ()  # as files, the configuration first

    @property
    def digest(self) -> str:
        """The name that it has whatever its tags are."""
        return digest_of(self.manifest)

    @property
    def platforms(self) -> list[str]:
        """What it runs on, such as linux/arm64/v8."""
        return ["/".join(found["platform"].values()) for found in self.manifests]


def single(service: str, manifest: bytes, blobs: Sequence[Path]) -> Image:
    """An image of one platform."""
    config = json.loads(blobs[0].read_bytes())
    platform = {key: config[key] for key in ("os", "architecture", "variant") if config.get(key)}
    described = descriptor(MANIFEST, manifest) | {"platform": platform}
    return Image(service, manifest, [described], sum(path.stat().st_size for path in blobs), blobs)


def merged(service: str, parts: Sequence[Sequence[Mapping[str, Any]]]) -> Image:
    """An image of several platforms, from what release.json says of each; raises UserError where one has none."""
    found = [entry for part in parts for entry in part if entry["service"] == service]
    if len(found) < len(parts):
        raise UserError(f"--merge: not every part has an image of {service}")
    manifests = [manifest for entry in found for manifest in entry["manifests"]]
    manifests.sort(key=lambda manifest: list(manifest["platform"].values()))
    return Image(service, manifest_of(INDEX, manifests=manifests), manifests, sum(entry["size"] for entry in found))


def digest_of(data: bytes) -> str:
    """The digest by which registries name these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(kind: str, data: bytes) -> dict[str, Any]:
    """How manifests name a blob of a media type."""
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def compact(value: object) -> bytes:
    """JSON that is the same on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def manifest_of(kind: str, **content: object) -> bytes:
    """A manifest or an index, ``kind`` being its media type."""
    return compact({"schemaVersion": 2, "mediaType": kind, **content})


def name_of(service: str) -> str:
    """The release image's name on the engine."""
    return f"{clone_id()}/{service}:release"


def build(services: Sequence[str], *, cache: bool = True, folder: str = "release") -> list[Image]:
    """Build and verify release images, all times in them those of the commit; raises UserError when that fails.

    The images' files go to ``folder`` in reports/. Without ``cache``, all stages are built anew.
    """
    if (builder := engine.current()).name != "docker":
        raise UserError(f"release images need Docker's BuildKit, and this machine has {builder.title}")
    epoch, commit = output("git", "show", "--no-patch", "--format=%ct %H", "HEAD").split()
    labels = {f"{LABEL}.revision": commit, f"{LABEL}.version": pyproject()["project"].get("version", "")}
    # The cache ignores files' times, so these two stages may have copied from another version of the slicer. BuildKit's own
    # attestations contain the time of the build, and would change the digest.
    options: dict[str, Any] = {"no-cache-filter": ["runtime", "prod"]} if cache else {"no-cache": True}
    options |= {"attest": ["type=provenance,disabled=true"]}
    stack = production()
    for first in range(0, len(services), bake.BATCH):
        targets: dict[str, Target] = {}
        for service in services[first : first + bake.BATCH]:
            built = target_of(stack, service)
            args = {**built.args, "SOURCE_DATE_EPOCH": epoch}
            targets[service] = replace(built, labels=labels, tags=(name_of(service),), args=args)
            targets[f"{service}_verify"] = targets[service].verification(stack)
        bake.bake(targets, "release", options)
    return [save(service, REPORTS / folder / service) for service in services]


def save(service: str, folder: Path) -> Image:
    """Take a service's release image out of the engine, its layers compressed, to a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    output("docker", "save", f"--output={folder / 'image.tar'}", name_of(service))
    # Not by tarfile: its safe way of doing so needs Python 3.11.4, and Debian 12 has 3.11.2.
    output("tar", "--extract", f"--directory={folder}", f"--file={folder / 'image.tar'}")
    (folder / "image.tar").unlink()
    (found,) = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    layers = [packed(folder / layer) for layer in found["Layers"]]
    config = json.loads((folder / found["Config"]).read_bytes())
    config["rootfs"]["diff_ids"] = [digest_of(gzip.decompress(layer.read_bytes())) for layer in layers]
    (folder / "config").write_bytes(compact(config))
    described = [descriptor(f"{OCI}.layer.v1.tar+gzip", layer.read_bytes()) for layer in layers]
    manifest = manifest_of(MANIFEST, config=descriptor(f"{OCI}.config.v1+json", compact(config)), layers=described)
    return single(service, manifest, [folder / "config", *layers])


def packed(layer: Path) -> Path:
    """A layer with its files in the order of their names, compressed by gzip without a time or a name in the header.

    Docker orders them in one of two ways, as the layers below are also another image's or not.
    """
    target = layer.with_suffix(".gz")
    with (
        tarfile.open(layer) as archive,
        target.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as out,
        tarfile.open(fileobj=out, mode="w") as ordered,
    ):
        for member in sorted(archive, key=lambda member: (member.islnk(), member.name.split("/"))):  # hard links last
            ordered.addfile(member, archive.extractfile(member) if member.isreg() else None)
    return target


def check_reproducible(_session: Session, images: Sequence[str]) -> None:
    """Build the release images of these images' services twice without cache.

    Raises UserError with the first file that differs, or where the configurations do.
    """
    services = [name.rpartition("/")[2].partition(":")[0] for name in images]
    first = build(services, cache=False, folder="release-first")
    for one, other in zip(first, build(services, cache=False), strict=True):
        # The configuration, which names the layers, last.
        for left, right in zip(reversed(one.blobs), reversed(other.blobs), strict=False):
            if left.read_bytes() != right.read_bytes():
                where = "the configuration" if left == one.blobs[0] else first_difference(left, right)
                raise UserError(f"{one.service} is not reproducible: see {where} in `diffoscope {left} {right}`")
        say(f"{one.service}: both builds are {one.digest}")


def first_difference(left: Path, right: Path) -> str:
    """The file of a layer with which its difference from another one begins."""
    same = len(os.path.commonprefix([gzip.decompress(layer.read_bytes()) for layer in (left, right)]))  # noqa: RUF071 (bytes)
    with tarfile.open(left) as archive:
        return [f"/{member.name}" for member in archive if member.offset <= same][-1]


cli.OPTIONS["build"].append(lambda it: cli.then(it, "--check-reproducible", check_reproducible, "build twice; compare"))
