"""Writes Compose's production model as files for Docker Swarm: ``python swarm.py FILE host|ingress <model.json``.

`nox -s deploy` runs it, and gives it the model with images by digest. Where there are jobs, such as migrations, there
are further files: what the jobs need, and then the jobs, are deployed first. Its last line says, in JSON, the files in
their order, each with its services, how many nodes a service needs for a port in host mode, and the secrets.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from model import (
    ANY,
    KNOWN,
    MACHINE_LABELS,
    SERVICE,
    Object,
    as_yaml,
    configs,
    jobs,
    limits,
    load,
    pick,
    replicas,
    secrets,
    step,
    stops_first,
    tmpfs,
    volumes,
)

# What Swarm takes from a service's Compose settings as it is.
SAME = (
    *("image", "command", "entrypoint", "user", "working_dir", "environment", "stop_grace_period"),
    *("read_only", "cap_drop", "secrets", "logging", "healthcheck"),
    # Which Kubernetes has not, or elsewhere:
    *("cap_add", "dns", "dns_search", "extra_hosts", "hostname", "init", "stop_signal", "sysctls", "tty", "ulimits"),
)
NETWORK = ("name", "external", "internal", "attachable", "driver_opts")
VOLUME = ("name", "external", "driver", "driver_opts")
TRANSLATED = KNOWN | {
    "services": SERVICE
    | dict.fromkeys((*SAME, "configs", "labels"), ANY)
    | {"deploy": SERVICE["deploy"] | {"labels": ANY, "placement": ANY}},
    "networks": KNOWN["networks"] | dict.fromkeys(NETWORK, ANY),
    "volumes": KNOWN["volumes"] | dict.fromkeys(VOLUME, ANY),
}


def service(model: Object, name: str, ports: str) -> Object:
    """A service as Swarm runs it."""
    spec = model["services"][name]
    found = pick(spec, *SAME)
    if labels := {key: value for key, value in (spec.get("labels") or {}).items() if key not in MACHINE_LABELS}:
        found["labels"] = labels
    # A stack's own setting tmpfs is ignored without a word.
    found["volumes"] = [volume for volume in spec.get("volumes") or () if volume["type"] != "tmpfs"]
    for path, size in tmpfs(spec).items():
        found["volumes"].append({"type": "tmpfs", "target": path} | ({"tmpfs": {"size": size}} if size else {}))
    if networks := spec.get("networks"):
        found["networks"] = {name: pick(given or {}, "aliases") for name, given in networks.items()}
    if files := configs(model, name):
        found["configs"] = [{key: value for key, value in file.items() if key != "text"} for file in files]
    if known := numbered(spec):
        found["ports"] = [
            pick(p, "target", "protocol") | {"published": int(p["published"]), "mode": ports} for p in known
        ]
    most = {key: value if key == "pids" else str(value) for key, value in limits(name, spec).items() if value}
    deploy: Object = {**pick(spec.get("deploy") or {}, "labels", "placement"), "resources": {"limits": most}}
    # Without a virtual address, every name resolves to the replicas themselves; ports in host mode need no other.
    deploy["endpoint_mode"] = "dnsrr" if ports == "host" else "vip"
    if volumes(spec):
        deploy.setdefault("placement", {"constraints": [f"node.labels.{name} == true"]})  # where its files are
    if name in jobs(model):
        # What it needs runs already, so that another attempt would fail, too.
        return found | {"deploy": {**deploy, "mode": "replicated-job", "restart_policy": {"condition": "none"}}}
    # In the delay, a proxy finds the new task, and Swarm sees one that has failed: without it, Swarm may begin with the next
    # one, which finds no machine with a free port, and never roll back.
    order = "stop-first" if stops_first(spec) else "start-first"
    rolling = {"parallelism": 1, "order": order, "delay": "2s", "monitor": "15s"}
    return found | {
        "deploy": {
            **deploy,
            "replicas": replicas(spec),
            "update_config": {**rolling, "failure_action": "rollback"},
            "rollback_config": rolling,
            "restart_policy": {"condition": "any", "delay": "1s"},
        }
    }


def numbered(spec: Object) -> list[Object]:
    """A service's ports with one number; where Compose takes a free one of this machine, there is none, or several."""
    return [port for port in spec.get("ports") or () if port.get("published", "").isdigit()]


def behind(model: Object, service: str) -> set[str]:
    """All that a service depends on, directly or not."""
    direct = set(model["services"][service].get("depends_on") or {})
    return direct.union(*(behind(model, name) for name in direct))


def write_configs(model: Object, names: set[str], folder: Path) -> Object:
    """Write the configuration files of some services; those of a swarm cannot be changed, so other texts have other names."""
    found = {}
    for config in (config for name in names for config in configs(model, name)):
        name, file = config["source"], folder / f"config-{config['source']}"
        file.write_text(config["text"], encoding="utf-8")
        digest = hashlib.sha256(config["text"].encode()).hexdigest()
        found[name] = {"name": f"{model['name']}_{name}-{digest[:8]}", "file": str(file.absolute())}
    return found


def render(model: Object, names: set[str], ports: str, folder: Path) -> Object:
    """The content of a file with some services."""
    services = {name: service(model, name, ports) for name in sorted(names)}
    used = secrets({"services": services})
    networks = {
        name: pick(given, *NETWORK) | ({} if given.get("external") else {"driver": "overlay"})
        for name, given in (model.get("networks") or {"default": {}}).items()
    }
    return {
        "version": "3.12",  # the newest that Docker 26 knows
        "services": services,
        "volumes": {name: pick(given, *VOLUME) for name, given in model.get("volumes", {}).items()},
        "secrets": {name: {"external": True} for name in used},
        "configs": write_configs(model, names, folder),
        "networks": networks,
    }


def main() -> None:
    """Write the files."""
    model, path, ports = load(TRANSLATED), Path(sys.argv[1]), sys.argv[2]
    once = jobs(model)
    first = once.union(*(behind(model, name) for name in once))
    parts: dict[Path, set[str]] = {}
    for number in sorted({step(model, name) for name in first}):
        names = {name for name in first if step(model, name) == number}
        parts[path.with_stem(f"{path.stem}-{number}")] = names
    parts[path] = set(model["services"]) - once
    for file, names in parts.items():
        content = render(model, names, ports, path.parent)
        file.write_text(as_yaml(content), encoding="utf-8")
    for name, spec in model["services"].items():
        for port in [port for port in spec.get("ports") or () if port not in numbered(spec)]:
            print(f"warning: {name}: the port {port['target']} has no number of its own, and is not published")
    taken = {name: spec for name, spec in model["services"].items() if numbered(spec) and ports == "host"}
    nodes = {name: replicas(spec) + (not stops_first(spec)) for name, spec in taken.items()}
    files = {str(file): sorted(names) for file, names in parts.items()}
    print(json.dumps({"files": files, "nodes": nodes, "secrets": secrets(model)}))


if __name__ == "__main__":
    main()
