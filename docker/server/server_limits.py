"""The limits on clients, of gunicorn and uvicorn."""

import os
import re
import socket
import struct
from array import array
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

# Seconds for which the connections that are being made are still accepted when the server is stopped.
STOP_S = 0.05
SO_ATTACH_FILTER = 26
# To a TCP socket, packets begin with the TCP header: 0 is returned, and the packet dropped, if flag SYN is set.
NO_SYN = array(
    "B",
    b"".join(
        struct.pack("HBBI", *line) for line in [(48, 0, 0, 13), (69, 0, 1, 2), (6, 0, 0, 0), (6, 0, 0, 0xFFFFFFFF)]
    ),
)


def ignore_new_connections(listeners: Iterable[socket.socket]) -> None:
    """Have the kernel ignore clients that connect from now on; after a second they try again, and are refused then.

    Those that wait in a listener's queue when it is closed would be reset, with their requests lost.
    """
    program = struct.pack("HP", 4, NO_SYN.buffer_info()[0])
    for listener in listeners:
        with suppress(OSError):  # no such filters, or not for such a socket
            listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def is_ambiguous(target: str, host: str) -> bool:
    """Whether a request target has a fragment, or names another host than the field Host (RFC 9112, section 3.2)."""
    return "#" in target or (not target.startswith("/") and "://" in target and target.split("/")[2] != host)
