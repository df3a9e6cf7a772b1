"""Existing projects adopted by real sessions, one of them a project that nobody here wrote."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ..scaffold import requirements
from .scaffolding import APP, FACTORY, commit, git, in_git, real

Write = Callable[[Mapping[str, str]], Path]

pytestmark = pytest.mark.slow


def test_poetrys_own_dependencies(clone: Path, write: Write) -> None:
    in_git(clone)
    lines = """[tool.poetry]
package-mode = false
[tool.poetry.dependencies]
python = "3.12.1"
flask = "^3.1"
itsdangerous = {version = "~2.2", extras = ["x"], markers = "sys_platform == 'linux'"}
blinker = [{version = "<1.8", python = "<3.12"}, {version = ">=1.9", python = ">=3.12"}]
"""
    source = write({"blog/__init__.py": FACTORY, "pyproject.toml": lines})
    told = real(clone, "new", "--", "blog", "--from", str(source))
    assert "warning: it asks for Python ==3.12.1, images have " in told
    group = tomllib.loads((clone / "pyproject.toml").read_text())["dependency-groups"]["blog"]
    wanted = {one.name: one for one in map(Requirement, group)}
    assert wanted["flask"].specifier == Requirement("flask>=3.1,<4.0").specifier
    assert wanted["itsdangerous"].specifier == Requirement("x>=2.2,<2.3").specifier
    assert wanted["blinker"].specifier == Requirement("x>=1.9").specifier
    real(clone, "remove", "--", "blog")
    assert git(clone, "status", "--porcelain") == ""


def test_a_pipfile(clone: Path, write: Write) -> None:
    in_git(clone)
    lines = """[packages]
