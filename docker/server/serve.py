"""Starts gunicorn, and can be told to stop from its first moment on.

Process 1 of a container gets no signal that it has no handler for, and gunicorn's are only there when all is imported.
"""

import signal
import sys
from types import FrameType


def leave(_number: int, _frame: FrameType | None) -> None:
    """End well: nothing has begun."""
    raise SystemExit


signal.signal(signal.SIGTERM, leave)

from gunicorn.app.wsgiapp import run  # noqa: E402

sys.argv = ["gunicorn", "--config=/app/gunicorn.conf.py"]
run()
