"""Building images: what BuildKit gets, what is built and verified, and what a failure leads to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..images import bake, buildlog, uptodate
from ..shell import UserError
from .conftest import calls, fake_docker

URL = "https://user:secret@mirror/simple"


def build_of(service: str) -> dict[str, Any]:
    """What `docker compose config` has of a service."""
    return {
        "image": f"ours-1/{service}:prod",
        "build": {
            "tags": [f"ours/{service}:prod"],
            "context": "/clone",
            "dockerfile": "docker/Dockerfile",
            "target": "prod",
            "args": {"SERVICE": service, "HTTP_PROXY": None},
            "labels": {"stack.clone": "ours-1"},
            "secrets": [{"source": "ca"}, {"source": "index"}],
        },
    }


MODEL = {
    "services": {service: build_of(service) for service in ("other", "pilot")},
    "secrets": {"ca": {"file": "/ca.crt"}, "index": {"environment": "PIP_INDEX_URL"}},
}


@pytest.fixture(autouse=True)
def engine(no_docker: Path, project: Path) -> Path:
    """A client that keeps what it was asked to bake, one file for each time; returns their folder."""
    (project / ".dockerignore").write_text("*\n!pyproject.toml\n!services\n")
    (project / "model.json").write_text(json.dumps(MODEL))
    (project / "plans").mkdir()
    number = f'"{project}/plans/$(ls "{project}/plans" | wc -l)"'
    images = f"[ ! -e '{project}/plans/0' ] || echo ours-1/pilot:prod id ours/pilot:prod id | xargs -n 2"
    answers = {"compose config": f"cat '{project}/model.json'", "image ls": images, "buildx bake": f"cat >{number}"}
    fake_docker(no_docker, answers)
    return project / "plans"


def plans(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text())["target"] for path in sorted(folder.iterdir())]


@pytest.mark.parametrize("flavor", ["prod", "slim", "alpine"])
def test_a_production_image_is_verified(engine: Path, project: Path, flavor: str) -> None:
    tags = {"tags": ["ours/pilot:prod", "registry.example/team/pilot:latest"]}  # the latter is the user's own
    pilot = MODEL["services"]["pilot"]
    model = json.dumps(
        MODEL | {"services": {"pilot": pilot | {"platform": "linux/arm64", "build": pilot["build"] | tags}}}
    )
    (project / "model.json").write_text(model)
    assert bake.build(["pilot"], flavor) == ["ours/pilot:prod"]
    (plan,) = plans(engine)
    assert plan["pilot"]["platforms"] == ["linux/arm64"]
    assert list(plan) == ["pilot", "pilot_verify"]
    assert plan["pilot"]["output"] == ["type=docker"]
    verify = plan["pilot_verify"]
    assert (verify["target"], verify["tags"], verify["output"]) == ("verify", [], ["type=cacheonly"])
    assert verify["args"] == {"SERVICE": "pilot", "FLAVOR": "prod", "ENVIRONMENT": "{}"}


def test_a_service_whose_name_ends_like_a_verification(engine: Path, project: Path) -> None:
    """It is built, too, and not just the other one verified in its place."""
    names = ["pilot", "pilot-verify"]
    (project / "model.json").write_text(json.dumps(MODEL | {"services": {name: build_of(name) for name in names}}))
    bake.build(names, "prod")
    (plan,) = plans(engine)
    assert [target["args"]["SERVICE"] for target in plan.values()] == [*names, *names]


def test_a_development_image_is_not_verified(engine: Path) -> None:
    bake.build(["pilot"])
    assert [list(plan) for plan in plans(engine)] == [["pilot"]]


def test_what_is_up_to_date_is_not_built(
    engine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(uptodate, "stale", lambda *_: ["other"])
    assert bake.build(["other", "pilot"]) == ["ours/other:prod", "ours/pilot:prod"]
    assert [list(plan) for plan in plans(engine)] == [["other"]]
    assert "up to date: pilot (dev)" in capsys.readouterr().out


def test_what_was_built_is_not_built_again(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        bake.build(["pilot"])
    assert len(plans(engine)) == 1
    out = capsys.readouterr().out
    assert out.index("$ docker buildx bake pilot") < out.index("built pilot in") < out.index("up to date: pilot (dev)")
    bake.build([])
    assert "up to date: everything (dev)" in capsys.readouterr().out


def test_many_services_are_built_in_batches(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bake, "BATCH", 1)
    bake.build(["other", "pilot"])
    assert [list(plan) for plan in plans(engine)] == [["other"], ["pilot"]]


@pytest.mark.parametrize(
    "fault",
    [
        "inconsistent graph state",
        "failed to get state for index 0 on x",
        "failed to prepare extraction snapshot: parent snapshot sha256:1 does not exist: not found",
    ],
)
def test_buildkits_own_fault_is_tried_again_after_a_while(
    no_docker: Path, project: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    slept: list[int] = []
    monkeypatch.setattr("time.sleep", slept.append)
    said = f"ERROR: failed to solve: {fault}"
    again = f"[ -e '{project}/again' ] && exit 0; touch '{project}/again'"
    fake_docker(no_docker, {"buildx bake": f"cat >/dev/null; {again}; echo '{said}'; exit 1"})
    bake.bake({}, "test")
    assert len(calls(no_docker)) == 2
    fake_docker(no_docker, {"buildx bake": f"cat >/dev/null; echo '{said}'; exit 1"})
    with pytest.raises(UserError, match=fault):
        bake.bake({}, "test")
    assert len(calls(no_docker)) == 2 + len(bake.PAUSES_S)
    assert slept == [*bake.PAUSES_S[:2], *bake.PAUSES_S]  # the other build is over then


def test_a_failure_is_one_line_and_all_of_it_is_in_a_file(
    no_docker: Path, project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a password of the package index is in neither."""
    monkeypatch.setattr(buildlog, "stages", dict)  # the project has no Dockerfile
    said = f"echo '#4 1.0 error: no answer from {URL}'; echo '#5 [a 1/1] RUN pip {URL}'; echo '#5 DONE 1.0s'"
    fake_docker(no_docker, {"buildx bake": f"cat >/dev/null; {said}; echo 'ERROR: failed: {URL}'; exit 1"})
    with pytest.raises(UserError) as failed:
        bake.bake({}, "test")
    told = "the build failed: failed: https://***@mirror/simple (all of it: reports/logs/build-test.log)"
    assert str(failed.value) == told
    log = (project / "reports/logs/build-test.log").read_text()
    out = capsys.readouterr().out
    assert "#4 1.0 error: no answer from https://***@mirror/simple" in log
    assert "1.0 s  [a 1/1] RUN pip https://***@mirror/simple" in out
    assert "secret" not in log + out


