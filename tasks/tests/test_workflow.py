"""CI does what a laptop does: every step that runs something runs a session, with arguments that the session takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from .. import cli
from ..project import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

# What a change must pass before it lands.
BELONGS_IN_CI = {"lint", "test", "build", "sizes"}
SUITES = ("unit", "stack", "template")
ARGUMENTS: dict[str, Callable[[list[str]], object]] = {
    "build": cli.build,
    "lint": lambda words: cli.flags("lint", words, "--fix"),
    "plan": cli.plan,
    "sizes": cli.sizes,
    "test": lambda words: cli.test(words, SUITES, SUITES),
}


def workflow() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text()))


def commands() -> list[tuple[str, list[str]]]:
    """The sessions that CI runs, with their arguments."""
    found = []
    for name, job in workflow()["jobs"].items():
        for step in job["steps"]:
            if "run" in step and name != "gate":
                words = shlex.split(step["run"])
                at = words.index("-s")
                assert words[at - 1] == "nox", step["run"]
                assert words[at + 2 : at + 3] in ([], ["--"]), f"one session a step: {step['run']}"
                found.append((words[at + 1], words[at + 3 :]))
    return found


@cache
def sessions() -> set[str]:
    listed = subprocess.run([sys.executable, "-m", "nox", "-l"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(re.findall(r"^[*-] (\S+)", listed.stdout, re.MULTILINE))


@pytest.mark.usefixtures("project")
def test_steps_run_sessions_with_arguments_that_they_take() -> None:
    for session, words in commands():
        assert session in sessions()
        assert not re.search(r"[;&|<>]", " ".join(words)), f"{session}: one session a step"
        if session in ARGUMENTS:
            ARGUMENTS[session](["unit" if word == "$PART" else word.replace("$SINCE", "") for word in words])


def test_no_session_that_belongs_there_is_missing() -> None:
    assert {session for session, _ in commands()} >= BELONGS_IN_CI


def test_the_gate_waits_for_every_job_and_fails_with_any() -> None:
    jobs = workflow()["jobs"]
    assert set(jobs["gate"]["needs"]) == set(jobs) - {"gate"}
    assert jobs["gate"]["if"] == "always()"
    (step,) = jobs["gate"]["steps"]
    assert step["run"] == "exit 1"
    assert {"failure", "cancelled"} == set(re.findall(r"contains\(needs\.\*\.result, '(\w+)'\)", step["if"]))


def test_ci_run_calls_the_readmes_test_command() -> None:
    commands = re.findall(r"^ {4}(pip install nox && nox -s test)\b", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands
    assert commands[0] in (ROOT / ".ci/run").read_text().splitlines()


def test_actions_are_pinned_by_hash() -> None:
    uses = [step["uses"] for job in workflow()["jobs"].values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", action) for action in uses)
