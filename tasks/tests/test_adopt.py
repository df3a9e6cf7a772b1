"""Existing projects adopted: small ones of the tests' own."""

from __future__ import annotations

import re
import tomllib
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest
import yaml

from .. import project, venv
from ..images import target
from ..scaffold import adopt, resolve, service
from ..scaffold.application import Code
from ..scaffold.environment import neighbours, variables, written
from ..scaffold.requirements import find_needs
from ..shell import CommandFailed, UserError
from .scaffolding import APP, DJANGO, FACTORY, NO_SESSION, commit, git, small_project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (adopt, resolve):
        monkeypatch.setattr(module, "SERVICES", tmp_path / "ours/services")
    monkeypatch.setattr(resolve, "with_wheels", lambda _, package: f"versions of {package}")
    return small_project(tmp_path / "ours", monkeypatch)


def take(
    source: Path | None,
    name: str = "theirs",
    app: str = "",
    like: str = "",
    extra: tuple[str, ...] = (),
    *,
    own: bool = False,
) -> None:
    service.check_name(name)
    with service.all_or_nothing(name):
        service.new(NO_SESSION, Namespace(name=name, like=like, source=source, app=app, extra=extra, own_lock=own))


@pytest.mark.parametrize(
    ("files", "package"),
    [
        ({"app.py": APP, "README.md": "", "tests/test_app.py": ""}, "app.py"),
        ({"app.py": APP, "templates/index.html": "", "schema.sql": ""}, "."),
        ({"blog/__init__.py": FACTORY, "blog/templates/x.html": "", "app.json": "", "tests/test_x.py": ""}, "blog"),
        ({"blog/__init__.py": FACTORY, "migrations/env.py": "", "alembic.ini": ""}, "."),
        ({"blog/__init__.py": FACTORY, "config/settings.py": ""}, "."),
        ({"src/blog/__init__.py": FACTORY, "tests/conftest.py": "", "setup.py": ""}, "blog"),
        ({"src/blog/__init__.py": "", "wsgi.py": f"import blog\n{APP}"}, "."),
        (DJANGO, "."),
    ],
)
def test_what_comes_along(ours: Path, write: Write, files: dict[str, str], package: str) -> None:
    source = write(files | {"requirements.txt": "flask\n"})
    take(source)
    folder = ours / "services/theirs"
    assert f"        SERVICE: theirs\n        PACKAGE: {package}\n" in (folder / "compose.yaml").read_text()
    for path, text in files.items():
        if path not in {"README.md", "setup.py"}:
            assert (folder / path.removeprefix("src/")).read_text() == text
    service.remove(NO_SESSION, "theirs")
    assert git(ours, "status", "--porcelain") == ""


def test_what_is_written_about_an_application(ours: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["Flask==3.0.0", "gunicorn==20", "pytest", 'x; python_version > "3.9"', "z @ https://h.invalid/z-1.tar.gz"]
    lines += ["hypothesis==6.150"]  # which is among the test tools, too
    files = {"web/__init__.py": "", "web/a.py": "from starlette.applications import Starlette\nasgi = Starlette()\n"}
    source = write(
        files | {"requirements.txt": "\n".join(lines), "Dockerfile": "", "docs/x": "", "data.db": "", ".git/x": ""}
    )
    take(source, name="front-end")
    said = capsys.readouterr().out
    assert "web.a:asgi (asgi), named by its code; taken: web\n" in said
    assert "left out: .git, Dockerfile, data.db, docs, requirements.txt, gunicorn==20, pytest\n" in said
    assert (ours / "services/front-end/tests/__init__.py").exists()
    compose = (ours / "services/front-end/compose.yaml").read_text()
    assert 'SERVICE: front-end PACKAGE: web APPLICATION: "web.a:asgi" INTERFACE: asgi' in " ".join(compose.split())
    assert "volumes:" not in compose
    group = [
        line.strip()
        for line in (ours / "pyproject.toml").read_text().partition("front-end = [\n")[2].split("\n]")[0].splitlines()
    ]
    assert group == [
        '"Flask==3.0.0",',
        r'"x; python_version > \"3.9\"",',
        '"z @ https://h.invalid/z-1.tar.gz",',
        '"hypothesis==6.150",',
        *(f'"{line}",' for line in service.SERVERS["asgi"]),
    ]


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("import io\nio.open(path, mode='w')", "web/app.py, line 2"),
        ("log.open('ab')", "web/app.py, line 1"),
        ("open(path, 'rb')\nopen('w.txt')", None),
    ],
)
def test_files_that_code_writes(write: Write, code: str, line: str | None) -> None:
    source = write({"web/app.py": f"{code}\n"})
    assert [*written(source, Code(source).trees)] == ([line] if line else [])


