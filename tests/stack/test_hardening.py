"""What CIS Docker Benchmark 4/5, the OWASP Docker cheat sheet, Dockle and Docker Scout ask of images and containers.

One test for each check, on every service's production image or running container.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.env import env
from tasks.images import bake
from tasks.images.target import target_of
from tasks.project import ROOT, clone_id, pyproject, service_names
from tasks.shell import CommandFailed, output
from tasks.stack.model import Stack
from tests.stack.plugin import STACK, alone, processes, wait_until

MIB = 1024 * 1024


@pytest.fixture(scope="session", params=service_names())
def service(request: pytest.FixtureRequest) -> str:
    """Each service in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def image(service: str) -> dict[str, Any]:
    """What `docker image inspect` says."""
    return dict(json.loads(output("docker", "image", "inspect", f"{clone_id()}/{service}:prod"))[0])


@pytest.fixture(scope="session", params=processes())
def container(stack: Stack, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What `docker inspect` says of each running container."""
    return dict(json.loads(output("docker", "inspect", stack.container(request.param).id))[0])


@pytest.fixture(scope="session")
def files(image: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tarfile.TarFile]:
    """The image's whole file system."""
    created = output("docker", "create", image["Id"]).strip()
    try:
        saved = tmp_path_factory.mktemp("image") / "files.tar"
        output("docker", "export", "--output", str(saved), created)
    finally:
        output("docker", "rm", created)
    with tarfile.open(saved) as tar:
        yield tar


def test_the_user_is_numeric_and_not_root(image: dict[str, Any]) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", image["Config"]["User"])


def test_the_root_file_system_is_read_only(container: dict[str, Any]) -> None:
    assert container["HostConfig"]["ReadonlyRootfs"] is True


def test_memory_file_systems_only_where_needed(container: dict[str, Any]) -> None:
    found = container["HostConfig"]["Tmpfs"] or {}
    assert set(found) <= {"/tmp"}  # noqa: S108
    assert all("size=" in options for options in found.values())


def test_all_capabilities_are_dropped(container: dict[str, Any]) -> None:
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert not container["HostConfig"]["CapAdd"]
    assert container["HostConfig"]["Privileged"] is False


def test_no_new_privileges(container: dict[str, Any]) -> None:
    assert "no-new-privileges" in str(container["HostConfig"]["SecurityOpt"])


def test_memory_processors_and_processes_are_limited(container: dict[str, Any]) -> None:
    limits = container["HostConfig"]
    assert 16 * MIB <= limits["Memory"] <= 1024 * MIB
    assert 0 < limits["NanoCpus"] <= 4e9
    assert 0 < limits["PidsLimit"] <= 2048


def test_no_namespace_is_shared_with_the_host(container: dict[str, Any]) -> None:
    config = container["HostConfig"]
    assert "host" not in (
        config["NetworkMode"],
        config["PidMode"],
        config["IpcMode"],
        config["UTSMode"],
        config["UsernsMode"],
    )


def test_no_engine_socket_and_no_folder_of_the_host(container: dict[str, Any]) -> None:
    bound = [mount for mount in container["Mounts"] if mount["Type"] == "bind"]
    # Compose's secrets are single files, and nobody can write them.
    assert [m for m in bound if m["RW"] or not m["Destination"].startswith("/run/secrets/")] == []
    assert "docker.sock" not in json.dumps(container["Mounts"])


def test_every_published_port_is_bound_to_an_address(container: dict[str, Any]) -> None:
    bindings = [binding for found in container["NetworkSettings"]["Ports"].values() for binding in found or ()]
    assert all(binding["HostIp"] not in ("", "0.0.0.0", "::") for binding in bindings)  # noqa: S104


def test_restarts_are_bounded(container: dict[str, Any]) -> None:
    assert container["HostConfig"]["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 5}


def test_logs_are_rotated(container: dict[str, Any]) -> None:
    assert {"max-size", "max-file"} <= set(container["HostConfig"]["LogConfig"]["Config"])


def test_there_is_a_healthcheck_and_it_passes(container: dict[str, Any]) -> None:
    kind = container["Config"]["Healthcheck"]["Test"][0]
    if kind == "NONE":
        pytest.skip("its health check is disabled in compose.yaml")
    assert kind == "CMD"
    assert container["State"]["Health"]["Status"] == "healthy"


def test_no_file_is_setuid_or_setgid(files: tarfile.TarFile) -> None:
    assert [member.name for member in files if member.isfile() and member.mode & 0o6000] == []


def test_nothing_but_tmp_is_writable_for_all(files: tarfile.TarFile) -> None:
    made_by_docker = {"tmp", "dev/console", "dev/shm", "dev/pts"}
    writable = {m.name for m in files if (m.isfile() or m.isdir()) and m.mode & 0o002}
    assert writable <= made_by_docker


def test_no_shell_and_no_package_manager(files: tarfile.TarFile, service: str) -> None:
    programs = {Path(name).name for name in files.getnames() if "/bin/" in f"/{name}" or "/sbin/" in f"/{name}"}
    assert "python3" in programs
    assert not programs & {
        "sh",
        "bash",
        "dash",
        "ash",
        "busybox",
        "apt",
        "apt-get",
        "dpkg",
        "apk",
        "pip",
        "pip3",
        "uv",
        "poetry",
    }
    packages = {Path(name).name.partition("-")[0].lower() for name in files.getnames() if name.endswith(".dist-info")}
    assert bool(packages) == bool(
        pyproject()["dependency-groups"].get(service, True)
    )  # otherwise it has a lock of its own
    assert not packages & {"pip", "setuptools", "uv", "poetry", "pytest", "hypothesis", "coverage"}


@pytest.fixture
def packaged(service: str) -> Iterator[str]:
    """An image with the lists of all Debian packages that files come from: the base, or what BUILD_PACKAGES add to it."""
    target = target_of(STACK, service)
    if not target.args.get("BUILD_PACKAGES"):
        yield env()["STACK_BASE"]
        return
    name = f"{clone_id()}/{service}:deps"
    bake.bake({service: replace(target, target="deps", tags=(name,))}, "deps")
    yield name
    output("docker", "image", "rm", name)


def test_every_file_is_in_what_a_bill_of_materials_is_made_from(files: tarfile.TarFile, packaged: str) -> None:
    """A Debian package on record, a distribution's RECORD, the interpreter of the official image, or the repository."""
    found = {member.name for member in files if member.isfile()}
    packages = [Path(name).name for name in found if name.startswith("var/lib/dpkg/status.d/")]
    listing = 'cd /var/lib/dpkg/info && for name; do cat "$name".list "$name":*.list 2>/dev/null; done; true'
    command = ("docker", "run", "--rm", "--entrypoint=sh", packaged, "-c", listing, "-", *packages)
    owned = {re.sub(r"^/(s?bin|lib(64)?)/", r"/usr/\1/", line).lstrip("/") for line in output(*command).splitlines()}
    for record in [name for name in found if name.endswith(".dist-info/RECORD")]:
        content = files.extractfile(record)
        assert content
        paths = [line.rsplit(",", 2)[0].strip('"') for line in content.read().decode().splitlines()]
        owned |= {os.path.normpath(Path(record).parents[1] / path) for path in paths}
    # Where the source is there, too, bytecode lies as usual: __pycache__/env.cpython-313.pyc, as of Alembic's templates.
    bytecode = re.compile(r"(?:__pycache__/)?([^/.]+)(?:\.cpython-\d+)?\.pyc$")
    unknown = {name for name in found if not {name, bytecode.sub(r"\1.py", name)} & owned}
    ours = re.compile(r"app/|usr/local/|var/lib/dpkg/status\.d/|venv/.*\.dist-info/")
    assert {name for name in unknown if not ours.match(name)} <= {
        *(".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf"),  # made by Docker
        *("etc/group", "etc/ld.so.cache", "etc/nsswitch.conf", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"),
        *("venv/bin/deactivate.bat", "venv/bin/pydoc.bat", "venv/pyvenv.cfg"),
    }


def test_no_secret_in_the_environment_or_the_history(image: dict[str, Any]) -> None:
    history = output("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image["Id"])
    # A variable or an option of such a name, or a URL with a password; a service may be called tokens.
    leak = r"(?i)((passw|secret_|token|api_?key)\w*=|--[\w-]*(passw|secret|token|api-?key)|://[^/\s]+:[^/\s]+@)"
    for text in (*image["Config"]["Env"], *history.splitlines()):
        assert not re.search(leak, text), text


def test_no_secret_of_the_build_in_the_layers(files: tarfile.TarFile) -> None:
    """The CA bundle of this machine goes into builds as a secret; no certificate that only it has may be in the image."""
    ours = Path(env().get("STACK_CA") or "/nowhere")
    if not ours.is_file():
        pytest.skip("this machine has no CA bundle")

    def certificates(text: str) -> set[str]:
        return set(re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.DOTALL))

    found = files.extractfile("etc/ssl/certs/ca-certificates.crt")
    assert found
    shipped = certificates(found.read().decode())
    assert shipped
    debians = certificates(
        output("docker", "run", "--rm", "--entrypoint=cat", env()["STACK_BASE"], "/etc/ssl/certs/ca-certificates.crt")
    )
    assert shipped <= debians
    private = certificates(ours.read_text()) - debians
    if not private:
        pytest.skip("this machine trusts no private CA that could leak")
    assert not shipped & private
    assert [name for name in files.getnames() if name.startswith("run/secrets")] == []


def test_the_base_is_named_by_digest_or_is_our_own() -> None:
    base = env()["STACK_BASE"]
    recipe = output("docker", "image", "inspect", "--format", '{{index .Config.Labels "stack.base.recipe"}}', base)
    assert "@sha256:" in base or re.fullmatch(r"[0-9a-f]{16}", recipe.strip())


def test_dependencies_are_checked_against_hashes() -> None:
    installs = re.findall(r"uv pip install.*--requirements (\S+)", (ROOT / "docker/Dockerfile").read_text())
    checked = re.findall(
        r"uv pip install.*--require-hashes.*--requirements (\S+)", (ROOT / "docker/Dockerfile").read_text()
    )
    assert set(installs) - set(checked) == {"/build/tools.txt"}  # these build the image and are not in it


def test_the_command_needs_no_shell(image: dict[str, Any]) -> None:
    assert image["Config"]["Cmd"][0] == "python3"
    assert not image["Config"]["Entrypoint"]


def test_logs_go_to_the_console_only(container: dict[str, Any]) -> None:
    changed = output("docker", "diff", container["Id"]).splitlines()
    assert [line for line in changed if re.search(r"\.log|/var/log", line)] == []
    logs = subprocess.run(["docker", "logs", "--tail=1", container["Id"]], capture_output=True, check=True)
    assert logs.stdout + logs.stderr or not any(container["NetworkSettings"]["Ports"].values())  # a silent worker


def test_it_stops_by_itself_in_time(image: dict[str, Any]) -> None:
    """Also when it is told to as soon as it can be: before Python runs, the kernel ignores signals to process 1."""

    def handles_sigterm() -> bool:
        try:
            status = output("docker", "exec", started, "python3", "-c", "print(open('/proc/1/status').read())")
        except CommandFailed:
            return True  # it has ended already, as a job does
        return any(int(mask, 16) >> signal.SIGTERM - 1 & 1 for mask in re.findall(r"Sig(?:Cgt|Blk):\s+(\w+)", status))

    with alone(image["Id"]) as started:
        wait_until(handles_sigterm)
        began = time.monotonic()
        output("docker", "stop", started)
        assert time.monotonic() - began < 10
        code = int(output("docker", "inspect", "--format", "{{.State.ExitCode}}", started))
        assert code != 137
