"""`nox -s deploy`: the scripts in deploy/ translate Compose's production model, and an engine runs the result. Optional: delete with its line in noxfile.py, as docs/deploying.md says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import nox

from . import cli, venv
from .changes import clean_commit
from .env import read, users_part
from .project import REPORTS, ROOT, name
from .session import session
from .shell import CommandFailed, UserError, lines, output, run
from .stack.model import PRODUCTION_FILE, Stack, built_as
from .terminal import Status, say

TIMEOUT_S = 600
RELEASE = REPORTS / "release.json"  # written by `nox -s publish`, or whatever publishes in its place


@session(venv=True)
def deploy(session: nox.Session) -> None:
    """Run what was published: -- swarm [--context NAME] [--ports host|ingress] | kubernetes --render DIR [--apply]"""
    options = cli.parser("deploy")
    engines = options.add_subparsers(dest="engine", required=True)
    of_swarm = engines.add_parser("swarm", help="deploy to Docker Swarm and wait")
    of_swarm.add_argument("--context", metavar="NAME", default="", help="Docker's context; default: the current one")
    of_swarm.add_argument("--ports", choices=("host", "ingress"), default="host", help="how ports are published")
    of_kubernetes = engines.add_parser("kubernetes", help="write a Kustomize base")
    of_kubernetes.add_argument("--render", type=Path, metavar="DIR", required=True)
    of_kubernetes.add_argument("--apply", action="store_true", help="apply it by kubectl, and wait")
    args = options.parse_args(session.posargs)
    if args.engine == "swarm":
        swarm(session, args.context, args.ports)
    else:
        plan = translate(session, "kubernetes.py", str(args.render))
        if args.apply:
            kubernetes(plan, args.render)


def model() -> dict[str, Any]:
    """Compose's production model with the images of reports/release.json, and nothing of this machine, such as free ports."""
    images = published()
    settings = REPORTS / "deploy.env"
    settings.write_text(users_part(read()), encoding="utf-8", errors="surrogateescape")
    found = Stack(name(), (PRODUCTION_FILE,), "prod", {"COMPOSE_ENV_FILES": str(settings)}).model
    for service, spec in found["services"].items():
        if "SERVICE" in spec.get("build", {}).get("args", {}):
            if built_as(service, spec) not in images:
                raise UserError(f"reports/release.json has no image for {service}: `nox -s publish` all services first")
            spec["image"] = images[built_as(service, spec)]
        elif "image" not in spec:
            raise UserError(f"{service} has a Dockerfile of its own: push its image, and name that under `image:`")
    return found


