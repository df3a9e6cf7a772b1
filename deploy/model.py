"""What the scripts in this folder ask Compose's model, ``docker compose config --format json``."""

from __future__ import annotations

import re
from typing import Any

Object = dict[str, Any]
REPLICAS = 2


def jobs(model: Object) -> set[str]:
    """The services that run once, such as migrations."""
    waits = [found for spec in model["services"].values() for found in (spec.get("depends_on") or {}).items()]
    return {name for name, wait in waits if wait["condition"] == "service_completed_successfully"}


def needs(model: Object, service: str) -> set[str]:
    """The services that this one depends on, directly or through jobs, and so may talk to."""
    found: set[str] = set()
    for name in model["services"][service].get("depends_on") or {}:
        found |= needs(model, name) if name in jobs(model) else {name}
    return found


def step(model: Object, service: str) -> int:
    """When to start a service: after all that it depends on."""
    return max((1 + step(model, name) for name in model["services"][service].get("depends_on") or {}), default=0)


def replicas(spec: Object) -> int:
    """How many of a service run: `deploy.replicas`; otherwise 1 with a volume, 2 without."""
    return int((spec.get("deploy") or {}).get("replicas", 1 if spec.get("volumes") else REPLICAS))


def stops_first(spec: Object) -> bool:
    """Whether a replica stops before its successor starts: `deploy.update_config.order`; otherwise only with a volume."""
    order = ((spec.get("deploy") or {}).get("update_config") or {}).get("order")
    return bool(order == "stop-first" if order else spec.get("volumes"))  # two must not write to the same files


def ports(model: Object, service: str) -> list[int]:
    """Where a service listens: its published ports, and those by which the others' settings name it."""
    settings = " ".join(str(v) for spec in model["services"].values() for v in (spec.get("environment") or {}).values())
    named = re.findall(rf"[/@]{re.escape(service)}:(\d+)", settings)
    return sorted({*map(int, named), *(port["target"] for port in model["services"][service].get("ports") or ())})


def seconds(duration: str) -> int:
    """Whole seconds of a duration as Compose writes it, such as 1m0s."""
    factors = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return max(1, int(sum(float(n) * factors[unit] for n, unit in re.findall(r"([\d.]+)(h|ms|m|s)", duration))))
