"""What deploy/kubernetes.py makes of a Compose model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .test_deploy import DIGEST, MODEL, ONCE, OWN, configured, script, with_store


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects for Kubernetes, by kind and name."""
    tmp_path = tmp_path_factory.mktemp("kubernetes")
    steps = json.loads(script("kubernetes.py", str(tmp_path / "base")))["steps"]
    files = yaml.safe_load((tmp_path / "base/kustomization.yaml").read_text())["resources"]
    documents = [d for name in files for d in yaml.safe_load_all((tmp_path / "base" / name).read_text())]
    found = {(found["kind"], found["metadata"]["name"]): found for found in documents}
    (job,) = (f"job/{name}" for kind, name in found if kind == "Job")
    assert steps == {"0": ["statefulset/store"], "1": [job], "2": ["deployment/web"]}
    return found


def container(found: dict[str, Any]) -> dict[str, Any]:
    return dict(found["spec"]["template"]["spec"]["containers"][0])


def test_a_deployment_replaces_pods_without_a_gap(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    web = rendered["Deployment", "web"]
    assert web["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert container(web)["image"] == f"here/web{DIGEST}"
    for probe, path in (("startupProbe", []), ("readinessProbe", ["/readyz"]), ("livenessProbe", [])):
        assert container(web)[probe]["exec"]["command"] == ["python3", "/app/healthcheck.py", *path]
    assert container(web)["lifecycle"]["preStop"]["sleep"]["seconds"] < web["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]  # fmt: skip
    scaler, budget = (rendered[kind, "web"]["spec"] for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"))
    assert scaler["minReplicas"] == 2
    assert scaler["metrics"][0]["resource"]["target"] == {"type": "AverageValue", "averageValue": "800m"}
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


def test_a_service_with_a_volume_is_a_stateful_set(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    store = rendered["StatefulSet", "store"]
    assert store["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "data"
    assert {"name": "data", "mountPath": "/data"} in container(store)["volumeMounts"]
    assert container(store)["readinessProbe"]["exec"]["command"] == ["pg_isready"]
    assert container(store)["livenessProbe"]["periodSeconds"] == 7
    assert container(store)["startupProbe"]["failureThreshold"] == 60 + 3 * 7  # as Compose counts
    assert store["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 95
    assert store["spec"]["podManagementPolicy"] == "Parallel"  # a pod that is never ready is replaced, too
    assert ("Deployment", "store") not in rendered


def job_of(folder: Path, **settings: Any) -> dict[str, Any]:
    """The migrations' job, with other settings."""
    services = MODEL["services"]
    model = {**MODEL, "services": {**services, "web-migrate": {**services["web-migrate"], **settings}}}
    script("kubernetes.py", str(folder), model=model)
    documents = yaml.safe_load_all((folder / "web-migrate.yaml").read_text())
    return next(dict(found) for found in documents if found["kind"] == "Job")


def test_a_migration_is_a_job_between_the_database_and_the_service(
    rendered: dict[tuple[str, str], dict[str, Any]], tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    assert container(job)["args"] == ["python3", "-m", "web.migrate"]
    assert "readinessProbe" not in container(job)
    assert (job["spec"]["backoffLimit"], job["spec"]["template"]["spec"]["restartPolicy"]) == (0, "Never")
    steps = [rendered[found]["metadata"]["labels"]["stack.step"] for found in (("StatefulSet", "store"), ("Job", job["metadata"]["name"]), ("Deployment", "web"))]  # fmt: skip
    assert steps == ["0", "1", "2"]


def test_a_job_that_would_be_another_one_has_another_name(tmp_path: Path) -> None:
    """Jobs cannot be changed: applying a changed one under its old name fails."""
    names = [job_of(tmp_path, **settings)["metadata"]["name"] for settings in ({}, {}, {"environment": {"A": "b"}}, {"image": "here/web@sha256:" + "cd" * 32})]  # fmt: skip
    assert names[0] == names[1]
    assert len(set(names)) == 3


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
    said = script("kubernetes.py", str(tmp_path / "base"), model=with_store(working_dir=["a", "list"]))
    assert re.fullmatch(r"StatefulSet store for Kubernetes 1\.30: .* is not of type 'string'.*\n", said)
    assert not (tmp_path / "base").exists()


# A StatefulSet's pods have a label of its name, a dash and up to 10 characters, and a label at most 63.
@pytest.mark.parametrize("name", ["my_store", "2store", "Store", "my.store", "s" * 53])
def test_names_that_kubernetes_does_not_take(tmp_path: Path, name: str) -> None:
    model = {**MODEL, "services": {name: MODEL["services"]["store"]}}
    said = script("kubernetes.py", str(tmp_path / "base"), model=model)
    assert said.startswith(f"{name!r} is no name for Kubernetes")
    assert not (tmp_path / "base").exists()


def test_names_of_secrets_may_have_dots_and_begin_with_a_digit(tmp_path: Path) -> None:
    assert '"steps"' in script("kubernetes.py", str(tmp_path), model=with_store(secrets=[{"source": "2nd.key"}]))


def test_secrets_as_compose_names_them(tmp_path: Path) -> None:
    used = [
        {"source": "DB_key"},
        {"source": "tls", "target": "/etc/tls.pem", "mode": 0o400},
        {"source": "old", "mode": "0440"},
    ]
    plan = json.loads(script("kubernetes.py", str(tmp_path), model=with_store(secrets=used)).splitlines()[-1])
    assert plan["secrets"] == ["db-key", "old", "password", "tls"]
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    projected = [it["projected"]["sources"] for it in store["spec"]["template"]["spec"]["volumes"] if "projected" in it]
    found = [(it["secret"]["name"], it["secret"]["items"]) for sources in projected for it in sources]
    assert found == [
        ("db-key", [{"key": "DB_key", "path": "DB_key"}]),
        ("old", [{"key": "old", "path": "old", "mode": 0o440}]),
        ("tls", [{"key": "tls", "path": "tls.pem", "mode": 0o400}]),
    ]


def test_a_volume_that_is_read_only_and_mounted_twice(tmp_path: Path) -> None:
    part = {"type": "volume", "source": "data", "target": "/part", "volume": {"subpath": "sub"}}
    mounted = [{"type": "volume", "source": "data", "target": "/all", "read_only": True, "volume": {}}, part]
    assert "share" not in script("kubernetes.py", str(tmp_path), model=with_store(volumes=mounted))
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    assert len(store["spec"]["volumeClaimTemplates"]) == 1
    assert container(store)["volumeMounts"][:2] == [
        {"name": "data", "mountPath": "/all", "readOnly": True},
        {"name": "data", "mountPath": "/part", "subPath": "sub"},
    ]


@pytest.mark.parametrize("user", ["0", "0:0", "root", "root:root"])
def test_nothing_runs_as_root(tmp_path: Path, user: str) -> None:
    said = script("kubernetes.py", str(tmp_path), model=with_store(user=user))
    assert said.startswith("warning: store: it may not run as root, and gets the user 10001\n")
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    security = store["spec"]["template"]["spec"]["securityContext"]
    assert {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {10001}


def test_less_than_a_tenth_of_a_processor(tmp_path: Path) -> None:
    """A pod that requests more than its limit is refused."""
    script("kubernetes.py", str(tmp_path), model=with_store(cpus=0.05))
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    resources = container(store)["resources"]
    assert (resources["requests"]["cpu"], resources["limits"]["cpu"]) == ("50m", "0.05")


def test_files_of_this_machine_are_not_mounted_on_kubernetes(tmp_path: Path) -> None:
    mounted = [*MODEL["services"]["store"]["volumes"], {"type": "bind", "source": "/here", "target": "/there"}]
    said = script("kubernetes.py", str(tmp_path), model=with_store(volumes=mounted))
    assert said.startswith("warning: store: what is mounted at /there is not translated\n")
    assert "/there" not in (tmp_path / "store.yaml").read_text()
    script("kubernetes.py", str(tmp_path), model=with_store(volumes=mounted[1:]))
    documents = {found["kind"]: found for found in yaml.safe_load_all((tmp_path / "store.yaml").read_text())}
    assert documents["Deployment"]["spec"]["strategy"]["type"] == "RollingUpdate"  # as without it
    assert documents["HorizontalPodAutoscaler"]["spec"]["minReplicas"] == 2
    assert "PodDisruptionBudget" in documents


def test_volumes_without_a_name_or_in_memory_end_with_their_pod(tmp_path: Path) -> None:
    mounted = [
        {"type": "volume", "source": "My_Data", "target": "/data"},
        {"type": "volume", "target": "/anonymous", "volume": {}},
        {"type": "tmpfs", "target": "/cache", "tmpfs": {"size": "1000"}},
    ]
    assert "warning" not in script("kubernetes.py", str(tmp_path), model=with_store(volumes=mounted))
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    (claimed,) = store["spec"]["volumeClaimTemplates"]
    assert claimed["metadata"]["name"] == "my-data"
    mounts = {mount["mountPath"]: mount["name"] for mount in container(store)["volumeMounts"]}
    kinds = {volume["name"]: volume["emptyDir"] for volume in store["spec"]["template"]["spec"]["volumes"]}
    assert mounts["/data"] == "my-data"
    sizes = [{"sizeLimit": "64Mi"}, {"sizeLimit": 1000}, {}]
    assert [kinds[mounts[path]] for path in ("/tmp", "/cache", "/anonymous")] == sizes  # noqa: S108


def test_volumes_of_jobs_and_shared_ones_are_told(tmp_path: Path) -> None:
    volumes = MODEL["services"]["store"]["volumes"]
    web, migrate = ({**MODEL["services"][name], "volumes": volumes} for name in ("web", "web-migrate"))
    services = {**MODEL["services"], "web": web, "web-migrate": migrate}
    said = script("kubernetes.py", str(tmp_path), model={**MODEL, "services": services})
    assert said.splitlines()[:-1] == [
        "warning: web-migrate: what is mounted at /data is not translated",
        "warning: web and store share the volume data, and get one each",
    ]
    job = next(found for found in yaml.safe_load_all((tmp_path / "web-migrate.yaml").read_text()) if found["kind"] == "Job")  # fmt: skip
    assert "/data" not in [mount["mountPath"] for mount in container(job)["volumeMounts"]]


def test_a_secret_in_another_folder_hides_no_other_file_there(tmp_path: Path) -> None:
    used = [{"source": "password"}, {"source": "key", "target": "/etc/ssl/key.pem"}]
    script("kubernetes.py", str(tmp_path), model=with_store(secrets=used))
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    mounts = {mount["mountPath"]: mount.get("subPath") for mount in container(store)["volumeMounts"]}
    assert mounts.items() >= {("/run/secrets", None), ("/etc/ssl/key.pem", "key.pem")}


@pytest.mark.parametrize(
    ("user", "ids"),
    [("1000:2000", (1000, 2000)), ("1000", (1000, 1000)), ("postgres", (10001, 10001)), (None, (10001, 10001))],
)
def test_the_user_and_the_group_of_a_pod(tmp_path: Path, user: str | None, ids: tuple[int, int]) -> None:
    said = script("kubernetes.py", str(tmp_path), model=with_store(user=user))
    assert ("warning: store: its user postgres has no number here, and gets 10001\n" in said) is (user == "postgres")
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    security = store["spec"]["template"]["spec"]["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == ids
    assert security["fsGroup"] == ids[1]


def test_ports_have_their_protocols(tmp_path: Path) -> None:
    ports = [{"target": 53, "protocol": "udp"}, {"target": 53, "protocol": "tcp"}]
    settings = {"ports": ports, "expose": ["3000-3001", "514/udp"]}
    script("kubernetes.py", str(tmp_path), model=with_store(**settings))
    documents = {found["kind"]: found for found in yaml.safe_load_all((tmp_path / "store.yaml").read_text())}
    named = {(port["name"], port["port"], port["protocol"]) for port in documents["Service"]["spec"]["ports"]}
    assert named == {("port-53", 53, "TCP"), ("udp-53", 53, "UDP"), ("udp-514", 514, "UDP"), ("port-3000", 3000, "TCP"), ("port-3001", 3001, "TCP"), ("port-5432", 5432, "TCP")}  # fmt: skip
    opened = {(port["containerPort"], port["protocol"]) for port in container(documents["StatefulSet"])["ports"]}
    assert opened == {(port, protocol) for _, port, protocol in named}
    everybody, clients = documents["NetworkPolicy"]["spec"]["ingress"]
    assert everybody == {"ports": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}
    assert {(port["port"], port["protocol"]) for port in clients["ports"]} == opened


def test_an_alias_is_told(tmp_path: Path) -> None:
    said = script(
        "kubernetes.py", str(tmp_path), model=with_store(networks={"default": {"aliases": ["db"]}, "b": None})
    )
    assert said.startswith("warning: store: its alias db is not translated\n")


def test_ports_are_what_settings_name_and_what_is_exposed(tmp_path: Path) -> None:
    web, store = ({**MODEL["services"][name]} for name in ("web", "store"))
    web |= {"environment": {"HOST": "store"}, "depends_on": {"store": {"condition": "service_healthy"}}}
    unknown = "warning: web cannot reach store, whose port nothing tells: give store `expose:`\n"
    for expected, settings, environment in (
        (unknown, {}, {}),
        (unknown, {}, {"URL": "postgresql://store:5432@elsewhere/app"}),  # a user and a password
        ("", {"expose": ["5432/tcp"]}, {}),
        ("", {}, {"STORE": "store:5432"}),
    ):
        services = {"web": {**web, "environment": {"HOST": "store", **environment}}, "store": {**store, **settings}}
        said = script("kubernetes.py", str(tmp_path), model={**MODEL, "services": services})
        assert said.partition("{")[0] == expected
    assert "containerPort: 5432" in (tmp_path / "store.yaml").read_text()


def test_files_of_services_that_are_gone_are_removed(tmp_path: Path) -> None:
    base = tmp_path / "base"
    script("kubernetes.py", str(base))
    (base / "mine.yaml").write_text("# a patch\n")
    script("kubernetes.py", str(base), model={**MODEL, "services": {"store": MODEL["services"]["store"]}})
    assert sorted(path.name for path in base.iterdir()) == ["kustomization.yaml", "mine.yaml", "namespace.yaml", "store.yaml"]  # fmt: skip


def test_a_file_that_somebody_else_has_written_is_not_overwritten(tmp_path: Path) -> None:
    script("kubernetes.py", str(tmp_path))
    text = (tmp_path / "store.yaml").read_text()
    assert text.startswith("# Written by `nox -s deploy -- kubernetes`, which overwrites changes: put yours into an overlay.\n")  # fmt: skip
    (tmp_path / "store.yaml").write_text("# Mine\n")
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    told = script("kubernetes.py", str(tmp_path))
    assert re.search(r"store\.yaml does not begin with `# Written by .*`: rename it, or name another folder", told)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before


def test_an_image_of_another_dockerfile_has_no_health_check_of_ours(tmp_path: Path) -> None:
    web = {**MODEL["services"]["web"], "build": {"context": "/front"}}
    script("kubernetes.py", str(tmp_path), model={**MODEL, "services": {**MODEL["services"], "web": web}})
    (found,) = [one for one in yaml.safe_load_all((tmp_path / "web.yaml").read_text()) if one["kind"] == "Deployment"]
    assert "livenessProbe" not in container(found)


def test_a_shells_variables_in_a_health_check(tmp_path: Path) -> None:
    """In Compose's model a dollar sign is two. Kubernetes makes one of them, but not in probes."""
    check = {"test": ["CMD-SHELL", "pg_isready -U $$POSTGRES_USER"]}
    script("kubernetes.py", str(tmp_path), model=with_store(healthcheck=check))
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    assert container(store)["livenessProbe"]["exec"]["command"] == ["sh", "-c", "pg_isready -U $POSTGRES_USER"]


def test_what_only_swarm_takes_is_told(tmp_path: Path) -> None:
    settings = {"init": True, "healthcheck": {"test": ["CMD", "true"], "retries": 3}, "labels": {"team": "a"}}
    said = script("kubernetes.py", str(tmp_path), model=with_store(**settings))
    assert said.splitlines()[:-1] == [f"warning: store: `{key}` is not translated" for key in ("init", "labels.team")]
    *_, store = yaml.safe_load_all((tmp_path / "store.yaml").read_text())
    assert container(store)["livenessProbe"]["failureThreshold"] == 3


def test_a_process_that_must_run_once_on_kubernetes(tmp_path: Path) -> None:
    beat, three = {**OWN, "deploy": ONCE}, {**OWN, "scale": 3}
    model = {**MODEL, "services": {"beat": beat, "three": three}}
    steps = {"0": ["deployment/beat", "deployment/three"]}
    plan = {"steps": steps, "secrets": ["password"], "autoscaled": ""}
    assert json.loads(script("kubernetes.py", str(tmp_path), model=model)) == plan
    once, several = (list(yaml.safe_load_all((tmp_path / f"{name}.yaml").read_text())) for name in ("beat", "three"))
    assert [found["kind"] for found in once] == ["NetworkPolicy", "Deployment"]
    assert (once[1]["spec"]["replicas"], once[1]["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert [found["kind"] for found in several] == ["NetworkPolicy", "PodDisruptionBudget", "Deployment"]
    assert (several[2]["spec"]["replicas"], several[2]["spec"]["strategy"]["type"]) == (3, "RollingUpdate")


def test_configs_on_kubernetes_are_a_config_map_named_by_its_text(tmp_path: Path) -> None:
    names = []
    for text in ("level = 1\n", "level = 1\n", "level = 2\n"):
        assert json.loads(script("kubernetes.py", str(tmp_path / "base"), model=configured(tmp_path, text)))
        documents = {found["kind"]: found for found in yaml.safe_load_all((tmp_path / "base/web.yaml").read_text())}
        settings, pod = documents["ConfigMap"], documents["Deployment"]["spec"]["template"]["spec"]
        assert settings["data"] == {"settings": text, "inline": "price: $5\n"}
        assert settings["metadata"]["labels"]["stack.step"] == "2"
        (volume,) = [volume for volume in pod["volumes"] if "configMap" in volume]
        assert volume["configMap"]["name"] == settings["metadata"]["name"]
        assert volume["configMap"]["items"][1] == {"key": "inline", "path": "inline", "mode": 0o440}
        mounts = {mount["mountPath"]: mount.get("subPath") for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts.items() >= {("/settings", "settings"), ("/etc/inline.yaml", "inline")}
        names.append(settings["metadata"]["name"])
    assert names[0] == names[1] != names[2]
