"""CI does what a laptop does: every step that runs something runs a nox session."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

import yaml

from ..project import ROOT

# What a change must pass before it lands.
BELONGS_IN_CI = {"lint", "test", "build", "sizes"}


def workflow() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text()))


def commands() -> list[str]:
    return [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]


def sessions() -> set[str]:
    listed = subprocess.run([sys.executable, "-m", "nox", "-l"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(re.findall(r"^[*-] (\S+)", listed.stdout, re.MULTILINE))


def test_steps_run_nox_sessions_and_nothing_else() -> None:
    known = sessions()
    for command in commands():
        words = shlex.split(command)
        assert words[:4] == ["pipx", "run", "nox", "-s"], command
        assert words[4] in known, f"{command}: there is no such session"
        assert not re.search(r"[;&|\n]", command.strip()), f"{command}: one session a step"


def test_no_session_that_belongs_there_is_missing() -> None:
    assert {shlex.split(command)[4] for command in commands()} >= BELONGS_IN_CI


def test_the_gate_waits_for_every_job() -> None:
    jobs = workflow()["jobs"]
    assert set(jobs["gate"]["needs"]) == set(jobs) - {"gate"}
    assert jobs["gate"]["if"] == "always()"


def test_ci_run_calls_the_readmes_test_command() -> None:
    commands = re.findall(r"^ {4}(pip install nox && nox -s test)\b", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands
    assert commands[0] in (ROOT / ".ci/run").read_text().splitlines()


def test_actions_are_pinned_by_hash() -> None:
    uses = [step["uses"] for job in workflow()["jobs"].values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action) for action in uses)
