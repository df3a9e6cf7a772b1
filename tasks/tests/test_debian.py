"""Debian and Ubuntu: which packages come from where, and base images from Debian's packages."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from ..machine import debian, setup
from ..project import pyproject
from ..shell import UserError
from .conftest import calls, fake_docker, write_tool

BOOKWORM = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
TARGETS = """cat <<END
http://mirror/debian/ bookworm
http://mirror/debian/ bookworm-updates
http://mirror/security/ bookworm-security
http://mirror/debian/ bookworm-backports
http://else/ stable
END"""


@pytest.fixture(autouse=True)
def apt(monkeypatch: pytest.MonkeyPatch, no_docker: Path, project: Path) -> Path:
    """The `apt-get` of a Debian 12, which only keeps a record of how it was called."""
    write_tool(no_docker / "apt-get", f'echo "$*" >>"{no_docker}/apt"\ncase "$1" in indextargets) {TARGETS}\nesac')
    monkeypatch.setattr(debian, "os_release", lambda: BOOKWORM)
    monkeypatch.setattr(setup, "SBIN", str(no_docker))
    monkeypatch.setattr(debian, "LOG", project.with_name("apt.log"))
    debian.apt.cache_clear()
    (project / "docker/bases").mkdir()
    return no_docker / "apt"


@pytest.fixture
def recipe(project: Path) -> Path:
    """The program that the recipe `store` adds to its packages."""
    program = project / "docker/bases/store/usr/local/bin/start"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o600)
    (project / "docker/bases/store.toml").write_text(
        "suite = 'trixie'\npackages = ['a', 'b']\noptions = ['--x']\nconfig = ['USER 1']\n"
    )
    return program


def test_the_mirrors_of_another_release_are_this_machines_own() -> None:
    """Every suite of its release has its counterpart; backports and other releases have none."""
    assert debian.mirrors("trixie") == [
        ("http://mirror/debian/", "trixie"),
        ("http://mirror/debian/", "trixie-updates"),
        ("http://mirror/security/", "trixie-security"),
    ]


def test_elsewhere_mmdebstrap_knows_the_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "os_release", lambda: {"ID": "ubuntu", "VERSION_CODENAME": "noble"})
    assert debian.mirrors("trixie") == []


def test_trixie_only_for_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Everything of Debian 13 but Docker's packages is pinned below all that Debian 12 has or could get."""
    etc = {"/etc/apt/sources.list.d": tmp_path / "sources", "/etc/apt/preferences.d": tmp_path / "preferences"}

    def moved(path: str) -> Path:
        folder, _, name = path.rpartition("/")
        etc[folder].mkdir()
        return etc[folder] / name

    monkeypatch.setattr(debian, "Path", moved)
    debian.add_trixie()
    head, *rules = (tmp_path / "preferences/docker-from-trixie").read_text().split("Package: ")
    assert rules == [
        "*\nPin: release n=trixie*\nPin-Priority: 1\n\n",
        "docker.io docker-cli docker-compose docker-buildx containerd\nPin: release n=trixie*\nPin-Priority: 990\n",
    ]
    assert "To undo: remove this file and its namesake" in head
    sources = (tmp_path / "sources/docker-from-trixie.sources").read_text()
    assert sources.count("Types: deb\n") == 3
    assert "URIs: http://mirror/security/\nSuites: trixie-security\nComponents: main\nSigned-By: " in sources
    assert "bookworm" not in sources


@pytest.mark.parametrize(
    ("release", "packages", "expected"),
    [
        ("bookworm", ("docker.io",), True),
        ("bookworm", ("mmdebstrap",), False),
        ("trixie", ("docker.io",), False),
    ],
)
def test_only_debian_12_gets_trixie_and_only_for_the_engine(
    monkeypatch: pytest.MonkeyPatch, apt: Path, release: str, packages: tuple[str, ...], expected: bool
) -> None:
    added: list[bool] = []
    monkeypatch.setattr(debian, "os_release", lambda: BOOKWORM | {"VERSION_CODENAME": release})
    monkeypatch.setattr(debian, "add_trixie", lambda: added.append(True))
    debian.Debian().install(*packages)
    debian.Debian().install("more")
    assert bool(added) == expected
    options = "-qq -y -o DPkg::Lock::Timeout=120"
    installed = [f"{options} install --no-install-recommends {name}" for name in (*packages, "more")]
    assert apt.read_text().splitlines() == [f"{options} update", *installed]


