"""Building images: `docker buildx bake` for many services at once, from the definitions that Compose has."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..machine import engine
from ..project import REPORTS
from ..shell import UserError
from ..stack.model import development, production
from ..terminal import Status, masked, say
from . import uptodate
from .buildlog import Progress, reason
from .target import Target, target_of

# BuildKit up to 0.14 sometimes fails with one of the first two when two builds run the same step; the next try finds that
# step done (moby/buildkit, issues on "inconsistent graph state"). With containerd's image store, it sometimes fails with
# the last when it unpacks two images that share layers (issue 6521).
BUILDKIT_FAULT = re.compile("inconsistent graph state|failed to get state for index|parent snapshot .* does not exist")
PAUSES_S = (0, 1, 2, 5, 10)  # before each try
# How many services are built at once: with hundreds of steps at a time, BuildKit fails.
BATCH = 10


def build(services: Sequence[str], flavor: str = "dev") -> list[str]:
    """Build a flavor of the services' images, where they are not up to date, and return the images' names.

    A production image is verified: its service's own tests run in its file system, and must pass. The full log is in
    reports/logs. Raises UserError, in one line, when a build fails.
    """
    stack = development() if flavor == "dev" else production(flavor)
    targets = {service: target_of(stack, service) for service in services}
    present = uptodate.present()
    inputs = uptodate.fingerprints(targets, flavor, present)
    stale = uptodate.stale(targets, inputs, present)
    for first in range(0, len(stale), BATCH):
        batch = {service: targets[service] for service in stale[first : first + BATCH]}
        # No service's name has an underscore, as in pilot_verify.
        verified = {f"{service}_verify": batch[service].verification(stack) for service in batch if flavor != "dev"}
        try:
            bake(batch | verified, flavor)
        except BaseException:  # an image has its names before its verification has failed
            uptodate.restore(batch, present)
            raise
        uptodate.record(batch, inputs)
        uptodate.remove_replaced(batch, present)
    if (current := sorted(targets.keys() - set(stale))) or not targets:
        say(f"up to date: {', '.join(current) or 'everything'} ({flavor})")
    return [target.tags[:2][-1] for target in targets.values()]  # <project>/<service>:<flavor>


def bake(targets: Mapping[str, Target], title: str, options: Mapping[str, Any] | None = None) -> None:
    """Build targets, each with further options of bake's, in one go; raises UserError, in one line, when it fails."""
    builder = engine.current()
    log = REPORTS / "logs" / f"build-{title}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"$ {builder.builder} {' '.join(targets)}  # {title}")
    wanted = {name: {**asdict(target), **(options or {})} for name, target in targets.items()}
    with Status(f"{builder.builder} {' '.join(targets)}") as status:
        for pause_s in PAUSES_S:
            time.sleep(pause_s)
            progress = Progress(status)
            code = builder.build(wanted, progress)
            if not code or not progress.log or not BUILDKIT_FAULT.search(progress.log[-1]):
                break
    text = "\n".join(progress.log)
    log.write_text(masked(text) + "\n", encoding="utf-8")
    if code:
        raise UserError(f"{reason(text)} (all of it: {log.relative_to(REPORTS.parent)})")
    say(f"built {', '.join(targets)} in {status.seconds:.1f} s")
