"""ci.yml, run by a real runner: needs Docker, the package index and minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .clones import Clone
from .runner import REPOSITORY, Runner, runner_of

pytestmark = pytest.mark.slow
TEST = "services/pilot/tests/test_more.py"
SUCCESS = "success"


@pytest.fixture(scope="module")
def runner(seed: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with runner_of(seed, tmp_path_factory.mktemp("runner")) as made:
        yield made


def pull_request(runner: Runner, test: str, *, of: str = REPOSITORY) -> tuple[dict[str, Any], str]:
    """A pull request that adds a test to one service, from a branch of a repository; and what it is compared with."""
    base = runner.clone.git("rev-parse", "main").strip()
    runner.clone.git("checkout", "--quiet", "-B", "change", "main")
    (runner.clone.root / TEST).write_text(test)
    runner.clone.commit("Test more")
    return {
        "number": 7,
        "pull_request": {"number": 7, "base": {"sha": base}, "head": {"repo": {"full_name": of}}},
    }, base


def test_a_push_runs_everything(runner: Runner) -> None:
    results, log = runner.run("ci", "push", {"ref": "refs/heads/main"})
    parts = [f"test {part}" for part in ("deck", "pilot", "unit", "stack")]
    assert results == dict.fromkeys(["plan", "lint", *parts, "build", "gate"], SUCCESS), log
    assert (runner.got / "reports-pilot/junit-pilot.xml").is_file()
    assert (runner.got / "sizes/sizes.json").is_file()


def test_a_pull_request_tests_what_it_touches_and_gets_a_comment(runner: Runner) -> None:
    payload, base = pull_request(runner, "def test_more() -> None:\n    assert True\n")
    results, log = runner.run("ci", "pull_request", payload)
    jobs = ["plan", "lint", "test pilot", "test stack", "build", "comment", "gate"]
    assert results == dict.fromkeys(jobs, SUCCESS), log
    words = (runner.got / "gh").read_text().split()
    assert words[:3] == ["pr", "comment", "7"]
    assert {"--edit-last", "--create-if-none"} <= set(words)
    assert f"changes since {base}" in (runner.got / "sizes.md").read_text()


def test_a_failing_test_in_one_service_fails_the_gate(runner: Runner) -> None:
    payload, _ = pull_request(runner, "def test_more() -> None:\n    raise AssertionError\n", of="fork/project")
    results, log = runner.run("ci", "pull_request", payload)
    failed = {job for job, result in results.items() if result == "failure"}
    # The service's tests also verify its production image, which `build` and the stack's tests begin with.
    assert failed == {"test pilot", "test stack", "build", "gate"}, log
    assert results["plan"] == results["lint"] == SUCCESS
    assert not (runner.got / "gh").exists()
