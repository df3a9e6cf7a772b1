"""Building images: `docker buildx bake` for many services at once, from the definitions that Compose has."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

from ..env import env
from ..images import uptodate
from ..machine import podman
from ..project import REPORTS, ROOT, name, service_names
from ..shell import ENGINE_GONE, UserError, lines, say
from ..stack import stack as compose

if TYPE_CHECKING:
    from collections.abc import Sequence

# The flavors that docker/build/slice cuts.
SLICED = ("prod", "tiny")

# BuildKit sometimes says one of these, up to its version 0.14, when it finds two builds at work on the same step; the next
# try finds that step done (moby/buildkit, issues on "inconsistent graph state").
BUILDKITS_OWN_FAULT = re.compile("inconsistent graph state|failed to get state for index")
TRIES = 5
# How many services are built at once: BuildKit starts every step that it can, and loses its way among hundreds.
LOT = 10

# What BuildKit says in many lines, and what it means in one.
HINTS = (
    (r"changed significantly since poetry\.lock", "poetry.lock is out of date against pyproject.toml: run `nox -s lock`"),
    (r"no space left on device", "no disk space is left for the build: `docker system df` shows what takes it"),
    (r"error reading from server: EOF|Cannot connect to the Docker daemon", ENGINE_GONE),
    (r"hash mismatch", "a package does not have the hash that poetry.lock states: do not trust it, or run `nox -s lock`"),
    (r"NotValidYet|invalid peer certificate: Expired|not yet valid|certificate has expired", "a certificate is not valid now: check this machine's clock"),
    (r"UnknownIssuer|CERTIFICATE_VERIFY_FAILED", "a certificate is not trusted: set STACK_CA in .env to the file with your CAs"),
    (r"dns error|Temporary failure in name resolution|Name or service not known|Could not resolve|Connection refused", "the package index cannot be reached: check the network, or set PIP_INDEX_URL to a mirror"),
    (r"operation timed out|Read timed out|connect timeout", "the package index does not answer: check the network, or set PIP_INDEX_URL to a mirror"),
    (r"not a trusted or secure host", "PIP_INDEX_URL must begin with https://"),
    (r"No host supplied|check_hostname requires server_hostname", "PIP_INDEX_URL must name its host; pip takes no bare address there"),
    (r"has no wheels with a matching|no wheel matches", "a dependency has no wheel for this platform: choose another version of it"),
)  # fmt: skip


def build(services: Sequence[str], flavor: str = "dev") -> list[str]:
    """Build a flavor of the services' images, where they are not up to date, and return the images' names.

    The sliced flavors are proven with them: each service's own tests run in its image's file system, and must pass.
    The full log is in reports/logs; only the steps that really run are shown. Raises UserError, in one line, when it fails.
    """
    defined = compose.model(compose.flavored(flavor))
    targets = {service: target(defined, service) for service in services}
    here = uptodate.present()
    inputs = uptodate.fingerprints(targets, flavor, here)
    stale = uptodate.stale(targets, inputs, here)
    for first in range(0, len(stale), LOT):
        lot = {service: targets[service] for service in stale[first : first + LOT]}
        say(f"$ {'podman build' if podman.chosen() else 'docker buildx bake'} {' '.join(lot)}  # {flavor}")
        proofs = {f"{service}-proof": proof(lot[service], flavor) for service in lot if flavor in SLICED}
        bake(lot | proofs, flavor)
        uptodate.record(lot, inputs)
    if current := sorted(targets.keys() - set(stale)):
        say(f"up to date: {', '.join(current)} ({flavor})")
    return [target["tags"][-1] for target in targets.values()]


def proof(image: dict[str, Any], flavor: str) -> dict[str, Any]:
    """The build that runs a service's tests on top of its image, and keeps nothing."""
    return image | {
        "target": "proof",
        "tags": [],
        "output": ["type=cacheonly"],
        # Podman has no stage `prod` in its cache, but the image.
        "args": image["args"] | {"FLAVOR": image["tags"][0] if podman.chosen() else flavor},
    }


def references() -> list[str]:
    """Build what the images are measured against, on the same base, and return the names.

    They are that base alone, the first service in the usual way (multi-stage, on the base: the flavor `slim`), and what
    template/references has.
    """
    slim = target(compose.model(compose.flavored("slim")), service_names()[0])
    targets = {"slim": slim | {"tags": [f"{name()}/reference:slim"]}}
    for recipe in sorted((ROOT / "template" / "references").glob("*.Dockerfile")):
        own = {"dockerfile": str(recipe), "target": "", "tags": [f"{name()}/reference:{recipe.stem}"]}
        targets[recipe.stem] = slim | own
    bake(targets, "references")
    return [env()["STACK_BASE"].partition("@")[0], *(target["tags"][0] for target in targets.values())]


