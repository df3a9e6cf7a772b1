"""How long an edit takes until the first response with the new text: docker/dev/live.py beside other reloaders."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.images import bake
from tasks.ownership import labels
from tasks.project import ROOT
from tasks.shell import UserError, output
from tasks.terminal import say

from . import SERVICE, row

FLASK = ("flask", "run", "--host=0.0.0.0", "--port=8000")
# Each case's command, in the development image of the sample service. The first is ours, the second its reference.
CASES = {
    "live.py": (),
    "flask run --debug": (*FLASK, "--debug"),
    "watchfiles flask run": ("watchfiles", "--filter=python", shlex.join(FLASK)),
    "gunicorn --reload": ("gunicorn", "--reload", "--bind=0.0.0.0:8000", "--workers=1", "--threads=4", f"{SERVICE}:create_app()"),
}  # fmt: skip
TIMEOUT_S = 20.0  # after which an edit counts as lost
PAUSE_S = 0.3  # between a response and the next edit, which finds everything idle


@dataclass
class Case:
    """One reloader at work: its port, the file to edit, and what was seen; times in milliseconds."""

    name: str
    port: int
    file: Path
    times: list[float] = field(default_factory=list)
    requests: int = 0
    refused: int = 0

    def ask(self) -> str:
        """The answer to a request; "" for a connection that is refused or reset."""
        self.requests += 1
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException):
            self.refused += 1
            return ""
        finally:
            connection.close()

    def edit(self, number: int) -> None:
        """Change the text of the response, and measure from the write to the first response that has it."""
        old = self.file.read_text(encoding="utf-8")
        word = f"EDIT{number}: "
        new = re.sub(r'f"(METHOD|EDIT\d+): ', f'f"{word}', old)
        began = time.perf_counter()
        self.file.write_text(new, encoding="utf-8")
        while not self.ask().startswith(word):
            if time.perf_counter() - began > TIMEOUT_S:
                raise UserError(f"{self.name} has not shown edit {number} for {TIMEOUT_S:g} s")
            time.sleep(0.002)
        self.times.append((time.perf_counter() - began) * 1000)
        # The old process is on its way out now: requests go on coming.
        rest = time.perf_counter() + PAUSE_S
        while time.perf_counter() < rest:
            self.ask()
            time.sleep(0.01)


def measure(folder: Path, edits: int) -> dict[str, Any]:
    """Edit each case's copy of the service ``edits`` times, in turns, and return the report; ``folder`` takes the copies.

    The one that is edited gets requests all the while, one connection after the other.
    """
    (image,) = bake.build([SERVICE])
    with ExitStack() as stack:
        cases = [stack.enter_context(running(name, image, folder)) for name in CASES]
        for number in range(-2, edits):
            for case in cases:
                case.edit(number + 10)
                if number < 0:  # to warm up
                    case.times.clear()
            if number >= 0 and not (number + 1) % 10:
                say(f"{number + 1} edits of {edits}")
    return report(cases)


@contextmanager
def running(name: str, image: str, folder: Path) -> Iterator[Case]:
    """Run a case on a copy of the service's source, mounted as in development."""
    source = folder / name.split(maxsplit=1)[0]
    shutil.copytree(ROOT / "services" / SERVICE, source / SERVICE)
    container = output(
        *("docker", "run", "--detach", "--rm", "--init", *labels()),
        *("--user", f"{os.getuid()}:{os.getgid()}", "--publish", "127.0.0.1::8000"),
        *("--volume", f"{source}:/app/services", "--volume", f"{ROOT / 'libs'}:/app/libs:ro", image, *CASES[name]),
    ).strip()
    try:
        port = int(output("docker", "port", container, "8000/tcp").splitlines()[0].rpartition(":")[2])
        case = Case(name, port, source / SERVICE / SERVICE / "views.py")
        until = time.monotonic() + TIMEOUT_S
        while not case.ask().startswith("METHOD: "):
            if time.monotonic() > until:
                raise UserError(f"{name} does not answer; its log ends: {output('docker', 'logs', container)[-500:]}")
            time.sleep(0.1)
        case.requests = case.refused = 0
        yield case
    finally:
        output("docker", "rm", "--force", container)


def report(cases: list[Case]) -> dict[str, Any]:
    """The figures, each beside the reference: the median of Flask's own reloader."""
    reference = cases[1]
    rows = [
        row(c.name, c.times, "ms", reference.name, reference.times, requests=c.requests, refused=c.refused)
        for c in cases
    ]
    return {"bench": "reload", "rows": rows}
