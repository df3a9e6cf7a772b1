"""The sessions' command lines."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from .. import changes, cli, venv
from ..shell import UserError

pytestmark = pytest.mark.usefixtures("project")
of_test = partial(cli.test, suites=["unit", "stack", "template"], by_default=["unit", "stack"])
EVERY = ["other", "pilot"]


@pytest.mark.parametrize(
    ("posargs", "expected"),
    [
        ([], (EVERY, ["unit", "stack"], [])),
        (["pilot"], (["pilot"], [], [])),
        (["pilot", "-k", "limit"], (["pilot"], [], ["-k", "limit"])),
        (["-k", "limit"], (EVERY, ["unit", "stack"], ["-k", "limit"])),
        (["pilot", "tests/test_pilot.py::test_json"], (["pilot"], [], ["tests/test_pilot.py::test_json"])),
        (["unit"], ([], ["unit"], [])),
        (["stack", "pilot"], (["pilot"], ["stack"], [])),
        (["template", "-m", "slow"], ([], ["template"], ["-m", "slow"])),
        (["pilot", "-x", "--", "-y"], (["pilot"], [], ["-x", "-y"])),
        (["--watch", "-x"], (EVERY, [], ["-x"])),
    ],
)
def test_what_test_runs(posargs: list[str], expected: tuple[object, ...]) -> None:
    args = of_test(posargs)
    assert (args.services, args.suites, args.pytest) == expected


def test_without_services_the_suites_remain(project: Path) -> None:
    shutil.rmtree(project / "services")
    (project / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    args = of_test([])
    assert (args.services, args.suites) == ([], ["unit", "stack"])


def test_help_tells_what_test_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        of_test(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("usage: nox -s test -- [SERVICE... | unit | stack | template] [--since REF]")
    assert "-m slow" in told


def test_the_log_is_everyones_unless_services_are_named() -> None:
    assert cli.logs([]) == []
    assert cli.logs(["pilot"]) == ["pilot"]
    assert cli.logs(["pilot-postgres"], ["pilot", "pilot-postgres"]) == ["pilot-postgres"]
    with pytest.raises(UserError, match=r"no service 'postgres'; .*pilot \(or pilot-postgres\)"):
        cli.logs(["postgres"], ["pilot", "pilot-postgres"])


def test_services_are_those_named_or_all() -> None:
    assert cli.services("remove", ["pilot"], one=True) == ["pilot"]
    assert cli.services("audit", []) == EVERY


def test_since_leaves_what_a_change_affects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "services_since", lambda ref: {"main": ["pilot"], "old": []}[ref])
    assert of_test(["--since", "main"]).services == ["pilot"]
    assert of_test(["other", "--since", "main"]).services == []
    assert cli.build(["--since", "main"]).services == ["pilot"]
    assert cli.build(["--since", "old"]).services == []
    assert cli.build(["--since", ""]).services == EVERY  # CI, where it is no pull request
    assert cli.plan(["--since", ""]) is None
    assert cli.plan(["--since", "main"]) == "main"


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (partial(cli.build, []), {"services": EVERY, "flavor": "prod", "then": []}),
        (partial(cli.build, ["pilot", "--flavor", "slim"]), {"services": ["pilot"], "flavor": "slim"}),
        (partial(cli.build, ["--sbom"]), {"then": [venv.sbom]}),
        (partial(cli.dev, []), {"services": EVERY, "detach": False, "debug": "", "attach": ""}),
        (partial(cli.dev, ["other", "--debug", "pilot"]), {"services": ["other", "pilot"], "debug": "pilot"}),
        (partial(cli.dev, ["--debug", "pilot"]), {"services": EVERY, "debug": "pilot"}),
        (partial(cli.sizes, []), {"services": EVERY, "flavor": ["prod"], "against": None}),
        (partial(cli.sizes, ["--flavor=slim", "--flavor=prod"]), {"flavor": ["slim", "prod"]}),
        (partial(cli.sizes, ["--json", "x"]), {"json": Path("x"), "markdown": None}),
        (partial(cli.shell, ["pilot"]), {"services": ["pilot"], "prod": False, "command": []}),
        (partial(cli.shell, ["pilot", "ls", "-l"]), {"prod": False, "command": ["ls", "-l"]}),
        (partial(cli.shell, ["pilot", "--prod"]), {"prod": True, "command": []}),
        (partial(cli.shell, ["--prod", "pilot", "ls"]), {"prod": True, "command": ["ls"]}),
        (partial(cli.new, ["a"]), {"name": "a", "like": "", "kind": "flask"}),
        (partial(cli.new, ["a", "--kind", "worker"]), {"name": "a", "kind": "worker"}),
        (partial(cli.flags, "lint", ["--fix"], "--fix"), {"fix": True}),
    ],
)
def test_what_a_session_takes(args: Callable[[], argparse.Namespace], expected: dict[str, Any]) -> None:
    found = vars(args())
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("parse", "told"),
    [
        (partial(cli.build, ["polit"]), "there is no service 'polit'; the services are: other, pilot"),
        (partial(cli.build, ["../pilot"]), "there is no service '../pilot'"),
        (partial(cli.dev, ["--debug", "polit"]), "there is no service 'polit'; the services are: other, pilot"),
        (partial(of_test, ["polit"]), "the services are: other, pilot (or unit, stack, template)"),
        (partial(of_test, [""]), "there is no service ''; the services are: other, pilot"),  # an unset variable's
        (partial(of_test, ["unit", "--watch"]), "--watch reruns services' tests, and cannot be combined with unit"),
    ],
)
def test_a_wrong_name_is_told(parse: Callable[[], object], told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        parse()


@pytest.mark.parametrize(
    ("parse", "told"),
    [
        (partial(cli.build, ["--flavour"]), "nox -s build --: error: unrecognized arguments: --flavour"),
        (partial(cli.build, ["--flav", "slim"]), "unrecognized arguments: --flav"),
        (partial(cli.build, ["--flavor", "tiny"]), "nox -s build --: error: argument --flavor: invalid choice: 'tiny'"),
        (partial(cli.flags, "down", ["pilot"]), "nox -s down --: error: unrecognized arguments: pilot"),
        (partial(cli.dev, ["--attach", "pilot"]), "nox -s dev --: error: --attach needs a terminal"),
        (partial(cli.shell, []), "nox -s shell --: error: the following arguments are required: SERVICE\n"),
        (partial(cli.sizes, ["--json"]), "nox -s sizes --: error: argument --json: expected one argument"),
        (partial(cli.new, ["a", "--kind=worker", "--like=pilot"]), "goes with neither --like nor --from"),
        (partial(cli.name, "rename", []), "nox -s rename --: error: the following arguments are required: NAME"),
    ],
)
def test_a_wrong_option_is_told(
    parse: Callable[[], object], told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(SystemExit):
        parse()
    assert told in capsys.readouterr().err


def test_attach_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    args = cli.dev(["--attach", "pilot"])
    assert (args.attach, args.services) == ("pilot", EVERY)
    assert cli.dev(["other", "--attach", "pilot"]).services == ["other", "pilot"]


def test_optional_parts_add_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.OPTIONS, "new", [lambda parser: parser.add_argument("--with")])
    assert vars(cli.new(["a", "--with", "b"]))["with"] == "b"


def test_poetry_runs_for_the_service_that_is_named_first(project: Path) -> None:
    assert cli.lock([]) == ["lock"]
    assert cli.lock(["add", "--lock", "x"]) == ["add", "--lock", "x"]
    assert cli.lock(["update"]) == ["update", "--lock"]  # and nothing is installed
    file = project / "services/pilot/pyproject.toml"
    for text in ("[tool.pytest]\n", "[project]\n"):
        with pytest.raises(UserError, match=r"no \[project\] in services/pilot/pyproject.toml: leave out --service"):
            cli.lock(["--service", "pilot"])
        file.write_text(text)
    assert cli.lock(["--service", "pilot"]) == ["--directory=services/pilot", "lock"]
    assert cli.lock(["--service", "pilot", "add", "x"]) == ["--directory=services/pilot", "add", "--lock", "x"]
    with pytest.raises(SystemExit):
        cli.lock(["--service"])
