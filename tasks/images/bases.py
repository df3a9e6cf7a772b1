"""Base images: pulled, or built from Debian's packages where no image registry answers.

A recipe is docker/bases/NAME.toml: the Debian release, the packages, further options for mmdebstrap if any, and the
image's configuration. What lies in the folder docker/bases/NAME, programs all of it, goes on top.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import threading
import tomllib
from functools import partial
from typing import TYPE_CHECKING

from .. import ownership
from ..env import env, official_base
from ..machine import debian, engine
from ..project import ROOT
from ..shell import UserError, output, run_parallel, say, start

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BASES = ROOT / "docker" / "bases"
RECIPE_LABEL = "stack.base.recipe"
# As the official images do it: nobody reads manuals in a container.
SLIM = tuple(f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "info", "locale", "man"))
# How long a registry may take for its first word, in seconds.
PATIENCE = 10
# Base images are made side by side, but apt-get runs, and people are asked, one after the other.
ONE_AT_A_TIME = threading.Lock()


def ensure() -> dict[str, str]:
    """Make sure of all base images and return, by variable, what they are: the official ones, or ours in their place."""
    wanted = {"STACK_BASE": ("python", official_base())}
    wanted |= {f"STACK_{recipe.upper()}": (recipe, official) for recipe, official in needed().items()}
    recipes = labels(
        *(name for recipe, official in wanted.values() for name in (official, substitute(recipe, official)))
    )
    jobs = {variable: partial(ensure_one, *image, variable, recipes) for variable, image in wanted.items()}
    return dict(run_parallel(jobs))


def needed() -> dict[str, str]:
    """The official images that services run as they are: recipe -> image.

    They stand in services/*/compose.yaml as ``image: ${STACK_POSTGRES:-postgres:17}``, which asks for the recipe postgres.
    """
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("services/*/compose.yaml")]
    named = [
        pair for text in texts for pair in re.findall(r"^ +image: \$\{STACK_(\w+):-([^}]+)\}$", text, re.MULTILINE)
    ]
    return {variable.lower(): official for variable, official in named}


def ensure_one(recipe: str, official: str, variable: str, recipes: Mapping[str, str]) -> str:
    """Return an image on this engine that can serve as ``official``, or what the user has set ``variable`` to.

    ``recipe`` names the substitute's recipe; ``recipes`` are the engine's images with the recipes that they were built by.
    """
    ours = substitute(recipe, official)
    chosen = env().get(variable, "")
    if chosen not in {"", ours} and not chosen.startswith(official):
        return chosen  # the user's own: the build pulls it, or says that it cannot
    if official not in recipes:
        if recipes.get(ours) == fingerprint(recipe):
            return ours
        if reason := pull(official):
            say(f"setup: no image registry answers ({reason})")
            say(f"setup: building {ours} from Debian's packages, in place of {official}; this takes half a minute")
            build(recipe, ours)
            return ours
    return pinned(official)


def substitute(recipe: str, official: str) -> str:
    """The name of the image that a recipe makes in the place of an official one."""
    return f"localhost/base/{recipe}:{official.rpartition(':')[2]}-{release(recipe)}"


def pinned(image: str) -> str:
    """An image's name with its digest, so that all builds on this machine stand on the very same one."""
    digest = (
        output("docker", "image", "inspect", "--format", "{{index .RepoDigests 0}}", image).strip().rpartition("@")[2]
    )
    return f"{image}@{digest}"


def labels(*images: str) -> dict[str, str]:
    """Those of the images that are on this engine, and the recipe that each was built by, "" if by none of ours."""
    form = f'{{{{join .RepoTags " "}}}}\t{{{{index .Config.Labels "{RECIPE_LABEL}"}}}}'
    command = ("docker", "image", "inspect", "--format", form, *images)
    # It fails when one is not there, and tells of the others all the same.
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    recipes: dict[str, str] = {}
    for line in found.splitlines():
        tags, _, recipe = line.partition("\t")
        # Podman puts a registry's name in front.
        recipes |= {image: recipe for image in images if any(f"/{tag}".endswith(f"/{image}") for tag in tags.split())}
    return recipes


