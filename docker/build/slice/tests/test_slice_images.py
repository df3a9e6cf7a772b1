"""The Dockerfile's stages, built for a service with C extensions that is made in a copy of this project."""

from __future__ import annotations

import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from zlib import crc32

import pytest

from tasks.env import env
from tasks.project import ROOT

pytestmark = pytest.mark.slow
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=200")
PACKAGES = '    "cffi", "cryptography", "lxml", "numpy", "psycopg[binary]", "requests",\n'
# Modules of the standard library that `slim` may have and production has not.
LEFT_OUT = "_curses _curses_panel _dbm _pydatetime _pydecimal _pyio _tkinter curses ensurepip idlelib pydoc_data readline tkinter turtle turtledemo venv"
FACTS = """if True:
    import importlib.util, os
    paths = [os.path.join(top, name) for top, folders, files in os.walk("/app") for name in [*folders, *files]]
    print({
        "parts": [name for name in ("_sqlite3", "_codecs_jp") if importlib.util.find_spec(name)],
        "files": [path for path in ("/usr/share/zoneinfo/UTC", "/etc/debian_version", "/bin/sh") if os.path.exists(path)],
        "not root's": [path for path in paths if os.stat(path).st_uid or os.stat(path).st_mode & 0o022],
        "packages": {name.rstrip("0123456789t") for name in os.listdir("/var/lib/dpkg/status.d")},
    })"""


class Project:
    """A copy of this project."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: set[str] = set()

    def run(self, *command: str, **extra: str) -> str:
        variables = os.environ | extra
        done = subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def build(self, service: str, target: str, *options: str, **args: str) -> str:
        """Build a stage, and return the image's id."""
        args = {"STACK_BASE": env()["STACK_BASE"], "SERVICE": service, **args}
        options += tuple(f"--build-arg={name}={value}" for name, value in args.items())
        options += (f"--secret=id=ca,src={env().get('STACK_CA') or '/dev/null'}", "--secret=id=index,env=PIP_INDEX_URL")
        command = ("docker", "buildx", "build", "--load", "--iidfile=.image", "--file=docker/Dockerfile")
        self.run(*command, f"--target={target}", *options, ".", PIP_INDEX_URL=env().get("PIP_INDEX_URL", ""))
        self.images.add(image := (self.root / ".image").read_text())
        return image

    def python(self, image: str, code: str) -> str:
        return self.run("docker", "run", "--rm", *HARDENED, image, "python3", "-c", code)

    def layers(self, image: str) -> list[str]:
        return self.run("docker", "image", "inspect", '--format={{join .RootFS.Layers ","}}', image).split(",")

    def saved(self, image: str) -> list[dict[str, object]]:
        """An image's configuration, and of each layer the files: whatever their order, of which Docker has two."""
        self.run("sh", "-c", f"mkdir -p .saved && docker save {image} | tar --extract --directory=.saved")
        (manifest,) = json.loads((self.root / ".saved/manifest.json").read_text())
        config = json.loads((self.root / ".saved" / manifest["Config"]).read_text()) | {"rootfs": "the layers' digests"}
        return [config, *(files_of(self.root / ".saved" / layer) for layer in manifest["Layers"])]


