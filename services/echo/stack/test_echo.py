"""The echo service from outside, as it runs in production."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

LIMIT = 1024 * 1024


@pytest.fixture
def echo(url_of: Callable[[str], str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url_of("echo"), timeout=10) as client:
        yield client


def test_it_echoes(echo: httpx.Client) -> None:
    answer = echo.post("/a/b?c=d", content=b"\xff\x00body")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.text.startswith("METHOD: POST\nPATH: /a/b\nQUERY: c=d\nHEADERS:\n")
    assert answer.text.endswith("\n\nBODY (base64):\n/wBib2R5")


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1, 20 * LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_limit_on_bodies(echo: httpx.Client, size: int, chunked: bool) -> None:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, 65536):
            yield b"x" * min(65536, size - start)

    try:
        answer = echo.post("/", content=chunks() if chunked else b"x" * size)
    except (httpx.WriteError, httpx.ReadError):
        # The server may hang up on a body that it will not read; what it must not do is accept it.
        assert size > LIMIT + 1
        return
    assert answer.status_code == (200 if size <= LIMIT else 413)


def test_schemathesis_finds_no_fault(url_of: Callable[[str], str], tmp_path: Path) -> None:
    description = Path(__file__).parents[1] / "openapi.yaml"
    arguments = ["run", str(description), f"--url={url_of('echo')}", "--no-color"]
    # Echo accepts methods that its description does not name, too.
    bounds = ["--exclude-checks=unsupported_method", "--max-examples=10", "--generation-database=none"]
    command = [sys.executable, "-m", "schemathesis.cli", *arguments, *bounds]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Tested: +8", done.stdout), done.stdout
