"""What is left behind, by which session, and what is never touched."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from .. import ownership
from ..ownership import host, is_stale
from ..project import clone_id
from ..shell import UserError
from .conftest import calls, fake_docker
from .scaffolding import commit, git


@pytest.fixture
def ended() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_session_is_known_by_its_host_and_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ownership.SESSION, raising=False)
    assert ownership.session_id() == f"{host()}-{os.getpid()}"
    monkeypatch.setenv(ownership.SESSION, "of-a-parent")  # pytest, inside `nox -s test`
    assert ownership.session_id() == "of-a-parent"


def test_only_an_ended_session_of_this_host_is_stale(ended: int, monkeypatch: pytest.MonkeyPatch) -> None:
    boot, _, namespace = host().partition("-")
    assert is_stale(f"{host()}-{ended}")
    assert not is_stale(f"{host()}-{os.getpid()}")
    assert not is_stale(f"{host()}-1")  # maybe another user's
    assert not is_stale(f"{boot}-{namespace}1-{ended}")  # another container
    assert not is_stale(f"{boot[:-1]}x-{namespace}-{ended}")  # another machine, or the time before a restart
    for other in ("", "-", str(ended), f"{host()}-", f"{host()}-x"):
        assert not is_stale(other)

    def denied(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", denied)
    assert not is_stale(f"{host()}-{ended}")


def test_without_proc_a_host_has_an_id_all_the_same(monkeypatch: pytest.MonkeyPatch, ended: int) -> None:
    """macOS."""

    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("pathlib.Path.read_text", none)
    assert host() == "0-0"
    assert is_stale(f"0-0-{ended}")


def test_temporary_files_go_where_programs_may_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """mmdebstrap fails in a /tmp that is mounted noexec."""
    barred = {str(tmp_path)}

    class Flags:
        def __init__(self, folder: str) -> None:
            self.f_flag = os.ST_NOEXEC if folder in barred else 0

    monkeypatch.setattr(os, "statvfs", Flags)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ownership.temporary_folder() as chosen:
        assert tmp_path not in chosen.parents
        assert ownership.session_id() in chosen.name
    assert not chosen.exists()
    barred.clear()
    with ownership.temporary_folder() as chosen:
        assert chosen.parent == tmp_path
    barred |= set(ownership.temporary_places())
    with pytest.raises(UserError, match="set TMPDIR"), ownership.temporary_folder():
        pass


def test_on_macos_any_folder_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Python has no names there for what makes a folder unusable."""
    monkeypatch.delattr(os, "ST_NOEXEC")
    monkeypatch.delattr(os, "ST_NODEV")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert str(tmp_path) in ownership.temporary_places()


