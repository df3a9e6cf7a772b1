"""What adopted projects and their tests need is resolved: with the others, or in a lock of their own."""

from __future__ import annotations

import tomllib
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from .. import project, venv
from ..scaffold import requirements, resolve, service
from ..shell import CommandFailed, UserError, ask
from .conftest import fake_docker
from .scaffolding import APP, NO_SESSION, commit, git
from .test_adopt import adopting_project, take

Write = Callable[[Mapping[str, str]], Path]


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return adopting_project(tmp_path / "ours", monkeypatch)


CONFLICT = """Resolving dependencies...

Because no versions of y match >2 and y (2) depends on z, y (>=2) requires z.
So, because ours depends on x (>=2)
 and theirs on x (1), version solving failed.

Try something else.
"""


def poetry(folder: Path, words: str = "") -> Callable[..., None]:
    """A Poetry that locks x for one service, or cannot, and says so in these words."""

    def run(_: object, *arguments: str, **__: bool) -> None:
        if arguments != ("lock",):
            assert arguments == ("--directory=services/theirs", "lock")
            if words:
                raise CommandFailed(["poetry", *arguments], words)
            (folder / "poetry.lock").write_text('[[package]]\nname = "x"\nversion = "1"\ngroups = ["main"]\n')

    return run


@pytest.mark.parametrize("own", [False, True])
def test_a_lock_of_its_own(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own: bool
) -> None:
    (ours / "poetry.lock").write_text("".join(f'[[package]]\nname = "{name}"\nversion = "2"\n' for name in "xyz"))
    commit(ours)
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs"))
    take(write({"app.py": APP, "requirements.txt": 'x==1; python_version > "3"\n'}), own=own)
    said = "--own-lock asks for it" if own else "the others have x 2"
    assert f"a poetry.lock of its own: {said}\n" in capsys.readouterr().out
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["project"]["dependencies"] == ['x==1; python_version > "3"', *service.SERVERS["wsgi"]]
    assert made["tool"] == {"poetry": {"package-mode": False}, "pytest": {"ini_options": {}}}
    assert made["project"]["name"] != "theirs"  # a plugin of theirs may depend on it
    assert git(ours, "diff", "--name-only").split() == ["docker/compose.yaml"]
    assert project.service_names() == ["pilot", "theirs"]
    with service.all_or_nothing("again"):
        service.new(NO_SESSION, Namespace(name="again", like="theirs"))
    assert project.has_own_lock("again")
    for name in ("theirs", "again"):
        with service.all_or_nothing(name):
            service.remove(NO_SESSION, name)
    assert git(ours, "status", "--porcelain") == ""


