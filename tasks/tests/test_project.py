from __future__ import annotations

import json
import subprocess
from random import Random
from typing import TYPE_CHECKING

import pytest

from .. import cli, project, venv
from .. import env as dotenv
from ..project import service_names
from ..shell import UserError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'ours'\n")
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(dotenv, "ENV", tmp_path / ".env")
    monkeypatch.setattr(dotenv, "ROOT", tmp_path)
    monkeypatch.setattr(dotenv, "SERVICES", tmp_path / "services")
    monkeypatch.setattr(venv, "ROOT", tmp_path)
    return tmp_path


def test_the_clones_name_follows_its_path(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = project.clone_id()
    monkeypatch.setattr(project, "ROOT", empty / ".")
    assert project.clone_id() == here
    (empty / "other").mkdir()
    (empty / "other" / "pyproject.toml").write_text("[project]\nname = 'ours'\n")
    monkeypatch.setattr(project, "ROOT", empty / "other")
    assert project.clone_id() != here
    assert project.clone_id().startswith("ours-")


def test_env_keeps_what_the_user_wrote(empty: Path) -> None:
    dotenv.write_env({"STACK_BASE": "base:1"})
    with dotenv.ENV.open("a") as file:
        file.write("ECHO_PORT=7000\n")
    dotenv.write_env({"STACK_BASE": "base:2"})
    text = dotenv.ENV.read_text()
    assert text.count("STACK_BASE=") == 1
    assert "STACK_BASE=base:2\n" in text
    assert text.endswith("ECHO_PORT=7000\n")
    assert dotenv.env()["ECHO_PORT"] == "7000"
    assert sorted(path.name for path in empty.iterdir() if path.is_file()) == [".env", "pyproject.toml"]


@pytest.mark.usefixtures("empty")
def test_an_env_of_the_users_own_wins() -> None:
    dotenv.ENV.write_text("STACK_BASE=mine:1\n")
    dotenv.write_env({"STACK_BASE": "base:1"})
    assert dotenv.env()["STACK_BASE"] == "mine:1"


@pytest.mark.usefixtures("empty")
def test_env_is_left_alone_when_nothing_changed() -> None:
    dotenv.write_env({"STACK_BASE": "base:1"})
    before = dotenv.ENV.stat().st_mtime_ns
    dotenv.write_env({"STACK_BASE": "base:1"})
    assert dotenv.ENV.stat().st_mtime_ns == before


def nasty_values() -> list[str]:
    """Values full of what quoting can get wrong."""
    chosen = ["/plain/path.crt", "it's $HOME", "a #b", "end\\", "q\\'s", "$$", "", " lead", "${X}", 'd"q\\"', "\\n"]
    random = Random(1)  # noqa: S311 (the same values in every run)
    return chosen + ["".join(random.choices("ab '\"\\$#={}n/ü", k=random.randrange(9))) for _ in range(300)]


@pytest.mark.usefixtures("empty")
def test_env_reads_what_it_writes() -> None:
    facts = {f"V{number}": value for number, value in enumerate(nasty_values())}
    dotenv.write_env(facts)
    found = dotenv.env()
    assert {name: found[name] for name in facts} == facts


def test_compose_reads_what_env_writes(empty: Path, docker: str) -> None:
    facts = {f"V{number}": value for number, value in enumerate(nasty_values())}
    dotenv.write_env(facts)
    environment = {name: f"${{{name}}}" for name in facts}
    (empty / "c.json").write_text(json.dumps({"services": {"a": {"image": "x", "environment": environment}}}))
    command = [docker, "compose", "--file=c.json", "config", "--format=json"]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
    if "unknown" in done.stderr:
        pytest.skip("this machine has no Docker Compose")
    seen = json.loads(done.stdout)["services"]["a"]["environment"]
    assert {name: value.replace("$$", "$") for name, value in seen.items()} == facts


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("P=7000 # mine", "7000"),
        ("P=a#b", "a#b"),
        ("export P = 'x' # y", "x"),
        ('P="a b"', "a b"),
        ("P=", ""),
        ("#P=1", None),
    ],
)
def test_env_lines_of_the_users_own(empty: Path, line: str, value: str | None) -> None:
    (empty / ".env").write_text(f"{line}\nQ=1\n")
    assert dotenv.env().get("P") == value
    assert dotenv.env()["Q"] == "1"


def test_constraints_pin_what_the_lock_pins(empty: Path) -> None:
    (empty / "poetry.lock").write_text(
        '[[package]]\nname = "a"\nversion = "1"\n[[package]]\nname = "b"\nversion = "1"\n[[package]]\nname = "b"\nversion = "2"\n'
    )
    with open(venv.constraints()) as file:  # noqa: PTH123
        assert file.read() == "a==1\n"
    (empty / "poetry.lock").unlink()
    with pytest.raises(UserError, match="nox -s lock"):
        venv.constraints()


@pytest.mark.parametrize(
    ("posargs", "expected"),
    [
        ([], (service_names(), ["unit", "stack"], False, [])),
        (["echo"], (["echo"], [], False, [])),
        (["echo", "-k", "limit"], (["echo"], [], False, ["-k", "limit"])),
        (["-k", "limit"], (service_names(), ["unit", "stack"], False, ["-k", "limit"])),
        (["echo", "tests/test_echo.py::test_json"], (["echo"], [], False, ["tests/test_echo.py::test_json"])),
        (["unit"], ([], ["unit"], False, [])),
        (["stack", "echo"], (["echo"], ["stack"], False, [])),
        (["--local"], (service_names(), ["unit"], True, [])),
        (["echo", "--local", "-x"], (["echo"], [], True, ["-x"])),
        (["--watch", "-x"], (service_names(), [], False, ["-x"])),
    ],
)
def test_what_test_runs(posargs: list[str], expected: tuple[object, ...]) -> None:
    args = cli.test(posargs)
    assert (args.services, args.house, args.local, args.pytest) == expected


def test_every_secret_is_made_once_and_for_this_clone_only(empty: Path) -> None:
    (empty / "services/a").mkdir(parents=True)
    (empty / "services/a/compose.yaml").write_text("secrets:\n  a-key: {file: ../../.secrets/a-key}\n")
    dotenv.write_secrets()
    made = empty / ".secrets/a-key"
    first = made.read_text()
    assert len(first) > 30
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert made.stat().st_mode & 0o777 == 0o644
    dotenv.write_secrets()
    assert made.read_text() == first
    made.unlink()
    dotenv.write_secrets()
    assert made.read_text() != first
