"""scaffold/groups.py: dependency groups are edited, and nothing else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from ..scaffold import groups
from .scaffolding import PYPROJECT


@pytest.mark.parametrize("path", ["bare", "with-comments"])
def test_groups_keep_every_other_byte(tmp_path: Path, path: str) -> None:
    text = PYPROJECT if path == "bare" else PYPROJECT.replace('["flask"]', "[\n  'flask',  # the framework\n]  # end")
    file = tmp_path / "pyproject.toml"
    file.write_text(text)
    marked = 'x[y]>=1,<2; python_version < "3.12" and sys_platform == "linux"'
    groups.main(file, "add", "new", "flask>=3.1,<4", marked, "z @ https://example.invalid/z-1.tar.gz")
    groups.main(file, "copy", "pilot", "like-pilot")
    data: dict[str, Any] = tomllib.loads(file.read_text())
    assert data["dependency-groups"]["new"][1] == marked
    assert data["dependency-groups"]["like-pilot"] == data["dependency-groups"]["pilot"]
    libs = data["tool"]["poetry"]["group"]
    assert libs["like-pilot"] == libs["pilot"]
    groups.main(file, "remove", "new")
    groups.main(file, "remove", "like-pilot")
    assert file.read_text() == text
