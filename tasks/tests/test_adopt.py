"""Existing projects adopted: small ones of the tests' own, and, in the slow test, one that nobody here wrote."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from .. import project, venv
from ..scaffold import adopt, service
from ..scaffold.application import find_application
from ..scaffold.requirements import find_distribution, find_requirements
from ..shell import CommandFailed, UserError
from .scaffolding import NO_SESSION, commit, git, in_git, real, small_project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Write = Callable[[Mapping[str, str]], Path]

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


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(adopt, "SERVICES", tmp_path / "ours/services")
    return small_project(tmp_path / "ours", monkeypatch)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a project's files."""

    def files(texts: Mapping[str, str]) -> Path:
        source = tmp_path / "theirs"
        for path, text in texts.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_text(text)
        return source

    return files


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"app.py": APP}, "app:app wsgi"),
        ({"blog/__init__.py": FACTORY}, "blog:create_app() wsgi"),
        ({"blog/__init__.py": "", "blog/core.py": APP}, "blog.core:app wsgi"),
        (
            {"src/blog/__init__.py": "", "src/blog/web/__init__.py": "", "src/blog/web/main.py": FACTORY},
            "blog.web.main:create_app() wsgi",
        ),
        ({"main.py": "import fastapi\napi: object = fastapi.FastAPI()\n"}, "main:api asgi"),
        ({"main.py": "from starlette.applications import Starlette\napp = Starlette(routes=[])\n"}, "main:app asgi"),
        ({"main.py": "def build():\n    app = FastAPI()\n    return app\n"}, "main:build() asgi"),
        (DJANGO, "shop.wsgi:application wsgi"),
        ({"a.py": FACTORY, "wsgi.py": "from a import create_app\napp = create_app()\n"}, "a:create_app() wsgi"),
        (
            {"a.py": FACTORY.replace("=None", ""), "wsgi.py": "from a import create_app\napp = create_app('x')\n"},
            "wsgi:app wsgi",
        ),
        (
            {"app.py": APP, "tests/conftest.py": APP, "docs/conf.py": APP, ".venv/x.py": APP, "build/app.py": APP},
            "app:app wsgi",
        ),
        ({"app.py": APP, "old.py": "print 'Python 2'\n"}, "app:app wsgi"),
    ],
)
def test_an_application_is_found(write: Write, files: dict[str, str], found: str) -> None:
    one = find_application(write(files))
    assert f"{one.module}:{one.call} {one.interface}" == found


TWO = {"one.py": APP, "two.py": f"{FACTORY}\nother = FastAPI()\n", "four/__init__.py": "from one import app\n"}


@pytest.mark.parametrize(
    ("files", "found", "said_by"),
    [
        ({".flaskenv": "FLASK_APP=one\n", "Procfile": "web: gunicorn two:other\n"}, "one:app", ".flaskenv"),
        ({".env": "FLASK_APP='two.py:create_app'\n"}, "two:create_app()", ".env"),
        ({"Procfile": "web: gunicorn --workers 2 one:app\n"}, "one:app", "Procfile"),
        (
            {"gunicorn.conf.py": "bind = '0.0.0.0:80'\nwsgi_app = 'two:create_app(\"x\")'\n"},
            'two:create_app("x")',
            "gunicorn.conf.py",
        ),
        (
            {"Dockerfile": 'FROM x\nCMD ["gunicorn", "-c", "python:config.g", \\\n "two:create_app()"]\n'},
            "two:create_app()",
            "Dockerfile",
        ),
        ({"Dockerfile": "CMD uvicorn two:other --port 80\n"}, "two:other", "Dockerfile"),
        ({"Procfile": "web: gunicorn four:app\n"}, "four:app", "Procfile"),
    ],
)
def test_files_for_servers_name_the_application(write: Write, files: dict[str, str], found: str, said_by: str) -> None:
    one = find_application(write(TWO | files))
    assert (f"{one.module}:{one.call}", one.said_by) == (found, said_by)
    assert one.interface == ("asgi" if found == "two:other" else "wsgi")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("one:app", "one:app"), ("two:create_app", "two:create_app()"), ("two:create_app('x')", "two:create_app('x')")],
)
def test_app_says_which(write: Write, wanted: str, found: str) -> None:
    one = find_application(write(TWO | {"Procfile": "web: gunicorn two:other\n"}), wanted)
    assert (f"{one.module}:{one.call}", one.said_by) == (found, "--app")


