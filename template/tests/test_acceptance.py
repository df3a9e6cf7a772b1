"""An adopter's first day: a clone that is renamed, loses the samples, gets a service of its own, and optional parts go."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from tasks.project import name
from tasks.tests.slow.clones import Clone

pytestmark = pytest.mark.slow
# Each optional part: what its line in noxfile.py imports, and what is deleted with it.
PARTS = {
    "tasks.machine.debian": ("tasks/machine/debian.py", "docker/bases", "tasks/tests/test_debian.py"),
    "tasks.machine.podman": ("tasks/machine/podman.py", "tasks/tests/test_podman.py"),
    "tasks.release": (
        *("tasks/release", "docs/releasing.md", ".github/workflows/release.yml"),
        *("tasks/tests/registry.py", "tasks/tests/publishing.py", "tasks/tests/slow/test_release.py"),
        *(
            f"tasks/tests/test_{name}.py"
            for name in ("publish", "publish_refused", "registry", "release", "release_image")
        ),
    ),
    "tasks.deploy": (
        *("tasks/deploy.py", "deploy", "docs/deploying.md", "tasks/tests/test_deploy.py"),
        *(f"tasks/tests/test_deploy_{name}.py" for name in ("apply", "kubernetes", "rollout", "swarm")),
    ),
    "tasks.audit": ("tasks/audit.py", "tasks/tests/test_audit.py", ".github/workflows/audit.yml"),
    "tasks.stack.network": (
        "tasks/stack/network.py",
        "tasks/tests/test_network.py",
        "tasks/tests/slow/test_network.py",
    ),
    "tasks.scaffold.adopt": (
        *(f"tasks/scaffold/{name}.py" for name in ("adopt", "application", "requirements", "resolve", "environment")),
        "tasks/scaffold/adopting",
        *(
            f"tasks/tests/test_{name}.py"
            for name in (
                *("adopt", "adopt_commands", "adopt_copy", "adopt_slow", "adopt_tests"),
                *("application", "environment", "requirements", "resolve"),
            )
        ),
    ),
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    clone = Clone.copy_of_this(tmp_path_factory.mktemp("clones") / "a first day")
    yield clone
    clone.nox("-s", "clean")
    assert clone.left() == []


def test_after_rename_nothing_has_the_old_name_or_names_a_missing_path(clone: Clone) -> None:
    clone.nox("-s", "rename", "--", "harbour")
    clone.commit("Start from the template")
    assert not (clone.root / "template").exists()
    named = clone.git("grep", "-il", name(), "--", ".", ":!LICENSE", ok=(0, 1)).split()
    assert named == []
    assert "passed" in clone.nox("-s", "test", "--", "unit", "tasks/tests/test_paths.py")


def test_without_the_samples_everything_passes(clone: Clone) -> None:
    clone.replace_services("pilot")
    shutil.rmtree(clone.root / "libs/plainweb")  # the samples' own, as docs/adopting.md says
    clone.commit("Remove the samples' lib")
    text = clone.nox("-s", "test", "build", "sizes", "lint")
    assert re.search(r"pilot:prod +\d", text), text
    assert len(re.findall(r"^=+ \d+ passed", text, re.MULTILINE)) == 3  # pilot's tests, the tooling's, the stack's
    assert clone.git("status", "--porcelain") == ""
    assert clone.left("container", "network") == []


@pytest.mark.parametrize("part", PARTS)
def test_an_optional_part_can_be_deleted(clone: Clone, part: str) -> None:
    try:
        noxfile = clone.root / "noxfile.py"
        lines = noxfile.read_text().splitlines(keepends=True)
        kept = [line for line in lines if not re.match(rf"import {re.escape(part)}\b", line)]
        assert len(kept) == len(lines) - 1
        noxfile.write_text("".join(kept))
        for path in PARTS[part]:
            found = clone.root / path
            shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
        text = clone.nox("-s", "test", "--", "unit", "tasks/tests")
        assert re.search(r"\d+ passed", text)
        clone.output(".nox/lint/bin/mypy", "noxfile.py", "tasks")  # the session lint has installed it
    finally:
        clone.git("checkout", "-q", ".")
