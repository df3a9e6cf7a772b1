"""What a project that is to be adopted says that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ..scaffold import requirements
from ..scaffold.requirements import find_needs
from ..shell import UserError
from .conftest import fake_docker
from .scaffolding import NO_SESSION

Write = Callable[[Mapping[str, str]], Path]


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


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'w'\ndependencies = ['flask', 'x[y]>=1']\n"}, ["flask", "x[y]>=1"]),
        ({"pyproject.toml": "[tool.black]\n", "requirements.txt": "a==1\n"}, ["a==1"]),
        ({"requirements.txt": "psycopg[c,pool]>=3\npsycopg-pool\n"}, ["psycopg[binary,pool]>=3", "psycopg-pool"]),
        ({"requirements/prod.txt": "-rbase.txt\nb\n", "requirements/base.txt": "a\n"}, ["a", "b"]),
        (
            {
                "requirements.txt": "-r more/x.txt\n# a comment\nb # another\n",
                "more/x.txt": "--requirement=y.txt\n",
                "more/y.txt": "a\n",
            },
            ["a", "b"],
        ),
        (
            {"requirements.txt": "a==1 \\\n    --hash=sha256:12 \\\n    --hash=sha256:34\nb==2 --hash=sha256:56\n"},
            ["a==1", "b==2"],
        ),
        ({"requirements.txt": "a==1 \\\r\n    --hash=sha256:12\r\nb[x] \\\r\n >= 2  # why\r\n"}, ["a==1", "b[x]>=2"]),
        (
            {"requirements.txt": 'a; python_version > "3.9"\nb; sys_platform == "win32"\n'},
            ['a; python_version > "3.9"'],
        ),
        (
            {
                "requirements.txt": "g<3; python_version<'3.12'\ng>=3.0a1; python_version>='3.12.0rc0'\ng; extra == 'x'\n"
            },
            ['g>=3.0a1; python_version >= "3.12.0rc0"'],
        ),
        (
            {
                "requirements.txt": "git+https://h.invalid/a.git@v1#egg=a\nb @ https://h.invalid/b-1.tar.gz\n-e git+https://h.invalid/c#egg=c\n"
                "git+https://h.invalid/x/d.git@v1\ngit+ssh://git@h.invalid/e\ngit+https://me@h.invalid/x/y/f@feature/a-b\n"
            },
            [
                *(
                    "a @ git+https://h.invalid/a.git@v1",
                    "b @ https://h.invalid/b-1.tar.gz",
                    "c @ git+https://h.invalid/c",
                ),
                *("d @ git+https://h.invalid/x/d.git@v1", "e @ git+ssh://git@h.invalid/e"),
                "f @ git+https://me@h.invalid/x/y/f@feature/a-b",
            ],
        ),
        (
            {"requirements.txt": "--editable=git+https://h.invalid/x/a@v1#egg=a&subdirectory=b/c\n"},
            ["a @ git+https://h.invalid/x/a@v1#subdirectory=b/c"],
        ),
        ({"requirements.txt": "\ufeff--index-url https://h.invalid/\n-c limits.txt\n-e .\n.\na\n"}, ["a"]),
        ({"pyproject.toml": "[project]\nname='a'\nversion='1'\ndependencies = ['a[x]', 'b']\n"}, ["b"]),
    ],
)
def test_requirements_are_found(
    write: Write, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], found: list[str]
) -> None:
    monkeypatch.setattr(requirements, "image_python", lambda: "3.13")
    assert [str(one) for one in find_needs(NO_SESSION, write(files)).main] == found


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"app.py": ""}, "no requirements in pyproject.toml, setup.cfg, setup.py or requirements.txt"),
        ({"requirements.txt": "a\nb=1\n"}, r"requirements.txt, line 2: 'b=1' is no requirement"),
        (
            {"requirements.txt": "a\nhttps://h.invalid/b.zip\n"},
            r"requirements.txt, line 2: 'https://h.invalid/b.zip' is no",
        ),
        ({"requirements.txt": "-r lost.txt\n"}, r"requirements.txt, line 1: there is no file lost.txt"),
        ({"requirements.txt": "-r b.txt\n", "b.txt": "\n\n!\n"}, r"b.txt, line 3: '!' is no requirement"),
        ({"requirements.txt": "a \\\n --hash=sha256:12\n!\n"}, r"requirements.txt, line 3: '!' is no requirement"),
        ({"pyproject.toml": "[project\n"}, "pyproject.toml, setup.cfg, tox.ini or pytest.ini does not parse"),
        ({"pyproject.toml": "[project]\ndependencies = ['a b']\n"}, "pyproject.toml: 'a b' is no requirement"),
        (
            {"pyproject.toml": "[dependency-groups]\nx = []\ny = []\n"},
            "no requirements in .*: add one of them or --extra x or --extra y",
        ),
        ({"web/requirements.txt": "flask\n"}, "add one of them or --from .*/web$"),
    ],
)
def test_requirements_that_cannot_be_used(write: Write, files: dict[str, str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        find_needs(NO_SESSION, write(files))


@pytest.mark.parametrize(
    "place", ['{git = "https://h.invalid/x.git"}', '{url = "https://h.invalid/x.zip"}', "{path = '../x'}"]
)
def test_what_is_not_from_an_index_is_not_looked_for_there(write: Write, place: str) -> None:
    text = f"[project]\ndependencies = ['My.Core', 'b @ https://h.invalid/b.zip', 'c']\n[tool.uv.sources]\nmy-core = {place}\n"
    with pytest.raises(UserError, match=r"My\.Core: in folders beside it, or at URLs"):
        find_needs(NO_SESSION, write({"pyproject.toml": text}))
    with pytest.raises(UserError, match="/other: d: in folders beside it"):
        find_needs(NO_SESSION, write({"other/requirements.txt": "d @ file:///x/d\n"}) / "other")
    text = text.replace("my-core", "b").replace("'c'", "'torch'") + "torch = {index = 'other'}\n"
    assert len(find_needs(NO_SESSION, write({"pyproject.toml": text})).main) == 3


def test_a_group_that_is_asked_for(write: Write) -> None:
    source = write({"pyproject.toml": "[dependency-groups]\nweb = ['a']\nother = ['b']\n"})
    needs = find_needs(NO_SESSION, source, ["web"])
    assert ([str(one) for one in needs.main], needs.left) == (["a"], ["other"])


def test_an_extra_that_consists_of_others(write: Write) -> None:
    extras = "{all = ['My_Project[a]', 'c'], a = ['my-project[b]'], b = ['d'], e = ['f']}"
    text = f"[project]\nname = 'my-project'\nversion = '1'\ndependencies = ['x']\noptional-dependencies = {extras}\n"
    needs = find_needs(NO_SESSION, write({"pyproject.toml": text}), ["all"])
    assert ([str(one) for one in needs.main], needs.left) == (["x", "c", "d"], ["e"])


def test_how_requirements_are_encoded(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("a\n", encoding="utf-16")
    assert [str(one) for one in find_needs(NO_SESSION, tmp_path).main] == ["a"]
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = x\n", encoding="utf-8-sig")
    assert find_needs(NO_SESSION, tmp_path).distribution == "x==0"
    (tmp_path / "requirements.txt").write_bytes(b"\xe4\n")
    with pytest.raises(UserError, match=r"requirements.txt is not text in UTF-8: 'utf-8' codec can't decode byte 0xe4"):
        find_needs(NO_SESSION, tmp_path)


def test_requirements_that_only_a_build_knows(
    write: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = [
        "[x.y]\na = b:c\n",
        "x==1.2",
        "flask>=3",
        'redis; extra == "cache"',
        'moto>5; extra == "test"',
        'y; python_version < "3"',
    ]
    monkeypatch.setattr(requirements, "ask", lambda *_: answer)
    for files in (
        {"setup.py": ""},
        {"setup.cfg": "[options]\n"},
        {"pyproject.toml": "[project]\ndynamic = ['version']\n"},
    ):
        needs = find_needs(NO_SESSION, write(files))
        assert [str(one) for one in needs.main] == ["flask>=3"]
        assert [one.name for one in needs.tests] == ["moto"]
        assert (needs.distribution, needs.entry_points) == ("x==1.2", "[x.y]\na = b:c\n")
    source = write({"requirements.txt": "pinned\n"})
    assert [str(one) for one in find_needs(NO_SESSION, source).main] == ["pinned"]
    assert [one.name for one in find_needs(NO_SESSION, source, ["cache"]).main] == ["flask", "redis"]
    (source / "setup.py").write_text("setup(entry_points={})\n")
    needs = find_needs(NO_SESSION, source)
    assert ([one.name for one in needs.main], needs.entry_points) == (["pinned"], "[x.y]\na = b:c\n")
    (source / "requirements.txt").write_text("pinned\nFlask==3.1\n-e .[cache]\n")
    assert [str(one) for one in find_needs(NO_SESSION, source).main] == ["pinned", "Flask==3.1", "redis"]
    assert "not taken" not in capsys.readouterr().out
    for name in ("setup.py", "setup.cfg", "pyproject.toml"):
        (source / name).unlink()
    with pytest.raises(UserError, match="has no extra or group cache; it has none"):
        find_needs(NO_SESSION, source, ["cache"])


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"pyproject.toml": "[project]\nname = 'x'\ndependencies = []\noptional-dependencies.test = ['a']\n"}, ["a"]),
        (
            {
                "pyproject.toml": "[project]\ndependencies = []\n[dependency-groups]\ndev = [{include-group = 't'}]\nt = ['a>1']\n"
            },
            ["a>1"],
        ),
        ({"requirements.txt": "", "requirements-test.txt": "a\n", "requirements-dev.txt": "b\n"}, ["a"]),
        ({"requirements/prod.txt": "", "requirements/dev.txt": "-r prod.txt\nb\n"}, ["b"]),
        ({"requirements.txt": "", "requirements.d/dev.txt": "b\n"}, ["b"]),
        ({"requirements.txt": "", "dev.requirements.txt": "b\n"}, ["b"]),
        (
            {
                "pyproject.toml": "[project]\ndependencies = []\noptional-dependencies.dev = ['a']\n[dependency-groups]\ndev = ['b']\n"
            },
            ["b", "a"],
        ),
        ({"requirements.txt": "", "requirements-test.txt": "", "requirements-dev.txt": "b\n"}, ["b"]),
        (
            {
                "pyproject.toml": "[project]\ndependencies = []\n[tool.hatch.envs]\nlint.dependencies = ['c']\n"
                "hatch-test.extra-dependencies = ['a', 'b @ {root:uri}/b']\n"
            },
            ["a"],
        ),
        ({"requirements.txt": ""}, []),
        ({"pyproject.toml": "[project]\ndependencies = []\n[tool.uv]\ndev-dependencies = ['a']\n"}, ["a"]),
        (
            {
                "pyproject.toml": "[project]\ndependencies = []\n[tool.pdm.dev-dependencies]\n"
                "lint = ['c']\ntest = ['a', '-e file:///${PROJECT_ROOT}/x#egg=x']\n"
            },
            ["a"],
        ),
    ],
)
def test_what_tests_need(write: Write, files: dict[str, str], found: list[str]) -> None:
    assert [str(one) for one in find_needs(NO_SESSION, write(files)).tests] == found


def test_groups_of_poetrys_beside_a_project(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "ask", lambda *_: {"main": ["a>=1", 'x; extra == "more"'], "dev": ["b"]})
    lines = "[project]\nname = 'w'\ndependencies = ['a>=1']\noptional-dependencies.more = ['x']\n"
    needs = find_needs(NO_SESSION, write({"pyproject.toml": f"{lines}[tool.poetry.group.dev.dependencies]\nb = '*'\n"}))
    assert ([str(one) for one in needs.main], [str(one) for one in needs.tests]) == (["a>=1"], ["b"])
    assert needs.left == ["more"]
    monkeypatch.setattr(requirements, "ask", lambda *_: {"dev": ["b"]})  # as Poetry has it without dependencies
    needs = find_needs(NO_SESSION, write({"pyproject.toml": "[tool.poetry.group.dev.dependencies]\nb = '*'\n"}))
    assert (needs.main, [str(one) for one in needs.tests]) == ([], ["b"])
