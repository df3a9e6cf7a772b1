"""Finding the engine: every state that it can be in, told by a `docker` that pretends."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from ..machine import debian, engine
from ..shell import UserError
from .conftest import pretend, write_tool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def harmless(monkeypatch: pytest.MonkeyPatch, no_docker: Path) -> None:
    """Nothing here may change this machine: there is no daemon to start, and apt fails the test."""
    write_tool(no_docker / "apt-get", "echo a unit test called apt-get >&2; exit 99")
    monkeypatch.setattr(engine, "SBIN", str(no_docker))


def test_a_good_engine_needs_nothing(no_docker: Path) -> None:
    pretend(no_docker)
    engine.ensure()


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ("seccomp,profile=builtin", (str(os.getuid()), str(os.getgid()), "")),
        ("userns", (str(os.getuid()), str(os.getgid()), "host")),
        ("rootless", ("0", "0", "")),
    ],
)
def test_containers_are_who_calls(no_docker: Path, security: str, expected: tuple[str, ...]) -> None:
    pretend(no_docker, security=security)
    assert tuple(engine.ensure().values()) == (*expected, "", "docker")


def test_an_engine_that_cannot_limit_processors_is_not_asked_to(no_docker: Path) -> None:
    pretend(no_docker, security="rootless", cpu="false")
    assert engine.ensure()["STACK_CPUS"] == "0"


@pytest.mark.parametrize(
    ("part", "version"),
    [
        ("engine", "20.10.24+dfsg1"),
        ("engine", "24.0.9"),
        ("compose", "v2.20.3"),
        ("compose", "1.29.2"),
        ("buildx", "v0.11.2"),
    ],
)
def test_too_old(no_docker: Path, part: str, version: str) -> None:
    pretend(no_docker, **{part: version})
    with pytest.raises(UserError, match=re.escape(f"Docker's {part} is {version.lstrip('v')}, which is too old")):
        engine.ensure()


def test_podman_is_known_and_needs_no_buildx(no_docker: Path) -> None:
    pretend(no_docker, kind="Podman Engine", engine="5.4.2", buildx="", security="rootless")
    assert engine.ensure()["STACK_ENGINE"] == "podman"


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ({"engine": "4.3.1"}, "Podman's engine is 4.3.1, which is too old: 5.0"),
        ({"engine": "5.4.2", "compose": ""}, "Docker's compose cannot be used; get it"),
    ],
)
def test_what_podman_lacks_is_told_and_not_installed(no_docker: Path, versions: dict[str, str], told: str) -> None:
    pretend(no_docker, kind="Podman Engine", **versions)
    with pytest.raises(UserError, match=re.escape(told)):
        engine.ensure()


def test_no_right_to_the_socket(no_docker: Path) -> None:
    pretend(no_docker, engine="permission denied while trying to connect to the Docker daemon socket")
    with pytest.raises(UserError, match="usermod -aG docker"):
        engine.ensure()


def test_a_chosen_engine_that_is_away_is_never_replaced(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(no_docker, engine="Cannot connect to the Docker daemon")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with pytest.raises(UserError, match=r"the Docker engine at tcp://127\.0\.0\.1:1 does not answer"):
        engine.ensure()
    monkeypatch.delenv("DOCKER_HOST")
    monkeypatch.setenv("PRETEND_CONTEXT", "far-away")
    with pytest.raises(UserError, match="the Docker engine at far-away does not answer"):
        engine.ensure()


def test_setup_never_installs_nothing(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(no_docker, compose="", buildx="")
    monkeypatch.setenv("STACK_SETUP", "never")
    with pytest.raises(UserError, match="missing or not running: compose, buildx, and STACK_SETUP=never"):
        engine.ensure()


def test_an_ordinary_user_gets_the_one_command(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (no_docker / "docker").unlink()
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(engine, "distribution", lambda: {"ID": "debian"})
    with pytest.raises(UserError, match=r"Run `sudo python3 -B -m tasks\.machine\.engine`, .*--local"):
        engine.ensure()


@pytest.mark.parametrize("here", [{"ID": "fedora"}, {}])
def test_an_unknown_system_is_told_what_to_install(here: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(engine, "distribution", lambda: here)
    with pytest.raises(UserError, match="install Docker Engine with its compose and buildx plugins"):
        engine.ensure()


def test_at_a_terminal_it_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    asked = []

    def no(question: str) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("builtins.input", no)
    with pytest.raises(UserError, match="nothing was changed"):
        engine.allowed("install docker.io", "sudo ...")
    assert asked == ["Docker is not ready. May I install docker.io? [Y/n] "]
    monkeypatch.setenv("CI", "true")
    engine.allowed("install docker.io", "sudo ...")


def test_trixie_only_for_docker(monkeypatch: pytest.MonkeyPatch, no_docker: Path) -> None:
    """The mirrors are this machine's own; every suite of its release has its counterpart."""
    write_tool(
        no_docker / "apt-get",
        "echo http://mirror/debian/ bookworm; echo http://mirror/debian/ bookworm-updates;"
        "echo http://mirror/security/ bookworm-security; echo http://mirror/debian/ bookworm-backports; echo http://else/ stable",
    )
    monkeypatch.setattr(debian, "distribution", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})
    assert debian.mirrors("trixie") == [
        ("http://mirror/debian/", "trixie"),
        ("http://mirror/debian/", "trixie-updates"),
        ("http://mirror/security/", "trixie-security"),
    ]
