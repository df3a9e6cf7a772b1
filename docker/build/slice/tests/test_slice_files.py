"""What the slicer copies and how, without Docker."""

from __future__ import annotations

import marshal
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import modules
import tree


@pytest.mark.parametrize(
    ("code", "inside", "outside"),
    [
        (None, "re/__init__.py pydoc.py", "turtle.py sqlite3/__init__.py curses/__init__.py _pyio.py venv/__init__.py"),
        ("import json, sqlite30, curses30", "", "json/__init__.py sqlite3/__init__.py curses/__init__.py"),
        ("import SQLite3", "sqlite3/__init__.py", "json/__init__.py"),
        ("try:\n    import curses", "curses/__init__.py", "_pyio.py"),
        ("import _pyio as io", "_pyio.py", "curses/__init__.py"),
    ],
)
def test_large_parts_come_with_code_that_names_them(code: str | None, inside: str, outside: str) -> None:
    found = {str(path.relative_to(modules.STDLIB)) for path in modules.files(code) if modules.STDLIB in path.parents}
    assert set(inside.split()) <= found
    assert not set(outside.split()) & found


def test_the_data_of_sysconfig_is_what_this_python_reads(tmp_path: Path) -> None:
    name = "_sysconfigdata__x86_64-linux-gnu"  # in Debian 12, where the one with linux in its name is a link
    (tmp_path / f"{name}.py").write_text("build_time_vars = {}")
    code = f"import modules; print(*filter(modules.LEFT_OUT.fullmatch, ('{name}.py', '{name}-other.py')))"
    settings = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}", "_PYTHON_SYSCONFIGDATA_NAME": name}
    assert subprocess.check_output([sys.executable, "-c", code], env=settings, text=True) == f"{name}-other.py\n"


def test_dependencies_keep_docstrings_and_the_standard_library_has_empty_ones(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("site-packages/json/module.py", "json/module.py", "template.py")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"text"\ndef f():\n    "text"\nf.__doc__ += "more"\n')
    paths[-1].write_text("import {{ name }}")
    made = tree.Tree(tmp_path / "root")
    made.add_all(paths)
    found = []
    for path in paths[:-1]:
        scope: dict[str, object] = {}
        exec(marshal.loads(made.place(path.with_suffix(".pyc")).read_bytes()[16:]), scope)  # noqa: S102, S302
        found.append([scope["__doc__"], scope["f"].__doc__])
    assert found == [["text", "textmore"], ["", "more"]]
    assert made.place(paths[-1]).read_text() == "import {{ name }}"


def test_modules_whose_source_is_read_keep_it_next_to_their_bytecode(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("migration.py", "checked.py", "root.py", "plain.py")]  # root/ is beside it
    texts = ("from alembic import op", "@typechecked\ndef f(): ...", "", "typechecked = 1")
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    made = tree.Tree(tmp_path / "root")
    made.add_all(paths)
    assert [made.place(path).exists() for path in paths] == [True, True, True, False]
    assert len(list(made.place(tmp_path / "__pycache__").glob("*.pyc"))) == 3


def test_libraries_come_along_and_times_are_of_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ldd").write_text(
        f"#!/bin/sh\necho 'libno.so => not found\n\tlibz.so => {tmp_path}/lib64/libz.so (0x7f5)\n\tvdso.so (0x7f7)'\nexit 127"
    )
    (tmp_path / "ldd").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libz.so.1").write_text("a")
    (tmp_path / "lib/libz.so").symlink_to("libz.so.1")
    (tmp_path / "lib64").symlink_to("lib")
    made = tree.Tree(tmp_path / "root")
    made.add_all([tmp_path / "ldd"])
    made.finish()
    inside = made.place(tmp_path)
    assert [(inside / link).readlink() for link in ("lib64", "lib/libz.so")] == [Path("lib"), Path("libz.so.1")]
    assert (inside / "lib/libz.so").stat().st_mtime == tree.TIME + 0xE8B7BE43 % tree.YEAR


def test_what_the_layer_below_has_is_not_made_again(tmp_path: Path) -> None:
    files(tmp_path / "lib", one="a", two="b")
    (tmp_path / "link").symlink_to("lib")
    below = tree.Tree(tmp_path / "below")
    below.add(tmp_path / "link/one")
    made = tree.Tree(tmp_path / "root", tmp_path / "nothing", tmp_path / "below")
    for path in ("link", "link/one", "lib"):
        made.add(tmp_path / path)
    assert list(made.root.iterdir()) == []
    made.add(tmp_path / "link/two")
    assert [path.name for path in made.place(tmp_path).rglob("*")] == ["lib", "two"]


def test_more_dependencies_than_a_command_line_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = f"#!/bin/sh\necho \"$*\" >>{tmp_path}/asked\necho 'libz1:amd64: /usr/lib/libz.so'\n"
    (tmp_path / "dpkg-query").write_text(tool)
    (tmp_path / "dpkg-query").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    made = tree.Tree(tmp_path / "root", tmp_path / "nothing")
    made.copied = {Path("/usr/lib/libz.so"), *(Path(f"/venv/{'x' * 200}/{number}") for number in range(20_000))}
    made.finish()
    assert (tmp_path / "asked").read_text().splitlines() == ["--search /usr/lib/libz.so /lib/libz.so", "--status libz1"]
    assert made.place("/var/lib/dpkg/status.d/libz1").is_file()


def run(root: Path, *arguments: str | Path) -> tuple[str, set[str]]:
    """Run the program; return what it said, and the names of the files that it made but for those of dpkg's records."""
    command = [sys.executable, Path(tree.__file__).parent, arguments[0], root, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    made = {path.name for path in root.rglob("*") if path.is_file() and "dpkg" not in path.parts}
    return done.stderr, made


def files(folder: Path, **texts: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in texts.items():
        (folder / name.replace("_dot_", ".")).write_text(text)
    return folder


def test_a_services_dependencies_are_what_runs(tmp_path: Path) -> None:
    named = {"a.py": "'b.c', 'A.py', f'c-{n}.py'", "b.c": "", "c.c": "", "A.py": "1", "c-3.py": "'__init__.py'"}
    venv = files(tmp_path / "site-packages", **named, data_dot_json="", activate_dot_py="", __init___dot_py="")
    files(venv / "__pycache__", b_dot_pyc="")
    files(venv / "bin", activate_dot_fish="", a_dot_h="", a_dot_pyx="")
    made = {"a.pyc", "b.c", "A.py", "A.pyc", "c-3.py", "c-3.pyc", "__init__.pyc", "data.json", "activate.pyc"}
    assert run(tmp_path / "root", "service", venv) == ("", made)


def test_extras_are_what_code_or_the_build_names(tmp_path: Path) -> None:
    venv, source = (
        files(tmp_path / "venv", a_dot_py="import curses"),
        files(tmp_path / "source", b_dot_py="import _pyio"),
    )
    data = files(tmp_path / "data/inside", one_dot_txt="").parent
    asked = {"panel.pyc", "_pyio.pyc", "dbapi2.pyc", "one.txt"}
    said, made = run(tmp_path / "root", "extras", venv, source, "sqlite3", data)
    assert (said, made & {*asked, "a.pyc", "b.pyc"}) == ("", asked)
    said, made = run(tmp_path / "other", "extras", venv, source, "/no/such.so")
    assert said == "error: EXTRAS names /no/such.so, which the base image does not have: install it in stage `base`\n"
    assert made & asked == {"panel.pyc", "_pyio.pyc"}
