"""A mistake, as nox tells it: one clear line, a non-zero exit, no traceback, nothing left behind."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..images import bases
from ..project import ROOT, service_names
from .conftest import fake_engine

Nox = Callable[..., subprocess.CompletedProcess[str]]


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The line that tells the mistake."""
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout
    lines = [line for line in done.stderr.splitlines() if " aborted: " in line or ": error: " in line]
    assert len(lines) == 1, done.stderr
    return lines[0]


def everything(folder: Path) -> set[Path]:
    ours = {"__pycache__", ".nox"}
    return {path for path in folder.rglob("*") if not ours & set(path.parts)}


@pytest.fixture
def service(clone: Path) -> str:
    """A service in the clone, which may have none."""
    name = "scout-of-tests"
    (clone / "services" / name).mkdir(parents=True)
    (clone / "services" / name / "compose.yaml").write_text("services: {}\n")
    text = (clone / "pyproject.toml").read_text()
    (clone / "pyproject.toml").write_text(text.replace("[dependency-groups]", f"[dependency-groups]\n{name} = []"))
    return name


def test_a_wrong_name_and_a_wrong_option(nox: Nox, clone: Path, service: str) -> None:
    before = everything(clone)
    services = ", ".join(sorted([*service_names(), service]))
    assert f"there is no service 'polit'; the services are: {services}" in told(nox("-s", "build", "--", "polit"))
    assert "nox -s build --: error: unrecognized arguments: --flavour" in told(nox("-s", "build", "--", "--flavour"))
    assert everything(clone) == before


def test_a_file_that_does_not_parse(nox: Nox, clone: Path) -> None:
    (clone / "pyproject.toml").write_text("[project\n")
    assert "pyproject.toml does not parse: " in told(nox("-s", "plan"))


@pytest.mark.usefixtures("service")
def test_no_engine_names_the_way_out(nox: Nox, no_docker: Path) -> None:
    (no_docker / "docker").unlink()
    line = told(nox("-s", "build", PATH=str(no_docker), STACK_SETUP="never"))
    assert "missing, too old or not running: engine, compose, buildx, and STACK_SETUP=never: install" in line


def test_a_password_in_the_package_indexs_address_is_shown_nowhere(
    nox: Nox, clone: Path, no_docker: Path, service: str
) -> None:
    """Not when a build fails that has printed it, and in no log."""
    url = "https://user:secret@mirror.example/simple"
    build = {"context": ".", "dockerfile": "docker/Dockerfile", "target": "prod", "args": {"SERVICE": service}}
    secrets = {"index": {"environment": "PIP_INDEX_URL"}}
    spec = {"image": f"x/{service}:prod", "build": build | {"secrets": [{"source": "index"}]}}
    printed = 'echo "#4 1.0 no answer from $PIP_INDEX_URL"; echo "ERROR: failed: $PIP_INDEX_URL"; exit 1'
    fake_engine(
        no_docker,
        container_ls="",
        network_ls="",
        volume_ls="",
        image_ls="",
        compose_config=f"echo '{json.dumps({'services': {service: spec}, 'secrets': secrets})}'",
        buildx_bake=f"cat >/dev/null; {printed}",
        image_inspect="exit 1",
    )
    images = ["STACK_BASE", *bases.needed()]
    (clone / ".env").write_text("".join(f"{image}=one:that-is-there\n" for image in images))
    done = nox("-s", "build", "--", service, PIP_INDEX_URL=url)
    assert "failed: https://***@mirror.example/simple (all of it: reports/logs/build-prod.log)" in told(done)
    logs = [path.read_text() for path in (clone / "reports").rglob("*") if path.is_file()]
    assert "no answer from https://***@mirror.example/simple" in "".join(logs)
    assert "secret" not in done.stdout + done.stderr + "".join(logs) + (clone / ".env").read_text()


def test_a_file_that_cannot_be_written_is_told_with_its_name(nox: Nox, tmp_path: Path) -> None:
    line = told(nox("-s", "plan", GITHUB_OUTPUT=str(tmp_path)))
    assert f"aborted: [Errno 21] Is a directory: '{tmp_path}'" in line


def test_a_file_that_cannot_be_copied_is_told_with_its_name(nox: Nox, clone: Path, service: str) -> None:
    os.mkfifo(clone / "services" / service / "pipe")
    line = told(nox("-s", "new", "--", "twin-of-tests", "--like", service))
    assert f"aborted: `{clone}/services/{service}/pipe` is a named pipe" in line
    assert not (clone / "services/twin-of-tests").exists()


def test_a_compose_file_that_is_not_utf_8_is_told_by_compose(
    nox: Nox, clone: Path, no_docker: Path, service: str
) -> None:
    (clone / "services" / service / "compose.yaml").write_bytes(b"# \xe9\n")
    said = "echo 'yaml: invalid continuation byte' >&2; exit 1"
    fault = f'case "$*" in *--file=*) case "$*" in *{service}*) {said} ;; esac ;; *) {said} ;; esac'
    fake_engine(no_docker, container_ls="", network_ls="", volume_ls="", image_ls="", compose="2.26.1", compose_=fault)
    images = ["STACK_BASE", *bases.needed()]
    (clone / ".env").write_text("".join(f"{image}=one:that-is-there\n" for image in images))
    assert f"services/{service}/compose.yaml: yaml: invalid continuation byte" in told(nox("-s", "build"))


def test_setup_without_a_service_names_the_next_step(nox: Nox, clone: Path) -> None:
    shutil.rmtree(clone / "services")
    assert "there is no service yet: `nox -s new -- NAME` makes one" in told(nox("-s", "setup"))


@pytest.mark.parametrize("number", ["TERM", "INT", "HUP"])
def test_an_interrupt_that_nox_keeps_to_itself_fails_the_session(nox: Nox, tmp_path: Path, number: str) -> None:
    """A program that nox has started, and that ends well right after the signal."""
    (tmp_path / "noxfile.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tasks.session import session\n\n\n@session()\n"
        f"def check(session):\n    session.run('sh', '-c', 'kill -{number} $PPID; sleep 0.1', external=True)\n"
    )
    done = nox("-f", str(tmp_path / "noxfile.py"), "-s", "check")
    assert (done.returncode, "Session check interrupted" in done.stderr) == (130, True)


def test_an_old_python_is_told_in_one_line() -> None:
    """The first lines of noxfile.py must be good for any Python 3 that can run nox."""
    source = (ROOT / "noxfile.py").read_text()
    ast.parse(source, feature_version=(3, 8))
    head, _, _ = source.partition("import shutil")
    older = head.replace("sys.version_info < (3, 11)", "sys.version_info < (99,)")
    assert older != head
    done = subprocess.run([sys.executable, "-c", older], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Python 3.11 or newer is needed on the host")
    assert len(done.stderr.splitlines()) == 1
