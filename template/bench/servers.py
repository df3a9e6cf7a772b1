"""Our servers beside others from PyPI: ambiguous requests (request smuggling), requests a second, memory. Needs wrk."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tasks.project import ROOT
from tasks.shell import UserError, output
from tasks.terminal import say

from . import row

PACKAGES = ("gunicorn==27.*", "uvicorn", "httptools", "websockets", "waitress", "granian", "cheroot", "hypercorn")
SERVE, TESTS = str(ROOT / "docker/server/serve.py"), ROOT / "docker/server/tests"
CORPUS = runpy.run_path(str(TESTS / "corpus.py"))
# Each server's command; the first of each kind is the reference.
WSGI = {
    "gunicorn gthread": "gunicorn --worker-class=gthread --threads=50 --bind=127.0.0.1:{port} app:app",
    "ours": f"python {SERVE}",
    "ours, no log": f"python {SERVE}",
    "waitress": "waitress-serve --listen=127.0.0.1:{port} --threads=50 app:app",
    "granian": "granian --interface=wsgi --loop=asyncio --port={port} app:app",
    "cheroot": "cheroot --bind=127.0.0.1:{port} --threads=50 app:app",
}
ASGI = {
    "uvicorn": "uvicorn --loop=asyncio --http=httptools --port={port} --no-access-log app:asgi_app",
    "uvicorn, log": "uvicorn --loop=asyncio --http=httptools --port={port} app:asgi_app",
    "ours, asgi": f"python {SERVE}",
    "ours, asgi, no log": f"python {SERVE}",
    "hypercorn": "hypercorn --bind=127.0.0.1:{port} app:asgi_app",
}
CONNECTIONS = (1, 50, 400)


@contextmanager
def running(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    """A server with one process for requests, from the virtual environment in a folder; yields its id and port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    env = os.environ | {
        "INTERFACE": "asgi" if name in ASGI else "wsgi",
        "APPLICATION": "app:asgi_app" if name in ASGI else "app:app",
        "STACK_PORT": str(port),
        "STACK_HEALTH_SOCKET": str(folder / "health"),
        "STACK_ACCESS_LOG": "off" if "no log" in name else "",
        "PYTHONPATH": str(TESTS),
    }
    program, *arguments = (WSGI | ASGI)[name].format(port=port).split()
    with (folder / "log").open("w") as log:
        command = [str(folder / "venv/bin" / program), *arguments]
        process = subprocess.Popen(command, cwd=TESTS, env=env, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if time.monotonic() > until:
                raise UserError(f"{name} does not start: {(folder / 'log').read_text(encoding='utf-8')[-500:]}")
            time.sleep(0.1)
        yield process.pid, port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()


def safe(port: int, case: tuple[int, str, bool]) -> bool:
    """Whether a request gets what it should: one answer, or an error, or none; never an answer to what is no request."""
    status, request, ends = case
    got = b""
    with socket.create_connection(("127.0.0.1", port), 2) as client, suppress(OSError):
        client.sendall(CORPUS["encoded"](request))
        if ends:
            client.shutdown(socket.SHUT_WR)
        while more := client.recv(65536):
            got += more
    found = [int(each) for each in re.findall(rb"^HTTP/1\.\d (\d+) ", got, re.MULTILINE)]
    return found == [200] if status == 200 else not found or (len(found) == 1 and found[0] >= 400)


def memory_mb(pid: int) -> float:
    """The memory of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    rss = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    return int(rss[0]) / 1024 + sum(memory_mb(int(child)) for child in children)


def load(port: int, connections: int, seconds: int) -> tuple[float, str]:
    """Requests a second, and the 99th percentile of their latency."""
    text = output("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/")
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0]), re.findall(r"(?m)^ *99% +(\S+)", text)[0]


def measure(folder: Path, runs: int) -> dict[str, Any]:
    """Load each server for so many seconds with each number of connections."""
    if not shutil.which("wrk"):
        raise UserError("this bench needs wrk: apt-get install wrk")
    output("uv", "venv", "--quiet", str(folder / "venv"))
    output("uv", "pip", "install", "--quiet", f"--python={folder}/venv/bin/python", *PACKAGES)
    cases = [(s, request, False) for t in ("HEADS", "BODIES") for s in CORPUS[t] for request in CORPUS[t][s]]
    cases += [(400, request, True) for request in CORPUS["TRUNCATED"]]
    rows = []
    for name in (*WSGI, *ASGI):
        with running(name, folder) as (pid, port):
            speeds = [load(port, connections, runs) for connections in CONNECTIONS]
            memory = memory_mb(pid)
            with ThreadPoolExecutor(16) as pool:
                good = sum(pool.map(lambda case, port=port: safe(port, case), cases))
        if name in (next(iter(WSGI)), next(iter(ASGI))):
            reference, references = name, [speed for speed, _ in speeds]
        for connections, (speed, p99), beside in zip(CONNECTIONS, speeds, references, strict=True):
            more = {"p99": p99, "safe": f"{good} of {len(cases)}", "memory_mb": round(memory)}
            rows.append(row(f"{name}, {connections} connections", [speed], "req/s", reference, [beside], **more))
            say(str(rows[-1]))
    return {"bench": "servers", "rows": rows}
