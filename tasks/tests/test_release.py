"""The sessions `publish` and `deploy`, what they leave, and the page of a release."""

from __future__ import annotations

import os
import subprocess
from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import pytest

from ..release import push
from ..shell import UserError
from .conftest import write_tool
from .test_workflow import jobs


def test_built_images_do_not_stay_when_publishing_fails(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        (project / "reports/release/pilot").mkdir(parents=True)
        raise UserError("the registry is away")

    monkeypatch.setattr(push, "ready", lambda: None)
    monkeypatch.setattr(push, "release", fail)
    session = Namespace(posargs=["--registry", "here.example/team"])
    with pytest.raises(UserError, match="away"):
        cast("Any", push.publish).func.__wrapped__(session)
    assert not (project / "reports/release").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"commit": "x"}', '{"commit": "x", "images": [{"service": "a"}]}', '{"images": "a"}']
)
def test_a_release_json_that_does_not_say_what_was_published(tmp_path: Path, text: str) -> None:
    (tmp_path / "release.json").write_text(text)
    with pytest.raises(
        UserError, match=r"release\.json does not say what was published \(.*\): `nox -s publish` writes"
    ):
        push.read(tmp_path / "release.json")


@pytest.mark.parametrize("left", ["nothing", "page", "page, upload"])
def test_the_release_page_is_made_or_completed(tmp_path: Path, left: str) -> None:
    """GitHub's client is pretended: it creates only what is not there, and replaces a file only when told to."""
    for made_before in left.split(", "):
        (tmp_path / made_before).touch()
    write_tool(
        tmp_path / "gh",
        """case "$2" in
        view) [ -e page ] ;;
        create) [ ! -e page ] && touch page ;;
        edit) [ -e page ] && touch edited ;;
        upload) [ ! -e upload ] || [ "$5" = --clobber ] && touch upload ;;
        *) exit 99 ;;
        esac""",
    )
    (step,) = (found["run"] for found in jobs("release")["page"]["steps"] if "run" in found)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "TAG": "v1.2.3"}
    subprocess.run(["bash", "-e", "-c", step], cwd=tmp_path, env=environment, check=True)
    assert {"page", "edited", "upload"} <= {path.name for path in tmp_path.iterdir()}
