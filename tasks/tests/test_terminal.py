"""What the user sees, on a terminal and without one, and never a credential."""

from __future__ import annotations

import sys
import time

import pytest

from .. import terminal
from ..terminal import CLEAR, Status, say


def shown() -> None:
    """Wait until the status line is on the terminal."""
    until = time.monotonic() + 5
    while not Status.shown and time.monotonic() < until:
        time.sleep(0.01)
    assert Status.shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://user:secret@mirror/simple", "https://***@mirror/simple"),
        ("index=https://secret@mirror:8080", "index=https://***@mirror:8080"),
        ("https://user:sec@ret@mirror/simple/@scope", "https://***@mirror/simple/@scope"),
        ("two: http://a:b@one/ and 'http://c:d@two'", "two: http://***@one/ and 'http://***@two'"),
        ("https://mirror/x and me@example.org", "https://mirror/x and me@example.org"),
        ("python@sha256:1234", "python@sha256:1234"),
    ],
)
def test_credentials_are_masked(text: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.masked(text) == expected
    say(text)
    assert capsys.readouterr().out == f"{expected}\n"


def test_on_a_terminal_a_status_is_its_last_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(terminal, "TICK_S", 0.01)
    monkeypatch.setenv("COLUMNS", "40")
    with Status("pulling http://user:secret@mirror") as status:
        shown()
        status.text = "a text that is much longer than the terminal is wide"
        say("a line")
        shown()
    out = capsys.readouterr().out
    assert out.startswith(f"{CLEAR}0 s pulling http://***@mirror")
    before, _, after = out.partition(f"{CLEAR}a line\n")  # written over the status
    assert "\n" not in before + after
    assert f"{CLEAR}0 s a text that is much longer than th…" in after
    assert out.endswith(CLEAR)
    say("after")
    assert capsys.readouterr().out == "after\n"


def test_without_a_terminal_a_status_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Status("pulling") as status:
        say("a line")
    assert capsys.readouterr().out == "a line\n"
    assert status.seconds >= 0
    assert terminal.cut("x" * 500) == "x" * 500


def test_a_table_aligns_words_left_and_numbers_right() -> None:
    rows = [["image", "MB"], ["a", "7.00"], ["long", "+10.00"]]
    assert terminal.table(rows) == "image  MB\na        7.00\nlong   +10.00"
