"""Publishing: images by digest first, what is attached to them next, and tags when everything else is there."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from nox import Session

from .. import venv
from ..changes import git
from ..env import env
from ..project import REPORTS, pyproject
from ..shell import UserError, output
from ..sizes.report import as_markdown
from ..terminal import masked, say, table
from . import image
from .registry import INDEX, Repository

RELEASE = REPORTS / "release.json"
SBOM = "application/vnd.cyclonedx+json"
PROVENANCE = "application/vnd.in-toto+json"
ENTRY = ("service", "platforms", "manifests", "size", "name", "digest", "tags")  # what release.json says of an image


def read(path: Path, commit: str = "") -> dict[str, Any]:
    """What was published; raises UserError where nothing was, or from another commit than ``commit``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        images = [{key: entry[key] for key in ENTRY} for entry in found["images"]]
        if commit in {"", found["commit"]}:
            return {"commit": found["commit"], "images": images}
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = getattr(error, "strerror", None) or repr(error)
        raise UserError(f"{path} does not say what was published ({why}): `nox -s publish` writes it") from None
    told = f"{path} is of commit {found['commit']}, and {commit} is checked out"
    raise UserError(f"{told}: check out the other one, or publish this one")


def clean_commit() -> str:
    """The commit that is checked out; raises UserError where files differ from it."""
    if changed := output("git", "status", "--porcelain").splitlines():
        raise UserError(f"files differ from the commit ({len(changed)}, such as {changed[0][3:]}): commit them first")
    return output("git", "rev-parse", "HEAD").strip()