def test_databases_beside_the_code_are_kept_on_a_volume(
    ours: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """url = 'sqlite:///./sql_app.db'
DATABASES = {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}
others = ['/tmp/x.db', 'sqlite:////var/y.db', 'sqlite://']
"""
    files = {"web/__init__.py": FACTORY, "web/settings.py": code, "db.sqlite3": "", ".gitignore": "instance/\n*.pyc"}
    take(write({**files, "requirements.txt": "flask\n"}))
    assert "kept in instance/, a volume in production: db.sqlite3, sql_app.db\n" in capsys.readouterr().out
    folder = ours / "services/theirs"
    (folder / "sql_app.db").write_text("data")
    assert (folder / "instance/sql_app.db").read_text() == "data"
    text = (folder / "compose.yaml").read_text()
    assert "        PACKAGE: .\n" in text
    assert "      - theirs-data:/app/instance\n" in text
    (ours / ".gitignore").write_text("instance/\n")
    git(ours, "add", "services")
    seen = git(ours, "ls-files", "services/theirs").split()
    assert "services/theirs/instance/.gitignore" in seen
    assert "services/theirs/instance/sql_app.db" not in seen
    with service.all_or_nothing("again"):
        service.new(NO_SESSION, Namespace(name="again", like="theirs"))


def test_a_worker_in_the_code_of_an_application(ours: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "web/__init__.py": FACTORY,
        "web/jobs.py": "celery = make('redis://h')\n",
        "web/data.py": "open('x', 'w')\n",
    }
    take(write({**files, "requirements.txt": "flask\ncelery\n"}))
    told = capsys.readouterr().out
    assert (
        "it has a worker, python -m celery --app=web.jobs worker: uncomment it in services/theirs/compose.yaml" in told
    )
    assert "though production can only in /tmp, /app/instance and volumes: web/data.py, line 1\n" in told
    text = (ours / "services/theirs/compose.yaml").read_text()
    assert set(yaml.safe_load(text)["services"]) == {"theirs"}
    commented = re.sub("^#(?=  )", "", text, flags=re.MULTILINE).replace("#volumes:", "volumes:")
    services = yaml.safe_load(commented)["services"]
    assert services["theirs-worker"]["environment"] == {
        "REDIS_URL": "redis://theirs-valkey:6379/0",
        "INTERFACE": "command",
        "APPLICATION": "python -m celery --app=web.jobs worker",
    }


def test_an_instance_folder_is_kept_on_a_volume(ours: Path, write: Write) -> None:
    code = FACTORY.replace("__name__", "__name__, instance_relative_config=True")
    take(write({"blog/__init__.py": code, "requirements.txt": "flask\n", "instance/mine.sqlite": ""}))
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert compose.endswith("    volumes:\n      - theirs-data:/app/instance\n\nvolumes:\n  theirs-data:\n")
    assert [path.name for path in (ours / "services/theirs/instance").iterdir()] == [".gitignore"]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "there is no folder"),
        ({"app.py": APP}, "no requirements"),
        ({"serve.py": APP, "requirements.txt": ""}, "serve.py cannot be adopted"),
        (
            {"app.py": APP, "requirements.txt": "flask\n", "tox.ini": "x\n"},
            "tox.ini or pytest.ini does not parse: File",
        ),
        ({"click/__init__.py": FACTORY, "requirements.txt": "click\n"}, "its own click would hide the package click"),
    ],
)
def test_mistakes_change_nothing(ours: Path, write: Write, files: dict[str, str], told: str) -> None:
    (ours / "poetry.lock").write_text((ours / "poetry.lock").read_text().replace("second", "theirs"))
    commit(ours)
    with pytest.raises(UserError, match=told):
        take(write(files))
    assert git(ours, "status", "--porcelain", "--ignored") == ""


