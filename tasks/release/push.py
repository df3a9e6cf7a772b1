"""Publishing: images by digest first, what is attached to them next, and tags when everything else is there."""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import nox

from .. import cli, venv
from ..changes import clean_commit, git
from ..env import env
from ..project import REPORTS, choose_services, pyproject
from ..session import ready, session
from ..shell import UserError
from ..sizes.report import as_markdown
from ..terminal import masked, say, table
from . import image
from .registry import Repository

RELEASE = REPORTS / "release.json"
SBOM = "application/vnd.cyclonedx+json"
PROVENANCE = "application/vnd.in-toto+json"
FACTS = ("service", "digest", "platforms", "manifests", "size")  # what release.json says of an image,
ENTRY = (*FACTS, "name", "tags")  # and of where it is


@session(venv=True)
def publish(session: nox.Session) -> None:
    """Push release images: -- [SERVICE...] --registry HOST/NAMESPACE [--tag TAG]... | --verify"""
    options = cli.parser("publish", services="*")
    what = options.add_mutually_exclusive_group(required=True)
    what.add_argument("--registry", metavar="HOST/NAMESPACE", help="where to push, such as registry.example:5000/owner")
    what.add_argument("--verify", action="store_true", help="compare a registry with reports/release.json")
    options.add_argument("--tag", action="append", default=[], help="besides the version and the commit")
    options.add_argument("--move-tags", action="store_true", help="let tags leave the images that have them")
    options.add_argument("--dry-run", action="store_true", help="check commit, tags and names; build and push nothing")
    options.add_argument("--untagged", action="store_true", help="a platform's part of a release, for --merge")
    options.add_argument("--merge", type=Path, nargs="+", default=[], metavar="FILE", help="parts of a release")
    args = options.parse_args(session.posargs)
    args.services = choose_services(args.services)
    if args.verify:
        verify()
    elif args.dry_run:
        say(f"the tags would be {', '.join(check(args)[1])}")
    else:
        ready()
        try:
            release(session, args)
        finally:
            shutil.rmtree(REPORTS / "release", ignore_errors=True)


def read(path: Path, commit: str = "") -> list[dict[str, Any]]:
    """What was published of each image; raises UserError where nothing was, or from another commit than ``commit``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        released, images = found["commit"], [{key: entry[key] for key in ENTRY} for entry in found["images"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = getattr(error, "strerror", None) or repr(error)
        raise UserError(f"{path} does not say what was published ({why}): `nox -s publish` writes it") from None
    if commit not in {"", released}:
        raise UserError(f"{path} is of commit {released}, and not of {commit}: check out that one, or publish this one")
    return images


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
    return commit, [] if args.untagged else tags


def release(session: nox.Session, args: argparse.Namespace) -> None:
    """Build, verify, push, tag; raises UserError, with no tag changed, when anything before the tags fails."""
    REPORTS.mkdir(exist_ok=True)
    commit, tags = check(args)
    parts = [read(path, commit) for path in args.merge]
    repositories = {service: Repository(args.registry, service) for service in args.services}
    tagged = {(service, tag): repositories[service].digest(tag) for service in args.services for tag in tags}
    for repository in repositories.values():
        repository.begin_upload()  # to fail before the build rather than after it
    images = [image.merged(service, parts) for service in args.services] if parts else image.build(args.services)
    # The version comes last, for all services one right after the other.
    late = [(built, tag) for tag in reversed(tags) for built in images if tagged[built.service, tag] != built.digest]
    for built, tag in reversed(late):
        if (old := tagged[built.service, tag]) and not args.move_tags:
            hint = "raise the version in pyproject.toml"
            if old == tagged[built.service, commit[:12]]:
                hint = "this commit was built with another base image, Docker or zlib, or for other platforms"
            raise UserError(f"{args.registry}/{built.service}:{tag} is {old} already: {hint}, or use --move-tags")
    if not parts:
        venv.sbom(session, [image.name_of(built.service) for built in images])
        for built in images:
            push(repositories[built.service], built, commit)
    for built, tag in late:
        repositories[built.service].push_manifest(built.manifest, tag)
        say(f"tagged {args.registry}/{built.service}:{tag}")
    write(commit, args.registry, images, tags)


def write(commit: str, registry: str, images: Sequence[image.Image], tags: Sequence[str]) -> None:
    """Write what was published to reports/: release.json, a table in Markdown, and checksums as `sha256sum` has them."""
    published, sums = [], ""
    rows = [["image", "platforms", "compressed MB", "tags"]]
    for built in images:
        name = f"{registry}/{built.service}"
        published.append({key: getattr(built, key) for key in FACTS} | {"name": name, "tags": tags})
        rows.append([f"{name}@{built.digest}", " ".join(built.platforms), f"{built.size / 1e6:.1f}", " ".join(tags)])
        sums += f"{built.digest.removeprefix('sha256:')}  {name}\n"
    RELEASE.write_text(json.dumps({"commit": commit, "images": published}, indent=1), encoding="utf-8")
    RELEASE.with_suffix(".md").write_text(as_markdown(rows) + "\n", encoding="utf-8")
    RELEASE.with_suffix(".sha256").write_text(sums, encoding="utf-8")
    say(table(rows))


def push(repository: Repository, built: image.Image, commit: str) -> None:
    """Push an image under its digest, and attach its SBOM and its provenance."""
    say(f"pushing {repository.host}/{repository.name}@{built.digest}")
    for path in built.blobs:
        repository.push_blob(path.read_bytes())
    repository.push_manifest(built.manifest)
    repository.attach(built.manifest, SBOM, (REPORTS / f"sbom-{built.service}-release.cdx.json").read_bytes())
    repository.attach(built.manifest, PROVENANCE, provenance(repository, built, commit))


def provenance(repository: Repository, built: image.Image, commit: str) -> bytes:
    """What an image was made from, as an in-toto statement with SLSA's predicate; it is not signed."""
    remote = re.sub(r"^[\w.-]+@([\w.-]+):", r"ssh://\1/", (git("config", "remote.origin.url") or "").strip())
    # A path of this machine is of no use to others, and not theirs to know.
    source = f"git+{masked(remote) if '://' in remote else f'file:///{built.service}'}"
    words = {"source": source, "commit": commit, "base": env().get("STACK_BASE", ""), "service": built.service}
    words |= {"name": f"{repository.host}/{repository.name}", "sha256": built.digest.removeprefix("sha256:")}
    words |= {"platform": built.platforms[0], "builder": env().get("GITHUB_WORKFLOW_REF") or f"{source}#local"}
    form = Template(Path(__file__).with_name("provenance.json").read_text(encoding="utf-8"))
    return form.substitute({word: json.dumps(value)[1:-1] for word, value in words.items()}).encode()


def verify() -> None:
    """Compare a registry with reports/release.json; raises UserError with all that differs."""
    wrong = []
    for entry in read(RELEASE):
        name, repository = entry["name"], Repository(entry["name"].rpartition("/")[0], entry["service"])
        there = {reference: repository.digest(reference) for reference in (entry["digest"], *entry["tags"])}
        wrong += [f"{name}:{tag} is {found or 'missing'}" for tag, found in there.items() if found != entry["digest"]]
        for digest in (manifest["digest"] for manifest in entry["manifests"]):
            if lost := {SBOM, PROVENANCE} - {found.get("artifactType") for found in repository.referrers(digest)}:
                wrong.append(f"{name}@{digest} lacks {', '.join(sorted(lost))}")
    if wrong:
        raise UserError(f"the registry differs from reports/release.json: {'; '.join(wrong)}")
    say("the registry has what reports/release.json says")
