"""Running all tests; those on the host are the tooling's own, those of the production stack, and the template makers'."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nox import Session

from .. import changes, venv
from ..images import bake, uptodate
from ..machine import engine
from ..project import REPORTS, ROOT, libs_of, service_names
from ..shell import UserError
from ..stack import lifecycle
from ..stack.model import DEVELOPMENT_FILE
from ..terminal import say
from . import containers


@dataclass(frozen=True)
class Suite:
    """Tests on the host: where they are (glob patterns), their dependency group, and which changes affect them."""

    folders: tuple[str, ...]
    group: str
    affected_by: tuple[str, ...]
    by_default: bool = True
    options: tuple[str, ...] = ()


LOCKED = ("pyproject.toml", "poetry.lock")  # what suites, and the images that they test, are made with
PASSED = REPORTS / "unit-passed"  # the hash of the inputs with which the tooling's own tests have passed
PLUGIN = ("--import-mode=importlib", "-p", "tests.stack.plugin")
SUITES = {
    "unit": Suite(
        ("tasks/tests", "docker/**/tests"),
        "host",
        ("tasks/", "docker/", "deploy/", "docs/", "noxfile.py", "README.md", ".github/", ".ci/", *LOCKED),
        # Schemathesis and Hypothesis take seconds to import. Many tests wait, for clients that are slow and the like.
        options=("--disable-plugin-autoload", "-p", "xdist", "--numprocesses=4", "--dist=worksteal"),
    ),
    "stack": Suite(
        ("tests/stack", "services/*/stack"),
        "stack",
        (*changes.AFFECTS_ALL, "services/", "libs/", "tests/stack/", *LOCKED),
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


def with_names(posargs: Sequence[str]) -> list[str]:
    """Arguments of ``test``, with the service or suite in front that paths in them belong to.

    A service's path becomes that in its container, and so does one of a lib for the first service that uses it. Raises
    UserError for paths of several, and beside other names: pytest gets the same arguments for all.
    """
    given = {*itertools.takewhile({*service_names(), *suites()}.__contains__, posargs)}
    names, words = set[str](), list[str]()
    for word in posargs:
        if of_service := re.fullmatch(r"services/([^/]+)(?:/|/((?!stack\b).+))?", word):
            names.add(of_service[1])
            words += [f"./{of_service[2]}"] if of_service[2] else []
        elif of_lib := re.match("libs/([^/]+)/?", word):
            if not (users := [name for name in service_names() if of_lib[1] in libs_of(name)]):
                raise UserError(f"no service uses libs/{of_lib[1]}, so its tests can run in no container")
            names.add(users[0])
            words.append(f"../../{word}")
        else:
            names |= {name for name in suites() if any(Path(word).is_relative_to(path) for path in paths(SUITES[name]))}
            words.append(word)
    if names and len(names | given) > 1:
        raise UserError(f"these are paths of {' and '.join(sorted(names | given))}: name those of one at a time")
    return [*names, *words]


def affected(since: str | None) -> list[str]:
    """The suites that a change since a git ref may make fail; all of them without one."""
    changed = changes.paths_since(since) if since else []
    # The stack has what docker/compose.yaml includes from elsewhere, too, such as ../front/compose.yaml.
    included = re.findall(r"(?m)^ *- (?:path: *)?\W?\.\./(.+/)", (ROOT / DEVELOPMENT_FILE).read_text(encoding="utf-8"))
    by = {name: (*suite.affected_by, *(included if name == "stack" else ())) for name, suite in SUITES.items()}
    return [name for name in suites() if not since or any(path.startswith(by[name]) for path in changed)]


def inputs() -> str:
    """A hash of all that may make the tooling's own tests fail."""
    return uptodate.digest(ROOT / path for path in SUITES["unit"].affected_by)


def due(names: Sequence[str]) -> list[str]:
    """These suites without the tooling's own tests, where nothing that may make them fail has changed since they passed."""
    if "unit" not in names or not PASSED.exists() or PASSED.read_text() != inputs():
        return [*names]
    say("up to date: unit (`nox -s test -- unit` runs it all the same)")
    return [name for name in names if name != "unit"]


def test(session: Session, services: Sequence[str], names: Sequence[str], pytest_args: Sequence[str]) -> dict[str, int]:
    """Run services' tests in their containers and suites on the host, side by side; return pytest's exit code for each.

    Pytest's arguments may name the paths to run. The stack is last: its images run the services' tests when they are built.
    """
    for name in names:
        venv.install(session, SUITES[name].group)
    REPORTS.mkdir(exist_ok=True)
    commands = {
        name: command(session, name, pytest_args) if name in names else containers.command(name, pytest_args)
        for name in sorted([*names, *services], key="stack".__eq__)
    }
    before = inputs() if "unit" in names else ""
    try:
        containers.start_neighbours(services)
        codes = containers.side_by_side(commands, prepare)
        if codes.get("unit") == 0 and not pytest_args:
            PASSED.write_text(before)
        return codes
    finally:
        if services or "stack" in names:
            lifecycle.remove_tested_stacks()


def prepare(name: str) -> None:
    """Build what a suite tests; raises UserError when that fails."""
    if name == "stack":
        engine.current().check_stack_tests()
        bake.build(service_names(), "prod")


def command(session: Session, name: str, pytest_args: Sequence[str]) -> list[str]:
    """The command that runs a suite."""
    # With a slash: `-k docs` names no folder.
    named = any("/" in word and Path(word.partition("::")[0]).exists() for word in pytest_args)
    start = (venv.python(session), "-B", "-m", "pytest", *SUITES[name].options)
    return [*start, f"--junitxml={REPORTS}/junit-{name}.xml", *([] if named else paths(SUITES[name])), *pytest_args]


def write_plan(parts: Sequence[str]) -> None:
    """Print what there is to test, and hand it to GitHub Actions where this runs there: ``parts=["pilot", "unit"]``."""
    say(line := f"parts={json.dumps(parts)}")
    with Path(os.environ.get("GITHUB_OUTPUT") or os.devnull).open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
