"""Base images: pulled from their registry, or built by the distribution's recipes where no registry answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import partial

from ..env import chosen_by_user, official_base
from ..machine import engine, setup
from ..project import compose_texts
from ..shell import UserError, ask, run_parallel
from ..terminal import Status, say

# How long a registry may take for its first line.
REGISTRY_TIMEOUT_S = 10


def ensure() -> dict[str, str]:
    """Make sure of all base images and return, by variable, what they are: official images, or ours in their place.

    Raises UserError where an image can be neither pulled nor built.
    """
    wanted = {"STACK_BASE": ("python", official_base())} | needed()
    # The build pulls what the user has chosen, or says that it cannot.
    found = {variable: image for variable, image in chosen_by_user().items() if variable in wanted and image}
    here = setup.distribution()
    substitutes = {variable: here.substitute(*image) if here else "" for variable, image in wanted.items()}
    there = on_engine([*(official for _, official in wanted.values()), *substitutes.values()])
    for variable, (recipe, official) in wanted.items():
        if official in there:
            found.setdefault(variable, there[official][0])
        elif here and substitutes[variable] in there and there[substitutes[variable]][1] == here.recipe_id(recipe):
            found.setdefault(variable, substitutes[variable])
    if not (missing := {variable: image for variable, image in wanted.items() if variable not in found}):
        return found
    reasons = run_parallel({variable: partial(pull, official) for variable, (_, official) in missing.items()})
    there = on_engine([official for _, official in missing.values()])
    for variable, reason in reasons.items():
        official = missing[variable][1]
        found[variable] = substitutes[variable] if reason else there.get(official, (official, ""))[0]
    if lost := {variable: missing[variable] for variable, reason in reasons.items() if reason}:
        build(lost, substitutes, next(filter(None, reasons.values())))
    return found


def build(lost: Mapping[str, tuple[str, str]], substitutes: Mapping[str, str], reason: str) -> None:
    """Build the substitutes for official images that could not be pulled for a ``reason``; all by their variables."""
    if unknown := {variable: official for variable, (_, official) in lost.items() if not substitutes[variable]}:
        variables = " and ".join(f"{variable}=..." for variable in unknown)
        told = f"no image registry answers ({reason}): check the network, or set {variables} in .env"
        raise UserError(f"{told} (docker/bases makes no {', '.join(unknown.values())} here)")
    say(f"setup: no image registry answers ({reason})")
    here = setup.distribution()
    if packages := here.base_packages():
        setup.allow(f"install {', '.join(packages)}", f"sudo apt-get install {' '.join(packages)}", *packages)
        here.install(*packages)
    jobs = {name: partial(here.build_base, recipe, substitutes[name]) for name, (recipe, _) in lost.items()}
    run_parallel(jobs)


def needed() -> dict[str, tuple[str, str]]:
    """The official images that services run as they are: variable -> (recipe, image).

    services/*/compose.yaml has them as ``image: ${STACK_POSTGRES:-postgres:17}``, for which the recipe is postgres.
    """
    found = {*re.findall(r"(?m)^ +image: *\W?\$\{(STACK_\w+):-([^}$]+)\}\W? *(?:#.*)?$", compose_texts())}
    if twice := {one for one, image in found for other, another in found if one == other and image != another}:
        raise UserError(f"services/*/compose.yaml: {min(twice)} has two versions; one of them needs another variable")
    return {variable: (variable.removeprefix("STACK_").lower(), official) for variable, official in found}


def on_engine(images: list[str]) -> dict[str, tuple[str, str]]:
    """Those of the images that are on this engine: the name, with its digest, so that all builds on this machine use the
    very same one; and the id of the recipe that it was made by, "" for none."""
    form = f'{{{{join .RepoTags " "}}}}\t{{{{join .RepoDigests " "}}}}\t{{{{index .Config.Labels "{setup.RECIPE_LABEL}"}}}}'
    found: dict[str, tuple[str, str]] = {}
    # It fails when one is missing, and tells of the others all the same.
    listed, _ = ask("docker", "image", "inspect", "--format", form, *filter(None, images)).communicate()
    for line in filter(None, listed.splitlines()):  # without any, it prints an empty one
        tags, digests, recipe = line.split("\t")
        names = [name for tag in f"{digests} {tags}".split() for name in (tag, engine.current().plain_name(tag))]
        for image in images:
            if re.sub(":[^:@/]+@", "@", image) in names:  # Docker knows name:tag@digest as name@digest
                own = [it for it in names if it.startswith(re.sub("(:[^:@/]+)?$", "@", image, count=1))]
                found[image] = image + re.sub("^[^@]*", "", "".join(own[:1])), recipe
    return found


def pull(image: str) -> str:
    """Pull an image; return "" on success, or else why it could not be had.

    A registry that sends nothing within REGISTRY_TIMEOUT_S counts as unreachable; one that does may take its time.
    """
    with Status(f"docker pull {image}") as status, ask("docker", "pull", image) as process:
        assert process.stdout and process.stderr  # noqa: S101, PT018 (for the type checker: both are pipes)
        watchdog = threading.Timer(REGISTRY_TIMEOUT_S, process.kill)
        watchdog.start()
        try:
            process.stdout.readline()
        finally:
            watchdog.cancel()
        process.stdout.read()
        reason = process.stderr.read().strip().splitlines()
    if process.returncode == 0:
        say(f"setup: docker pull {image}: {status.seconds:.1f} s")
        return ""
    return reason[-1].rpartition(": ")[2] if reason else f"no answer for {REGISTRY_TIMEOUT_S} s"
