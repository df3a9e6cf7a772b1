"""What a build, a test and a look cost in a repository of 1, 10 and 50 services, beside a plain loop of `docker build`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.env import parse
from tasks.terminal import say
from tasks.tests.slow.clones import Clone

from . import row, timed

REPOSITORIES = (1, 10, 50)
MODEL = "s0"
NAIVE = "bench-scale"  # the first part of the names of images that are built without a tool
NAIVE_RUNS = 3


class Repository:
    """A copy of the project with generated services, s0, s1, ..., in place of its own."""

    def __init__(self, root: Path, number: int) -> None:
        """Make one service, copy it, lock, and commit."""
        self.here = Clone.copy_of_this(root)
        self.services = [f"s{index}" for index in range(number)]
        self.here.replace_services(MODEL)
        group = re.compile(rf"^{MODEL} = \[\n.*?^\]\n", re.MULTILINE | re.DOTALL)
        line = re.compile(rf".*/{MODEL}/compose\.yaml\n")
        for path, pattern in (("pyproject.toml", group), ("docker/compose.yaml", line)):
            text = (root / path).read_text(encoding="utf-8")
            (root / path).write_text(pattern.sub(lambda found: self.repeated(found[0]), text), encoding="utf-8")
        files = [path for path in (root / "services" / MODEL).rglob("*") if path.is_file()]
        for index, service in enumerate(self.services[1:], 1):
            for file in files:
                copy = root / str(file.relative_to(root)).replace(MODEL, service)
                copy.parent.mkdir(parents=True, exist_ok=True)
                text = file.read_text(encoding="utf-8").replace(MODEL, service).replace(MODEL.upper(), service.upper())
                copy.write_text(re.sub(r"(?<=_PORT:-)\d+", lambda port: str(int(port[0]) + index), text))  # noqa: B023
        self.here.nox("-s", "lock")
        self.here.commit("Copy the service")

    def repeated(self, text: str) -> str:
        """A text, once for each service."""
        return "".join(text.replace(MODEL, service) for service in self.services)

    def change(self) -> None:
        """Change the source of one service."""
        with (self.here.root / f"services/{MODEL}/{MODEL}/__init__.py").open("a", encoding="utf-8") as file:
            file.write(f"# {time.time_ns()}\n")

    def build_one(self) -> None:
        """Build after a change to one service."""
        self.change()
        self.here.nox("-s", "build", "--", "--since", "HEAD")

    def test_one(self) -> None:
        """Test after a change to one service."""
        self.change()
        self.here.nox("-s", "test", "--", MODEL)

    def naive(self) -> None:
        """Build all production images as people do without a tool: one `docker build` after the other."""
        facts = parse((self.here.root / ".env").read_text(encoding="utf-8"))
        secret = [f"--secret=id=ca,src={facts['STACK_CA']}"] if facts["STACK_CA"] else []
        for service in self.services:
            arguments = [f"--build-arg=SERVICE={service}", f"--build-arg=STACK_BASE={facts['STACK_BASE']}", *secret]
            tag = f"--tag={NAIVE}/{service}"
            self.here.docker("build", "-q", "-f", "docker/Dockerfile", "--target=prod", *arguments, tag, ".")

    def clean(self) -> None:
        """Remove everything of it from the engine."""
        self.here.nox("-s", "clean")
        form = "{{.Repository}}:{{.Tag}}"
        left = self.here.docker("image", "ls", f"--filter=reference={NAIVE}/*", "--format", form).split()
        if left:
            self.here.docker("image", "rm", "--force", *left)


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Build, test and list in repositories of several sizes; seconds. ``folder`` is temporary.

    The reference of a no-op build is the loop of `docker build`; of everything else, the same in a repository of one.
    """
    rows: list[dict[str, Any]] = []
    alone: dict[str, list[float]] = {}
    for number in REPOSITORIES:
        say(f"scale: a repository of {number} ...")
        repository = Repository(folder / str(number), number)
        try:
            rows += of_one(repository, alone, runs)
        finally:
            repository.clean()
    return {"bench": "scale", "rows": rows}


def of_one(repository: Repository, alone: dict[str, list[float]], runs: int) -> list[dict[str, Any]]:
    """The rows of one repository; ``alone`` has the times in a repository of one, once these are known."""
    number, here = len(repository.services), repository.here
    found = {"first build": timed(lambda: here.nox("-s", "build"), 1)}
    noop = timed(lambda: here.nox("-s", "build"), runs)
    repository.naive()
    loop = timed(repository.naive, max(1, min(runs, NAIVE_RUNS)))
    here.nox("-s", "test", "--", MODEL)
    cases: dict[str, Callable[[], object]] = {
        "nox -l": lambda: here.nox("-l"),
        "setup": lambda: here.nox("-s", "setup"),
        "build after one changed": repository.build_one,
        "test after one changed": repository.test_one,
    }
    found |= {case: timed(do, runs) for case, do in cases.items()}
    for case, times in found.items():
        alone.setdefault(case, times)
    rows = [row(f"{number}: {case}", times, "s", f"1: {case}", alone[case]) for case, times in found.items()]
    return [*rows, row(f"{number}: no-op build", noop, "s", f"{number}: loop of docker build", loop)]
