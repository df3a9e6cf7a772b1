"""The recipe "Start when the others are ready", and stacks that do not come up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .clones import Clone, answer, edit, url_of

pytestmark = pytest.mark.slow
# A dependency of pilot, on its own image, that listens only after 3 s, and is asked for that.
SLOW = """\
    depends_on:
      slow:
        condition: service_healthy

  slow:
    extends:
      file: ../../docker/service.yaml
      service: watched-by-${STACK_ENGINE:-docker}
    image: ${STACK_CLONE:-local}/pilot:${STACK_FLAVOR:-${STACK_MODE:-dev}}
    init: true
    command: [python3, -c, "import time, http.server; time.sleep(3); http.server.test(port=8000)"]
    healthcheck:
      test: [CMD, python3, -c, "import socket; socket.create_connection(('127.0.0.1', 8000)).close()"]
    labels:
      stack.clone: ${STACK_CLONE:-local}
      stack.session: ${STACK_SESSION:-}
"""
# A job that has to end well before pilot starts.
JOB = """\
    depends_on:
      prepare:
        condition: service_completed_successfully

  prepare:
    image: ${STACK_CLONE:-local}/pilot:${STACK_FLAVOR:-${STACK_MODE:-dev}}
    command: [python3, -c, "raise SystemExit('there is nothing to prepare')"]
    healthcheck: {disable: true}
    labels:
      stack.clone: ${STACK_CLONE:-local}
      stack.session: ${STACK_SESSION:-}
"""


@pytest.fixture(autouse=True)
def _unchanged(clone: Clone) -> Iterator[None]:
    yield
    clone.nox("-s", "down")
    clone.git("checkout", "--quiet", ".")


def depend_on(clone: Clone, text: str) -> None:
    """Add a dependency to pilot's Compose file."""
    with (clone.root / "services/pilot/compose.yaml").open("a") as file:
        file.write(text)


def failure(clone: Clone) -> str:
    """What `dev` says of a stack that does not come up, of which nothing is left."""
    text = clone.nox("-s", "dev", "--", "--detach", code=1)
    assert clone.left("container", "network") == []
    return text


def test_a_service_starts_when_its_slow_dependency_is_healthy(clone: Clone) -> None:
    depend_on(clone, SLOW)
    # It asks once, when it starts: that fails unless the dependency listens.
    connect = '__import__("socket").create_connection(("slow", 8000)).close()'
    start = "    app = Flask("
    edit(clone.root / "services/pilot/pilot/__init__.py", start, f"    {connect}\n{start}")
    url = url_of(clone.nox("-s", "dev", "--", "pilot", "--detach"))
    assert answer(url) == "Hello from pilot\n"
    assert "ConnectionRefusedError" not in clone.compose("logs", "pilot")


def test_a_stack_that_does_not_come_up_tells_which_service_and_why(clone: Clone) -> None:
    depend_on(clone, JOB)
    text = failure(clone)
    assert "prepare exited with 1; its last lines stand above" in text
    assert "there is nothing to prepare" in text
    assert "there is nothing to prepare" in (clone.root / "reports/logs/stack-development.log").read_text()


def test_a_service_that_ends_fails_the_session(clone: Clone) -> None:
    with (clone.root / "services/deck/compose.yaml").open("a") as file:
        file.write("    command: [python3, -c, \"raise SystemExit('no settings')\"]\n")
    text = failure(clone)
    assert "deck exited with 1; its last lines stand above" in text
    assert "no settings" in text


def test_a_service_that_cannot_be_imported_is_told_when_nobody_follows_its_log(clone: Clone) -> None:
    edit(clone.root / "services/pilot/pilot/__init__.py", "from flask", "import no_such_module\nfrom flask")
    text = failure(clone)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in text
    assert "pilot is unhealthy; its last lines stand above" in text


def test_an_application_that_takes_long_to_import_is_waited_for(clone: Clone) -> None:
    edit(clone.root / "services/pilot/pilot/__init__.py", "from flask", "import time\ntime.sleep(25)\nfrom flask")
    assert answer(url_of(clone.nox("-s", "dev", "--", "pilot", "--detach"))) == "Hello from pilot\n"
