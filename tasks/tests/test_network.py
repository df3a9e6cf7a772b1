"""A network that several stacks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from .. import cli
from ..stack import lifecycle, network
from ..stack.model import Stack
from .conftest import calls, fake_docker

pytestmark = pytest.mark.usefixtures("project")
STACK = Stack("ours-1", ("docker/compose.yaml",), "dev")
PS = "printf '1\\tpilot\\trunning\\tUp 1 s\\t\\n2\\tother\\trunning\\tUp 1 s\\t\\n'"


def test_dev_takes_the_option() -> None:
    assert cli.dev([]).network == ""
    assert cli.dev(["--network", "shared"]).network == "shared"
    assert network.join in lifecycle.ON_UP


def test_without_the_option_nothing_is_done(no_docker: Path) -> None:
    network.join(STACK, cli.dev([]))
    assert calls(no_docker) == []


@pytest.mark.parametrize("there", [False, True])
def test_containers_join_by_their_service_and_project(
    no_docker: Path, there: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "network ls --quiet --filter name=^shared$": "echo 12" if there else "",
        "network create": "",
        "network inspect --format {{json .Containers}} shared": "echo '{\"2\": {}}'",
        "ps --all": PS,
        "network connect": "",
    }
    fake_docker(no_docker, answers)
    network.join(STACK, cli.dev(["--network=shared"]))
    made = calls(no_docker)
    assert ("network create --label stack.network=yes shared" in made) is not there
    assert [call for call in made if "connect" in call] == ["network connect --alias pilot.ours shared 1"]
    assert capsys.readouterr().out == "on shared: other.ours\non shared: pilot.ours\n"


def test_a_network_that_was_made_here_goes_with_its_last_container(no_docker: Path) -> None:
    fake_docker(
        no_docker,
        {
            "ps --all --format {{.Networks}}": "echo bridge,shared",
            "network ls --filter=label=stack.network": "echo shared; echo left; echo busy",
            "network rm busy": "exit 1",
            "network rm": "",
        },
    )
    for remove in lifecycle.ON_DOWN:
        remove()
    assert sorted(call for call in calls(no_docker) if " rm " in call) == ["network rm busy", "network rm left"]
