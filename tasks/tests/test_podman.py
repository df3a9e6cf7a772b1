"""Podman in Docker's place."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ..images import bake
from ..images.target import Target
from ..machine import engine, podman, setup
from ..shell import UserError
from ..stack import lifecycle
from ..stack.model import Stack
from ..testing import host
from .conftest import calls, fake_docker, fake_engine, write_tool

KIND = "Podman Engine"
TARGET = Target(
    context="/c",
    dockerfile="docker/Dockerfile",
    target="dev",
    args={"SERVICE": "a"},
    labels={"l": "1"},
    tags=("ours-1/a:dev", "ours/a:dev"),
    secret=("id=ca,src=/ca.crt",),
)


@pytest.fixture(autouse=True)
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACK_ENGINE", "podman")


def test_it_is_known_by_its_components_and_needs_no_buildx(no_docker: Path) -> None:
    fake_engine(no_docker, kind=KIND, engine="5.4.2", buildx="", security="rootless")
    facts = setup.ensure()
    assert (facts["STACK_ENGINE"], facts["STACK_UID"]) == ("podman", "0")
    assert engine.current().name == "podman"


@pytest.mark.parametrize(
    ("engine_version", "compose", "told"),
    [
        ("4.3.1", "2.26.1", r"Podman's engine is 4\.3\.1, which is too old: 5\.0"),
        ("5.4.2", "", "Docker's compose cannot be used; get it from your distribution"),
    ],
)
def test_what_it_lacks_is_told_and_not_installed(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch, engine_version: str, compose: str, told: str
) -> None:
    monkeypatch.setattr(setup, "repair", pytest.fail)
    fake_engine(no_docker, kind=KIND, engine=engine_version, compose=compose)
    with pytest.raises(UserError, match=told):
        setup.ensure()


def test_it_builds_one_after_the_other(no_docker: Path, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each by a build of its own, on the engine that Docker's client would ask, until one fails."""
    fake_docker(no_docker, {"context inspect": "echo unix:///run/podman.sock"})
    write_tool(
        no_docker / "podman",
        f'echo "$*" >>{project}/asked; echo "[1/2] STEP 1/2: RUN --mount=x it"; ! grep -q SERVICE=b {project}/asked',
    )
    with pytest.raises(UserError, match=r"the build failed.* \(all of it: reports/logs/build-test\.log\)"):
        bake.bake({name: replace(TARGET, args={"SERVICE": name}) for name in "abc"}, "test")
    asked = (project / "asked").read_text().splitlines()
    assert asked[0] == (
        "--url=unix:///run/podman.sock build --format=docker --layers=false --file=/c/docker/Dockerfile"
        " --target=dev --build-arg=SERVICE=a --label=l=1 --tag=ours-1/a:dev --tag=ours/a:dev --secret=id=ca,src=/ca.crt /c"
    )
    assert len(asked) == 2
    assert capsys.readouterr().out == "$ podman build a b c  # test\n" + "  [1/2] RUN it\n" * 2


def test_what_verifies_an_image_is_removed(no_docker: Path, project: Path) -> None:
    fake_docker(no_docker, {"context inspect": "echo unix:///run/podman.sock"})
    write_tool(no_docker / "podman", f'echo "$*" >>{project}/asked')
    bake.bake({"a": TARGET, "a_verify": replace(TARGET, tags=())}, "test")
    _, verified, removed = (project / "asked").read_text().splitlines()
    (name,) = re.findall("--tag=([^ ]+/verified) ", verified)
    assert removed == f"--url=unix:///run/podman.sock rmi {name}"


def test_an_image_is_verified_in_itself() -> None:
    assert podman.Podman().verify_base(asdict(TARGET)) == "ours-1/a:dev"


@pytest.mark.parametrize("name", ["localhost/ours/a:dev", "docker.io/library/ours/a:dev", "ours/a:dev"])
def test_names_are_as_they_were_given_to_the_build(name: str) -> None:
    assert engine.current().plain_name(name) == "ours/a:dev"


def test_what_it_cannot_do_is_told_beforehand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_docker: Path) -> None:
    with pytest.raises(UserError, match="production stack need Docker"):
        host.prepare("stack")
    monkeypatch.setattr(podman, "SYSTEMD", tmp_path / "none")
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UserError, match="Podman needs systemd for health checks"):
        lifecycle.up(Stack("ours-1", ("docker/compose.yaml",), "dev"))
    assert calls(no_docker) == []