@pytest.mark.parametrize(
    ("files", "wanted", "told"),
    [
        (TWO, "", r"3 applications: choose with --app 'one:app' or --app 'two:create_app\(\)' or --app 'two:other'"),
        (TWO, "three:app", "--app three:app: there is no such module"),
        (TWO, "one:lost", "--app one:lost: there is no such module in .*, or it has nothing of that name"),
        (
            {"worker.py": "print()\n"},
            "",
            "no application found: neither FLASK_APP in .flaskenv .* --app MODULE:NAME names it",
        ),
        ({"README": ""}, "", "no application found"),
    ],
)
def test_no_application_or_several(write: Write, files: dict[str, str], wanted: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        find_application(write(files), wanted)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'x'\ndependencies = ['flask', 'x[y]>=1']\n"}, ["flask", "x[y]>=1"]),
        ({"pyproject.toml": "[tool.black]\n", "requirements.txt": "a==1\n"}, ["a==1"]),
        ({"setup.cfg": "[options]\ninstall_requires =\n    a>=1\n    b\n"}, ["a>=1", "b"]),
        ({"pyproject.toml": "[dependency-groups]\nmain = ['a']\ndev = ['b']\n"}, ["a"]),
        ({"requirements/prod.txt": "-r base.txt\nb\n", "requirements/base.txt": "a\n"}, ["a", "b"]),
        (
            {
                "requirements.txt": "-r more/x.txt\n# a comment\nb # another\n",
                "more/x.txt": "--requirement=y.txt\n",
                "more/y.txt": "a\n",
            },
            ["a", "b"],
        ),
        (
            {"requirements.txt": "a==1 \\\n    --hash=sha256:12 \\\n    --hash=sha256:34\nb==2 --hash=sha256:56\n"},
            ["a==1", "b==2"],
        ),
        ({"requirements.txt": 'a; python_version < "3.9"\n'}, ['a; python_version < "3.9"']),
        (
            {
                "requirements.txt": "g<3; python_version<'3.12'\ng>=3.0a1; python_version>='3.12.0rc0'\ng; extra == 'x'\n"
            },
            ["g>=3.0a1"],
        ),
        (
            {
                "requirements.txt": "git+https://h.invalid/a.git@v1#egg=a\nb @ https://h.invalid/b-1.tar.gz\n-e git+https://h.invalid/c#egg=c\n"
            },
            ["a @ git+https://h.invalid/a.git@v1", "b @ https://h.invalid/b-1.tar.gz", "c @ git+https://h.invalid/c"],
        ),
        ({"requirements.txt": "\ufeff--index-url https://h.invalid/\n-c limits.txt\n-e .\n.\na\n"}, ["a"]),
    ],
)
def test_requirements_are_found(write: Write, files: dict[str, str], found: list[str]) -> None:
    assert [str(one) for one in find_requirements(NO_SESSION, write(files))] == found


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"app.py": ""}, "no requirements in pyproject.toml, setup.cfg or requirements.txt"),
        ({"requirements.txt": "a\nb=1\n"}, r"requirements.txt, line 2: 'b=1' is no requirement"),
        (
            {"requirements.txt": "a\nhttps://h.invalid/b.zip\n"},
            r"requirements.txt, line 2: 'https://h.invalid/b.zip' is no",
        ),
        ({"requirements.txt": "-r lost.txt\n"}, r"requirements.txt, line 1: there is no file lost.txt"),
        ({"requirements.txt": "-r b.txt\n", "b.txt": "\n\n!\n"}, r"b.txt, line 3: '!' is no requirement"),
        ({"pyproject.toml": "[project\n"}, "pyproject.toml or setup.cfg does not parse"),
        ({"pyproject.toml": "[project]\ndependencies = ['a b']\n"}, "pyproject.toml: 'a b' is no requirement"),
        (
            {"pyproject.toml": "[dependency-groups]\nx = []\ny = []\n"},
            "which of the groups x, y does the application need",
        ),
    ],
)
def test_requirements_that_cannot_be_used(write: Write, files: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        find_requirements(NO_SESSION, write(files))


def take(source: Path | None, name: str = "theirs", app: str = "", like: str = "", *, own: bool = False) -> None:
    service.check_name(name)
    with service.all_or_nothing(name):
        service.new(NO_SESSION, Namespace(name=name, like=like, source=source, app=app, own_lock=own))


@pytest.mark.parametrize(
    ("files", "package"),
    [
        ({"app.py": APP, "README.md": "", "tests/test_app.py": ""}, "app.py"),
        ({"app.py": APP, "templates/index.html": "", "schema.sql": ""}, "."),
        ({"blog/__init__.py": FACTORY, "blog/templates/x.html": "", "app.json": "", "tests/test_x.py": ""}, "blog"),
        ({"blog/__init__.py": FACTORY, "migrations/env.py": "", "alembic.ini": ""}, "."),
        ({"blog/__init__.py": FACTORY, "config/settings.py": ""}, "."),
        ({"src/blog/__init__.py": FACTORY, "tests/conftest.py": "", "setup.py": ""}, "blog"),
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
    lines = ["Flask==3.0.0", "gunicorn==20", "pytest", 'x; python_version < "3.9"', "z @ https://h.invalid/z-1.tar.gz"]
    files = {"web/__init__.py": "", "web/a.py": "from starlette.applications import Starlette\nasgi = Starlette()\n"}
    source = write(
        files | {"requirements.txt": "\n".join(lines), "Dockerfile": "", "docs/x": "", "data.db": "", ".git/x": ""}
    )
    take(source, name="front-end")
    said = capsys.readouterr().out
    assert "web.a:asgi (asgi), named by its code; taken: web\n" in said
    assert "left out: .git, Dockerfile, data.db, docs, requirements.txt, gunicorn==20, pytest\n" in said
    compose = (ours / "services/front-end/compose.yaml").read_text()
    assert "SERVICE: front-end PACKAGE: web APPLICATION: web.a:asgi INTERFACE: asgi" in " ".join(compose.split())
    assert "volumes:" not in compose
    group = [
        line.strip()
        for line in (ours / "pyproject.toml").read_text().partition("front-end = [\n")[2].split("\n]")[0].splitlines()
    ]
    assert group == [
        '"Flask==3.0.0",',
        r'"x; python_version < \"3.9\"",',
        '"z @ https://h.invalid/z-1.tar.gz",',
        f'"{service.SERVERS["asgi"]}",',
    ]


def test_an_instance_folder_is_kept_on_a_volume(ours: Path, write: Write) -> None:
    code = FACTORY.replace("__name__", "__name__, instance_relative_config=True")
    take(write({"blog/__init__.py": code, "requirements.txt": "flask\n", "instance/mine.sqlite": ""}))
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert compose.endswith("    volumes:\n      - theirs-data:/app/instance\n\nvolumes:\n  theirs-data:\n")
    assert not (ours / "services/theirs/instance").exists()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "there is no folder"),
        ({"app.py": APP}, "no requirements"),
        ({"serve.py": APP, "requirements.txt": ""}, "serve.py cannot be adopted"),
        ({"click/__init__.py": FACTORY, "requirements.txt": "click\n"}, "its own click would hide the package click"),
    ],
)
def test_mistakes_change_nothing(ours: Path, write: Write, files: dict[str, str], told: str) -> None:
    (ours / "poetry.lock").write_text((ours / "poetry.lock").read_text().replace("second", "theirs"))
    commit(ours)
    with pytest.raises(UserError, match=told):
        take(write(files))
    assert git(ours, "status", "--porcelain", "--ignored") == ""


