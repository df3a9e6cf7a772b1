"""What both scripts in deploy/ make of a Compose model; the model that their tests have."""

from __future__ import annotations

import functools
import io
import json
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from kubernetes_validate.utils import schema_contents

from ..project import ROOT

DIGEST = "@sha256:" + "ab" * 32
COMMON = {
    "mem_limit": "268435456",
    "cpus": 1,
    "pids_limit": 100,
    "read_only": True,
    "tmpfs": ["/tmp"],  # noqa: S108 (in the container)
    "cap_drop": ["ALL"],
}
OWN = {**COMMON, "build": {"args": {"SERVICE": "web"}}, "image": f"here/web{DIGEST}", "secrets": [{"source": "password", "target": "/run/secrets/password"}]}  # fmt: skip
MODEL: dict[str, Any] = {
    "name": "project",
    "volumes": {"data": {}},
    "services": {
        "web": {
            **OWN,
            "environment": {"STORE": "postgresql://web@store:5432/web"},
            "ports": [{"target": 8000, "published": "5000"}],
            "depends_on": {"web-migrate": {"condition": "service_completed_successfully"}},
        },
        "web-migrate": {
            **OWN,
            "command": ["python3", "-m", "web.migrate"],
            "healthcheck": {"disable": True},
            "depends_on": {"store": {"condition": "service_healthy"}},
        },
        "store": {
            **COMMON,
            "image": "postgres:17",
            "user": "999",
            "stop_grace_period": "1m30s",
            "healthcheck": {"test": ["CMD", "pg_isready"], "interval": "7s", "start_interval": "200ms"},
            "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
        },
    },
}
ONCE = {"replicas": 1, "update_config": {"order": "stop-first"}, "resources": {}}


# Each object is validated with a schema of 1 MB, which is read from its file each time.
mock.patch("kubernetes_validate.utils.schema_contents", functools.cache(schema_contents)).start()


