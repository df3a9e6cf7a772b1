"""Publishing against a real registry, with small images in place of built ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..release import image, push
from ..release.registry import Repository
from ..shell import UserError
from .publishing import COMMIT, made, publisher, tags
from .registry import LocalRegistry


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with LocalRegistry(tmp_path) as started:
        yield started


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: LocalRegistry) -> Callable[..., dict[str, Any]]:
    return publisher(monkeypatch, tmp_path, registry)


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
