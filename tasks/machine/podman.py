"""Podman in the engine's place. Its service understands Docker's client, but for builds, which need Podman's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..env import env
from ..shell import UserError, lines, output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SYSTEMD = Path("/run/systemd/system")  # is there where systemd runs


def chosen() -> bool:
    """Whether `setup` has found Podman's service where Docker's client looks for the engine."""
    return env().get("STACK_ENGINE") == "podman"


def build(targets: Mapping[str, Mapping[str, Any]], on_line: Callable[[str], None]) -> int:
    """Build bake's targets, one after the other, up to the first that fails; return the last one's exit code."""
    url = output("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
    for target in targets.values():
        if code := lines(*command(url, target), on_line=on_line):
            return code
    return 0


def command(url: str, target: Mapping[str, Any]) -> list[str]:
    """What builds one of bake's targets on the Podman at ``url``."""
    options = {
        "target": [target["target"]] if target["target"] else [],
        "build-arg": [f"{name}={value}" for name, value in target["args"].items()],
        "label": [f"{name}={value}" for name, value in target["labels"].items()],
        "tag": target["tags"],
        "secret": target["secret"],
    }
    return [
        # Its own format for images has no health checks, and its cache of layers takes one service's for another's.
        *("podman", f"--url={url}", "build", "--format=docker", "--layers=false"),
        f"--file={Path(target['context']) / target['dockerfile']}",
        *(f"--{option}={value}" for option, values in options.items() for value in values),
        target["context"],
    ]


def need_health_checks() -> None:
    """Raise UserError where containers would be waited for in vain: Podman leaves their health checks to systemd."""
    if chosen() and sys.platform == "linux" and not SYSTEMD.is_dir():
        raise UserError("Podman needs systemd for health checks, and this machine runs none: take Docker for `dev`")
