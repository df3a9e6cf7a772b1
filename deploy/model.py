"""What the scripts in this folder ask Compose's model, ``docker compose config --format json``."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
REPLICAS = 2
ANY = ".*"
MACHINE_LABELS = {"stack.clone": ANY, "stack.session": ANY}  # labels that are of this machine
# What is translated, and what an engine that spans machines has otherwise, as docs/deploying.md says; everything else is told.
# By key, "*" for any: what it may contain, again by key, or as a regular expression for its text.
SERVICE: Object = {
    **dict.fromkeys(("image", "build", "command", "entrypoint", "user", "working_dir", "environment", "expose"), ANY),
    **dict.fromkeys(("read_only", "cap_drop", "stop_grace_period", "mem_limit", "pids_limit", "cpus", "scale"), ANY),
    **dict.fromkeys(("logging", "restart", "profiles", "develop"), ANY),
    "security_opt": "no-new-privileges(:true)?",
    "depends_on": {"*": dict.fromkeys(("condition", "required"), ANY)},
    "networks": {"*": {"aliases": ANY}},
    "ports": {
        **dict.fromkeys(("target", "published", "protocol", "mode"), ANY),
        "host_ip": r"127\.0\.0\.1|::1|0\.0\.0\.0|::",  # another one is a machine's own
    },
    "healthcheck": dict.fromkeys(
        ("test", "disable", "interval", "timeout", "retries", "start_period", "start_interval"), ANY
    ),
    "secrets": dict.fromkeys(("source", "target", "mode"), ANY),
    "configs": dict.fromkeys(("source", "target", "mode"), ANY),
    "tmpfs": r"[^:]*(:((size=\d+[kmgKMG]?|mode=0?1777|rw|noexec|nosuid|nodev)(,|$))*)?",
    "volumes": {
        **dict.fromkeys(("type", "source", "target", "read_only", "consistency", "bind"), ANY),
        "volume": dict.fromkeys(("nocopy", "subpath"), ANY),
        "tmpfs": {"size": ANY, "mode": str(0o1777)},
    },
    "deploy": {
        "mode": "replicated",
        "replicas": ANY,
        "update_config": {"order": ANY},
        "resources": {"limits": dict.fromkeys(("cpus", "memory", "pids"), ANY)},
    },
    "labels": MACHINE_LABELS,
}
KNOWN: Object = {
    "services": SERVICE,
    "networks": {"name": ANY, "internal": ANY, "attachable": ANY, "driver": "bridge|overlay", "labels": MACHINE_LABELS},
    "volumes": {"name": ANY, "driver": "local", "labels": MACHINE_LABELS},
    "secrets": dict.fromkeys(("name", "external", "file", "environment"), ANY),
    "configs": dict.fromkeys(("name", "external", "file", "content", "environment"), ANY),
}


def load(known: Object) -> Object:
    """The model, from standard input; prints a warning for each setting that is not known, in a table such as KNOWN."""
    model: Object = json.load(sys.stdin)
    for spec in model["services"].values():
        # What is not there has a profile that is not chosen.
        waits = (spec.get("depends_on") or {}).items()
        spec["depends_on"] = {other: wait for other, wait in waits if other in model["services"]}
        for used in spec.get("secrets") or ():
            given = (model.get("secrets") or {}).get(used["source"]) or {}
            if given.get("external"):  # it may have another name in the engine
                used |= {"source": given["name"], "target": used.get("target") or used["source"]}
            if "mode" in used:
                used["mode"] = mode(used)
    for kind, table in known.items():
        for name, given in (model.get(kind) or {}).items():
            title = name if kind == "services" else f"the {kind[:-1]} {name}"
            for key in sorted(untranslated(given, table)):
                print(f"warning: {title}: `{key}` is not translated")
    return model


def untranslated(given: Any, known: Any, path: str = "") -> set[str]:
    """The settings that are not known, such as ports.host_ip; those that are not set do not count."""
    if not given or known == ANY:
        return set()
    if isinstance(given, list):
        return set().union(*(untranslated(item, known, path) for item in given))
    if isinstance(given, dict) and isinstance(known, dict):
        keys = [key for key in given if not key.startswith("x-")]
        below = (untranslated(given[key], known.get(key, known.get("*")), f"{path}.{key}".strip(".")) for key in keys)
        return set().union(*below)
    return set() if isinstance(known, str) and re.fullmatch(known, str(given)) else {path}


class Dumper(yaml.SafeDumper):
    """Writes YAML that the engines read as it is meant: to them, but not to PyYAML, 1e3 and 0o17 are numbers, y is true."""

    def text(self, text: str) -> yaml.Node:
        """A text, in quotes where it may be read as something else."""
        quotes = "'" if re.match(r"([-+.\d][-+.\deEoO]*|[yYnN])$", text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=quotes)


Dumper.add_representer(str, Dumper.text)


def as_yaml(*documents: Object) -> str:
    """Documents as YAML, without references to what stands elsewhere."""
    return str(yaml.dump_all(json.loads(json.dumps(documents)), Dumper=Dumper, sort_keys=False, width=120))


def pick(given: Object, *keys: str) -> Object:
    """Those of some settings that are set."""
    return {key: given[key] for key in keys if given.get(key)}


def limits(name: str, spec: Object) -> Object:
    """The most that a service may use: processors, memory in bytes, and processes; exits where memory has no limit."""
    given = ((spec.get("deploy") or {}).get("resources") or {}).get("limits") or {}
    memory, pids = spec.get("mem_limit") or given.get("memory"), spec.get("pids_limit") or given.get("pids")
    if not memory:
        sys.exit(f"{name} has no `mem_limit`, and would share its machine with others")
    return {"cpus": float(spec.get("cpus") or given.get("cpus") or 1), "memory": int(memory), "pids": pids}


def tmpfs(spec: Object) -> dict[str, int]:
    """Where a service has file systems in memory, and the size of each in bytes, 0 where it says none."""
    found = {}
    for path, _, options in (given.partition(":") for given in spec.get("tmpfs") or ()):
        size = re.search(r"\bsize=(\d+)([kmg]?)(,|$)", options, re.IGNORECASE)
        found[path] = int(size[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[size[2].lower()] if size else 0
    mounts = [volume for volume in spec.get("volumes") or () if volume["type"] == "tmpfs"]
    return found | {volume["target"]: int((volume.get("tmpfs") or {}).get("size") or 0) for volume in mounts}


def volumes(spec: Object) -> list[Object]:
    """What a service has of its machine: volumes with a name, and files."""
    return [volume for volume in spec.get("volumes") or () if volume.get("source")]


def configs(model: Object, service: str) -> list[Object]:
    """A service's configuration files, with their target in its container and their text; exits for one without a text."""
    found = []
    for used in model["services"][service].get("configs") or ():
        given = model["configs"][used["source"]]
        if "file" in given:
            try:
                text = Path(given["file"]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                sys.exit(f"the config {used['source']} of {service} is no text that can be read: {error}")
        elif "content" in given:
            text = given["content"].replace("$$", "$")  # as Compose's model has dollar signs
        else:
            sys.exit(f"the config {used['source']} of {service} has neither `file` nor `content`")
        found.append({"target": f"/{used['source']}", **used, "mode": mode(used), "text": text})
    return found


def mode(used: Object) -> int:
    """The mode of a config's or a secret's file."""
    given = used.get("mode", 0o444)
    return int(given, 8) if isinstance(given, str) else int(given)


def secrets(model: Object) -> list[str]:
    """The names of all secrets that a service has."""
    return sorted({secret["source"] for spec in model["services"].values() for secret in spec.get("secrets") or ()})


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


def chosen(spec: Object) -> int | None:
    """How many of a service are to run, where it says so."""
    found: int | None = (spec.get("deploy") or {}).get("replicas", spec.get("scale"))
    return found


def replicas(spec: Object) -> int:
    """How many of a service run: `deploy.replicas` or `scale`; otherwise 1 with a volume, 2 without."""
    given = chosen(spec)
    return (1 if volumes(spec) else REPLICAS) if given is None else given


def stops_first(spec: Object) -> bool:
    """Whether a replica stops before its successor starts: `deploy.update_config.order`; otherwise only with a volume."""
    order = ((spec.get("deploy") or {}).get("update_config") or {}).get("order")
    return bool(order == "stop-first" if order else volumes(spec))  # two must not write to the same files


def ports(model: Object, service: str) -> list[tuple[int, str]]:
    """Where a service listens, with the protocol: its ports, those that it exposes, and those by which others' settings name it."""
    spec = model["services"][service]
    settings = " ".join(str(v) for each in model["services"].values() for v in (each.get("environment") or {}).values())
    named = re.findall(rf"(?<![\w.-]){re.escape(service)}:(\d+)\b(?!@)", settings)  # not a user's password
    found = published(spec) | {(int(port), "tcp") for port in named}
    for numbers, _, protocol in (str(port).partition("/") for port in spec.get("expose") or ()):
        first, _, last = numbers.partition("-")
        found |= {(port, protocol or "tcp") for port in range(int(first), int(last or first) + 1)}
    return sorted(found)


def published(spec: Object) -> set[tuple[int, str]]:
    """A service's ports, with their protocols, that clients from outside may use."""
    return {(port["target"], port.get("protocol") or "tcp") for port in spec.get("ports") or ()}


def seconds(duration: str) -> int:
    """Whole seconds of a duration as Compose writes it, such as 1m0s."""
    factors = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return max(1, int(sum(float(n) * factors[unit] for n, unit in re.findall(r"([\d.]+)(h|ms|m|s)", duration))))
