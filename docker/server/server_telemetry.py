"""What gunicorn and uvicorn tell of each request: ids, a line of JSON in the access log, metrics for Prometheus."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import random
import re
import tempfile
import threading
import time
from bisect import bisect_left
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import chain
from select import PIPE_BUF

ACCESS_LOG = os.environ.get("STACK_ACCESS_LOG") != "off"
METRICS_PORT = int(os.environ.get("STACK_METRICS_PORT") or 0)  # 0: no metrics
TRUSTED = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1").split(",")  # as gunicorn and uvicorn have it
REQUEST_ID = re.compile(r"[A-Za-z0-9+/=_.:-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace, parent, flags.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0+-)([0-9a-f]{32})-(?!0+-)[0-9a-f]{16}-[0-9a-f]{2}")

# https://prometheus.io/docs/instrumenting/exposition_formats
METRICS_TYPE = b"text/plain; version=0.0.4"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
DURATION = "http_request_duration_seconds"
BUCKETS = [f'{DURATION}_bucket{{le="{limit}"}}' for limit in (*SECONDS, "+Inf")]
IN_PROGRESS, LARGE_BODIES = "http_requests_in_progress", "http_large_bodies_in_progress"
FAMILIES = {
    "http_requests_total counter": [f'http_requests_total{{status="{first}xx"}}' for first in range(1, 6)],
    f"{DURATION} histogram": [*BUCKETS, f"{DURATION}_sum", f"{DURATION}_count"],
    f"{IN_PROGRESS} gauge": [IN_PROGRESS],
    f"{LARGE_BODIES} gauge": [LARGE_BODIES],
}
NUMBERS = {name: index for index, name in enumerate(chain.from_iterable(FAMILIES.values()))}
PROCESSES = 256


class Metrics:
    """The numbers of all worker processes, in a file that they share; each process writes to a row of its own."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the server runs)
        self.file.truncate(PROCESSES * len(NUMBERS) * 8)
        self.cells = memoryview(mmap.mmap(self.file.fileno(), 0)).cast("d")
        self.lock = threading.Lock()
        self.row = 0

    def take_row(self) -> None:
        """Give this process the first row that no living process has; the counts of a dead one go on."""
        for row in range(PROCESSES):
            with suppress(BlockingIOError):
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, row)  # as long as this process lives
                self.row = row * len(NUMBERS)
                for gauge in (IN_PROGRESS, LARGE_BODIES):
                    self.cells[self.row + NUMBERS[gauge]] = 0
                return

    def add(self, amount: float, *names: str) -> None:
        """Add to some numbers of this process."""
        with self.lock:
            for name in names:
                self.cells[self.row + NUMBERS[name]] += amount

    def text(self) -> bytes:
        """The body of the answer to Prometheus."""
        lines = []
        for family, names in FAMILIES.items():
            lines.append(f"# TYPE {family}\n")
            lines += [f"{name} {sum(self.cells[NUMBERS[name] :: len(NUMBERS)])}\n" for name in names]
        return "".join(lines).encode()


METRICS = Metrics() if METRICS_PORT else None


def add(amount: float, *names: str) -> None:
    """Add to some numbers if there are metrics."""
    if METRICS:
        METRICS.add(amount, *names)


@lru_cache(1024)
def is_trusted(peer: str) -> bool:
    """Whether a peer is a proxy whose header fields are trusted."""
    return "*" in TRUSTED or any(ip_address(peer) in ip_network(proxy.strip()) for proxy in TRUSTED if peer and proxy)


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


def new_id() -> str:
    """A number of 128 bits; os.urandom would hand over to another thread each time."""
    return f"{random.getrandbits(128):032x}"


class Exchange:
    """A request and its answer; the application sets status and bytes, those of the body."""

    def __init__(self, *, internal: bool) -> None:
        self.internal = internal  # a health check, or a request for the metrics
        self.request_id = new_id()
        self.trace_id = self.client = self.method = self.path = ""
        self.status = self.bytes = 0
        self.began = 0.0  # 0: no head was received

    def start(self, peer: str, method: str, path: str, fields: dict[str, str]) -> dict[str, str]:
        """Take note of a request; returns fields for the application, in place of the client's; "" means none.

        All names are in capitals.
        """
        self.began, self.method, self.path, self.client = time.monotonic(), method, path, peer
        if is_trusted(peer):
            self.client = fields.get("X-FORWARDED-FOR", peer).rpartition(",")[2].strip()
            if REQUEST_ID.fullmatch(fields.get("X-REQUEST-ID", "")):
                self.request_id = fields["X-REQUEST-ID"]
        parent = fields.get("TRACEPARENT", "")
        found = TRACEPARENT.fullmatch(parent)
        self.trace_id = found[1] if found else new_id()
        add(1, IN_PROGRESS)
        made = {"TRACEPARENT": f"00-{self.trace_id}-{new_id()[:16]}-01", "TRACESTATE": ""}
        return {"X-REQUEST-ID": self.request_id, **({} if found else made)}

    def end(self) -> None:
        """Log and count the request, unless there was none, or it was an internal one that succeeded."""
        duration_s = time.monotonic() - self.began if self.began else 0.0
        if self.began:
            add(-1, IN_PROGRESS)
            self.status = self.status or 499  # as nginx says where the client has hung up
        if self.status and not (self.internal and self.status == 200):
            if METRICS:
                add(1, f'http_requests_total{{status="{self.status // 100}xx"}}', f"{DURATION}_count")
                add(1, *BUCKETS[bisect_left(SECONDS, duration_s) :])
                add(duration_s, f"{DURATION}_sum")
            if ACCESS_LOG:
                self.log(duration_s)
        self.began = self.status = 0

    def log(self, duration_s: float) -> None:
        """Write a line to the access log."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "client": self.client[:100],
            "method": self.method[:20],
            "path": self.path[:400],
            "status": self.status,
            "bytes": self.bytes,
            "duration_ms": round(duration_s * 1000, 1),
        }
        LOG.write(json.dumps(line).encode() + b"\n")