def bake(targets: dict[str, dict[str, Any]], title: str) -> None:
    """Build bake targets in one go; raises UserError, in one line, when it fails."""
    plan = json.dumps({"group": {"default": {"targets": list(targets)}}, "target": targets})
    (REPORTS / "logs").mkdir(parents=True, exist_ok=True)
    log = REPORTS / "logs" / f"build-{title}.log"
    began = time.monotonic()
    for _ in range(TRIES):
        progress = Progress()
        if podman.chosen():
            code = podman.build(targets, progress)
        else:
            code = lines("docker", "buildx", "bake", "--file=-", "--progress=plain", on_line=progress, stdin=plan)
        if not code or not BUILDKITS_OWN_FAULT.search(progress.log[-1]):
            break
    log.write_text("\n".join(progress.log) + "\n", encoding="utf-8")
    if code:
        raise UserError(reason("\n".join(progress.log)) + f" (all of it: {log.relative_to(REPORTS.parent)})")
    say(f"built {', '.join(targets)} in {time.monotonic() - began:.1f} s")


def target(defined: dict[str, Any], service: str) -> dict[str, Any]:
    """A service's build as bake wants it, from the one that Compose has."""
    spec = defined["services"][service]
    build = spec["build"]
    secrets = [defined["secrets"][used["source"]] | {"id": used["source"]} for used in build.get("secrets", ())]
    return {
        "context": build["context"],
        "dockerfile": build["dockerfile"],
        "target": build["target"],
        "args": {name: value for name, value in build["args"].items() if value is not None},
        "labels": build["labels"],
        "tags": [spec["image"], *build.get("tags", ())],
        "output": ["type=docker"],
        "secret": [
            f"id={secret['id']},src={secret['file']}"
            if "file" in secret
            else f"id={secret['id']},env={secret['environment']}"
            for secret in secrets
            if "file" in secret or os.environ.get(secret["environment"])
        ],
    }


class Progress:
    """Takes BuildKit's plain progress, or Podman's, line by line, keeps it, and shows the steps that are not cached."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.steps: dict[str, str] = {}

    def __call__(self, line: str) -> None:
        """Take a line."""
        self.log.append(line)
        if found := re.match(r"(\[\S+\]) STEP \S+ (RUN .*)", line):
            say(f"  {shorten(' '.join(found.groups()))}")  # Podman's; it has no cache
        if not (found := re.match(r"#(\d+) (.*)", line)):
            return
        number, text = found.groups()
        if re.match(r"\[[^]]+ \d+/\d+\] ", text):
            self.steps[number] = text
        elif text == "CACHED":
            self.steps.pop(number, None)
        elif number in self.steps and re.match(r"\d+\.\d+ ", text):
            # Its first output: this step really runs.
            say(f"  {shorten(self.steps.pop(number))}")


def shorten(step: str) -> str:
    """A step's name without its mounts, on one line of a terminal."""
    plain = re.sub(r"--mount=\S+\s*", "", step)
    return plain if len(plain) <= 110 else plain[:109] + "…"


def reason(log: str) -> str:
    """Why a build failed, in one line, from BuildKit's whole log."""
    if package := re.search(r"Failed to build `([^`]+)`", log):
        return f"{package[1]} has no wheel for this platform, and there is no compiler to build it with: choose another version of it"
    for pattern, meaning in HINTS:
        if re.search(pattern, log, re.IGNORECASE):
            return meaning
    step = re.search(r"^------\n > (\[.+?\]) .*?\n(.*?)^------$", log, re.MULTILINE | re.DOTALL)
    if step and step[2]:
        return f"the build failed in {step[1]}: {last_words(re.sub(r'^[0-9.]+ ', '', step[2], flags=re.MULTILINE))}"
    if podmans := re.search(r'^Error: building at STEP "RUN .*exit status', log, re.MULTILINE):
        return f"the build failed: {last_words(log[: podmans.start()])}"
    errors = re.findall(r"^(?:ERROR|Error|error): (.*)", log, re.MULTILINE)
    return f"the build failed: {(errors or log.splitlines() or ['BuildKit said nothing'])[-1].rpartition('did not complete successfully: ')[2]}"


def last_words(said: str) -> str:
    """The line that tells why a program failed: pytest sums up after its errors; most programs end with theirs."""
    telling = re.findall(r"^(?:FAILED|ERROR:?|error:|E  ) .*", said, re.MULTILINE)
    return str((telling or said.strip().splitlines() or ["it said nothing"])[-1]).strip()
