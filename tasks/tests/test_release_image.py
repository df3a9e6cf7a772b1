"""Release images: what they are built from, and that the same files make the same image."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .. import cli, shell
from ..images import bake
from ..machine import engine
from ..release import image
from ..shell import UserError
from .conftest import fake_docker
from .publishing import COMMIT, SERVICES, made
from .test_bake import MODEL


def layer(folder: Path, *members: dict[str, Any]) -> Path:
    """A layer with files as ``members`` have them, in that order."""
    folder.mkdir()
    with tarfile.open(folder / "layer", "w") as archive:
        for facts in members:
            member, content = tarfile.TarInfo(), facts.get("content", "")
            member.size = len(content)
            for name in facts.keys() - {"content"}:
                setattr(member, name, facts[name])
            archive.addfile(member, io.BytesIO(content.encode()))
    return image.packed(folder / "layer")


def test_the_first_file_that_differs_is_named(tmp_path: Path) -> None:
    first, second, link = {"name": "a"}, {"name": "b", "content": "x"}, {"name": "l", "type": tarfile.SYMTYPE}
    one = layer(tmp_path / "one", first, second, link)
    others: list[tuple[str, list[dict[str, Any]]]] = [
        ("/a", [{**first, "mode": 0o755}, second, link]),
        ("/b", [first, {**second, "mtime": 1}, {**link, "mtime": 1}]),
        ("/b", [first, {**second, "content": "y"}, link]),
        ("/b", [first, link]),
        ("/l", [first, second, {"name": "c"}, link]),
        ("/l", [first, second, {**link, "linkname": "a"}]),
    ]
    for number, (expected, members) in enumerate(others):
        assert image.first_difference(one, layer(tmp_path / str(number), *members)) == expected


def test_layers_are_the_same_however_the_engine_stores_them(tmp_path: Path) -> None:
    """Compressed or not, in the order of a walk or in that of whole paths, in which "a-1" comes before "a/b"."""
    content = {"a": "", "a/b": "text", "a-1": "more", "link": ""}
    for number, names in enumerate((["a", "a/b", "a-1", "link"], ["a", "a-1", "a/b", "link"])):
        with tarfile.open(tmp_path / str(number), ("w", "w:gz")[number]) as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.uid = len(content[name]), 7, 10001
                member.type = {"a": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}.get(name, tarfile.REGTYPE)
                archive.addfile(member, io.BytesIO(content[name].encode()))
    layers = [image.packed(tmp_path / str(number)) for number in range(2)]
    assert layers[0].read_bytes() == layers[1].read_bytes()
    with tarfile.open(layers[0]) as archive:
        assert archive.getnames() == ["a", "a/b", "a-1", "link"]
        assert {(member.mtime, member.uid) for member in archive} == {(7, 10001)}
        file = archive.extractfile("a/b")
        assert file
        assert file.read() == b"text"


def test_a_hard_link_comes_after_its_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "layer", "w") as archive:
        for name, target in (("a-1", ""), ("a/b", "a-1")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.LNKTYPE, target) if target else (tarfile.REGTYPE, "")
            archive.addfile(member)
    with tarfile.open(image.packed(tmp_path / "layer")) as archive:
        assert archive.getnames() == ["a-1", "a/b"]


@pytest.fixture
def builder(project: Path, no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A client that keeps what it was asked to bake, and saves an image with two layers; returns the builds' folder."""
    layers = project / "layers"
    layers.mkdir()
    config = {"os": "linux", "architecture": "arm64", "variant": "v8", "rootfs": {"type": "layers", "diff_ids": []}}
    (layers / "config").write_text(json.dumps(config))
    for name, mode in {"plain": "w", "packed": "w:gz"}.items():
        with tarfile.open(layers / name, mode) as archive:  # type: ignore[call-overload]
            archive.addfile(tarfile.TarInfo(name))
    (layers / "manifest.json").write_text('[{"Config": "config", "Layers": ["plain", "packed"]}]')
    (project / "model.json").write_text(json.dumps(MODEL))
    (project / "plans").mkdir()
    monkeypatch.setattr(image, "pyproject", lambda: {"project": {"version": "1.2.3"}})
    save = f'tar --create --directory="{layers}" --file="${{2#--output=}}" .'
    keep = f'cat >"{project}/plans/$(ls "{project}/plans" | wc -l)"'
    fake_docker(no_docker, {"compose config": f"cat '{project}/model.json'", "buildx bake": keep, "save": save})
    monkeypatch.setattr(
        image, "output", lambda *command: f"1750000000 {COMMIT}\n" if command[0] == "git" else shell.output(*command)
    )
    return project / "plans"