def check(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The commit and its tags; raises UserError for what can be known to be wrong without a build."""
    Repository(args.registry, "any")  # its name, before anything else
    commit, version = clean_commit(), pyproject()["project"].get("version", "")
    tags = list(dict.fromkeys([version, commit[:12], *args.tag]))
    for tag in tags:
        if not re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII):
            raise UserError(f"no image can have the tag {tag!r}: it is the version in pyproject.toml, or from --tag")
        if re.match(r"v\d", tag) and tag != f"v{version}":
            raise UserError(f"the tag {tag} is not of the version in pyproject.toml, {version}: change one of them")
    return commit, tags


def publish(session: Session, args: argparse.Namespace) -> None:
    """Build, verify, push, tag; raises UserError, with no tag changed, when anything before the tags fails."""
    REPORTS.mkdir(exist_ok=True)
    commit, tags = check(args)
    parts = [read(path, commit) for path in args.merge]
    repositories = {service: Repository(args.registry, service) for service in args.services}
    tagged = {(service, tag): repositories[service].digest(tag) for service in args.services for tag in tags}
    for repository in repositories.values():
        repository.begin_upload()  # to fail before the build rather than after it
    images = [] if parts else image.build(args.services)
    found = [built.entry() for built in images] or [merged(parts, service) for service in args.services]
    manifests = {built.service: built.manifest for built in images} or {e["service"]: index(e) for e in found}
    digests = {service: image.digest_of(manifest) for service, manifest in manifests.items()}
    tags = [] if args.untagged else tags
    # The version comes last, for all services one right after the other.
    late = [(one, tag) for tag in reversed(tags) for one in args.services if tagged[one, tag] != digests[one]]
    for service, tag in reversed(late):
        if (old := tagged[service, tag]) and not args.move_tags:
            hint = "raise the version in pyproject.toml"
            if old == tagged[service, commit[:12]]:
                hint = "this commit was built with another base image, Docker or zlib, or for other platforms"
            raise UserError(f"{args.registry}/{service}:{tag} is {old} already: {hint}, or use --move-tags")
    venv.sbom(session, [image.name_of(built.service) for built in images])
    for built in images:
        push(repositories[built.service], built, commit)
    for service, tag in late:
        repositories[service].push_manifest(manifests[service], tag)
        say(f"tagged {args.registry}/{service}:{tag}")
    names = {s: {"name": f"{args.registry}/{s}", "digest": digests[s], "tags": tags} for s in digests}
    write(commit, [entry | names[entry["service"]] for entry in found])


def write(commit: str, published: Sequence[Mapping[str, Any]]) -> None:
    """Write what was published to reports/: release.json, a table in Markdown, and checksums as `sha256sum` has them."""
    RELEASE.write_text(json.dumps({"commit": commit, "images": published}, indent=1), encoding="utf-8")
    rows, sums = [["image", "platforms", "compressed MB", "tags"]], ""
    for e in published:
        size = f"{e['size'] / 1e6:.1f}"
        rows.append([f"{e['name']}@{e['digest']}", " ".join(e["platforms"]), size, " ".join(e["tags"])])
        sums += f"{e['digest'].removeprefix('sha256:')}  {e['name']}\n"
    say(table(rows))
    RELEASE.with_suffix(".md").write_text(as_markdown(rows) + "\n", encoding="utf-8")
    RELEASE.with_suffix(".sha256").write_text(sums, encoding="utf-8")


def push(repository: Repository, built: image.Image, commit: str) -> None:
    """Push an image under its digest, and attach its SBOM and its provenance."""
    say(f"pushing {repository.host}/{repository.name}@{image.digest_of(built.manifest)}")
    for path in built.blobs:
        repository.push_blob(path.read_bytes())
    repository.push_manifest(built.manifest)
    repository.attach(built.manifest, SBOM, (REPORTS / f"sbom-{built.service}-release.cdx.json").read_bytes())
    repository.attach(built.manifest, PROVENANCE, provenance(repository, built, commit))


def provenance(repository: Repository, built: image.Image, commit: str) -> bytes:
    """What an image was made from, as an in-toto statement with SLSA's predicate; it is not signed."""
    # Without a remote, it is a repository without a home.
    source = f"git+{masked((git('config', 'remote.origin.url') or f'file:///{built.service}').strip())}"
    words = {"source": source, "commit": commit, "base": env().get("STACK_BASE", ""), "service": built.service}
    words |= {"name": f"{repository.host}/{repository.name}", "platform": built.entry()["platforms"][0]}
    words |= {"sha256": image.digest_of(built.manifest).removeprefix("sha256:")}
    words |= {"builder": env().get("GITHUB_WORKFLOW_REF") or f"{source}#local"}
    form = Template(Path(__file__).with_name("provenance.json").read_text(encoding="utf-8"))
    return form.substitute({word: json.dumps(value)[1:-1] for word, value in words.items()}).encode()


def merged(parts: Sequence[Mapping[str, Any]], service: str) -> dict[str, Any]:
    """What several parts of a release, one for each platform, say of a service's image, as if it were one."""
    found = [entry for part in parts for entry in part["images"] if entry["service"] == service]
    if len(found) < len(parts):
        raise UserError(f"--merge: not every part has an image of {service}")
    found.sort(key=lambda entry: str(entry["platforms"]))
    lists = {key: [value for entry in found for value in entry[key]] for key in ("platforms", "manifests")}
    return {"service": service, **lists, "size": sum(entry["size"] for entry in found)}


def index(found: Mapping[str, Any]) -> bytes:
    """The index that makes one image of a service's images for several platforms."""
    return image.compact({"schemaVersion": 2, "mediaType": INDEX, "manifests": found["manifests"]})


def verify() -> None:
    """Compare a registry with reports/release.json; raises UserError with all that differs."""
    wrong = []
    for entry in read(RELEASE)["images"]:
        name, repository = entry["name"], Repository(entry["name"].rpartition("/")[0], entry["service"])
        there = {reference: repository.digest(reference) for reference in (entry["digest"], *entry["tags"])}
        wrong += [f"{name}:{tag} is {found or 'missing'}" for tag, found in there.items() if found != entry["digest"]]
        for digest in (manifest["digest"] for manifest in entry["manifests"]):
            if lost := {SBOM, PROVENANCE} - {found.get("artifactType") for found in repository.referrers(digest)}:
                wrong.append(f"{name}@{digest} lacks {', '.join(sorted(lost))}")
    if wrong:
        raise UserError(f"the registry differs from reports/release.json: {'; '.join(wrong)}")
    say("the registry has what reports/release.json says")
