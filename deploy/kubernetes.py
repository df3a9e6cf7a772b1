"""Writes Compose's production model as a Kustomize base: ``python kubernetes.py DIR <model.json``.

`nox -s deploy` runs it, and gives it the model with images by digest. What it writes is checked against the schemas of
the oldest and the newest version of Kubernetes that is supported. Its last line says, in JSON, the steps in which to
apply it, values of the label stack.step, with what each starts; the secrets; the services that have an autoscaler.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import kubernetes_validate
from model import (
    KNOWN,
    REPLICAS,
    Object,
    as_yaml,
    chosen,
    configs,
    jobs,
    limits,
    load,
    needs,
    pick,
    ports,
    published,
    replicas,
    seconds,
    secrets,
    step,
    stops_first,
    tmpfs,
    volumes,
)

OLDEST = "1.30"  # the first that has preStop's sleep
PORT = 8000  # what docker/server listens on
USER = 10001  # as docker/Dockerfile has it; images whose Compose user has only a name get it, too
DRAIN_S = 5  # until no proxy sends requests to a pod that ends
HEALTH = ["python3", "/app/healthcheck.py"]
STARTED = {"Deployment", "Job", "StatefulSet"}
OURS = "# Written by `nox -s deploy -- kubernetes`"  # how files begin that may be written anew
HEAD = f"{OURS}, which overwrites changes: put yours into an overlay.\n"


def probes(spec: Object, *, listens: bool) -> Object:
    """The three probes of a container run the health check of Compose, or else the image's own, which knows /readyz."""
    check = spec.get("healthcheck") or {}
    ours = listens and "SERVICE" in ((spec.get("build") or {}).get("args") or {})  # else its Dockerfile is another
    test = check.get("test") or (["CMD", *HEALTH] if ours else [])
    if check.get("disable") or not test or test[0] == "NONE":
        return {}
    command = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
    command = [word.replace("$$", "$") for word in command]  # elsewhere, Kubernetes itself does so
    probe = {"exec": {"command": command}, "timeoutSeconds": seconds(check.get("timeout", "3s"))}
    # In Compose, failures count from the end of the start period on: until then, and as often as there.
    allowed = seconds(check.get("start_period", "60s"))
    allowed += seconds(check.get("interval", "10s")) * (check.get("retries") or 3)
    ready = {**probe, "exec": {"command": [*HEALTH, "/readyz"]}} if command == HEALTH else probe
    return {
        "startupProbe": {**probe, "periodSeconds": 1, "failureThreshold": allowed},
        # A database that is away for less than half a minute takes no pod out: the service says 503 by itself.
        "readinessProbe": {**ready, "periodSeconds": 5, "failureThreshold": 6},
        "livenessProbe": {
            **probe,
            "periodSeconds": seconds(check.get("interval", "10s")),
            "failureThreshold": check.get("retries") or 6,
        },
    }


def named(source: str) -> str:
    """The name of a volume or a secret as Kubernetes takes it."""
    return re.sub("[^a-z0-9.]+", "-", source.lower())


def mount(volume: Object) -> Object:
    """Where a container has a volume."""
    found = {"name": named(volume["source"]).replace(".", "-"), "mountPath": volume["target"]}
    options = {"readOnly": volume.get("read_only"), "subPath": (volume.get("volume") or {}).get("subpath")}
    return found | {key: value for key, value in options.items() if value}


