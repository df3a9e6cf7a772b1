"""How gunicorn serves a production image; WEB_CONCURRENCY sets the number of worker processes."""

import os

from gunicorn_worker import Worker

wsgi_app = os.environ["APPLICATION"]
bind = "0.0.0.0:8000"
workers = int(os.environ.get("WEB_CONCURRENCY") or 1)
worker_class = Worker
# One for each connection that is at work or sends slowly: they are made as they are needed, and cost little. During a
# reload there may be twice as many; pids_limit in docker/service.yaml must allow for them.
threads = max(500 // workers, 8)
preload_app = True
worker_tmp_dir = "/dev/shm"  # noqa: S108 (gunicorn's heartbeat must not wait for a disk)
control_socket_disable = True
accesslog = "-"
# Shorter than the 10 s that Docker waits between SIGTERM and SIGKILL.
graceful_timeout = 3
