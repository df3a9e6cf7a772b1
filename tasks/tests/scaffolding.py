"""What the tests of scaffold/ share: a small project in place of this one, git, and sessions run for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import cast

import pytest
from nox import Session

from .. import changes, project, venv
from ..scaffold import groups, like, service

PYPROJECT = """\
[project]
name = "ours"
requires-python = ">=3.11,<4"

[dependency-groups]
# The first.
pilot = ["flask"]
# Tools.
tests = [
    "hypothesis>=6,<7",
    "pytest>=9,<10",
]

[tool.poetry]
package-mode = false

# Where our own packages are.
[tool.poetry.group]
pilot.dependencies.paper = {path = "libs/paper", develop = true}
pilot.dependencies.ink = {path = "libs/ink", develop = true}

[tool.stack.budgets]  # The most that images may weigh.
"pilot:prod" = {raw = "32 MB"}

[tool.pytest]
minversion = "9.0"
"""
LOCK = """\
[[package]]
name = "pytest"
groups = ["tests"]

[[package]]
name = "click"
groups = ["pilot", "second"]
"""
NO_SESSION = cast("Session", None)


def small_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one service, pilot, in git; Poetry is not called, and pyproject.toml is edited in this process."""
    for path, text in {
        "pyproject.toml": PYPROJECT,
        "poetry.lock": LOCK,
        "docker/compose.yaml": "# All services.\ninclude:\n  - ../services/pilot/compose.yaml\n\n# More.\n",
        "services/pilot/compose.yaml": "services:\n  pilot:\n    image: x\n  pilot-database:\n    image: y\n",
        "libs/paper/paper/__init__.py": "",
        "libs/ink/ink/__init__.py": "",
        ".gitignore": ".nox/\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    for module in (project, changes):
        monkeypatch.setattr(module, "ROOT", root)
    for module in (project, service, like):
        monkeypatch.setattr(module, "SERVICES", root / "services")
    monkeypatch.setattr(service, "STACK", root / "docker/compose.yaml")
    monkeypatch.setattr(service, "LOCK", root / "poetry.lock")
    monkeypatch.setattr(
        service, "EDITED", tuple(root / path for path in ("pyproject.toml", "docker/compose.yaml", "poetry.lock"))
    )
    monkeypatch.setattr(service, "REMOVED", root / ".nox/removed")
    monkeypatch.setattr(venv, "poetry", lambda *_, **__: None)
    monkeypatch.setattr(service, "edit_group", lambda _, *words: groups.main(root / "pyproject.toml", *words))
    git(root, "init", "-q")
    commit(root)
    return root


def make(name: str, model: str = "", kind: str = "flask") -> None:
    """Make a service in the small project, as `nox -s new` does."""
    with service.all_or_nothing(name):
        service.new(NO_SESSION, Namespace(name=name, like=model, kind=kind))


def take_away(name: str) -> None:
    """Remove a service of the small project, as `nox -s remove` does."""
    with service.all_or_nothing(name):
        service.remove(NO_SESSION, name)


def git(root: Path, *args: str) -> str:
    """What git answers in a folder, as somebody."""
    settings = ("-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "maintenance.auto=false")
    done = subprocess.run(["git", *settings, *args], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def commit(root: Path) -> str:
    """Commit everything and return the commit's id."""
    git(root, "add", "--all")
    git(root, "commit", "-q", "--allow-empty", "-m", "all")
    return git(root, "rev-parse", "HEAD").strip()


def in_git(clone: Path) -> None:
    """Commit a clone's files, with the modes that they have here."""
    for path in clone.rglob("*"):
        shutil.copymode(project.ROOT / path.relative_to(clone), path)
    git(clone, "init", "-q")
    commit(clone)


def real(root: Path, session: str, *args: str, code: int = 0, **environment: str) -> str:
    """Run a session in a clone, with its virtual environment and the machine's own Docker; return what it says."""
    path = os.environ["PATH"].partition(os.pathsep)[2]  # without the folder that conftest.py puts in front
    command = [sys.executable, "-m", "nox", "-s", session, *args]
    env = {**os.environ, "PATH": path, **environment}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# Projects to adopt.
FLASK = "from flask import Flask\n"
APP = f"{FLASK}app = Flask(__name__)\n"
FACTORY = f"{FLASK}\n\ndef create_app(config=None):\n    app = Flask(__name__)\n    return app\n"
DJANGO = {
    "shop/__init__.py": "",
    "shop/settings.py": "INSTALLED_APPS = ['cart']\n",
    "shop/wsgi.py": "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n",
    "shop/asgi.py": "from django.core.asgi import get_asgi_application\napplication = get_asgi_application()\n",
    "cart/__init__.py": "",
    "manage.py": "",
}