def config_map(model: Object, service: str) -> Object:
    """The ConfigMap with a service's configuration files; other texts have another name, so that pods are replaced."""
    data = {config["source"]: config["text"] for config in configs(model, service)}
    name = f"{service}-{hashlib.sha256(json.dumps(data).encode()).hexdigest()[:8]}"
    metadata = {"name": name, "labels": {"stack.step": str(step(model, service))}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": data}


def storage(model: Object, service: str) -> tuple[list[Object], list[Object]]:
    """A pod's volumes, and where its container has them: tmpfs, secrets, configs, and the claims of a StatefulSet."""
    spec = model["services"][service]
    mounts = [mount(volume) for volume in volumes(spec)]
    made: list[Object] = []
    passing: Object = {path: {"sizeLimit": size or "64Mi"} for path, size in tmpfs(spec).items()}
    passing |= {v["target"]: {} for v in spec.get("volumes") or () if v["type"] == "volume" and not v.get("source")}
    for number, (path, options) in enumerate(passing.items()):
        made.append({"name": f"tmp-{number}", "emptyDir": options})
        mounts.append({"name": f"tmp-{number}", "mountPath": path})
    places: dict[Path, list[Object]] = {}
    for secret in spec.get("secrets") or ():
        target = Path("/run/secrets", secret.get("target") or secret["source"])
        item = {"key": secret["source"], "path": target.name, **pick(secret, "mode")}
        # Elsewhere it is mounted alone, or it would hide the other files of the folder.
        place = target.parent if str(target.parent) == "/run/secrets" else target
        places.setdefault(place, []).append({"secret": {"name": named(secret["source"]), "items": [item]}})
    for number, (place, sources) in enumerate(places.items()):
        made.append({"name": f"secrets-{number}", "projected": {"sources": sources}})
        alone = {} if str(place) == "/run/secrets" else {"subPath": place.name}
        mounts.append({"name": f"secrets-{number}", "mountPath": str(place), "readOnly": True, **alone})
    if files := configs(model, service):
        items = [{"key": file["source"], "path": file["source"], "mode": file["mode"]} for file in files]
        name = config_map(model, service)["metadata"]["name"]
        made.append({"name": "configs", "configMap": {"name": name, "items": items}})
        mounts += [{"name": "configs", "mountPath": file["target"], "subPath": file["source"]} for file in files]
    return made, mounts


def pod(model: Object, service: str) -> Object:
    """A service's pod, which satisfies the restricted Pod Security Standard."""
    spec = model["services"][service]
    available, mounts = storage(model, service)
    user, _, group = str(spec.get("user") or "").partition(":")
    uid = int(user) if user.isdigit() and int(user) else USER
    gid = int(group) if group.isdigit() and int(group) else uid
    most = limits(service, spec)
    memory = f"{most['memory'] >> 20}Mi"
    container = {
        "name": service,
        "image": spec["image"],
        "command": spec.get("entrypoint"),
        "args": spec.get("command"),
        "workingDir": spec.get("working_dir"),
        "env": [
            {"name": k, "value": str(v)} for k, v in sorted((spec.get("environment") or {}).items()) if v is not None
        ],
        "ports": [{"containerPort": port, "protocol": protocol.upper()} for port, protocol in ports(model, service)],
        "volumeMounts": mounts,
        "resources": {
            "requests": {"memory": memory, "cpu": f"{min(100, most['cpus'] * 1000):g}m"},
            "limits": {"memory": memory, "cpu": f"{most['cpus']:g}"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": bool(spec.get("read_only")),
            "capabilities": {"drop": ["ALL"]},
        },
    }
    grace = seconds(spec.get("stop_grace_period", "10s"))
    if service not in jobs(model):
        container |= probes(spec, listens=(PORT, "tcp") in ports(model, service))
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": DRAIN_S}}}
        grace += DRAIN_S
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": uid,
            "runAsGroup": gid,
            "fsGroup": gid,
            "fsGroupChangePolicy": "OnRootMismatch",  # otherwise each start changes every file of a volume
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{key: value for key, value in container.items() if value not in (None, [])}],
        "volumes": available,
    }


