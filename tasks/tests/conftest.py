from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from .. import env as dotenv
from .. import ownership
from ..project import ROOT
from ..stack import model

DOCKER = shutil.which("docker")
PYPROJECT = """
[project]
name = "ours"
[dependency-groups]
other = []
pilot = []
tests = []
"""


PATHS: list[tuple[ModuleType, str, Path]] = []  # modules' constants below ROOT


def pytest_configure(config: pytest.Config) -> None:
    """Have git without the user's settings, and temporary files in memory, if that is large and programs may run there."""
    os.environ |= {"GIT_CONFIG_GLOBAL": str(Path(__file__).with_name("git.config")), "GIT_CONFIG_NOSYSTEM": "1"}
    memory = Path("/dev/shm")  # noqa: S108
    fits = memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30
    if config.option.markexpr == "not slow" and fits and not os.statvfs(memory).f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_collection_finish() -> None:
    """Note, once, what `move_root` changes: all modules are imported now."""
    for name, module in list(sys.modules.items()):
        if name.startswith("tasks.") and not name.startswith("tasks.tests"):
            found = {attribute: value for attribute, value in vars(module).items() if isinstance(value, Path)}
            PATHS.extend((module, a, path.relative_to(ROOT)) for a, path in found.items() if path.is_relative_to(ROOT))


@pytest.fixture
def docker() -> str:
    """The real client, for the few tests that ask Compose how it reads a file; they need no engine."""
    return DOCKER or pytest.skip("this machine has no Docker client")


@pytest.fixture(autouse=True)
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder at the front of the PATH; its `docker` fails any test that would reach for the real one."""
    tools = tmp_path / "bin"
    tools.mkdir()
    fake_docker(tools, {})
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("DOCKER_DEFAULT_PLATFORM", raising=False)
    for name in ("DOCKER_HOST", "STACK_SETUP", "STACK_SESSION", "CI", "PIP_INDEX_URL", "SUDO_USER", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    if not request.node.get_closest_marker("slow"):  # which use the base images that setup has found
        monkeypatch.setattr(dotenv, "ENV", tmp_path / "no.env")  # what this clone's user has set is none of theirs
    monkeypatch.setenv("STACK_ENGINE", "docker")
    monkeypatch.setenv("GIT_TEMPLATE_DIR", "")  # hundreds of repositories need no samples of hooks
    monkeypatch.setattr(ownership, "REMOVALS", 3)  # what a fake client lists, it goes on to list
    model._config.cache_clear()
    return tools


@pytest.fixture(scope="session", autouse=True)
def read_authorities_once() -> Iterator[None]:
    """Have Python read once what this system trusts, which takes 20 ms, and not for every registry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for registry.test that is its own authority, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl here")
    made, key = folder / f"{name}.crt", folder / f"{name}.key"
    names = ("-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test")
    kind = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    subprocess.run([*kind, *names, "-out", str(made), "-keyout", str(key)], check=True, capture_output=True)
    return made, key


def write_tool(path: Path, script: str) -> None:
    """Make a program out of lines of shell."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def fake_docker(tools: Path, answers: Mapping[str, str]) -> None:
    """A client that runs lines of shell for commands that begin with certain words, and fails for all others."""
    cases = "\n".join(f"'{words}'*) {script or ':'}\n;;" for words, script in answers.items())
    unknown = 'echo "a unit test called docker $*" >&2; exit 99'
    write_tool(tools / "docker", f'echo "$*" >>"{tools}/calls"\ncase "$*" in\n{cases}\n*) {unknown} ;;\nesac')


def calls(tools: Path) -> list[str]:
    """The commands that the fake client was given, in order."""
    return (tools / "calls").read_text().splitlines() if (tools / "calls").exists() else []


def fake_engine(
    tools: Path,
    *,
    engine: str = "26.1.5",
    compose: str = "2.26.1-4",
    buildx: str = "0.13.1+ds1",
    security: str = "seccomp,profile=builtin",
    cpu: bool = True,
    kind: str = "Engine",
    context: str = "default",
    **answers: str,
) -> None:
    """A client whose engine and plugins have these versions; "" for a missing one; for the engine, its error.

    ``answers`` are further ones, as for `fake_docker`, with underscores for spaces.
    """
    server = json.dumps({"Version": engine, "Components": [{"Name": kind}]})
    version = f"echo '{server}'" if engine[:1].isdigit() else f"echo null; echo '{engine}' >&2; exit 1"
    plugins = [{"Name": name, "Version": it} for name, it in (("compose", compose), ("buildx", buildx)) if it]
    info = {"SecurityOptions": [f"name={security}"], "CpuCfsQuota": cpu, "ClientInfo": {"Plugins": plugins}}
    known = {
        "version --format": version,
        "info --format": f"echo '{json.dumps(info)}'",
        "context inspect --format": f"echo {context}",  # Docker 20.10 has no `context show`
    }
    fake_docker(tools, known | {words.replace("_", " "): script for words, script in answers.items()})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the services `pilot` and `other` in a temporary folder, which every module takes for its own."""
    root = tmp_path / "project"
    for service in ("other", "pilot"):
        (root / "services" / service / "tests").mkdir(parents=True)
        (root / "services" / service / "tests/test_it.py").write_text("def test_it() -> None: ...\n")
        (root / "services" / service / "compose.yaml").write_text(f"services:\n  {service}: {{}}\n")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "reports").mkdir()
    (root / "docker").mkdir()
    shutil.copy(ROOT / "docker/Dockerfile", root / "docker")  # which says what arguments there are
    move_root(root, monkeypatch)
    return root


def move_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every module of tasks/ take another folder for this project's."""
    for module, attribute, path in PATHS:
        monkeypatch.setattr(module, attribute, root / path)


@pytest.fixture
def clone(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of what git tracks here, or would, in a folder with spaces and letters beyond ASCII; fast tests need no tests."""
    slow = request.node.get_closest_marker("slow")
    target = tmp_path / "a clöne of ours"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        source = ROOT / name
        if source.exists() and (slow or "tests" not in source.parts):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())
    return target


@pytest.fixture
def nox(clone: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs nox in the clone, as a user would: ``nox("-s", "build", "--", "pilot")``."""

    def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nox", "--no-venv", *args]
        env = {**os.environ, "NO_COLOR": "1", **environment}
        return subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, check=False)

    return run


class FakeDistribution:
    """A system, as machine/debian.py is one, that records what it is asked to install and to build."""

    command = "sudo install-it"

    def __init__(self, *base_packages: str) -> None:
        self.missing = base_packages
        self.recipes = {"python"}
        self.installed: list[tuple[str, ...]] = []
        self.built: list[tuple[str, str]] = []

    def engine_packages(self) -> tuple[str, ...]:
        return ("docker.io", "docker-compose")

    def base_packages(self) -> tuple[str, ...]:
        return self.missing

    def install(self, *packages: str) -> None:
        self.installed.append(packages)

    def recipe_id(self, recipe: str) -> str:
        return f"id-of-{recipe}"

    def substitute(self, recipe: str, official: str) -> str:
        return (
            f"localhost/base/{recipe}:{official.partition('@')[0].rpartition(':')[2]}" if recipe in self.recipes else ""
        )

    def build_base(self, recipe: str, image: str) -> None:
        self.built.append((recipe, image))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, str]], Path]:
    """Writes a project's files."""

    def files(texts: Mapping[str, str]) -> Path:
        source = tmp_path / "theirs"
        for path, text in texts.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(text)
        return source

    return files
