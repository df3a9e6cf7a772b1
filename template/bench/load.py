"""What honest clients get from a production container beside attackers, over many requests, and while it is replaced."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.images import bake
from tasks.ownership import labels
from tasks.project import ROOT
from tasks.shell import UserError, output
from tasks.terminal import say

from . import SERVICE, row

# As docker/service.yaml has them.
LIMITS = ("--memory=256m", "--cpus=1", "--pids-limit=2048", "--read-only", "--tmpfs=/tmp:size=64m", "--cap-drop=ALL")
POST = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {0}\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
# How many connections send what, and then what each second.
ATTACKS = {
    "500 read no answer of 60 kB": (500, POST.format(60_000).encode() + b"x" * 60_000, b""),
    "16 read no answer of 1 MB": (16, POST.format(1_000_000).encode() + b"x" * 1_000_000, b""),
    "500 send heads of 97 x 8 kB": (500, GET + (b"A: " + b"a" * 8000 + b"\r\n") * 97, b""),
    "500 read no answer of 1 MB": (500, POST.format(1_000_000).encode() + b"x" * 1_000_000, b""),
    "500 send heads slowly": (500, GET + b"A: ", b"a"),
    "500 send bodies slowly": (500, POST.format(60_000).encode(), b"x"),
    "500 send large bodies slowly": (500, POST.format(1_000_000).encode(), b"x"),
}
UPGRADE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
# A message that makes the application send many of 1 MB, see docker/server/tests/app.py.
FLOOD = b"\x81\x86" + bytes(4) + b"999999"
WEB_SOCKETS = {"500 web sockets do not read": (500, GET + UPGRADE % b"dGhlIHNhbXBsZSBub25jZQ==", FLOOD)}
HONEST = 50
MANY, RELOAD = 100_000, 10_000  # requests


class Clients:
    """Honest clients of some addresses: what each request took in ms, and how many were lost or refused by status."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.took: list[float] = []
        self.lost: list[str] = []

    async def one(self) -> None:
        """Send a request over a connection of its own; the next address is tried where nobody accepts connections."""
        began = time.perf_counter()
        try:
            for address in [*self.addresses]:
                try:
                    reader, writer = await asyncio.wait_for(asyncio.open_connection(address, 8000), 2)
                    break
                except (OSError, TimeoutError):  # it is stopping, or its container has gone
                    self.addresses.sort(key=address.__eq__)  # the others first from now on
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), 20)
            writer.close()
            if not answer.startswith(b"HTTP/1.1 200 "):
                self.lost.append(answer[:40].decode())
        except (OSError, TimeoutError, UnboundLocalError) as error:
            self.lost.append(repr(error))
        self.took.append((time.perf_counter() - began) * 1000)

    async def run(self, number: int, pause_s: float = 0.0) -> None:
        """Send so many requests, HONEST at a time."""

        async def client() -> None:
            for _ in range(number // HONEST):
                await self.one()
                await asyncio.sleep(pause_s)

        await asyncio.gather(*(client() for _ in range(HONEST)))


async def attack(address: str, number: int, sent: bytes, more: bytes) -> None:
    """Keep so many connections that send and do not read; one that is closed is opened again a second later."""

    async def attacker() -> None:
        while True:
            with socket.socket() as client, suppress(OSError):
                client.setblocking(False)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, (address, 8000))
                await loop.sock_sendall(client, sent)
                while True:
                    await asyncio.sleep(1)
                    client.send(more)
                    client.getpeername()
            await asyncio.sleep(1)

    await asyncio.gather(*(attacker() for _ in range(number)))


@contextmanager
def attackers(address: str, case: tuple[int, bytes, bytes]) -> Iterator[None]:
    """A process of their own, which takes no time from the honest clients' loop."""
    process = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(attack(address, *case)))
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextmanager
def container(image: str, *options: str) -> Iterator[tuple[str, str]]:
    """A production container that is healthy: its id and address."""
    started = output("docker", "run", "--detach", *labels(), *LIMITS, *options, image).strip()
    try:
        address = output("docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", started).strip()
        until = time.monotonic() + 30
        while health(started) != "healthy":
            if time.monotonic() > until:
                raise UserError(f"{image} does not become healthy")
            time.sleep(0.1)
        yield started, address
    finally:
        output("docker", "rm", "--force", started)