def objects(model: Object, service: str) -> list[Object]:
    """Everything that a service is in Kubernetes."""
    spec = model["services"][service]
    app = {"app.kubernetes.io/name": service}
    labels = {**app, "stack.step": str(step(model, service))}
    template = {"metadata": {"labels": app}, "spec": pod(model, service)}
    selected: Object = {"selector": {"matchLabels": app}}

    def made(kind: str, version: str, content: Object, name: str = service) -> Object:
        return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": content}

    found = [made("NetworkPolicy", "networking.k8s.io/v1", policy(model, service))]
    if configs(model, service):
        found.append(config_map(model, service))
    if listens := ports(model, service):
        named = [
            {"name": f"{protocol}-{port}".replace("tcp", "port"), "port": port, "protocol": protocol.upper()}
            for port, protocol in listens
        ]
        found.append(made("Service", "v1", {"selector": app, "ports": named}))
    if service in jobs(model):
        # A job cannot be changed: what would be another one has a name of its own.
        name = f"{service}-{hashlib.sha256(json.dumps(template).encode()).hexdigest()[:8]}"
        template["spec"]["restartPolicy"] = "Never"
        # What it needs is ready already, so that another attempt would fail, too; a node that is drained is no failure.
        drained = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        once = {"backoffLimit": 0, "podFailurePolicy": {"rules": [drained]}}
        return [*found, made("Job", "batch/v1", {**once, "template": template}, name)]
    if claims := sorted({mount(volume)["name"] for volume in volumes(spec)}):
        size = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Gi"}}}
        templates = [{"metadata": {"name": name}, "spec": size} for name in claims]
        content = {"serviceName": service, "replicas": replicas(spec), **selected, "template": template}
        # Otherwise a pod that never gets ready would never be replaced, not by a version that is mended either.
        content |= {"podManagementPolicy": "Parallel", "volumeClaimTemplates": templates}
        return [*found, made("StatefulSet", "apps/v1", content)]
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    template["spec"]["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": app}}]
    rolling: Object = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    content = {**selected, "strategy": {"type": "Recreate"} if stops_first(spec) else rolling, "template": template}
    if replicas(spec) > 1:
        # A pod that does not work anyway may always go, or no node with such a one could be drained.
        budget = {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow", **selected}
        found.append(made("PodDisruptionBudget", "policy/v1", budget))
    if chosen(spec) is not None:
        return [*found, made("Deployment", "apps/v1", {"replicas": replicas(spec), **content})]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": service}
    # Of the limit: a percentage would be one of what is requested, which is a tenth of a processor.
    busy = f"{limits(service, spec)['cpus'] * 800:.0f}m"
    usage = {"name": "cpu", "target": {"type": "AverageValue", "averageValue": busy}}
    scale = {"minReplicas": REPLICAS, "maxReplicas": 6, "metrics": [{"type": "Resource", "resource": usage}]}
    return [
        *found,
        made("Deployment", "apps/v1", content),  # replicas: the scaler's
        made("HorizontalPodAutoscaler", "autoscaling/v2", {"scaleTargetRef": target, **scale}),
    ]


def policy(model: Object, service: str) -> Object:
    """Who may talk to a service, and to whom it may: what depends_on says, published ports for all, and DNS."""

    def peers(names: list[str]) -> list[Object]:
        return [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}} for name in names]

    def allowed(ports: Iterable[tuple[int, str]]) -> list[Object]:
        return [{"port": port, "protocol": protocol.upper()} for port, protocol in sorted(ports)]

    outside = published(model["services"][service])
    clients = sorted(name for name in model["services"] if service in needs(model, name))
    ingress: list[Object] = [{"ports": allowed(outside)}] if outside else []
    if clients and (inside := ports(model, service)):
        ingress.append({"from": peers(clients), "ports": allowed(inside)})
    egress: list[Object] = [{"ports": allowed([(53, "udp"), (53, "tcp")])}]
    egress += [{"to": peers([name]), "ports": allowed(ports(model, name))} for name in sorted(needs(model, service))]
    selector = {"matchLabels": {"app.kubernetes.io/name": service}}
    return {"podSelector": selector, "policyTypes": ["Ingress", "Egress"], "ingress": ingress, "egress": egress}


