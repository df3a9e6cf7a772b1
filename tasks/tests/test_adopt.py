"""Existing projects adopted: small ones of the tests' own."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from argparse import Namespace
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from pathlib import Path

import pytest

from .. import project
from ..images import target
from ..scaffold import adopt, resolve, service
from ..scaffold.requirements import find_needs
from ..shell import UserError
from .scaffolding import APP, FACTORY, NO_SESSION, commit, git, small_project

Write = Callable[[Mapping[str, str]], Path]


def adopting_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project that adopts without asking an index."""
    for module in (adopt, resolve, target):
        monkeypatch.setattr(module, "SERVICES", root / "services")
    return small_project(root, monkeypatch)


def take(
    source: Path | None,
    name: str = "theirs",
    app: str = "",
    like: str = "",
    extra: tuple[str, ...] = (),
    *,
    own: bool = False,
    unpin: bool = False,
) -> None:
    """Adopt a project, as `new --from` does."""
    service.check_name(name)
    with service.all_or_nothing(name):
        words = {"name": name, "like": like, "source": source, "app": app, "extra": extra, "own_lock": own}
        service.new(NO_SESSION, Namespace(**words, unpin=unpin))


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return adopting_project(tmp_path / "ours", monkeypatch)


WORKSPACE = "[project]\ndependencies = ['flask', 'core']\n[tool.uv.sources]\ncore = {workspace = true}\n"


