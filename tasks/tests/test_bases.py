"""Base images: chosen by the user, on the engine, pulled, or built in their place."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .. import env
from ..images import bases
from ..machine import setup
from ..shell import UserError
from ..stack import model
from .conftest import FakeDistribution, calls, fake_docker

OFFICIAL = "python:3.13-slim"
INSPECT = "image inspect --format {{join"
PULL_FAILS = "echo 'Error response: dial tcp: lookup registry: no such host' >&2; exit 1"


@pytest.fixture(autouse=True)
def debian(project: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDistribution:
    """A project whose service pilot runs PostgreSQL as it is, on a distribution with recipes for both images."""
    (project / "docker/Dockerfile").write_text(f"FROM {OFFICIAL} AS official\n")
    compose = project / "services/pilot/compose.yaml"
    compose.write_text("services:\n  pilot-database:\n    image: ${STACK_POSTGRES:-postgres:17}\n")
    fake = FakeDistribution()
    fake.recipes.add("postgres")
    monkeypatch.setattr(setup, "DISTRIBUTIONS", [fake])
    monkeypatch.setattr(setup, "_GRANTED", set())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    return fake


def on_engine(**images: tuple[str, str]) -> str:
    """An answer of `docker image inspect`: by the names of images, their digests, and the ids of the recipes that made them."""
    lines = [f"printf '%s\\t%s\\t%s\\n' '{name}' '{digest}' '{recipe}';" for name, (digest, recipe) in images.items()]
    return "".join(lines or ["echo;"]) + "exit 1"


PULLED = ("", "")  # an image without digest and recipe


def test_images_that_services_run_as_they_are_are_found() -> None:
    assert bases.needed() == {"STACK_POSTGRES": ("postgres", "postgres:17")}


@pytest.mark.parametrize("spelling", ['"{}"', "'{}'", "{}  # pinned", "{} "])
def test_images_are_found_in_all_spellings(project: Path, spelling: str) -> None:
    text = spelling.format("${STACK_POSTGRES:-postgres:17}")
    (project / "services/pilot/compose.yaml").write_text(f"services:\n  pilot-database:\n    image: {text}\n")
    assert bases.needed() == {"STACK_POSTGRES": ("postgres", "postgres:17")}


def test_a_variable_with_two_versions_is_told(project: Path) -> None:
    """Both services would run one of them, on data of the other."""
    compose = project / "services/pilot/compose.yaml"
    text = compose.read_text()
    compose.write_text(text + text.replace(":17", ":18").replace("services:\n", ""))
    with pytest.raises(UserError, match="STACK_POSTGRES has two versions; one of them needs another variable"):
        bases.needed()


def test_images_on_the_engine_are_pinned_and_not_pulled(no_docker: Path) -> None:
    digests = ("mirror/python@sha256:34 python@sha256:12", "of-a-recipe")  # it may have been built so, and pushed
    fake_docker(no_docker, {INSPECT: on_engine(**{f"{OFFICIAL} python:3": digests, "postgres:17": PULLED})})
    assert bases.ensure() == {"STACK_BASE": f"{OFFICIAL}@sha256:12", "STACK_POSTGRES": "postgres:17"}
    assert not [call for call in calls(no_docker) if call.startswith("pull")]
    assert len(calls(no_docker)) == 1


@pytest.mark.parametrize("here", [True, False])
def test_an_image_that_is_named_by_its_digest(
    no_docker: Path, project: Path, debian: FakeDistribution, *, here: bool
) -> None:
    """Docker knows it without its tag. Where no registry gives it, what stands in for its tag does."""
    official = f"registry.example:5000/x/{OFFICIAL}@sha256:12"
    (project / "docker/Dockerfile").write_text(f"FROM {official} AS official\n")
    there = {"": ("registry.example:5000/x/python@sha256:12", "")} if here else {}
    fake_docker(no_docker, {INSPECT: on_engine(**there, **{"postgres:17": PULLED}), "pull": PULL_FAILS})
    assert bases.ensure()["STACK_BASE"] == (official if here else f"localhost/base/{OFFICIAL}")
    assert debian.built == ([] if here else [("python", f"localhost/base/{OFFICIAL}")])
    assert model.production("alpine").env["STACK_BASE"] == "registry.example:5000/x/python:3.13-alpine"


def test_what_was_pulled_is_pinned(no_docker: Path) -> None:
    pulled = no_docker / "pulled"
    there = on_engine(**{"postgres:17": ("postgres@sha256:17", "")})
    answer = f"if [ -e '{pulled}' ]; then {on_engine(**{OFFICIAL: ('python@sha256:12', '')})} fi; {there}"
    fake_docker(no_docker, {INSPECT: answer.replace("exit 1 fi", "exit 1; fi"), "pull": f"echo; touch '{pulled}'"})
    assert bases.ensure() == {"STACK_POSTGRES": "postgres:17@sha256:17", "STACK_BASE": f"{OFFICIAL}@sha256:12"}


def test_images_of_ours_are_used_as_long_as_their_recipes_are_the_same(
    no_docker: Path, debian: FakeDistribution
) -> None:
    ours = {
        "localhost/base/python:3.13-slim": ("x@sha256:1", "id-of-python"),
        "localhost/base/postgres:17": ("", "older"),
    }
    fake_docker(no_docker, {INSPECT: on_engine(**ours), "pull": PULL_FAILS})
    assert bases.ensure() == dict(zip(("STACK_BASE", "STACK_POSTGRES"), ours, strict=True))
    assert debian.built == [("postgres", "localhost/base/postgres:17")]


def test_what_is_missing_is_pulled(no_docker: Path, debian: FakeDistribution) -> None:
    fake_docker(no_docker, {INSPECT: on_engine(), "pull": "echo pulling"})
    assert bases.ensure() == {"STACK_BASE": OFFICIAL, "STACK_POSTGRES": "postgres:17"}
    assert {f"pull {OFFICIAL}", "pull postgres:17"} <= set(calls(no_docker))
    assert debian.built == []


def test_without_a_registry_images_are_built(
    no_docker: Path, debian: FakeDistribution, capsys: pytest.CaptureFixture[str]
) -> None:
    debian.missing = ("mmdebstrap",)
    fake_docker(no_docker, {INSPECT: on_engine(), "pull": PULL_FAILS})
    assert bases.ensure()["STACK_BASE"] == "localhost/base/python:3.13-slim"
    assert sorted(recipe for recipe, _ in debian.built) == ["postgres", "python"]
    assert debian.installed == [("mmdebstrap",)]
    assert "no image registry answers (no such host)" in capsys.readouterr().out


def test_what_builds_images_is_installed_only_where_that_is_allowed(
    no_docker: Path, debian: FakeDistribution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    debian.missing = ("mmdebstrap",)
    fake_docker(no_docker, {INSPECT: on_engine(), "pull": PULL_FAILS})
    with pytest.raises(UserError, match=r"only root can install mmdebstrap\. Run `sudo apt-get install mmdebstrap`"):
        bases.ensure()
    assert (debian.installed, debian.built) == ([], [])


def test_without_a_registry_and_a_known_distribution_the_way_out_is_told(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "DISTRIBUTIONS", [])
    fake_docker(no_docker, {INSPECT: on_engine(), "pull": PULL_FAILS})
    with pytest.raises(
        UserError, match=r"no image registry answers \(no such host\): check the network, or set"
    ) as told:
        bases.ensure()
    assert {"STACK_BASE=...", "STACK_POSTGRES=...", ".env"} <= set(str(told.value).split())


def test_an_image_without_a_recipe_is_pulled_like_others(no_docker: Path, debian: FakeDistribution) -> None:
    """A service that an adopter has added: `image: ${STACK_REDIS:-redis:8}`."""
    debian.recipes = {"python"}
    answers = {INSPECT: on_engine(**{OFFICIAL: PULLED})}
    fake_docker(no_docker, answers | {"pull": "echo pulling"})
    assert bases.ensure()["STACK_POSTGRES"] == "postgres:17"
    fake_docker(no_docker, answers | {"pull": PULL_FAILS})
    with pytest.raises(
        UserError, match=r"or set STACK_POSTGRES=\.\.\. in \.env \(docker/bases makes no postgres:17 here\)$"
    ):
        bases.ensure()


def test_an_empty_setting_chooses_nothing(no_docker: Path) -> None:
    env.ENV.write_text("STACK_BASE=\n")
    fake_docker(no_docker, {INSPECT: on_engine(**{OFFICIAL: PULLED, "postgres:17": PULLED})})
    assert bases.ensure()["STACK_BASE"] == OFFICIAL


@pytest.mark.parametrize("variable", ["STACK_BASE", "STACK_POSTGRES"])
def test_an_image_that_the_user_has_chosen_is_taken_as_it_is(no_docker: Path, variable: str) -> None:
    chosen = "registry.example/x/postgres:17"
    env.ENV.write_text(f"{variable}={chosen}  # mine\n")
    fake_docker(no_docker, {INSPECT: on_engine(**{OFFICIAL: PULLED, "postgres:17": PULLED})})
    expected = {"STACK_BASE": OFFICIAL, "STACK_POSTGRES": "postgres:17"} | {variable: chosen}
    assert bases.ensure() == expected
    assert not [call for call in calls(no_docker) if call.startswith("pull")]


def test_a_pull_that_has_begun_may_take_its_time(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Timer:
        def __init__(self, *_: object) -> None:
            pass

        def start(self) -> None:
            pass

        def cancel(self) -> None:
            (no_docker / "cancelled").touch()

    monkeypatch.setattr("threading.Timer", Timer)
    fake_docker(no_docker, {"pull": f"echo a layer; until [ -e '{no_docker}/cancelled' ]; do sleep 0.01; done"})
    assert bases.pull("x:1") == ""


def test_a_registry_that_hangs_counts_as_unreachable(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bases, "REGISTRY_TIMEOUT_S", 0.2)
    fake_docker(no_docker, {"pull": "exec sleep 60"})
    began = time.monotonic()
    assert bases.pull("x:1") == "no answer for 0.2 s"
    assert time.monotonic() - began < 5


def test_a_pull_that_fails_has_a_reason(no_docker: Path) -> None:
    fake_docker(no_docker, {"pull": "echo 'x: Pulling'; echo 'Error: manifest for x:1: not found' >&2; exit 1"})
    assert bases.pull("x:1") == "not found"
    fake_docker(no_docker, {"pull": PULL_FAILS})
    assert bases.pull("x:1") == "no such host"
