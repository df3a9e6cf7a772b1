"""Fixtures of the slow tests: clones with two services, pilot and deck, which `nox -s new` has just made."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest

from .clones import Clone

# Two processes that run tests must not find the same free ports at the same time.
PORTS = 5000 + 100 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
OFFLINE = re.compile(r"packages could not be installed|All attempts to connect failed|Connection(Error| refused)")


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A copy of this checkout with the services pilot and deck in place of its own."""
    made = Clone.copy_of_this(tmp_path_factory.mktemp("seed") / "seed")
    try:
        made.replace_services("pilot", "deck")
    except AssertionError as failed:
        if OFFLINE.search(str(failed)):
            pytest.skip("the package index cannot be reached, and new services need a new lock")
        raise
    for number, service in enumerate(("pilot", "deck")):
        compose = made.root / "services" / service / "compose.yaml"
        compose.write_text(re.sub(r"(?<=_PORT:-)\d+", str(PORTS + number), compose.read_text()))
    made.commit("Set the ports")
    return made


@pytest.fixture(scope="module")
def make_clone(seed: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Clone]]:
    """A function: a git clone of the seed, in a folder of this name. In the end, nothing of it is left on the engine."""
    made = []

    def make(folder: str) -> Clone:
        made.append(seed.cloned_to(tmp_path_factory.mktemp("clones") / folder))
        return made[-1]

    yield make
    for clone in made:
        clone.nox("-s", "clean")
        assert clone.left() == []


@pytest.fixture(scope="module")
def clone(make_clone: Callable[[str], Clone]) -> Clone:
    """A clone that the tests of a module share."""
    return make_clone("a clöne of ours")
