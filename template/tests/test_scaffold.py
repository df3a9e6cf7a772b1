"""new, remove and rename, by running what they make."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from .conftest import answer, url_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Clone


@pytest.fixture(scope="module")
def yard(make_clone: Callable[[str], Clone]) -> Clone:
    return make_clone("yard")


def test_new_then_remove_leaves_no_trace(yard: Clone) -> None:
    yard.nox("-s", "new", "--", "parcel-post")
    assert "2 passed" in yard.nox("-s", "test", "--", "parcel-post")
    assert "built parcel-post, parcel-post-proof" in yard.nox("-s", "build", "--", "parcel-post")
    url = url_of(yard.nox("-s", "dev", "--", "parcel-post", "--detach"), "parcel-post")
    assert answer(url) == "Hello from parcel_post\n"
    yard.nox("-s", "down")
    yard.nox("-s", "remove", "--", "parcel-post")
    assert yard.git("status", "--porcelain") == ""


def test_new_like_another(yard: Clone) -> None:
    yard.nox("-s", "new", "--", "ping", "--like", "echo")
    assert "passed" in yard.nox("-s", "test", "--", "ping")
    assert "echo" not in (yard.root / "services/ping/compose.yaml").read_text()
    yard.nox("-s", "remove", "--", "ping")
    assert yard.git("status", "--porcelain") == ""


def test_flasks_own_tutorial_is_adopted_as_it_is(yard: Clone, tmp_path: Path) -> None:
    """The example application in Flask's source distribution, written by Flask's makers: its own tests pass here."""
    fetch = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary=:all:",
        "-d",
        str(tmp_path),
        "flask==3.1.3",
    ]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"Flask's source distribution is not to be had: {done.stderr.splitlines()[-1]}")
    with tarfile.open(next(tmp_path.glob("flask-*.tar.gz"))) as tar:
        tar.extractall(tmp_path, filter="data")
    tutorial = next(tmp_path.glob("flask-*/examples/tutorial"))
    yard.nox("-s", "new", "--", "blog", "--from", str(tutorial))
    for path in (tutorial / "flaskr").rglob("*.*"):
        assert (
            yard.root / "services/blog/flaskr" / path.relative_to(tutorial / "flaskr")
        ).read_bytes() == path.read_bytes()
    assert "24 passed" in yard.nox("-s", "test", "--", "blog")
    assert "built blog, blog-proof" in yard.nox("-s", "build", "--", "blog")
    yard.nox("-s", "remove", "--", "blog")
    assert yard.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("new", "--", "../x"), "lower-case letters"),
        (("new", "--", "Echo"), "lower-case letters"),
        (("new", "--", "a" * 64), "at most 40 characters"),
        (("new", "--", "json"), "a word of Python's"),
        (("new", "--", "class"), "a word of Python's"),
        (("new", "--", "test"), "a meaning of its own"),
        (("new", "--", "flask"), "a package that the services use"),
        (("new", "--", "echo"), "taken by a folder"),
        (("new", "--", "x", "--like", "ehco"), "there is no service 'ehco'"),
        (("new", "--", "x", "--from", "/no/such/folder"), "there is no folder"),
        (("new", "--", "x", "--from", "docs-without-an-app"), "no folder"),
        (("remove", "--", "ehco"), "there is no service 'ehco'"),
        (("rename", "--", "No Name"), "lower-case letters"),
    ],
)
def test_bad_input_changes_nothing(yard: Clone, args: tuple[str, ...], told: str) -> None:
    text = yard.nox("-s", *args, code=1)
    assert told in text
    assert "Traceback" not in text
    assert yard.git("status", "--porcelain") == ""


def test_no_index_and_nothing_is_half_done(yard: Clone, tmp_path: Path) -> None:
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple/",
        "POETRY_CACHE_DIR": str(tmp_path),
        "POETRY_REQUESTS_MAX_RETRIES": "0",
    }
    text = yard.nox("-s", "new", "--", "lonely", code=1, **nowhere)
    assert "`poetry lock` failed, and nothing was changed" in text
    assert yard.git("status", "--porcelain") == ""


def test_a_dirty_tree_is_not_renamed_and_a_changed_service_not_removed(yard: Clone) -> None:
    views = yard.root / "services/echo/echo/views.py"
    views.write_text(views.read_text() + "# mine\n")
    assert "changes that git does not have" in yard.nox("-s", "rename", "--", "ours", code=1)
    assert "changes that git does not have" in yard.nox("-s", "remove", "--", "echo", code=1)
    assert yard.git("status", "--porcelain") == " M services/echo/echo/views.py\n"
    yard.git("checkout", "-q", ".")


def test_a_renamed_clone_passes_its_tests(make_clone: Callable[[str], Clone]) -> None:
    """The whole way of a newcomer: rename, commit, new, test, build, remove."""
    ours = make_clone("ours")
    ours.nox("-s", "rename", "--", "harbour")
    assert not (ours.root / "template").exists()
    assert (ours.root / "README.md").read_text().startswith("# harbour\n")
    ours.commit("ours")
    ours.nox("-s", "new", "--", "pilot")
    text = ours.nox("-s", "test")
    assert "failed" not in text
    for part in ("echo", "pilot", "unit", "stack"):
        assert (ours.root / f"reports/junit-{part}.xml").exists()
    ours.nox("-s", "build")
    assert ours.docker("image", "ls", "--quiet", "harbour/pilot:prod").strip()
    ours.nox("-s", "remove", "--", "pilot")
    assert ours.git("status", "--porcelain") == ""
    assert not (ours.root / "services/pilot").exists()
