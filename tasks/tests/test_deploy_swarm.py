"""What deploy/swarm.py makes of a Compose model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from .test_deploy import MODEL, ONCE, OWN, configured, script


def plan(folder: Path, ports: str = "host", **services: dict[str, Any]) -> dict[str, Any]:
    """What the script for Swarm says, with other settings for some services, or with others."""
    model = {**MODEL, "services": {**MODEL["services"], **services}}
    return dict(json.loads(script("swarm.py", str(folder / "stack.yaml"), ports, model=model)))


def test_a_stack_for_swarm(tmp_path: Path) -> None:
    plan(tmp_path)
    stack = yaml.safe_load((tmp_path / "stack.yaml").read_text())
    web, store = (stack["services"][name] for name in ("web", "store"))
    assert web["deploy"]["replicas"] == 2
    assert web["deploy"]["update_config"] == {"parallelism": 1, "order": "start-first", "delay": "2s", "monitor": "15s", "failure_action": "rollback"}  # fmt: skip
    assert web["ports"] == [{"target": 8000, "published": 5000, "mode": "host"}]
    assert web["deploy"]["endpoint_mode"] == "dnsrr"
    assert web["volumes"] == [{"type": "tmpfs", "target": "/tmp"}]  # noqa: S108
    assert store["deploy"]["replicas"] == 1
    assert store["deploy"]["update_config"]["order"] == "stop-first"
    assert stack["secrets"] == {"password": {"external": True}}


def test_ports_of_another_protocol_and_without_a_number(tmp_path: Path) -> None:
    ports = [{"target": 53, "published": "53", "protocol": "udp"}, {"target": 9}, {"target": 8, "published": "70-79"}]
    services = {**MODEL["services"], "web": {**MODEL["services"]["web"], "ports": ports}}
    said = script("swarm.py", str(tmp_path / "stack.yaml"), "host", model={**MODEL, "services": services})
    assert said.splitlines()[:-1] == [
        f"warning: web: the port {port} has no number of its own, and is not published" for port in (9, 8)
    ]
    assert json.loads(said.splitlines()[-1])["nodes"] == {"web": 3}
    web = yaml.safe_load((tmp_path / "stack.yaml").read_text())["services"]["web"]
    assert web["ports"] == [{"target": 53, "protocol": "udp", "published": 53, "mode": "host"}]


def test_what_swarm_takes_as_it_is(tmp_path: Path, docker: str) -> None:
    """Also as Docker's client understands it."""
    same = {"init": True, "stop_signal": "SIGQUIT", "cap_add": ["CHOWN"], "ulimits": {"nofile": {"soft": 9, "hard": 9}}, "sysctls": {"net.core.somaxconn": "9"}, "dns": ["192.0.2.1"], "hostname": "web", "labels": {"team": "a"}}  # fmt: skip
    texts = {"SHA": "1e3", "FLAG": "y", "MODE": "0o17", "PRICE": "$$5"}
    mounts = [
        {"type": "bind", "source": "/files", "target": "/files", "bind": {"create_host_path": True}},
        {"type": "tmpfs", "target": "/cache", "tmpfs": {"size": "1000000", "mode": 1023}},
        {"type": "volume", "target": "/anonymous", "volume": {}},
    ]
    given = {"extra_hosts": ["else=192.0.2.1"], "labels": {"stack.clone": "project-1", "team": "a"}}
    web = {**MODEL["services"]["web"], **same, **given, "environment": texts, "volumes": mounts}
    assert "warning" not in script("swarm.py", str(tmp_path / "stack.yaml"), "host", model={**MODEL, "services": {"web": {**web, "depends_on": {}}}})  # fmt: skip
    config = subprocess.run([docker, "stack", "config", "-c", tmp_path / "stack.yaml"], check=True, capture_output=True)
    found = yaml.safe_load(config.stdout)["services"]["web"]
    assert {key: found[key] for key in same} == same
    assert found["extra_hosts"] == ["else:192.0.2.1"]
    assert found["environment"] == {**texts, "PRICE": "$5"}
    assert [(mount["type"], mount["target"]) for mount in found["volumes"]] == [
        ("bind", "/files"),
        ("volume", "/anonymous"),
        ("tmpfs", "/tmp"),  # noqa: S108
        ("tmpfs", "/cache"),
    ]
    assert [mount.get("tmpfs") for mount in found["volumes"]] == [None, None, None, {"size": 1000000}]


