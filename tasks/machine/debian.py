"""Debian and Ubuntu: the engine's packages, and base images from Debian's packages where no image registry answers.

A recipe is docker/bases/NAME.toml: the Debian release, the version that it has of NAME, the packages, further options for
mmdebstrap if any, and the image's configuration. The files in docker/bases/NAME, all of them programs, are added to the image.
NAME.lock has the version of each package, is written where it is missing, and followed as far as Debian still has them.
Optional: delete with docker/bases and its line in noxfile.py. As root: ``python3 -B -m tasks.machine.debian``.
"""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..ownership import temporary_folder
from ..project import REPORTS, ROOT, pyproject
from ..shell import CommandFailed, UserError, output, step
from ..terminal import say
from . import setup

BASES = ROOT / "docker" / "bases"
LOG = Path("/var/log/nox-setup-apt.log")  # not in reports/, which would then belong to root, and not to who runs sudo
PACKAGES = {
    "debian": ("docker.io", "docker-cli", "docker-compose", "docker-buildx"),
    "ubuntu": ("docker.io", "docker-compose-v2", "docker-buildx"),
}
# Debian 12 has no Compose v2 and no buildx: these packages, and no others, come from Debian 13.
FROM_TRIXIE = (*PACKAGES["debian"], "containerd")
MMDEBSTRAP = ("mmdebstrap", "debian-archive-keyring", "uidmap")
# Like the official slim images: few packages, and no manuals in a container.
SLIM = ("--variant=minbase", *(f"--dpkgopt=path-exclude=/usr/share/{it}/*" for it in ("doc", "info", "locale", "man")))
# Versions that win over newer ones, if the mirrors have them.
PINS = '"$1"/etc/apt/preferences.d/pins'
PINNED = (f'--setup-hook=echo "$PINS" >{PINS}', f"--customize-hook=rm {PINS}")
_NAME = "docker-from-trixie"
_HEAD = "# Docker's packages on Debian 12 come from Debian 13. To undo: remove this file and its namesake, then apt-get update.\n"


