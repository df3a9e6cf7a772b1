"""What images weigh, read from the archive that the engine saves."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from ..machine import engine
from ..shell import UserError
from ..sizes import weigh
from .conftest import fake_docker

FILES = {
    "usr/bin/python3.13": 7000,
    "usr/lib/x86_64-linux-gnu/libssl.so.3": 900,
    "usr/lib/python3.13/json/decoder.py": 300,
    "usr/lib/python3.13/lib-dynload/_ssl.so": 200,
    "venv/lib/python3.13/site-packages/flask/app.py": 400,
    "venv/bin/activate": 10,
    "app/pilot/views.py": 50,
    "etc/passwd": 5,
}
EXPECTED = {
    "interpreter": 7000,
    "shared libraries": 900,
    "standard library": 500,
    "flask": 400,
    "dependencies": 10,
    "service": 50,
    "operating system": 5,
}


def layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, size in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_is_weighed_unpacked_however_the_engine_keeps_it(packed: bool) -> None:
    plain = layer()
    weighed = weigh.weigh_layer(gzip.compress(plain) if packed else plain)
    assert weighed
    assert weighed.digest == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert weighed.raw_bytes == len(plain)
    assert abs(weighed.gzip_bytes - len(gzip.compress(plain, 6))) < 50
    assert weighed.groups == EXPECTED


def test_images_are_weighed_from_what_docker_saves(
    no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images share a layer, the engine gives the second another name; a third one is not there."""
    saved = tmp_path / "saved.tar"
    blobs = {"blobs/sha256/aa": layer(), "bb.tar": layer() + bytes(10240), "blobs/sha256/cc": b'{"config": 1}'}
    manifest = [
        {"RepoTags": ["ours/a:prod"], "Layers": ["blobs/sha256/aa"]},
        {"RepoTags": ["localhost/ours/b:prod"], "Layers": ["blobs/sha256/aa", "bb.tar"]},
    ]
    with tarfile.open(saved, "w") as tar:
        for name, data in {**blobs, "manifest.json": json.dumps(manifest).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("0b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../bb.tar"
        tar.addfile(link)
    monkeypatch.setattr(engine.Docker, "plain_name", lambda _engine, name: name.removeprefix("localhost/"))
    fake_docker(no_docker, {"image save": f"cat {saved}"})
    first, second = weigh.weigh(["ours/a:prod", "ours/b:prod"])
    assert (first.service, first.flavor) == ("a", "prod")
    assert first.raw_bytes == len(layer())
    assert second.raw_bytes == 2 * len(layer()) + 10240
    assert first.layers[0].shared_with == ["ours/b:prod"]
    assert second.layers[1].shared_with == []
    told = second.as_json()
    assert told["groups"]["interpreter"] == 14000
    assert sum(told["layers"][0]["groups"].values()) == sum(told["groups"].values()) // 2


@pytest.mark.parametrize("sent", ["", "head -c 3000 saved.tar"])
def test_an_engine_that_goes_while_it_saves_is_told(
    no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with tarfile.open(tmp_path / "saved.tar", "w") as tar:
        info = tarfile.TarInfo("blobs/sha256/aa")
        info.size = len(layer())
        tar.addfile(info, io.BytesIO(layer()))
    fake_docker(no_docker, {"image save": f"{sent}; exit 1".removeprefix("; ")})
    with pytest.raises(UserError, match="`docker image save` has failed"):
        weigh.weigh(["ours/a:prod"])
