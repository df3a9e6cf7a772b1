"""The tests of an adopted project: where they are found, their settings, and the test tools that they get."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from .. import project, venv
from ..scaffold import requirements, resolve, service
from ..shell import CommandFailed
from .scaffolding import APP, DJANGO, NO_SESSION
from .test_adopt import adopting_project, take
from .test_resolve import CONFLICT, poetry

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return adopting_project(tmp_path / "ours", monkeypatch)


def test_what_its_tests_need_goes_to_its_own_group(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs"))
    lists = {
        "requirements.txt": "flask\ncoverage==1\npytest-flask<9\n",
        "requirements-test.txt": "-r requirements.txt\nblack\nPytest==8\nmoto>5\nmysqlclient\n",
    }
    lists["requirements-dev.txt"] = "tox\nipython\npytest-xdist\n"
    take(write({"app.py": APP, "test_app.py": "def test(): ...\n", **lists}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["dependency-groups"] == {
        "tests": ["hypothesis", "Pytest==8", "pytest-flask<9", "moto>5", "pytest-xdist"]
    }
    assert made["project"]["dependencies"][0:2] == ["flask", service.SERVERS["wsgi"][0]]
    assert (ours / "services/theirs/tests/test_app.py").exists()


def test_the_test_tools_of_a_lock_of_its_own(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs"))
    files = {"app.py": APP, "test_app.py": "def test(): ...\n", "requirements.txt": "x==1\npytest==7.2\n"}
    take(write(files), own=True)
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["dependency-groups"] == {"tests": ["hypothesis", "pytest==7.2"]}
    service.remove(NO_SESSION, "theirs")
    take(write({}))
    assert not project.has_own_lock("theirs")


def test_other_versions_of_test_tools(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def run(_: object, *arguments: str, **__: bool) -> None:
        groups = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text()).get("dependency-groups")
        if groups:
            seen.append(groups["tests"])
        if groups and "pytest-asyncio" in " ".join(groups["tests"]):
            raise CommandFailed(["poetry", *arguments], CONFLICT)

    monkeypatch.setattr(venv, "poetry", run)
    files = {"requirements-dev.txt": "pytest==8.3\npytest-cov==5\npytest-asyncio==0.24\nmypy\n", ".gitignore": "*.db\n"}
    take(write({"app.py": APP, "tests/test_app.py": "def test(): ...\n", "requirements.txt": "flask\n", **files}))
    assert seen == [
        ["hypothesis", "pytest==8.3", "pytest-asyncio==0.24"],
        ["pytest==8.3", "pytest-cov", "pytest-asyncio==0.24"],
        ["pytest", "pytest-asyncio", "pytest-cov"],
        ["pytest", "pytest-cov"],
    ]
    told = capsys.readouterr().out
    assert told.count("warning: what its tests need is tried in other versions, because the requirements cannot") == 2
    assert told.count("warning: what its tests need is left out, because the requirements cannot") == 1
    assert (ours / "services/theirs/.gitignore").read_text() == "*.db\n"


def test_versions_for_other_pythons_are_none_of_production(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a lock has two of a package, the one for other Pythons may change with the test tools."""
    folder = ours / "services/theirs"

    def run(*_: object, **__: bool) -> None:
        tests = tomllib.loads((folder / "pyproject.toml").read_text()).get("dependency-groups")
        lock = f'[[package]]\nname = "x"\nversion = "{2 if tests else 1}"\nmarkers = "python_version < \\"3.13\\""\n'
        lock += '[[package]]\nname = "x"\nversion = "3"\nmarkers = "python_version >= \\"3.13\\""\n'
        lock += '[[package]]\nname = "y"\nversion = "1"\nmarkers = {main = "os_name == \\"nt\\""}\n'
        (folder / "poetry.lock").write_text(lock)

    monkeypatch.setattr(venv, "poetry", run)
    monkeypatch.setattr(requirements, "image_python", lambda: "3.13")
    files = {"app.py": APP, "test_app.py": "def test(): ...\n", "requirements.txt": "x\n"}
    take(write(files | {"poetry.lock": '[[package]]\nname = "x"\nversion = "1"\n'}))
    told = capsys.readouterr().out
    assert "warning: what its tests need" not in told
    assert "warning: other versions than in the project's own lock: x 3\n" in told
    assert resolve.versions(folder / "poetry.lock") == {("x", "3"), ("y", "1")}


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    ("line", "why"), [("-r lost.txt", "there is no file lost.txt"), ("a=1", "'a=1' is no requirement")]
)
def test_requirements_of_tests_that_cannot_be_read(
    write: Write, capsys: pytest.CaptureFixture[str], line: str, why: str
) -> None:
    take(write({"app.py": APP, "requirements.txt": "flask\n", "requirements-dev.txt": f"black\n{line}\n"}))
    told = f"warning: requirements-dev.txt, for tests, is left out: .*requirements-dev.txt, line 2: {why}"
    assert re.search(told, capsys.readouterr().out)