def test_what_apt_says_is_the_reason(no_docker: Path, capsys: pytest.CaptureFixture[str], project: Path) -> None:
    write_tool(no_docker / "apt-get", "echo 'E: Unable to locate package x'; echo 'E: and more'; exit 100")
    with pytest.raises(UserError, match=r"apt-get install failed: E: Unable to locate package x$"):
        debian.apt("install", "--option", "x")
    assert "E: and more" in debian.LOG.read_text()
    assert list((project / "reports").iterdir()) == []  # by sudo, it would be root's
    write_tool(no_docker / "apt-get", "exit 0")
    debian.apt("install", "--option", "x")
    assert capsys.readouterr().out.startswith("setup: apt-get install x: 0.")


@pytest.mark.parametrize(
    ("system", "packages"), [("debian", debian.PACKAGES["debian"]), ("ubuntu", debian.PACKAGES["ubuntu"]), ("x", ())]
)
def test_the_engines_packages_are_the_systems(
    monkeypatch: pytest.MonkeyPatch, system: str, packages: tuple[str, ...]
) -> None:
    monkeypatch.setattr(debian, "os_release", lambda: {"ID": system})
    assert debian.Debian().engine_packages() == packages


def test_what_builds_base_images_is_installed_once(no_docker: Path) -> None:
    assert debian.Debian().base_packages() == debian.MMDEBSTRAP
    assert "uidmap" in debian.MMDEBSTRAP  # without which no ordinary user can run it
    write_tool(no_docker / "mmdebstrap", "")
    assert debian.Debian().base_packages() == ()


def test_a_recipe_that_cannot_be_read_is_told(project: Path) -> None:
    (project / "docker/bases/broken.toml").write_text("x = ")
    with pytest.raises(UserError, match=r"docker/bases/broken\.toml does not parse: "):
        debian.Debian().substitute("broken", "x:1")


def test_a_recipes_files_are_part_of_its_id(recipe: Path) -> None:
    ids = [debian.Debian().recipe_id("store")]
    recipe.write_text("#!/bin/sh\nexec true\n")
    ids.append(debian.Debian().recipe_id("store"))
    recipe.rename(recipe.with_name("begin"))
    ids.append(debian.Debian().recipe_id("store"))
    (debian.BASES / "store.lock").write_text("a=1\n")
    ids.append(debian.Debian().recipe_id("store"))
    assert len(set(ids)) == 4


@pytest.mark.usefixtures("recipe")
def test_a_substitute_is_named_after_the_official_image() -> None:
    assert debian.Debian().substitute("store", "store:17@sha256:12") == "localhost/base/store:17-trixie"
    assert debian.Debian().substitute("store", "registry/x/store:17") == "localhost/base/store:17-trixie"
    assert debian.Debian().substitute("unknown", "unknown:1") == ""


def test_an_image_of_another_version_is_no_substitute(recipe: Path) -> None:
    """As python:3.14-slim, where the recipe has Debian's Python 3.13."""
    text = recipe.parents[4].joinpath("store.toml")
    text.write_text(text.read_text() + 'version = "17"\n')
    found = [debian.Debian().substitute("store", f"store:{tag}") for tag in ("17", "17.2-slim", "18", "latest")]
    assert found == ["localhost/base/store:17-trixie", "localhost/base/store:17.2-slim-trixie", "", ""]


@pytest.mark.usefixtures("recipe")
def test_a_recipes_files_are_roots_and_for_all_to_run(tmp_path: Path) -> None:
    saved = tmp_path / "base.tar"
    with tarfile.open(saved, "w") as tar:
        tar.addfile(tarfile.TarInfo("./etc"))
    debian.add_files("store", str(saved))
    with tarfile.open(saved) as tar:
        member = tar.getmember("./usr/local/bin/start")
        assert (member.uid, member.gid, member.mode) == (0, 0, 0o755)
        assert tar.getnames() == ["./etc", "./usr/local/bin/start"]


