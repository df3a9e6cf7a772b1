"""How gunicorn serves a production image; WEB_CONCURRENCY sets the number of worker processes."""

import os
import time
from typing import Any, NoReturn

import server_limits as limits
from gunicorn_worker import Worker

wsgi_app = "serve_application:application"  # which knows more than gunicorn does
bind = [f"[{limits.ADDRESS}]:{limits.PORT}", f"unix:{limits.HEALTH_SOCKET}"]
workers = int(os.environ.get("WEB_CONCURRENCY") or 1)
worker_class = Worker
# One for each request that is processed or whose client is slow: they are made as they are needed, and cost little. BUSY in
# gunicorn_worker.py limits how many compete for the processor. During a reload there may be twice as many; pids_limit in
# docker/service.yaml must allow for them. Of fewer than 64, slow clients and those with large bodies could take all.
threads = max(800 // workers, 64)
worker_connections = limits.CONNECTIONS
# Seconds that a connection may be idle, also before its first request; a busy client or proxy may need more than gunicorn's 2.
keepalive = int(limits.TIMEOUT_S)
preload_app = True
worker_tmp_dir = "/dev/shm"  # noqa: S108 (gunicorn's heartbeat must not wait for a disk)
control_socket_disable = True
# For requests; with 1 s until a worker process notices, 3 s for its end, and 1 s more, shorter than Docker's 10 s.
graceful_timeout = 3
limit_request_line = limit_request_field_size = limits.LINE_BYTES
limit_request_fields = limits.FIELDS
# gunicorn_worker.py relies on these.
http_parser = "python"
header_map = "refuse"  # 400 to names with underscores, which a proxy may read as hyphens
forwarder_headers = ""  # to SCRIPT_NAME and PATH_INFO, too: a trusted proxy may pass on what a client has sent
sendfile = False  # it has no timeout


def on_starting(arbiter: Any) -> None:
    """Lose no connection when the server is stopped."""

    def handle_term() -> NoReturn:
        # Here, in the process that waits for the workers; they have a copy from before.
        arbiter.cfg.set("graceful_timeout", arbiter.cfg.graceful_timeout + 5)
        limits.refuse_new_connections(arbiter.LISTENERS)
        time.sleep(0.05)  # for connections that are being made
        raise StopIteration  # as gunicorn does

    arbiter.handle_term = handle_term