def test_tests_inside_of_django_applications(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    manage = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n"
    files = DJANGO | {
        "manage.py": manage,
        "requirements.txt": "django\n",
        "cart/tests.py": "# Create your tests here.\n",
    }
    take(write(files))
    assert not project.has_own_lock("theirs")
    service.remove(NO_SESSION, "theirs")
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs"))
    take(write({"cart/tests.py": "class Cart(TestCase):\n    def test_it(self): ...\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["dependency-groups"]["tests"][-1] == "pytest-django"
    settings = {"DJANGO_SETTINGS_MODULE": "shop.settings", "python_files": ["test*.py"]}
    assert made["tool"]["pytest"]["ini_options"] == settings
    service.remove(NO_SESSION, "theirs")
    take(write({"tox.ini": "[testenv]\nsetenv =\n    DJANGO_SETTINGS_MODULE = tests.settings\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["tool"]["pytest"]["ini_options"]["DJANGO_SETTINGS_MODULE"] == "tests.settings"


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("tox.ini", "[testenv]\nsetenv = DJANGO_SETTINGS_MODULE=shop.test"),
        ("manage.py", "os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.test'"),
        (
            "manage.py",
            "os.getenv('DJANGO_SETTINGS_MODULE', None) or setdefault('DJANGO_SETTINGS_MODULE', \"shop.test\")",
        ),
    ],
)
def test_the_settings_of_djangos_tests(ours: Path, write: Write, file: str, line: str) -> None:
    take(write({**DJANGO, file: f"{line}\n", "requirements.txt": "django\n", "tests/test_x.py": "def test_x(): ...\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert made["DJANGO_SETTINGS_MODULE"] == "shop.test"


def test_the_settings_that_djangos_manage_py_chooses(ours: Path, write: Write) -> None:
    files = {"manage.py": "os.environ.setdefault('DJANGO_SETTINGS_MODULE', chosen)\n", "shop/urls.py": ""}
    files |= {"shop/local.py": "from .test import *\n", "shop/test.py": "import os\n\nINSTALLED_APPS = []\n"}
    take(write({**DJANGO, **files, "requirements.txt": "django\n", "tests/test_x.py": "def test_x(): ...\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert made["DJANGO_SETTINGS_MODULE"] == "shop.test"


def test_tests_inside_of_other_packages(ours: Path, write: Write) -> None:
    take(write({"web/__init__.py": APP, "web/tests.py": "def test_it(): ...\n", "requirements.txt": "flask\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["tool"]["pytest"]["ini_options"] == {"python_files": ["test*.py", "*_test.py"]}


def test_tests_in_a_module_beside_the_code(ours: Path, write: Write) -> None:
    take(
        write(
            {"app.py": APP, "tests.py": "class Test(TestCase):\n    def test(self): ...\n", "requirements.txt": "x\n"}
        )
    )
    assert [path.name for path in (ours / "services/theirs/tests").iterdir()] == ["test_tests.py"]
    assert not (ours / "services/theirs/tests.py").exists()


def test_fixtures_above_tests_inside_of_packages(ours: Path, write: Write) -> None:
    take(write({"web/__init__.py": APP, "web/test_a.py": "", "conftest.py": "fixtures", "requirements.txt": "x\n"}))
    assert (ours / "services/theirs/conftest.py").read_text() == "fixtures"
