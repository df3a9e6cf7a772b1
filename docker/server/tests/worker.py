"""A worker with two orphans, or an application that takes its time to be imported: SIGTERM ends it, with 7."""

import os
import signal
import time

if not os.fork():
    time.sleep(0 if os.fork() else 0.2)
    os._exit(0)
time.sleep(0.4)
signal.signal(signal.SIGUSR1, lambda *_: print("PYTHONPATH", os.environ.get("PYTHONPATH"), flush=True))
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
print("ready", flush=True)
time.sleep(100)