@pytest.mark.parametrize("name", ["uv.lock", "poetry.lock", "pdm.lock"])
def test_the_versions_of_its_own_lock(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path, seen = ours / "services/theirs/poetry.lock", []

    def run(_: object, *arguments: str, **__: bool) -> None:
        if arguments != ("lock",):
            assert arguments == ("--directory=services/theirs", "lock")
            made = tomllib.loads(path.read_text())
            assert made["metadata"]["lock-version"] == "2.1"
            seen.append({(each["name"], each["version"]) for each in made["package"]})
            path.write_text(path.read_text().replace('version = "2"', 'version = "3"'))

    monkeypatch.setattr(venv, "poetry", run)
    packages = "[[package]]\nname = 'a'\nversion = '1'\n[[package]]\nname = 'B_c'\nversion = '2'\n"
    packages += "[[package]]\nname = 'torch'\nversion = '2.3+cpu'\n"
    take(write({"app.py": APP, "requirements.txt": "a>=1\n", name: f"{packages}[[package]]\nname = 'own'\n"}))
    told = capsys.readouterr().out
    assert "and a poetry.lock of its own: it has the versions of the project's own\n" in told
    assert "warning: other versions than in the project's own lock: b-c 3\n" in told
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert made["project"]["dependencies"][0] == "a>=1"
    # It has no tests; the shared test tools, which its image would have otherwise, may not go with its lock.
    assert made["dependency-groups"] == {"tests": ["hypothesis", "pytest"]}
    assert seen == [{("a", "1"), ("b-c", "2")}, {("a", "1"), ("b-c", "3")}]


def test_the_versions_that_constraints_name(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = ours / "services/theirs/poetry.lock", []

    def run(*_: object, **__: bool) -> None:
        seen.append({(each["name"], each["version"]) for each in tomllib.loads(path.read_text())["package"]})

    monkeypatch.setattr(venv, "poetry", run)
    take(write({"app.py": APP, "requirements.txt": "-c limits.txt\na>=1\n", "limits.txt": "a<2\nB_c==2\n"}))
    made = tomllib.loads((ours / "services/theirs/pyproject.toml").read_text())
    assert (made["project"]["dependencies"][0], seen[0]) == ("a<2,>=1", {("b-c", "2")})


def test_test_tools_never_change_a_version_of_production(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, seen = ours / "services/theirs", []

    def run(*_: object, **__: bool) -> None:
        groups = tomllib.loads((folder / "pyproject.toml").read_text()).get("dependency-groups", {})
        seen.append(groups.get("tests", []))
        version = "1" if "moto==4" in seen[-1] else "2"
        (folder / "poetry.lock").write_text(f'[[package]]\nname = "werkzeug"\nversion = "{version}"\n')

    monkeypatch.setattr(venv, "poetry", run)
    files = {"app.py": APP, "test_app.py": "def test(): ...\n", "requirements.txt": "flask\n"}
    take(write(files | {"requirements-dev.txt": "pytest==8\nmoto==4\n"}))
    choices = [["hypothesis", "pytest==8", "moto==4"], ["pytest==8", "pytest-cov", "moto==4"]]
    assert seen == [[], *choices, ["moto", "pytest", "pytest-cov"]]
    told = "what its tests need is tried in other versions, because production would get other versions\n"
    assert told in capsys.readouterr().out
    assert 'version = "2"' in (folder / "poetry.lock").read_text()


def test_what_else_fails_leads_to_no_lock(ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "All attempts to connect to h.invalid failed."
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs", words))
    with pytest.raises(UserError, match=r"All attempts to connect to h.invalid failed"):
        take(write({"app.py": APP, "requirements.txt": "x==1\n"}))
    assert git(ours, "status", "--porcelain") == ""


def test_why_what_follows_from_one_cause_alone_does_not_go() -> None:
    steps = "Because no versions of x match >2.1\n and x (2.1) requires Python >=4, x is forbidden.\n"
    told = resolve.conclusion(f"Because a.\n{steps}So, because ours depends on x (>=2), version solving failed")
    reason = "Because no versions of x match >2.1 and x (2.1) requires Python >=4, x is forbidden"
    assert told == f"because ours depends on x (>=2), version solving failed: {reason}"

    assert resolve.conclusion("Because x, version solving failed") == "Because x, version solving failed"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "Because ours depends on x (99) which doesn't match any versions, version solving failed.",
            r"Because ours depends on x \(99\) which doesn't match any versions, version solving failed",
        ),
        ("Cannot resolve h.invalid\n\nmore", "the requirements cannot be resolved: Cannot resolve h.invalid"),
        ("Resolving dependencies...\n\nNo space left\n", "the requirements cannot be resolved: No space left"),
    ],
)
def test_what_cannot_be_locked(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, words: str, told: str
) -> None:
    monkeypatch.setattr(venv, "poetry", poetry(ours / "services/theirs", words))
    with pytest.raises(UserError, match=told):
        take(write({"app.py": APP, "requirements.txt": "x==99\ny @ https://h.invalid/y.zip\n"}))
    assert git(ours, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("file", "fits"),
    [
        ("x-1-py3-none-any.whl", True),
        ("x-1-py2.py3-none-any.whl", True),
        ("x-1-cp313-cp313-manylinux_2_17_x86_64.whl", True),
        ("x-1-cp37-abi3-manylinux_2_17_x86_64.whl", True),
        ("x-1-cp312-cp312-manylinux_2_17_x86_64.whl", False),
        ("x-1-cp314-abi3-manylinux_2_17_x86_64.whl", False),
        ("x-1-cp313-cp313-macosx_11_0_arm64.whl", False),
        ("x-1.tar.gz", False),
    ],
)
def test_wheels_for_the_images(monkeypatch: pytest.MonkeyPatch, file: str, fits: bool) -> None:
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    assert resolve.fits(file) is fits


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ("x (2.0)\nAvailable versions: 2.0, 1.1, 1.0\n  INSTALLED: 2\n", " (1.1 to 2.0 have one)"),
        ("x (1.0)\nAvailable versions: 1.0\n", " (no later version has one)"),
    ],
)
def test_which_versions_have_a_wheel(monkeypatch: pytest.MonkeyPatch, answer: str, told: str) -> None:
    monkeypatch.setattr(venv, "python", lambda _: "python")
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    monkeypatch.setattr(resolve, "ask", lambda *_, **__: ask("printf", "%s", answer))
    assert resolve.wheels(NO_SESSION, "x", "1.0") == told


