"""`build`, and a shell beside a production container."""

from __future__ import annotations

import re
import sys

import pytest

from .clones import Clone, edit

pytestmark = pytest.mark.slow


def test_a_lock_that_is_out_of_date_is_told_in_one_line(clone: Clone) -> None:
    pyproject = clone.root / "pyproject.toml"
    text, changes = re.subn(r'"flask>=3[^"]*"', '"flask>=3.0.1,<4"', pyproject.read_text(), count=1)
    assert changes
    pyproject.write_text(text)
    said = clone.nox("-s", "build", code=1)
    clone.git("checkout", "--quiet", ".")
    assert "poetry.lock is out of date against pyproject.toml: run `nox -s lock`" in said


def test_a_service_cannot_replace_a_file_of_the_server(clone: Clone) -> None:
    edit(clone.root / "services/pilot/compose.yaml", "SERVICE: pilot\n", "SERVICE: pilot\n        PACKAGE: .\n")
    (clone.root / "services/pilot/gunicorn.conf.py").write_text("threads = 1\n")
    said = clone.nox("-s", "build", "--", "pilot", code=1)
    (clone.root / "services/pilot/gunicorn.conf.py").unlink()
    clone.git("checkout", "--quiet", ".")
    assert "error: services/pilot has a gunicorn.conf.py as the server has: rename it" in said


def test_tests_in_a_build_see_no_variables_of_the_build(clone: Clone) -> None:
    """numpy.f2py takes the first one for a number, if there is one; services have settings with the second's name."""
    names = {"SOURCE_DATE_EPOCH", "ENVIRONMENT"}
    test = clone.root / "services/pilot/tests/test_variables.py"
    test.write_text(f"import os\n\n\ndef test_variables() -> None:\n    assert {names}.isdisjoint(os.environ)\n")
    clone.nox("-s", "build", "--", "pilot")
    test.unlink()


def test_a_change_of_source_installs_nothing_and_builds_one_image(clone: Clone) -> None:
    clone.nox("-s", "build")
    with (clone.root / "services/pilot/pilot/__init__.py").open("a") as file:
        file.write("\n# A change.\n")
    text = clone.nox("-s", "build")
    clone.git("checkout", "--quiet", ".")
    assert "built pilot, pilot_verify in" in text
    assert "up to date: deck" in text
    assert "install" not in text


def test_a_shell_beside_a_production_container_sees_its_files(clone: Clone) -> None:
    production = {"COMPOSE_FILE": "docker/compose.prod.yaml", "COMPOSE_ENV_FILES": ".env"}
    production |= {"PILOT_PORT": "0", "DECK_PORT": "0"}
    clone.nox("-s", "build")
    command = (sys.executable, "-m", "nox", "-s", "shell", "--", "pilot", "--prod")
    try:
        clone.compose("up", "--detach", "--wait", **production)
        text = clone.output(*command, stdin="cat pilot/__init__.py; ls -l /proc/1/exe\n")
    finally:
        clone.compose("down", **production)
    assert "def create_app" in text
    assert "python3" in text
    assert "no container of pilot is running" in clone.nox("-s", "shell", "--", "pilot", "--prod", code=1)
    assert clone.left("container", "network") == []
