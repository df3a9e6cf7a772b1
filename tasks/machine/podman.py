"""Podman in Docker's place, by Docker's client. Builds need Podman's own client. Optional: delete with its line in noxfile.py."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..env import env
from ..project import clone_id
from ..shell import UserError, lines, output
from .engine import ENGINES, Docker

SYSTEMD = Path("/run/systemd/system")  # exists where systemd runs


class Podman(Docker):
    """Podman's service, which answers Docker's client."""

    name = "podman"
    title = "Podman"
    minimum: Mapping[str, tuple[int, ...]] = {"engine": (5, 0), "compose": (2, 24, 4)}
    builder = "podman build"

    def answers(self, components: list[str]) -> bool:
        """Whether an engine with these components (of ``docker version``) is this one."""
        return any("Podman" in component for component in components)

    def build(self, targets: Mapping[str, Mapping[str, Any]], on_line: Callable[[str], None]) -> int:
        """Build targets one after the other, up to the first that fails; return the last exit code."""
        url = output("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
        for target in targets.values():
            tags = target["tags"] or [f"{clone_id()}/verified"]
            if code := lines(*self.command(url, {**target, "tags": tags}), on_line=on_line, env=env()):
                return code
            if not target["tags"]:  # a verification, which Podman keeps as an image
                output("podman", f"--url={url}", "rmi", *tags)
        return 0

    def command(self, url: str, target: Mapping[str, Any]) -> list[str]:
        """The command that builds one target on the Podman at ``url``."""
        options = {
            "target": [target["target"]] if target["target"] else [],
            "build-arg": [f"{name}={value}" for name, value in target["args"].items()],
            "label": [f"{name}={value}" for name, value in target["labels"].items()],
            "tag": target["tags"],
            "secret": target["secret"],
        }
        return [
            # Its own image format has no health checks, and its layer cache mixes services up.
            *("podman", f"--url={url}", "build", "--format=docker", "--layers=false"),
            f"--file={Path(target['context']) / target['dockerfile']}",
            *(f"--{option}={value}" for option, values in options.items() for value in values),
            target["context"],
        ]

    def verify_base(self, target: Mapping[str, Any]) -> str:
        """The image itself: without a layer cache, there is no stage to start from."""
        return str(target["tags"][0])

    def plain_name(self, image: str) -> str:
        """An image's name without the registry that Podman puts in front."""
        return re.sub(r"^(localhost|docker\.io/library)/", "", image)

    def check_health_checks(self) -> None:
        """Raise UserError where containers would be waited for in vain: systemd runs Podman's health checks."""
        if sys.platform == "linux" and not SYSTEMD.is_dir():
            raise UserError("Podman needs systemd for health checks, and this machine runs none: take Docker for `dev`")

    def check_stack_tests(self) -> None:
        """Raise UserError: a fifth of these tests ask for what Podman tells or does differently."""
        raise UserError("tests of the production stack need Docker: name services (nox -s test -- SERVICE) instead")


ENGINES["podman"] = Podman()
