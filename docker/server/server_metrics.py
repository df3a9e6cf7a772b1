"""Metrics for Prometheus, by its own library, on the port that STACK_METRICS_PORT names: the servers' and the application's own."""

import os
import sys
import tempfile

PORT = int(os.environ.get("STACK_METRICS_PORT") or 0)

if PORT:
    # Worker processes have their numbers in files there; the library looks for this when it is imported.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp()
    try:
        from prometheus_client import CollectorRegistry, Histogram, start_http_server
        from prometheus_client.multiprocess import MultiProcessCollector
    except ImportError:
        sys.exit("STACK_METRICS_PORT is set, but the service has no prometheus-client: see docs/production.md")
    SECONDS = Histogram("http_request_duration_seconds", "From a request's head to its answer's end.", ["status"])


def serve() -> None:
    """Answer Prometheus, by a thread of this process, if there are metrics."""
    if PORT:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        start_http_server(PORT, registry=registry)


def count(status: int, duration_s: float) -> None:
    """Count a request with its status and duration, if there are metrics."""
    if PORT:
        SECONDS.labels(f"{status // 100}xx").observe(duration_s)
