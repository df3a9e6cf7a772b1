"""What is built: the definition that Compose has."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from .. import env as dotenv
from ..images.target import Target, has_tests, target_of
from ..project import ROOT
from ..stack.model import Stack
from .conftest import fake_docker

MODEL = {
    "services": {
        "pilot": {
            "image": "ours-1/pilot:dev",
            "build": {
                "tags": ["ours/pilot:dev"],
                "context": "/clone",
                "dockerfile": "docker/Dockerfile",
                "target": "dev",
                "args": {"SERVICE": "pilot", "HTTP_PROXY": None, "EXTRAS": "a$$b"},
                "labels": {"stack.clone": "ours-1"},
                "secrets": [{"source": "ca"}, {"source": "index"}],
            },
        },
    },
    "secrets": {"ca": {"file": "/ca.crt"}, "index": {"environment": "PIP_INDEX_URL"}},
}


@pytest.fixture
def target(no_docker: Path) -> Target:
    fake_docker(no_docker, {"compose config": f"echo '{json.dumps(MODEL)}'"})
    return target_of(Stack("ours-1", ("docker/compose.yaml",), "dev"), "pilot")


def test_a_target_is_the_build_that_compose_has(target: Target) -> None:
    assert target == Target(
        context="/clone",
        dockerfile="docker/Dockerfile",
        target="dev",
        args={"SERVICE": "pilot", "EXTRAS": "a$b"},
        labels={"stack.clone": "ours-1"},
        tags=("ours-1/pilot:dev", "ours/pilot:dev"),
        secret=["id=ca,src=/ca.crt"],
        platforms=[],
    )
    assert target.tags[0] == "ours-1/pilot:dev"


def test_a_target_does_not_depend_on_what_is_set_in_this_clone() -> None:
    """With PIP_INDEX_URL in .env, as docs/configuration.md has it, a user's `nox -s test` failed in the test above."""
    assert dotenv.ENV != ROOT / ".env"


@pytest.mark.parametrize("where", ["environment", ".env"])
def test_a_secret_of_the_environment_is_passed_where_it_is_set(
    no_docker: Path, project: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    fake_docker(no_docker, {"compose config": f"echo '{json.dumps(MODEL)}'"})
    if where == ".env":
        (project / ".env").write_text("PIP_INDEX_URL=https://user:secret@mirror/simple\n")
    else:
        monkeypatch.setenv("PIP_INDEX_URL", "https://user:secret@mirror/simple")
    found = target_of(Stack("ours-1", ("docker/compose.yaml",), "dev"), "pilot")
    assert found.secret == ["id=ca,src=/ca.crt", "id=index,env=PIP_INDEX_URL"]
    assert "secret@" not in str(found)


def test_the_platform_is_the_one_that_docker_takes_by_default(
    no_docker: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `docker compose up` refuses the image, on a Mac whose user has set the variable."""
    assert target.platforms == []
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/amd64")
    fake_docker(no_docker, {"compose config": f"echo '{json.dumps(MODEL)}'"})
    stack = Stack("ours-1", ("docker/compose.yaml",), "dev")
    found = target_of(stack, "pilot")
    assert found.platforms == found.verification(stack).platforms == ["linux/amd64"]


@pytest.mark.parametrize("case", ["tested", "without tests", "tests need neighbours"])
def test_verification_starts_from_the_stage_and_keeps_nothing(
    target: Target, project: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    if case == "without tests":
        (project / "services/pilot/tests/test_it.py").unlink()
    if case == "tests need neighbours":
        target = replace(target, args={**target.args, "TESTS_NEED_NEIGHBOURS": "1"})
    given = {"KEY": "a b", "PATTERN": "^a$$", "UNSET": None, "PASSWORD_FILE": "/run/secrets/pilot", "EMPTY": ""}
    model = {"services": {"pilot": {"build": {"args": {"SERVICE": "pilot"}}, "environment": given}}}
    stack = Stack("ours-1", (), "prod")
    stack.__dict__["model"] = model
    found = target.verification(stack)
    assert found.target == ("verify" if case == "tested" else "verify-import")
    assert (found.tags, found.output) == ((), ("type=cacheonly",))
    environment = '{"KEY": "a b", "PATTERN": "^a$", "EMPTY": ""}'
    assert found.args == {**target.args, "FLAVOR": "dev", "ENVIRONMENT": environment}
    assert ("can run no tests of services/pilot" in capsys.readouterr().out) is (case != "tested")


@pytest.mark.parametrize(
    ("interface", "application", "told"),
    [
        ("wsgi", "json:dumps", ""),
        ("asgi", "lost:app", "No module named 'lost'"),
        ("command", "python3 -m 'lost'", ""),
        ("command", "lost-program --loop", "APPLICATION is 'lost-program --loop', and there is no such program"),
    ],
)
def test_a_start_without_tests_is_verified(interface: str, application: str, told: str) -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8").partition(" AS verify-import\n")[2]
    run = next(line for line in dockerfile.splitlines() if line.startswith("RUN "))
    words = {"INTERFACE": interface, "APPLICATION": application, "ENVIRONMENT": '{"KEY": "a b"}'}
    done = subprocess.run(
        json.loads(run.removeprefix("RUN ")),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "docker/server"), **words},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (bool(done.returncode), told in done.stderr) == (bool(told), True)


@pytest.mark.parametrize(
    ("path", "text", "tested"),
    [
        ("pilot/tests/test_x.py", "def test_x(): ...", True),
        ("pilot/cart/tests.py", "class Cart(TestCase):\n    def test_x(self): ...", True),
        ("pilot/cart/cart_test.py", "async def test_x(): ...", True),
        ("pilot/cart/tests.py", "# Create your tests here.", False),
        ("pilot/stack/test_x.py", "def test_x(): ...", False),
        ("pilot/cart/check.py", "def test_x(): ...", False),
    ],
)
def test_tests_are_found_inside_packages_too(project: Path, path: str, text: str, tested: bool) -> None:
    (project / "services/pilot/tests/test_it.py").unlink()
    file = project / "services" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    assert has_tests("pilot") is tested