def health(started: str) -> str:
    """What the engine says of a container's health."""
    return output("docker", "inspect", "--format", "{{.State.Health.Status}}", started).strip()


def memory_mb(started: str) -> float:
    """The memory of a container's server processes."""
    table = output("docker", "top", started, "-eo", "pid,rss").splitlines()[1:]
    return sum(int(line.split()[1]) for line in table) / 1024


def asgi(image: str, folder: Path) -> list[str]:
    """What makes the same image serve the ASGI application that the server is tested with."""
    version = output(
        "docker", "run", "--rm", image, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
    )
    packages = ("--target", str(folder), "--python-version", version.strip(), "uvicorn", "httptools", "websockets")
    output("uv", "pip", "install", "--quiet", *packages)
    folder.chmod(0o755)
    env = {"PYTHONPATH": "/tests:/packages", "INTERFACE": "asgi", "APPLICATION": "app:asgi_app"}
    mounts = {folder: "/packages", ROOT / "docker/server/tests": "/tests"}
    return [
        *(f"--env={name}={value}" for name, value in env.items()),
        *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
    ]


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Attack for 1.5 s a run, 30 s by default, then count."""
    (image,) = bake.build([SERVICE], "prod")
    found = []
    for kind, options in {"wsgi": [], "asgi": asgi(image, folder / "packages")}.items():
        found += asyncio.run(attacked(image, kind, options, runs * 1.5))
    return {"bench": "load", "rows": found + asyncio.run(rows(image))}


async def attacked(image: str, kind: str, options: list[str], seconds: float) -> list[dict[str, Any]]:
    """A row for each attack: how many requests were lost, how often the container was unhealthy, its most memory."""
    found = []
    number = int(seconds * HONEST * 5)
    with container(image, *options) as (started, address):
        alone = Clients(address)
        await alone.run(number, 0.2)
        p99 = [statistics.quantiles(alone.took, n=100)[98]]
    for case, what in (ATTACKS | (WEB_SOCKETS if kind == "asgi" else {})).items():
        with container(image, *options) as (started, address), attackers(address, what):
            clients, red, memory = Clients(address), 0, 0.0
            honest = asyncio.create_task(clients.run(number, 0.2))
            while not honest.done():
                await asyncio.sleep(1)
                red += await asyncio.to_thread(health, started) != "healthy"
                memory = max(memory, await asyncio.to_thread(memory_mb, started))
            more = {
                "lost": len(clients.lost),
                "red": red,
                "memory_mb": round(memory),
                "slowest_ms": round(max(clients.took)),
            }
            most = [statistics.quantiles(clients.took, n=100)[98]]
            found.append(row(f"p99, {kind}, {case}", most, "ms", "without", p99, **more))
            say(f"{found[-1]} {set(clients.lost)}")
    return found


async def rows(image: str) -> list[dict[str, Any]]:
    """Memory after many requests, and requests while containers are replaced."""
    found = []
    with container(image) as (started, address):
        alone = Clients(address)
        await alone.run(RELOAD)
        before, clients = memory_mb(started), Clients(address)
        await clients.run(MANY)
        after = [memory_mb(started)]
        found.append(row(f"memory, {MANY} requests", after, "MB", f"{RELOAD}", [before], lost=len(clients.lost), red=0))
        say(str(found[-1]))
    with container(image) as (first, address), container(image) as (_, other):
        clients = Clients(address, other)
        running = asyncio.create_task(clients.run(RELOAD))
        for _ in range(3):
            await asyncio.sleep(1)
            await asyncio.to_thread(output, "docker", "kill", "--signal=HUP", first)
        await asyncio.to_thread(output, "docker", "stop", first)
        await running
        found.append(
            row("3 x SIGHUP, 1 x stop", clients.took, "ms", "without", alone.took, lost=len(clients.lost), red=0)
        )
        say(f"{found[-1]} {set(clients.lost)}")
    return found
