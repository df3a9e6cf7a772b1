"""What comes along when an existing project is adopted, and where it goes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ..scaffold import service
from .scaffolding import APP, DJANGO, FACTORY, NO_SESSION, commit, git
from .test_adopt import Write, adopting_project, take


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return adopting_project(tmp_path / "ours", monkeypatch)


@pytest.mark.parametrize(
    "files",
    [
        {"app.py": APP, "README.md": "", "tests/test_app.py": ""},
        {"app.py": APP, "templates/index.html": "", "schema.sql": ""},
        {"blog/__init__.py": FACTORY, "blog/templates/x.html": "", "app.json": "", "tests/test_x.py": ""},
        {"blog/__init__.py": FACTORY, "migrations/env.py": "", "alembic.ini": ""},
        {"blog/__init__.py": FACTORY, "config/settings.py": ""},
        {"blog/__init__.py": f"{FACTORY}WORDS = open('words.txt')\n", "words.txt": ""},
        {"blog/__init__.py": FACTORY, "blog/build/__init__.py": "", "blog/env/x.html": ""},
        {"src/blog/__init__.py": FACTORY, "tests/conftest.py": "", "setup.py": ""},
        {"src/blog/__init__.py": "", "wsgi.py": f"import blog\n{APP}"},
        {"blog/__init__.py": "", "production.ini": "[app:main]\nuse = egg:blog\n"},
        DJANGO,
    ],
)
def test_what_comes_along(ours: Path, write: Write, files: dict[str, str]) -> None:
    source = write(files | {"requirements.txt": "flask\n"})
    take(source)
    folder = ours / "services/theirs"
    assert "        SERVICE: theirs\n        PACKAGE: .\n" in (folder / "compose.yaml").read_text()
    for path, text in files.items():
        if path not in {"README.md", "setup.py"}:
            assert (folder / path.removeprefix("src/")).read_text() == text
    service.remove(NO_SESSION, "theirs")
    assert git(ours, "status", "--porcelain") == ""


def test_a_folder_src_that_is_imported_itself_is_kept(ours: Path, write: Write) -> None:
    code = f"from src.blog.models import Entry\n{APP}"
    take(write({"src/blog/main.py": code, "src/blog/models.py": "Entry = 1\n", "requirements.txt": "flask\n"}))
    assert (ours / "services/theirs/src/blog/main.py").read_text() == code
    assert 'APPLICATION: "src.blog.main:app"\n' in (ours / "services/theirs/compose.yaml").read_text()


def test_a_folder_with_data_hides_no_package(ours: Path, write: Write) -> None:
    (ours / "poetry.lock").write_text((ours / "poetry.lock").read_text().replace("second", "theirs"))
    take(write({"app.py": APP, "click/messages.pot": "", "requirements.txt": "click\n"}))
    assert (ours / "services/theirs/click/messages.pot").exists()


def test_documents_that_code_reads_come_along(ours: Path, write: Write) -> None:
    code = f"{APP}news = open('NEWS.md').read()\n"
    take(write({"app.py": code, "NEWS.md": "new", "README.md": "", "requirements.txt": "x\n"}))
    assert (ours / "services/theirs/NEWS.md").read_text() == "new"
    assert not (ours / "services/theirs/README.md").exists()


@pytest.mark.parametrize("file", ["app.py", "tests/test_app.py"])
@pytest.mark.parametrize("name", ["docs/spec.yaml", "../docs/api/spec.rst", "./docs/x.md", "docs', 'api.rst"])
def test_a_folder_docs_that_code_or_tests_read_comes_along(ours: Path, write: Write, file: str, name: str) -> None:
    source = write({"app.py": APP, "docs/spec.yaml": "text", "docs/api/x": "", "requirements.txt": "x\n"})
    (source / file).parent.mkdir(exist_ok=True)
    (source / file).write_text(f"{APP}spec = join(dirname(__file__), '{name}')\n")
    take(source)
    assert (ours / "services/theirs/docs/spec.yaml").read_text() == "text"
    assert (ours / "services/theirs/docs/api/x").exists()
    assert "        PACKAGE: .\n" in (ours / "services/theirs/compose.yaml").read_text()


def test_a_folder_docs_that_is_only_mentioned_is_left_out(ours: Path, write: Write) -> None:
    code = f"{APP}site = 'https://h.invalid/docs/x.html'\nother = 'see docs/x.md', 'docs/', 'docs'\n"
    take(write({"app.py": code, "docs/conf.py": "'docs/x.md'", "setup.py": "'docs/x.md'", "requirements.txt": "x\n"}))
    assert not (ours / "services/theirs/docs").exists()


def test_what_is_called_like_a_module_and_is_none(ours: Path, write: Write) -> None:
    source = write({"app.py": APP, "folder.py/readme": "", "requirements.txt": "x\n"})
    (source / "gone.py").symlink_to("nowhere.py")  # in a submodule that was not fetched
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(source / "app.sock"))
    take(source)
    folder = ours / "services/theirs"
    assert [path.name for path in (folder / "folder.py", folder / "gone.py") if path.is_dir()] == ["folder.py"]
    assert (folder / "gone.py").is_symlink()
    assert not (folder / "app.sock").exists()


@pytest.mark.parametrize("inside", ["", "backend"])
def test_what_git_ignores_is_left(ours: Path, write: Write, capsys: pytest.CaptureFixture[str], inside: str) -> None:
    """Keys and a developer's data belong into no image; and where .gitignore is above, they would be committed."""
    code = {"web/__init__.py": f"{APP}import sqlite3\nsqlite3.connect('data/app.db')\n", "requirements.txt": "flask\n"}
    made = {"web/key.pem": "", "data/app.db": "", "credentials.json": "", "web/_version.py": "", "web/new.txt": ""}
    source = write({str(Path(inside, path)): text for path, text in (code | made).items()})
    (source / ".gitignore").write_text("*.pem\ndata/\ncredentials.json\n_version.py\n")
    git(source, "init", "--quiet")
    take(source / inside)
    folder = ours / "services/theirs"
    assert sorted(path.name for path in (folder / "web").iterdir()) == ["__init__.py", "_version.py", "new.txt"]
    assert not (folder / "credentials.json").exists()
    assert str((folder / "data").readlink()) == "instance"
    assert "left out: credentials.json, data, " in capsys.readouterr().out


