"""Writes Compose's production model as a file for Docker Swarm: ``python swarm.py FILE host|ingress <model.json``.

`nox -s deploy` runs it, and gives it the model with images by digest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml
from model import Object, jobs

REPLICAS = 2
# What Swarm takes from a service's Compose settings as it is.
SAME = (
    *("image", "command", "entrypoint", "user", "working_dir", "environment", "stop_grace_period"),
    *("read_only", "cap_drop", "secrets", "logging"),
)


def service(model: Object, name: str, ports: str) -> Object:
    """A service as Swarm runs it."""
    spec = model["services"][name]
    found = {key: spec[key] for key in SAME if spec.get(key)}
    # A stack's own setting tmpfs is ignored without a word.
    found["volumes"] = [
        *spec.get("volumes", ()),
        *({"type": "tmpfs", "target": path} for path in spec.get("tmpfs") or ()),
    ]
    if check := spec.get("healthcheck"):
        found["healthcheck"] = {key: value for key, value in check.items() if key != "start_interval"}
    if spec.get("ports"):
        found["ports"] = [
            {"target": port["target"], "published": int(port["published"]), "mode": ports} for port in spec["ports"]
        ]
    limits = {"cpus": str(spec.get("cpus") or 1), "memory": str(spec["mem_limit"]), "pids": spec["pids_limit"]}
    deploy: Object = {"resources": {"limits": limits}}
    # Without a virtual address, every name resolves to the replicas themselves; ports in host mode need no other.
    deploy["endpoint_mode"] = "dnsrr" if ports == "host" else "vip"
    if name in jobs(model):
        return found | {"deploy": {**deploy, "mode": "replicated-job", "restart_policy": {"condition": "on-failure"}}}
    order = "start-first"
    if spec.get("volumes"):
        order = "stop-first"  # two of them must not write to the same files
        deploy["placement"] = {"constraints": [f"node.labels.{name} == true"]}  # where its files are
    rolling = {"parallelism": 1, "order": order, "monitor": "15s"}
    return found | {
        "deploy": {
            **deploy,
            "replicas": 1 if spec.get("volumes") else REPLICAS,
            "update_config": {**rolling, "failure_action": "rollback"},
            "rollback_config": rolling,
            "restart_policy": {"condition": "any", "delay": "1s"},
        }
    }


def render(model: Object, ports: str) -> Object:
    """The file's content."""
    services = {name: service(model, name, ports) for name in sorted(model["services"])}
    used = {secret["source"] for spec in services.values() for secret in spec.get("secrets", ())}
    return {
        "version": "3.13",
        "services": services,
        "volumes": {name: {} for name in model.get("volumes", {})},
        "secrets": {name: {"external": True} for name in sorted(used)},
        "networks": {"default": {"driver": "overlay"}},
    }


def main() -> None:
    """Write the file."""
    text = yaml.safe_dump(render(json.load(sys.stdin), sys.argv[2]), sort_keys=False, width=120)
    Path(sys.argv[1]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
