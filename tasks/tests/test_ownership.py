"""Where temporary files go, and what counts as left behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from .. import ownership, project
from ..shell import UserError
from .conftest import write_tool

if TYPE_CHECKING:
    from pathlib import Path


def test_temporary_files_go_where_programs_may_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """mmdebstrap fails in a /tmp that is mounted noexec."""
    barred = {str(tmp_path)}

    class Flags:
        def __init__(self, folder: str) -> None:
            self.f_flag = os.ST_NOEXEC if folder in barred else 0

    monkeypatch.setattr(os, "statvfs", Flags)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ownership.folder() as chosen:
        assert tmp_path not in chosen.parents
    assert not chosen.exists()
    barred |= set(ownership.places())
    with pytest.raises(UserError, match="set TMPDIR"), ownership.folder():
        pass


def test_only_what_no_session_owns_any_more_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_docker: Path
) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    us = project.clone_id()
    listed = f"{us}-stack-{gone.pid}_default \n{us}-stack-{os.getpid()}_default \n{us}-echo-run-1 {gone.pid}\n"
    listed += f"{us}-echo-run-2 {os.getpid()}\n{us}-echo-1 \n{us}_default \n"
    write_tool(
        no_docker / "docker",
        f'[ "$2" = rm ] && echo "$*" >>{tmp_path}/removed; [ "$2" = rm ] || [ "$1" != container ] || echo "{listed}"',
    )
    monkeypatch.setattr(ownership, "places", lambda: [str(tmp_path)])
    for pid in (gone.pid, os.getpid()):
        (tmp_path / f"stack-{pid}-abc").mkdir()
    ownership.reap()
    assert (tmp_path / "removed").read_text().split() == [
        *("container", "rm", "--force", "--volumes"),
        *(f"{us}-stack-{gone.pid}_default", f"{us}-echo-run-1"),
    ]
    assert [path.name for path in tmp_path.glob("stack-*")] == [f"stack-{os.getpid()}-abc"]
