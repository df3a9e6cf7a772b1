"""The recipe "Communicate between Compose environments": two stacks share a network."""

from __future__ import annotations

import json

import pytest

from ...project import name
from .clones import Clone

pytestmark = pytest.mark.slow
ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"


def test_two_stacks_share_a_network(clone: Clone) -> None:
    """A Compose project of somebody else's reaches pilot by its alias on the network that both are on."""
    network, alias = f"{clone.name}-shared", f"pilot.{name()}"
    project = {
        "services": {"other": {"image": f"{clone.name}/pilot:dev", "networks": ["shared"]}},
        "networks": {"shared": {"name": network, "external": True}},
    }
    (clone.root / "other.json").write_text(json.dumps(project))
    settings = {"COMPOSE_FILE": "other.json", "COMPOSE_PROJECT_NAME": f"{clone.name}-other"}
    try:
        assert f"on {network}: {alias}" in clone.nox("-s", "dev", "--", "--detach", "--network", network)
        command = ("run", "--rm", "--no-TTY", "other", "python3", "-c", ASK, f"http://{alias}:8000/")
        assert "Hello from pilot" in clone.compose(*command, **settings)
    finally:
        clone.nox("-s", "down")
    assert clone.docker("network", "ls", "--quiet", "--filter", f"name={network}") == ""