def test_a_plugin_may_depend_on_the_service_itself(ours: Path, write: Write) -> None:
    (ours / "poetry.lock").write_text((ours / "poetry.lock").read_text().replace("second", "theirs"))
    name = "[metadata]\nname = Click\nversion = 1\n"
    take(write({"click/__init__.py": FACTORY, "requirements.txt": "click-plugins\n", "setup.cfg": name}))
    assert (ours / "services/theirs/click/__init__.py").exists()


def test_options_that_exclude_each_other(ours: Path) -> None:
    told = "--app, --extra and --own-lock go with --from DIR, and none of them with --like"
    with pytest.raises(UserError, match=told):
        take(None, app="a:b")
    with pytest.raises(UserError, match=told):
        take(ours, like="pilot")
    with pytest.raises(UserError, match=told):
        take(None, own=True)


CONFLICT = """Resolving dependencies...

Because no versions of y match >2 and y (2) depends on z, y (>=2) requires z.
So, because ours depends on x (>=2)
 and theirs on x (1), version solving failed.

Try something else.
"""


def poetry(folder: Path, words: str) -> Callable[..., None]:
    """A Poetry that cannot lock all services' requirements, and says so in these words; that of one service it can."""

    def run(_: object, *arguments: str, silent: bool = False) -> None:
        if arguments == ("lock",):
            assert silent
            raise CommandFailed(["poetry", *arguments], words)
        assert arguments == ("--directory=services/theirs", "lock")
        (folder / "poetry.lock").write_text('[[package]]\nname = "x"\ngroups = ["main"]\n')

    return run


@pytest.mark.parametrize("own", [False, True])
def test_a_lock_of_its_own(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: bool
) -> None:
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs", CONFLICT))
    take(write({"app.py": APP, "requirements.txt": 'x==1; python_version > "3"\n'}), own=own)
    said = (
        "--own-lock asks for it"
        if own
        else "what the others need: because ours depends on x (>=2) and theirs on x (1), version solving failed"
    )
    assert f"{said}\n" in capsys.readouterr().out
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["project"]["dependencies"] == ['x==1; python_version > "3"', *service.SERVERS["wsgi"]]
    assert made["tool"] == {"poetry": {"package-mode": False}, "pytest": {"ini_options": {}}}
    assert made["project"]["name"] != "theirs"  # a plugin of theirs may depend on it
    assert git(ours, "diff", "--name-only").split() == ["docker/compose.yaml"]
    assert project.service_names() == ["pilot", "theirs"]
    with service.all_or_nothing("again"):
        service.new(NO_SESSION, Namespace(name="again", like="theirs"))
    assert project.has_own_lock("again")
    for name in ("theirs", "again"):
        with service.all_or_nothing(name):
            service.remove(NO_SESSION, name)
    assert git(ours, "status", "--porcelain") == ""