def test_networks_and_volumes_on_swarm(tmp_path: Path, docker: str) -> None:
    networks = {"default": {"name": "project_default", "ipam": {}}, "back": {"name": "project_back", "internal": True}, "town": {"name": "town", "external": True}}  # fmt: skip
    shared = {"name": "project_data", "driver_opts": {"type": "nfs", "o": "addr=192.0.2.1", "device": ":/data"}}
    store = {**MODEL["services"]["store"], "networks": {"back": {"aliases": ["database"], "priority": 1}, "town": None}}
    model = {**MODEL, "networks": networks, "volumes": {"data": {**shared, "labels": {}}}, "services": {"store": store}}
    script("swarm.py", str(tmp_path / "stack.yaml"), "host", model=model)
    stack = yaml.safe_load((tmp_path / "stack.yaml").read_text())
    assert stack["services"]["store"]["networks"] == {"back": {"aliases": ["database"]}, "town": {}}
    assert stack["networks"] == {
        "default": {"name": "project_default", "driver": "overlay"},
        "back": {"name": "project_back", "internal": True, "driver": "overlay"},
        "town": {"name": "town", "external": True},
    }
    assert stack["volumes"] == {"data": shared}
    subprocess.run([docker, "stack", "config", "-c", tmp_path / "stack.yaml"], check=True, capture_output=True)


def test_who_needs_a_labelled_node(tmp_path: Path) -> None:
    """Jobs, too, if they have a volume; not who has file systems in memory alone."""
    volumes = MODEL["services"]["store"]["volumes"]
    memory = {**MODEL["services"]["web"], "volumes": [{"type": "tmpfs", "target": "/cache"}]}
    plan(tmp_path, "host", web=memory, **{"web-migrate": {**MODEL["services"]["web-migrate"], "volumes": volumes}})
    job, web = (yaml.safe_load((tmp_path / f"{file}.yaml").read_text())["services"][name]["deploy"] for file, name in (("stack-1", "web-migrate"), ("stack", "web")))  # fmt: skip
    assert job["placement"] == {"constraints": ["node.labels.web-migrate == true"]}
    assert "placement" not in web
    assert web["replicas"] == 2


def test_a_place_and_labels_that_compose_names(tmp_path: Path, docker: str) -> None:
    """Labels of services are what proxies such as Traefik read."""
    given = {"placement": {"constraints": ["node.role == manager"]}, "labels": {"traefik.enable": "true"}}
    store = {**MODEL["services"]["store"], "deploy": given}
    assert "warning" not in script("swarm.py", str(tmp_path / "stack.yaml"), "host", model={**MODEL, "services": {"store": store}})  # fmt: skip
    deploy = yaml.safe_load((tmp_path / "stack.yaml").read_text())["services"]["store"]["deploy"]
    assert {key: deploy[key] for key in given} == given
    subprocess.run([docker, "stack", "config", "-c", tmp_path / "stack.yaml"], check=True, capture_output=True)


