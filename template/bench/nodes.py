"""A swarm on this machine: engines in privileged containers, a registry, and the entry proxy of deploy/."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tasks.env import env
from tasks.ownership import labels
from tasks.project import ROOT, clone_id, name
from tasks.shell import CommandFailed, UserError, output

NODES = ("node1", "node2", "node3")
SPARE = "node4"  # a worker, for the fourth replica
OTHERS = ("registry", "entry")
RECIPE = ROOT / "template/references/node.Dockerfile"
PREFIX = f"{clone_id()}-cluster"
IMAGE = f"{clone_id()}/node:cluster"
REGISTRY = "registry:5000"  # as the nodes call it
TIMEOUT_S = 120


class Cluster:
    """Three nodes, a spare one, a registry and an entry proxy, on a network of their own."""

    def __init__(self, folder: Path, proxy: Path) -> None:
        self.folder, self.proxy = folder, proxy
        self.sockets = {node: f"unix://{folder}/{node}/docker.sock" for node in (*NODES, SPARE)}

    def start(self) -> None:
        """Build the image, start all containers, and join the nodes."""
        base = f"--build-arg=STACK_BASE={env()['STACK_BASE']}"
        output("docker", "build", "--quiet", f"--tag={IMAGE}", f"--file={RECIPE}", base, str(RECIPE.parent))
        output("docker", "network", "create", *labels(), PREFIX)
        for node in self.sockets:
            options = ("--privileged", f"--hostname={node}", "--network-alias=nodes", "--volume=/var/lib/docker")
            command = ("dockerd", "--host=unix:///run/node/docker.sock", f"--insecure-registry={REGISTRY}")
            self.run(node, *options, f"--volume={self.folder}/{node}:/run/node", IMAGE, *command)
        config = self.folder / "registry.yaml"
        storage = "storage: {filesystem: {rootdirectory: /var/lib/registry}}"
        config.write_text(f"version: 0.1\n{storage}\nhttp: {{addr: ':5000'}}\n")
        where = ("--publish=127.0.0.1::5000", "--network-alias=registry", f"--volume={config}:/registry.yaml:ro")
        self.run("registry", *where, IMAGE, "docker-registry", "serve", "/registry.yaml")
        proxy = f"--volume={self.proxy}:/haproxy.cfg:ro"
        self.run("entry", proxy, "--env=STACK_NODES=nodes", IMAGE, "haproxy", "-W", "-f", "/haproxy.cfg")
        for node in self.sockets:
            until(partial(self.docker, "version", node=node), f"the engine of {node}")
        self.docker("swarm", "init", "--advertise-addr=eth0")
        for node in (*NODES[1:], SPARE):
            token = self.docker("swarm", "join-token", "--quiet", "worker" if node == SPARE else "manager").strip()
            first = f"{PREFIX}-{NODES[0]}:2377"
            self.docker("swarm", "join", "--advertise-addr=eth0", f"--token={token}", first, node=node)

    def run(self, title: str, *arguments: str) -> None:
        """Start a container on the network."""
        output("docker", "run", "--detach", *labels(), f"--name={PREFIX}-{title}", f"--network={PREFIX}", *arguments)

    def docker(self, *arguments: str, node: str = NODES[0]) -> str:
        """Run Docker's client for a node's engine."""
        return output("docker", "--host", self.sockets[node], *arguments)

    def address(self, title: str) -> str:
        """A container's address."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return output("docker", "inspect", f"--format={form}", f"{PREFIX}-{title}").strip()

    def settled(self) -> bool:
        """Whether as many tasks run, and are to run, as there are to be replicas."""
        listed = self.docker("stack", "services", name(), "--format={{.Replicas}}").splitlines()
        wanted = sum(int(replicas.split()[0].partition("/")[2]) for replicas in listed)
        return sum(state.startswith("Running") for state in self.tasks(what="CurrentState")) == wanted

    def tasks(self, node: str = "", what: str = "Image") -> list[str]:
        """The images, or something else, of all tasks that are to run, or of those on a node."""
        where = ("node", "ps", node) if node else ("stack", "ps", name())
        form = f"--format={{{{.{what}}}}}"
        return self.docker(*where, "--no-trunc", "--filter=desired-state=running", form).splitlines()

    def kill(self, node: str) -> None:
        """Kill a node with all that runs on it."""
        output("docker", "kill", f"{PREFIX}-{node}")

    def stop(self) -> None:
        """Remove everything."""
        with suppress(CommandFailed):
            output("docker", "rm", "--force", "--volumes", *(f"{PREFIX}-{each}" for each in (*self.sockets, *OTHERS)))
        for command in (("network", "rm", PREFIX), ("image", "rm", "--force", IMAGE)):
            with suppress(CommandFailed):
                output("docker", *command)


def until(ready: Callable[[], object], what: str) -> None:
    """Wait until a function returns something true; raises UserError after TIMEOUT_S."""
    began = time.monotonic()
    while time.monotonic() - began < TIMEOUT_S:
        with suppress(CommandFailed):
            if ready():
                return
        time.sleep(0.5)
    raise UserError(f"{what} did not start within {TIMEOUT_S} s")
