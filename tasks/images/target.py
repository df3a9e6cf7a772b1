"""One image to build, from the definition that Compose has."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from ..machine import engine
from ..project import SERVICES
from ..terminal import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..stack.model import Stack


@dataclass(frozen=True)
class Target:
    """One image to build, with the fields of a bake target."""

    context: str
    dockerfile: str
    target: str
    args: Mapping[str, str]
    labels: Mapping[str, str]
    tags: Sequence[str]
    secret: Sequence[str]
    output: Sequence[str] = field(default=("type=docker",))

    @property
    def image(self) -> str:
        """The image's name in this clone."""
        return self.tags[0]

    def verification(self, stack: Stack) -> Target:
        """The build that runs the service's tests in its image's file system, and keeps nothing.

        Without tests, it only imports the service's application, with a warning.
        """
        service = self.args["SERVICE"]
        tested = has_tests(service)
        args = {**self.args, "FLAVOR": engine.current().verify_base(asdict(self), stack.flavor)}
        if not tested:
            say(f"warning: services/{service} has no tests: nothing is verified but that what it runs is there")
            environment = stack.model["services"][service].get("environment") or {}
            args["ENVIRONMENT"] = json.dumps({name: value for name, value in environment.items() if value is not None})
        return replace(
            self, target="verify" if tested else "verify-import", tags=(), output=("type=cacheonly",), args=args
        )


def has_tests(service: str) -> bool:
    """Whether a service has tests that run in its container: in tests/, or inside its packages."""
    folder = SERVICES / service
    files = [path for name in ("test_*.py", "*_test.py", "tests.py") for path in folder.rglob(name)]
    return any(b"def test" in path.read_bytes() for path in files if path.relative_to(folder).parts[0] != "stack")


def target_of(stack: Stack, service: str) -> Target:
    """A service's build, from the one that Compose has."""
    spec = stack.model["services"][service]
    build = spec["build"]
    secrets = {used["source"]: stack.model["secrets"][used["source"]] for used in build.get("secrets", ())}
    return Target(
        context=build["context"],
        dockerfile=build["dockerfile"],
        target=build["target"],
        args={name: value for name, value in build["args"].items() if value is not None},
        labels=build.get("labels", {}),
        tags=(spec["image"], *build.get("tags", ())),
        secret=[
            f"id={name},src={secret['file']}" if "file" in secret else f"id={name},env={secret['environment']}"
            for name, secret in secrets.items()
            if "file" in secret or os.environ.get(secret["environment"])
        ],
    )
