"""What the user sees: lines, tables, and on a terminal a last line that tells what is going on. No credentials."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Sequence
from threading import Event, RLock, Thread
from typing import Self

CLEAR = "\r\x1b[K"  # empties the terminal's last line
TICK_S = 0.2
_LOCK = RLock()


def masked(text: str) -> str:
    """A text without the user and password that a URL in it may contain."""
    return re.sub(r"://[^/\s'\"]+@", "://***@", text)


def say(text: str) -> None:
    """Print a text at once, so that it stands in order with what commands print."""
    with _LOCK:
        print((CLEAR if Status.shown else "") + masked(text), flush=True)
        Status.shown = False


def cut(text: str) -> str:
    """A text cut to one line of the terminal; without a terminal, lines are not cut."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    line = " ".join(text.split())
    return line if len(line) < width else line[: max(width - 2, 0)] + "…"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def align(cell: str, width: int) -> str:
        return cell.rjust(width) if re.match(r"[+-]?\d", cell) else cell.ljust(width)

    return "\n".join("  ".join(map(align, row, widths)).rstrip() for row in rows)


class Status:
    """While the block runs: what is going on and for how long, on the terminal's last line; nothing without a terminal."""

    shown = False

    def __init__(self, text: str = "") -> None:
        self.began = time.monotonic()
        self.text = text
        self.over = Event()
        self.thread = Thread(target=self.tick, daemon=True)

    def tick(self) -> None:
        """Draw the line until the block is over."""
        while not self.over.wait(TICK_S):
            with _LOCK:
                if self.text and not self.over.is_set():
                    print(CLEAR + cut(masked(f"{self.seconds:.0f} s  {self.text}")), end="", flush=True)
                    Status.shown = True

    @property
    def seconds(self) -> float:
        """The seconds since the beginning."""
        return time.monotonic() - self.began

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with _LOCK:
            if Status.shown:
                print(CLEAR, end="", flush=True)
                Status.shown = False
