"""Publishing: images by digest first, what is attached to them next, and tags when everything else is there."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from .. import venv
from ..env import env
from ..project import REPORTS, pyproject
from ..shell import CommandFailed, UserError, output
from ..terminal import masked, say, table
from . import image
from .registry import INDEX, Repository

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nox import Session

RELEASE = REPORTS / "release.json"
SBOM = "application/vnd.cyclonedx+json"
PROVENANCE = "application/vnd.in-toto+json"


def read(path: Path) -> dict[str, Any]:
    """What was published; raises UserError where nothing was."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"what was published cannot be read ({error}): `nox -s publish` writes it") from None


def clean_commit() -> str:
    """The commit that is checked out; raises UserError where files differ from it."""
    if changed := output("git", "status", "--porcelain").splitlines():
        raise UserError(f"files differ from the commit ({len(changed)}, such as {changed[0][3:]}): commit them first")
    return output("git", "rev-parse", "HEAD").strip()


def publish(session: Session, args: argparse.Namespace) -> None:
    """Build, verify, push, tag; raises UserError, with no tag changed, when anything before the tags fails."""
    commit = clean_commit()
    tags = list(dict.fromkeys([pyproject()["project"]["version"], commit[:12], *args.tag]))
    parts = [read(path) for path in args.merge]
    if wrong := {part["commit"] for part in parts} - {commit}:
        raise UserError(f"--merge: a part is of commit {wrong.pop()}, and {commit} is checked out")
    repositories = {service: Repository(args.registry, service) for service in args.services}
    tagged = {(service, tag): repositories[service].digest(tag) for service in args.services for tag in tags}
    if parts:
        manifests = {service: index(repositories[service], entries(parts, service)) for service in args.services}
        facts = {service: summed(entries(parts, service)) for service in args.services}
    else:
        images = image.build(args.services)
        manifests = {built.service: built.manifest for built in images}
        facts = {built.service: {"platforms": [built.platform], "size": built.size} for built in images}
    digests = {service: image.digest_of(manifest) for service, manifest in manifests.items()}
    for (service, tag), old in {} if args.untagged or args.move_tags else tagged.items():
        if old not in {"", digests[service]}:
            raise UserError(f"{args.registry}/{service}:{tag} is {old} already: raise the version, or use --move-tags")
    for built in () if parts else images:
        push(session, repositories[built.service], built, commit)
    for (service, tag), old in {} if args.untagged else tagged.items():
        if old != digests[service]:
            repositories[service].push_manifest(manifests[service], tag)
    published = [
        {"service": service, "name": f"{args.registry}/{service}", "digest": digest, **facts[service]}
        | {"tags": [] if args.untagged else tags}
        for service, digest in digests.items()
    ]
    RELEASE.write_text(json.dumps({"commit": commit, "images": published}, indent=1), encoding="utf-8")
    shutil.rmtree(REPORTS / "release", ignore_errors=True)
    rows = [(f"{e['name']}@{e['digest']}", f"{e['size'] / 1e6:.1f} MB", " ".join(e["tags"])) for e in published]
    say(table([("image", "size", "tags"), *rows]))


def push(session: Session, repository: Repository, built: image.Image, commit: str) -> None:
    """Push an image under its digest, and attach its SBOM and its provenance."""
    say(f"pushing {repository.host}/{repository.name}@{image.digest_of(built.manifest)}")
    venv.sbom(session, [image.name_of(built.service)])
    sbom = (REPORTS / f"sbom-{built.service}-release.cdx.json").read_bytes()
    for path in built.blobs:
        repository.push_blob(path.read_bytes())
    repository.push_manifest(built.manifest)
    repository.attach(built.manifest, SBOM, sbom)
    repository.attach(built.manifest, PROVENANCE, image.compact(provenance(repository, built, commit)))


def provenance(repository: Repository, built: image.Image, commit: str) -> dict[str, Any]:
    """What an image was made from, as an in-toto statement with SLSA's predicate; it is not signed."""
    try:
        source = f"git+{masked(output('git', 'config', 'remote.origin.url').strip())}"
    except CommandFailed:
        source = f"git+file:///{built.service}"  # a repository without a home
    definition = {
        "buildType": f"{source}#nox-publish",
        "externalParameters": {"service": built.service, "platform": built.platform},
        "resolvedDependencies": [
            {"uri": source, "digest": {"gitCommit": commit}},
            {"uri": f"docker-image://{env().get('STACK_BASE', '')}"},
        ],
    }
    builder = {"id": env().get("GITHUB_WORKFLOW_REF") or f"{source}#local"}
    digest = image.digest_of(built.manifest).removeprefix("sha256:")
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": f"{repository.host}/{repository.name}", "digest": {"sha256": digest}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": definition, "runDetails": {"builder": builder}},
    }


def entries(parts: Sequence[Mapping[str, Any]], service: str) -> list[dict[str, Any]]:
    """A service's images in several parts of a release, one for each platform."""
    found = [entry for part in parts for entry in part["images"] if entry["service"] == service]
    if len(found) < len(parts):
        raise UserError(f"--merge: not every part has an image of {service}")
    return sorted(found, key=lambda entry: str(entry["platforms"]))


def summed(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The platforms of a service's images, and what they weigh together."""
    return {"platforms": [e["platforms"][0] for e in found], "size": sum(e["size"] for e in found)}


def index(repository: Repository, found: Sequence[Mapping[str, Any]]) -> bytes:
    """The index that makes one image of a service's images for several platforms, which the registry has already."""
    manifests = [
        image.descriptor(image.MANIFEST, repository.get(f"manifests/{entry['digest']}"))
        | {"platform": dict(zip(image.PLATFORM, entry["platforms"][0].split("/"), strict=False))}
        for entry in found
    ]
    return image.compact({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})


def verify() -> None:
    """Compare a registry with reports/release.json; raises UserError with all that differs."""
    wrong = []
    for entry in read(RELEASE)["images"]:
        repository = Repository(entry["name"].rpartition("/")[0], entry["service"])
        there = {reference: repository.digest(reference) for reference in (entry["digest"], *entry["tags"])}
        wrong += [
            f"{entry['name']}:{reference} is {found or 'missing'}"
            for reference, found in there.items()
            if found != entry["digest"]
        ]
        kinds = {attached.get("artifactType") for attached in repository.referrers(entry["digest"])}
        if len(entry["platforms"]) == 1 and (lost := {SBOM, PROVENANCE} - kinds):
            wrong.append(f"{entry['name']} lacks {', '.join(sorted(lost))}")
    if wrong:
        raise UserError(f"the registry differs from reports/release.json: {'; '.join(wrong)}")
    say("the registry has what reports/release.json says")