def test_what_a_release_is_built_from(builder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bake, "BATCH", 1)
    image.build(["other", "pilot"])
    image.build(["pilot"], cache=False)
    plans = [json.loads(path.read_text())["target"] for path in sorted(builder.iterdir())]
    assert [list(plan) for plan in plans] == [[name, f"{name}_verify"] for name in ("other", "pilot", "pilot")]
    for target in (found for plan in plans for found in plan.values()):
        assert target["args"]["SOURCE_DATE_EPOCH"] == "1750000000"
        assert target["attest"] == ["type=provenance,disabled=true"]
    assert [plan["pilot"].get("no-cache-filter") for plan in plans[1:]] == [["runtime", "prod"], None]
    assert [plan["pilot"].get("no-cache") for plan in plans[1:]] == [None, True]
    # Neither a path of this machine, whose hash is in the label of the clone, nor the names of other builds.
    assert plans[1]["pilot"]["labels"] == {f"{image.LABEL}.revision": COMMIT, f"{image.LABEL}.version": "1.2.3"}
    assert plans[1]["pilot"]["tags"] == [image.name_of("pilot")]


def test_an_image_as_a_registry_takes_it(builder: Path) -> None:
    folder = builder.parent / "reports/release-first/pilot"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    (found,) = image.build(["pilot"], folder="release-first")
    config, *layers = (path.read_bytes() for path in found.blobs)
    tars = [gzip.decompress(layer) for layer in layers]
    for tar, name in zip(tars, ("plain", "packed"), strict=True):
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            assert archive.getnames() == [name]
    assert json.loads(config)["rootfs"]["diff_ids"] == [image.digest_of(tar) for tar in tars]
    assert {layer[3:8] for layer in layers} == {bytes(5)}  # no name and no time
    manifest = json.loads(found.manifest)
    assert manifest["config"] == image.descriptor(f"{image.OCI}.config.v1+json", config)
    assert manifest["layers"] == [image.descriptor(f"{image.OCI}.layer.v1.tar+gzip", layer) for layer in layers]
    assert {path.name for path in folder.iterdir()} >= {"config", "plain.gz", "packed.gz"}
    assert not {"old", "image.tar"} & {path.name for path in folder.iterdir()}
    assert (found.platforms, found.size) == (["linux/arm64/v8"], sum(map(len, (config, *layers))))
    assert found.manifests[0]["digest"] == found.digest == image.digest_of(found.manifest)
    assert found.manifests[0]["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}


def test_releases_are_not_built_by_podman(builder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    podman = Namespace(name="podman", title="Podman")
    monkeypatch.setattr(engine, "current", lambda: podman)
    with pytest.raises(UserError, match="release images need Docker's BuildKit, and this machine has Podman"):
        image.build(["pilot"])
    assert not list(builder.iterdir())


def test_two_builds_that_are_alike_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {"release-first": "x", "release": "x"}

    def build(services: list[str], *, cache: bool, folder: str = "release") -> list[image.Image]:
        assert not cache
        return [made(tmp_path / folder, service, contents[folder]) for service in services]

    monkeypatch.setattr(image, "build", build)
    monkeypatch.setattr(cli, "choose_services", list)
    (do,) = cli.build(["one", "two", "--check-reproducible"]).then
    check = partial(do, None, [f"ours-0123abcd/{service}:slim" for service in SERVICES])
    check()
    assert re.findall(r"(\w+): both builds are sha256:\w{64}\n", capsys.readouterr().out) == SERVICES
    contents["release"] = "y"
    told = r"^one is not reproducible: see /app/file in `diffoscope \S+/release-first/one\.gz \S+/release/one\.gz`$"
    with pytest.raises(UserError, match=told):
        check()
