"""What a build, a test and a look cost in a repository of 1, 10 and 50 services, beside a plain loop of `docker build`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from tasks.env import env
from tasks.project import service_names
from tasks.shell import output, say

from . import Copy, row

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REPOSITORIES = (1, 10, 50)
MODEL = "s0"


class Repository(Copy):
    """A copy that has nothing but generated services, s0, s1, ..."""

    def __init__(self, root: Path, number: int) -> None:
        """Make it, lock it, and commit it."""
        super().__init__(root, without=("services/", "template/"))
        self.services = [f"s{index}" for index in range(number)]
        (root / "services").mkdir()
        take_out = "from tasks import scaffold; import sys; [scaffold.unlist(name) for name in sys.argv[1:]]"
        self.run(sys.executable, "-c", take_out, *service_names())
        make = "from tasks import scaffold; import sys; [scaffold.new(name) for name in sys.argv[1:]]"
        self.run(sys.executable, "-c", make, *self.services)
        self.nox("-s", "lock")
        self.run("git", "init", "-q")
        self.run("git", "add", "--all")
        who = ("-c", "user.name=bench", "-c", "user.email=bench@example.invalid")
        self.run("git", *who, "commit", "-q", "-m", "bench")

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
            arguments = [f"--build-arg=SERVICE={service}", f"--build-arg=STACK_BASE={env()['STACK_BASE']}"]
            secret = [f"--secret=id=ca,src={env()['STACK_CA']}"] if env().get("STACK_CA") else []
            tag = ["--label=stack.clone=bench-scale", f"--tag=slipway-bench/{service}"]
            self.run(
                "docker", "build", "-q", "-f", "docker/Dockerfile", "--target=prod", *arguments, *secret, *tag, "."
            )


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Build, test and list in repositories of several sizes; seconds. ``folder`` is temporary.

    The reference of a no-op build is the loop of `docker build`; of all else, the same in a repository of one.
    """
    rows: list[dict[str, Any]] = []
    alone: dict[str, list[float]] = {}
    for number in REPOSITORIES:
        say(f"scale: a repository of {number} ...")
        here = Repository(folder / str(number), number)
        try:
            rows += of_one(here, alone, runs)
        finally:
            here.nox("-s", "clean")
            left = output("docker", "image", "ls", "--quiet", "--filter", "label=stack.clone=bench-scale").split()
            if left:
                output("docker", "image", "rm", "--force", *sorted(set(left)))
    return {"bench": "scale", "rows": rows}


def of_one(here: Repository, alone: dict[str, list[float]], runs: int) -> list[dict[str, Any]]:
    """The rows of one repository; ``alone`` has the times in a repository of one, once these are known."""
    number = len(here.services)
    found = {"first build": timed(lambda: here.nox("-s", "build"), 1)}
    noop = timed(lambda: here.nox("-s", "build"), runs)
    here.naive()
    loop = timed(here.naive, max(1, min(runs, 3)))
    here.nox("-s", "test", "--", MODEL)
    cases: dict[str, Callable[[], object]] = {
        "nox -l": lambda: here.nox("-l"),
        "setup": lambda: here.nox("-s", "setup"),
        "build after one changed": here.build_one,
        "test after one changed": here.test_one,
    }
    found |= {case: timed(do, runs) for case, do in cases.items()}
    for case, times in found.items():
        alone.setdefault(case, times)
    rows = [row(f"{number}: {case}", times, "s", f"1: {case}", alone[case]) for case, times in found.items()]
    return [*rows, row(f"{number}: no-op build", noop, "s", f"{number}: loop of docker build", loop)]


def timed(do: Callable[[], object], runs: int) -> list[float]:
    """How long something takes, in seconds, each of some times."""
    times = []
    for _ in range(runs):
        began = time.monotonic()
        do()
        times.append(time.monotonic() - began)
    return times
