"""What adopters start from stays in order when they remove the samples."""

from __future__ import annotations

import tomlkit

from tasks.project import ROOT


def test_no_comment_goes_with_the_samples_groups() -> None:
    """Poetry removes `[tool.poetry.group]` with its last group, and with it all lines up to the next table."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    left = tomlkit.parse(text)
    left["tool"]["poetry"].pop("group")
    lost = {*text.splitlines()} - {*tomlkit.dumps(left).splitlines()}
    assert [line for line in lost if line.startswith("#")] == []
