from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from ..images import bake, bases
from ..shell import UserError
from ..sizes import report, weigh
from ..stack import stack as compose
from .conftest import write_tool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ("#9 pyproject.toml changed significantly since poetry.lock was last generated.", "nox -s lock"),
        ("failed to copy file: No space left on device (os error 28)", "no disk space"),
        ("write /var/lib/x: no space left on device", "no disk space"),
        ("#4 invalid peer certificate: NotValidYetContext", "check this machine's clock"),
        ("#4 operation timed out\n#4 No solution", "package index does not answer"),
        ("#4 dns error: failed to lookup address information", "package index cannot be reached"),
        ("#4 ok\nERROR: failed to solve: something new", "the build failed: failed to solve: something new"),
        (
            "#4 x\n------\n > [echo deps 1/1] RUN uv:\n0.1 hm\n0.2 it broke\n------\nDockerfile:3\nERROR: failed to solve: process",
            "the build failed in [echo deps 1/1]: it broke",
        ),
        (
            "#9 0.5   x Failed to build `uwsgi==2.0.31`\n#9 0.5 error: command 'cc' failed",
            "uwsgi==2.0.31 has no wheel for this platform",
        ),
        (
            "#4 x\n------\n > [cut-service 1/1] RUN slice:\n0.1 error: /venv/x.so needs libgomp.so.1, which the base image does not have\n------\nE",
            "needs libgomp.so.1, which the base image does not have",
        ),
        (
            '[2/7] STEP 3/3: RUN uv\nhm\nit broke\nError: building at STEP "RUN uv": while running runtime: exit status 1\n',
            "the build failed: it broke",
        ),
        (
            "#4 x\n------\n > [tools 2/2] RUN pip:\n4.2 Looking\n4.3 ERROR: Could not install\n4.3 \n------\nE",
            "failed in [tools 2/2]: ERROR: Could not install",
        ),
        ("#4 x\n------\n > [tools 2/2] RUN pip:\n4.3 \n------\nE", "failed in [tools 2/2]: it said nothing"),
        ("WARNING: ... ConnectTimeoutError(..., 'Connection timed out. (connect timeout=5.0)')", "does not answer"),
        ("4.3 ValueError: check_hostname requires server_hostname\n", "PIP_INDEX_URL must name its host"),
        ("Error: creating build container: no such image", "the build failed: creating build container: no such image"),
        ("", "BuildKit said nothing"),
    ],
)
def test_a_failed_build_has_one_reason(log: str, told: str) -> None:
    reason = bake.reason(log)
    assert told in reason
    assert "\n" not in reason


def test_progress_shows_only_what_really_runs(capsys: pytest.CaptureFixture[str]) -> None:
    progress = bake.Progress()
    for line in (
        "#1 [internal] load build definition from Dockerfile",
        "#1 0.1 reading",
        "#2 [echo deps 1/1] RUN --mount=type=secret,id=ca uv pip install",
        "#3 [echo tools 1/2] COPY docker/build/tools.txt /",
        "#3 CACHED",
        "#2 0.2 Resolved 9 packages",
        "#2 0.3 Installed 9 packages",
    ):
        progress(line)
    assert capsys.readouterr().out == "  [echo deps 1/1] RUN uv pip install\n"
    assert len(progress.log) == 7


def test_bake_gets_the_build_that_compose_has(monkeypatch: pytest.MonkeyPatch) -> None:
    defined = {
        "services": {
            "echo": {
                "image": "ours-1/echo:dev",
                "build": {
                    "tags": ["ours/echo:dev"],
                    "context": "/clone",
                    "dockerfile": "docker/Dockerfile",
                    "target": "dev",
                    "args": {"SERVICE": "echo", "HTTP_PROXY": None},
                    "labels": {"stack.clone": "ours-1"},
                    "secrets": [{"source": "ca"}, {"source": "index"}],
                },
            }
        },
        "secrets": {"ca": {"file": "/ca.crt"}, "index": {"environment": "PIP_INDEX_URL"}},
    }
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    target = bake.target(defined, "echo")
    assert target["args"] == {"SERVICE": "echo"}
    assert target["tags"] == ["ours-1/echo:dev", "ours/echo:dev"]
    assert target["secret"] == ["id=ca,src=/ca.crt"]
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror/simple")
    assert bake.target(defined, "echo")["secret"][1] == "id=index,env=PIP_INDEX_URL"


