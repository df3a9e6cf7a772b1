"""What gunicorn and uvicorn tell of each request: ids, a line of JSON in the access log, metrics for Prometheus."""

import json
import os
import random
import re
import sys
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from select import PIPE_BUF

from server_limits import ADDRESS

ACCESS_LOG = os.environ.get("STACK_ACCESS_LOG") != "off"
TRUSTED = re.split(r"\s*,\s*", os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1").strip())  # as gunicorn has it
try:
    NETWORKS = [ip_network(each) for each in TRUSTED if each.strip("*")]
except ValueError as error:
    sys.exit(f"FORWARDED_ALLOW_IPS: {error}")
METRICS_PORT = int(os.environ.get("STACK_METRICS_PORT") or 0)
if METRICS_PORT:
    # Worker processes have their numbers in files there; the library looks for this when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
    from prometheus_client import CollectorRegistry, Histogram, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    SECONDS = Histogram("http_request_duration_seconds", "From a request's head to its answer's end.", ["status"])
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    start_http_server(METRICS_PORT, ADDRESS, registry)  # a thread, for the server's metrics and the application's own
REQUEST_ID = re.compile(r"[A-Za-z0-9+/=_.:-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace, parent, flags.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0+-)([0-9a-f]{32})-(?!0+-)[0-9a-f]{16}-[0-9a-f]{2}")


@lru_cache(1024)
def is_trusted(peer: str) -> bool:
    """Whether a peer is a proxy whose header fields are trusted."""
    return "*" in TRUSTED or (peer != "" and any(ip_address(peer) in network for network in NETWORKS))


class Log:
    """The access log, written by a thread of its own: one that waits for the disk must not keep requests waiting."""

    def __init__(self) -> None:
        self.lines: deque[bytes] = deque(maxlen=10_000)  # the oldest are dropped when nobody reads the log
        self.thread = ThreadPoolExecutor(1)
        self.scheduled = False

    def write(self, line: bytes) -> None:
        """Have a line written soon."""
        self.lines.append(line)
        if not self.scheduled:
            self.scheduled = True
            self.thread.submit(self.write_all)

    def write_all(self) -> None:
        """Write all lines, no more at a time than a pipe takes without mixing them with another process's."""
        time.sleep(0.02)  # lines that are written together cost less
        self.scheduled = False
        while self.lines:
            text = self.lines.popleft()
            while self.lines and len(text) + len(self.lines[0]) <= PIPE_BUF:
                text += self.lines.popleft()
            with suppress(OSError):
                os.write(1, text)


LOG = Log()


def new_id(bits: int = 128) -> str:
    """A random number in hexadecimal; os.urandom would hand over to another thread each time."""
    # The time, because an application may have called random.seed().
    return f"{random.getrandbits(bits) ^ time.time_ns():0{bits // 4}x}"


class Exchange:
    """A request and its answer; the application sets status and bytes, those of the body."""

    trace_id = client = method = path = ""
    status = bytes = 0
    began = 0.0  # 0: no head was received

    def __init__(self, *, health_check: bool) -> None:
        self.health_check = health_check
        self.request_id = new_id()

    def start(self, peer: str, method: str, path: str, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Take note of a request; returns its header fields for the application, with ids. All names are in capitals."""
        fields = dict(headers)
        self.began, self.method, self.path, self.client = time.monotonic(), method, path, peer
        if is_trusted(peer):
            self.client = fields.get("X-FORWARDED-FOR", peer).rpartition(",")[2].strip()
            if "X-REQUEST-ID" in fields and REQUEST_ID.fullmatch(fields["X-REQUEST-ID"]):
                self.request_id = fields["X-REQUEST-ID"]
        made = {"X-REQUEST-ID": self.request_id}
        found = TRACEPARENT.fullmatch(fields.get("TRACEPARENT", ""))
        self.trace_id = found[1] if found else new_id()
        if not found:
            made |= {"TRACEPARENT": f"00-{self.trace_id}-{new_id(64)}-01", "TRACESTATE": ""}  # the client's is removed
        return [field for field in headers if field[0] not in made] + [field for field in made.items() if field[1]]

    def end(self) -> None:
        """Log and count the request, unless there was none, or it was a health check that succeeded."""
        duration_s = time.monotonic() - self.began if self.began else 0.0
        self.status = self.status or 499 * bool(self.began)  # as nginx says where the client has hung up
        if self.status and not (self.health_check and self.status < 500):
            if METRICS_PORT:
                SECONDS.labels(f"{self.status // 100}xx").observe(duration_s)
            if ACCESS_LOG:
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                line: dict[str, object] = {"time": now, "request_id": self.request_id, "trace_id": self.trace_id}
                line |= {"client": self.client[:100], "method": self.method[:20], "path": self.path[:400]}
                line |= {"status": self.status, "bytes": max(self.bytes, 0)}  # < 0: the client did not take the head
                LOG.write(json.dumps(line | {"duration_ms": round(duration_s * 1000, 1)}).encode() + b"\n")
        self.began = self.status = 0
