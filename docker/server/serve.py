"""Starts gunicorn, and handles SIGTERM from its first moment on.

PID 1 of a container gets no signal that it has no handler for, and gunicorn sets its handlers only when all is imported.
"""

import signal
import sys
from pathlib import Path
from types import FrameType


def end(_number: int, _frame: FrameType | None) -> None:
    """Exit with 0: nothing has begun."""
    raise SystemExit


signal.signal(signal.SIGTERM, end)

from gunicorn.app.wsgiapp import run  # noqa: E402

sys.argv = ["gunicorn", f"--config={Path(__file__).with_name('gunicorn.conf.py')}"]
run()
