"""The report on weighed images, whose JSON scripts read, and the most that images may weigh."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ..shell import UserError
from ..sizes import report
from ..sizes.weigh import Image, Layer
from .conftest import PYPROJECT, fake_docker, write_tool

BASE = Layer("sha256:" + "ab" * 32, 5_000_000, 2_000_000, {"operating system": 5_000_000}, ["ours/other:prod"])

BEFORE = {"flask": 3_000_000, "numpy": 1_000_000, "old": 2_000_000}
AFTER = {"flask": 3_000_000, "numpy": 7_000_000, "new": 1_000_000}


def weighing(raw: int, zipped: int = 4_000_000, groups: dict[str, int] = AFTER) -> Image:
    return Image("ours/pilot:prod", "pilot", "prod", [Layer("sha256:1", raw, zipped, groups)])


def set_budget(project: Path, text: str) -> None:
    (project / "pyproject.toml").write_text(f'{PYPROJECT}[tool.stack.budgets]\n"pilot:prod" = {text}\n')


def image(service: str, size: int, groups: dict[str, int]) -> Image:
    return Image(f"ours/{service}:prod", service, "prod", [BASE, Layer("sha256:" + "cd" * 32, size, size // 2, groups)])


PILOT = image("pilot", 7_000_000, {"flask": 3_000_000, "numpy": 4_000_000})
EARLIER = image("pilot", 4_000_000, {"flask": 3_000_000, "old": 1_000_000})


def arguments(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"against": None, "json": None, "markdown": None} | given)


@pytest.fixture(autouse=True)
def driver(no_docker: Path, project: Path) -> None:
    fake_docker(no_docker, {"info --format {{.Driver}}": "echo overlay2"})
    set_budget(project, "{raw_mb = 12.5, gzip_mb = 5}")


def test_an_image_is_a_line_with_what_is_its_own_and_what_its_budget_leaves() -> None:
    head, pilot, other = report.overview([PILOT, image("other", 1_000_000, {})])
    assert head == ["image", "raw MB", "gzip MB", "own MB", "left, raw", "left, gzip"]
    assert pilot == ["ours/pilot:prod", "12.00", "5.50", "7.00", "0.50", "-0.50"]
    assert other == ["ours/other:prod", "6.00", "2.50", "1.00", "", ""]


def test_changes_name_the_biggest_movers_first() -> None:
    assert report.changes([PILOT], [EARLIER])[1:] == [
        ["ours/pilot:prod", "", "+3.00", "+1.50"],
        ["", "numpy", "+4.00", ""],
        ["", "old", "-1.00", ""],
    ]
    assert report.changes([PILOT], [])[1:] == [["ours/pilot:prod", "new", "+12.00", "+5.50"]]


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report.show([PILOT], [EARLIER], arguments(against="main"))
    out = capsys.readouterr().out
    titles = ["changes since main", "images", "where the bytes are (MB, raw)"]
    assert [out.index(f"\n{title}\n") for title in titles] == sorted(out.index(f"\n{title}\n") for title in titles)
    report.show([PILOT], [], arguments())
    assert "changes" not in capsys.readouterr().out
    report.show([PILOT], None, arguments(against="a commit that does not build"))
    assert "changes" not in capsys.readouterr().out


def test_what_is_written(project: Path, tmp_path: Path) -> None:
    found = tmp_path / "deep/sizes.json"
    (tmp_path / "summary.md").write_text("before\n")
    report.show([PILOT], [], arguments(json=found, markdown=tmp_path / "summary.md"))
    assert found.read_text() == (project / "reports/sizes.json").read_text()
    told = json.loads(found.read_text())
    assert told["storage_driver"] == "overlay2"
    (first,) = told["images"]
    assert set(first) == {"image", "service", "flavor", "raw_bytes", "gzip_bytes", "layers", "groups"}
    assert (first["image"], first["raw_bytes"], first["gzip_bytes"]) == ("ours/pilot:prod", 12_000_000, 5_500_000)
    assert list(first["groups"]) == ["operating system", "numpy", "flask"]
    assert first["layers"][0] == {
        "digest": BASE.digest,
        "raw_bytes": 5_000_000,
        "gzip_bytes": 2_000_000,
        "groups": {"operating system": 5_000_000},
        "shared_with": ["ours/other:prod"],
    }
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("before\n### images\n\n| image | raw MB |")
    assert "\n|---|---|---|---|---|---|\n| ours/pilot:prod | 12.00 |" in summary


def test_over_budget_names_what_has_grown(project: Path) -> None:
    set_budget(project, "{raw_mb = 10, gzip_mb = 4.5}")
    small = weighing(9_000_000, groups=BEFORE)
    report.check_budgets([small], [])
    assert report.limits_of(small) == [(10_000_000, 9_000_000), (4_500_000, 4_000_000)]
    report.check_budgets([weighing(10_000_000, 4_500_000)], [])
    told = r"^ours/pilot:prod is 15\.00 MB raw, over its 10\.00 MB \(numpy \+6\.00, new \+1\.00, flask \+0\.00\)$"
    with pytest.raises(UserError, match=told):
        report.check_budgets([weighing(15_000_000)], [small])
    with pytest.raises(UserError, match=r"MB \(numpy 7\.00, flask 3\.00, new 1\.00\); .* is 5\.00 MB gzip"):
        report.check_budgets([weighing(15_000_000, 5_000_000)], [])


def test_a_budget_of_no_service_or_flavor_is_told(project: Path) -> None:
    others = "".join(f'\n"{title}" = {{raw_mb = 1, gzip_mb = 1}}' for title in ("pilto:prod", "pilot", "pilot:prd"))
    set_budget(project, "{raw_mb = 10, gzip_mb = 4.5}" + others)
    with pytest.raises(UserError, match="a budget for pilot, pilot:prd, pilto:prod, which is no SERVICE:FLAVOR"):
        report.check_budgets([], [])


def test_without_a_budget_anything_goes(project: Path) -> None:
    (project / "pyproject.toml").write_text(PYPROJECT)
    report.check_budgets([weighing(10**12)], [])
    assert report.limits_of(weighing(1)) == []


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{raw_mb = 10}",
        "{raw = 10, gzip = 4}",
        "{raw_mb = '10 MB', gzip_mb = 4}",
        "{raw_mb = true, gzip_mb = 4}",
        "10",
    ],
)
def test_what_is_no_budget_is_told(project: Path, text: str) -> None:
    set_budget(project, text)
    with pytest.raises(UserError, match=r"the budget of pilot:prod must be like \{raw_mb = 32\.5, gzip_mb = 12\}"):
        report.check_budgets([weighing(1)], [])


class Earlier:
    """A repository whose HEAD has `pilot` and not yet `other`, and what was run in a worktree of it."""

    def __init__(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(project)
        self.ran: list[tuple[str, ...]] = []
        self.code, self.said, self.log = 0, "COMPOSE_PROJECT_NAME=ours-01234567\n", ""
        self.interrupted = False
        self.saw: Mapping[str, str] = {}
        for command in ("init -q", "add services/pilot", "-c user.name=x -c user.email=x commit -qm x"):
            self.git(*command.split())
        monkeypatch.setattr(report, "run", self.run)
        monkeypatch.setattr(report, "output", self.output)
        monkeypatch.setattr(report, "weigh", list)

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout

    def output(self, *command: str) -> str:
        if command[-1] != "clean":
            return self.git(*command[1:])
        self.run(*command)
        if self.interrupted:
            raise KeyboardInterrupt
        return ""

    def run(self, *command: str, env: Mapping[str, str] | None = None) -> int:
        tree = Path(command[command.index("-f") + 1]).parent
        assert (tree / "services/pilot").is_dir()
        if self.said:
            (tree / ".env").write_text(self.said)
        if self.log:
            (tree / "reports/logs").mkdir(parents=True, exist_ok=True)
            (tree / "reports/logs/build-prod.log").write_text(self.log)
        self.ran.append(command[command.index("-s") :])
        self.saw = env or self.saw
        return self.code

    def left(self) -> int:
        return len(self.git("worktree", "list").splitlines()) - 1


def test_an_earlier_commit_is_built_weighed_and_removed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Earlier(project, monkeypatch)
    (hook := project / ".git/hooks/post-checkout").parent.mkdir(exist_ok=True)
    write_tool(hook, "exit 1")  # as of a program that is not installed
    (project / ".env").write_text("STACK_CA=/my/ca.crt\n")
    weighed: Any = report.weigh_at("HEAD", ["other", "pilot"], ["prod", "slim"])
    assert weighed == ["ours-01234567/pilot:prod", "ours-01234567/pilot:slim"]
    builds = [("-s", "build", "--", "pilot", "--flavor", flavor) for flavor in ("prod", "slim")]
    assert earlier.ran == [*builds, ("-s", "clean")]
    assert earlier.saw["STACK_CA"] == "/my/ca.crt"  # which is in no commit
    assert earlier.left() == 0


def test_an_interrupt_of_the_clean_up_leaves_no_worktree(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = Earlier(project, monkeypatch)
    earlier.interrupted = True
    assert report.weigh_at("HEAD", ["pilot"], ["prod"])
    assert earlier.left() == 0


def test_an_earlier_commit_with_none_of_the_services(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a clone's first branch takes the samples out: nothing is built, and all is new."""
    earlier = Earlier(project, monkeypatch)
    monkeypatch.setattr(report, "weigh", pytest.fail)  # Docker saves no images without a name
    assert report.weigh_at("HEAD", ["other"], ["prod"]) == []
    assert earlier.ran == []
    assert earlier.left() == 0


@pytest.mark.parametrize("said", ["", "COMPOSE_PROJECT_NAME=ours-01234567\n"])
def test_an_earlier_commit_that_does_not_build(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    """What mends a broken commit must not fail by it."""
    earlier = Earlier(project, monkeypatch)
    earlier.code, earlier.said, earlier.log = 1, said, "why\n"
    assert report.weigh_at("HEAD", ["pilot"], ["prod"]) is None
    assert "warning: HEAD does not build" in capsys.readouterr().out
    assert earlier.ran[1:] == ([("-s", "clean")] if said else [])
    assert (project / "reports/logs/build-prod.log").read_text() == "why\n"
    assert earlier.left() == 0
    with pytest.raises(UserError, match="git knows no commit 'nothing'"):
        report.weigh_at("nothing", ["pilot"], ["prod"])
