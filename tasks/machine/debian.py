"""Debian and Ubuntu: which release this is, where its packages come from, installing them."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path

from ..shell import CommandFailed, UserError, output, say

# Debian 12 has no Compose v2 and no buildx: these few, and nothing else, come from Debian 13.
FROM_TRIXIE = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "containerd")
_NAME = "docker-from-trixie"
_HEAD = "# Docker's packages on Debian 12 come from Debian 13. To undo: remove this file and its namesake, then apt-get update.\n"


def distribution() -> dict[str, str]:
    """What os-release says about this machine; {} where it is no Linux."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def apt(*arguments: str) -> None:
    """Run apt-get without questions; raises UserError with its own words when it fails."""
    command = ("apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=120", *arguments)
    say("$ " + " ".join(command))
    try:
        output(*command, env={"DEBIAN_FRONTEND": "noninteractive"})
    except CommandFailed as failed:
        errors = [line for line in failed.text.splitlines() if line.startswith("E: ")]
        raise UserError(f"apt-get {arguments[0]} failed: {(errors or [str(failed)])[0]}") from None


def install(*packages: str) -> None:
    """Install packages, on Debian 12 the engine's from Debian 13; raises UserError when apt cannot."""
    if distribution().get("VERSION_CODENAME") == "bookworm" and set(FROM_TRIXIE) & set(packages):
        add_trixie()
    update()
    apt("install", "--no-install-recommends", *packages)


@cache
def update() -> None:
    """Fetch apt's package lists, once in the life of this process."""
    apt("update")


def mirrors(release: str) -> list[tuple[str, str]]:
    """Where this machine would get packages of another Debian release: (URI, suite), from its own sources.

    Empty where this machine is no Debian.
    """
    here = distribution()
    if here.get("ID") != "debian":
        return []
    targets = output(
        "apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"
    )
    own = here.get("VERSION_CODENAME", "")
    found = [line.split(" ") for line in targets.splitlines()]
    return sorted(
        {
            (uri, suite.replace(own, release))
            for uri, suite in found
            if re.fullmatch(rf"{own}(-updates|-security)?", suite)
        }
    )


def add_trixie() -> None:
    """Let apt see Debian 13 behind Debian 12, for the engine's packages only, from the mirrors that this machine uses."""
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    stanzas = [
        f"Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\nSigned-By: {keyring}\n"
        for uri, suite in mirrors("trixie")
    ]
    # Rank 1 only ever fills a gap that Debian 12 leaves: nothing installed is replaced, nothing that it has is preferred.
    pins = (("*", 1), (" ".join(FROM_TRIXIE), 990))
    rules = [f"Package: {what}\nPin: release n=trixie*\nPin-Priority: {rank}\n" for what, rank in pins]
    Path(f"/etc/apt/sources.list.d/{_NAME}.sources").write_text(_HEAD + "\n".join(stanzas), encoding="utf-8")
    Path(f"/etc/apt/preferences.d/{_NAME}").write_text(_HEAD + "\n".join(rules), encoding="utf-8")