def test_what_else_fails_leads_to_no_lock(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        venv, "poetry", poetry(ours / "services/theirs", "All attempts to connect to h.invalid failed.")
    )
    with pytest.raises(UserError, match=r"All attempts to connect to h.invalid failed"):
        take(write({"app.py": APP, "requirements.txt": "x==1\n"}))
    assert git(ours, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "Because ours depends on x (99) which doesn't match any versions, version solving failed.",
            r"no version matches x \(99\); versions of x",
        ),
        ("Cannot resolve h.invalid\n\nmore", "y @ https://h.invalid/y.zip cannot be fetched: check the address"),
        ("Resolving dependencies...\n\nNo space left\n", "the requirements cannot be resolved: No space left"),
    ],
)
def test_what_cannot_be_locked(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs", words))
    with pytest.raises(UserError, match=told):
        take(write({"app.py": APP, "requirements.txt": "x==99\ny @ https://h.invalid/y.zip\n"}))
    assert git(ours, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("file", "fits"),
    [
        ("x-1-py3-none-any.whl", True),
        ("x-1-py2.py3-none-any.whl", True),
        ("x-1-cp313-cp313-manylinux_2_17_x86_64.whl", True),
        ("x-1-cp37-abi3-manylinux_2_17_x86_64.whl", True),
        ("x-1-cp312-cp312-manylinux_2_17_x86_64.whl", False),
        ("x-1-cp314-abi3-manylinux_2_17_x86_64.whl", False),
        ("x-1-cp313-cp313-macosx_11_0_arm64.whl", False),
        ("x-1.tar.gz", False),
    ],
)
def test_wheels_for_the_images(monkeypatch: pytest.MonkeyPatch, file: str, fits: bool) -> None:
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    assert resolve.fits(file) is fits


def test_a_package_without_a_wheel_is_told(ours: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    lock = [
        f'[[package]]\nname = "{name}"\nversion = "1"\ngroups = ["{group}"]\nfiles = [{{file = "{file}"}}]\n{more}'
        for name, group, file, more in (
            ("a", "theirs", "a-1.tar.gz", ""),
            ("b", "theirs", "b-1-py3-none-any.whl", ""),
            ("c", "pilot", "c-1.zip", ""),
            ("d", "theirs", "d-1.zip", "markers = \"sys_platform == 'win32'\"\n"),
        )
    ]
    (ours / "poetry.lock").write_text("".join(lock))
    take(write({"app.py": APP, "requirements.txt": "a\n"}))
    said = capsys.readouterr().out
    assert re.findall("warning: (.*?); if", said) == ["a 1 has no wheel for Python 3.13"]


@pytest.mark.parametrize(
    ("files", "settings"),
    [
        ({}, {"ini_options": {}}),
        (
            {"tox.ini": "[pytest]\naddopts = -q\n", "pyproject.toml": "[project]\nname = 'x'\n"},
            {"ini_options": {"addopts": ["-q"]}},
        ),
        (
            {
                "pytest.ini": "[pytest]\naddopts = -v --cov=x --cov-report term --cov-report -p no:y\n",
                "setup.cfg": "[tool:pytest]\na = b\n",
            },
            {"ini_options": {"addopts": ["-v", "-p", "no:y"]}},
        ),
        ({"setup.cfg": '[tool:pytest]\nmarkers =\n    a: "b"\n    c\n'}, {"ini_options": {"markers": '\na: "b"\nc'}}),
        (
            {"pyproject.toml": "[tool.pytest.ini_options]\nmarkers = [\n    'a',\n]\n[tool.black]\n"},
            {"ini_options": {"markers": ["a"]}},
        ),
    ],
)
def test_its_own_settings_for_pytest(ours: Path, write: Write, files: dict[str, str], settings: object) -> None:
    take(write({"app.py": APP, "requirements.txt": "x==1\n", **files}))
    assert tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())["tool"]["pytest"] == settings
    assert not (ours / "services/theirs/pytest.ini").exists()  # pytest would prefer it
    assert not project.has_own_lock("theirs")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'a-b'\nversion = '1.2rc1'\n"}, "a-b==1.2rc1"),
        ({"pyproject.toml": "[tool.poetry]\nname = 'a'\nversion = '1'\n"}, "a==1"),
        ({"setup.cfg": "[metadata]\nname = a\nversion = 1.0\n"}, "a==1.0"),
        ({"setup.cfg": "[metadata]\nname = a\nversion = attr: a.VERSION\n"}, "a==0"),
        ({"pyproject.toml": "[project]\nname = 'a'\ndynamic = ['version']\n"}, "a==0"),
        (
            {"pyproject.toml": "[project]\nname = 'a'\ndynamic = ['version']\n", "PKG-INFO": "Name: a\nVersion: 2.1\n"},
            "a==2.1",
        ),
        ({"pyproject.toml": "[project]\nversion = '1'\n"}, ""),
        ({"app.py": APP}, ""),
    ],
)
def test_its_own_distribution(ours: Path, write: Write, files: dict[str, str], found: str) -> None:
    source = write({"app.py": APP, "requirements.txt": "flask\n"} | files)
    assert find_needs(NO_SESSION, source).distribution == found
    take(source)
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert (f'        DISTRIBUTION: "{found}"\n' in compose) is bool(found)
    assert ("DISTRIBUTION" in compose) is bool(found)


