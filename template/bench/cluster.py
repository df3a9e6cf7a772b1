"""What the clients of a swarm of three nodes notice of updates, of a version that fails, and of lost nodes."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tasks.env import env
from tasks.images import bases
from tasks.project import name
from tasks.shell import UserError, output
from tasks.terminal import say
from tasks.tests.slow.clones import Clone, edit

from . import SERVICE, row
from .nodes import NODES, PREFIX, REGISTRY, SPARE, Cluster, until
from .steady_load import SLOW_S, Case, Load, Result

CONTEXT = "cluster"
REQUESTS = (
    Case("GET", 5000, "/"),
    Case("POST", 5000, "/"),
    Case("GET", 5001, "/entries"),
    Case("GET", 5001, "/echo/"),  # from one service to another
    Case("POST", 5000, "/", slow=True),
    Case("GET", 5002, "/"),
    Case("POST", 5002, "/"),
    Case("POST", 5002, "/", slow=True),
)
ASGI = "asgi"  # a service that the bench makes, on port 5002
ASGI_APPLICATION = '''"""An ASGI service that takes bodies."""

from fastapi import FastAPI, Request


async def size(request: Request) -> int:
    """Say how long the body is."""
    return len(await request.body())


def create_app() -> FastAPI:
    """Make the ASGI application."""
    app = FastAPI()
    app.add_api_route("/", size, methods=["GET", "POST"])
    return app
'''
WANTED_S = 10.0  # for service again after a node was killed
SETTLE_S = 3
HINDERED_S = 1.0  # a client that waits so long was hindered
FORGED = "192.0.2.1"
REPLICAS = (1, 2, 4)  # ports in host mode allow one for each node


class Versions:
    """Releases of a copy of the project, and their deployment."""

    def __init__(self, here: Clone, cluster: Cluster, folder: Path) -> None:
        self.here, self.cluster = here, cluster
        self.settings = {"DOCKER_CONFIG": str(folder / "docker")}
        (folder / "docker").mkdir()
        socket = f"host={cluster.sockets[NODES[0]]}"
        output("docker", "context", "create", CONTEXT, f"--docker={socket}", env=self.settings)
        self.registry = output("docker", "port", f"{PREFIX}-registry", "5000").strip()
        for variable, (recipe, _) in bases.needed().items():
            image = f"{self.registry}/base/{recipe}"
            output("docker", "tag", env()[variable], image)
            output("docker", "push", "--quiet", image)
            output("docker", "image", "rm", image)
            self.settings[variable] = f"{REGISTRY}/base/{recipe}"

    def publish(self, change: Callable[[], object]) -> str:
        """Change something, commit and publish it; what release.json says, with the registry's name on the nodes."""
        change()
        self.here.commit("A version")
        self.here.nox("-s", "publish", "--", "--registry", f"{self.registry}/bench", "--move-tags")
        return (self.here.root / "reports/release.json").read_text().replace(self.registry, REGISTRY)

    def deploy(self, release: str, *, before: str = "") -> None:
        """Deploy a release; it must fail where there is a former one, which must run again."""
        self.here.git("checkout", "--quiet", json.loads(release)["commit"])
        (self.here.root / "reports/release.json").write_text(release)
        said = self.here.nox("-s", "deploy", "--", "swarm", "--context", CONTEXT, code=bool(before), **self.settings)
        if before and "was rolled back" not in said:
            raise UserError(f"the failing version was not rolled back: {said.splitlines()[-1]}")
        ours = [image for image in self.cluster.tasks() if f"{REGISTRY}/bench/" in image]
        if not ours or any(image.rpartition("@")[2] not in (before or release) for image in ours):
            raise UserError("not all tasks run the version that was deployed")


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Lost requests in ``runs`` updates, a rollback, a drained and a killed node; 20 updates take 20 minutes, 3 less than 10."""
    here = Clone.copy_of_this(folder / "copy")
    cluster = Cluster(folder, here.root / "deploy/haproxy.cfg")
    try:
        add_asgi_service(here)
        cluster.start()
        say("cluster: three nodes are there; publishing ...")
        versions = Versions(here, cluster, folder)
        source = here.root / f"services/{SERVICE}/{SERVICE}/__init__.py"
        good = [
            versions.publish(lambda: None),
            versions.publish(lambda: source.write_text(f"{source.read_text()}# 2\n")),
        ]
        bad = versions.publish(lambda: edit(here.root / "docker/server/healthcheck.py", ">= 500", ">= 0"))
        for secret in (here.root / ".secrets").iterdir():
            cluster.docker("secret", "create", secret.name, str(secret))
            cluster.docker("node", "update", f"--label-add={secret.name}=true", NODES[0])
        versions.deploy(good[0])
        until(cluster.settled, "the stack")
        check_address(cluster.address("entry"))
        rows = scale(cluster)
        with Load(cluster.address("entry"), *REQUESTS) as load:
            rows += lost(load, cluster, versions, good, bad, runs)
        return {"bench": "cluster", "rows": rows}
    finally:
        cluster.stop()
        here.nox("-s", "clean")


def add_asgi_service(here: Clone) -> None:
    """Add an ASGI service to a copy of the project, and to the entry proxy."""
    here.nox("-s", "new", "--", ASGI, "--kind", "fastapi")
    service, proxy = here.root / f"services/{ASGI}", here.root / "deploy/haproxy.cfg"
    (service / ASGI / "__init__.py").write_text(ASGI_APPLICATION)
    for test in (service / "tests").glob("test_*.py"):
        test.unlink()
    edit(proxy, "bind :5000,:5001", "bind :5000,:5001,:5002")
    backend = proxy.read_text().partition("backend 5001")[2].replace("5001", "5002")
    proxy.write_text(f"{proxy.read_text()}backend 5002{backend}")


def check_address(entry: str) -> None:
    """Check that services are told the client's address, and not what it claims; raises UserError."""
    request = Request(f"http://{entry}:5000/", headers={"X-Forwarded-For": FORGED})
    with urlopen(request, timeout=10) as answer:  # noqa: S310
        text = answer.read().decode()
    if FORGED in text or not re.search(r"^X-Forwarded-For: [\d.]+$", text, re.MULTILINE):
        raise UserError(f"the entry proxy does not tell the client's address: {text}")


