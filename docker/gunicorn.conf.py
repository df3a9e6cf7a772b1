"""How gunicorn serves a production image; WEB_CONCURRENCY sets the number of worker processes."""

import os

wsgi_app = os.environ["APPLICATION"]
bind = "0.0.0.0:8000"
worker_class = "gthread"
threads = 8
preload_app = True
worker_tmp_dir = "/dev/shm"  # noqa: S108 (gunicorn's heartbeat must not wait for a disk)
control_socket_disable = True
accesslog = "-"
# Shorter than the 10 s that Docker waits between SIGTERM and SIGKILL.
graceful_timeout = 4
