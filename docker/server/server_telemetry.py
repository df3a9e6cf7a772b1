"""What gunicorn and uvicorn tell of each request: ids, a line of JSON in the access log, metrics for Prometheus."""

import fcntl
import mmap
import os
import random
import re
import threading
import time
from bisect import bisect_left
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import accumulate, chain
from json.encoder import encode_basestring_ascii as quoted
from select import PIPE_BUF

ACCESS_LOG = os.environ.get("STACK_ACCESS_LOG") != "off"
METRICS_PORT = int(os.environ.get("STACK_METRICS_PORT") or 0)  # 0: no metrics
TRUSTED = re.split(r"\s*,\s*", os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1").strip())  # as gunicorn has it
NETWORKS = [ip_network(each) for each in TRUSTED if each.strip("*")]
REQUEST_ID = re.compile(r"[A-Za-z0-9+/=_.:-]{1,128}")
# https://www.w3.org/TR/trace-context/#traceparent-header: version, trace, parent, flags.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0+-)([0-9a-f]{32})-(?!0+-)[0-9a-f]{16}-[0-9a-f]{2}")

# https://prometheus.io/docs/instrumenting/exposition_formats
METRICS_TYPE = b"text/plain; version=0.0.4"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
STATUSES = [f'http_requests_total{{status="{first}xx"}}' for first in range(1, 6)]
DURATION = "http_request_duration_seconds"
BUCKETS = [f'{DURATION}_bucket{{le="{limit}"}}' for limit in (*SECONDS, "+Inf")]
IN_PROGRESS, LARGE_BODIES = "http_requests_in_progress", "http_large_bodies_in_progress"
FAMILIES = {
    "http_requests_total counter": STATUSES,
    f"{DURATION} histogram": [*BUCKETS, f"{DURATION}_sum", f"{DURATION}_count"],
    **{f"{gauge} gauge": [gauge] for gauge in (IN_PROGRESS, LARGE_BODIES)},
}
NUMBERS = {name: index for index, name in enumerate(chain.from_iterable(FAMILIES.values()))}
PROCESSES = 256


class Metrics:
    """The numbers of all worker processes, in a file that they share; each process writes to a row of its own."""

    def __init__(self) -> None:
        self.file = os.memfd_create("metrics")
        os.truncate(self.file, PROCESSES * len(NUMBERS) * 8)
        self.cells = memoryview(mmap.mmap(self.file, 0)).cast("d")
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

    def add(self, amounts: dict[str, float]) -> None:
        """Add to some numbers of this process; to that bucket alone which is the first that a request is in."""
        with self.lock:
            for name, amount in amounts.items():
                self.cells[self.row + NUMBERS[name]] += amount

    def text(self) -> bytes:
        """The body of the answer to Prometheus."""
        totals = {name: sum(self.cells[index :: len(NUMBERS)]) for name, index in NUMBERS.items()}
        totals |= zip(BUCKETS, accumulate(totals[bucket] for bucket in BUCKETS), strict=True)
        types = {names[0]: f"# TYPE {family}\n" for family, names in FAMILIES.items()}
        return "".join(f"{types.get(name, '')}{name} {total}\n" for name, total in totals.items()).encode()


METRICS = Metrics() if METRICS_PORT else None


def add(amounts: dict[str, float]) -> None:
    """Add to some numbers if there are metrics."""
    if METRICS:
        METRICS.add(amounts)


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
# Written out, because json.dumps takes several times as long; ids and methods contain nothing that must be quoted.
LINE = (
    '{"time": "%s", "request_id": "%s", "trace_id": "%s", "client": %s, "method": "%s", "path": %s, '
    '"status": %d, "bytes": %d, "duration_ms": %.1f}\n'
)


def new_id(bits: int = 128) -> str:
    """A random number in hexadecimal; os.urandom would hand over to another thread each time."""
    return f"{random.getrandbits(bits):0{bits // 4}x}"


class Exchange:
    """A request and its answer; the application sets status and bytes, those of the body."""

    trace_id = client = method = path = ""
    status = bytes = 0
    began, started = 0.0, False  # 0: no head was received; whether the answer is started, by ASGI

    def __init__(self, *, internal: bool) -> None:
        self.internal = internal  # a health check, or a request for the metrics
        self.request_id = new_id()

    def start(self, peer: str, method: str, path: str, fields: dict[str, str]) -> dict[str, str]:
        """Take note of a request; returns fields for the application, in place of the client's; "" means none.

        All names are in capitals.
        """
        self.began, self.method, self.path, self.client = time.monotonic(), method, path, peer
        add({IN_PROGRESS: 1})
        if is_trusted(peer):
            self.client = fields.get("X-FORWARDED-FOR", peer).rpartition(",")[2].strip()
            if "X-REQUEST-ID" in fields and REQUEST_ID.fullmatch(fields["X-REQUEST-ID"]):
                self.request_id = fields["X-REQUEST-ID"]
        if "TRACEPARENT" in fields and (found := TRACEPARENT.fullmatch(fields["TRACEPARENT"])):
            self.trace_id = found[1]
            return {"X-REQUEST-ID": self.request_id}
        made = new_id(192)
        self.trace_id = made[:32]
        return {"X-REQUEST-ID": self.request_id, "TRACEPARENT": f"00-{made[:32]}-{made[32:]}-01", "TRACESTATE": ""}

    def end(self) -> None:
        """Log and count the request, unless there was none, or it was an internal one that succeeded."""
        duration_s = time.monotonic() - self.began if self.began else 0.0
        if self.began:
            add({IN_PROGRESS: -1})
            self.status = self.status or 499  # as nginx says where the client has hung up
        if self.status and not (self.internal and self.status == 200):
            if METRICS:
                names = STATUSES[min(self.status // 100, 5) - 1], BUCKETS[bisect_left(SECONDS, duration_s)]
                add({**dict.fromkeys((*names, f"{DURATION}_count"), 1), f"{DURATION}_sum": duration_s})
            if ACCESS_LOG:
                now = datetime.now(UTC).isoformat(timespec="milliseconds")
                said = quoted(self.client[:100]), self.method[:20], quoted(self.path[:400])
                sent = self.status, max(self.bytes, 0)  # less than 0 when the client did not take the head
                LOG.write((LINE % (now, self.request_id, self.trace_id, *said, *sent, duration_s * 1000)).encode())
        self.began = self.status = 0
