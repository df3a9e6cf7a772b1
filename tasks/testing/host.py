"""Tests that run on the host: the tooling's own, those of the production stack, and the template makers'."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import changes, venv
from ..images import bake
from ..project import REPORTS, ROOT, service_names
from ..stack.lifecycle import removed_afterwards
from ..terminal import say
from .containers import side_by_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nox import Session


@dataclass(frozen=True)
class Suite:
    """Tests on the host: where they are (glob patterns), their dependency group, and which changes affect them."""

    folders: tuple[str, ...]
    group: str
    affected_by: tuple[str, ...]
    by_default: bool = True
    options: tuple[str, ...] = ()


PLUGIN = ("--import-mode=importlib", "-p", "tests.stack.plugin")
SUITES = {
    "unit": Suite(
        ("tasks/tests", "docker/**/tests"),
        "host",
        ("tasks/", "docker/", "docs/", "noxfile.py", "README.md", ".github/", ".ci/"),
        # Schemathesis and Hypothesis take seconds to import.
        options=("--disable-plugin-autoload", "-p", "xdist", "--numprocesses=2"),
    ),
    "stack": Suite(
        ("tests/stack", "services/*/stack"),
        "stack",
        (*changes.AFFECTS_ALL, "services/", "libs/", "tests/stack/"),
        options=(*PLUGIN, "-p", "no:schemathesis", "--numprocesses=2", "--dist=loadfile"),
    ),
}


def suites(*, by_default: bool = False) -> list[str]:
    """The suites that this clone has, or those of them that run when none is named."""
    return [name for name, suite in SUITES.items() if paths(suite) and (suite.by_default or not by_default)]


def paths(suite: Suite) -> list[str]:
    """The folders of a suite that exist."""
    found = {path for pattern in suite.folders for path in ROOT.glob(pattern) if any(path.glob("test_*.py"))}
    return sorted(str(path.relative_to(ROOT)) for path in found)


def affected(since: str | None) -> list[str]:
    """The suites that a change since a git ref may make fail; all of them without one."""
    changed = changes.paths_since(since) if since else []
    return [name for name in suites() if not since or any(p.startswith(SUITES[name].affected_by) for p in changed)]


def test(session: Session, names: Sequence[str], pytest_args: Sequence[str]) -> dict[str, int]:
    """Run suites side by side, or those paths that pytest's arguments name; return pytest's exit code for each."""
    for name in names:
        venv.install(session, SUITES[name].group)
    with removed_afterwards() if "stack" in names else nullcontext():
        if "stack" in names:
            bake.build(service_names(), "prod")
        return side_by_side({name: command(session, name, pytest_args) for name in names})


def command(session: Session, name: str, pytest_args: Sequence[str]) -> list[str]:
    """The command that runs a suite."""
    named = any(Path(word.partition("::")[0]).exists() for word in pytest_args)
    start = (venv.python(session), "-B", "-m", "pytest", *SUITES[name].options)
    report = f"--junitxml={REPORTS}/junit-{name}.xml"
    return [*start, report, *([] if named else paths(SUITES[name])), *pytest_args]


def write_plan(parts: Sequence[str]) -> None:
    """Print what there is to test, and hand it to GitHub Actions where this runs there: ``parts=["pilot", "unit"]``."""
    line = f"parts={json.dumps(parts)}"
    say(line)
    if target := os.environ.get("GITHUB_OUTPUT"):
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