def check(model: Object) -> None:
    """Exit for a name that Kubernetes does not take."""
    for name in (model["name"], *map(named, secrets(model)), *model["services"]):
        # A service's is a host's name, too, which has no dots, and begins with a letter.
        form = "[a-z]([a-z0-9-]{0,50}[a-z0-9])?" if name in model["services"] else "[a-z0-9]([a-z0-9.-]{0,50}[a-z0-9])?"
        if not re.fullmatch(form, name):
            sys.exit(f"{name!r} is no name for Kubernetes: a lower-case letter, then such, digits, dashes, at most 52")


def leave_out(model: Object) -> None:
    """Take out of the model what Kubernetes has not, and print a warning for it, and for what is otherwise there."""
    users: dict[str, dict[str, None]] = {}
    for name, spec in model["services"].items():
        mounts = spec.get("volumes") or ()
        lost = [v for v in volumes(spec) if v["type"] != "volume" or name in jobs(model)]
        spec["volumes"] = [volume for volume in mounts if volume not in lost]
        user = str(spec.get("user") or "").partition(":")[0]
        if user in {"0", "root"}:
            print(f"warning: {name}: it may not run as root, and gets the user {USER}")
        elif user and not user.isdigit():
            print(f"warning: {name}: its user {user} has no number here, and gets {USER}")
        for volume in lost:
            print(f"warning: {name}: what is mounted at {volume['target']} is not translated")
        for volume in volumes(spec):
            users.setdefault(volume["source"], {})[name] = None
        for given in filter(None, (spec.get("networks") or {}).values()):
            for alias in given.get("aliases") or ():
                print(f"warning: {name}: its alias {alias} is not translated")
        for other in sorted(needs(model, name)):
            if not ports(model, other):
                print(f"warning: {name} cannot reach {other}, whose port nothing tells: give {other} `expose:`")
    for shared, names in users.items():
        if len(names) > 1:
            print(f"warning: {' and '.join(names)} share the volume {shared}, and get one each")


def render(model: Object) -> dict[str, list[Object]]:
    """The files of the base, with their objects."""
    security = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"metadata": {"name": model["name"], "labels": security}}
    files: dict[str, list[Object]] = {"namespace.yaml": [{"apiVersion": "v1", "kind": "Namespace", **namespace}]}
    files |= {f"{service}.yaml": objects(model, service) for service in sorted(model["services"])}
    for found in [found for documents in files.values() for found in documents]:
        for version in (OLDEST, kubernetes_validate.latest_version()):
            try:
                kubernetes_validate.validate(found, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                sys.exit(f"{found['kind']} {found['metadata']['name']} for Kubernetes {version}: {error.message}")
    base = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return {**files, "kustomization.yaml": [{**base, "namespace": model["name"], "resources": sorted(files)}]}


def main() -> None:
    """Write the files, and remove those of services that are gone; exits where a file of somebody else has such a name."""
    model, folder = load(KNOWN), Path(sys.argv[1])
    check(model)
    leave_out(model)
    files = render(model)
    folder.mkdir(parents=True, exist_ok=True)
    former = [path for path in folder.glob("*.yaml") if path.read_text(encoding="utf-8").startswith(OURS)]
    for name in files:
        if (folder / name).exists() and folder / name not in former:
            sys.exit(f"{folder / name} does not begin with `{OURS}`: rename it, or name another folder")
    for path in former:
        path.unlink()
    for name, documents in files.items():
        (folder / name).write_text(f"{HEAD}{as_yaml(*documents)}", encoding="utf-8")
    steps: dict[int, list[str]] = {number: [] for number in sorted({step(model, name) for name in model["services"]})}
    autoscaled = []
    for found in [found for documents in files.values() for found in documents]:
        if found["kind"] in STARTED:
            label = found["metadata"]["labels"]["stack.step"]
            steps[int(label)].append(f"{found['kind'].lower()}/{found['metadata']['name']}")
        if found["kind"] == "HorizontalPodAutoscaler":
            autoscaled.append(found["metadata"]["name"])
    plan = {"steps": steps, "secrets": list(map(named, secrets(model))), "autoscaled": ",".join(autoscaled)}
    print(json.dumps(plan))


if __name__ == "__main__":
    main()
