"""The settings in .env: what is written is read, by us and by Compose; and what is the user's stays."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from .. import env as dotenv
from ..shell import UserError

pytestmark = pytest.mark.usefixtures("project")


def test_what_the_user_wrote_stays_and_wins(project: Path) -> None:
    dotenv.write_env({"STACK_BASE": "base:1"})
    dotenv.ENV.write_text(f"{dotenv.ENV.read_text().rstrip()} \nPILOT_PORT=7000\n")  # a space behind our line
    dotenv.write_env({"STACK_BASE": "base:2", "PILOT_PORT": "5001"})
    text = dotenv.ENV.read_text()
    assert text.count("STACK_BASE=") == 1
    assert "STACK_BASE=base:2\n" in text
    assert text.endswith("PILOT_PORT=7000\n")
    assert dotenv.env()["PILOT_PORT"] == "7000"
    assert dotenv.chosen_by_user()["PILOT_PORT"] == "7000"
    assert "STACK_BASE" not in dotenv.chosen_by_user()
    assert {path.name for path in project.iterdir() if path.is_file()} == {".env", "pyproject.toml"}


def test_an_env_that_setup_has_not_written_is_the_users() -> None:
    dotenv.ENV.write_text("STACK_BASE=mine:1\n")
    dotenv.write_env({"STACK_BASE": "base:1"})
    assert dotenv.env()["STACK_BASE"] == "mine:1"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv.ENV.write_text("STACK_BASE=mine:1\n")
    monkeypatch.setenv("STACK_BASE", "mine:2")
    assert dotenv.env()["STACK_BASE"] == dotenv.chosen_by_user()["STACK_BASE"] == "mine:2"


def test_env_is_not_written_when_nothing_has_changed() -> None:
    dotenv.write_env({"STACK_BASE": "base:1"})
    before = dotenv.ENV.stat().st_mtime_ns
    dotenv.write_env({"STACK_BASE": "base:1"})
    assert dotenv.ENV.stat().st_mtime_ns == before


def values() -> dict[str, str]:
    """Values full of what quoting can get wrong."""
    chosen = ["/plain/path.crt", "it's $HOME", "a #b", "end\\", "q\\'s", "$$", "", " lead", "${X}", 'd"q\\"', "\\n"]
    random = Random(1)  # noqa: S311 (the same values in every run)
    more = ["".join(random.choices("ab '\"\\$#={}n/ü", k=random.randrange(9))) for _ in range(300)]
    return {f"V{number}": value for number, value in enumerate(chosen + more)}


def test_env_reads_what_it_writes() -> None:
    facts = values()
    dotenv.write_env(facts)
    found = dotenv.env()
    assert {name: found[name] for name in facts} == facts


def compose_sees(docker: str, project: Path, names: list[str]) -> dict[str, str]:
    """What `docker compose config` makes of variables in .env."""
    environment = {name: f"${{{name}}}" for name in names}
    (project / "c.json").write_text(json.dumps({"services": {"a": {"image": "x", "environment": environment}}}))
    command = [docker, "compose", "--file=c.json", "config", "--format=json"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    if "unknown" in done.stderr:
        pytest.skip("this machine has no Docker Compose")
    seen = json.loads(done.stdout)["services"]["a"]["environment"]
    return {name: value.replace("$$", "$") for name, value in seen.items()}


def test_compose_reads_what_env_writes(project: Path, docker: str) -> None:
    dotenv.write_env(values())
    assert compose_sees(docker, project, list(values())) == values()


LINES = {
    "P=7000 # mine": "7000",
    "P=a#b": "a#b",
    "export P = 'x' # y": "x",
    'P="a b"': "a b",
    r"P='it\'s'": "it's",
    "P=it's": "it's",
    r"P=it\'s": r"it\'s",
    "P=": "",
    "  P=x  ": "x",
    "P=$MINE/ca.crt": "/my own/ca.crt",
    'P="${MINE}/ca.crt"': "/my own/ca.crt",
    "P='$MINE'": "$MINE",
    "P=a$$b": "a$b",
    r'P="a\$MINE \\ \"b\""': r'a$MINE \ "b"',
    "P=a$NOWHERE": "a",
    "TOKEN=secret\nP=https://me:${TOKEN}@host/": "https://me:secret@host/",
    "MINE=other\nP=$MINE": "/my own",
    "P=https://me:${NOWHERE:-secret}@host/${MINE:-other}": "https://me:secret@host//my own",
    "NONE=\nP=${NONE:-a}$5": "a$5",
}


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "/my own")


@pytest.mark.parametrize(("line", "value"), [*LINES.items(), ("#P=1", None)])
def test_lines_of_the_users_own(line: str, value: str | None) -> None:
    dotenv.ENV.write_text(f"{line}\nQ=1\n")
    assert dotenv.env().get("P") == value
    assert dotenv.env()["Q"] == "1"


def test_compose_reads_the_users_lines_in_the_same_way(project: Path, docker: str) -> None:
    names = {line: f"P{number}" for number, line in enumerate(LINES)}
    dotenv.ENV.write_text("".join(line.replace("P", name, 1) + "\n" for line, name in names.items()))
    assert compose_sees(docker, project, list(names.values())) == dict(zip(names.values(), LINES.values(), strict=True))


def test_every_secret_is_made_once_and_for_this_clone_only(project: Path) -> None:
    mask = os.umask(0o077)  # of a user who keeps files private: containers must read these
    (project / "services/pilot/compose.yaml").write_text("secrets:\n  a-key: {file: ../../.secrets/a-key}\n")
    dotenv.write_secrets()
    os.umask(mask)
    made = project / ".secrets/a-key"
    first = made.read_text()
    assert len(first) > 30
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert made.stat().st_mode & 0o777 == 0o644
    dotenv.write_secrets()
    assert made.read_text() == first
    made.unlink()
    dotenv.write_secrets()
    assert made.read_text() != first


def test_the_ca_bundle_is_the_one_that_the_machine_trusts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine, systems = tmp_path / "mine.pem", tmp_path / "system.crt"
    monkeypatch.setattr(dotenv, "_CA_BUNDLES", (str(tmp_path / "none"), str(systems)))
    monkeypatch.setenv("SSL_CERT_FILE", str(mine))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    systems.touch()
    assert dotenv.ca_bundle() == str(systems.resolve())  # the variable names a file that is not there
    mine.touch()
    assert dotenv.ca_bundle() == str(mine.resolve())


@pytest.mark.usefixtures("project")
def test_what_an_editor_wrote_in_another_encoding_stays() -> None:
    dotenv.ENV.write_bytes("# für mich\nMINE=1\n".encode("latin-1"))
    dotenv.write_env({})
    assert dotenv.parse(dotenv.read())["MINE"] == "1"
    assert dotenv.ENV.read_bytes().endswith("# für mich\nMINE=1\n".encode("latin-1"))


def test_the_official_base_is_in_the_dockerfile(project: Path) -> None:
    (project / "docker/Dockerfile").write_text(
        "ARG STACK_BASE=official\nFROM python:3.13-slim AS official\nFROM ${STACK_BASE}\n"
    )
    assert dotenv.official_base() == "python:3.13-slim"
    (project / "docker/Dockerfile").write_text("FROM python\n")
    with pytest.raises(UserError, match=r"has no line `FROM \.\.\. AS official`"):
        dotenv.official_base()