def test_options_that_exclude_each_other(ours: Path) -> None:
    told = "--app and --own-lock go with --from DIR, and none of them with --like"
    with pytest.raises(UserError, match=told):
        take(None, app="a:b")
    with pytest.raises(UserError, match=told):
        take(ours, like="pilot")
    with pytest.raises(UserError, match=told):
        take(None, own=True)


CONFLICT = """Resolving dependencies...

Because ours depends on x (>=2)
 and theirs on x (1), version solving failed.

Try something else.
"""


def poetry(folder: Path, words: str) -> Callable[..., None]:
    """A Poetry that cannot lock all services' requirements, and says so in these words; that of one service it can."""

    def run(_: object, *arguments: str, silent: bool = False) -> None:
        if silent:
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
        else "Because ours depends on x (>=2) and theirs on x (1), version solving failed"
    )
    assert f"{said}\n" in capsys.readouterr().out
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["project"]["dependencies"] == ['x==1; python_version > "3"', service.SERVERS["wsgi"]]
    assert made["tool"] == {"poetry": {"package-mode": False}, "pytest": {"ini_options": {}}}
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
    ("files", "settings"),
    [
        ({"pytest.ini": "[pytest]\n"}, None),
        ({"setup.cfg": "[tool:pytest]\n"}, None),
        (
            {"pyproject.toml": "[tool.pytest.ini_options]\nmarkers = [\n    'a',\n]\n[tool.black]\n"},
            {"ini_options": {"markers": ["a"]}},
        ),
    ],
)
def test_its_own_settings_for_pytest(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], settings: object
) -> None:
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs", ""))
    take(write({"app.py": APP, "requirements.txt": "x==1\n", **files}), own=True)
    assert tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())["tool"].get("pytest") == settings


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'a-b'\nversion = '1.2rc1'\n"}, "a-b==1.2rc1"),
        ({"pyproject.toml": "[tool.poetry]\nname = 'a'\nversion = '1'\n"}, "a==1"),
        ({"setup.cfg": "[metadata]\nname = a\nversion = 1.0\n"}, "a==1.0"),
        ({"setup.cfg": "[metadata]\nname = a\nversion = attr: a.VERSION\n"}, ""),
        ({"pyproject.toml": "[project]\nname = 'a'\ndynamic = ['version']\n"}, ""),
        ({"app.py": APP}, ""),
    ],
)
def test_its_own_distribution(ours: Path, write: Write, files: dict[str, str], found: str) -> None:
    source = write({"app.py": APP, "requirements.txt": "flask\n"} | files)
    assert find_distribution(source) == found
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


