"""Which services a change affects, told from git's paths and from what poetry.lock has for each service."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from .project import ROOT, libs_of, service_names, toml
from .shell import CommandFailed, UserError, output

# A change to one of these affects every service.
AFFECTS_ALL = ("docker/", "tasks/", "noxfile.py", ".dockerignore", ".env.example")
# The settings in pyproject.toml that a service's tests and images depend on, besides its own dependencies.
SETTINGS = (("tool", "pytest"), ("tool", "coverage"))


def base_of(ref: str) -> str:
    """The commit to compare with: where this branch has left ``ref``, as on a pull request, or ``ref`` itself.

    Raises UserError without git, and for a ``ref`` that git does not know.
    """
    found = git("rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}")
    if found is None:
        raise UserError(f"git knows no commit {ref!r} here: fetch it (a shallow clone may lack it), or name another")
    return (git("merge-base", found.strip(), "HEAD") or found).strip()  # a shallow clone may not know where they parted


def paths_since(ref: str) -> list[str]:
    """The paths that differ from ``ref`` here, uncommitted changes included; raises UserError as `base_of` does."""
    changed = git("diff", "--relative", "--no-renames", "--name-only", "-z", base_of(ref)) or ""
    new = git("ls-files", "--others", "--exclude-standard", "-z") or ""
    return [path for path in (changed + new).split("\0") if path]


def services_since(ref: str) -> list[str]:
    """The services that a change since ``ref`` affects; raises UserError as `base_of` does."""
    base = base_of(ref)
    before = {name: git("show", f"{base}:./{name}") or "" for name in ("pyproject.toml", "poetry.lock")}
    after = {name: (ROOT / name).read_text(encoding="utf-8") for name in before if (ROOT / name).exists()}
    libs = {name: libs_of(name) for name in service_names()}
    return affected(paths_since(ref), libs, before, after)


def affected(
    paths: Iterable[str], libs: Mapping[str, Iterable[str]], before: Mapping[str, str], after: Mapping[str, str]
) -> list[str]:
    """The services that changed ``paths`` affect; ``libs`` has all services, with the libs that each one uses.

    ``before`` and ``after`` are the texts of pyproject.toml and poetry.lock.
    """
    if any(path.startswith(AFFECTS_ALL) for path in paths) or settings(before) != settings(after):
        return sorted(libs)
    places = {tuple(path.split("/")[:2]) for path in paths}
    return [
        service
        for service, used in sorted(libs.items())
        if ("services", service) in places
        or any(("libs", lib) in places for lib in used)
        or requirements(before, service) != requirements(after, service)
    ]


def requirements(texts: Mapping[str, str], service: str) -> list[tuple[str, ...]]:
    """What the lock has for a service and for the tests: (name, version, hashes, markers) of every package."""
    packages = parsed(texts.get("poetry.lock", "")).get("package", [])
    own = [package for package in packages if {service, "tests"} & set(package.get("groups", ()))]
    return [tuple(str(package.get(key)) for key in ("name", "version", "files", "markers")) for package in own]


def settings(texts: Mapping[str, str]) -> list[Any]:
    """The values of SETTINGS in pyproject.toml."""
    found = parsed(texts.get("pyproject.toml", ""))
    return [found.get(table, {}).get(name) for table, name in SETTINGS]


def parsed(text: str) -> dict[str, Any]:
    """TOML as a dictionary; one that does not parse, in an old commit, has nothing in it."""
    with suppress(tomllib.TOMLDecodeError):
        return toml(text)
    return {}


def clean_commit() -> str:
    """The commit that is checked out; raises UserError where files differ from it."""
    commit = base_of("HEAD")
    if found := output("git", "-C", str(ROOT), "status", "--porcelain", "-unormal").splitlines():
        raise UserError(f"files differ from the commit ({len(found)}, such as {found[0][3:]}): commit or discard them")
    return commit


def git(*arguments: str) -> str | None:
    """What git answers, None when it fails; raises UserError where there is no git, this is no clone, or another user's."""
    try:
        return output("git", "-C", str(ROOT), *arguments, env={"LC_ALL": "C"})  # it would say the next words in others
    except CommandFailed as failed:
        if "not a git repository" in failed.text:
            raise UserError(f"{ROOT} is no git clone: `git init`, and commit") from None
        if "dubious ownership" in failed.text:
            raise
        return None
