"""A user's mistake: one clear line, a non-zero exit, no traceback, nothing left behind."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from .. import project
from ..images import bases
from ..project import ROOT, service_names
from ..shell import UserError
from .conftest import pretend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Nox = Callable[..., subprocess.CompletedProcess[str]]


GROUPS = "[project]\nname = 'x'\n[dependency-groups]\n" + "".join(f"{name} = []\n" for name in service_names())


def tell(done: subprocess.CompletedProcess[str]) -> str:
    """The line that tells the mistake."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if "Prerequisite session" not in line]
    told = [line for line in lines if " aborted: " in line or ": error: " in line]
    assert len(told) == 1, done.stderr
    return told[0]


def everything(folder: Path) -> set[Path]:
    ours = {"__pycache__", ".nox", ".secrets"}  # what a session that goes well makes, too
    return {path for path in folder.rglob("*") if not ours & set(path.parts)}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("build", "--", "ehco"), "there is no service 'ehco'; the services are: {services}"),
        (("build", "--", "../echo"), "there is no service '../echo'"),
        (("test", "--", "ehco"), "there is no service 'ehco'; the services are: {services} (or unit, stack"),
        (
            ("test", "--", "unit", "--watch"),
            "--watch reruns services' tests in their containers, and goes not with unit",
        ),
        (("test", "--", "--local", "--watch"), "and goes not with --local"),
        (("build", "--", "--flavour"), "nox -s build --: error: unrecognized arguments: --flavour"),
        (("down", "--", "echo"), "nox -s down --: error: unrecognized arguments: echo"),
        (("dev", "--", "--debug", "ehco"), "there is no service 'ehco'; the services are: {services}"),
        (("dev", "--", "--local", "--debug", "echo"), "nox -s dev --: error: --debug and --attach need containers"),
        (("dev", "--", "--attach", "echo"), "nox -s dev --: error: --attach needs a terminal"),
        (("shell",), "nox -s shell --: error: the following arguments are required: SERVICE"),
        (("sizes", "--", "--json"), "nox -s sizes --: error: argument --json: expected one argument"),
    ],
)
def test_arguments(nox: Nox, clone: Path, no_docker: Path, args: tuple[str, ...], told: str) -> None:
    pretend(no_docker)
    images = ["STACK_BASE", *(f"STACK_{recipe.upper()}" for recipe in bases.needed())]
    (clone / ".env").write_text("".join(f"{image}=one:that-is-there\n" for image in images))
    before = everything(clone)
    assert told.replace("{services}", ", ".join(service_names())) in tell(nox("-s", *args))
    assert everything(clone) == before


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("pyproject.toml", "[project\n", "pyproject.toml does not parse: "),
        ("pyproject.toml", "[project]\nname = 'x'\n", "pyproject.toml has no dependency group 'echo'"),
        ("pyproject.toml", f"{GROUPS}lost = []\n", "no services/lost"),
        (
            "pyproject.toml",
            f"{GROUPS}[tool.poetry.group]\necho.dependencies.x = {{path = 'libs/x'}}\n",
            "no package libs/x/x",
        ),
        ("services/new/empty", "", "services/new has no compose.yaml"),
    ],
)
def test_broken_files(nox: Nox, clone: Path, file: str, text: str, told: str) -> None:
    (clone / file).parent.mkdir(exist_ok=True)
    (clone / file).write_text(text)
    assert told in tell(nox("-s", "plan"))


def test_a_project_name_that_cannot_name_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'Not A Name'\n")
    monkeypatch.setattr(project, "ROOT", tmp_path)
    with pytest.raises(UserError, match="name must be lower-case letters"):
        project.clone_id()


def test_no_engine_names_the_way_out(nox: Nox, no_docker: Path) -> None:
    (no_docker / "docker").unlink()
    told = tell(nox("-s", "build", PATH=str(no_docker), STACK_SETUP="never"))
    assert "missing or not running: engine, compose, buildx" in told
    assert "nox -s dev -- --local" in told


def test_from_a_sub_folder(clone: Path) -> None:
    command = [sys.executable, "-m", "nox", "-l"]
    done = subprocess.run(command, cwd=clone / "services", capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "noxfile.py" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_is_told_in_one_line() -> None:
    """The first lines of noxfile.py must be good for any Python 3 that can run nox."""
    source = (ROOT / "noxfile.py").read_text()
    ast.parse(source, feature_version=(3, 8))
    head, _, _ = source.partition("import functools")
    older = head.replace("sys.version_info < (3, 11)", "sys.version_info < (99,)")
    assert older != head
    done = subprocess.run([sys.executable, "-c", older], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Python 3.11 or newer is needed on the host")
    assert len(done.stderr.splitlines()) == 1
