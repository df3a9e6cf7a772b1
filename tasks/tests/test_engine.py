"""Finding the engine: every state that it can be in, told by a client that pretends."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ..machine import engine
from ..shell import UserError
from .conftest import calls, fake_docker, fake_engine


def test_versions_are_those_of_the_engine_and_of_its_clients_plugins(no_docker: Path) -> None:
    fake_engine(no_docker, engine="27.0.1", compose="v2.30.3-desktop.1", buildx="v0.19.2+x")
    state = engine.probe()
    assert state.versions == {"engine": "27.0.1", "compose": "2.30.3-desktop.1", "buildx": "0.19.2+x"}
    assert (state.client, state.too_old(), state.engine.name) == (True, {}, "docker")
    engine.check(state, "install it")
    assert sorted(calls(no_docker)) == ["info --format {{json .}}", "version --format {{json .Server}}"]


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ("seccomp,profile=builtin", ("1001", "1002", "")),
        ("userns", ("1001", "1002", "host")),
        ("rootless", ("0", "0", "")),
    ],
)
def test_containers_run_as_the_caller(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, security: str, expected: tuple[str, ...]
) -> None:
    fake_engine(no_docker, security=security)
    monkeypatch.setattr(os, "getuid", lambda: 1001)
    monkeypatch.setattr(os, "getgid", lambda: 1002)
    assert tuple(engine.container_user(engine.probe().info).values()) == (*expected, "")


def test_an_engine_that_cannot_limit_processors_is_not_asked_to(no_docker: Path) -> None:
    fake_engine(no_docker, security="rootless", cpu=False)
    assert engine.container_user(engine.probe().info)["STACK_CPUS"] == "0"


@pytest.mark.parametrize(
    ("part", "version"),
    [
        ("engine", "20.10.24+dfsg1"),
        ("engine", "24.0.9"),
        ("compose", "v2.24.3"),
        ("compose", "1.29.2"),
        ("buildx", "v0.11.2"),
    ],
)
def test_too_old(no_docker: Path, part: str, version: str) -> None:
    fake_engine(no_docker, **{part: version})  # type: ignore[arg-type]  # not the one that is a bool
    state = engine.probe()
    assert state.too_old() == {part: version.lstrip("v")}
    told = f"Docker's {part} is {version.lstrip('v')}, which is too old: "
    with pytest.raises(UserError, match=f"{re.escape(told)}.* or newer is needed; install it"):
        engine.check(state, "install it")


def test_an_engine_that_does_not_answer_is_told_with_the_reason(no_docker: Path) -> None:
    fake_engine(no_docker, engine="Cannot connect to the Docker daemon")
    with pytest.raises(UserError, match="engine cannot be used: Cannot connect to the Docker daemon; install it"):
        engine.check(engine.probe(), "install it")


def test_an_engine_that_hangs_is_not_waited_for(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PROBE_TIMEOUT_S", 0.1)
    fake_docker(no_docker, {"version": "exec sleep 60", "info": "exec sleep 60"})
    state = engine.probe()
    assert (state.versions, state.client) == ({}, True)
    assert state.trouble == "the engine has not answered for 0.1 s"


def test_without_a_client_there_is_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert engine.probe() == engine.State()
    with pytest.raises(UserError, match="engine cannot be used: no container engine was found; install it"):
        engine.check(engine.probe(), "install it")


@pytest.mark.parametrize(("name", "expected"), [("default", ""), ("far-away", "far-away")])
def test_the_default_context_has_no_name(no_docker: Path, name: str, expected: str) -> None:
    fake_engine(no_docker, context=name)
    assert engine.context() == expected


def test_the_engine_is_the_one_that_setup_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.current().name == "docker"
    monkeypatch.setenv("STACK_ENGINE", "one-that-was-deleted")
    assert engine.current().name == "docker"


def test_docker_builds_all_targets_in_one_go(no_docker: Path, tmp_path: Path) -> None:
    fake_docker(no_docker, {"buildx bake": f"cat >{tmp_path}/plan; echo a line; exit 3"})
    lines: list[str] = []
    assert engine.Docker().build({"a": {"target": "dev"}, "b": {"target": "dev"}}, lines.append) == 3
    assert lines == ["a line"]
    plan = '{"group": {"default": {"targets": ["a", "b"]}}, "target": {"a": {"target": "dev"}, "b": {"target": "dev"}}}'
    assert (tmp_path / "plan").read_text() == plan


def test_docker_gets_what_looks_like_a_template_as_it_is(no_docker: Path, tmp_path: Path) -> None:
    fake_docker(no_docker, {"buildx bake": f"cat >{tmp_path}/plan"})
    engine.Docker().build({"a": {"args": {"X": "${HOME} %{x} $$ $1 100% {}"}}}, print)
    assert '{"X": "$${HOME} %%{x} $$ $1 100% {}"}' in (tmp_path / "plan").read_text()


def test_docker_sees_the_settings_in_env(no_docker: Path, tmp_path: Path, project: Path) -> None:
    """The package index, say, which a build gets as a secret of the environment."""
    (project / ".env").write_text("PIP_INDEX_URL=https://mirror/simple\n")
    fake_docker(no_docker, {"buildx bake": f"echo $PIP_INDEX_URL $BUILDX_BAKE_ENTITLEMENTS_FS >{tmp_path}/seen"})
    engine.Docker().build({"a": {}}, print)
    assert (tmp_path / "seen").read_text() == "https://mirror/simple 0\n"  # 0: newer ones may read the CA bundle, too