def test_what_is_written_about_an_application(ours: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "Flask==3.0.0",
        "gunicorn==20",
        "uWSGI",
        "pytest",
        'x; python_version > "3.9"',
        "z @ https://h.invalid/z-1.tar.gz",
    ]
    lines += ["hypothesis==6.150"]  # which is among the test tools, too
    files = {"web/__init__.py": "", "web/a.py": "from starlette.applications import Starlette\nasgi = Starlette()\n"}
    source = write(
        files | {"requirements.txt": "\n".join(lines), "Dockerfile": "", "docs/x": "", "data.db": "", ".git/x": ""}
    )
    take(source, name="front-end")
    said = capsys.readouterr().out
    assert "web.a:asgi (asgi), named by its code\n" in said
    assert (
        "taken: web; left out: .git, Dockerfile, data.db, docs, requirements.txt, gunicorn==20, uWSGI, pytest\n" in said
    )
    assert (ours / "services/front-end/tests/__init__.py").exists()
    compose = (ours / "services/front-end/compose.yaml").read_text()
    assert 'SERVICE: front-end PACKAGE: . APPLICATION: "web.a:asgi" INTERFACE: asgi' in " ".join(compose.split())
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
    ("files", "told"),
    [
        ({}, "there is no folder"),
        ({"app.py": APP}, "no requirements"),
        ({"app.py": APP, "pyproject.toml": WORKSPACE}, "core: in folders beside it"),
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
    told = "--app, --extra, --unpin and --own-lock go with --from DIR, and none of them with --like"
    with pytest.raises(UserError, match=told):
        take(None, app="a:b")
    with pytest.raises(UserError, match=told):
        take(ours, like="pilot")
    with pytest.raises(UserError, match=told):
        take(None, own=True)


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
        (
            {
                "pytest.ini": "[pytest]\naddopts = a/b/ --maxfail 1 --cov svc --color=yes tests/ --ignore=x/ --color no -q\n"
            },
            {"ini_options": {"addopts": ["--maxfail", "1", "--ignore=x/", "-q"]}},
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


def test_its_own_settings_for_other_tools(ours: Path, write: Write) -> None:
    """Alembic reads its own from there at run time."""
    theirs = """[tool.alembic]
script_location = "migrations"
more = [
    [1],
]
[[tool.alembic.post_write_hooks]]  # a list
name = "a"

[project]
name = "x"
dependencies = []

[tool.uv]
package = false
[tool.pytest.ini_options]
addopts = "-q"

# Of types.
[tool.mypy]
strict = true
"""
    take(write({"app.py": APP, "pyproject.toml": theirs}))
    found = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())["tool"]
    wanted = {name: table for name, table in tomllib.loads(theirs)["tool"].items() if name not in {"uv", "pytest"}}
    assert found == wanted | {"pytest": {"ini_options": {"addopts": ["-q"]}}}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'a-b'\nversion = '1.2rc1'\n"}, "a-b==1.2rc1"),
        ({"pyproject.toml": "[tool.poetry]\nname = 'a'\nversion = '1'\n"}, "a==1"),
        ({"setup.cfg": "[metadata]\nname = a\nversion = 1.0\n"}, "a==1.0"),
        ({"setup.cfg": "[metadata]\nname = a\nversion = attr: a.VERSION\n"}, "a==0"),
        ({"pyproject.toml": "[project]\nname = 'a'\ndynamic = ['version']\n"}, "a==0"),
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


@pytest.mark.parametrize("more", ["", "greenlet==3.1\n"])
def test_what_sqlalchemy_needs_for_asyncio(
    ours: Path, write: Write, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    code = f"from sqlalchemy.ext.asyncio import create_async_engine\n{APP}"
    take(write({"app.py": code, "tests/test_app.py": "", "requirements.txt": f"sqlalchemy\n{more}"}))
    group = tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"]["theirs"]
    assert group[:2] == ["sqlalchemy", more.strip() or "greenlet"]
    told = (
        "greenlet is required, too, because the code imports sqlalchemy.ext.asyncio or sqlmodel.ext.asyncio.session\n"
    )
    assert (told in capsys.readouterr().out) == (not more)


def test_what_uvicorns_extra_brings(ours: Path, write: Write) -> None:
    code = "import yaml\nfrom dotenv import load_dotenv\nfrom fastapi import FastAPI, WebSocket\napp = FastAPI()\n"
    take(write({"app.py": code, "requirements.txt": "fastapi\nuvicorn[standard]\n"}))
    group = tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"]["theirs"]
    assert {"fastapi", "websockets", "python-dotenv", "pyyaml"} <= {*group}


def test_the_first_service_of_all(ours: Path, write: Write) -> None:
    shutil.rmtree(ours / "services")  # which git does not keep when it is empty
    take(write({"app.py": APP, "requirements.txt": "flask\n"}))
    assert (ours / "services/theirs/app.py").is_file()


@pytest.mark.parametrize(
    "files",
    [
        {
            "pyproject.toml": "[project]\nname = 'a'\nversion = '1'\nscripts.run = 'a:main'\n[project.entry-points.'x.y']\nz = 'a:Z'\n"
        },
        {
            "pyproject.toml": "[tool.poetry]\nname = 'a'\nversion = '1'\nplugins.'x.y'.z = 'a:Z'\n"
            "[tool.poetry.scripts]\nrun = 'a:main'\nfile = {reference = 'b', type = 'file'}\n"
        },
        {
            "setup.cfg": "[metadata]\nname = a\nversion = 1\n[options.entry_points]\nconsole_scripts =\n    run = a:main\nx.y = z = a:Z\n"
        },
    ],
)
def test_its_own_entry_points(ours: Path, write: Write, files: dict[str, str]) -> None:
    take(write({"app.py": APP, "requirements.txt": "flask\n"} | files))
    (line,) = re.findall("ENTRY_POINTS: (.*)", (ours / "services/theirs/compose.yaml").read_text())
    found = ConfigParser()
    found.read_string(json.loads(line))
    tables = {name: dict(found[name]) for name in found.sections()}
    assert tables == {"console_scripts": {"run": "a:main"}, "x.y": {"z": "a:Z"}}


def test_adopted_code_is_not_linted_by_our_rules(ours: Path, write: Write) -> None:
    take(write({"app.py": APP, "requirements.txt": "flask\n"}))
    assert tomllib.loads((ours / "services/theirs/ruff.toml").read_text()) == {"exclude": ["*"]}
    service.remove(NO_SESSION, "theirs")
    take(write({"ruff.toml": "line-length = 79\n"}))
    assert (ours / "services/theirs/ruff.toml").read_text() == "line-length = 79\n"


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pdm.lock"])
def test_newer_versions_of_the_major_in_its_own_lock(ours: Path, write: Write, name: str) -> None:
    lines = ["Fast.API[x]>=0.1", "b>2", "c", "d @ https://h.invalid/d-2.zip", "e", 'f==1; python_version > "3"']
    versions = [("fast-api", "0.115.0"), ("b", "2"), ("c", "1"), ("c", "2"), ("d", "1"), ("e", "1.0b1"), ("f", "1.0")]
    text = "".join(f"[[package]]\nname = '{package}'\nversion = '{version}'\n" for package, version in versions)
    files = {"app.py": APP, "requirements.txt": "\n".join(lines), name: f"{text}[[package]]\nname = 'own'\n"}
    take(write(files), unpin=True)
    group = tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"]["theirs"]
    kept = ["Fast.API[x]<1,>=0.115.0", "b>2", "c", lines[3], "e<2,>=1.0b1", 'f<2,>=1.0; python_version > "3"']
    assert group[:-1] == kept
    service.remove(NO_SESSION, "theirs")
    with pytest.raises(UserError, match=rf"{name} does not parse: "):
        take(write({name: "<<<<<<< HEAD\n"}))


def test_settings_for_pytest_beside_the_code(ours: Path, write: Write) -> None:
    take(write({"src/app.py": APP, "src/pytest.ini": "[pytest]\naddopts = -q\n", "requirements.txt": "x\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())["tool"]["pytest"]
    assert made == {"ini_options": {"addopts": ["-q"]}}


@pytest.mark.parametrize("inside", ["", "services"])
def test_a_folder_that_has_this_project_in_it(ours: Path, inside: str) -> None:
    for path in (ours / inside, ours.parent):
        (path / "app.py").write_text(APP)
        (path / "requirements.txt").write_text("flask\n")
        with pytest.raises(UserError, match="or it has this project in it"):
            take(path)
    assert not (ours / "services/theirs").exists()


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
    take(
        write(
            {
                "app.py": APP,
                "Procfile": "web: gunicorn app:app\nworker: REMAP_SIGTERM=SIGQUIT celery -A app.celery worker\n",
            }
        )
    )
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert "  theirs: &theirs\n" in compose
    assert "  theirs-worker:\n    <<: *theirs\n" in compose
    assert '      INTERFACE: command\n      APPLICATION: "celery -A app.celery worker"\n' in compose
    service.remove(NO_SESSION, "theirs")
    (ours / "services/theirs-worker").mkdir()
    with pytest.raises(UserError, match="cannot be called 'theirs-worker': services/ has a folder of this name"):
        take(write({}))
