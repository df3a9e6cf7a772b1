"""As much of an editor as a debugger needs: https://microsoft.github.io/debug-adapter-protocol/specification."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .clones import Clone, answer

TIMEOUT_S = 30


class Editor:
    """A connection to a debugger."""

    def __init__(self, connect: dict[str, Any]) -> None:
        self.socket = socket.create_connection((connect["host"], connect["port"]), timeout=TIMEOUT_S)
        self.file = self.socket.makefile("rb")
        self.received: list[dict[str, Any]] = []

    def request(self, command: str, **arguments: Any) -> None:
        """Send a request."""
        body = json.dumps({"seq": 1, "type": "request", "command": command, "arguments": arguments}).encode()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    def wait_for(self, name: str) -> dict[str, Any]:
        """The body of the next event or response of this name; fails on a response that reports a failure.

        Debuggers send them in different orders, so others are kept for later.
        """
        until = time.monotonic() + TIMEOUT_S
        while name not in (names := [message.get("event") or message.get("command") for message in self.received]):
            assert time.monotonic() < until, f"there is no {name} among {names}"
            header = self.file.readline()
            assert header, f"the debugger has closed the connection, after {names}"
            self.file.readline()
            message = json.loads(self.file.read(int(header.partition(b":")[2])))
            assert message.get("success", True), message
            self.received.append(message)
        return dict(self.received.pop(names.index(name)).get("body") or {})

    def stop_at(self, url: str, breakpoints: dict[Path, int]) -> str:
        """Send a request to the service, see it stop at every breakpoint by its path on this machine; the answer."""
        answers: list[str] = []
        asking = threading.Thread(target=lambda: answers.append(answer(url)))
        asking.start()
        for path, line in breakpoints.items():
            thread = self.wait_for("stopped")["threadId"]
            self.request("stackTrace", threadId=thread, levels=1)
            (frame,) = self.wait_for("stackTrace")["stackFrames"]
            assert (frame["source"]["path"], frame["line"]) == (str(path), line)
            assert answers == []
            self.request("continue", threadId=thread)
        asking.join(TIMEOUT_S)
        return answers[0]


@contextmanager
def attached(clone: Clone, breakpoints: dict[Path, int]) -> Iterator[Editor]:
    """An editor that has opened the clone and started what .vscode/launch.json has, with breakpoints."""
    text = (clone.root / ".vscode/launch.json").read_text().replace("${workspaceFolder}", str(clone.root))
    (configuration,) = json.loads(text)["configurations"]
    until = time.monotonic() + TIMEOUT_S
    while True:
        try:
            editor = Editor(configuration["connect"])
            editor.request("initialize", adapterID=configuration["type"], pathFormat="path")
            editor.wait_for("initialize")
            break
        except (OSError, AssertionError):  # a reload is under way
            assert time.monotonic() < until
            time.sleep(0.1)
    with editor.socket, editor.file:
        editor.request("attach", **configuration)
        editor.wait_for("initialized")
        for path, line in breakpoints.items():
            editor.request("setBreakpoints", source={"path": str(path)}, breakpoints=[{"line": line}])
            assert editor.wait_for("setBreakpoints")["breakpoints"][0]["verified"]
        editor.request("configurationDone")
        editor.wait_for("attach")
        yield editor
        editor.request("disconnect")
        editor.wait_for("disconnect")
