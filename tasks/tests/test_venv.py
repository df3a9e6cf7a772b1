"""Virtual environments: installed once, at the locked versions, from the index that is set, whose password nobody sees."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from nox import Session
from nox.command import CommandFailed

from .. import env, venv
from ..shell import UserError
from .conftest import write_tool

INDEX = "https://user:secret@mirror/simple"
LOCK = """
[[package]]
name = "a"
version = "1"
[[package]]
name = "b"
version = "1"
[[package]]
name = "b"
version = "2"
[[package]]
name = "c"
version = "1+cpu"
groups = ["host"]
source = {type = "legacy", url = "https://more/simple", reference = "more"}
[[package]]
name = "plain"
version = "0"
groups = ["host"]
source = {type = "directory", url = "libs/plain"}
"""


class FakeSession:
    """A session whose installer only records what it is to do, or fails."""

    def __init__(self, folder: Path) -> None:
        self.bin = str(folder)
        self.virtualenv = SimpleNamespace(location=str(folder))
        self.installed: list[tuple[str, ...]] = []
        self.env: dict[str, str] = {}
        self.fails = False

    def install(self, *arguments: str, env: dict[str, str]) -> None:
        self.installed.append(arguments)
        self.env = env
        if self.fails:
            raise CommandFailed


@pytest.fixture
def fake(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    (project / ".nox").mkdir()
    (project / "poetry.lock").write_text(LOCK)
    (tmp_path / "venv").mkdir()
    write_tool(
        tmp_path / "venv/poetry", f'echo "$* with $POETRY_PYPI_MIRROR_URL $REQUESTS_CA_BUNDLE" >>{tmp_path}/asked'
    )
    write_tool(tmp_path / "venv/python", "echo https://from-pip/simple")
    monkeypatch.setattr(env, "ca_bundle", lambda: "/ca.crt")
    monkeypatch.setattr(venv, "ca_bundle", lambda: "/ca.crt")
    return FakeSession(tmp_path / "venv")


def session_of(fake: FakeSession) -> Session:
    return cast("Session", fake)


@pytest.mark.usefixtures("fake")
def test_constraints_pin_what_the_lock_pins_and_name_further_indexes(project: Path) -> None:
    assert venv.constraints("other") == "a==1\nc==1+cpu\n"
    assert venv.constraints("other", "host") == "--extra-index-url=https://more/simple\na==1\nc==1+cpu\n"
    (project / "poetry.lock").unlink()
    with pytest.raises(UserError, match="nox -s lock"):
        venv.constraints()


def test_groups_are_installed_once_for_each_state_of_the_lock(fake: FakeSession, project: Path) -> None:
    group = "[dependency-groups]\nhost = ['a>=1', 'plain']\nother = []\npilot = []\n[tool.poetry.group]\n"
    lib = "host.dependencies.plain = {path = 'libs/plain', develop = true}\n"
    (project / "pyproject.toml").write_text(f"[project]\nname = 'ours'\n{group}{lib}")
    (project / "libs/plain/plain").mkdir(parents=True)
    venv.install(session_of(fake), "host")
    venv.install(session_of(fake), "host")
    constraints = Path(fake.virtualenv.location) / "host.txt"
    assert fake.installed == [("--constraint", str(constraints), "a>=1", "--editable", "libs/plain")]
    assert "\na==1\n" in constraints.read_text()
    (project / "poetry.lock").write_text(LOCK.replace('"1"', '"3"', 1))
    venv.install(session_of(fake), "host")
    assert len(fake.installed) == 2


def test_many_groups(fake: FakeSession, project: Path) -> None:
    """Those of a hundred services, which `lint` installs; no file's name is that long."""
    names = [f"service-{number}" for number in range(100)]
    (project / "pyproject.toml").write_text("[dependency-groups]\n" + "".join(f"{name} = ['a']\n" for name in names))
    for _ in range(2):
        venv.install(session_of(fake), *names)
    assert len(fake.installed) == 1


