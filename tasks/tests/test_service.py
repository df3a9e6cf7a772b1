"""`nox -s new` and `remove`: in a small project of the tests' own, and for real in the slow tests."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from .. import cli, venv
from ..project import LONGEST_NAME, ROOT
from ..scaffold import groups, service
from ..shell import UserError
from ..testing.host import SUITES
from .scaffolding import LOCK, NO_SESSION, PYPROJECT, commit, git, in_git, make, real, small_project, take_away

LINE_LENGTH = 120  # the skeleton's, whatever the project has since


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return small_project(tmp_path / "ours", monkeypatch)


def test_a_pyproject_without_groups_is_no_reason_against_a_name(ours: Path) -> None:
    (ours / "pyproject.toml").write_text("[project]\n")
    git(ours, "rm", "-rq", "services")
    service.check_name("scout")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("../x", "lower-case letters"),
        ("Pilot", "lower-case letters"),
        ("two--dashes", "lower-case letters"),
        ("", "lower-case letters"),
        ("a" * 41, "at most 40 characters"),
        ("class", "class is a keyword of Python"),
        ("json", "would hide Python's own module json"),
        ("test", "a meaning of its own"),
        ("stack", "a meaning of its own"),
        ("tests", "a dependency group of this name"),
        ("template", "a meaning of its own"),
        ("late", "a meaning of its own"),
        ("instance", "a meaning of its own"),  # no image and no commit would have it
        ("null", "a meaning of its own"),  # Compose would read no service at all
        ("true", "a meaning of its own"),
        ("docker", "a meaning of its own"),  # whose address would be DOCKER_HOST
        ("pilot", "services/ has a folder of this name"),
        ("pilot-database", "services/pilot/compose.yaml has one, too"),
        ("pytest", "would hide the package pytest that it uses"),
    ],
)
def test_names_that_a_service_cannot_have(ours: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str) -> None:
    monkeypatch.setitem(SUITES, "late", SUITES["unit"])  # as an optional part's, which registers itself later
    with pytest.raises(UserError, match=told):
        make(name)
    assert git(ours, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["click", "redis", "a-b-c", "x2", "a" * 40])
def test_names_that_a_service_can_have(ours: Path, name: str) -> None:
    """A package that another service uses, here click, is no obstacle."""
    make(name)
    assert (ours / "services" / name / name.replace("-", "_") / "__init__.py").exists()


def test_git_has_a_service_that_is_called_like_a_folder_with_results(ours: Path) -> None:
    (ours / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    make("reports")
    assert "?? services/reports/" in git(ours, "status", "--porcelain")


@pytest.mark.parametrize("kind", service.KINDS)
def test_a_long_name_leaves_the_code_as_the_formatter_wants_it(ours: Path, kind: str) -> None:
    name = "a" * LONGEST_NAME
    make(name, kind=kind)
    lines = [line for path in (ours / "services" / name).rglob("*.py") for line in path.read_text().splitlines()]
    assert [line for line in lines if len(line) > LINE_LENGTH and not line.startswith('"""')] == []


def test_a_service_must_not_hide_what_it_uses_itself(ours: Path) -> None:
    (ours / "poetry.lock").write_text(LOCK.replace("second", "click"))
    commit(ours)
    with pytest.raises(UserError, match="its own click would hide the package click that it uses"):
        make("click")
    assert git(ours, "status", "--porcelain") == ""


def test_a_new_service_has_all_its_parts(ours: Path) -> None:
    make("parcel-post")
    folder = ours / "services/parcel-post"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *("compose.yaml", "parcel_post/__init__.py", "parcel_post/py.typed"),
        *("tests/__init__.py", "tests/test_parcel_post.py", "stack/test_parcel_post.py"),
    }
    compose = (folder / "compose.yaml").read_text()
    assert "        SERVICE: parcel-post\n        PACKAGE: parcel_post\n" in compose
    assert "${PARCEL_POST_HOST:-127.0.0.1}:${PARCEL_POST_PORT:-5000}:8000" in compose
    assert 'url_of("parcel-post")' in (folder / "stack/test_parcel_post.py").read_text()
    for path in folder.rglob("*.py"):
        compile(path.read_text(), path, "exec")
    assert "  - ../services/parcel-post/compose.yaml\n" in (ours / "docker/compose.yaml").read_text()
    made = tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"]["parcel-post"]
    assert made == ["flask>=3.1,<4", *service.SERVERS["wsgi"]]