@pytest.mark.parametrize("before", ["", "ours/pilot:prod old\n"])
def test_an_image_that_fails_its_verification_gets_no_name(no_docker: Path, project: Path, before: str) -> None:
    """It has the names by then; the image before gets them back."""
    (images := project / "images").write_text(before)
    fails = f"cat >/dev/null; echo ours/pilot:prod new >'{images}'; exit 1"
    answers = {
        "image tag old ours/pilot:prod": f"echo ours/pilot:prod old >'{images}'",
        "image rm ours": f": >'{images}'",
    }
    answers |= {"compose config": f"cat '{project}/model.json'", "image ls": f"cat '{images}'", "image rm new": ""}
    fake_docker(no_docker, {**answers, "buildx bake": fails})
    with pytest.raises(UserError, match="the build failed"):
        bake.build(["pilot"], "prod")
    assert images.read_text() == before
    assert "image rm new" in calls(no_docker)


def test_an_image_that_a_build_replaces_is_removed(no_docker: Path, project: Path) -> None:
    (images := project / "images").write_text("ours-1/pilot:prod old\nours/pilot:prod old\n")
    built = f"cat >/dev/null; sed -i s/old/new/ '{images}'"
    answers = {"compose config": f"cat '{project}/model.json'", "image ls": f"cat '{images}'", "image rm old": ""}
    fake_docker(no_docker, {**answers, "buildx bake": built})
    bake.build(["pilot"])
    assert "image rm old" in calls(no_docker)


def test_why_a_build_failed_is_told_though_another_session_has_removed_the_image_before(
    no_docker: Path, project: Path
) -> None:
    (images := project / "images").write_text("ours/pilot:prod old\n")
    fails = f"cat >/dev/null; echo ours/pilot:prod new >'{images}'; exit 1"
    answers = {"compose config": f"cat '{project}/model.json'", "image ls": f"cat '{images}'", "buildx bake": fails}
    fake_docker(no_docker, {**answers, "image tag": "echo 'No such image: old' >&2; exit 1"})
    with pytest.raises(UserError, match="the build failed"):
        bake.build(["pilot"], "prod")


def test_an_image_whose_build_fails_stays_stale(no_docker: Path) -> None:
    tool = (no_docker / "docker").read_text()
    (no_docker / "docker").write_text(tool.replace("'buildx bake'*)", "'buildx bake'*) exit 1;"))
    for _ in range(2):
        with pytest.raises(UserError, match="the build failed: BuildKit printed nothing"):
            bake.build(["pilot"])
    assert sum(call.startswith("buildx bake") for call in calls(no_docker)) == 2