@pytest.mark.slow
def test_poetrys_own_dependencies(clone: Path, write: Write) -> None:
    in_git(clone)
    lines = """[tool.poetry]
package-mode = false
[tool.poetry.dependencies]
python = ">=3.11"
flask = "^3.1"
itsdangerous = {version = "~2.2", extras = ["x"], markers = "sys_platform == 'linux'"}
blinker = [{version = "<1.8", python = "<3.12"}, {version = ">=1.9", python = ">=3.12"}]
"""
    source = write({"blog/__init__.py": FACTORY, "pyproject.toml": lines})
    real(clone, "new", "--", "blog", "--from", str(source))
    group = tomllib.loads((clone / "pyproject.toml").read_text())["dependency-groups"]["blog"]
    wanted = {one.name: one for one in map(Requirement, group)}
    assert wanted["flask"].specifier == Requirement("flask>=3.1,<4.0").specifier
    assert wanted["itsdangerous"].specifier == Requirement("x>=2.2,<2.3").specifier
    assert wanted["blinker"].specifier == Requirement("x>=1.9").specifier
    real(clone, "remove", "--", "blog")
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.slow
def test_flasks_own_tutorial_is_adopted_as_it_is(clone: Path, tmp_path: Path) -> None:
    """The example application in Flask's source distribution, written by Flask's makers: its own tests pass here."""
    in_git(clone)
    real(clone, "lock", "--", "--version")  # which brings pip
    pip = (str(clone / ".nox/lock/bin/python"), "-m", "pip")
    fetch = [*pip, "download", "-q", "--no-deps", "--no-binary=:all:", "-d", str(tmp_path), "flask==3.1.3"]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Flask's source distribution is not to be had: {done.stderr.splitlines()[-1]}")
    with tarfile.open(next(tmp_path.glob("flask-*.tar.gz"))) as tar:
        tar.extractall(tmp_path, filter="data")
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


@pytest.mark.slow
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
            "requirements.txt": "Flask==3.0.0\ntyping_extensions==4.8.0\n",
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
        real(clone, "lock", "--", "--service", "blog", "add", "--lock", "packaging==21.3")
        told = real(clone, "test", "--", "blog", code=1)
        assert "the shared group tests does not go with blog's own lock: pytest" in told
        git(clone, "checkout", "-q", ".")
    finally:
        real(clone, "clean")
    real(clone, "remove", "--", "blog")
    git(clone, "add", "--all")
    assert git(clone, "diff", "--cached", "--name-only", "HEAD~1") == ""
