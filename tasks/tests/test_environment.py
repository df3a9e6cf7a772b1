"""What adopted code reads, writes and uses: variables, files, neighbours."""

from __future__ import annotations

import ast
import re
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from ..scaffold import service
from ..scaffold.application import Code
from ..scaffold.environment import compose_lines, databases, neighbours, variables
from .scaffolding import APP, FACTORY, NO_SESSION, git
from .test_adopt import adopting_project, take

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return adopting_project(tmp_path / "ours", monkeypatch)


def test_databases_beside_the_code_are_kept_on_a_volume(
    ours: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """url = 'sqlite:///./sql_app.db'
DATABASES = {'ENGINE': 'django.db.backends.sqlite3', 'NAME': BASE_DIR / 'db.sqlite3'}
others = ['/tmp/x.db', 'sqlite:////var/y.db', 'sqlite://', f'sqlite:///{BASE_DIR}/made.db', './named.db']
"""
    files = {"web/__init__.py": FACTORY, "web/settings.py": code, "db.sqlite3": "", ".gitignore": "instance/\n*.pyc"}
    take(write({**files, "requirements.txt": "flask\n"}))
    assert (
        "kept in instance/, a volume in production: db.sqlite3, made.db, named.db, sql_app.db\n"
        in capsys.readouterr().out
    )
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


def test_databases_that_files_for_paste_name(ours: Path, write: Write) -> None:
    ini = "[app:main]\nuse = egg:blog\nsqlalchemy.url = sqlite:///%(here)s/blog.sqlite\nlog = %(here)s/x.log\n"
    take(write({"blog/__init__.py": "", "production.ini": ini, "blog.sqlite": "", "requirements.txt": "pyramid\n"}))
    assert str((ours / "services/theirs/blog.sqlite").readlink()) == "instance/blog.sqlite"
    assert not (ours / "services/theirs/x.log").is_symlink()


def test_other_files_are_no_databases(write: Write) -> None:
    assert databases(Code(source := write({"web.py": "hidden = ['Thumbs.db']\n"})).texts, [], source) == []
    code = Code(write({"web.py": "from django.db import models\nengine = 'sqlite'\n"}))
    assert databases(code.texts, code.imports, source) == []


def test_databases_in_a_folder_that_git_does_not_have(ours: Path, write: Write) -> None:
    code = """names = [BASE / "data" / "one.db", join(BASE, 'data', 'two.sqlite3')]
url = 'sqlite:///var/three.db'
four = os.getenv("FOUR_PATH", "four.db")
"""
    take(write({"web.py": f"{APP}{code}", "var/.gitkeep": "", "requirements.txt": "flask\n"}))
    folder = ours / "services/theirs"
    assert str((folder / "data").readlink()) == "instance"
    assert str((folder / "var/three.db").readlink()) == "../instance/three.db"
    assert sorted(path.name for path in folder.iterdir() if path.is_symlink()) == ["data", "four.db"]


def test_the_port_of_a_server_that_takes_it_from_a_variable(ours: Path, write: Write) -> None:
    code = "import os\n\nimport aiohttp.web\n\naiohttp.web.run_app(make(), port=os.environ.get('PORT'))\n"
    take(write({"bot/__init__.py": "", "bot/__main__.py": code, "requirements.txt": "x\n"}), app="python -m bot 8000")
    text = (ours / "services/theirs/compose.yaml").read_text()
    assert '#    environment: &environment\n#      PORT: "8000"\n' in text
    assert ":8000\n" in text.partition("    ports:\n")[2]


def test_a_worker_in_the_code_of_an_application(ours: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"web/__init__.py": FACTORY, "web/jobs.py": "celery = make('redis://h')\n"}
    take(write({**files, "requirements.txt": "flask\ncelery\n"}))
    told = capsys.readouterr().out
    assert (
        "it has a worker, python -m celery --app=web.jobs worker: uncomment it in services/theirs/compose.yaml" in told
    )
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


def test_what_code_needs_can_be_uncommented(ours: Path, write: Write) -> None:
    code = "import os\nKEY = os.environ['SECRET_KEY'], os.getenv('DEBUG')\n"
    take(write({"app.py": f"{APP}{code}", "requirements.txt": "flask\n"}))
    text = (ours / "services/theirs/compose.yaml").read_text()
    service = yaml.safe_load(re.sub("^#(?=  )", "", text, flags=re.MULTILINE))["services"]["theirs"]
    assert (service["environment"], "depends_on" in service) == ({"SECRET_KEY": ""}, False)


def test_what_a_project_calls_the_parts_of_an_address() -> None:
    read = {
        "POSTGRES_SERVER",
        "POSTGRES_USER",
        "DB_NAME",
        "PGPASSWORD",
        "DATABASE_PORT",
        "REDIS_CACHE_HOST",
        "MYSQL_DB",
    }
    lines, _, _ = compose_lines("pilot", neighbours(["psycopg", "redis"], []), dict.fromkeys(read, False))
    found = yaml.safe_load(lines.replace("environment: &environment", "environment:"))
    assert found["environment"] == {
        "REDIS_CACHE_HOST": "pilot-valkey",
        "POSTGRES_SERVER": "pilot-postgres",
        "DATABASE_PORT": "5432",
        "POSTGRES_USER": "app",
        "DB_NAME": "app",
        "PGPASSWORD": "${PILOT_DATABASE_PASSWORD:-development}",
    }


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def app(env, start): return env['HTTP_HOST'], env.get('QUERY_STRING'), env.pop('REMOTE_ADDR', '')", set()),
        ("a = env('A_A'), env.str('B_B'), env.json('C_C')", {"A_A", "B_B", "C_C"}),
        ("a = envbool('A_A'), settings.get_env('B_B', 1), os.getenv('C_C'), seven('D_D')", {"A_A", "B_B", "C_C"}),
        ("from os import environ\na = environ['A_A'], environ.get('B_B')", {"A_A", "B_B"}),
        (
            "from os import getenv, environ as env, path\na = env['A_A'], env.get('B_B'), os.environ['C_C']",
            {"A_A", "B_B", "C_C"},
        ),
        ("def app(environ, start): return environ['HTTP_HOST'], environ.get('QUERY_STRING')", set()),
        ("import environ\nfrom web import environ\na = environ['A_A']", set()),
        ("from os import environ\na = request.environ['A_A'], self.environ.get('B_B')", set()),
        ("import os\na = os.environ['PATH'], os.environ['HOME'], os.environ['PATHS']", {"PATHS"}),
        ("import os\nos.environ['A_A'] = 'x'\na = os.environ['B_B'] == 'x'", {"B_B"}),
    ],
)
def test_how_code_reads_variables(write: Write, code: str, found: set[str]) -> None:
    assert set(variables(Code(write({"web.py": code})).trees.values())) == found


