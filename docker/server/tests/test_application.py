"""What APPLICATION may name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
class Factory:
    def __init__(self, name="none"):
        self.server = f"the server of {name}"
application = "the application"
def create_app(name="none"):
    return f"the application of {name}"
"""


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("web.site:application", "the application"),
        ("web.site", "the application"),
        ("web.site:create_app()", "the application of none"),
        ('web.site:create_app("production")', "the application of production"),
        ("web.site:Factory('x').server", "the server of x"),
    ],
)
def test_an_expression_names_it(tmp_path: Path, named: str, found: str) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/site.py").write_text(CODE)
    env = {**os.environ, "APPLICATION": named, "PYTHONPATH": f"{Path(__file__).parents[1]}:{tmp_path}"}
    command = (sys.executable, "-c", "import serve_application; print(serve_application.application)")
    assert subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout == f"{found}\n"
