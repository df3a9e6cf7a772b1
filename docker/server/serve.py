"""Starts what INTERFACE says, gunicorn (wsgi), uvicorn (asgi) or a command, and handles SIGTERM from its first moment on.

PID 1 of a container gets no signal that it has no handler for, and servers set their handlers only when all is imported.
"""

import os
import signal
import sys

# An exception would be ignored in a destructor or a weak reference's callback, as imports have them.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
interface = os.environ.get("INTERFACE", "wsgi")
del __file__  # else multiprocessing would run this program again in processes that it spawns


def fork() -> None:
    """Return in a child; this process, an init, passes on signals, reaps orphans, and ends as the child, with 128 and its signal.

    PID 1 has to reap orphans, and gets only signals that it handles.
    """
    signals = signal.valid_signals()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # those that are blocked wait, for PID 1 as well
    if not (child := os.fork()):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return
    while True:
        if (number := signal.sigwait(signals)) != signal.SIGCHLD:
            os.kill(child, number)
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
            if ended.si_pid == child:
                sys.exit(ended.si_status + 128 * (ended.si_code != os.CLD_EXITED))


if interface not in ("wsgi", "asgi", "command"):
    sys.exit(f"INTERFACE is {interface!r}; it must be wsgi, asgi or command")
if interface != "wsgi":  # gunicorn is an init itself
    fork()
if interface == "command":
    import serve_command

    serve_command.run()

try:
    if any(name.startswith("OTEL_") for name in os.environ):
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        initialize()
    import server_telemetry  # noqa: F401 (starts to serve metrics, and tells what is wrong in FORWARDED_ALLOW_IPS)
except ImportError as error:
    sys.exit(f"OTEL_* or STACK_METRICS_PORT is set, but the service lacks something: {error}; see docs/production.md")

if interface == "asgi":
    import serve_asgi

    serve_asgi.run()
else:
    from gunicorn.app.wsgiapp import run

    sys.argv = ["gunicorn", f"--config={sys.path[0]}/gunicorn.conf.py"]  # in this file's folder
    run()