def test_variables_without_which_code_fails(write: Write) -> None:
    code = "a = env('A_A'), env.str('B_B'), config('C_C'), environ['D_D'], os.environ['E_E']\n"
    code += "b = env('F_F', 1), env.str('G_G', default=''), config('H_H', cast=int), getenv('I_I'), config['J_J']\n"
    code += "c = os.environ['K_K'] if 'K_K' in os.environ else ''\n"
    code += "if os.environ.get('L_L') and os.getenv('M_M'):\n    d = os.environ['L_L'] + os.environ['M_M']\n"
    found = variables(Code(write({"web.py": f"from os import environ\n{code}"})).trees.values())
    assert [name[0] for name in found if found[name]] == ["A", "B", "C", "D", "E"]
    assert [name[0] for name in found if not found[name]] == ["F", "G", "H", "I", "J", "K", "L", "M"]


def test_settings_of_pydantic(write: Write) -> None:
    base = "class AppSettings(pydantic_settings.BaseSettings):\n    debug: bool = False\n    key: str\n"
    base += "class Testing(AppSettings):\n    key: str = 'x'\n"
    files = {
        "base.py": base,
        "one.py": "class One(base.AppSettings):\n    model_config: ClassVar = SettingsConfigDict(env_prefix='ONE_')\n    a: str\n",
        "two.py": "class Two(One):\n    class Config:\n        env_prefix = 'two_'\n    a: str\n",
        "three.py": "class Three(Two, env_prefix=''):\n    a: str = ''\nclass Four(AppSettings):\n    model_config = {'env_prefix': 'FOUR_'}\n    a: int = 1\n",
        "five.py": "class Five(One):\n    b: str = Field(...)\n    c: str = Field(default='c', alias='CC')\n    d: str = Field(env='d_d')\n",
        "same.py": "class Settings(BaseSettings): ...\n",
        "more/same.py": "class Settings(same.Settings):\n    e: str\nclass Other(BaseModel):\n    f: str\n",
        "mixin.py": "class Part(BaseModel):\n    '''A text.\n\n    Note: no field.\n    '''\n    g: Literal['g', 'h'] | None\nclass H(Part):\n    h: str\n",
        "all.py": "class All(Part, BaseSettings, env_prefix='ALL_'): ...\n",
    }
    found = variables(Code(write(files)).trees.values())
    assert {name for name in found if found[name]} == {"KEY", "ONE_A", "TWO_A", "ONE_B", "D_D", "E", "ALL_G"}
    assert {name for name in found if not found[name]} == {"DEBUG", "A", "FOUR_A", "CC"}


