"""What adopters start from, and what stays of it when they remove the samples."""

from __future__ import annotations

import tomlkit

from tasks.project import ROOT, pyproject
from tasks.scaffold.service import SERVERS


def test_no_comment_goes_with_the_samples_groups() -> None:
    """Poetry removes `[tool.poetry.group]` with its last group, and with it all lines up to the next table."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    left = tomlkit.parse(text)
    left["tool"]["poetry"].pop("group")
    lost = {*text.splitlines()} - {*tomlkit.dumps(left).splitlines()}
    assert [line for line in lost if line.startswith("#")] == []


def test_services_get_the_servers_that_docker_server_is_tested_with() -> None:
    """With uvicorn 0.52, say, slow web sockets were not disconnected."""
    tested = [line for line in pyproject()["dependency-groups"]["host"] if isinstance(line, str)]
    assert {line for lines in SERVERS.values() for line in lines} <= {*tested}
