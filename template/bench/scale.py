"""What a build, a test and a look cost in a repository of 1, 10 and 50 services, beside a plain loop of `docker build`."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from tasks.project import ROOT, env
from tasks.run import Problem, output, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPOSITORIES = (1, 10, 50)
MODEL = "s0"


class Repository:
    """A clone that has nothing but generated services, s0, s1, ..."""

    def __init__(self, root: Path, number: int) -> None:
        """Make it, lock it, and commit it."""
        self.root = root
        self.services = [f"s{index}" for index in range(number)]
        for name in output("git", "-C", str(ROOT), "ls-files", "-z").split("\0"):
            if name and not name.startswith(("services/", "template/")):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / name)
        (root / "services").mkdir()
        (root / ".env").write_text(f"SLIPWAY_BASE={env()['SLIPWAY_BASE']}\n", encoding="utf-8")
        self.forget("echo", "journal")
        make = "from tasks import scaffold; import sys; [scaffold.new(name) for name in sys.argv[1:]]"
        self.run(sys.executable, "-c", make, *self.services)
        self.nox("-s", "lock")
        self.run("git", "init", "-q")
        self.run("git", "add", "--all")
        self.run(
            "git", "-c", "user.name=bench", "-c", "user.email=bench@example.invalid", "commit", "-q", "-m", "bench"
        )

    def forget(self, *services: str) -> None:
        """Take the services that are not here out of pyproject.toml and the stack."""
        take_out = "from tasks import scaffold; import sys; [scaffold.unlist(name) for name in sys.argv[1:]]"
        self.run(sys.executable, "-c", take_out, *services)

    def run(self, *command: str) -> None:
        """Run a command here; raises Problem, with its last words, when it fails."""
        done = subprocess.run(command, cwd=self.root, env=os.environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Problem(f"{' '.join(command[:6])} failed in the bench: {(done.stdout + done.stderr).strip()[-300:]}")

    def nox(self, *words: str) -> None:
        """Run a session here."""
        self.run(sys.executable, "-m", "nox", *words)

    def change(self) -> None:
        """Change the source of one service."""
        with (self.root / f"services/{MODEL}/{MODEL}/__init__.py").open("a", encoding="utf-8") as file:
            file.write(f"# {time.time_ns()}\n")

    def build_one(self) -> None:
        """Build after a change to one service."""
        self.change()
        self.nox("-s", "build", "--", "--since", "HEAD")

    def test_one(self) -> None:
        """Test after a change to one service."""
        self.change()
        self.nox("-s", "test", "--", MODEL)

    def naive(self) -> None:
        """Build all production images as people do without a tool: one `docker build` after the other."""
        for service in self.services:
            arguments = [f"--build-arg=SERVICE={service}", f"--build-arg=SLIPWAY_BASE={env()['SLIPWAY_BASE']}"]
            secret = [f"--secret=id=ca,src={env()['SLIPWAY_CA']}"] if env().get("SLIPWAY_CA") else []
            tag = ["--label=slipway.clone=bench-scale", f"--tag=slipway-bench/{service}"]
            self.run(
                "docker", "build", "-q", "-f", "docker/Dockerfile", "--target=prod", *arguments, *secret, *tag, "."
            )


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Build, test and list in repositories of several sizes; seconds. ``folder`` is temporary.

    The reference of a no-op build is the loop of `docker build`; of all else, the same in a repository of one.
    """
    rows: list[dict[str, Any]] = []
    for number in REPOSITORIES:
        say(f"scale: a repository of {number} ...")
        here = Repository(folder / str(number), number)
        try:
            rows += of_one(here, rows, runs)
        finally:
            here.nox("-s", "clean")
            left = output("docker", "image", "ls", "--quiet", "--filter", "label=slipway.clone=bench-scale").split()
            if left:
                output("docker", "image", "rm", "--force", *sorted(set(left)))
    return {"bench": "scale", "rows": rows}


def of_one(here: Repository, before: list[dict[str, Any]], runs: int) -> list[dict[str, Any]]:
    """The rows of one repository."""
    number = len(here.services)
    first = timed(lambda: here.nox("-s", "build"), 1)
    noop = timed(lambda: here.nox("-s", "build"), runs)
    here.naive()
    loop = timed(here.naive, max(1, min(runs, 3)))
    cases: dict[str, Callable[[], None]] = {
        "nox -l": lambda: here.nox("-l"),
        "setup": lambda: here.nox("-s", "setup"),
        "build after one changed": here.build_one,
        "test after one changed": here.test_one,
    }
    here.nox("-s", "test", "--", MODEL)
    found = {"first build": first} | {case: timed(do, runs) for case, do in cases.items()}
    rows = []
    for case, times in found.items():
        alone = next((row["median"] for row in before if row["case"] == f"1: {case}"), statistics.median(times))
        rows.append(row(f"{number}: {case}", times, f"1: {case}", alone))
    rows.append(row(f"{number}: no-op build", noop, f"{number}: loop of docker build", statistics.median(loop)))
    return rows


def timed(do: Callable[[], None], runs: int) -> list[float]:
    """How long something takes, in seconds, each of some times."""
    times = []
    for _ in range(runs):
        began = time.monotonic()
        do()
        times.append(time.monotonic() - began)
    return times


def row(case: str, times: list[float], reference: str, against: float) -> dict[str, Any]:
    """A row of a bench's table."""
    middle = statistics.median(times)
    return {
        "case": case,
        "median": round(middle, 2),
        "max": round(max(times), 2),
        "unit": "s",
        "runs": len(times),
        "reference": f"{reference}: {against:.2f}",
        "ratio": round(middle / against, 2),
    }
