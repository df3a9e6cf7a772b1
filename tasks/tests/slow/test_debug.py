"""Debuggers in development containers: an editor's, over the Debug Adapter Protocol, and pdb in a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from .clones import ENVIRONMENT, Clone, answer, edit, url_of
from .editor import TIMEOUT_S, attached

pytestmark = pytest.mark.slow
TEXT = "Hello from pilot"
LIB = '''\
"""A lib."""


def shout(text: str) -> str:
    """A text in capitals."""
    loud = text.upper()
    return loud
'''
LIB_PROJECT = """\
[project]
name = "megaphone"
version = "1"
requires-python = ">=3.11"

[build-system]
requires = ["poetry-core"]
build-backend = "poetry.core.masonry.api"
"""


def add_lib(clone: Clone) -> Path:
    """Make pilot use a new package in libs/, and return its module."""
    module = clone.root / "libs/megaphone/megaphone/__init__.py"
    module.parent.mkdir(parents=True)
    module.write_text(LIB)
    (clone.root / "libs/megaphone/pyproject.toml").write_text(LIB_PROJECT)
    pyproject = clone.root / "pyproject.toml"
    edit(pyproject, "pilot = [\n", 'pilot = [\n    "megaphone",\n')
    with pyproject.open("a") as file:
        file.write("\n[tool.poetry.group.pilot.dependencies]\n")
        file.write('megaphone = {path = "libs/megaphone", develop = true}\n')
    package = clone.root / "services/pilot/pilot/__init__.py"
    edit(package, f'Response("{TEXT}\\n"', f'Response(shout("{TEXT}\\n")')
    edit(package, "from flask import", "from megaphone import shout\nfrom flask import")
    clone.nox("-s", "lock")
    return module


def line_of(path: Path, text: str) -> int:
    """The number of the first line that contains a text."""
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_an_editor_stops_at_breakpoints_before_and_after_a_reload(clone: Clone) -> None:
    lib, package = add_lib(clone), clone.root / "services/pilot/pilot/__init__.py"
    text = clone.nox("-s", "dev", "--", "--detach", "--debug", "pilot")
    port = re.search(r"^debug pilot: 127\.0\.0\.1:(\d+)", text, re.MULTILINE)
    assert port
    edit(clone.root / ".vscode/launch.json", "5678", port[1])  # which may be taken on this machine
    lines = {package: line_of(package, "shout("), lib: line_of(lib, "loud =")}
    for said in ("HELLO", "CHANGED"):
        with attached(clone, lines) as editor:
            assert editor.stop_at(url_of(text), lines).startswith(said)
        if said == "HELLO":
            edit(package, TEXT, "Changed")
            answer(url_of(text), expect="CHANGED")
    clone.git("checkout", "--quiet", ".")
    clone.git("clean", "--quiet", "--force", "-d", "libs")
    # The next stack has none of it.
    clone.nox("-s", "dev", "--", "--detach")
    assert "5678" not in clone.compose("ps", "--format", "{{.Publishers}}", "pilot")
    clone.nox("-s", "down")


class Terminal:
    """nox on a pseudo-terminal."""

    def __init__(self, clone: Clone, *args: str) -> None:
        self.pid, self.file = pty.fork()
        if not self.pid:
            os.chdir(clone.root)
            os.execve(sys.executable, [sys.executable, "-m", "nox", *args], ENVIRONMENT)  # noqa: S606
        self.text = ""

    def wait_for(self, pattern: str, meanwhile: Callable[[], object] = str) -> re.Match[str]:
        """Wait until something is printed, and drop everything up to it."""
        until = time.monotonic() + 2 * TIMEOUT_S
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < until, self.text
            meanwhile()
            if select.select([self.file], [], [], 1)[0]:
                try:
                    self.text += os.read(self.file, 65536).decode(errors="replace").replace("\r", "")
                except OSError:
                    raise AssertionError(f"it has ended: {self.text}") from None
        self.text = self.text[found.end() :]
        return found

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self.file, text.encode())

    def end(self) -> int:
        """The exit code, when it has ended."""
        with suppress(OSError):  # a terminal's end
            while os.read(self.file, 65536):
                pass
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_breakpoint_opens_pdb_in_the_terminal(clone: Clone) -> None:
    terminal = Terminal(clone, "-s", "dev", "--", "--attach", "pilot")
    url = terminal.wait_for(r"pilot  (http://\S+)\n")[1]
    terminal.wait_for("docker attach")
    terminal.wait_for("GET /attached HTTP", lambda: answer(f"{url}/attached"))
    line = f'    return Response("{TEXT}'
    edit(clone.root / "services/pilot/pilot/__init__.py", line, f"    breakpoint()\n{line}")
    terminal.wait_for("__init__.py changed")
    time.sleep(1)  # the new process takes over
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(answer(url)))
    asking.start()
    terminal.wait_for(r"\(Pdb\) ")
    terminal.type("p 6 * 7, __name__\n")
    terminal.wait_for(r"\(42, 'pilot'\)")
    terminal.wait_for(r"\(Pdb\) ")
    terminal.type("c\n")
    asking.join(TIMEOUT_S)
    assert answers == [f"{TEXT}\n"]
    terminal.type("\x03")
    assert terminal.end() == 0
    clone.git("checkout", "--quiet", ".")
    assert clone.left("container", "network") == []
