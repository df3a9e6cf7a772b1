"""Which images need no build: those whose inputs have not changed since they were built."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from ..machine import engine
from ..project import REPORTS, ROOT, libs_of
from ..shell import CommandFailed, output
from .target import Target

# By an image's name: its id, and the fingerprint of what it was built from. Only builds that went well are in it.
RECORD = REPORTS / "built.json"


def fingerprints(targets: Mapping[str, Target], flavor: str, images: Mapping[str, str]) -> dict[str, str]:
    """A hash, for each service's target, of all that goes into the build: definition, base image, files.

    ``images`` are the engine's.
    """
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    # The files and folders that .dockerignore, with these rules, lets into a build.
    allowed = [path for pattern in re.findall(r"(?m)^!\s*/?(\S.*?)/?\s*$", rules) for path in ROOT.glob(pattern)]
    shared = digest(path for path in allowed if path.name not in {"services", "libs"})
    found = {}
    for service, target in targets.items():
        base = target.args.get("STACK_BASE", "")
        facts = json.dumps([asdict(target), images.get(base, base), rules, shared], sort_keys=True)
        # In development images, source is mounted, and only a lock of the service's own is inside.
        own = [ROOT / "services" / service / name for name in ("pyproject.toml", "poetry.lock")]
        if flavor != "dev":
            own = [ROOT / "services" / service, *(ROOT / "libs" / lib for lib in libs_of(service))]
        found[service] = hashlib.sha256((facts + digest(own)).encode()).hexdigest()
    return found


def stale(targets: Mapping[str, Target], inputs: Mapping[str, str], images: Mapping[str, str]) -> list[str]:
    """The services whose image is not among the engine's ``images``, under all its names, as built from these inputs."""
    known = read()
    return [
        service
        for service, target in targets.items()
        if any(known.get(target.tags[0]) != [images.get(tag), inputs[service]] for tag in target.tags)
    ]


def record(targets: Mapping[str, Target], inputs: Mapping[str, str]) -> None:
    """Record that these images were built, and verified, from these inputs."""
    now = present()
    known = read() | {tag: [now[tag], inputs[it]] for it, target in targets.items() if (tag := target.tags[0]) in now}
    RECORD.write_text(json.dumps(known, indent=1), encoding="utf-8")


def restore(targets: Mapping[str, Target], before: Mapping[str, str]) -> None:
    """Give names back to the engine's images of ``before`` a build that failed, and remove what the build has made."""
    made = present()
    for tag in [tag for target in targets.values() for tag in target.tags if tag in made]:
        with suppress(CommandFailed):  # another session has removed what was there: why the build failed is to be told
            output("docker", "image", *(("tag", before[tag]) if tag in before else ("rm",)), tag)
    remove_replaced(targets, made)


def remove_replaced(targets: Mapping[str, Target], before: Mapping[str, str]) -> None:
    """Remove the images that have lost their last name to a build; ``before`` are the engine's images before it."""
    names = {tag for target in targets.values() for tag in target.tags}
    with suppress(CommandFailed):  # a container still uses one, or the engine has ended
        if old := {before[name] for name in names & set(before)} - set(present().values()):
            output("docker", "image", "rm", *old)


def read() -> dict[str, list[str]]:
    """The record; one that is not there, or cannot be read, is empty."""
    with suppress(OSError, ValueError):
        return dict(json.loads(RECORD.read_text(encoding="utf-8")))
    return {}


def present() -> dict[str, str]:
    """The engine's images: name -> id."""
    named = ("--filter=dangling=false", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    found = dict(line.split() for line in output("docker", "image", "ls", *named).splitlines())
    return found | {engine.current().plain_name(name): image for name, image in found.items()}


def digest(paths: Iterable[Path]) -> str:
    """A hash of files and links, and of all in folders, but for those in it that are hidden, bytecode, or a service's data."""
    found = hashlib.sha256()
    for file in sorted(file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])):
        inside = file.relative_to(ROOT)
        unused = any(part == "__pycache__" or part.startswith(".") for part in inside.parts[1:])
        if (file.is_file() or file.is_symlink()) and not unused and inside.parts[2:3] != ("instance",):
            content = bytes(file.readlink()) if file.is_symlink() else file.read_bytes()
            found.update(b"\0%b\0%o\0%b" % (bytes(inside), file.lstat().st_mode, content))
    return found.hexdigest()
