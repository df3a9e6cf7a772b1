"""One image to build, from the definition that Compose has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from ..env import env
from ..machine import engine
from ..project import SERVICES
from ..stack.model import Stack
from ..terminal import say

NEED_NEIGHBOURS = "TESTS_NEED_NEIGHBOURS"  # among a service's build arguments
SECRETS = "/run/secrets/"  # which no build has


@dataclass(frozen=True)
class Target:
    """One image to build, with the fields of a bake target."""

    context: str
    dockerfile: str
    target: str
    args: Mapping[str, str]
    labels: Mapping[str, str]
    tags: Sequence[str]  # the first one is the image's name in this clone
    secret: Sequence[str]
    output: Sequence[str] = field(default=("type=docker",))
    platforms: Sequence[str] = ()

    def verification(self, stack: Stack) -> Target:
        """The build that runs the service's tests in its image's file system, and keeps nothing.

        Where there are none, or they need neighbours, it only imports the service's application, with a warning.
        """
        service = self.args["SERVICE"]
        given = (stack.service(service).get("environment") or {}).items()
        environment = {key: value for key, value in given if value is not None and not value.startswith(SECRETS)}
        verify_base = engine.current().verify_base(asdict(self))
        tested = has_tests(service) and NEED_NEIGHBOURS not in self.args
        if not tested:
            say(f"warning: a build can run no tests of services/{service}: only that what it runs is there is verified")
        return replace(
            self,
            target="verify" if tested else "verify-import",
            tags=(),
            output=("type=cacheonly",),
            args={**self.args, "FLAVOR": verify_base, "ENVIRONMENT": json.dumps(environment).replace("$$", "$")},
        )


def has_tests(service: str) -> bool:
    """Whether a service has tests that run in its container: in tests/, or inside its packages."""
    folder = SERVICES / service
    files = [path for name in ("test_*.py", "*_test.py", "tests.py") for path in folder.rglob(name)]
    return any(b"def test" in path.read_bytes() for path in files if path.relative_to(folder).parts[0] != "stack")


def target_of(stack: Stack, service: str) -> Target:
    """A service's build, from the one that Compose has."""
    spec = stack.service(service)
    build = spec["build"]
    secrets = {used["source"]: stack.model["secrets"][used["source"]] for used in build.get("secrets", ())}
    return Target(
        context=build["context"],
        dockerfile=build["dockerfile"],
        target=build["target"],
        # Compose's model has each dollar sign twice.
        args={name: value.replace("$$", "$") for name, value in build["args"].items() if value is not None},
        labels=build.get("labels", {}),
        tags=(spec["image"], *build.get("tags", ())),
        secret=[
            f"id={name},src={secret['file']}" if "file" in secret else f"id={name},env={secret['environment']}"
            for name, secret in secrets.items()
            if "file" in secret or env().get(secret["environment"])
        ],
        # Other than `docker compose up` and `docker pull`, bake does not look at this variable.
        platforms=(spec.get("platform") or env().get("DOCKER_DEFAULT_PLATFORM", "")).split(),
    )
