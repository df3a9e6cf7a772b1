"""Clones of this project in temporary folders, in which tests and benches run sessions as a user does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from ...env import env
from ...images import bases
from ...ownership import SESSION
from ...project import ROOT, service_names

# The user's: this module is loaded before a fixture changes the PATH, and a clone's sessions are not this session's.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in {SESSION, "PYTHONDONTWRITEBYTECODE"}}
TIMEOUT_S = 600
LIMIT_S = 30  # for an answer over HTTP


class Clone:
    """A clone in the folder ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def copy_of_this(cls, root: Path, *, without: Sequence[str] = ()) -> Clone:
        """Copy this checkout, uncommitted changes included, without some folders, and commit it to a repository of its own."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in listed.split("\0"):
            if name and not name.startswith(tuple(without)) and (ROOT / name).exists():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / name)
        made = cls(root)
        made.write_env()
        made.git("init", "--quiet", "--initial-branch=main")
        made.commit("Copy a checkout")
        return made

    def cloned_to(self, root: Path) -> Clone:
        """Make a git clone of this clone."""
        self.git("clone", "--quiet", str(self.root), str(root))
        made = Clone(root)
        made.write_env()
        return made

    def write_env(self) -> None:
        """Name the base images that this machine has already in .env; `setup` finds out everything else."""
        known = {name: env()[name] for name in ("STACK_BASE", *bases.needed()) if name in env()}
        (self.root / ".env").write_text("".join(f"{name}={image}\n" for name, image in known.items()))

    def replace_services(self, *names: str) -> None:
        """Remove all services of the copy and make others, by the sessions `remove` and `new`; commit."""
        left = service_names()
        while left:  # one that others need can be removed after them
            texts = {service: self.run("remove", service) for service in left}
            refused = [service for service, (code, _) in texts.items() if code]
            assert len(refused) < len(left), "\n".join(texts[service][1] for service in refused)
            left = refused
        for name in names:
            self.nox("-s", "new", "--", name)
        self.commit("Replace the services")

    def git(self, *args: str, ok: Sequence[int] = (0,)) -> str:
        """What git prints; fails on an exit code that is not ``ok``."""
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
        return self.output("git", *identity, *args, ok=ok)

    def commit(self, message: str) -> None:
        """Commit all changes."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)

    def output(
        self, *command: str, ok: Sequence[int] = (0,), stdin: str = "", settings: Mapping[str, str] | None = None
    ) -> str:
        """Run a command in the clone and return its standard output; fails on an exit code that is not ``ok``."""
        environment = {**ENVIRONMENT, **(settings or {})}
        done = subprocess.run(
            command, cwd=self.root, env=environment, input=stdin, capture_output=True, text=True, check=False
        )
        assert done.returncode in ok, done.stdout + done.stderr
        return done.stdout

    def docker(self, *args: str) -> str:
        """Run Docker's client in the clone and return its output."""
        return self.output("docker", *args)

    def compose(self, *args: str, **settings: str) -> str:
        """Run plain `docker compose` in the clone and return its output."""
        return self.output("docker", "compose", *args, settings=settings)

    def python(self, *args: str) -> str:
        """Run Python in the clone and return its output."""
        return self.output(sys.executable, *args)

    def start(self, *args: str, **settings: str) -> subprocess.Popen[str]:
        """Start nox in the clone: ``start("-s", "dev")``."""
        return subprocess.Popen(
            [sys.executable, "-m", "nox", *args],
            cwd=self.root,
            env=ENVIRONMENT | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # as a shell does
        )

    def run(self, session: str, *args: str, **settings: str) -> tuple[int, str]:
        """Run a session in the clone with arguments; its exit code and what it printed."""
        with self.start("-s", session, "--", *args, **settings) as process:
            text, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, text

    def nox(self, *args: str, code: int = 0, **settings: str) -> str:
        """Run nox in the clone and return what it printed; fails on another exit code than ``code``."""
        with self.start(*args, **settings) as process:
            text, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == code, text
        return text

    @cached_property
    def name(self) -> str:
        """The clone's name on the engine."""
        return self.python("-c", "from tasks.project import clone_id; print(clone_id())").strip()

    def left(self, *kinds: str) -> list[str]:
        """The ids of what the engine has of this clone: of some kinds, or of all."""
        found = []
        for kind in kinds or ("container", "network", "volume", "image"):
            every = ["--all"] if kind in {"container", "image"} else []
            labels = (f"label=stack.clone={self.name}", f"label=com.docker.compose.project={self.name}")
            filters = [f"reference={self.name}/*"] if kind == "image" else [*labels, f"name=^{self.name}"]
            for wanted in filters:
                found += self.docker(kind, "ls", *every, "--quiet", "--filter", wanted).split()
        return found

    def containers(self) -> list[dict[str, str]]:
        """The containers of the stack, as plain Compose shows them."""
        return [json.loads(line) for line in self.compose("ps", "--all", "--format", "json").splitlines()]


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text in a file; fails where the file does not have it."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new))


def url_of(text: str, service: str = "pilot") -> str:
    """The URL that a session printed for a service."""
    found = re.search(rf"^{service}  (http://\S+)$", text, re.MULTILINE)
    assert found, text
    return found[1]


def answer(url: str, *, expect: str = "", timeout_s: float = LIMIT_S) -> str:
    """What a URL answers, as soon as the answer contains ``expect``."""
    until = time.monotonic() + timeout_s
    while True:
        text = failure = ""
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 (our own URL)
                text = str(response.read().decode())
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        except OSError as error:
            failure = repr(error)
        if text and expect in text:
            return text
        assert time.monotonic() < until, f"{url} does not answer {expect!r} but {text or failure!r}"
        time.sleep(0.05)
