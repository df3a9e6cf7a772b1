"""CI does what a laptop does: every step that does work runs a session, with arguments that the session takes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from .. import cli
from ..project import ROOT

WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
# What a change must pass before it lands.
BELONGS_IN_CI = {"lint", "test", "build", "sizes"}
# What is no session: logins, and what goes to GitHub's pages.
OTHER = ("cat ", "docker login ", "gh ", "exit ")
SUITES = ("unit", "stack", "template")
ARGUMENTS: dict[str, Callable[[list[str]], object]] = {
    "build": cli.build,
    "lint": lambda words: cli.flags("lint", words, "--fix"),
    "plan": cli.plan,
    "sizes": cli.sizes,
    "test": lambda words: cli.test(words, SUITES, SUITES),
}


@cache
def jobs(name: str) -> dict[str, Any]:
    if name not in WORKFLOWS:
        pytest.skip(f"there is no workflow {name}: it was deleted")
    return dict(yaml.safe_load(WORKFLOWS[name].read_text())["jobs"])


def commands(name: str) -> list[tuple[str, list[str]]]:
    """The sessions that a workflow runs, with their arguments."""
    found = []
    for job in jobs(name).values():
        for step in job["steps"]:
            if "run" in step and not step["run"].startswith(OTHER):
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
@pytest.mark.parametrize("name", WORKFLOWS)
def test_steps_run_sessions_with_arguments_that_they_take(name: str) -> None:
    for session, words in commands(name):
        assert session in sessions()
        assert not re.search(r"[;&|<>]", " ".join(words)), f"{session}: one session a step"
        if session in ARGUMENTS:
            ARGUMENTS[session](["unit" if word == "$PART" else re.sub(r"\$[A-Z]+", "", word) for word in words])


def test_no_session_that_belongs_there_is_missing() -> None:
    assert {session for session, _ in commands("ci")} >= BELONGS_IN_CI


def test_the_gate_waits_for_every_job_and_fails_with_any() -> None:
    found = jobs("ci")
    assert set(found["gate"]["needs"]) == set(found) - {"gate"}
    assert found["gate"]["if"] == "always()"
    (step,) = found["gate"]["steps"]
    assert step["run"] == "exit 1"
    assert {"failure", "cancelled"} == set(re.findall(r"contains\(needs\.\*\.result, '(\w+)'\)", step["if"]))


def test_the_gate_reports_to_merge_queues_and_for_each_push() -> None:
    """A push that is cancelled by the next one would leave commits of the main branch untested."""
    content = yaml.safe_load(WORKFLOWS["ci"].read_text())
    assert "merge_group" in content[True]  # YAML 1.1 reads the key `on` as true
    assert content["concurrency"]["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_job_that_may_write_runs_nothing_of_a_pull_request(name: str) -> None:
    content = yaml.safe_load(WORKFLOWS[name].read_text())
    assert content["permissions"] == {}
    pull_requests = "pull_request" in content[True]
    for title, job in content["jobs"].items():
        writes = "write" in job["permissions"].values()
        checks_out = any("checkout" in step.get("uses", "") for step in job["steps"])
        assert not (pull_requests and writes and checks_out), title


@pytest.mark.parametrize("name", WORKFLOWS)
def test_secrets_reach_commands_by_the_environment_alone(name: str) -> None:
    steps = [step for job in jobs(name).values() for step in job["steps"] if "run" in step]
    assert not [step["run"] for step in steps if "${{" in step["run"]]
    logins = [step["run"] for step in steps if "docker login" in step["run"]]
    assert all("--password-stdin" in login for login in logins)


@pytest.mark.parametrize("script", list(ROOT.glob(".ci/run")))
def test_ci_run_runs_what_a_laptop_does(script: Path) -> None:
    assert "pip install nox && nox -s test" in script.read_text().splitlines()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_hash(name: str) -> None:
    steps = [step for job in jobs(name).values() for step in job["steps"] if "uses" in step]
    assert steps
    assert all(re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"]) for step in steps)
    checkouts = [step for step in steps if "checkout" in step["uses"]]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
