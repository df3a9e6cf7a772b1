"""Services that are no Flask application: FastAPI, workers, a second process of an image, Django."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from .clones import ENVIRONMENT, LIMIT_S, Clone, answer, edit, url_of

pytestmark = pytest.mark.slow
MAIL = """\

  pilot-mail:
    <<: *pilot
    environment: {INTERFACE: command, APPLICATION: python3 -m pilot.mail start}
    healthcheck: {test: [CMD, python3, -m, pilot.mail]}
    ports: []
"""
MAIL_PY = '''\
"""A worker beside the web server, and its health check."""

import pathlib
import sys
import time

BEAT = pathlib.Path("/tmp/beat")  # noqa: S108
if sys.argv[1:] != ["start"]:
    sys.exit(not BEAT.exists())
BEAT.touch()
while True:
    print("mail is sent", flush=True)
    time.sleep(1)
'''
DJANGO = {
    "manage.py": """\
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
execute_from_command_line(sys.argv)
""",
    "project/__init__.py": "",
    "project/settings.py": """\
from pathlib import Path
BASE_DIR = Path(__file__).parent.parent
(BASE_DIR / "instance").mkdir(exist_ok=True)
SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["notes"]
ROOT_URLCONF = "notes.urls"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "instance/notes.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
""",
    "project/wsgi.py": """\
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = get_wsgi_application()
""",
    "project/asgi.py": """\
import os
from django.core.asgi import get_asgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
application = get_asgi_application()
""",
    "notes/__init__.py": "",
    "notes/models.py": "from django.db import models\nclass Note(models.Model):\n    text = models.TextField()\n",
    "notes/urls.py": """\
from django.http import HttpResponse
from django.urls import path
from .models import Note
def add(request, text):
    Note.objects.create(text=text)
    return HttpResponse(f"Notes: {Note.objects.count()}")
urlpatterns = [path("healthz", lambda request: HttpResponse("ok")), path("add/<text>", add)]
""",
    "tests/__init__.py": "",
    "tests/test_notes.py": """\
import os
import django
from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_databases, setup_test_environment

def test_add():
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    django.setup()
    setup_test_environment()
    setup_databases(0, interactive=False)
    assert Client().get("/add/one").content == b"Notes: 1"
""",
    "stack/test_blog.py": """\
import httpx

def test_a_note_is_written(url_of):
    assert httpx.get(f"{url_of('blog')}/add/x").text.startswith("Notes: ")
""",
    "ruff.toml": 'exclude = ["*"]\n',
}
BLOG = """
    volumes: ["blog-data:/app/instance"]
    depends_on:
      blog-migrate: {condition: service_completed_successfully}

  blog-migrate:
    <<: *blog
    command: [python3, manage.py, migrate]
    ports: []
    healthcheck: {disable: true}
    depends_on: {}

volumes:
  blog-data:
"""


@pytest.fixture(scope="module")
def clone(make_clone: Callable[[str], Clone]) -> Clone:
    """A clone with pilot (Flask, and a worker of the same image), api (FastAPI) and crew (a worker)."""
    made = make_clone("kinds")
    made.nox("-s", "remove", "--", "deck")
    made.nox("-s", "new", "--", "api", "--kind", "fastapi")
    made.nox("-s", "new", "--", "crew", "--kind", "worker")
    compose = made.root / "services/pilot/compose.yaml"
    edit(compose, "  pilot:\n", "  pilot: &pilot\n")
    edit(compose, "SERVICE: pilot\n", "SERVICE: pilot\n        PACKAGE: .\n        APPLICATION: pilot:create_app()\n")
    compose.write_text(compose.read_text() + MAIL)
    (made.root / "services/pilot/pilot/mail.py").write_text(MAIL_PY)
    made.commit("Make services of each kind")
    return made


def says(clone: Clone, service: str, text: str) -> None:
    """Wait until a service's log has a text."""
    until = time.monotonic() + LIMIT_S
    while text not in (log := clone.compose("logs", "--no-color", "--no-log-prefix", service)):
        assert time.monotonic() < until, log
        time.sleep(0.2)


