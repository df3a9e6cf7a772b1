"""What deploy/ makes of a Compose model, and how a roll-out is watched; the engines are pretended."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from ..project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

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
            "user": "postgres",
            "stop_grace_period": "1m30s",
            "healthcheck": {"test": ["CMD", "pg_isready"], "interval": "7s", "start_interval": "200ms"},
            "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
        },
    },
}


def script(name: str, *arguments: str, model: dict[str, Any] = MODEL) -> str:
    command = [sys.executable, "-B", str(ROOT / "deploy" / name), *arguments]
    done = subprocess.run(command, input=json.dumps(model), capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects for Kubernetes, by kind and name."""
    tmp_path = tmp_path_factory.mktemp("kubernetes")
    assert script("kubernetes.py", str(tmp_path / "base")) == ""
    files = yaml.safe_load((tmp_path / "base/kustomization.yaml").read_text())["resources"]
    documents = [d for name in files for d in yaml.safe_load_all((tmp_path / "base" / name).read_text())]
    return {(found["kind"], found["metadata"]["name"]): found for found in documents}


def container(found: dict[str, Any]) -> dict[str, Any]:
    return dict(found["spec"]["template"]["spec"]["containers"][0])


def test_a_deployment_replaces_pods_without_a_gap(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    web = rendered["Deployment", "web"]
    assert web["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert container(web)["image"] == f"here/web{DIGEST}"
    for probe, path in (("startupProbe", []), ("readinessProbe", ["/readyz"]), ("livenessProbe", [])):
        assert container(web)[probe]["exec"]["command"] == ["python3", "/app/healthcheck.py", *path]
    assert container(web)["lifecycle"]["preStop"]["sleep"]["seconds"] < web["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]  # fmt: skip
    assert rendered["HorizontalPodAutoscaler", "web"]["spec"]["minReplicas"] == 2
    assert rendered["PodDisruptionBudget", "web"]["spec"]["maxUnavailable"] == 1


def test_a_service_with_a_volume_is_a_stateful_set(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    store = rendered["StatefulSet", "store"]
    assert store["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert {"name": "data", "mountPath": "/data"} in container(store)["volumeMounts"]
    assert container(store)["readinessProbe"]["exec"]["command"] == ["pg_isready"]
    assert container(store)["livenessProbe"]["periodSeconds"] == 7
    assert store["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 95
    assert ("Deployment", "store") not in rendered


def test_a_migration_is_a_job_of_its_image_between_the_database_and_the_service(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    job = rendered["Job", "web-migrate-abababab"]
    assert container(job)["args"] == ["python3", "-m", "web.migrate"]
    assert "readinessProbe" not in container(job)
    assert (job["spec"]["backoffLimit"], job["spec"]["template"]["spec"]["restartPolicy"]) == (0, "Never")
    steps = [rendered[found]["metadata"]["labels"]["stack.step"] for found in (("StatefulSet", "store"), ("Job", "web-migrate-abababab"), ("Deployment", "web"))]  # fmt: skip
    assert steps == ["0", "1", "2"]


def test_network_policies_allow_what_depends_on_says(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    store = rendered["NetworkPolicy", "store"]["spec"]
    (allowed,) = store["ingress"]
    assert allowed["ports"] == [{"port": 5432, "protocol": "TCP"}]
    names = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for peer in allowed["from"]]
    assert names == ["web", "web-migrate"]  # web needs the job, and so its database
    assert [rule["ports"][0]["port"] for rule in store["egress"]] == [53]
    assert rendered["NetworkPolicy", "web"]["spec"]["ingress"] == [{"ports": [{"port": 8000, "protocol": "TCP"}]}]


def test_pods_satisfy_the_restricted_security_standard(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert rendered["Namespace", "project"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = [found["spec"]["template"]["spec"] for found in rendered.values() if "template" in found.get("spec", {})]
    assert len(pods) == 3
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        security = pod["containers"][0]["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {kind for volume in pod["volumes"] for kind in volume} <= {"name", "emptyDir", "projected"}


def test_secrets_are_references(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert not any(kind == "Secret" for kind, _ in rendered)
    volumes = rendered["Deployment", "web"]["spec"]["template"]["spec"]["volumes"]
    (sources,) = [volume["projected"]["sources"] for volume in volumes if "projected" in volume]
    assert sources == [{"secret": {"name": "password", "items": [{"key": "password", "path": "password"}]}}]


def test_what_the_schemas_forbid_is_not_written(tmp_path: Path) -> None:
    broken = {**MODEL, "services": {"store": {**MODEL["services"]["store"], "working_dir": ["a", "list"]}}}
    assert "is not of type" in script("kubernetes.py", str(tmp_path / "base"), model=broken)
    assert not (tmp_path / "base/store.yaml").exists()


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


def plan(folder: Path, ports: str = "host", **services: dict[str, Any]) -> dict[str, Any]:
    """What the script for Swarm says, with other settings for some services, or with others."""
    model = {**MODEL, "services": {**MODEL["services"], **services}}
    return dict(json.loads(script("swarm.py", str(folder / "stack.yaml"), ports, model=model)))


def test_jobs_run_before_the_rest_and_after_what_they_need(tmp_path: Path) -> None:
    files = plan(tmp_path)["files"]
    names = ("stack-0.yaml", "stack-1.yaml", "stack.yaml")
    assert files == dict(zip([str(tmp_path / name) for name in names], [["store"], ["web-migrate"], ["store", "web"]], strict=True))  # fmt: skip
    needs, jobs, rest = (yaml.safe_load((tmp_path / name).read_text())["services"] for name in names)
    assert [set(needs), set(jobs), set(rest)] == [{"store"}, {"web-migrate"}, {"store", "web"}]
    assert needs["store"] == rest["store"]
    assert jobs["web-migrate"]["deploy"]["mode"] == "replicated-job"
    assert jobs["web-migrate"]["deploy"]["restart_policy"] == {"condition": "none"}


def test_without_jobs_there_is_one_step(tmp_path: Path) -> None:
    said = script("swarm.py", str(tmp_path / "stack.yaml"), "host", model={**MODEL, "services": {"store": MODEL["services"]["store"]}})  # fmt: skip
    assert json.loads(said) == {"files": {str(tmp_path / "stack.yaml"): ["store"]}, "nodes": {}}


ONCE = {"replicas": 1, "update_config": {"order": "stop-first"}, "resources": {}}


def test_a_process_that_must_run_once_on_swarm(tmp_path: Path) -> None:
    plan(tmp_path, beat={**OWN, "deploy": ONCE})
    deploy = yaml.safe_load((tmp_path / "stack.yaml").read_text())["services"]["beat"]["deploy"]
    assert deploy["replicas"] == 1
    assert (deploy["update_config"]["order"], deploy["rollback_config"]["order"]) == ("stop-first", "stop-first")


def test_a_process_that_must_run_once_on_kubernetes(tmp_path: Path) -> None:
    beat, three = {**OWN, "deploy": ONCE}, {**OWN, "deploy": {"replicas": 3}}
    model = {**MODEL, "services": {"beat": beat, "three": three}}
    assert script("kubernetes.py", str(tmp_path), model=model) == ""
    once, several = (list(yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text())) for name in ("beat", "three"))
    assert [found["kind"] for found in once] == ["NetworkPolicy", "Deployment"]
    assert (once[1]["spec"]["replicas"], once[1]["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert [found["kind"] for found in several] == ["NetworkPolicy", "PodDisruptionBudget", "Deployment"]
    assert (several[2]["spec"]["replicas"], several[2]["spec"]["strategy"]["type"]) == (3, "RollingUpdate")


def test_how_many_nodes_ports_in_host_mode_need(tmp_path: Path) -> None:
    web = MODEL["services"]["web"]
    assert plan(tmp_path)["nodes"] == {"web": 3}
    assert plan(tmp_path, web={**web, "deploy": {"replicas": 4}})["nodes"] == {"web": 5}
    assert plan(tmp_path, web={**web, "deploy": ONCE})["nodes"] == {"web": 1}
    assert plan(tmp_path, "ingress")["nodes"] == {}


def test_dockers_client_understands_the_stack(tmp_path: Path, docker: str) -> None:
    for ports in ("host", "ingress"):
        script("swarm.py", str(tmp_path / "stack.yaml"), ports)
        subprocess.run([docker, "stack", "config", "-c", tmp_path / "stack.yaml"], check=True, capture_output=True)
