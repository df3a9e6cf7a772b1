"""`dev`: live reload, ports, plain Compose beside it, two clones at a time, and nothing left after Ctrl-C."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable

import pytest

from ...env import parse
from .clones import Clone, answer, edit, url_of

pytestmark = pytest.mark.slow
TEXT = "Hello from pilot"


def test_dev_serves_and_reloads(clone: Clone) -> None:
    url = url_of(clone.nox("-s", "dev", "--", "--detach"))
    assert answer(url) == f"{TEXT}\n"
    views = clone.root / "services/pilot/pilot/__init__.py"
    edit(views, TEXT, "Changed")
    assert answer(url, expect="Changed") == "Changed\n"
    clone.git("checkout", "--quiet", ".")
    answer(url, expect=TEXT)


def test_a_service_that_another_branch_lacks_is_reloaded_when_it_is_back(clone: Clone) -> None:
    url = url_of(clone.nox("-s", "dev", "--", "--detach"))
    clone.git("switch", "--quiet", "--create", "without")
    clone.git("rm", "-r", "--quiet", "--force", "services/pilot")
    shutil.rmtree(clone.root / "services/pilot", ignore_errors=True)
    clone.commit("Remove pilot")
    assert "No module named 'pilot'" in answer(url, expect="ModuleNotFoundError")
    clone.git("checkout", "--quiet", "main")
    answer(url, expect=TEXT)
    edit(clone.root / "services/pilot/pilot/__init__.py", TEXT, "Changed")
    answer(url, expect="Changed")
    clone.git("checkout", "--quiet", ".")


def test_the_log_has_requests_and_no_health_checks(clone: Clone) -> None:
    url = url_of(clone.nox("-s", "dev", "--", "--detach"))  # has waited for the first health check
    answer(f"{url}/some-path")
    logged = clone.compose("logs", "pilot")
    assert "GET /some-path" in logged
    assert "/healthz" not in logged


def test_containers_run_as_the_user_and_publish_on_loopback(clone: Clone) -> None:
    clone.nox("-s", "dev", "--", "--detach")
    user = parse((clone.root / ".env").read_text())["STACK_UID"]
    assert clone.compose("exec", "--no-TTY", "pilot", "id", "-u").strip() == user
    ports = " ".join(container["Ports"] for container in clone.containers())
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+:", ports)) == {"127.0.0.1:"}


def test_an_error_in_a_view_opens_the_debugger_page(clone: Clone) -> None:
    url = url_of(clone.nox("-s", "dev", "--", "--detach"))
    line = f'    return Response("{TEXT}'
    edit(clone.root / "services/pilot/pilot/__init__.py", line, f"    1 / 0\n{line}")
    assert "Werkzeug Debugger" in answer(url, expect="ZeroDivisionError")
    clone.git("checkout", "--quiet", ".")
    answer(url, expect=TEXT)


def test_a_second_clone_runs_beside_the_first(clone: Clone, make_clone: Callable[[str], Clone]) -> None:
    first = url_of(clone.nox("-s", "dev", "--", "--detach"))
    other = make_clone("other")
    text = other.nox("-s", "dev", "--", "--detach")
    second = url_of(text)
    assert first != second
    assert "is taken: pilot gets" in text
    answer(first, expect=TEXT)
    answer(second, expect=TEXT)
    # Plain Compose sees the ports that nox has chosen, and has nothing to change.
    before = other.containers()
    assert {container["Service"] for container in before} == {"pilot", "deck"}
    other.compose("up", "--detach", "--wait")
    assert [container["ID"] for container in other.containers()] == [container["ID"] for container in before]
    assert url_of(other.nox("-s", "dev", "--", "--detach")) == second
    other.nox("-s", "down")
    other.compose("up", "--detach", "--wait")
    assert other.compose("port", "pilot", "8000").strip() == second.removeprefix("http://")
    other.compose("down")
    # A port that the user asks for is not replaced.
    taken = other.nox("-s", "dev", "--", "--detach", PILOT_PORT=first.rpartition(":")[2], code=1)
    assert "is taken, and PILOT_PORT asks for it" in taken
    assert other.left("container", "network") == []
    # `clean` removes everything of one clone, and nothing of the other.
    other.nox("-s", "clean")
    assert other.left() == []
    answer(first, expect=TEXT)


def test_down_leaves_nothing_running(clone: Clone) -> None:
    clone.nox("-s", "dev", "--", "--detach")
    clone.nox("-s", "down")
    assert clone.left("container", "network") == []


def test_ctrl_c_leaves_nothing_running(clone: Clone) -> None:
    with clone.start("-s", "dev") as process:
        try:
            assert process.stdout
            text = next((line for line in process.stdout if line.startswith("pilot  http://")), "")
            answer(url_of(text), expect=TEXT)
            process.send_signal(signal.SIGINT)
            text, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, text
    assert "Traceback" not in text
    assert clone.left("container", "network") == []