def test_each_kind_passes_everything_right_away(clone: Clone) -> None:
    assert clone.nox("-s", "test", "--", "api", "crew").count("2 passed") == 2
    assert "built api, crew, pilot" in clone.nox("-s", "build")  # one image for both processes of pilot
    run = ("docker", "run", "--rm", f"{clone.name}/pilot:prod", "python3", "-m", "flask", "routes")
    assert "/healthz" in subprocess.run(run, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    listed = ("docker", "run", "--rm", f"{clone.name}/pilot:prod", "python3", "-c", "import os; print(os.listdir())")
    files = subprocess.run(listed, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert "'pilot'" in files
    assert "'tests'" not in files
    assert "'compose.yaml'" not in files
    tested = clone.nox("-s", "test", "--", "stack", "-v")
    for name in ("healthcheck_that_can_fail[pilot-mail]", "gracefully", "healthcheck_that_can_fail[crew]"):
        assert name in tested
    clone.nox("-s", "lint")


def test_a_second_process_comes_with_its_service(clone: Clone) -> None:
    shown = clone.nox("-s", "dev", "--", "pilot", "--detach")
    assert answer(url_of(shown)) == "Hello from pilot\n"
    assert {container["Service"] for container in clone.containers()} == {"pilot", "pilot-mail"}
    says(clone, "pilot-mail", "mail is sent")
    edit(clone.root / "services/pilot/pilot/mail.py", "mail is", "letters are")
    says(clone, "pilot-mail", "letters are sent")
    assert "/healthz" in clone.nox("-s", "shell", "--", "pilot", "flask", "routes")
    clone.git("checkout", "--quiet", ".")
    clone.nox("-s", "down")


def test_a_worker_is_reloaded_and_waits_for_a_change_when_it_fails(clone: Clone) -> None:
    clone.nox("-s", "dev", "--", "crew", "--detach")
    file = clone.root / "services/crew/crew/__init__.py"
    edit(file, "Hello", "Ahoy")
    says(clone, "crew", "Ahoy from crew")
    edit(file, "HEARTBEAT =", "1 / 0\nHEARTBEAT =")
    says(clone, "crew", "crew ended with 1; the next change starts it again")
    edit(file, "1 / 0\nHEARTBEAT =", "HEARTBEAT =")
    edit(file, "Ahoy", "Back")
    says(clone, "crew", "Back from crew")
    clone.git("checkout", "--quiet", ".")
    clone.nox("-s", "down")


def test_a_missing_program_is_told_by_the_production_image(clone: Clone) -> None:
    edit(clone.root / "services/crew/compose.yaml", "python3 -m crew", "python4 -m crew")
    try:
        clone.nox("-s", "build", "--", "crew")
    finally:
        clone.git("checkout", "--quiet", ".")
    run = ("docker", "run", "--rm", f"{clone.name}/crew:prod")
    done = subprocess.run(run, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    told = "APPLICATION is 'python4 -m crew', and there is no such program\n"
    assert (done.returncode, done.stdout + done.stderr) == (1, told)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_django_is_served_and_its_commands_run(clone: Clone, interface: str) -> None:
    clone.nox("-s", "new", "--", "blog", "--kind", "flask" if interface == "wsgi" else "fastapi")
    folder = clone.root / "services/blog"
    shutil.rmtree(folder / "blog")
    shutil.rmtree(folder / "tests")
    for name, text in DJANGO.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    compose, pyproject = folder / "compose.yaml", clone.root / "pyproject.toml"
    application = f"PACKAGE: .\n        APPLICATION: project.{interface}:application"
    edit(compose, "SERVICE: blog", f"SERVICE: blog\n        {application}")
    edit(compose, "  blog:\n", "  blog: &blog\n")
    compose.write_text(compose.read_text() + BLOG)
    text = pyproject.read_text()
    before, named, after = text.partition("\nblog = [\n")
    pyproject.write_text(before + named + re.sub('"(flask|fastapi)[^"]*"', '"django>=5.2,<6"', after, count=1))
    clone.nox("-s", "lock")
    clone.nox("-s", "setup")
    try:
        clone.nox("-s", "shell", "--", "blog", "python3", "manage.py", "makemigrations", "notes")
        assert "no issues" in clone.nox("-s", "shell", "--", "blog", "python3", "manage.py", "check")
        assert "1 passed" in clone.nox("-s", "test", "--", "blog")
        url = url_of(clone.nox("-s", "dev", "--", "blog", "--detach"), "blog")
        assert answer(f"{url}/add/x").startswith("Notes: ")
        edit(folder / "notes/urls.py", "Notes:", "Changed:")
        answer(f"{url}/add/x", expect="Changed: ")
        edit(folder / "notes/urls.py", "Changed:", "Notes:")
        clone.nox("-s", "test", "--", "stack", "services/blog/stack", "tests/stack", "-k", "blog")
    finally:
        clone.nox("-s", "down")
        clone.git("checkout", "--quiet", ".")
        shutil.rmtree(folder)  # the database in instance/ is not git's
