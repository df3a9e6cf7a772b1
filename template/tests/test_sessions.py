"""dev, test, build and clean, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from tasks.project import name

from .conftest import Clone, answer, compose_containers, url_of

if TYPE_CHECKING:
    from collections.abc import Callable


def test_dev_serves_and_reloads(clone: Clone) -> None:
    url = url_of(clone.nox("-s", "dev", "--", "--detach"))
    assert answer(url).startswith("METHOD: GET\n")
    views = clone.root / "services/echo/echo/views.py"
    views.write_text(views.read_text().replace("METHOD: ", "VERB: "))
    assert answer(url, expect="VERB: GET").startswith("VERB: GET\n")
    clone.git("checkout", "-q", ".")
    answer(url, expect="METHOD: GET")


def test_plain_compose_sees_what_nox_sees(clone: Clone) -> None:
    before = compose_containers(clone)
    assert {c["Service"] for c in before} >= {"echo", "journal"}
    clone.docker("compose", "up", "--detach", "--wait")
    assert [c["ID"] for c in compose_containers(clone)] == [c["ID"] for c in before]


def test_dev_containers_are_the_callers_and_bound_to_loopback(clone: Clone) -> None:
    assert clone.docker("compose", "exec", "echo", "id", "-u").strip() == str(os.getuid())
    ports = " ".join(container["Ports"] for container in compose_containers(clone))
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+:", ports)) == {"127.0.0.1:"}


def test_the_debugger_answers_a_broken_view(clone: Clone) -> None:
    url = url_of(clone.nox("-s", "dev", "--", "--detach"))
    views = clone.root / "services/echo/echo/views.py"
    views.write_text(
        views.read_text().replace("def healthz() -> Response:\n", "def healthz() -> Response:\n    1 / 0\n")
    )
    assert "Werkzeug Debugger" in answer(f"{url}/healthz", expect="ZeroDivisionError")
    clone.git("checkout", "-q", ".")


def test_a_second_clone_runs_beside_the_first(clone: Clone, make_clone: Callable[[str], Clone]) -> None:
    other = make_clone("other")
    first = url_of(clone.nox("-s", "dev", "--", "--detach"))
    text = other.nox("-s", "dev", "--", "--detach")
    second = url_of(text)
    assert first != second
    assert "is taken: echo gets" in text
    answer(first)
    answer(second)
    taken = other.nox("-s", "down") and other.nox(
        "-s", "dev", "--", "--detach", ECHO_PORT=first.rpartition(":")[2], code=1
    )
    assert "is taken, and ECHO_PORT asks for it" in taken
    assert other.left("container", "network") == []
    # All of one, nothing of the other.
    other.nox("-s", "clean")
    assert other.left() == []
    answer(first)


def test_down_leaves_nothing_running(clone: Clone) -> None:
    clone.nox("-s", "down")
    assert clone.left("container", "network") == []


def test_ctrl_c_leaves_nothing_running(clone: Clone) -> None:
    process = clone.start("-s", "dev")
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("echo  http://"):
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout and process.stdout.close()
    assert clone.left("container", "network") == []


def test_tests_run_in_the_container_against_the_mounted_source(clone: Clone) -> None:
    tests = clone.root / "services/echo/tests/test_more.py"
    tests.write_text("def test_here() -> None:\n    assert __file__ == '/app/services/echo/tests/test_more.py'\n")
    text = clone.nox("-s", "test", "--", "echo", "tests/test_more.py")
    assert "1 passed" in text
    tests.write_text("def test_fails() -> None:\n    assert False\n")
    assert "tests failed: echo" in clone.nox("-s", "test", "--", "echo", "-k", "fails", code=1)
    assert "no test ran: echo" in clone.nox("-s", "test", "--", "echo", "-k", "no_such_test", code=1)
    tests.unlink()
    assert (clone.root / "reports/junit-echo.xml").exists()
    assert (clone.root / "reports/coverage-echo.xml").exists()
    assert clone.git("status", "--porcelain") == ""
    assert clone.left("container", "network") == []


def test_watched_tests_rerun_on_every_save_and_leave_nothing(clone: Clone) -> None:
    more = clone.root / "services/echo/tests/test_more.py"
    more.write_text(
        "from hypothesis import settings\n\ndef test_few_examples() -> None:\n    assert settings().max_examples < 10\n"
    )
    views = clone.root / "services/echo/echo/views.py"
    process = clone.start("-s", "test", "--", "echo", "journal", "--watch")
    patience = threading.Timer(300, process.kill)
    patience.start()
    try:
        assert process.stdout

        def says(*patterns: str) -> None:
            missing = set(patterns)
            for line in process.stdout or ():
                missing -= {pattern for pattern in missing if re.match(pattern, line)}
                if not missing:
                    return
            raise AssertionError(f"{missing} was never said")

        says(r"echo    \| echo: \d+ passed in", r"journal \| journal: \d+ passed in")
        text = views.read_text()
        views.write_text(text.replace("METHOD: ", "VERB: "))
        says(r"echo    \| E  .*VERB: ", r"echo    \| echo: \d+ failed, \d+ passed in")
        views.write_text(text)
        says(r"echo    \| echo: \d+ passed in")
        library = clone.root / "libs/plainweb/plainweb/__init__.py"
        library.write_text(library.read_text() + "\n1 / 0\n")
        says(r"echo    \| E? *ZeroDivisionError", r"journal \| E? *ZeroDivisionError", r"echo    \| echo: 1 error in")
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(60) == 130
    finally:
        patience.cancel()
        process.kill()
        process.wait()
        process.stdout and process.stdout.close()
        more.unlink()
        clone.git("checkout", "-q", ".")
    assert clone.left("container", "network") == []
    assert clone.git("status", "--porcelain") == ""


def test_a_stale_lock_is_told_in_one_line(clone: Clone) -> None:
    pyproject = clone.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"flask>=3.1,<4"', '"flask>=3.1.1,<4"'))
    text = clone.nox("-s", "build", code=1)
    assert "poetry.lock is out of date against pyproject.toml: run `nox -s lock`" in text
    clone.git("checkout", "-q", ".")


def test_a_source_change_installs_nothing(clone: Clone) -> None:
    clone.nox("-s", "build")
    views = clone.root / "services/echo/echo/views.py"
    views.write_text(views.read_text() + "\n# a change\n")
    text = clone.nox("-s", "build")
    assert "proof" in text
    assert "install" not in text
    clone.git("checkout", "-q", ".")


def test_a_shell_beside_a_production_container_sees_its_files(clone: Clone) -> None:
    production = {"COMPOSE_FILE": "docker/compose.prod.yaml", "COMPOSE_ENV_FILES": ".env", "ECHO_PORT": "0"}
    compose = ["docker", "compose"]
    clone.nox("-s", "build")
    command = [sys.executable, "-m", "nox", "-s", "shell", "--", "echo", "--prod"]
    try:
        subprocess.run([*compose, "up", "--detach", "--wait"], cwd=clone.root, env=os.environ | production, check=True)
        said = subprocess.run(
            command,
            cwd=clone.root,
            input="cat echo/py.typed echo/settings.py; ls /proc/1/exe -l\n",
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        subprocess.run([*compose, "down"], cwd=clone.root, env=os.environ | production, check=True)
    assert "class Settings" in said.stdout
    assert "python3" in said.stdout
    assert "no container of echo is running" in clone.nox("-s", "shell", "--", "echo", "--prod", code=1)
    assert clone.left("container", "network") == []


def test_two_stacks_share_a_network(clone: Clone) -> None:
    """A separate Compose project reaches echo by its alias on the network that both are on."""
    network = f"{clone.name}-shared"
    try:
        assert f"on {network}: echo.{name()}" in clone.nox("-s", "dev", "--", "--detach", "--network", network)
        image = f"{clone.name}/echo:dev"
        project = {
            "services": {"other": {"image": image, "networks": ["shared"]}},
            "networks": {"shared": {"name": network, "external": True}},
        }
        (clone.root / "other.json").write_text(json.dumps(project))
        ask = f"import urllib.request as u; print(u.urlopen('http://echo.{name()}:8000/from/afar').read().decode())"
        plain = {"COMPOSE_FILE": "other.json", "COMPOSE_PROJECT_NAME": f"{clone.name}-other"}
        command = ["docker", "compose", "run", "--rm", "other", "python3", "-c", ask]
        done = subprocess.run(
            command, cwd=clone.root, env=os.environ | plain, capture_output=True, text=True, check=False
        )
        assert "PATH: /from/afar" in done.stdout, done.stderr
    finally:
        clone.nox("-s", "down")
        (clone.root / "other.json").unlink(missing_ok=True)
    assert clone.docker("network", "ls", "--quiet", "--filter", f"name={network}") == ""


def test_a_stack_that_does_not_come_up_says_who_and_why(clone: Clone) -> None:
    nowhere = {"JOURNAL_DATABASE_URL": "postgresql://journal@127.0.0.1:9/journal"}
    text = clone.nox("-s", "dev", "--", "--detach", code=1, **nowhere)
    assert "journal-migrate exited with 1; its last lines stand above" in text
    assert "Connection refused" in text
    assert "Connection refused" in (clone.root / "reports/logs/stack-development.log").read_text()
    assert clone.left("container", "network") == []


def test_a_failing_test_of_the_stack_shows_the_services_log(clone: Clone) -> None:
    test = clone.root / "tests/stack/test_more.py"
    test.write_text("def test_fails(echo):\n    assert echo.get('/a-path-of-ours').status_code == 418\n")
    text = clone.nox("-s", "test", "--", "stack", "tests/stack/test_more.py", code=1)
    test.unlink()
    assert "tests failed: stack" in text
    assert "echo is healthy" in text
    assert "GET /a-path-of-ours" in text
    assert "GET /a-path-of-ours" in (clone.root / "reports/logs/stack-production.log").read_text()