def test_adopted_code_is_not_linted_by_our_rules(ours: Path, write: Write) -> None:
    take(write({"app.py": APP, "requirements.txt": "flask\n"}))
    assert tomllib.loads((ours / "services/theirs/ruff.toml").read_text()) == {"exclude": ["*"]}
    service.remove(NO_SESSION, "theirs")
    take(write({"ruff.toml": "line-length = 79\n"}))
    assert (ours / "services/theirs/ruff.toml").read_text() == "line-length = 79\n"


def test_what_its_tests_need_goes_to_its_own_group(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs", ""))
    lists = {
        "requirements.txt": "flask\ncoverage==1\npytest-flask<9\n",
        "requirements-test.txt": "-r requirements.txt\nblack\nPytest==8\nmoto>5\n",
    }
    lists["requirements-dev.txt"] = "tox\nipython\npytest-xdist\n"
    take(write({"app.py": APP, "test_app.py": "", **lists}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["dependency-groups"] == {
        "tests": ["hypothesis>=6,<7", "pytest>=9,<10", "pytest-flask<9", "moto>5", "pytest-xdist"]
    }
    assert made["project"]["dependencies"][0:2] == ["flask", service.SERVERS["wsgi"][0]]
    assert (ours / "services/theirs/tests/test_app.py").exists()


def test_other_versions_of_test_tools(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def run(_: object, *arguments: str, silent: bool = False) -> None:
        if not silent or arguments != ("lock",):
            seen.append(
                tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())["dependency-groups"]["tests"]
            )
            raise CommandFailed(["poetry", *arguments], CONFLICT)

    monkeypatch.setattr(venv, "poetry", run)
    files = {"requirements-dev.txt": "pytest==8.3\npytest-cov==5\npytest-asyncio==0.24\nmypy\n", ".gitignore": "*.db\n"}
    take(write({"app.py": APP, "requirements.txt": "flask\n", **files}))
    shared = ["hypothesis>=6,<7", "pytest>=9,<10"]
    assert seen == [
        [*shared, "pytest-asyncio==0.24"],
        [shared[0], "pytest==8.3", "pytest-asyncio==0.24"],
        [*shared, "pytest-asyncio"],
    ]
    told = capsys.readouterr().out
    assert told.count("warning: other versions of what its tests need are tried, because the requirements cannot") == 2
    assert told.count("warning: what its tests need is left out, because the requirements cannot") == 1
    assert (ours / "services/theirs/.gitignore").read_text() == "*.db\n"


@pytest.mark.usefixtures("ours")
def test_requirements_of_tests_that_cannot_be_read(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    take(write({"app.py": APP, "requirements.txt": "flask\n", "requirements-dev.txt": "black\n-r lost.txt\n"}))
    told = "warning: requirements-dev.txt, for tests, is left out: .*requirements-dev.txt, line 2: there is no file lost.txt"
    assert re.search(told, capsys.readouterr().out)


def test_tests_inside_of_django_applications(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "SERVICES", ours / "services")
    manage = "import os\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\n"
    files = DJANGO | {
        "manage.py": manage,
        "requirements.txt": "django\n",
        "cart/tests.py": "# Create your tests here.\n",
    }
    take(write(files))
    assert not project.has_own_lock("theirs")
    service.remove(NO_SESSION, "theirs")
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs", ""))
    take(write({"cart/tests.py": "class Cart(TestCase):\n    def test_it(self): ...\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["dependency-groups"]["tests"][-1] == "pytest-django"
    settings = {"DJANGO_SETTINGS_MODULE": "shop.settings", "python_files": ["test*.py"]}
    assert made["tool"]["pytest"]["ini_options"] == settings


def test_a_command_and_a_second_process(ours: Path, write: Write) -> None:
    take(write({"worker.py": "", "requirements.txt": ""}), app="python -m worker '1 2'")
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert (
        """        APPLICATION: "python -m worker '1 2'"\n        INTERFACE: command\n    healthcheck: {disable: true}  # or"""
        in compose
    )
    assert "ports:" not in compose
    service.remove(NO_SESSION, "theirs")
    take(write({"requirements.txt": "uvicorn\n"}), app="python -m worker --port 8000")
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert "ports:" in compose
    assert "healthcheck" not in compose
    service.remove(NO_SESSION, "theirs")
    take(write({"app.py": APP, "Procfile": "web: gunicorn app:app\nworker: celery -A app.celery worker\n"}))
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert "  theirs: &theirs\n" in compose
    assert "  theirs-worker:\n    <<: *theirs\n" in compose
    assert '      INTERFACE: command\n      APPLICATION: "celery -A app.celery worker"\n' in compose


def test_what_it_reads_and_uses_is_listed(ours: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    code = """import os
from os import getenv
a = os.environ["A_1"] + os.environ.get("B") + getenv("CC", "x") + config("DD", cast=int) + env.bool("EE") + os.getenv(a)
environ["REQUEST_METHOD"], other.get("OTHER")
os.environ.setdefault("F_F", "1")
class Settings(pydantic.BaseSettings):
    database_url: str = "postgresql+psycopg://localhost/x"
"""
    source = write(
        {
            "app.py": APP,
            "settings.py": code,
            "Procfile": "worker: rq worker\n",
            "requirements.txt": "celery[redis]\nflask-redis\n",
        }
    )
    trees = Code(source).trees.values()
    assert variables(trees) == {"A_1", "CC", "DD", "EE", "F_F", "DATABASE_URL"}
    assert [one.name for one in neighbours(["flask-redis", "x"], trees)] == ["valkey", "postgres"]
    assert [one.name for one in neighbours(["psycopg2-binary", "pymongo"], [])] == ["postgres", "MongoDB"]
    take(source)
    said = capsys.readouterr().out
    assert "A_1, CC, DATABASE_URL, DD, EE, F_F\n" in said
    assert "it seems to use valkey: to provide it, uncomment its lines in services/theirs/compose.yaml\n" in said
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert list(yaml.safe_load(compose)["services"]) == ["theirs", "theirs-worker"]
    provided = yaml.safe_load(re.sub("^#(?! )|^#(?=  )", "", compose, flags=re.MULTILINE))
    assert list(provided["services"]) == ["theirs", "theirs-worker", "theirs-valkey", "theirs-postgres"]
    worker = provided["services"]["theirs-worker"]["environment"]
    assert worker == provided["services"]["theirs"]["environment"] | {
        "INTERFACE": "command",
        "APPLICATION": "rq worker",
    }
    assert provided["services"]["theirs"]["environment"] == {
        "REDIS_URL": "redis://theirs-valkey:6379/0",
        "DATABASE_URL": "postgresql://app:${THEIRS_DATABASE_PASSWORD:-development}@theirs-postgres:5432/app",
    }
    assert provided["services"]["theirs-valkey"]["image"] == "${STACK_VALKEY:-valkey/valkey:8}"
    assert list(provided["volumes"]) == ["theirs-valkey", "theirs-postgres"]