def test_the_installer_gets_the_index_and_does_not_wait_for_ever(
    fake: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.pip(session_of(fake), "x")
    expected = {"PIP_TIMEOUT": "15", "PIP_RETRIES": "1", "UV_COMPILE_BYTECODE": "1"}
    expected["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # all have the lock's versions
    assert fake.env == expected | {"SSL_CERT_FILE": "/ca.crt"}  # private authorities, of which uv knows nothing
    monkeypatch.setenv("STACK_CA", "/private.crt")
    venv.pip(session_of(fake), "x")
    assert fake.env["SSL_CERT_FILE"] == "/private.crt"
    monkeypatch.setenv("STACK_CA", "")
    monkeypatch.setattr(venv, "ca_bundle", lambda: "")
    venv.pip(session_of(fake), "x")
    assert fake.env == expected
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    venv.pip(session_of(fake), "x")
    assert fake.env["PIP_INDEX_URL"] == fake.env["UV_DEFAULT_INDEX"] == INDEX
    fake.fails = True
    with pytest.raises(UserError, match="packages could not be installed"):
        venv.pip(session_of(fake), "x")


def test_an_interrupt_that_nox_keeps_to_itself_ends_the_session(
    fake: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its installer has ended well, right after the signal."""
    monkeypatch.setattr(venv, "INTERRUPTED", [15])
    with pytest.raises(KeyboardInterrupt):
        venv.pip(session_of(fake), "x")


def test_poetry_asks_the_index_that_pip_asks_and_trusts_the_same_cas(fake: FakeSession, tmp_path: Path) -> None:
    venv.poetry(session_of(fake), "lock")
    env.ENV.write_text(f"PIP_INDEX_URL={INDEX}\nSTACK_CA=/private.crt\n")
    venv.poetry(session_of(fake), "add", "x")
    assert (tmp_path / "asked").read_text().splitlines() == [
        "lock with https://from-pip/simple /ca.crt",
        f"add x with {INDEX} /private.crt",
    ]


def test_a_package_for_newer_pythons_is_told(fake: FakeSession) -> None:
    said = "- numpy requires Python !=3.14.1,>=3.12, so it will not be installable for Python >=3.11,<3.12"
    write_tool(Path(fake.bin) / "poetry", f'echo "Using version"; echo "  {said}" >&2; exit 1')
    told = r"nothing was changed; numpy needs Python (!=3\.14\.1,>=3\.12): add --python '\1' \(see docs/conf"
    with pytest.raises(UserError, match=told):
        venv.poetry(session_of(fake), "add", "numpy")


@pytest.mark.parametrize("code", [0, 1])
def test_the_indexs_password_is_not_shown(
    fake: FakeSession, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], code: int
) -> None:
    """Poetry, other than pip and uv, tells it when the index does not answer."""
    monkeypatch.setenv("PIP_INDEX_URL", INDEX)
    said = "All attempts to connect to user:secret@mirror failed."
    write_tool(Path(fake.bin) / "poetry", f'echo "{said}"; echo "$POETRY_PYPI_MIRROR_URL" >&2; exit {code}')
    told = ""
    try:
        venv.poetry(session_of(fake), "source", "add", INDEX)
    except UserError as error:
        told = str(error)
    assert bool(told) == bool(code)
    captured = capfd.readouterr()
    assert "All attempts to connect to ***@mirror failed.\nhttps://***@mirror/simple\n" in captured.out
    assert "secret" not in captured.out + captured.err + told


def test_an_sbom_is_written_for_each_image(fake: FakeSession, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "install", lambda _session, *groups: fake.installed.append(groups))
    write_tool(Path(fake.bin) / "syft", 'echo "$*"; echo "a warning" >&2')
    venv.sbom(session_of(fake), ["ours/pilot:prod"])
    assert fake.installed == [("report",)]
    written = (project / "reports/sbom-pilot-prod.cdx.json").read_text()
    assert written == "scan docker:ours/pilot:prod --output=cyclonedx-json\n"


def test_an_interrupted_scan_leaves_nothing_and_shows_no_traceback(
    fake: FakeSession, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(venv, "install", lambda *_: None)
    unpack = f'mkdir "$TMPDIR/unpacked"; echo "$TMPDIR" >{project}/scratch; kill -INT $PPID'
    write_tool(
        Path(fake.bin) / "syft",
        f"trap 'echo Traceback >&2; exit 130' INT; echo half; {unpack}; while :; do sleep 0.05; done",
    )
    with pytest.raises(KeyboardInterrupt):
        venv.sbom(session_of(fake), ["ours/pilot:prod"])
    assert "".join(capfd.readouterr()) == ""
    assert list((project / "reports").iterdir()) == []
    assert not Path((project / "scratch").read_text().strip()).exists()


def test_python_is_the_sessions(fake: FakeSession) -> None:
    assert venv.python(session_of(fake)) == str(Path(fake.bin) / "python")
    assert venv.python(session_of(fake)) != sys.executable
