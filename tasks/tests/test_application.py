"""What is found in a project that is to be adopted: its application and its requirements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ..scaffold import requirements
from ..scaffold.application import Application, Code, find_application
from ..scaffold.requirements import find_needs
from ..shell import UserError
from .scaffolding import APP, DJANGO, FACTORY, NO_SESSION

Write = Callable[[Mapping[str, str]], Path]


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
        ({"a.py": FACTORY, "wsgi.py": "from a import create_app\napp = create_app()\n"}, "wsgi:app wsgi"),
        (
            {"a.py": FACTORY.replace("=None", ""), "wsgi.py": "from a import create_app\napp = create_app('x')\n"},
            "wsgi:app wsgi",
        ),
        (
            {"app.py": APP, "tests/conftest.py": APP, "docs/conf.py": APP, ".venv/x.py": APP, "build/app.py": APP},
            "app:app wsgi",
        ),
        ({"app.py": APP, "old.py": "print 'Python 2'\n"}, "app:app wsgi"),
        # A namespace package, and folders that code imports from without any __init__.py.
        ({"a/b/__init__.py": "import a.b.c", "a/b/c.py": APP}, "a.b.c:app wsgi"),
        ({"src/main.py": f"{APP}from src.models import Entry\n", "src/models.py": ""}, "src.main:app wsgi"),
        ({"flask/app.py": APP}, "app:app wsgi"),
        ({"backend/main.py": f"{APP}import models\n", "backend/models.py": ""}, "main:app wsgi"),
        ({"web/wsgi.py": "from web import core\napp = core.app\n", "web/core.py": APP}, "web.wsgi:app wsgi"),
        ({"a/wsgi.py": "application = make()\n", "b/wsgi.py": "app = make()\n", "c.py": APP}, "c:app wsgi"),
        ({"asgi.py": "from web import app\n", "web.py": "from other import app\n"}, "asgi:app asgi"),
        ({"a.py": FACTORY, "asgi.py": "from a import create_app\napp = create_app()\n"}, "asgi:app asgi"),
        # Further frameworks, and none.
        ({"main.py": "import falcon.asgi\nfrom a import make\napplication = make()\n"}, "main:application asgi"),
        ({"main.py": "from a import make\n\n\ndef get_app():\n    return make('x')\n"}, "main:get_app() wsgi"),
        ({"main.py": "import bottle\napp = bottle.Bottle()\n"}, "main:app wsgi"),
        ({"main.py": "import falcon\napi = falcon.App()\n"}, "main:api wsgi"),
        ({"main.py": "import falcon.asgi\napi = falcon.asgi.App()\n"}, "main:api asgi"),
        ({"main.py": "from litestar import Litestar\napp = Litestar([])\n"}, "main:app asgi"),
        ({"main.py": "from sanic import Sanic\napp = Sanic('x')\n"}, "main:app asgi"),
        ({"main.py": "from apiflask import APIFlask\napp = APIFlask(__name__)\n"}, "main:app wsgi"),
        ({"main.py": "import dash\nboard = dash.Dash(__name__)\n"}, "main:board.server wsgi"),
        ({"main.py": "def application(environ, start_response):\n    return []\n"}, "main:application wsgi"),
        ({"main.py": "async def app(scope, receive, send):\n    pass\n"}, "main:app asgi"),
        # As uWSGI and mod_wsgi look for it, made by somebody's function; a name that only a function knows is none.
        (
            {"app.py": "import web\n\napplication = web.main('x')\n", "web.py": "def main(x):\n    app = x\n"},
            "app:application wsgi",
        ),
        (
            {
                "Dockerfile": "CMD web start\n",
                "web/__init__.py": "def main(x):\n    app = x\n    return app\n",
                "a.py": APP,
            },
            "a:app wsgi",
        ),
        ({"main.py": "async def create_app():\n    return FastAPI()\n\n\napp = FastAPI()\n"}, "main:app asgi"),
    ],
)
def test_an_application_is_found(write: Write, files: dict[str, str], found: str) -> None:
    one = find_application(Code(write(files)))
    assert f"{one.module}:{one.call} {one.interface}" == found


@pytest.mark.parametrize(("wanted", "ini"), [("", "production.ini"), ("etc/development.ini", "etc/development.ini")])
def test_what_a_file_for_paste_configures(write: Write, wanted: str, ini: str) -> None:
    code = "def main(global_config, **settings):\n    return Configurator(settings=settings).make_wsgi_app()\n"
    source = write({"blog/__init__.py": code, ini: "[app:main]\nuse = egg:blog\n"})
    found = find_application(Code(source), wanted)
    assert (found.call, found.said_by) == (f'loadapp("config:{ini}", relative_to=".")', ini)
    assert (found.module, found.interface) == ("paste.deploy", "wsgi")


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
        (
            {"Procfile": "web: gunicorn five\n", "five.py": "from one import app as application\n"},
            "five:application",
            "Procfile",
        ),
        (
            {"Procfile": "web: gunicorn six.run\n", "six/run.py": "application = make()\n"},
            "six.run:application",
            "Procfile",
        ),
        ({"Dockerfile": "ENV FLASK_APP=one.py\nCMD flask run\n"}, "one:app", "Dockerfile"),
        ({"Dockerfile": 'CMD ["python3", "one.py"]\n'}, "one:app", "Dockerfile"),
        (
            {"wsgi.py": "from one import app\n", "web.py": APP, "Procfile": "web: gunicorn $APP\n"},
            "wsgi:app",
            "wsgi.py",
        ),
    ],
)
def test_files_for_servers_name_the_application(write: Write, files: dict[str, str], found: str, said_by: str) -> None:
    one = find_application(Code(write(TWO | files)))
    assert (f"{one.module}:{one.call}", one.said_by) == (found, said_by)
    assert one.interface == ("asgi" if found == "two:other" else "wsgi")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("one:app", "one:app"),
        ("two:create_app", "two:create_app()"),
        ("two:create_app('x')", "two:create_app('x')"),
        ("one:Flask('x').wsgi_app", "one:Flask('x').wsgi_app"),
    ],
)
def test_app_says_which(write: Write, wanted: str, found: str) -> None:
    one = find_application(Code(write(TWO | {"Procfile": "web: gunicorn two:other\n"})), wanted)
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
            "no application found, see docs/adopting.md; say --app MODULE:NAME, or a command",
        ),
        (
            {
                "src/dav/__init__.py": "",
                "src/dav/util.py": "def redirect(environ, start_response):\n    return []\n",
                "src/dav/__main__.py": "import http.server",
            },
            "",
            "no application found.* or a command: --app 'python -m dav'$",
        ),
        ({"README": "", "tests/test_app.py": APP}, "", "has no Python code, or none but tests"),
    ],
)
def test_no_application_or_several(write: Write, files: dict[str, str], wanted: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        find_application(Code(write(files)), wanted)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'w'\ndependencies = ['flask', 'x[y]>=1']\n"}, ["flask", "x[y]>=1"]),
        ({"pyproject.toml": "[tool.black]\n", "requirements.txt": "a==1\n"}, ["a==1"]),
        ({"requirements/prod.txt": "-rbase.txt\nb\n", "requirements/base.txt": "a\n"}, ["a", "b"]),
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
        (
            {"requirements.txt": 'a; python_version > "3.9"\nb; sys_platform == "win32"\n'},
            ['a; python_version > "3.9"'],
        ),
        (
            {
                "requirements.txt": "g<3; python_version<'3.12'\ng>=3.0a1; python_version>='3.12.0rc0'\ng; extra == 'x'\n"
            },
            ['g>=3.0a1; python_version >= "3.12.0rc0"'],
        ),
        (
            {
                "requirements.txt": "git+https://h.invalid/a.git@v1#egg=a\nb @ https://h.invalid/b-1.tar.gz\n-e git+https://h.invalid/c#egg=c\n"
                "git+https://h.invalid/x/d.git@v1\ngit+ssh://git@h.invalid/e\n"
            },
            [
                *(
                    "a @ git+https://h.invalid/a.git@v1",
                    "b @ https://h.invalid/b-1.tar.gz",
                    "c @ git+https://h.invalid/c",
                ),
                *("d @ git+https://h.invalid/x/d.git@v1", "e @ git+ssh://git@h.invalid/e"),
            ],
        ),
        ({"requirements.txt": "\ufeff--index-url https://h.invalid/\n-c limits.txt\n-e .\n.\na\n"}, ["a"]),
        ({"pyproject.toml": "[project]\nname='a'\nversion='1'\ndependencies = ['a[x]', 'b']\n"}, ["b"]),
    ],
)
def test_requirements_are_found(write: Write, files: dict[str, str], found: list[str]) -> None:
    assert [str(one) for one in find_needs(NO_SESSION, write(files)).main] == found


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"app.py": ""}, "no requirements in pyproject.toml, setup.cfg, setup.py or requirements.txt"),
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
            "no requirements in .*: add one of them or --extra x or --extra y",
        ),
        ({"web/requirements.txt": "flask\n"}, "add one of them or --from .*/web$"),
    ],
)
def test_requirements_that_cannot_be_used(write: Write, files: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        find_needs(NO_SESSION, write(files))


def test_a_group_that_is_asked_for(write: Write) -> None:
    source = write({"pyproject.toml": "[dependency-groups]\nweb = ['a']\nother = ['b']\n"})
    needs = find_needs(NO_SESSION, source, ["web"])
    assert ([str(one) for one in needs.main], needs.left) == (["a"], ["other"])


def test_how_requirements_are_encoded(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a\n", encoding="utf-16")
    assert [str(one) for one in find_needs(NO_SESSION, tmp_path).main] == ["a"]
    (tmp_path / "requirements.txt").write_bytes(b"\xe4\n")
    with pytest.raises(UserError, match=r"requirements.txt is not text in UTF-8: 'utf-8' codec can't decode byte 0xe4"):
        find_needs(NO_SESSION, tmp_path)


def test_requirements_that_only_a_build_knows(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = [
        "[x.y]\na = b:c\n",
        "x==1.2",
        "flask>=3",
        'redis; extra == "cache"',
        'moto>5; extra == "test"',
        'y; python_version < "3"',
    ]
    monkeypatch.setattr(requirements, "ask", lambda *_: answer)
    for files in (
        {"setup.py": ""},
        {"setup.cfg": "[options]\n"},
        {"pyproject.toml": "[project]\ndynamic = ['version']\n"},
    ):
        needs = find_needs(NO_SESSION, write(files))
        assert [str(one) for one in needs.main] == ["flask>=3"]
        assert [one.name for one in needs.tests] == ["moto"]
        assert (needs.distribution, needs.entry_points) == ("x==1.2", "[x.y]\na = b:c\n")
    source = write({"requirements.txt": "pinned\n"})
    assert [str(one) for one in find_needs(NO_SESSION, source).main] == ["pinned"]
    assert [one.name for one in find_needs(NO_SESSION, source, ["cache"]).main] == ["flask", "redis"]
    for name in ("setup.py", "setup.cfg", "pyproject.toml"):
        (source / name).unlink()
    with pytest.raises(UserError, match="has no extra or group cache; it has none"):
        find_needs(NO_SESSION, source, ["cache"])


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'x'\ndependencies = []\noptional-dependencies.test = ['a']\n"}, ["a"]),
        (
            {
                "pyproject.toml": "[project]\ndependencies = []\n[dependency-groups]\ndev = [{include-group = 't'}]\nt = ['a>1']\n"
            },
            ["a>1"],
        ),
        ({"requirements.txt": "", "requirements-test.txt": "a\n", "requirements-dev.txt": "b\n"}, ["a"]),
        ({"requirements/prod.txt": "", "requirements/dev.txt": "-r prod.txt\nb\n"}, ["b"]),
        ({"requirements.txt": "", "requirements.d/dev.txt": "b\n"}, ["b"]),
        ({"requirements.txt": "", "dev.requirements.txt": "b\n"}, ["b"]),
        (
            {
                "pyproject.toml": "[project]\ndependencies = []\noptional-dependencies.dev = ['a']\n[dependency-groups]\ndev = ['b']\n"
            },
            ["b", "a"],
        ),
        ({"requirements.txt": ""}, []),
    ],
)
def test_what_tests_need(write: Write, files: dict[str, str], found: list[str]) -> None:
    assert [str(one) for one in find_needs(NO_SESSION, write(files)).tests] == found


@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"tasks.py": "app = Celery('tasks')\n"}, "python -m celery --app=tasks worker"),
        (
            {"src/crew/__init__.py": "", "src/crew/jobs.py": "celery_app = make()\n"},
            "python -m celery --app=crew.jobs worker",
        ),
        (
            {"a.py": "def make():\n    return Celery()\n\n\ncelery: object = make()\n"},
            "python -m celery --app=a worker",
        ),
    ],
)
def test_the_worker_in_code_without_an_application(write: Write, files: dict[str, str], command: str) -> None:
    source = write(files)
    root = source / "src" if (source / "src").is_dir() else source
    assert find_application(Code(source)) == Application(root, "", command, "command")


def test_what_is_listed_of_many_applications(write: Write) -> None:
    source = write({f"{name}.py": APP for name in "abcdefgh"})
    with pytest.raises(UserError, match=r"has 8 applications: choose with --app 'a:app' .* or --app 'f:app', \.\.\.$"):
        find_application(Code(source))


def test_a_module_for_servers_that_is_one_of_several_in_a_library(write: Write) -> None:
    django = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    packages = {"geo/__init__.py": "", "geo/dj/__init__.py": "", "geo/dj/wsgi.py": django}
    with pytest.raises(UserError, match="2 applications"):
        find_application(Code(write(packages | {"geo/flask_app.py": APP})))
