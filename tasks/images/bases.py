"""Base images: pulled from their registry, or built by the distribution's recipes where no registry answers."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from functools import partial

from ..env import chosen_by_user, official_base
from ..machine import engine, setup
from ..project import compose_texts
from ..shell import UserError, ask, output, run_parallel
from ..terminal import Status, say

# How long a registry may take for its first line.
REGISTRY_TIMEOUT_S = 10


def ensure() -> dict[str, str]:
    """Make sure of all base images and return, by variable, what they are: official images, or ours in their place.

    Raises UserError where an image can be neither pulled nor built.
    """
    wanted = {"STACK_BASE": ("python", official_base())} | needed()
    chosen = {variable: image for variable in wanted if (image := chosen_by_user().get(variable))}
    here = setup.distribution()
    found, missing = dict[str, str](), dict[str, tuple[str, str]]()
    substitutes = {variable: here.substitute(*image) if here else "" for variable, image in wanted.items()}
    recipes = recipes_of([*(official for _, official in wanted.values()), *filter(None, substitutes.values())])
    for variable, (recipe, official) in wanted.items():
        substitute = substitutes[variable]
        if variable in chosen or "@" in official:
            found[variable] = chosen.get(variable, official)  # the build pulls it, or says that it cannot
        elif official in recipes:
            found[variable] = pinned(official)
        elif here and substitute in recipes and recipes[substitute] == here.recipe_id(recipe):
            found[variable] = substitute
        else:
            missing[variable] = recipe, official
    reasons = run_parallel({variable: partial(pull, official) for variable, (_, official) in missing.items()})
    found |= {variable: pinned(missing[variable][1]) for variable, reason in reasons.items() if not reason}
    lost = {variable: missing[variable] for variable, reason in reasons.items() if reason}
    return found | (build(lost, next(filter(None, reasons.values()))) if lost else {})


def build(lost: Mapping[str, tuple[str, str]], reason: str) -> dict[str, str]:
    """Build substitutes for official images that could not be pulled for a ``reason``; variable -> image."""
    here = setup.distribution()
    images = {variable: here.substitute(*image) if here else "" for variable, image in lost.items()}
    if not here or not all(images.values()):
        unknown = {f"{variable}=...": lost[variable][1] for variable, image in images.items() if not image}
        told = f"no image registry answers ({reason}): check the network, or set {' and '.join(unknown)} in .env"
        raise UserError(f"{told} (docker/bases makes no {', '.join(unknown.values())} here)")
    say(f"setup: no image registry answers ({reason})")
    if packages := here.base_packages():
        setup.allow(f"install {', '.join(packages)}", f"sudo apt-get install {' '.join(packages)}", *packages)
        here.install(*packages)
    run_parallel({variable: partial(here.build_base, lost[variable][0], image) for variable, image in images.items()})
    return images


def needed() -> dict[str, tuple[str, str]]:
    """The official images that services run as they are: variable -> (recipe, image).

    services/*/compose.yaml has them as ``image: ${STACK_POSTGRES:-postgres:17}``, for which the recipe is postgres.
    """
    found = re.findall(r"(?m)^ +image: \$\{(STACK_\w+):-([^}$]+)\}$", compose_texts())
    return {variable: (variable.removeprefix("STACK_").lower(), official) for variable, official in found}


def pinned(image: str) -> str:
    """An image's name with its digest, so that all builds on this machine use the very same one."""
    form = "{{if .RepoDigests}}{{index .RepoDigests 0}}{{end}}"
    digest = output("docker", "image", "inspect", "--format", form, image).strip().rpartition("@")[2]
    return f"{image}@{digest}" if digest else image


def recipes_of(images: list[str]) -> dict[str, str]:
    """Those of the images that are on this engine, and the id of the recipe that made each; "" for an official one."""
    form = f'{{{{join .RepoTags " "}}}}\t{{{{index .Config.Labels "{setup.RECIPE_LABEL}"}}}}'
    # It fails when one is missing, and tells of the others all the same.
    listed, _ = ask("docker", "image", "inspect", "--format", form, *images).communicate()
    recipes: dict[str, str] = {}
    for line in listed.splitlines():
        tags, _, recipe = line.partition("\t")
        names = {name for tag in tags.split() for name in (tag, engine.current().plain_name(tag))}
        recipes |= dict.fromkeys(names.intersection(images), recipe)
    return recipes


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