def test_only_what_no_session_owns_any_more_is_removed(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    no_docker: Path,
    ended: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    us, gone, here = clone_id(), f"{host()}-{ended}", f"{host()}-{os.getpid()}"
    containers = [
        f"{us}-pilot-run-1 {gone}",
        f"{us}-pilot-run-2 {here}",
        f"{us}-stack-{gone}-gw0-pilot-1 {gone}",
        f"{us}-pilot-1 ",  # of `dev -- --detach`
        f"{us}-pilot-run-3 another-host-{ended}",
        f"{us}-pilot-run-4 {ended}",  # of a session of earlier tooling, which may have had another host
    ]
    networks = [
        f"{us}-stack-{gone}_default ",
        f"{us}-stack-{gone}-gw1_default ",
        f"{us}-stack-{here}_default ",
        f"{us}_default ",
    ]
    fake_docker(
        no_docker,
        {
            "container ls": "".join(f"echo '{line}';" for line in containers),
            "network ls": "".join(f"echo '{line}';" for line in networks),
            "volume ls": "",
            "container rm": "exit 1",  # another session is removing it, too
            "network rm": "",
        },
    )
    monkeypatch.setattr(ownership, "temporary_places", lambda: [str(tmp_path)])
    for session in (gone, here):
        (tmp_path / f"{ownership.TEMPORARY}{session}-abc").mkdir()
    git(project, "init", "-q")
    commit(project)
    git(project, "worktree", "add", "-q", "--detach", f"{tmp_path}/{ownership.TEMPORARY}{gone}-abc/tree")
    assert ownership.remove_stale()
    assert git(project, "worktree", "list").count("\n") == 1
    assert [call for call in calls(no_docker) if " rm " in call] == [
        f"container rm --force --volumes {us}-pilot-run-1 {us}-stack-{gone}-gw0-pilot-1",
        f"network rm {us}-stack-{gone}_default {us}-stack-{gone}-gw1_default",
    ]
    listed = {call.split(" --format ")[0] for call in calls(no_docker) if " ls " in call}
    assert listed == {
        f"container ls --all --filter label=stack.clone={us}",
        f"network ls --filter name={us}",
        f"volume ls --filter name={us}",
    }
    assert [path.name for path in tmp_path.glob(f"{ownership.TEMPORARY}*")] == [f"{ownership.TEMPORARY}{here}-abc"]
    assert "removing what a killed session has left" in capsys.readouterr().out
    fake_docker(no_docker, {f"{kind} ls": "" for kind in ownership.KINDS})
    assert not ownership.remove_stale()


@pytest.mark.usefixtures("project")
def test_a_session_removes_its_own_containers_and_no_others(no_docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = no_docker / "gone"
    fake_docker(no_docker, {"ps": f"[ -e {gone} ] || {{ echo 12; echo 34; }}", "rm": f"touch {gone}"})
    ownership.remove_own()
    mine = f"--filter=label=stack.clone={clone_id()} --filter=label=stack.session={ownership.session_id()}"
    assert calls(no_docker) == [f"ps --all --quiet {mine}", "rm --force --volumes 12 34", f"ps --all --quiet {mine}"]
    gone.unlink()
    # The interrupt that ended its command is told, not this; while it is there, its network cannot be removed.
    progress = "echo removal of container 12 is already in progress; exit 1"
    fake_docker(
        no_docker,
        {"ps": f"[ -e {gone}2 ] || echo 12", "rm": f"[ ! -e {gone} ] || touch {gone}2; touch {gone}; {progress}"},
    )
    ownership.remove_own()
    assert Path(f"{gone}2").exists()
    monkeypatch.setattr(ownership, "REMOVALS", 2)
    fake_docker(no_docker, {"ps": "echo 12", "rm": "exit 1"})  # one that stays for ever
    ownership.remove_own()
    fake_docker(no_docker, {"ps": ""})
    ownership.remove_own()


@pytest.mark.usefixtures("project")
def test_a_container_that_is_being_created_at_an_interrupt_is_removed(
    no_docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine completes what a command has asked for that has been ended meanwhile."""
    monkeypatch.setattr(ownership, "INTERRUPTED", [2])
    made = no_docker / "made"
    fake_docker(no_docker, {"ps": f"[ ! -e {made} ] || echo 12", "rm": f"rm {made}"})
    with subprocess.Popen(["sh", "-c", f"sleep 0.1; touch {made}"]):
        ownership.remove_own()
    assert "rm --force --volumes 12" in calls(no_docker)


@pytest.mark.usefixtures("project")
def test_clean_removes_images_that_are_this_clones_and_no_others(no_docker: Path) -> None:
    us = clone_id()
    here = us.removeprefix("ours")
    images = [f"id1 {us}/pilot:prod", f"id2 {us}/other:prod", f"id3 before{here}/pilot:prod", "id4 <none>:<none>"]
    images += [f"id7 {us}-pilot-proxy:latest"]  # Compose has built it
    images += ["id3 before/pilot:prod", "id8 before/other:prod", "id1 ours/pilot:prod", "id9 ours/other:prod"]
    images += [f"id5 {us}/dune:prod", "id5 ours/dune:prod", "id5 ours-89abcdef/dune:prod"]  # another clone's, too
    fake_docker(
        no_docker,
        {
            "image ls --format": "; ".join(f"echo '{image}'" for image in images),
            "image rm": "",
            f"volume ls --quiet --filter label=stack.clone={us}": "echo data",
            f"volume ls --quiet --filter name={here}": "echo before-data; echo data",
            "volume ls": "",
            "container ls": "",
            "network ls": "",
            "volume rm": "",
        },
    )
    ownership.clean()
    assert [call for call in calls(no_docker) if " rm " in call] == [
        "volume rm --force before-data data",
        f"image rm --force before{here}/pilot:prod before/pilot:prod {us}-pilot-proxy:latest"
        f" {us}/dune:prod {us}/other:prod {us}/pilot:prod ours/pilot:prod",
    ]