def scale(cluster: Cluster) -> list[dict[str, Any]]:
    """Requests a second with several replicas; after it, the spare node is drained. All share this machine's processors."""
    found: dict[int, list[float]] = {}
    for replicas in REPLICAS:
        cluster.docker("service", "scale", f"{name()}_{SERVICE}={replicas}")
        until(cluster.settled, f"replica {replicas}")
        time.sleep(SETTLE_S)
        command = (
            "wrk",
            "--threads=1",
            "--connections=16",
            "--duration=5s",
            f"http://{cluster.address('entry')}:5000/",
        )
        said = output("docker", "exec", f"{PREFIX}-registry", *command)
        found[replicas] = [float(rate) for rate in re.findall(r"Requests/sec: +([\d.]+)", said)]
    cluster.docker("service", "scale", f"{name()}_{SERVICE}=2")
    cluster.docker("node", "update", "--availability=drain", SPARE)
    until(cluster.settled, "the stack")
    return [row(f"replicas: {count}", rate, "requests/s", "replicas: 1", found[1]) for count, rate in found.items()]


def lost(
    load: Load, cluster: Cluster, versions: Versions, good: list[str], bad: str, runs: int
) -> list[dict[str, Any]]:
    """What is lost of the requests that are sent meanwhile, and how long the answers take."""
    _, node2, node3 = NODES
    calm = during(load, lambda: time.sleep(SETTLE_S))
    updates = []
    for run in range(1, runs + 1):
        updates.append(during(load, partial(versions.deploy, good[run % 2])))
        say(f"update {run} of {runs}: {len(faults(updates[-1]))} of {len(updates[-1])} requests lost")
    rollback = during(load, partial(versions.deploy, bad, before=good[runs % 2]))
    drained = during(load, partial(leave, cluster, node2, "node", "update", "--availability=drain", node2))
    cluster.docker("node", "update", "--availability=active", node2)
    killed, killed_at, dead_at = kill(load, cluster, node3)
    in_flight = [result for result in killed if result.began <= dead_at and result.ended > killed_at]
    later = [result for result in killed if result.began > dead_at]
    cases = {"update": updates, "rollback": [rollback], "node drained": [drained], "node killed, sent later": [later]}
    hindered = [result.began for result in later if result.fault or delay(result) > HINDERED_S]
    again = max(hindered, default=killed_at) - killed_at
    rows = []
    for case, found in (cases | {"node killed, in flight": [in_flight]}).items():
        rows.append(row(case, [*map(len, map(faults, found))], "lost", "sent", [*map(len, found)]))
        for fault in sorted({f"{result.case}: {result.fault}" for one in found for result in faults(one)}):
            say(f"{case}: {fault}")
    waits = [delay(result) * 1000 for result in calm]
    for case, found in cases.items():
        rows.append(row(f"{case}: answers", [delay(each) * 1000 for one in found for each in one], "ms", "calm", waits))
    return [*rows, row("node killed: service again", [again], "s", "wanted", [WANTED_S])]


def kill(load: Load, cluster: Cluster, node: str) -> tuple[list[Result], float, float]:
    """Kill a node: what becomes of the requests meanwhile, when the kill began, and when the node was certainly dead."""
    times = []

    def do() -> None:
        times.append(time.monotonic())
        cluster.kill(node)
        times.append(time.monotonic())
        leave(cluster, node)

    results = during(load, do)
    began, dead = times
    sent = ", ".join(f"{result.began - began:.2f}" for result in faults(results))
    say(f"the kill took {dead - began:.2f} s; the lost requests were sent at {sent or 'no time'} s after its begin")
    return results, began, dead


def during(load: Load, do: Callable[[], object]) -> list[Result]:
    """What becomes of the requests that are sent while something is done."""
    first = len(load.sent)
    time.sleep(SETTLE_S)
    do()
    time.sleep(SETTLE_S)
    return load.results(first)


def leave(cluster: Cluster, node: str, *command: str) -> None:
    """Run a command by which a node loses its tasks, if there is one, and wait until they run elsewhere."""
    if command:
        cluster.docker(*command)
    until(lambda: not cluster.tasks(node) and cluster.settled(), f"what ran on {node}")


def faults(results: list[Result]) -> list[Result]:
    """The lost requests."""
    return [result for result in results if result.fault]


def delay(result: Result) -> float:
    """How long a client waited for an answer, in seconds; a slow client's own time does not count."""
    return result.ended - result.began - (SLOW_S if result.case.slow else 0)
