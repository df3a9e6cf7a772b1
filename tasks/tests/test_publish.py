"""Publishing against a real registry, with small images in place of built ones."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tarfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest

from .. import venv
from ..release import image, push
from ..release.registry import Repository
from ..shell import UserError
from .registry import Answer, LocalRegistry, Pretended, log_in

SERVICES = ["one", "two"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with LocalRegistry(tmp_path) as started:
        yield started


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


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: LocalRegistry) -> Callable[..., dict[str, Any]]:
    """Publishes images with some content, and returns what release.json has of them by service."""
    monkeypatch.setattr(push, "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(push, "RELEASE", tmp_path / "reports/release.json")
    monkeypatch.setattr(push, "clean_commit", lambda: COMMIT)
    monkeypatch.setattr(push, "pyproject", lambda: {"project": {"version": "1.2.3"}})
    (tmp_path / "reports").mkdir()
    monkeypatch.setattr(image, "name_of", lambda service: f"ours/{service}:release")

    def sbom(_: object, names: list[str]) -> None:
        for name in names:
            path = tmp_path / f"reports/sbom-{name.partition('/')[2].replace(':', '-')}.cdx.json"
            path.write_text('{"bomFormat": "CycloneDX"}')

    monkeypatch.setattr(venv, "sbom", sbom)

    def run(content: str = "first", platform: str = "amd64", **options: Any) -> dict[str, Any]:
        def build(services: list[str]) -> list[image.Image]:
            folder = tmp_path / content[:20] / platform
            return [made(folder, service, content, platform) for service in services]

        monkeypatch.setattr(image, "build", build)
        defaults = {"tag": [], "move_tags": False, "untagged": False, "merge": [], "services": SERVICES}
        push.release(cast("Any", None), Namespace(**{**defaults, "registry": f"{registry.host}/team", **options}))
        return {entry["service"]: entry for entry in push.read(push.RELEASE)}

    return run


def tags(registry: LocalRegistry, service: str, *names: str) -> list[str]:
    repository = Repository(f"{registry.host}/team", service)
    return [name for name in names if repository.digest(name)]


def test_version_commit_and_further_tags_are_the_digest_in_release_json(
    publish: Callable[..., dict[str, Any]], registry: LocalRegistry
) -> None:
    found = publish(tag=["stable"])
    repository = Repository(f"{registry.host}/team", "one")
    assert found["one"]["tags"] == ["1.2.3", COMMIT[:12], "stable"]
    assert {repository.digest(tag) for tag in found["one"]["tags"]} == {found["one"]["digest"]}
    assert found["one"]["platforms"] == ["linux/amd64"]
    push.verify()


def test_sbom_and_provenance_are_attached_once(publish: Callable[..., dict[str, Any]], registry: LocalRegistry) -> None:
    digest = publish()["one"]["digest"]
    assert publish()["one"]["digest"] == digest
    repository = Repository(f"{registry.host}/team", "one")
    attached = repository.referrers(digest)
    assert [entry["artifactType"] for entry in attached] == [push.SBOM, push.PROVENANCE]
    manifests = [json.loads(repository.get(f"manifests/{entry['digest']}")) for entry in attached]
    assert {manifest["subject"]["digest"] for manifest in manifests} == {digest}
    sbom, provenance = (repository.get(f"blobs/{manifest['layers'][0]['digest']}") for manifest in manifests)
    assert sbom == b'{"bomFormat": "CycloneDX"}'
    statement = json.loads(provenance)
    assert f"sha256:{statement['subject'][0]['digest']['sha256']}" == digest
    definition = statement["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"][0]["digest"] == {"gitCommit": COMMIT}
    assert definition["externalParameters"] == {"service": "one", "platform": "linux/amd64"}
    assert statement["predicate"]["runDetails"]["builder"]["id"].endswith("#local")


@pytest.mark.parametrize(
    ("remote", "uri"),
    [
        ("https://user:secret@git.example/owner/project", "git+https://***@git.example/owner/project"),
        ("git@git.example:owner/project.git", "git+ssh://git.example/owner/project.git"),
        ("/home/somebody/project", "git+file:///one"),
        ("", "git+file:///one"),
    ],
)
def test_provenance_names_the_source_by_a_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, remote: str, uri: str
) -> None:
    monkeypatch.setattr(push, "git", lambda *_: f"{remote}\n")
    repository = Repository("registry.example/team", "one")
    statement = json.loads(push.provenance(repository, made(tmp_path, "one", "x"), COMMIT))
    definition = statement["predicate"]["buildDefinition"]
    assert (definition["resolvedDependencies"][0]["uri"], definition["buildType"]) == (uri, f"{uri}#nox-publish")


def test_a_tag_moves_only_when_asked(
    publish: Callable[..., dict[str, Any]], registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish()["two"]["digest"]
    with pytest.raises(UserError, match=rf"two:1\.2\.3 is {first} already: this commit was built with another"):
        publish("second")
    monkeypatch.setattr(push, "clean_commit", lambda: "f" * 40)
    with pytest.raises(UserError, match=rf"two:1\.2\.3 is {first} already: raise the version"):
        publish("second")
    assert Repository(f"{registry.host}/team", "one").digest("1.2.3") == first
    assert publish("second", move_tags=True)["one"]["digest"] != first
    push.verify()


def test_verify_names_what_was_moved(publish: Callable[..., dict[str, Any]], registry: LocalRegistry) -> None:
    publish()
    recorded = push.RELEASE.read_text()
    publish("second", services=["two"], move_tags=True)
    push.RELEASE.write_text(recorded)
    with pytest.raises(UserError, match=r"differs from reports/release.json: .*team/two:1\.2\.3 is sha256:") as error:
        push.verify()
    assert "team/one" not in str(error.value)
    assert registry.host in str(error.value)


def test_a_registry_that_goes_away_in_the_middle_has_no_tag(
    publish: Callable[..., dict[str, Any]], registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach, attached = Repository.attach, []

    def attach_and_stop(self: Repository, *arguments: Any) -> None:
        attach(self, *arguments)
        attached.append(self.name)
        if attached[-1] == "team/two":
            registry.stop()

    monkeypatch.setattr(Repository, "attach", attach_and_stop)
    with pytest.raises(UserError, match=f"the registry {registry.host} cannot be reached"):
        publish()
    registry.start()
    assert tags(registry, "one", "1.2.3", COMMIT[:12]) == []
    monkeypatch.undo()


def test_a_registry_that_goes_away_between_tags_is_completed_by_the_next_publish(
    publish: Callable[..., dict[str, Any]],
    registry: LocalRegistry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push_manifest = Repository.push_manifest

    def push_and_stop(self: Repository, manifest: bytes, tag: str = "") -> bool:
        answer = push_manifest(self, manifest, tag)
        if (self.name, tag) == ("team/one", "1.2.3"):
            registry.stop()
        return answer

    monkeypatch.setattr(Repository, "push_manifest", push_and_stop)
    with pytest.raises(UserError, match="cannot be reached"):
        publish()
    told = [line.rpartition("/")[2] for line in "".join(capsys.readouterr()).splitlines() if line.startswith("tagged ")]
    assert told == [f"one:{COMMIT[:12]}", f"two:{COMMIT[:12]}", "one:1.2.3"]
    monkeypatch.setattr(Repository, "push_manifest", push_manifest)
    registry.start()
    publish()
    push.verify()


def test_platforms_are_merged_into_one_index(
    publish: Callable[..., dict[str, Any]], registry: LocalRegistry, tmp_path: Path
) -> None:
    parts = []
    for platform in ("arm64", "amd64"):
        publish(platform=platform, untagged=True)
        parts.append(tmp_path / f"{platform}.json")
        parts[-1].write_text(push.RELEASE.read_text())
    assert tags(registry, "one", "1.2.3") == []
    shutil.rmtree(tmp_path / "reports")  # another machine makes the index
    found = publish(merge=parts)["one"]
    assert found["platforms"] == ["linux/amd64", "linux/arm64"]
    index = json.loads(Repository(f"{registry.host}/team", "one").get("manifests/1.2.3"))
    assert [part["platform"]["architecture"] for part in index["manifests"]] == ["amd64", "arm64"]
    assert index["manifests"] == found["manifests"]
    push.verify()


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_login_is_needed_where_the_registry_wants_one(
    publish: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with LocalRegistry(tmp_path, auth=auth) as registry:
        address = f"{registry.host}/team"
        with pytest.raises(UserError, match=r"not let you use team/one: run `docker login 127\.0\.0\.1:"):
            publish(registry=address)
        log_in(tmp_path, registry.host)
        publish(registry=address)
        push.verify()


@pytest.mark.parametrize("status", [404, 200, 301, 307])
def test_nothing_is_built_for_a_registry_that_takes_no_images(
    publish: Callable[..., dict[str, Any]], tmp_path: Path, status: int
) -> None:
    class Website(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(200 if self.path == "/page" else 404)

        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status > 300:
                self.send_header("Location", "/page")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Website) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        with pytest.raises(
            UserError,
            match=rf"the registry {host} answers {status} to POST .*: is it a registry of images, without TLS\?",
        ):
            publish(registry=f"{host}/team")
        server.shutdown()
    assert not (tmp_path / "first").exists()


def test_a_registry_with_tls_and_a_login(
    publish: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    local = lambda host, *rest, **options: resolve("127.0.0.1" if host == "registry.test" else host, *rest, **options)  # noqa: E731
    monkeypatch.setattr(socket, "getaddrinfo", local)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with LocalRegistry(tmp_path, auth="basic", tls=True) as registry:
        host = registry.host.replace("127.0.0.1", "registry.test")
        log_in(tmp_path, host)
        with pytest.raises(
            UserError, match=f"the registry {host} cannot be reached .*verify failed.*: check its name, .*STACK_CA"
        ):
            publish(registry=f"{host}/team")
        monkeypatch.setenv("STACK_CA", str(registry.certificate))
        publish(registry=f"{host}/team")
        push.verify()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk must be mounted")
def test_a_registry_whose_disk_is_full(publish: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        with LocalRegistry(tmp_path, storage=disk) as registry:
            with pytest.raises(
                UserError, match=rf"the registry {registry.host} answers 500 .*is its disk full"
            ) as error:
                publish(secrets.token_hex(200_000), registry=f"{registry.host}/team")
            assert "\n" not in str(error.value)
            assert tags(registry, "one", "1.2.3", COMMIT[:12]) == []
            assert not push.RELEASE.exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    ("tag", "message"), [("v1.2.4", r"v1\.2\.4 is not of the version in pyproject.toml, 1\.2\.3"), ("a b", "no image")]
)
def test_a_tag_that_cannot_be(publish: Callable[..., dict[str, Any]], tag: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        publish(tag=[tag])


def test_the_release_as_a_table_and_as_checksums(
    publish: Callable[..., dict[str, Any]], registry: LocalRegistry
) -> None:
    found = publish(tag=["v1.2.3"])["one"]
    assert (
        f"| {found['name']}@{found['digest']} | linux/amd64 | 0.0 | 1.2.3 "
        in push.RELEASE.with_suffix(".md").read_text()
    )
    sums = push.RELEASE.with_suffix(".sha256").read_text().splitlines()
    assert sums[0] == f"{found['digest'].removeprefix('sha256:')}  {registry.host}/team/one"


def test_a_part_of_another_commit_is_not_merged(publish: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    publish(untagged=True)
    part = tmp_path / "part.json"
    part.write_text(push.RELEASE.read_text().replace(COMMIT, "f" * 40))
    with pytest.raises(UserError, match=rf"part\.json is of commit f{{40}}, and not of {COMMIT}: check out"):
        publish(merge=[part])


def test_verify_names_an_image_of_an_index_that_lacks_its_documents(
    publish: Callable[..., dict[str, Any]], registry: LocalRegistry, tmp_path: Path
) -> None:
    publish(untagged=True)
    part = tmp_path / "part.json"
    part.write_text(push.RELEASE.read_text())
    manifest = publish(merge=[part])["one"]["manifests"][0]["digest"]
    push.verify()
    index = {"schemaVersion": 2, "mediaType": image.INDEX, "manifests": []}
    tag = manifest.replace(":", "-")
    Repository(f"{registry.host}/team", "one").push_manifest(image.compact(index), tag)
    with pytest.raises(
        UserError, match=f"team/one@{manifest} lacks {push.SBOM.replace('+', '.')}, {push.PROVENANCE.replace('+', '.')}"
    ):
        push.verify()


def test_a_registry_that_takes_nothing_but_images_gets_no_tag(publish: Callable[..., dict[str, Any]]) -> None:
    with Pretended() as registry:
        place = {"Location": "/v2/upload"}
        refused = Answer(400, {"errors": [{"message": "manifest invalid"}]})
        registry.answers |= {"POST": [Answer(202, headers=place)], "PUT /v2/upload": [Answer(201)]}
        registry.answers["PUT /v2/team/one/manifests/"] = [Answer(201), refused]
        told = (
            rf"the registry {registry.host} answers 400 \(manifest invalid\) to PUT /v2/team/one/manifests/sha256:.*See"
        )
        with pytest.raises(UserError, match=told):
            publish(registry=f"{registry.host}/team")
        assert not [
            asked for asked, *_ in registry.requests if re.match(r"PUT /v2/team/\w+/manifests/(?!sha256:)", asked)
        ]