flask = "*"
"Its.Dangerous" = {version = "~=2.2", extras = ["x"], markers = "python_version > '3' or os_name == 'nt'"}
a = {git = "https://h.invalid/a.git", ref = "v1"}
b = {file = "https://h.invalid/b.zip"}
[dev-packages]
pytest = "*"
[requires]
python_version = "3.6"
"""
    source = write({"blog/__init__.py": FACTORY, "Pipfile": f"{lines}x = ?\n"})
    told = real(clone, "new", "--", "blog", "--from", str(source), code=1)
    assert re.search(r"/Pipfile: Poetry cannot read it: .*\(at line 10, column 5\)", told)
    (source / "Pipfile").write_text(lines)
    program = requirements.PIPENV
    python = clone / ".nox/new/bin/python"
    answer = subprocess.run([python, "-c", program, source], check=True, capture_output=True, text=True).stdout
    needs, pythons = json.loads(answer)
    assert pythons == ["==3.6.*"]
    assert [str(Requirement(line)) for line in needs["main"]] == [
        "flask",
        'Its.Dangerous[x]<3.0,>=2.2; python_version > "3" or os_name == "nt"',
        "a @ git+https://h.invalid/a.git@v1",
        "b @ https://h.invalid/b.zip",
    ]
    assert needs["dev"] == ["pytest"]
    (source / "Pipfile").write_text("[packages]\nflask = '>=3.1,<4'\n")
    real(clone, "new", "--", "blog", "--from", str(source))
    group = tomllib.loads((clone / "pyproject.toml").read_text())["dependency-groups"]["blog"]
    assert Requirement(group[0]) == Requirement("flask>=3.1,<4")


def test_flasks_own_tutorial_is_adopted_as_it_is(clone: Path, tmp_path: Path) -> None:
    """The example application in Flask's source distribution, written by Flask's makers: its own tests pass here."""
    in_git(clone)
    real(clone, "lock", "--", "--version")  # which brings pip
    pip = (str(clone / ".nox/lock/bin/python"), "-m", "pip")
    fetch = [*pip, "download", "-q", "--no-deps", "--no-binary=:all:", "-d", str(tmp_path), "flask==3.1.3"]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Flask's source distribution is not to be had: {done.stderr.splitlines()[-1]}")
    subprocess.run(["tar", "xf", next(tmp_path.glob("flask-*.tar.gz"))], cwd=tmp_path, check=True)
    tutorial = next(tmp_path.glob("flask-*/examples/tutorial"))
    real(clone, "new", "--", "blog", "--from", str(tutorial))
    for path in (tutorial / "flaskr").rglob("*.*"):
        assert (
            clone / "services/blog/flaskr" / path.relative_to(tutorial / "flaskr")
        ).read_bytes() == path.read_bytes()
    try:
        assert "24 passed" in real(clone, "test", "--", "blog")
        assert "built blog" in real(clone, "build", "--", "blog")
    finally:
        real(clone, "clean")
    real(clone, "remove", "--", "blog")
    assert git(clone, "status", "--porcelain") == ""


def test_pins_that_do_not_go_with_the_other_services(clone: Path, write: Write) -> None:
    in_git(clone)
    asks = 'from importlib.metadata import version\n\n\n@app.get("/")\ndef names():\n'
    asks += '    return " ".join(version(name) for name in ("flask", "typing_extensions", "old-blog"))\n'
    test = (
        'from app import app\n\n\ndef test_it():\n    assert app.test_client().get("/").text == "3.0.0 4.8.0 1.2.3"\n'
    )
    source = write(
        {
            "app.py": APP + asks,
            "requirements.txt": "Flask==3.0.0\ntyping_extensions==4.8.0\nwatchfiles==0.24.0\n",  # which live reload needs, too
            "setup.cfg": "[metadata]\nname = old-blog\nversion = 1.2.3\n",
            "tests/test_app.py": test,
        }
    )
    said = real(clone, "new", "--", "blog", "--from", str(source))
    assert "services/blog gets a pyproject.toml and a poetry.lock of its own" in said
    assert git(clone, "diff", "--name-only").split() == ["docker/compose.yaml"]
    commit(clone)
    try:
        assert "1 passed" in real(clone, "test", "--", "blog")
        assert "built blog" in real(clone, "build", "--", "blog")
        path = clone / "services/blog/pyproject.toml"  # without its own tools, it has the shared ones
        path.write_text(re.sub(r"\[dependency-groups\]\ntests = \[[^]]*\]\n", "", path.read_text()))
        real(clone, "lock", "--", "--service", "blog", "add", "--lock", "packaging==21.3")
        told = real(clone, "test", "--", "blog", code=1)
        assert "the shared group tests does not go with blog's own lock: pytest" in told
        git(clone, "checkout", "-q", ".")
    finally:
        real(clone, "clean")
    real(clone, "remove", "--", "blog")
    git(clone, "add", "--all")
    assert git(clone, "diff", "--cached", "--name-only", "HEAD~1") == ""


def test_versions_of_a_lock_and_of_the_other_services(clone: Path, write: Write) -> None:
    in_git(clone)
    locked = {"flask": "3.0.1", "werkzeug": "3.0.1", "jinja2": "3.1.4", "click": "8.1.7"}
    lines = [f'[[package]]\nname = "{name}"\nversion = "{version}"\n' for name, version in locked.items()]
    project = '[project]\nname = "x"\nversion = "1"\ndependencies = ["flask>=3"]\n'
    source = write({"app.py": APP, "pyproject.toml": project, "uv.lock": "".join(lines)})
    said = real(clone, "new", "--", "blog", "--from", str(source))
    assert "services/blog gets a pyproject.toml and a poetry.lock of its own: it has the versions" in said
    packages = tomllib.loads((clone / "services/blog/poetry.lock").read_text())["package"]
    assert locked.items() <= {package["name"]: package["version"] for package in packages}.items()
    (source / "uv.lock").unlink()
    (source / "pyproject.toml").write_text(project.replace(">=3", "==3.1.0"))
    said = real(clone, "new", "--", "shop", "--from", str(source))
    assert "of its own: the others have flask 3." in said
    assert git(clone, "diff", "--name-only").split() == ["docker/compose.yaml"]


def test_tests_that_need_what_production_needs_too(clone: Path, write: Write) -> None:
    in_git(clone)
    files = {
        "app.py": APP,
        "tests/test_app.py": "import typing_extensions\n\n\ndef test_it():\n    assert typing_extensions\n",
    }
    # referencing needs it before Python 3.13; Hypothesis, a test tool, needs sortedcontainers.
    lists = {
        "requirements.txt": "flask\nreferencing\nsortedcontainers\n",
        "requirements-test.txt": "typing-extensions\n",
    }
    source = write(files | lists)
    real(clone, "new", "--", "blog", "--from", str(source))
    # What Hypothesis needs, too, is among its own tools; greenlet is in C++.
    (source / "requirements.txt").write_text("flask\n")
    tools = "pytest-asyncio==0.24.0\nsortedcontainers\ngreenlet\ntyping-extensions\n"
    (source / "requirements-test.txt").write_text(tools)
    (source / "tests/test_more.py").write_text("import greenlet\n\n\ndef test_it():\n    assert greenlet\n")
    real(clone, "new", "--", "shop", "--from", str(source))
    assert '"pytest-asyncio==0.24.0"' in (clone / "services/shop/pyproject.toml").read_text()
    try:
        assert "built blog" in real(clone, "build", "--", "blog", "shop")
    finally:
        real(clone, "clean")