@pytest.mark.parametrize(
    ("kind", "needs", "lines"),
    [
        ("fastapi", ["fastapi", "uvicorn", "httptools"], ["INTERFACE: asgi", "${PARCEL_POST_PORT:-5000}:8000"]),
        ("worker", [], ["INTERFACE: command", "APPLICATION: python3 -m parcel_post", "test: [CMD, python3, -m"]),
    ],
)
def test_a_new_service_of_another_kind(ours: Path, kind: str, needs: list[str], lines: list[str]) -> None:
    make("parcel-post", kind=kind)
    folder = ours / "services/parcel-post"
    compose = (folder / "compose.yaml").read_text()
    assert [line for line in lines if line not in compose] == []
    assert ("ports:" in compose) == (kind != "worker")
    for path in folder.rglob("*.py"):
        compile(path.read_text(), path, "exec")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files - {"parcel_post/__main__.py"} == {
        *("compose.yaml", "parcel_post/__init__.py", "parcel_post/py.typed"),
        *("tests/__init__.py", "tests/test_parcel_post.py", "stack/test_parcel_post.py"),
    }
    made = tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"]["parcel-post"]
    assert [line.partition(">")[0] for line in made] == needs
    take_away("parcel-post")
    assert git(ours, "status", "--porcelain", "--ignored") == ""


def test_a_copy_of_a_worker_is_tested_for_what_it_says(ours: Path) -> None:
    make("crew", kind="worker")
    make("deck", model="crew")
    folder = ours / "services/deck"
    assert '"Hello from crew"' in (folder / "deck/__init__.py").read_text()
    test = (folder / "stack/test_deck.py").read_text()
    assert '"Hello from crew" in stack.compose("logs", SERVICE)' in test
    assert 'SERVICE = "deck"' in test


def test_every_kind_can_be_asked_for() -> None:
    assert tuple(service.KINDS) == cli.KINDS


def test_each_service_has_a_port_of_its_own(ours: Path) -> None:
    make("one")
    make("two", model="one")
    assert "${TWO_PORT:-5001}" in (ours / "services/two/compose.yaml").read_text()


@pytest.mark.parametrize("words", [("flask",), ("--group", "pilto", "flask"), ("--group=pilto", "flask")])
def test_a_package_is_added_to_a_group_that_is_there(
    ours: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(venv, "poetry", lambda *_: pytest.fail("Poetry would make the group"))
    with pytest.raises(UserError, match="no image would get it: `--group NAME` must name one of "):
        service.lock(NO_SESSION, "add", "--lock", *words)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(venv, "poetry", lambda _, *words: asked.append(words))
    service.lock(NO_SESSION, "add", "--lock", "-G", "tests", "flask")
    (ours / "poetry.lock").write_text("=======")
    with pytest.raises(UserError, match=r"poetry\.lock does not parse"):
        service.lock(NO_SESSION)
    assert len(asked) == 1


def test_a_group_that_poetry_removes_comes_back(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Poetry removes a group with its last package, as a worker may have none; a service needs its group."""
    asked = []

    def poetry(_: object, *words: str) -> None:
        asked.append(words)
        if "remove" in words:
            groups.main(ours / "pyproject.toml", "remove", "pilot")
            groups.main(ours / "pyproject.toml", "remove", "tests")

    monkeypatch.setattr(venv, "poetry", poetry)
    service.lock(NO_SESSION, "lock")
    service.lock(NO_SESSION, "remove", "--lock", "--group", "pilot", "flask")
    assert asked == [("lock",), ("remove", "--lock", "--group", "pilot", "flask"), ("lock",)]
    assert tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"] == {"pilot": []}
    (ours / "pyproject.toml").write_text(PYPROJECT.replace("pilot.dependencies.ink", "# ").replace('"flask"', '"ink"'))
    with pytest.raises(UserError, match="pilot uses libs/ink without its path"):
        service.lock(NO_SESSION, "lock")
    assert len(asked) == 3


@pytest.mark.slow
def test_new_like_and_remove_for_real(clone: Path) -> None:
    """What `new` makes passes its tests, builds, serves and is gone again to the last byte."""
    in_git(clone)
    real(clone, "new", "--", "parcel-post")
    real(clone, "new", "--", "ping", "--like", "parcel-post")
    try:
        for name in ("parcel-post", "ping"):
            assert "2 passed" in real(clone, "test", "--", name)
        assert "built parcel-post" in real(clone, "build", "--", "parcel-post")
        assert "parcel-post  http://127.0.0.1:" in real(clone, "dev", "--", "parcel-post", "--detach")
    finally:
        real(clone, "clean")
    real(clone, "remove", "--", "ping")
    real(clone, "remove", "--", "parcel-post")
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.slow
def test_without_an_index_nothing_is_half_done(clone: Path, tmp_path: Path) -> None:
    in_git(clone)
    real(clone, "lock", "--", "--version")
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple/",
        "POETRY_CACHE_DIR": str(tmp_path),
        "POETRY_REQUESTS_MAX_RETRIES": "0",
    }
    (clone / ".nox/lock").rename(clone / ".nox/new")  # Poetry is there already
    assert "Traceback" not in real(clone, "new", "--", "lonely", code=1, **nowhere)
    assert git(clone, "status", "--porcelain") == ""
