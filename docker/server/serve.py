"""Starts what INTERFACE says, gunicorn (wsgi), uvicorn (asgi) or a command, and handles SIGTERM from its first moment on.

PID 1 of a container gets no signal that it has no handler for, and servers set their handlers only when all is imported.
"""

import os
import signal
import sys
from pathlib import Path

# An exception would be ignored in a destructor or a weak reference's callback, as imports have them.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
interface = os.environ.get("INTERFACE", "wsgi")

if interface in ("asgi", "command"):  # gunicorn is an init itself
    import serve_init

    serve_init.fork()

if interface != "command" and any(name.startswith("OTEL_") for name in os.environ):  # which is another process
    try:
        from opentelemetry.instrumentation.auto_instrumentation import initialize
    except ImportError:
        sys.exit("OTEL_* is set, but the service has no opentelemetry-distro: see docs/production.md")
    initialize()

if interface in ("asgi", "wsgi"):
    import server_metrics

    server_metrics.serve()

if interface == "asgi":
    import serve_asgi

    serve_asgi.run()
elif interface == "command":
    import serve_command

    serve_command.run()
elif interface == "wsgi":
    import server_telemetry  # noqa: F401 (which tells what is wrong in FORWARDED_ALLOW_IPS; gunicorn does not name it)
    from gunicorn.app.wsgiapp import run

    sys.argv = ["gunicorn", f"--config={Path(__file__).with_name('gunicorn.conf.py')}"]
    run()
else:
    sys.exit(f"INTERFACE is {interface!r}; it must be wsgi, asgi or command")
