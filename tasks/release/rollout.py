"""Deploying what was published: the scripts in deploy/ translate Compose's production model, an engine runs the result."""

from __future__ import annotations

import copy
import json
import re
import time
from typing import TYPE_CHECKING, Any

from .. import venv
from ..env import chosen_by_user
from ..images import bases
from ..project import REPORTS, ROOT, name
from ..shell import CommandFailed, UserError, lines, output, run
from ..stack.model import PRODUCTION_FILE, Stack
from ..terminal import Status, say
from . import push

if TYPE_CHECKING:
    from pathlib import Path

    from nox import Session

TIMEOUT_S = 600
ROLLED_BACK = ("rollback_completed", "rollback_paused", "paused")


def model() -> dict[str, Any]:
    """Compose's production model with the images of reports/release.json, and official ones where setup made others."""
    official = {variable: chosen_by_user().get(variable, image) for variable, (_, image) in bases.needed().items()}
    found = copy.deepcopy(Stack(name(), (PRODUCTION_FILE,), "prod", official).model)
    images = {entry["service"]: f"{entry['name']}@{entry['digest']}" for entry in push.read(push.RELEASE)["images"]}
    for service, spec in found["services"].items():
        if built := spec.get("build", {}).get("args", {}).get("SERVICE"):
            if built not in images:
                raise UserError(f"reports/release.json has no image for {service}: `nox -s publish` all services first")
            spec["image"] = images[built]
    return found


def translate(session: Session, script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of deploy/ with the model, and return that; raises UserError when it fails."""
    venv.install(session, "release")
    content, said = model(), [""]
    command = (venv.python(session), "-B", str(ROOT / "deploy" / script), *arguments)
    if lines(*command, on_line=said.append, stdin=json.dumps(content)):
        raise UserError(f"deploy/{script} failed: {said[-1]}")
    say(f"wrote {arguments[0]}")
    return content


def secrets(content: dict[str, Any], *command: str) -> None:
    """Check that the engine has all secrets: with the secret's name, the command must succeed."""
    used = {secret["source"] for spec in content["services"].values() for secret in spec.get("secrets") or ()}
    for secret in sorted(used):
        try:
            output(*command, secret)
        except CommandFailed as failed:
            raise UserError(f"the secret {secret} is needed first, see docs/deploying.md ({failed.last})") from None


def kubernetes(session: Session, folder: Path, *, apply: bool) -> None:
    """Write a Kustomize base; with ``apply``, apply it in the order of depends_on, waiting for each step."""
    content = translate(session, "kubernetes.py", str(folder))
    if not apply:
        return
    if run("kubectl", "apply", "--filename", str(folder / "namespace.yaml")):
        raise UserError("kubectl cannot reach a cluster, or may not make a namespace there")
    inside = ("kubectl", "--namespace", content["name"])
    secrets(content, *inside, "get", "secret")
    steps = {found for file in folder.glob("*.yaml") for found in re.findall(r"stack\.step: '(\d+)'", file.read_text())}
    for step in sorted(steps, key=int):
        chosen = f"--selector=stack.step={step}"
        waits = [
            ("rollout", "status", kind, chosen, f"--timeout={TIMEOUT_S}s") for kind in ("statefulset", "deployment")
        ]
        waits.append(("wait", "--for=condition=complete", "job", chosen, f"--timeout={TIMEOUT_S}s"))
        if run("kubectl", "apply", "--kustomize", str(folder), chosen):
            raise UserError(f"step {step} was not applied; what ran before still runs")
        for wait in waits:
            if output(*inside, "get", wait[2], chosen, "--output=name") and run(*inside, *wait):
                raise UserError(
                    f"step {step} did not become ready; what ran before still runs: kubectl describe says more"
                )


def swarm(session: Session, context: str, ports: str) -> None:
    """Deploy to Docker Swarm and wait; raises UserError with the reason when a service fails, or was rolled back."""
    docker = ("docker", *(["--context", context] if context else []))
    if output(*docker, "info", "--format", "{{.Swarm.LocalNodeState}}").strip() != "active":
        raise UserError("this engine is in no swarm: run `docker swarm init` there, or name another by --context")
    nodes = (
        output(*docker, "node", "ls", "--format", "{{.Status}} {{.Availability}}").splitlines().count("Ready Active")
    )
    if ports == "host" and nodes < 3:
        raise UserError(
            f"ports in host mode need 3 nodes for 2 replicas and an update, and {nodes} can take any: use --ports ingress"
        )
    path = REPORTS / "stack.yaml"
    secrets(translate(session, "swarm.py", str(path), ports), *docker, "secret", "inspect")
    # Migrations first: the new version may need them, and when they fail, the former one goes on.
    for file, option, kind in ((path.with_stem("stack-jobs"), "--prune=false", " completed"), (path, "--prune", "")):
        if not file.stat().st_size:
            continue
        before = updates(docker)
        command = ("stack", "deploy", option, "--with-registry-auth", "--detach", f"--compose-file={file}", name())
        if run(*docker, *command):
            raise UserError("Swarm did not take the stack; its own words stand above")
        converge(docker, before, kind)


def updates(docker: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """The stack's services: how the last update of each went, and when it began."""
    names = output(*docker, "service", "ls", f"--filter=label=com.docker.stack.namespace={name()}", "--quiet").split()
    form = "{{.Spec.Name}}{{with .UpdateStatus}} {{.State}} {{.StartedAt.UnixNano}}{{end}}"
    told = output(*docker, "service", "inspect", f"--format={form}", *names).splitlines() if names else []
    return {words[0]: tuple(words[1:]) for words in map(str.split, told) if words}


def converge(docker: tuple[str, ...], before: dict[str, tuple[str, ...]], kind: str = "") -> None:
    """Wait until all replicas run, all jobs have ended, and no update is under way; for `` completed``, only for jobs."""
    with Status("waiting for the stack") as status:
        while status.seconds < TIMEOUT_S:
            time.sleep(1)
            now = updates(docker)
            running = {service: state[0] for service, state in now.items() if state and state != before.get(service)}
            back = [service for service, state in running.items() if state in ROLLED_BACK]
            if back and not {"updating", "rollback_started"}.intersection(running.values()):
                raise UserError("; ".join(f"{service} was rolled back: {reason(docker, service)}" for service in back))
            listed = output(*docker, "stack", "services", name(), "--format={{.Name}}\t{{.Replicas}}")
            found = [line.split("\t") for line in listed.splitlines() if kind in line]
            late = [service for service, replicas in found if not complete(replicas)]
            if not late and set(running.values()) <= {"completed"}:
                say(f"all {'jobs have ended' if kind else 'services run'}: {status.seconds:.0f} s")
                return
    culprit = (late or [service for service, state in running.items() if state != "completed"])[0]
    raise UserError(f"{culprit} does not run after {TIMEOUT_S} s: {reason(docker, culprit)}")


def complete(replicas: str) -> bool:
    """Whether a service runs as Swarm says "2/2", or a job has ended as it says "0/1 (1/1 completed)"."""
    found = re.search(r"\((\d+/\d+) completed", replicas) or re.match(r"(\d+/\d+)", replicas)
    have, want = found[1].split("/") if found else ("", "all")
    return have == want


def reason(docker: tuple[str, ...], service: str) -> str:
    """Why a service's newest task failed, as Swarm tells it."""
    told = output(*docker, "service", "ps", "--no-trunc", "--format={{.Error}}", service).splitlines()
    unhealthy = (
        "its tasks have ended without an error, as after failed health checks; `docker service logs` may say more"
    )
    return next(filter(None, (line.strip('"') for line in told)), unhealthy)
