"""Publishing built images: needs Docker, docker-registry and minutes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ...project import ROOT, service_names
from ...release.registry import Repository
from ..registry import PASSWORD, LocalRegistry
from .clones import Clone
from .runner import runner_of

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_docker() -> None:
    """These tests need the real one."""


def run(clone: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STACK_", "COMPOSE_"))}
    environment |= {"NO_COLOR": "1"}
    return subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, check=False, umask=clone_umask(clone)
    )


def clone_umask(clone: Path) -> int:
    return 0o077 if clone.name == "other" else 0o022


def clone_at(folder: Path) -> Path:
    """A fresh clone of this commit, whose files have other times, and other modes by the umask."""
    folder.parent.mkdir(parents=True)
    assert not run(folder.parent, "git", "clone", "--quiet", str(ROOT), str(folder)).returncode
    subprocess.run(["chmod", "-R", "go-rwx" if clone_umask(folder) == 0o077 else "go+rX", str(folder)], check=True)
    return folder


def nox(clone: Path, *arguments: str) -> str:
    done = run(clone, sys.executable, "-m", "nox", "-s", *arguments)
    text = done.stdout + done.stderr
    assert not done.returncode, text
    return text


def released(clone: Path) -> dict[str, Any]:
    return {e["service"]: e for e in json.loads((clone / "reports/release.json").read_text())["images"]}


def manifest(entry: dict[str, Any]) -> str:
    """The manifest of a published image."""
    repository = Repository(entry["name"].rpartition("/")[0], entry["service"])
    return repository.get(f"manifests/{entry['digest']}").decode()


def test_two_clones_of_a_commit_release_the_same_digests(tmp_path: Path) -> None:
    one, other = clone_at(tmp_path / "here/one"), clone_at(tmp_path / "a longer path/other")
    try:
        with LocalRegistry(tmp_path) as registry:
            nox(one, "publish", "--", "--registry", f"{registry.host}/team")
            nox(one, "publish", "--", "--verify")
            nox(other, "publish", "--", "--registry", f"{registry.host}/again")
            for service, entry in released(one).items():
                again = released(other)[service]
                assert {**again, "name": entry["name"]} == entry, f"{manifest(entry)}\n{manifest(again)}"
            assert sorted(released(one)) == service_names()
            for entry in released(one).values():
                name = f"{entry['name']}@{entry['digest']}"
                told = run(
                    one, "docker", "buildx", "imagetools", "inspect", f"{entry['name']}:{entry['tags'][0]}"
                ).stdout
                assert entry["digest"] in told  # by a tool that knows nothing of ours
                assert not run(one, "docker", "pull", "--quiet", name).returncode
                run(one, "docker", "image", "rm", name)
            (other / "README.md").write_text("changed")
            dirty = run(
                other, sys.executable, "-m", "nox", "-s", "publish", "--", "--registry", f"{registry.host}/team"
            )
            assert dirty.returncode
            assert re.search(r"files differ from the commit \(1, such as README\.md\)", dirty.stdout + dirty.stderr)
    finally:
        for clone in (one, other):
            nox(clone, "clean")


def test_a_service_is_the_same_when_it_is_built_twice_without_cache(tmp_path: Path) -> None:
    clone = clone_at(tmp_path / "clone/one")
    try:
        assert f"{service_names()[0]}: both builds are sha256:" in nox(
            clone, "build", "--", service_names()[0], "--check-reproducible"
        )
    finally:
        nox(clone, "clean")


def test_a_version_tag_releases_by_the_workflow(seed: Clone, tmp_path: Path) -> None:
    with runner_of(seed, tmp_path) as runner, LocalRegistry(tmp_path, auth="basic") as registry:
        runner.token = PASSWORD
        pyproject = (runner.clone.root / "pyproject.toml").read_text()
        version = re.search(r'^version = "(.*)"$', pyproject, re.MULTILINE)
        assert version
        options = (f"--var=REGISTRY={registry.host}/team", "--actor=user", "--matrix=platform:amd64")
        # Here there is one platform, and both of the workflow's would be that one.
        results, log = runner.run("release", "push", {"ref": f"refs/tags/v{version[1]}"}, *options)
        assert results == dict.fromkeys(["plan", "build amd64 ubuntu-24.04", "publish", "attest", "page"], "success"), (
            log
        )
        release = json.loads((runner.got / "release/release.json").read_text())
        assert sorted(entry["service"] for entry in release["images"]) == ["deck", "pilot"]
        for entry in release["images"]:
            name = f"{registry.host}/team/{entry['service']}:v{version[1]}"
            assert entry["digest"] in runner.clone.output(
                "docker", "buildx", "imagetools", "inspect", name, settings=runner.environment
            )
            assert (
                f"{entry['digest'].removeprefix('sha256:')}  {entry['name']}\n" in (runner.got / "attested").read_text()
            )
            assert entry["digest"] in (runner.got / "release.md").read_text()
        assert (runner.got / "gh").read_text().split()[:3] == ["release", "create", f"v{version[1]}"]
        assert (runner.got / "release.json").exists()
        results, log = runner.run("release", "push", {"ref": "refs/tags/v9.9.9"}, *options)
        assert results == {"plan": "failure"}, log
        assert "the tag v9.9.9 is not of the version in pyproject.toml" in log
