"""What the tests of publishing share: small images in place of built ones."""

from __future__ import annotations

import io
import json
import tarfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from .. import venv
from ..release import image, push
from ..release.registry import Repository
from .registry import LocalRegistry

SERVICES = ["one", "two"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def made(folder: Path, service: str, content: str, platform: str = "amd64") -> image.Image:
    """An image with one file, without Docker."""
    folder.mkdir(parents=True, exist_ok=True)
    layer, config = folder / f"{service}.tar", folder / f"{service}.json"
    with tarfile.open(layer, "w") as archive:
        member = tarfile.TarInfo("app/file")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content.encode()))
    config.write_text(json.dumps({"os": "linux", "architecture": platform}))
    packed = image.packed(layer)
    content_of = {"config": image.descriptor(f"{image.OCI}.config.v1+json", config.read_bytes())}
    layers = [image.descriptor(f"{image.OCI}.layer.v1.tar+gzip", packed.read_bytes())]
    manifest = {"schemaVersion": 2, "mediaType": image.MANIFEST, **content_of, "layers": layers}
    return image.single(service, image.compact(manifest), [config, packed])


def publisher(monkeypatch: pytest.MonkeyPatch, folder: Path, registry: LocalRegistry) -> Callable[..., dict[str, Any]]:
    """What publishes images with some content, and returns what release.json has of them by service."""
    monkeypatch.setattr(push, "REPORTS", folder / "reports")
    monkeypatch.setattr(push, "RELEASE", folder / "reports/release.json")
    monkeypatch.setattr(push, "clean_commit", lambda: COMMIT)
    monkeypatch.setattr(push, "pyproject", lambda: {"project": {"version": "1.2.3"}})
    (folder / "reports").mkdir()
    monkeypatch.setattr(image, "name_of", lambda service: f"ours/{service}:release")

    def sbom(_: object, names: list[str]) -> None:
        for name in names:
            path = folder / f"reports/sbom-{name.partition('/')[2].replace(':', '-')}.cdx.json"
            path.write_text('{"bomFormat": "CycloneDX"}')

    monkeypatch.setattr(venv, "sbom", sbom)

    def run(content: str = "first", platform: str = "amd64", **options: Any) -> dict[str, Any]:
        def build(services: list[str]) -> list[image.Image]:
            place = folder / content[:20] / platform
            return [made(place, service, content, platform) for service in services]

        monkeypatch.setattr(image, "build", build)
        defaults = {"tag": [], "move_tags": False, "untagged": False, "merge": [], "services": SERVICES}
        push.release(cast("Any", None), Namespace(**{**defaults, "registry": f"{registry.host}/team", **options}))
        return {entry["service"]: entry for entry in push.read(push.RELEASE)}

    return run


def tags(registry: LocalRegistry, service: str, *names: str) -> list[str]:
    repository = Repository(f"{registry.host}/team", service)
    return [name for name in names if repository.digest(name)]
