"""`test`: in a service's container against the mounted source, again on every save, and against the production stack."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterable

import pytest

from .clones import Clone, edit
from .test_startup import SLOW

pytestmark = pytest.mark.slow
WATCH_TIMEOUT_S = 300
FEW_EXAMPLES = """\
from hypothesis import settings


def test_few_examples() -> None:
    assert settings().max_examples < 10
"""

ASKS = """\
import socket


def test_a_neighbour_listens() -> None:
    socket.create_connection(("slow", 8000)).close()
"""

OWN_DOCKERFILE = """
  pages:
    build:
      context: .
      dockerfile_inline: |
        FROM ${STACK_BASE}
        CMD ["python3", "-m", "http.server"]
"""


def test_tests_run_in_the_container_against_the_mounted_source(clone: Clone) -> None:
    more = clone.root / "services/pilot/tests/test_more.py"
    more.write_text("def test_here() -> None:\n    assert __file__ == '/app/services/pilot/tests/test_more.py'\n")
    assert "1 passed" in clone.nox("-s", "test", "--", "pilot", "tests/test_more.py")
    more.write_text("def test_fails() -> None:\n    assert False\n")
    assert "tests failed: pilot" in clone.nox("-s", "test", "--", "pilot", "-k", "fails", code=1)
    assert "no test matches: pilot" in clone.nox("-s", "test", "--", "pilot", "-k", "no_such_test", code=1)
    more.unlink()
    assert (clone.root / "reports/junit-pilot.xml").exists()
    assert (clone.root / "reports/coverage-pilot.xml").exists()
    assert clone.git("status", "--porcelain") == ""
    assert clone.left("container", "network") == []


def test_whoever_mounts_the_source_has_a_name(clone: Clone) -> None:
    clone.nox("-s", "test", "--", "pilot")
    ask = ("python3", "-c", "import getpass; print(getpass.getuser())")
    assert clone.docker("run", "--rm", "--user=4321", f"{clone.name}/pilot:dev", *ask) == "app\n"


def test_tests_that_need_neighbours_get_them(clone: Clone) -> None:
    compose = clone.root / "services/pilot/compose.yaml"
    edit(compose, "SERVICE: pilot", 'SERVICE: pilot\n        TESTS_NEED_NEIGHBOURS: "1"')
    with compose.open("a") as file:
        file.write(SLOW)
    (clone.root / "services/pilot/tests/test_more.py").write_text(ASKS)
    try:
        assert "3 passed" in clone.nox("-s", "test", "--", "services/pilot/tests")
        assert clone.left("container", "network") == []
        clone.nox("-s", "dev", "--", "pilot", "--detach")
        before = clone.left("container")
        assert "3 passed" in clone.nox("-s", "test", "--", "pilot")
        assert clone.left("container") == before
        clone.nox("-s", "down")
        assert "a build can run no tests of services/pilot" in clone.nox("-s", "build", "--", "pilot")
    finally:
        clone.git("checkout", "--quiet", ".")
        clone.git("clean", "--quiet", "--force", "services")


def test_watched_tests_run_again_on_every_save_and_leave_nothing(clone: Clone) -> None:
    more = clone.root / "services/pilot/tests/test_more.py"
    more.write_text(FEW_EXAMPLES)
    views = clone.root / "services/pilot/pilot/__init__.py"
    with clone.start("-s", "test", "--", "pilot", "deck", "--watch") as process:
        timer = threading.Timer(WATCH_TIMEOUT_S, process.kill)
        timer.start()
        try:
            assert process.stdout
            wait_for(process.stdout, r"pilot \| pilot: 3 passed in", r"deck  \| deck: 2 passed in")
            edit(views, "Hello from pilot", "Changed")
            wait_for(process.stdout, r"pilot \| E .*Changed", r"pilot \| pilot: 1 failed, 2 passed in")
            edit(views, "Changed", "Hello from pilot")
            wait_for(process.stdout, r"pilot \| pilot: 3 passed in")
            more.write_text("1 / 0\n")
            wait_for(process.stdout, r"pilot \| E +ZeroDivisionError", r"pilot \| pilot: 1 error in")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        finally:
            timer.cancel()
            process.kill()
            more.unlink()
    assert process.returncode == 130
    assert clone.left("container", "network") == []
    assert clone.git("status", "--porcelain") == ""


def wait_for(lines: Iterable[str], *patterns: str) -> None:
    """Read lines until each of the patterns has matched the beginning of one."""
    missing, seen = set(patterns), []
    for line in lines:
        seen.append(line)
        missing -= {pattern for pattern in missing if re.match(pattern, line)}
        if not missing:
            return
    raise AssertionError(f"no line matches {missing}:\n{''.join(seen)}")


def test_stacks_under_test_share_no_port_and_build_what_has_a_dockerfile_of_its_own(clone: Clone) -> None:
    """Two of them run at once, beside the development stack, although a compose.yaml fixes a port."""
    compose = clone.root / "services/pilot/compose.yaml"
    edit(compose, "    ports:\n", "    ports:\n      - 127.0.0.1:9177:9000\n")
    with compose.open("a") as file:
        file.write(OWN_DOCKERFILE)
    clone.nox("-s", "dev", "--", "--detach")
    try:
        assert "tests failed" not in clone.nox("-s", "test", "--", "stack", "-k", "health")
        edit(compose, "    ports:\n", "    healthcheck: {test: [CMD, 'false']}\n    ports:\n")
        text = clone.nox("-s", "test", "--", "stack", "-k", "health", code=1)
    finally:
        clone.nox("-s", "down")
        clone.git("checkout", "--quiet", ".")
    assert "Interrupted: pilot is unhealthy" in text
    assert "Traceback" not in text
    assert text.count("ERROR at setup") <= 2  # one in each process
    assert "-stack-" not in clone.docker("image", "ls", "--format", "{{.Repository}}")


def test_a_failing_test_of_the_stack_shows_the_services_log(clone: Clone) -> None:
    test = clone.root / "tests/stack/test_more.py"
    test.write_text(
        "import httpx\n\n\ndef test_fails(url_of):\n"
        "    assert httpx.get(url_of('pilot') + '/some-path').status_code == 418\n"
    )
    text = clone.nox("-s", "test", "--", "stack", "tests/stack/test_more.py", code=1)
    test.unlink()
    assert "tests failed: stack" in text
    assert "pilot is healthy" in text
    line = '"method": "GET", "path": "/some-path"'
    assert line in text
    assert line in (clone.root / "reports/logs/stack-production.log").read_text()
    assert clone.left("container", "network") == []