def script(name: str, *arguments: str, model: dict[str, Any] = MODEL) -> str:
    """What a script prints when it runs in this process."""
    printed, path = io.StringIO(), ROOT / "deploy" / name
    given = io.StringIO(json.dumps(model))
    with (
        mock.patch.multiple(sys, argv=[name, *arguments], stdin=given, path=[str(path.parent), *sys.path]),
        redirect_stdout(printed),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as end:
            print(end)
    return printed.getvalue()


def with_store(**settings: Any) -> dict[str, Any]:
    """The model with other settings for the database."""
    return {**MODEL, "services": {**MODEL["services"], "store": {**MODEL["services"]["store"], **settings}}}


def configured(folder: Path, text: str = "level = 1\n") -> dict[str, Any]:
    """The model with two configuration files for the service and its job."""
    (folder / "settings").write_text(text)
    configs = {"settings": {"file": str(folder / "settings")}, "inline": {"content": "price: $$5\n"}}
    used = [{"source": "settings"}, {"source": "inline", "target": "/etc/inline.yaml", "mode": "0440"}]
    services = MODEL["services"]
    with_configs = {name: {**services[name], "configs": used} for name in ("web", "web-migrate")}
    return {**MODEL, "configs": configs, "services": {**services, **with_configs}}


@pytest.mark.parametrize("arguments", [("kubernetes.py",), ("swarm.py", "host")])
def test_what_is_not_translated_is_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    name, *rest = arguments
    said = script(name, str(tmp_path / "stack.yaml"), *rest, model=with_store(network_mode="host", devices=[]))
    assert said.splitlines()[:-1] == ["warning: store: `network_mode` is not translated"]
    limits = {"limits": {"cpus": 1}, "reservations": {"cpus": 1}}
    deploy = {"mode": "global", "replicas": 1, "placement": {}, "resources": limits}
    said = script(name, str(tmp_path / "stack.yaml"), *rest, model=with_store(deploy=deploy, scale=1))
    assert said.splitlines()[:-1] == [
        "warning: store: `deploy.mode` is not translated",
        "warning: store: `deploy.resources.reservations` is not translated",
    ]
    said = script(name, str(tmp_path / "stack.yaml"), *rest, model=with_store(mem_limit=None))
    assert said == "store has no `mem_limit`, and would share its machine with others\n"


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"ports": [{"target": 80, "published": "80", "host_ip": "192.0.2.7", "mode": "ingress"}]}, "ports.host_ip"),
        ({"ports": [{"target": 80, "published": "80", "host_ip": "127.0.0.1", "protocol": "tcp"}]}, ""),
        ({"tmpfs": ["/a:size=5,mode=1777,noexec", "/b"]}, ""),
        ({"tmpfs": ["/a:size=5,exec"]}, "tmpfs"),
        ({"tmpfs": ["/a:size=50%"]}, "tmpfs"),
        ({"volumes": [{"type": "tmpfs", "target": "/a", "tmpfs": {"size": "5", "mode": 0o700}}]}, "volumes.tmpfs.mode"),
        ({"security_opt": ["no-new-privileges:true"]}, ""),
        ({"security_opt": ["no-new-privileges", "seccomp=unconfined"]}, "security_opt"),
        ({"networks": {"back": {"ipv4_address": "192.0.2.7"}}}, "networks.back.ipv4_address"),
        ({"networks": {"back": None}}, ""),
        ({"labels": {"stack.clone": "project-1"}, "x-own": 1, "restart": "always", "develop": {"watch": [{"path": "."}]}}, ""),
        ({"depends_on": {"web": {"condition": "service_started", "required": True, "restart": True}}}, "depends_on.web.restart"),
        ({"deploy": {"mode": "replicated", "update_config": {"order": "stop-first", "parallelism": 2}}}, "deploy.update_config.parallelism"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("arguments", [("kubernetes.py",), ("swarm.py", "host")])
def test_what_is_not_translated_below_a_setting_is_told(
    tmp_path: Path, arguments: tuple[str, ...], setting: dict[str, Any], told: str
) -> None:
    name, *rest = arguments
    store = {**MODEL["services"]["store"], "volumes": [], **setting}
    services = {"store": store, "web": {**MODEL["services"]["web"], "environment": {}, "depends_on": {}}}
    *said, _ = script(name, str(tmp_path / "stack.yaml"), *rest, model={**MODEL, "services": services}).splitlines()
    assert [line for line in said if "`" in line] == ([f"warning: store: `{told}` is not translated"] if told else [])


@pytest.mark.parametrize("arguments", [("kubernetes.py",), ("swarm.py", "host")])
def test_what_is_not_translated_of_networks_and_volumes_is_told(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    name, *rest = arguments
    models = {
        "networks": {"default": {"name": "ours_default", "ipam": {}}, "back": {"ipam": {"config": [{"subnet": "192.0.2.0/24"}]}}},
        "volumes": {"data": {"name": "ours_data", "driver_opts": {"type": "nfs"}, "labels": {"stack.clone": "x"}}},
        "secrets": {"password": {"name": "ours_password", "file": "/p", "driver": "vault"}},
    }  # fmt: skip
    *said, _ = script(name, str(tmp_path / "stack.yaml"), *rest, model={**MODEL, **models}).splitlines()
    told = [
        "warning: the network back: `ipam` is not translated",
        "warning: the volume data: `driver_opts` is not translated",
        "warning: the secret password: `driver` is not translated",
    ]
    assert said == (told if name == "kubernetes.py" else [told[0], told[2]])


@pytest.mark.parametrize("arguments", [("kubernetes.py",), ("swarm.py", "host")])
def test_an_external_secret_has_its_own_name(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """And the file its target in the container, and a mode that is a number, as Docker's client wants it."""
    name, *rest = arguments
    model = {**with_store(secrets=[{"source": "key", "mode": "0440"}]), "secrets": {"key": {"name": "theirs", "external": True}}}  # fmt: skip
    assert json.loads(script(name, str(tmp_path / "stack.yaml"), *rest, model=model))["secrets"] == ["password", "theirs"]  # fmt: skip
    if name == "swarm.py":
        stack = yaml.safe_load((tmp_path / "stack.yaml").read_text())
        assert stack["secrets"]["theirs"] == {"external": True}
        assert stack["services"]["store"]["secrets"] == [{"source": "theirs", "target": "key", "mode": 0o440}]
    else:
        *_, store = yaml.safe_load_all((tmp_path / "stack.yaml/store.yaml").read_text())
        (volume,) = [it["projected"] for it in store["spec"]["template"]["spec"]["volumes"] if "projected" in it]
        items = [{"key": "theirs", "path": "key", "mode": 0o440}]
        assert volume["sources"] == [{"secret": {"name": "theirs", "items": items}}]


@pytest.mark.parametrize("arguments", [("kubernetes.py",), ("swarm.py", "host")])
def test_what_is_needed_where_its_profile_is_chosen_only(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    name, *rest = arguments
    waits = {"mail": {"condition": "service_started", "required": False}, **MODEL["services"]["web"]["depends_on"]}
    services = {**MODEL["services"], "web": {**MODEL["services"]["web"], "depends_on": waits}}
    said = script(name, str(tmp_path / "out"), *rest, model={**MODEL, "services": services})
    assert json.loads(said)["secrets"] == ["password"]


@pytest.mark.parametrize(
    ("given", "size"),
    [("/a", 0), ("/a:size=5,mode=1777", 5), ("/a:rw,size=64M", 64 << 20), ("/a:size=1g", 1 << 30), ("/a:size=50%", 0)],
)
def test_sizes_of_file_systems_in_memory(given: str, size: int) -> None:
    code = "import model, sys; print(model.tmpfs({'tmpfs': sys.argv[1:]}))"
    done = subprocess.run([sys.executable, "-Bc", code, given], cwd=ROOT / "deploy", capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == f"{{'/a': {size}}}\n"


def test_a_text_stays_a_text() -> None:
    """To the parsers of Docker and Kubernetes, some are numbers or true, which are texts to PyYAML."""
    texts = ["1e3", "-1.5e3", ".5e3", "0o17", "y", "N", "no", "12:30:00", "1.2", "~", "=", "", "two\nlines", "it's \"so\"", "7s"]  # fmt: skip
    code = "import json, model, sys; print(model.as_yaml(json.load(sys.stdin)))"
    done = subprocess.run([sys.executable, "-Bc", code], cwd=ROOT / "deploy", input=json.dumps(texts), capture_output=True, text=True, check=True)  # fmt: skip
    assert yaml.safe_load(done.stdout) == texts
    assert [line[2:] for line in done.stdout.splitlines()[:6]] == ["'1e3'", "'-1.5e3'", "'.5e3'", "'0o17'", "'y'", "'N'"]  # fmt: skip
    assert "- 7s\n" in done.stdout


@pytest.mark.parametrize("arguments", [("kubernetes.py",), ("swarm.py", "host")])
def test_a_config_whose_text_is_elsewhere(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    name, *rest = arguments
    model = {**with_store(configs=[{"source": "theirs"}]), "configs": {"theirs": {"external": True}}}
    said = script(name, str(tmp_path / "out"), *rest, model=model)
    assert said == "the config theirs of store has neither `file` nor `content`\n"
    (tmp_path / "binary").write_bytes(b"\xff")
    for file in ("binary", "missing"):
        model["configs"] = {"theirs": {"file": str(tmp_path / file)}}
        said = script(name, str(tmp_path / "out"), *rest, model=model)
        assert said.startswith("the config theirs of store is no text that can be read: ")
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