def published() -> dict[str, str]:
    """The images that reports/release.json has, by service, as NAME@DIGEST.

    Raises UserError where it has none, or those of another commit than this one.
    """
    commit = clean_commit()
    try:
        found = json.loads(RELEASE.read_text(encoding="utf-8"))
        released = found["commit"]
        images = {entry["service"]: f"{entry['name']}@{entry['digest']}" for entry in found["images"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = getattr(error, "strerror", None) or repr(error)
        raise UserError(f"{RELEASE} does not say what was published ({why}): `nox -s publish` writes it") from None
    if released != commit:
        told = f"{RELEASE} is of commit {released}, and not of {commit}"
        raise UserError(f"{told}: check out that one, or publish this one")
    return images


def translate(session: nox.Session, script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of deploy/ with the model; return the plan that its last line is. Raises UserError."""
    content, said = json.dumps(model()), list[str]()
    venv.install(session, "deploy")
    if lines(venv.python(session), "-B", str(ROOT / "deploy" / script), *arguments, on_line=said.append, stdin=content):
        raise UserError(f"deploy/{script} failed: {said[-1]}")
    say("\n".join([*said[:-1], f"wrote {arguments[0]}"]))
    return dict(json.loads(said[-1]))


def secrets(plan: dict[str, Any], *command: str) -> None:
    """Check that the engine has all secrets: with their names, the command must succeed."""
    if plan["secrets"]:
        try:
            output(*command, *plan["secrets"])
        except CommandFailed as failed:
            raise UserError(f"secrets are missing (docs/deploying.md): {'; '.join(failed.text.splitlines())}") from None


def kubernetes(plan: dict[str, Any], folder: Path) -> None:
    """Apply a Kustomize base in the order of depends_on, waiting for each step; raises UserError."""
    # One that is there may be another's, who lets this user change only what is in it.
    if not output("kubectl", "get", "namespace", name(), "--ignore-not-found", "--output=name"):
        output("kubectl", "apply", "--filename", str(folder / "namespace.yaml"))
    inside = ("kubectl", "--namespace", name())
    secrets(plan, *inside, "get", "secret")
    # The autoscaler of a former version would go on to start two of what must run once.
    output(*inside, "delete", "hpa", f"--selector=stack.step,app.kubernetes.io/name notin ({plan['autoscaled']})")
    for step, started in plan["steps"].items():
        if run("kubectl", "apply", "--kustomize", str(folder), f"--selector=stack.step={step}"):
            raise UserError(f"step {step} was not applied, or not all of it; what ran before still runs")
        for found in started:
            wait(inside, found)


def wait(inside: tuple[str, ...], found: str) -> None:
    """Wait until one of Kubernetes' jobs has ended, or a service is ready; raises UserError where it is not."""
    # A job has a condition as soon as it has ended, in whatever way.
    ended = "--for=jsonpath={.status.conditions[0].type}"
    status = ["wait", found, ended] if found.startswith("job") else ["rollout", "status", found]
    if run(*inside, *status, f"--timeout={TIMEOUT_S}s"):
        run(*inside, "get", "events", "--field-selector=type=Warning", "--sort-by=.metadata.creationTimestamp")
        raise UserError(f"{found} is not ready, see the warnings above; Kubernetes goes on trying")
    if status[0] == "wait" and run(*inside, "wait", found, "--for=condition=Complete", "--timeout=10s"):
        run(*inside, "logs", "--tail=5", found)
        raise failed(found, f"`kubectl delete {found}`, then deploy again")


def failed(job: str, again: str) -> UserError:
    """What to say of a failed job whose last lines were printed."""
    told = f"{job} failed; its last lines stand above. What ran before still runs"
    return UserError(f"{told}. Mend it, publish and deploy; or, where the fault was not in the image, {again}")


def swarm(session: nox.Session, context: str, ports: str) -> None:
    """Deploy to Docker Swarm and wait; raises UserError with the reason when a service fails, or was rolled back."""
    docker = ("docker", *(["--context", context] if context else []))
    if output(*docker, "info", "--format", "{{.Swarm.ControlAvailable}}").strip() != "true":
        raise UserError("this engine manages no swarm: run `docker swarm init` there, or name another by --context")
    plan = translate(session, "swarm.py", str(REPORTS / "stack.yaml"), ports)
    ready = output(*docker, "node", "ls", "--format={{.Status}} {{.Availability}}").splitlines().count("Ready Active")
    if late := [f"{service} needs {nodes}" for service, nodes in plan["nodes"].items() if nodes > ready]:
        told = f"{ready} of the nodes can take tasks; for ports in host mode, {', '.join(late)}"
        raise UserError(f"{told}, all replicas and one for an update: see docs/deploying.md, or use --ports ingress")
    secrets(plan, *docker, "secret", "inspect")
    former = list[str]()  # tasks of earlier roll-outs; for a new stack, a line that says so
    lines(*docker, "stack", "ps", "--quiet", "--no-trunc", name(), on_line=former.append)
    # Migrations first: the new version may need them, and when they fail, the former one goes on.
    for file, services in plan["files"].items():
        prune = "--prune" if file == list(plan["files"])[-1] else "--prune=false"
        if run(*docker, "stack", "deploy", prune, "--with-registry-auth", "--detach", f"--compose-file={file}", name()):
            raise UserError("Swarm did not take the stack; its own words stand above")
        Rollout(docker, former).converge({f"{name()}_{service}" for service in services})


class Rollout(NamedTuple):
    """A roll-out to Docker Swarm: how commands for it begin, and the ids of tasks that it had before."""

    docker: tuple[str, ...]
    former: list[str]

    def converge(self, services: set[str]) -> None:
        """Wait until all replicas of some services run, their jobs have ended, and no update of them is under way."""
        told = set[tuple[str, str]]()
        # How the update went that has just begun: Swarm says nothing of former ones any more.
        inspect = ("service", "inspect", "--format={{.Spec.Name}}{{with .UpdateStatus}} {{.State}}{{end}}", *services)
        with Status("waiting for the stack") as status:
            while status.seconds < TIMEOUT_S:
                time.sleep(1)
                updates = dict(re.findall(r"(?m)^(\S+) (\S+)$", output(*self.docker, *inspect)))
                back = [service for service, state in updates.items() if state not in {"completed", "updating"}]
                if back and not {"updating", "rollback_started"}.intersection(updates.values()):
                    raise UserError("; ".join(f"{service} was rolled back: {self.reason(service)}" for service in back))
                listed = output(*self.docker, "stack", "services", name(), "--format={{.Name}}\t{{.Replicas}}")
                found = dict(re.findall(r"(?m)^(.+)\t(.+)$", listed))
                late = [service for service in sorted(services) if not complete(found.get(service, ""))]
                for service in late:
                    # Swarm tries for ever what may never succeed, such as to pull an image that is not there.
                    if self.tell_errors(service, told) and " completed" in found.get(service, ""):
                        raise failed(service, "deploy again")
                if not late and set(updates.values()) <= {"completed"}:
                    say(f"{', '.join(sorted(services))} ready: {status.seconds:.0f} s")
                    return
        culprit = (late or [service for service, state in updates.items() if state != "completed"])[0]
        raise UserError(f"{culprit} does not run after {TIMEOUT_S} s: {self.reason(culprit)}")

    def tell_errors(self, service: str, told: set[tuple[str, str]]) -> bool:
        """Print new errors of a service's tasks, with the last lines of those that ran; return whether one of them has ended."""
        tasks = self.errors(service)
        for task, state, error in tasks:
            # The next try's may be the same with the ids of another container.
            if (new := (service, re.sub("[0-9a-f]{12,}", "", error))) not in told:
                told.add(new)
                say(f"{service}: {error}")
                if state.startswith("Failed"):  # others have not run
                    logs = (*self.docker, "service", "logs", "--raw", "--tail=5", task)
                    lines(*logs, on_line=lambda line: say(f"{service}: {line}") if line else None)
        return any(state.startswith(("Failed", "Rejected")) for _, state, _ in tasks)

    def reason(self, service: str) -> str:
        """Why a service's newest task failed, as Swarm tells it."""
        unhealthy = "its tasks have ended without an error, as after failed health checks: see `docker service logs`"
        return next((error for _, _, error in self.errors(service)), unhealthy)

    def errors(self, service: str) -> list[tuple[str, str, str]]:
        """A service's tasks that have failed in this roll-out, the newest first: id, state, such as "Failed 3 seconds ago", and error.

        Those that Swarm itself has canceled, as a roll-back does, say nothing of why.
        """
        form = "--format={{.ID}}\t{{.CurrentState}}\t{{.Error}}"
        listed = output(*self.docker, "service", "ps", "--no-trunc", form, service)
        tasks = re.findall(r'(?m)^(\w+)\t(.+?)\t"?(.+?)"?$', listed)
        return [task for task in tasks if task[0] not in self.former and "canceled" not in task[2]]


def complete(replicas: str) -> bool:
    """Whether a service runs as Swarm says "2/2", or a job has ended as it says "0/1 (1/1 completed)"."""
    return bool(re.search(r"\((\d+)/\1 completed", replicas) or re.fullmatch(r"(\d+)/\1( \(max .*)?", replicas))
