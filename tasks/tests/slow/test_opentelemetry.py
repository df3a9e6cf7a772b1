"""OpenTelemetry in production images: a service's spans arrive at a collector, with the trace of whoever asked."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from .clones import ENVIRONMENT, LIMIT_S, Clone, edit

pytestmark = pytest.mark.slow
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
COLLECTOR = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.path, self.rfile.read(int(self.headers["Content-Length"])).hex(), flush=True)
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", 4318), Collector).serve_forever()
"""
ASK = f"""
from urllib.request import Request, urlopen
print(urlopen(Request("http://127.0.0.1:8000/", headers={{"traceparent": "00-{TRACE}-00f067aa0ba902b7-01"}})).status)
"""


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@contextmanager
def container(*arguments: str) -> Iterator[str]:
    started = docker("run", "--detach", *arguments).strip()
    try:
        yield started
    finally:
        docker("rm", "--force", started)


def until(text: str, ask: Callable[[], str]) -> None:
    end = time.monotonic() + LIMIT_S
    while text not in (last := ask()):
        assert time.monotonic() < end, last
        time.sleep(0.2)


@pytest.fixture(scope="module")
def clone(make_clone: Callable[[str], Clone]) -> Clone:
    """A clone with pilot (Flask) and api (FastAPI), made as docs/production.md says."""
    made = make_clone("telemetry")
    made.nox("-s", "remove", "--", "deck")
    made.nox("-s", "new", "--", "api", "--kind", "fastapi")
    groups, own = made.root / "pyproject.toml", '    "opentelemetry-instrumentation-fastapi",\n'
    edit(groups, "\npilot = [\n", '\npilot = [\n    {include-group = "telemetry"},\n')
    edit(groups, "\napi = [\n", '\napi = [\n    {include-group = "telemetry"},\n' + own)
    made.nox("-s", "lock")
    made.nox("-s", "build")
    return made


@pytest.mark.parametrize("service", ["pilot", "api"])
def test_spans_arrive(clone: Clone, service: str) -> None:
    image, protocol = f"{clone.name}/{service}:prod", "--env=OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
    endpoint, name = "--env=OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318", f"--env=OTEL_SERVICE_NAME=the-{service}"
    with (
        container("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", endpoint, protocol, name, image) as started,
        container(f"--network=container:{started}", image, "python3", "-c", COLLECTOR) as collector,
    ):
        until("200", lambda: docker("exec", started, "python3", "-c", ASK))
        until(TRACE, lambda: docker("logs", collector))
        spans = [
            line for line in docker("logs", collector).splitlines() if line.startswith("/v1/traces") and TRACE in line
        ]
        assert f"the-{service}".encode().hex() in spans[0]