def test_no_version_is_named_where_the_index_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "python", lambda _: "false")
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    assert resolve.wheels(NO_SESSION, "x", "1.0") == ""


def test_a_package_without_a_wheel_is_told(
    ours: Path, write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    lock = [
        f'[[package]]\nname = "{name}"\nversion = "1"\ngroups = ["{group}"]\nfiles = [{{file = "{file}"}}]\n{more}'
        for name, group, file, more in (
            ("a", "theirs", "a-1.tar.gz", ""),
            ("b", "theirs", "b-1-py3-none-any.whl", ""),
            ("c", "pilot", "c-1.zip", ""),
            ("d", "theirs", "d-1.zip", "markers = \"sys_platform == 'win32'\"\n"),
            ("psycopg2", "theirs", "psycopg2-2.9.tar.gz", ""),
            ("indirect", "theirs", "indirect-1.tar.gz", ""),
            ("e", "theirs", "e-1.tar.gz", ""),
        )
    ]
    (ours / "poetry.lock").write_text("".join(lock))
    lines = 'psycopg2\ne>=1; python_version >= "3" and sys_platform == "linux"\n'
    monkeypatch.setattr(resolve, "wheels", lambda *_: " (1.1 to 2.0 have one)")
    take(write({"app.py": APP, "requirements.txt": f"A==1\n{lines}"}))
    lacking = ", ".join(f"{package} 1 (1.1 to 2.0 have one)" for package in ("a", "indirect", "e"))
    told = f"warning: no wheel for Python 3.13: {lacking}; see docs"
    assert told in capsys.readouterr().out
    compose = (ours / "services/theirs/compose.yaml").read_text()
    assert "        BUILD_PACKAGES: gcc libc6-dev python3-dev libpq-dev\n" in compose


def test_a_version_of_its_own_lock_without_a_wheel_is_not_kept(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, seen = ours / "services/theirs/poetry.lock", []

    def run(*_: object, **__: bool) -> None:
        kept = {each["name"]: each["version"] for each in tomllib.loads(path.read_text())["package"]}
        seen.append(kept)
        files = {"a": "a-1.zip", "b": "b-1-py3-none-any.whl", "c": f"c-1-cp{312 if 'c' in kept else 313}-none-any.whl"}
        lines = [f'[[package]]\nname = "{name}"\nversion = "{kept.get(name, 9)}"\n' for name in files]
        groups = [f'groups = ["main"]\nfiles = [{{file = "{file}"}}]\n' for file in files.values()]
        path.write_text("".join(map("".join, zip(lines, groups, strict=True))))

    monkeypatch.setattr(venv, "poetry", run)
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    monkeypatch.setattr(resolve, "wheels", lambda *_: "")
    lock = "".join(f'[[package]]\nname = "{name}"\nversion = "1"\n' for name in "abc")
    take(write({"app.py": APP, "requirements.txt": "a==1\nb\n", "uv.lock": lock}))
    assert seen[:2] == [{"a": "1", "b": "1", "c": "1"}, {"b": "1"}]
    told = capsys.readouterr().out
    assert "warning: other versions than in the project's own lock: a 9, c 9\n" in told
    assert "no wheel for Python 3.13: a 9;" in told


def test_a_version_that_holds_another_at_one_without_a_wheel_is_not_kept(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an older Pydantic holds pydantic-core."""
    path, seen = ours / "services/theirs/poetry.lock", []

    def run(*_: object, **__: bool) -> None:
        kept = {each["name"]: each["version"] for each in tomllib.loads(path.read_text())["package"]}
        seen.append(kept)
        file = "core-1.tar.gz" if "beside" in kept else "core-2-py3-none-any.whl"
        lock = f'[[package]]\nname = "core"\nversion = "{1 + ("beside" not in kept)}"\ngroups = ["main"]\n'
        lock += f'files = [{{file = "{file}"}}]\n[[package]]\nname = "holder"\nversion = "1"\n'
        path.write_text(f'{lock}[package.dependencies]\ncore = "1"\nbeside = ">=1"\n')

    monkeypatch.setattr(venv, "poetry", run)
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    names = ("core", "holder", "beside", "other")
    packages = "".join(f"[[package]]\nname = '{name}'\nversion = '1'\n" for name in names)
    take(write({"app.py": APP, "requirements.txt": "holder\n", "uv.lock": packages}))
    assert [sorted(kept) for kept in seen[:4]] == [
        ["beside", "core", "holder", "other"],
        ["beside", "holder", "other"],
        ["beside", "other"],
        ["other"],
    ]


def test_a_requirement_that_needs_a_newer_python_than_this_machine_has(
    ours: Path, write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: object, *arguments: str, **__: bool) -> None:
        own = ours / "services/theirs/pyproject.toml"
        if arguments != ("lock",) and 'python_version == \\"3.13\\"' not in own.read_text():
            raise CommandFailed(["poetry", *arguments], CONFLICT.replace("theirs on", "theirs requires Python >=3.12;"))

    monkeypatch.setattr(venv, "poetry", run)
    monkeypatch.setattr(resolve, "image_python", lambda: "3.13")
    take(write({"app.py": APP, "requirements.txt": 'x==1; sys_platform == "linux"\ny[z]\n'}))
    assert "locked for Python 3.13 alone, because the requirements cannot" in capsys.readouterr().out
    group = tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"]["theirs"]
    assert group[:2] == ['x==1 ; python_version == "3.13"', 'y[z] ; python_version == "3.13"']


def test_pins_give_way_to_newer_versions_of_the_same_major(ours: Path, write: Write) -> None:
    lines = "a==2.0.23\nb[x]==0.9rc1\nc>=1,<3\nd==1.*\ne~=0.25.1\nf>=0.29.0,<0.30.0\ng<=0.5\n"  # f is Poetry's ^0.29
    take(write({"app.py": APP, "requirements.txt": lines}), unpin=True)
    group = tomllib.loads((ours / "pyproject.toml").read_text())["dependency-groups"]["theirs"]
    assert group[:-1] == [
        "a<3,>=2.0.23",
        "b[x]<1,>=0.9rc1",
        "c<3,>=1",
        "d==1.*",
        "e<1,>=0.25.1",
        "f<1,>=0.29.0",
        "g<=0.5",
    ]


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize(
    "base",
    [
        *("python:3.13-slim", "python:3.13.5@sha256:12", "registry.example:5000/library/python:3.13-alpine"),
        *("registry.example:5000/python-base:stable", "python@sha256:12"),  # the image is asked
    ],
)
def test_the_version_of_python_in_the_images(
    monkeypatch: pytest.MonkeyPatch, no_docker: Path, base: str, chosen: bool
) -> None:
    fake_docker(no_docker, {f"run --rm {base} python3 -V": "echo Python 3.13.0rc1"})
    monkeypatch.setattr(requirements, "chosen_by_user", lambda: {"STACK_BASE": base} if chosen else {})
    monkeypatch.setattr(requirements, "official_base", lambda: "python:2.7" if chosen else base)
    requirements.image_python.cache_clear()
    assert requirements.image_python() == "3.13"
    requirements.image_python.cache_clear()