def test_tests_that_are_there_twice(ours: Path, write: Write) -> None:
    """Both files stay, and production is verified with both, too."""
    files = {"blog/__init__.py": FACTORY, "conftest.py": "above\n", "tests/conftest.py": "inside\n", "test_x.py": ""}
    take(write(files | {"requirements.txt": "flask\n"}))
    folder = ours / "services/theirs"
    assert ((folder / "conftest.py").read_text(), (folder / "tests/conftest.py").read_text()) == ("above\n", "inside\n")
    assert (folder / "tests/test_x.py").exists()
    assert "        PACKAGE: .\n" in (folder / "compose.yaml").read_text()


def test_a_database_that_git_has_is_part_of_the_code(
    ours: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"{APP}import sqlite3\nx = ['search.db', 'users.db', 'var/more.db']\n"
    source = write({"app.py": code, "search.db": "theirs", "var/more.db": "", "requirements.txt": "flask\n"})
    git(source, "init", "-q")
    commit(source)
    (source / "users.db").touch()
    take(source)
    told = capsys.readouterr().out
    assert "kept in instance/, a volume in production: users.db\n" in told
    folder = ours / "services/theirs"
    assert (folder / "search.db").read_text() == "theirs"
    assert (folder / "users.db").is_symlink()
    assert not (folder / "var").is_symlink()


@pytest.mark.parametrize("code", ["'sqlite:///instance/app.db'", "join('instance', 'app.db')"])
def test_a_database_in_the_instance_folder(ours: Path, write: Write, code: str) -> None:
    take(write({"app.py": f"{APP}import sqlite3\nx = {code}\n", "requirements.txt": "flask\n"}))
    assert [path.name for path in (ours / "services/theirs/instance").iterdir()] == [".gitignore"]
    assert "theirs-data:/app/instance" in (ours / "services/theirs/compose.yaml").read_text()


def test_a_virtual_environment_is_left_out_whatever_its_name(ours: Path, write: Write) -> None:
    files = {"app.py": APP, "blogenv/pyvenv.cfg": "", "blogenv/lib/python3.13/site-packages/other/app.py": APP}
    files |= {"pyvenv.cfg": "", "lib/python3.13/site-packages/other/app.py": APP}  # of the project's folder itself
    take(write(files | {"requirements.txt": "flask\n"}))
    assert not (ours / "services/theirs/blogenv").exists()
    assert not [*(ours / "services/theirs").rglob("site-packages")]


def test_folders_that_git_keeps_empty_come_along(ours: Path, write: Write) -> None:
    kept = {".gitignore": "/x\n", "uploads/.gitkeep": "", "a/cache/.gitignore": "*\n!.gitignore\n"}
    left = {".github/x.yml": "", "a/.coverage": "", ".gitlab-ci.yml": "", "a/.env": ""}
    take(write(kept | left | {"app.py": APP, "requirements.txt": "flask\n"}))
    folder = ours / "services/theirs"
    assert [path for path in kept if not (folder / path).exists()] == []
    assert [path for path in left if (folder / path).exists()] == []


def test_the_folder_itself_is_no_package(ours: Path, write: Write) -> None:
    take(write({"app.py": APP, "__init__.py": "", "requirements.txt": "x\n"}))
    # With it, pytest would import tests as parts of a package that is called like the service.
    assert not (ours / "services/theirs/__init__.py").exists()
