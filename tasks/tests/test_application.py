"""What is found in a project that is to be adopted: its application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ..scaffold.application import Application, Code, find_application
from ..shell import UserError
from .scaffolding import APP, DJANGO, FACTORY

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
        ({"api/v1/main.py": f"{APP}from ..db import engine\n", "api/db.py": ""}, "api.v1.main:app wsgi"),
        (
            {"src/__init__.py": "", **{f"src/{name}": text for name, text in DJANGO.items()}},
            "shop.wsgi:application wsgi",
        ),
        (
            {
                "shop/__init__.py": "",
                "shop/manage.py": "",
                "shop/run.py": FACTORY,
                "shop/wsgi.py": "from shop.run import x as app\n",
            },
            "shop.wsgi:app wsgi",
        ),
        ({"flask/app.py": APP}, "app:app wsgi"),
        ({"backend/main.py": f"{APP}import models\n", "backend/models.py": ""}, "main:app wsgi"),
        ({"web/wsgi.py": "from web import core\napp = core.app\n", "web/core.py": APP}, "web.wsgi:app wsgi"),
        ({"a/wsgi.py": "application = make()\n", "b/wsgi.py": "app = make()\n", "c.py": APP}, "c:app wsgi"),
        ({"asgi.py": "from web import app\n", "web.py": "from other import app\n"}, "asgi:app asgi"),
        ({"a.py": FACTORY, "asgi.py": "from a import create_app\napp = create_app()\n"}, "asgi:app asgi"),
        # Further frameworks, and none.
        ({"main.py": "import falcon.asgi\nfrom a import make\napplication = make()\n"}, "main:application asgi"),
        ({"main.py": "from a import make\n\n\ndef get_app():\n    return make('x')\n"}, "main:get_app() wsgi"),
        ({"main.py": "from a import b\nimport fastapi\napp = create_application(b)\n"}, "main:app asgi"),
        ({"main.py": "import bottle\napp = bottle.Bottle()\n"}, "main:app wsgi"),
        ({"main.py": "import connexion\napi = connexion.App('x')\n"}, "main:api wsgi"),
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
        # A server's module has the application, whatever it is called there.
        ({"wsgi.py": "from a import create_app\nblog = create_app('x')\n", "a.py": FACTORY}, "wsgi:blog wsgi"),
        # A factory's application, to which another module adds routes.
        (
            {
                "core.py": FACTORY,
                "web.py": "from core import create_app\napp = create_app()\n\n\n@app.get('/')\ndef home(): ...\n",
            },
            "web:app wsgi",
        ),
        # A function that returns nothing is no factory.
        ({"cli.py": "def main():\n    run(Bottle())\n    return\n", "web.py": "app = Bottle()\n"}, "web:app wsgi"),
        # Tornado is imported, and Flask's factory makes the application.
        ({"main.py": f"import tornado.web\n{FACTORY}"}, "main:create_app() wsgi"),
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
        ({".env.example": 'export FLASK_APP="one:app"\n'}, "one:app", ".env.example"),
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
        ({"Dockerfile": "CMD cd four && python one.py\n"}, "one:app", "Dockerfile"),
        ({"Procfile": "web: gunicorn four:app\n"}, "four:app", "Procfile"),
        ({"Procfile": "web: gunicorn six:app\n", "six/__init__.py": "from .core import *\n"}, "six:app", "Procfile"),
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


SCRIPTS = {
    "pyproject.toml": "[project.scripts]\nweb-server = 'web:main'\n",
    "setup.cfg": "[options.entry_points]\nconsole_scripts =\n    web-server = web:main\n",
    "setup.py": "setup(entry_points={'console_scripts': ['web-server = web:main']})\n",
}


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
            {"src/dav/util.py": "def redirect(environ, start_response):\n    return []\n"},
            "",
            "no application found.* or a command: 'python -m MODULE'$",
        ),
        # What is made for `python -m`; a server of its own on our port, whatever a file says.
        (
            {"crew/__init__.py": "", "crew/__main__.py": "", "crew/tools/__main__.py": "", "crew/x.py": ""},
            "",
            "no application found.* or a command: 'python -m crew'$",
        ),
        (
            {
                "main/__init__.py": "",
                "main/__main__.py": "import aiohttp.web\n",
                "Procfile": "web: python3 -m main --port=80\n",
            },
            "",
            "no application found.* or a command: 'python -m main --port 8000'$",
        ),
        (
            {"web.py": "from twisted.application import service\n\n\ndef get_application():\n    return service.A()\n"},
            "",
            "no application found.* or a command: 'python -m MODULE --port 8000'$",
        ),
        (
            {f"{name}.py": "if __name__ == '__main__':\n    print()\n" for name in ("one", "two")},
            "",
            "no application found.* or a command: 'python -m MODULE'$",
        ),
        (
            {"home.py": "import streamlit as st\n\nst.write('')\n"},
            "",
            "no application found.* or a command: 'streamlit run MODULE.py --server.address 0.0.0.0 --server.port 8000'$",
        ),
        # A server of its own is neither WSGI nor ASGI, and a worker has its own command.
        (
            {"web.py": "import tornado.web\n\n\ndef make_app():\n    return tornado.web.Application()\n"},
            "",
            "no application found.* or a command: 'python -m MODULE --port 8000'$",
        ),
        (
            {"web.py": "from aiohttp import web\n\napp = create_app()\n"},
            "",
            "no application found.* or a command: 'python -m MODULE --port 8000'$",
        ),
        (
            {"jobs.py": "from arq.connections import RedisSettings\nfrom rq import Queue\n"},
            "",
            "no application found.* or a command: 'arq MODULE.WorkerSettings' or 'rq worker'$",
        ),
        (
            {"a/web.py": APP, "b/web.py": APP},
            "",
            "has 2 applications: choose with --app 'a/web:app' or --app 'b/web:app'$",
        ),
        ({"README": "", "tests/test_app.py": APP}, "", "has no Python code, or none but tests"),
        (
            {
                "a.py": "",
                "b.py": "",
                "docker-compose.yml": "  a:\n    command: python a.py\n  b:\n    command: [python, b.py]\n",
            },
            "",
            "has 2 applications: choose with --app 'python -m a' or --app 'python -m b'$",
        ),
        ({"a.py": "", "Dockerfile": "CMD python other.py\n"}, "", "or a command: 'python -m MODULE'$"),
        # The only module that is made to run; a project's own command.
        (
            {"web.py": "import aiohttp.web\n\nif __name__ == '__main__':\n    main()\n", "views.py": ""},
            "",
            "or a command: 'python -m web --port 8000'$",
        ),
        *(
            ({"web.py": "import tornado.web\n", name: text}, "", "or a command: 'web-server --port 8000'$")
            for name, text in SCRIPTS.items()
        ),
    ],
)
def test_no_application_or_several(write: Write, files: dict[str, str], wanted: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        find_application(Code(write(files)), wanted)


def test_a_command_of_the_project_itself(write: Write) -> None:
    source = write({"web.py": "", "pyproject.toml": SCRIPTS["pyproject.toml"]})
    assert find_application(Code(source), "web-server") == Application(source, "", "web-server", "command", "--app")


def test_code_in_another_encoding(write: Write) -> None:
    source = write({"wsgi.py": ""})
    (source / "wsgi.py").write_bytes(b"# coding: latin-1\nfrom caf\xe9 import make\n\napplication = make()\n")
    assert find_application(Code(source)).call == "application"


@pytest.mark.parametrize("folder", ["a", "b"])
def test_an_application_in_one_of_two_folders_that_have_the_same(write: Write, folder: str) -> None:
    source = write({"a/web.py": APP, "b/web.py": APP})
    found = find_application(Code(source), f"{folder}/web:app")
    assert (found.root, found.module, found.call) == (source / folder, "web", "app")


def test_an_application_that_is_assigned_twice(write: Write) -> None:
    assert find_application(Code(write({"web.py": f"{APP}app = Flask('x')\n"}))).call == "app"


def test_what_is_listed_of_many_applications(write: Write) -> None:
    source = write({f"{name}.py": APP for name in "abcdefgh"})
    with pytest.raises(UserError, match=r"has 8 applications: choose with --app 'a:app' .* or --app 'f:app', \.\.\.$"):
        find_application(Code(source))


def test_a_module_for_servers_that_is_one_of_several_in_a_library(write: Write) -> None:
    django = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    packages = {"geo/__init__.py": "", "geo/dj/__init__.py": "", "geo/dj/wsgi.py": django}
    with pytest.raises(UserError, match="2 applications"):
        find_application(Code(write(packages | {"geo/flask_app.py": APP})))