def test_classes_of_one_name_are_read_once_each(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    # Django has a class Migration(migrations.Migration) in hundreds of modules.
    code = "class Migration(migrations.Migration):\n    name: str = 'x'\n" * 100
    trees = Code(write({"web.py": f"class Settings(BaseSettings):\n    a: str\n{code}"})).trees.values()
    unparse, read = ast.unparse, list[ast.AST]()

    def count(node: ast.AST) -> str:
        read.append(node)
        return unparse(node)

    monkeypatch.setattr(ast, "unparse", count)
    assert variables(trees) == {"A": True}
    assert len(read) < 300


def test_what_it_reads_and_uses_is_listed(ours: Path, write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    code = """import os
from os import getenv
a = os.environ["A_1"] + os.environ.get("B") + getenv("CC", "x") + config("DD", cast=int) + env.bool("EE") + os.getenv(a)
environ["REQUEST_METHOD"], other.get("OTHER")
os.environ.setdefault("F_F", "1")
class Settings(pydantic.BaseSettings):
    database_url: str = "postgresql+psycopg://localhost/x"
    secret: str
    f_f: list[str] = []
    g_g: Annotated[list[str] | str, check(x)] = ["a"]
    h_h: dict[str, list[int]]
"""
    source = write(
        {
            "app.py": APP,
            "settings.py": code,
            "Procfile": "worker: rq worker\n",
            "requirements.txt": "celery[redis]\nflask-redis\n",
        }
    )
    found = Code(source)
    read = variables(found.trees.values())
    assert set(read) == {"A_1", "CC", "DD", "EE", "F_F", "DATABASE_URL", "SECRET", "G_G", "H_H"}
    assert {name for name in read if read[name]} == {"A_1", "EE", "SECRET", "H_H"}
    assert [one.name for one in neighbours(["flask-redis", "x"], found.texts)] == ["valkey", "postgres"]
    assert [one.name for one in neighbours(["flask-rq2"], [])] == ["valkey"]
    assert [one.name for one in neighbours(["psycopg2-binary", "pymongo"], [])] == ["postgres", "MongoDB"]
    for url in ("postgresql+asyncpg://h/d", "postgresql+asyncpg"):  # a URL, and the scheme of one
        (postgres,) = neighbours(["psycopg"], [url])
        assert postgres.url.startswith("postgresql+asyncpg://app:")
    assert next(neighbours([], ["postgresql://", "postgresql+asyncpg://"])).url.startswith("postgresql://app:")
    for packages in (["sqlmodel", "asyncpg"], ["flask-sqlalchemy", "psycopg"], ["sqlalchemy", "psycopg2", "asyncpg"]):
        (postgres,) = neighbours(packages, ["sqlite://"])
        driver = "" if "psycopg2" in packages else f"+{packages[1]}"
        assert postgres.url.startswith(f"postgresql{driver}://app:")
    assert next(neighbours(["asyncpg"], [])).url.startswith("postgresql://app:")
    take(source)
    said = capsys.readouterr().out
    assert "A_1 (needed), CC, DATABASE_URL, DD, EE (needed), F_F, G_G, H_H (needed), SECRET (needed)\n" in said
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
        "A_1": "",
        "EE": "",
        "H_H": "",
        "SECRET": "",
        "REDIS_URL": "redis://theirs-valkey:6379/0",
        "DATABASE_URL": "postgresql+psycopg://app:${THEIRS_DATABASE_PASSWORD:-development}@theirs-postgres:5432/app",
    }
    assert provided["services"]["theirs-valkey"]["image"] == "${STACK_VALKEY:-valkey/valkey:8}"
    assert list(provided["volumes"]) == ["theirs-valkey", "theirs-postgres"]