def test_jobs_run_before_the_rest_and_after_what_they_need(tmp_path: Path) -> None:
    files = plan(tmp_path)["files"]
    names = ("stack-0.yaml", "stack-1.yaml", "stack.yaml")
    assert files == dict(zip([str(tmp_path / name) for name in names], [["store"], ["web-migrate"], ["store", "web"]], strict=True))  # fmt: skip
    needs, jobs, rest = (yaml.safe_load((tmp_path / name).read_text())["services"] for name in names)
    assert [set(needs), set(jobs), set(rest)] == [{"store"}, {"web-migrate"}, {"store", "web"}]
    assert needs["store"] == rest["store"]
    assert jobs["web-migrate"]["deploy"]["mode"] == "replicated-job"
    assert jobs["web-migrate"]["deploy"]["restart_policy"] == {"condition": "none"}


def test_what_a_job_needs_is_deployed_after_what_that_needs(tmp_path: Path) -> None:
    cache, store = MODEL["services"]["store"], {**MODEL["services"]["store"], "depends_on": {"cache": {"condition": "service_healthy"}}}  # fmt: skip
    assert list(plan(tmp_path, store=store, cache=cache)["files"].values()) == [["cache"], ["store"], ["web-migrate"], ["cache", "store", "web"]]  # fmt: skip


def test_without_jobs_there_is_one_step(tmp_path: Path) -> None:
    said = script("swarm.py", str(tmp_path / "stack.yaml"), "host", model={**MODEL, "services": {"store": MODEL["services"]["store"]}})  # fmt: skip
    assert json.loads(said) == {"files": {str(tmp_path / "stack.yaml"): ["store"]}, "nodes": {}, "secrets": []}


def test_a_process_that_must_run_once_on_swarm(tmp_path: Path) -> None:
    plan(tmp_path, beat={**OWN, "deploy": ONCE})
    deploy = yaml.safe_load((tmp_path / "stack.yaml").read_text())["services"]["beat"]["deploy"]
    assert deploy["replicas"] == 1
    assert (deploy["update_config"]["order"], deploy["rollback_config"]["order"]) == ("stop-first", "stop-first")


def test_how_many_nodes_ports_in_host_mode_need(tmp_path: Path) -> None:
    web = MODEL["services"]["web"]
    assert plan(tmp_path)["nodes"] == {"web": 3}
    assert plan(tmp_path, web={**web, "deploy": {"replicas": 4}})["nodes"] == {"web": 5}
    assert plan(tmp_path, web={**web, "deploy": ONCE})["nodes"] == {"web": 1}
    assert plan(tmp_path, "ingress")["nodes"] == {}


def test_configs_on_swarm_are_named_by_their_text(tmp_path: Path, docker: str) -> None:
    """Swarm's cannot be changed: another text under the same name would be refused."""
    names = []
    for text in ("level = 1\n", "level = 1\n", "level = 2\n"):
        assert "warning" not in script(
            "swarm.py", str(tmp_path / "stack.yaml"), "host", model=configured(tmp_path, text)
        )
        stack = yaml.safe_load((tmp_path / "stack.yaml").read_text())
        names.append(stack["configs"]["settings"]["name"])
        assert (tmp_path / stack["configs"]["settings"]["file"]).read_text() == text
    assert names[0] == names[1] != names[2]
    assert (tmp_path / stack["configs"]["inline"]["file"]).read_text() == "price: $5\n"
    assert [(used["source"], used["target"], used["mode"]) for used in stack["services"]["web"]["configs"]] == [
        ("settings", "/settings", 0o444),
        ("inline", "/etc/inline.yaml", 0o440),
    ]
    for name in ("stack-0.yaml", "stack-1.yaml", "stack.yaml"):
        subprocess.run([docker, "stack", "config", "-c", tmp_path / name], check=True, capture_output=True)
    assert "configs" not in yaml.safe_load((tmp_path / "stack-0.yaml").read_text())["services"]["store"]


def test_dockers_client_understands_the_stack(tmp_path: Path, docker: str) -> None:
    for ports in ("host", "ingress"):
        script("swarm.py", str(tmp_path / "stack.yaml"), ports)
        subprocess.run([docker, "stack", "config", "-c", tmp_path / "stack.yaml"], check=True, capture_output=True)
