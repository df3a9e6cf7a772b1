"""The sessions `publish` and `deploy`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any, cast

import pytest

from .. import release
from ..release import push
from ..shell import UserError


def test_built_images_do_not_stay_when_publishing_fails(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        (project / "reports/release/pilot").mkdir(parents=True)
        raise UserError("the registry is away")

    monkeypatch.setattr(release, "ready", lambda: None)
    monkeypatch.setattr(push, "publish", fail)
    session = Namespace(posargs=["--registry", "here.example/team"])
    with pytest.raises(UserError, match="away"):
        cast("Any", release.publish).func.__wrapped__(session)
    assert not (project / "reports/release").exists()