def files_of(layer: Path) -> dict[str, object]:
    """A layer's files: what the file system tells of them, and a checksum of what is in them."""
    with tarfile.open(layer) as archive:
        return {it.name: (it.get_info(), it.isreg() and crc32(archive.extractfile(it).read())) for it in archive}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with two services as `new` makes them: `plain`, and `ham`, which has PACKAGES and probe.txt."""
    not_ours = shutil.ignore_patterns(".git", ".env", ".nox", ".*_cache", ".secrets", "reports", "__pycache__")
    project = Project(shutil.copytree(ROOT, tmp_path_factory.mktemp("project") / "here", ignore=not_ours))
    for service in ("plain", "ham"):
        project.run(sys.executable, "-m", "nox", "-s", "new", "--", service)
    pyproject = project.root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace("ham = [\n", f"ham = [\n{PACKAGES}", 1))
    project.run(sys.executable, "-m", "nox", "-s", "lock")
    shutil.copy(Path(__file__).with_name("probe.txt"), project.root / "services/ham/ham/probe.py")
    yield project
    subprocess.run(["docker", "image", "rm", "--force", *project.images], capture_output=True, check=False)


def test_programs_find_what_they_expect_of_a_system(project: Project) -> None:
    """The answers are those of `slim`, which has all of the base image, but for modules that are left out."""
    run = "import ham.probe"
    told = [project.python(project.build("ham", flavor), run).splitlines() for flavor in ("prod", "slim")]
    prod, slim = ([line.partition(" => ")[2] for line in lines] for lines in told)
    assert prod[:-1] == slim[:-1]
    assert set(ast.literal_eval(prod[-1])) - set(ast.literal_eval(slim[-1])) <= set(LEFT_OUT.split())


def test_tests_run_in_the_production_image(project: Project) -> None:
    project.build("ham", "verify")
    test = project.root / "services/ham/tests/test_missing.py"
    test.write_text("import turtle\n")
    with pytest.raises(AssertionError, match="No module named 'turtle'"):
        project.build("ham", "verify")
    test.unlink()


def test_parts_come_on_demand_on_top_of_a_shared_layer(project: Project) -> None:
    ham, plain = project.build("ham", "prod"), project.build("plain", "prod")
    assert project.layers(ham)[0] == project.layers(plain)[0]
    facts = ast.literal_eval(project.python(ham, FACTS))
    assert facts["parts"] == ["_sqlite3", "_codecs_jp"]
    assert facts["files"] == ["/usr/share/zoneinfo/UTC"]
    assert facts["not root's"] == ["/app/instance"]
    assert facts["packages"] > {"libc", "libssl", "netbase", "tzdata", "ca-certificates", "libsqlite3-"}
    facts = ast.literal_eval(project.python(plain, FACTS))
    assert (facts["parts"], facts["files"]) == ([], [])
    plain = project.build("plain", "prod", EXTRAS="sqlite3 /etc/debian_version")
    facts = ast.literal_eval(project.python(plain, FACTS))
    assert (facts["parts"], facts["files"]) == (["_sqlite3"], ["/etc/debian_version"])


def test_images_depend_on_neither_umask_nor_folder_nor_time(project: Project, tmp_path: Path) -> None:
    other = Project(shutil.copytree(project.root, tmp_path / "elsewhere"))
    # BuildKit takes a file for the one that it has if path, size and time are the same, as in former runs of this test.
    when = random.randrange(1_000_000_000)  # noqa: S311
    for path in [other.root, *other.root.rglob("*")]:
        path.chmod(path.stat().st_mode & 0o700)
        os.utime(path, (when, when))
    stages = "deps,source,slice-runtime,slice-service,slice-extras,runtime,prod"  # the cache does not look at times
    options = ("ham", "prod", f"--no-cache-filter={stages}")
    here, there = (each.saved(each.build(*options, SOURCE_DATE_EPOCH="1750000000")) for each in (project, other))
    assert here == there
    other.build("ham", "verify")
    project.images |= other.images


def test_times_are_those_of_the_commit_though_buildkit_compares_only_content(project: Project) -> None:
    first, second = (project.build("plain", "prod", SOURCE_DATE_EPOCH=time) for time in ("1750000000", "1750000001"))
    anew = project.build("plain", "prod", "--no-cache-filter=source,prod", SOURCE_DATE_EPOCH="1750000001")
    assert second == anew != first


def test_no_layer_repeats_what_one_below_it_has(project: Project) -> None:
    """Of what two layers have alike, the engine's image stores keep both or one: the digest would depend on the store."""
    # A dependency needs the second one, too.
    _, *layers = project.saved(project.build("ham", "prod", EXTRAS="/etc/debian_version /lib/*/libresolv.so.2"))
    seen: set[str] = set()
    for layer in layers:
        parents = {str(parent) for path in layer for parent in PurePath(path).parents}
        assert seen & layer.keys() <= parents
        seen |= layer.keys()
    assert "etc/debian_version" in seen


def test_a_service_finds_its_own_distribution(project: Project) -> None:
    code = "import subprocess; from importlib.metadata import *; print(version('my_own-ham'), *(point.load().__name__ for point in entry_points(group='ham.x')), subprocess.call(['end-ham']))"
    points = "[ham.x]\njson = json:dumps\n[console_scripts]\nend-ham = gc:enable\n"
    for target in ("dev", "prod", "slim"):
        image = project.build("ham", target, DISTRIBUTION="My-Own.ham==1.2rc1", ENTRY_POINTS=points)
        assert project.python(image, code) == "1.2rc1 dumps 0"