def pull(image: str) -> str:
    """Pull an image; return "" on success, or else why it could not be had.

    A registry that does not say a word within PATIENCE seconds counts as away; one that does may take its time.
    """
    say(f"$ docker pull {image}")
    pipe = subprocess.PIPE
    with start("docker", "pull", image, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None  # noqa: S101 (for the type checker: both are pipes)
        assert process.stderr is not None  # noqa: S101
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            first = process.stdout.readline()
            watchdog.cancel()
            for line in [first, *process.stdout]:
                if line.startswith(("Digest", "Status")):
                    say(line.rstrip())
            reason = process.stderr.read().strip().splitlines()
        finally:
            watchdog.cancel()
    if process.returncode == 0:
        return ""
    return reason[-1].rpartition(": ")[2] if reason else f"no answer for {PATIENCE} s"


def read(recipe: str) -> dict[str, list[str]]:
    """Read a recipe's lists; raises UserError when it does not parse."""
    try:
        return tomllib.loads((BASES / f"{recipe}.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"docker/bases/{recipe}.toml cannot be read: {error}") from None


def release(recipe: str) -> str:
    """The Debian release that a recipe takes its packages from."""
    return str(read(recipe)["suite"])


def fingerprint(recipe: str) -> str:
    """What changes when the recipe, or a file of it, does."""
    found = hashlib.sha256((BASES / f"{recipe}.toml").read_bytes())
    for path in files(recipe):
        found.update(f"\0{path.relative_to(BASES)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def files(recipe: str) -> list[Path]:
    """The files that a recipe puts on top of the packages."""
    return sorted(path for path in (BASES / recipe).rglob("*") if path.is_file())


def overlay(recipe: str, tar: str) -> None:
    """Add a recipe's files to a root file system: root's, and for all to run."""

    def roots(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode = 0o755
        return member

    with tarfile.open(tar, "a") as root:
        for path in files(recipe):
            root.add(path, f"./{path.relative_to(BASES / recipe)}", filter=roots)


def build(recipe: str, image: str) -> None:
    """Build a base image from Debian's packages; raises UserError when it cannot."""
    with ONE_AT_A_TIME:
        need_mmdebstrap()
    steps = read(recipe)
    with ownership.folder() as folder:
        tar = f"{folder}/base.tar"
        include = f"--include={','.join(steps['packages'])}"
        sources = [f"deb {uri} {suite} main" for uri, suite in debian.mirrors(release(recipe))]
        options = ("--quiet", "--variant=minbase", *SLIM, include, *steps.get("options", ()))
        command = ("mmdebstrap", *options, release(recipe), tar, *sources)
        say("$ " + shlex.join(command))
        output(*command, env={"TMPDIR": str(folder)})
        overlay(recipe, tar)
        labels = (
            f"LABEL {RECIPE_LABEL}={fingerprint(recipe)}",
            f'LABEL description="built from Debian packages by docker/bases/{recipe}.toml"',
        )
        changes = [word for line in (*steps["config"], *labels) for word in ("--change", line)]
        output("docker", "import", *changes, tar, image)


def need_mmdebstrap() -> None:
    """Make sure of mmdebstrap; raises UserError where it cannot be had."""
    if not shutil.which("mmdebstrap", path=engine.SBIN):
        if os.environ.get("STACK_SETUP") == "never" or debian.distribution().get("ID") not in engine.PACKAGES:
            raise UserError(
                "no image registry answers, and there is no mmdebstrap to build a base image with: install it, or mend the network"
            )
        engine.allowed("install mmdebstrap, to build a base image", "sudo apt-get install mmdebstrap")
        debian.install("mmdebstrap", "debian-archive-keyring")
