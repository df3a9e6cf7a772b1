"""What is found in a project that is to be adopted and has no application: the command that it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from ..scaffold.application import Application, Code, find_application
from ..shell import UserError
from .test_adopt import adopting_project, take

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return adopting_project(tmp_path / "ours", monkeypatch)


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


@pytest.mark.parametrize(
    ("files", "command", "said_by"),
    [
        ({"Dockerfile": 'CMD ["python3", "-u", "bot.py", "--all"]\n'}, "bot --all", "Dockerfile"),
        ({"Dockerfile": 'ENTRYPOINT ["python", "-m"]\n\nCMD ["crew"]\n'}, "crew", "Dockerfile"),
        ({"Dockerfile": 'ENTRYPOINT ["python", "bot.py"]\nCMD ["--all"]\n'}, "bot --all", "Dockerfile"),
        ({"Dockerfile": 'ENTRYPOINT ["/start.sh"]\nCMD ["python", "bot.py"]\n'}, "bot", "Dockerfile"),
        ({"Dockerfile": 'ENTRYPOINT [ "/tini", "--", \\\n  "python", "-m", "crew" ]\n'}, "crew", "Dockerfile"),
        (
            {"Procfile": "release: python seed.py\nworker: A=1 python src/jobs/run.py $QUEUE\n"},
            "jobs.run $QUEUE",
            "Procfile",
        ),
        ({"compose.yml": "services:\n  bot:\n    command: poetry run python bot.py & sleep 1\n"}, "bot", "compose.yml"),
        (
            {"Dockerfile": "HEALTHCHECK \\\n  CMD python seed.py\nCMD alembic upgrade head && exec python bot.py\n"},
            "bot",
            "Dockerfile",
        ),
    ],
)
def test_a_command_that_a_file_says(write: Write, files: dict[str, str], command: str, said_by: str) -> None:
    code = ["bot.py", "seed.py", "crew/__init__.py", "crew/__main__.py", "src/jobs/__init__.py", "src/jobs/run.py"]
    source = write(dict.fromkeys(code, "") | files)
    root = source / "src" if command.startswith("jobs") else source
    assert find_application(Code(source)) == Application(root, "", f"python -m {command}", "command", said_by)


AIOHTTP = "from aiohttp import web\n"


@pytest.mark.parametrize(
    ("code", "call"),
    [
        (f"{AIOHTTP}app = web.Application()\n", "app"),
        (f"{AIOHTTP}async def build():\n    app = web.Application()\n    return app\n", "build()"),
        (
            f"{AIOHTTP}def make(argv=None):\n    return web.Application()\n\n\ndef main():\n    web.run_app(make())\n",
            "make()",
        ),
    ],
)
def test_an_application_of_aiohttp_is_run_by_its_own_server(ours: Path, write: Write, code: str, call: str) -> None:
    take(write({"chat/__init__.py": "", "chat/main.py": code, "requirements.txt": "aiohttp\n"}))
    made = yaml.safe_load((ours / "services/theirs/compose.yaml").read_text())["services"]["theirs"]
    command = f'python -c "import aiohttp.web, chat.main; aiohttp.web.run_app(chat.main.{call}, port=8000)"'
    assert made["build"]["args"]["APPLICATION"] == command
    assert made["build"]["args"]["INTERFACE"] == "command"
    assert made["ports"]


@pytest.mark.parametrize(
    "code",
    [
        "import tornado.web\napp = tornado.web.Application([])\n",
        f"{AIOHTTP}async def build(config):\n    return web.Application()\n",
        f"{AIOHTTP}def main():\n    web.run_app(web.Application())\n",
        "from flask import Flask\nasync def build():\n    return Flask(__name__)\n",
        "import fastapi\nasync def create_app():\n    return fastapi.FastAPI()\n",
    ],
)
def test_what_no_server_can_be_told_to_run(write: Write, code: str) -> None:
    with pytest.raises(UserError, match="no application found"):
        find_application(Code(write({"main.py": code})))