FILES = {
    "usr/bin/python3.13": 7000,
    "usr/lib/x86_64-linux-gnu/libssl.so.3": 900,
    "usr/lib/python3.13/json/decoder.py": 300,
    "usr/lib/python3.13/lib-dynload/_ssl.so": 200,
    "venv/lib/python3.13/site-packages/flask/app.py": 400,
    "venv/bin/activate": 10,
    "app/echo/views.py": 50,
    "etc/passwd": 5,
}
EXPECTED = {
    "interpreter": 7000,
    "shared libraries": 900,
    "standard library": 500,
    "flask": 400,
    "dependencies": 10,
    "service": 50,
    "operating system": 5,
}


def layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, size in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    return buffer.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_is_weighed_unpacked_however_the_engine_keeps_it(packed: bool) -> None:
    plain = layer()
    weighed = weigh.weigh_layer(io.BytesIO(gzip.compress(plain) if packed else plain))
    assert weighed
    assert weighed.digest == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert weighed.raw_bytes == len(plain)
    assert abs(weighed.gzip_bytes - len(gzip.compress(plain, 6))) < 50
    assert weighed.groups == EXPECTED


def test_images_are_weighed_from_what_docker_saves(no_docker: Path, tmp_path: Path) -> None:
    """Two images share a layer, the second's names are as Podman gives them; a third one is not there."""
    saved = tmp_path / "saved.tar"
    blobs = {"blobs/sha256/aa": layer(), "bb.tar": layer() + bytes(10240), "blobs/sha256/cc": b'{"config": 1}'}
    manifest = [
        {"RepoTags": ["ours/a:prod"], "Layers": ["blobs/sha256/aa"]},
        {"RepoTags": ["localhost/ours/b:prod"], "Layers": ["blobs/sha256/aa", "bb.tar"]},
    ]
    with tarfile.open(saved, "w") as tar:
        for name, data in {**blobs, "manifest.json": json.dumps(manifest).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("0b/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../bb.tar"
        tar.addfile(link)
    here = 'case "$4" in ours/c:*) ;; *) echo 1234 ;; esac'
    write_tool(no_docker / "docker", f'case "$2" in save) cat {saved} ;; ls) {here} ;; esac')
    first, second = weigh.weigh(["ours/a:prod", "ours/b:prod"])
    assert (first.service, first.flavor) == ("a", "prod")
    assert first.raw_bytes == len(layer())
    assert second.raw_bytes == 2 * len(layer()) + 10240
    assert first.layers[0].shared_with == ["ours/b:prod"]
    assert second.layers[1].shared_with == []
    assert second.as_json()["groups"]["interpreter"] == 14000
    assert report.ratios([first], [second])[1][-1].startswith("0.4")
    with pytest.raises(UserError, match="there is no image ours/c:prod: build it first"):
        weigh.weigh(["ours/a:prod", "ours/c:prod"])


def test_every_recipe_can_be_read() -> None:
    recipes = [path.stem for path in bases.BASES.glob("*.toml")]
    assert "python" in recipes
    for recipe in recipes:
        assert set(bases.read(recipe)) >= {"suite", "packages", "config"}
    with pytest.raises(UserError, match=r"docker/bases/none\.toml cannot be read"):
        bases.read("none")


def image(groups: dict[str, int], raw: int, zipped: int) -> weigh.Image:
    return weigh.Image("ours/a:prod", "a", "prod", [weigh.Layer("sha256:1", raw, zipped, groups)])


@pytest.mark.parametrize(
    ("text", "expected"), [("32 MB", 32_000_000), ("12.5MiB", 13_107_200), ("900 kB", 900_000), ("7", 7)]
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert report.size(text) == expected


@pytest.mark.parametrize("text", ["", "big", "12 parsecs", "-1 MB", "1,5 MB", None])
def test_what_is_no_size_is_told(text: object) -> None:
    with pytest.raises(UserError, match="is no size"):
        report.size(text)


def test_over_budget_names_the_movers(monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = {"a:prod": {"raw": "10 MB", "gzip": "5 MB"}}
    monkeypatch.setattr(report, "pyproject", lambda: {"tool": {"stack": {"budgets": budgets}}})
    before = image({"flask": 3_000_000, "numpy": 1_000_000}, 9_000_000, 4_000_000)
    report.check_budgets([before], [])
    after = image({"flask": 3_000_000, "numpy": 7_000_000}, 15_000_000, 4_000_000)
    with pytest.raises(UserError, match=r"ours/a:prod is 15\.00 MB raw, over its 10\.00 MB \(numpy \+6\.00"):
        report.check_budgets([after], [before])
    assert ["", "numpy", "+6.00", ""] in report.changes([after], [before])
    budgets["a:prod"] = {"raw": "10 MB"}
    with pytest.raises(UserError, match="the budget of a:prod must be like"):
        report.check_budgets([after], [])


def test_buildkits_own_fault_is_tried_again(no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bake, "REPORTS", tmp_path / "reports")
    said = "ERROR: failed to solve: failed to get edge: inconsistent graph state"
    write_tool(
        no_docker / "docker",
        f'cat >/dev/null; [ -e {tmp_path}/again ] && exit 0; touch {tmp_path}/again; echo "{said}"; exit 1',
    )
    bake.bake({"a": {}}, "test")
    (tmp_path / "again").unlink()
    write_tool(no_docker / "docker", f'cat >/dev/null; echo "{said}"; exit 1')
    with pytest.raises(UserError, match="inconsistent graph state"):
        bake.bake({"a": {}}, "test")


def test_podman_builds_one_after_the_other(
    no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each by a build of its own, on the engine that Docker's client would ask, until one fails."""
    monkeypatch.setenv("STACK_ENGINE", "podman")
    monkeypatch.setattr(bake, "REPORTS", tmp_path / "reports")
    write_tool(no_docker / "docker", "echo unix:///run/podman.sock")
    write_tool(
        no_docker / "podman",
        f'echo "$*" >>{tmp_path}/asked; echo "[1/2] STEP 1/2: RUN --mount=x it"; ! grep -q SERVICE=b {tmp_path}/asked',
    )
    plan = {
        "context": "/c",
        "dockerfile": "docker/Dockerfile",
        "target": "dev",
        "labels": {"l": "1"},
        "secret": ["id=ca"],
    }
    targets = {name: plan | {"args": {"SERVICE": name}, "tags": [f"ours/{name}:dev"]} for name in "abc"}
    with pytest.raises(UserError, match="the build failed"):
        bake.bake(targets, "test")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[0] == (
        "--url=unix:///run/podman.sock build --format=docker --layers=false --file=/c/docker/Dockerfile"
        " --target=dev --build-arg=SERVICE=a --label=l=1 --tag=ours/a:dev --secret=id=ca /c"
    )
    assert len(asked) == 2
    assert capsys.readouterr().out == "  [1/2] RUN it\n" * 2


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A recipe with a file of its own."""
    program = tmp_path / "store/usr/local/bin/start"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    (tmp_path / "store.toml").write_text("suite = 'trixie'\npackages = []\nconfig = []\n")
    monkeypatch.setattr(bases, "BASES", tmp_path)
    return program


def test_a_recipes_files_are_part_of_its_fingerprint(recipe: Path) -> None:
    before = bases.fingerprint("store")
    recipe.write_text("#!/bin/sh\nexec true\n")
    changed = bases.fingerprint("store")
    recipe.rename(recipe.with_name("begin"))
    assert len({before, changed, bases.fingerprint("store")}) == 3


def test_a_recipes_files_are_roots_and_for_all_to_run(recipe: Path, tmp_path: Path) -> None:
    recipe.chmod(0o600)
    saved = tmp_path / "base.tar"
    with tarfile.open(saved, "w") as tar:
        tar.addfile(tarfile.TarInfo("./etc"))
    bases.overlay("store", str(saved))
    with tarfile.open(saved) as tar:
        member = tar.getmember("./usr/local/bin/start")
        assert (member.uid, member.gid, member.mode) == (0, 0, 0o755)
        assert tar.getnames() == ["./etc", "./usr/local/bin/start"]


def test_images_that_services_run_as_they_are_have_a_recipe() -> None:
    assert bases.needed().get("postgres", "").startswith("postgres:")
    assert all((bases.BASES / f"{recipe}.toml").is_file() for recipe in bases.needed())


def test_neighbours_are_found_through_jobs_and_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    depends: dict[str, object] = {
        "journal": {"depends_on": {"journal-migrate": {}}},
        "journal-migrate": {"depends_on": {"journal-database": {}, "echo": {}}},
        "journal-database": {},
        "echo": {"depends_on": {"journal": {}}},
    }
    monkeypatch.setattr(compose, "model", lambda: {"services": depends})
    monkeypatch.setattr(compose, "service_names", lambda: ["echo", "journal", "other"])
    assert compose.with_neighbours(["journal"]) == ["echo", "journal"]