class Debian:
    """What `setup` and images/bases.py ask of a system that can install an engine and build base images."""

    command = "sudo python3 -B -m tasks.machine.debian"

    def engine_packages(self) -> tuple[str, ...]:
        """The packages of the engine, compose and buildx; none on another system."""
        return PACKAGES.get(os_release().get("ID", ""), ())

    def base_packages(self) -> tuple[str, ...]:
        """The packages that build base images, where they are not installed."""
        return () if shutil.which("mmdebstrap", path=setup.SBIN) else MMDEBSTRAP

    def install(self, *packages: str) -> None:
        """Install packages, on Debian 12 the engine's from Debian 13; raises UserError when apt cannot."""
        if os_release().get("VERSION_CODENAME") == "bookworm" and set(FROM_TRIXIE) & set(packages):
            add_trixie()
        apt("update")
        apt("install", "--no-install-recommends", *packages)

    def recipe_id(self, recipe: str) -> str:
        """A hash of a recipe and its files: 16 hex digits."""
        found = hashlib.sha256()
        paths = [*BASES.glob(f"{recipe}.*"), *(BASES / recipe).rglob("*")]
        for path in sorted(filter(Path.is_file, paths)):
            found.update(f"\0{path.relative_to(BASES)}\0".encode() + path.read_bytes())
        return found.hexdigest()[:16]

    def substitute(self, recipe: str, official: str) -> str:
        """The name of the image that a recipe makes in the place of an official one; "" where none makes that version."""
        tag = official.partition("@")[0].rpartition(":")[2]
        file = f"docker/bases/{recipe}.toml"
        if not (ROOT / file).exists() or not tag.startswith(str(pyproject(file).get("version", ""))):
            return ""
        return f"localhost/base/{recipe}:{tag}-{pyproject(file)['suite']}"

    def build_base(self, recipe: str, image: str) -> None:
        """Build a base image with mmdebstrap; raises UserError when that fails."""
        plan = pyproject(f"docker/bases/{recipe}.toml")
        suite = str(plan["suite"])
        lock = BASES / f"{recipe}.lock"
        locked = dict(re.findall("(.+)=(.+)", lock.read_text(encoding="utf-8"))) if lock.exists() else {}
        pins = [f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n" for name, version in locked.items()]
        with temporary_folder() as folder:
            folder.chmod(0o711)  # an ordinary user's mmdebstrap works under other ids, which must get through
            tar = f"{folder}/base.tar"
            sources = [f"deb {uri} {found} main" for uri, found in mirrors(suite)]
            options = ("--verbose", *SLIM, *PINNED, f"--include={','.join(plan['packages'])}", *plan.get("options", ()))
            title = f"setup: base image {image} from Debian's packages"
            settings = {"TMPDIR": str(folder), "PINS": "\n".join(pins)}
            log = REPORTS / f"logs/base-{recipe}.log"
            step(title, "mmdebstrap", *options, suite, tar, *sources, log=log, env=settings)
            compare(recipe, locked, tar)
            add_files(recipe, tar)
            label = f"LABEL {setup.RECIPE_LABEL}={self.recipe_id(recipe)}"
            changes = [word for line in (*plan["config"], label) for word in ("--change", line)]
            output("docker", "import", *changes, tar, image)


def os_release() -> dict[str, str]:
    """What os-release says about this machine; {} where it is not Linux."""
    with suppress(OSError):
        return platform.freedesktop_os_release()
    return {}


@cache
def apt(*arguments: str) -> None:
    """Run apt-get without questions, once a session for the same arguments; raises UserError with its own words."""
    command = ("apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=120", *arguments)
    title = f"setup: apt-get {' '.join(word for word in arguments if not word.startswith('-'))}"
    try:
        step(title, *command, log=LOG, env={"DEBIAN_FRONTEND": "noninteractive"})
    except CommandFailed as failed:
        errors = [line for line in failed.text.splitlines() if line.startswith("E: ")]
        raise UserError(f"apt-get {arguments[0]} failed: {(errors or [str(failed)])[0]}") from None


def mirrors(release: str) -> list[tuple[str, str]]:
    """Where this machine would get packages of another Debian release: (URI, suite), from its own sources.

    Empty where this machine does not run Debian: mmdebstrap then knows where to look.
    """
    here = os_release()
    if here.get("ID") != "debian":
        return []
    form = "$(REPO_URI) $(RELEASE)"
    targets = output("apt-get", "indextargets", "--no-release-info", "--format", form, "Created-By: Packages")
    own = here.get("VERSION_CODENAME", "")
    pairs = [line.split(" ") for line in targets.splitlines()]
    wanted = rf"{own}(-updates|-security)?"
    return sorted({(uri, suite.replace(own, release)) for uri, suite in pairs if re.fullmatch(wanted, suite)})


def add_trixie() -> None:
    """Let apt see Debian 13 behind Debian 12, for the engine's packages only, from the mirrors that this machine uses."""
    form = "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    stanzas = [form.format(*mirror) for mirror in mirrors("trixie")]
    # Priority 1 replaces nothing that is installed and wins over nothing that Debian 12 has.
    pins = (("*", 1), (" ".join(FROM_TRIXIE), 990))
    rules = [f"Package: {what}\nPin: release n=trixie*\nPin-Priority: {priority}\n" for what, priority in pins]
    Path(f"/etc/apt/sources.list.d/{_NAME}.sources").write_text(_HEAD + "\n".join(stanzas), encoding="utf-8")
    Path(f"/etc/apt/preferences.d/{_NAME}").write_text(_HEAD + "\n".join(rules), encoding="utf-8")


def compare(recipe: str, locked: Mapping[str, str], tar: str) -> None:
    """Tell which packages of a root file system are not as they are ``locked``; write NAME.lock where there is none."""
    status = output("tar", "--extract", "--to-stdout", f"--file={tar}", "./var/lib/dpkg/status")
    found = sorted(re.findall(r"(?m)^Package: (.+)\n(?:.+\n)*?Version: (.+)", status))
    if not locked:
        (BASES / f"{recipe}.lock").write_text("".join(f"{name}={version}\n" for name, version in found), "utf-8")
    elif others := [f"{name} {version}" for name, version in found if locked.get(name) != version]:
        told = f"docker/bases/{recipe}.lock has other versions; remove it, and `nox -s setup` writes these"
        say(f"setup: {told}: {', '.join(others)}")


def add_files(recipe: str, tar: str) -> None:
    """Add a recipe's files to a root file system, owned by root and executable by everybody."""
    folder = BASES / recipe
    options = (f"--directory={folder}", "--owner=root:0", "--group=root:0", "--mode=755")
    if found := [f"./{path.relative_to(folder)}" for path in sorted(folder.rglob("*")) if path.is_file()]:
        output("tar", "--append", f"--file={tar}", *options, *found)


setup.DISTRIBUTIONS.append(Debian())

if __name__ == "__main__":
    try:
        setup.ensure()
    except UserError as error:
        sys.exit(f"error: {error}")
