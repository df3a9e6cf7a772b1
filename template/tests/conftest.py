"""Sessions exercised for real: in temporary clones, against the real engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tasks import ownership
from template.copying import copy_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Clone:
    """A clone of this project as it is now, changes that are not committed included."""

    def __init__(self, root: Path) -> None:
        self.root = root
        copy_project(root)
        self.git("init", "-q", "-b", "main")
        self.commit("first")

    def git(self, *args: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
        done = subprocess.run(["git", *identity, *args], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "-q", "-m", message)

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Start nox in the clone: ``start("-s", "dev")``."""
        command = [sys.executable, "-m", "nox", *args]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command,
            cwd=self.root,
            env={name: value for name, value in os.environ.items() if name != ownership.OWNER} | env,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # as a shell does
        )

    def nox(self, *args: str, code: int = 0, **env: str) -> str:
        """Run nox in the clone and return all that it printed; fails the test on another exit code than ``code``."""
        with self.start(*args, **env) as process:
            text, _ = process.communicate(timeout=600)
        assert process.returncode == code, text
        return text

    def docker(self, *args: str) -> str:
        done = subprocess.run(["docker", *args], cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def name(self) -> str:
        """The clone's name on the engine."""
        line = next(line for line in (self.root / ".env").read_text().splitlines() if line.startswith("STACK_CLONE="))
        return line.partition("=")[2]

    def left(self, *kinds: str) -> list[str]:
        """What is on the engine of this clone: of ``kinds``, or of everything."""
        found = []
        for kind in kinds or ("container", "network", "volume", "image"):
            every = ["--all"] if kind in {"container", "image"} else []
            filters = [f"label=stack.clone={self.name}", f"label=com.docker.compose.project={self.name}"]
            filters += [] if kind == "image" else [f"name=^{self.name}"]
            for wanted in filters:
                found += self.docker(kind, "ls", *every, "--quiet", "--filter", wanted).split()
        return found


def answer(url: str, *, expect: str = "", patience: float = 30) -> str:
    """What a URL answers, as soon as the answer contains ``expect``."""
    until = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 (our own URL)
                text = str(response.read().decode())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        except OSError as error:
            text, failure = "", repr(error)
        if text and expect in text:
            return text
        assert time.monotonic() < until, f"{url} does not answer {expect!r} but {text or failure!r}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def make_clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Clone]]:
    """Makes clones, in folders of the names that are asked for; they take all that is theirs with them."""
    made = []

    def make(folder: str) -> Clone:
        made.append(Clone(tmp_path_factory.mktemp("clones") / folder))
        return made[-1]

    yield make
    for clone in made:
        if (clone.root / "noxfile.py").exists():
            clone.nox("-s", "clean")
            assert clone.left() == []


@pytest.fixture(scope="module")
def clone(make_clone: Callable[[str], Clone]) -> Clone:
    return make_clone("a clöne of ours")


def url_of(text: str, service: str = "echo") -> str:
    """The URL that a session printed for a service."""
    lines = [line.split() for line in text.splitlines()]
    return next(line[1] for line in lines if line[:1] == [service] and len(line) == 2 and line[1].startswith("http"))


def compose_containers(clone: Clone) -> list[dict[str, str]]:
    return [json.loads(line) for line in clone.docker("compose", "ps", "--all", "--format", "json").splitlines()]
