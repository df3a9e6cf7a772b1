"""Debuggers in development containers: an editor's, over the Debug Adapter Protocol, and pdb in a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import socket
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from .conftest import Clone, answer, url_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30


class Editor:
    """As much of an editor as a debugger needs: https://microsoft.github.io/debug-adapter-protocol/specification."""

    def __init__(self, connect: dict[str, Any]) -> None:
        self.socket = socket.create_connection((connect["host"], connect["port"]), timeout=PATIENCE)
        self.file = self.socket.makefile("rb")
        self.seen: list[dict[str, Any]] = []

    def request(self, command: str, **arguments: Any) -> None:
        body = json.dumps({"seq": 1, "type": "request", "command": command, "arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def gets(self, name: str) -> dict[str, Any]:
        """The body of the next event or answer of this name; fails on an answer that tells a failure."""
        while True:
            header = self.file.readline()
            assert header, f"the debugger is gone; it said {self.seen}"
            self.file.readline()
            message = json.loads(self.file.read(int(header.partition(b":")[2])))
            self.seen.append(message)
            assert message.get("success", True), message
            if name in {message.get("event"), message.get("command")}:
                return dict(message.get("body") or {})


@contextmanager
def attached(clone: Clone, breakpoints: dict[Path, int]) -> Iterator[Editor]:
    """An editor that has opened the clone and started what .vscode/launch.json has, with breakpoints."""
    text = (clone.root / ".vscode/launch.json").read_text().replace("${workspaceFolder}", str(clone.root))
    (configuration,) = json.loads(text)["configurations"]
    until = time.monotonic() + PATIENCE
    while True:
        try:
            editor = Editor(configuration["connect"])
            editor.request("initialize", adapterID=configuration["type"], pathFormat="path")
            editor.gets("initialize")
            break
        except (OSError, AssertionError):  # a reload is on its way
            assert time.monotonic() < until
            time.sleep(0.1)
    with editor.socket, editor.file:
        editor.request("attach", **configuration)
        editor.gets("initialized")
        for path, line in breakpoints.items():
            editor.request("setBreakpoints", source={"path": str(path)}, breakpoints=[{"line": line}])
            assert editor.gets("setBreakpoints")["breakpoints"][0]["verified"]
        editor.request("configurationDone")
        editor.gets("attach")
        yield editor
        editor.request("disconnect")
        editor.gets("disconnect")


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def stops(editor: Editor, url: str, breakpoints: dict[Path, int]) -> str:
    """Send a request, see it stop at every breakpoint, by its place on this machine, and return its answer."""
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(answer(url)))
    asking.start()
    for path, line in breakpoints.items():
        thread = editor.gets("stopped")["threadId"]
        editor.request("stackTrace", threadId=thread, levels=1)
        (frame,) = editor.gets("stackTrace")["stackFrames"]
        assert (frame["source"]["path"], frame["line"]) == (str(path), line)
        assert answers == []
        editor.request("continue", threadId=thread)
    asking.join(PATIENCE)
    return answers[0]


def test_an_editor_stops_at_breakpoints_before_and_after_a_reload(clone: Clone) -> None:
    text = clone.nox("-s", "dev", "--", "--detach", "--debug", "echo")
    url = url_of(text)
    port = re.search(r"^debug echo: 127\.0\.0\.1:(\d+)", text, re.MULTILINE)
    assert port
    launch = clone.root / ".vscode/launch.json"
    launch.write_text(launch.read_text().replace("5678", port[1]))  # it may be taken on this machine
    views = clone.root / "services/echo/echo/views.py"
    lib = clone.root / "libs/plainweb/plainweb/__init__.py"
    lines = {views: line_of(views, "body, encoding = as_text("), lib: line_of(lib, "body = bytearray()")}
    for word in ("METHOD", "VERB"):
        with attached(clone, lines) as editor:
            assert stops(editor, url, lines).startswith(f"{word}: GET\n")
        views.write_text(views.read_text().replace("METHOD: ", "VERB: "))
        answer(url, expect="VERB: GET")
    clone.git("checkout", "-q", ".")
    # Nothing of it is left in the next stack.
    clone.nox("-s", "dev", "--", "--detach")
    assert clone.docker("compose", "ps", "--format", "{{.Publishers}}", "echo").count("5678") == 0
    clone.nox("-s", "down")


class Terminal:
    """nox on a pseudo-terminal."""

    def __init__(self, clone: Clone, *args: str) -> None:
        self.pid, self.file = pty.fork()
        if not self.pid:
            os.chdir(clone.root)
            os.execv(sys.executable, [sys.executable, "-m", "nox", *args])  # noqa: S606
        self.said = ""

    def says(self, pattern: str, meanwhile: Callable[[], object] = str) -> re.Match[str]:
        """Wait until something is said, and forget all before it."""
        until = time.monotonic() + 2 * PATIENCE
        while not (found := re.search(pattern, self.said)):
            assert time.monotonic() < until, self.said
            meanwhile()
            if select.select([self.file], [], [], 1)[0]:
                try:
                    self.said += os.read(self.file, 65536).decode(errors="replace").replace("\r", "")
                except OSError:
                    raise AssertionError(f"it has ended: {self.said}") from None
        self.said = self.said[found.end() :]
        return found

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def end(self) -> int:
        """The exit code, when it has come to its end."""
        with suppress(OSError):  # which is how a terminal tells its end
            while os.read(self.file, 65536):
                pass
        os.close(self.file)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_breakpoint_opens_pdb_in_the_terminal(clone: Clone) -> None:
    terminal = Terminal(clone, "-s", "dev", "--", "--attach", "echo")
    url = terminal.says(r"echo  (http://\S+)\n")[1]
    terminal.says("docker attach")
    terminal.says('"GET /attached HTTP', lambda: answer(f"{url}/attached"))
    views = clone.root / "services/echo/echo/views.py"
    views.write_text(views.read_text().replace("    body, encoding", "    breakpoint()\n    body, encoding"))
    terminal.says("views.py changed")
    time.sleep(1)  # the new process takes over
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(answer(url)))
    asking.start()
    terminal.says(r"\(Pdb\) ")
    terminal.type("p 6 * 7, request.method\n")
    terminal.says(r"\(42, 'GET'\)")
    terminal.says(r"\(Pdb\) ")
    terminal.type("c\n")
    asking.join(PATIENCE)
    assert answers[0].startswith("METHOD: GET\n")
    terminal.type("\x03")
    assert terminal.end() == 0
    assert clone.left("container", "network") == []
    clone.git("checkout", "-q", ".")