STATUS = """\
Package: libx
Status: install ok installed
Version: 1:2-3

Package: a
Conffiles:
 /etc/Version: 9
Version: 1.0+b1
Description: a
 Package: b
"""


@pytest.fixture
def mmdebstrap(no_docker: Path) -> Path:
    """A program that makes an image with the packages of STATUS; returns the file with its arguments and its pins."""
    (no_docker / "var/lib/dpkg").mkdir(parents=True)
    (no_docker / "var/lib/dpkg/status").write_text(STATUS)
    pack = f'for word; do case "$word" in /*.tar) tar -cf "$word" -C "{no_docker}" ./var ;; esac; done'
    asked = 'stat --format %a "$TMPDIR"; echo "$*"; echo "$PINS"'
    write_tool(no_docker / "mmdebstrap", f'{{ {asked}; }} >"{no_docker}/asked"; {pack}; echo a long line')
    fake_docker(no_docker, {"import": ""})
    return no_docker / "asked"


@pytest.mark.usefixtures("recipe")
def test_a_base_image_is_made_of_packages_and_knows_its_recipe(
    no_docker: Path, project: Path, mmdebstrap: Path
) -> None:
    debian.Debian().build_base("store", "localhost/base/store:17-trixie")
    mode, asked, pins = mmdebstrap.read_text().split("\n", 2)
    assert mode == "711"  # it runs as other users, who must get to what is in there
    assert "--include=a,b --x trixie /" in asked
    assert asked.endswith("deb http://mirror/security/ trixie-security main")
    assert not pins.strip()
    label = f"LABEL {setup.RECIPE_LABEL}={debian.Debian().recipe_id('store')}"  # with the lock
    (imported,) = calls(no_docker)
    assert imported.startswith(f"import --change USER 1 --change {label} /")
    assert imported.endswith(".tar localhost/base/store:17-trixie")
    assert "a long line" in (project / "reports/logs/base-store.log").read_text()
    assert (debian.BASES / "store.lock").read_text() == "a=1.0+b1\nlibx=1:2-3\n"


@pytest.mark.usefixtures("recipe")
@pytest.mark.parametrize(
    ("locked", "others"),
    [("a=1.0+b1\nlibx=1:2-3\n", ""), ("a=1.0+b1\nlibx=1:2-2\n", "libx 1:2-3"), ("libx=1:2-3\n", "a 1.0+b1")],
)
def test_packages_have_the_versions_of_the_lock_and_what_differs_is_told(
    mmdebstrap: Path, capsys: pytest.CaptureFixture[str], locked: str, others: str
) -> None:
    (debian.BASES / "store.lock").write_text(locked)
    debian.Debian().build_base("store", "localhost/base/store:17-trixie")
    version = locked.splitlines()[-1].partition("=")[2]
    assert f"Package: libx\nPin: version {version}\nPin-Priority: 1001\n" in mmdebstrap.read_text()
    assert (debian.BASES / "store.lock").read_text() == locked
    told = "setup: docker/bases/store.lock has other versions; remove it, and `nox -s setup` writes these: "
    assert [line for line in capsys.readouterr().out.splitlines() if ".lock" in line] == [told + others] * bool(others)


def test_every_recipe_of_this_project_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    recipes = [path.stem for path in debian.BASES.glob("*.toml")]
    assert "python" in recipes
    for recipe in recipes:
        locked = (debian.BASES / f"{recipe}.lock").read_text()
        assert {"libc6", "dpkg"} <= {line.partition("=")[0] for line in locked.splitlines()}
        plan = pyproject(f"docker/bases/{recipe}.toml")
        assert set(plan) >= {"suite", "version", "packages", "config"}
        tag = f"{plan['version']}.1-slim"
        assert debian.Debian().substitute(recipe, f"x:{tag}").startswith(f"localhost/base/{recipe}:{tag}-")
