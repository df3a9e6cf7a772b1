"""The limits on clients, of gunicorn and uvicorn."""

import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress

# Clients must send and read at least RATE bytes a second; those that fall TIMEOUT_S seconds behind are disconnected.
RATE = 1000
TIMEOUT_S = float(os.environ.get("STACK_CLIENT_TIMEOUT_S") or 10)
# The request line and all header fields together; one line; the number of fields.
HEAD_BYTES, LINE_BYTES, FIELDS = 32 * 1024, 8190, 100
# All answers that slow clients have not read yet.
ANSWERS_BYTES = 40 * 1024 * 1024
# Bodies of more bytes are large, and those of unknown length may be; so many are received and processed at a time.
LARGE_BYTES, LARGE_BODIES = 64 * 1024, 10
# RFC 9110, section 7.2, without the punctuation that RFC 3986 allows in names but no name has.
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]+)(:[0-9]*)?")

SO_BINDTOIFINDEX, NO_INTERFACE = 62, 2**31 - 1


def refuse_new_connections(listeners: Iterable[socket.socket]) -> None:
    """Refuse who connects from now on, while those that wait in the listeners' queues can still be accepted (Linux).

    When a listener is closed, the connections in its queue are reset, and their requests lost.
    """
    for listener in listeners:
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def is_ambiguous(target: str, host: str) -> bool:
    """Whether a request target has a fragment, or names another host than the field Host (RFC 9112, section 3.2)."""
    return "#" in target or (not target.startswith("/") and "://" in target and target.split("/")[2] != host)
