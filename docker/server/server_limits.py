"""The limits on clients, of gunicorn and uvicorn."""

import os
import re
import resource
import socket
import struct
from contextlib import suppress
from fcntl import ioctl

# Clients must send and read at least RATE bytes a second; those that fall TIMEOUT_S seconds behind are disconnected.
RATE = 1000
TIMEOUT_S = float(os.environ.get("STACK_CLIENT_TIMEOUT_S") or 10)
# The request line and all header fields together; one line; the number of fields.
HEAD_BYTES, LINE_BYTES, FIELDS = 32 * 1024, 8190, 100
# What clients that are slow may make the server hold together; connections, which take about 10 kB, and requests besides.
MEMORY_BYTES, CONNECTIONS = 40 * 1024 * 1024, 4000
# Bodies of more bytes are large; so many are received and processed at a time.
LARGE_BYTES, LARGE_BODIES = 64 * 1024, 10
MESSAGE_BYTES = 1024 * 1024  # of a web socket
# A client may go on sending for so long before its connection is reset, to get to see the last answer.
LINGER_S = 2.0
# RFC 9110, section 7.2, without the punctuation that RFC 3986 allows in names but no name has.
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]+)(:[0-9]*)?")

PORT = int(os.environ.get("STACK_PORT") or 8000)
HEALTH_SOCKET = os.environ.get("STACK_HEALTH_SOCKET", "/dev/shm/health.sock")  # noqa: S108 (see healthcheck.py)
# All of IPv4, and of IPv6 where the system has it.
ADDRESS = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 (in a container)

open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * CONNECTIONS, open_files), open_files))

RESET = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)  # for setsockopt, before the socket is closed
SO_BINDTOIFINDEX, NO_INTERFACE = 62, 2**31 - 1
SIOCOUTQ = 0x5411


def unread(client: socket.socket) -> int:
    """The bytes that the system has sent or will send to a socket's other end, which has not received them (Linux).

    This is what slow clients are told by: the system takes more only when a third of several MB is read.
    """
    return int(struct.unpack("i", ioctl(client, SIOCOUTQ, bytes(4)))[0])


def refuse_new_connections(listeners: list[socket.socket]) -> None:
    """Refuse who connects from now on, while those that wait in the listeners' queues can still be accepted (Linux).

    When a listener is closed, the connections in its queue are reset, and their requests lost.
    """
    for listener in listeners:
        with suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NO_INTERFACE)


def ipv4(address: str) -> str:
    """An IPv4 address as such, which comes to a listener for IPv6 as part of one (RFC 4291, section 2.5.5.2)."""
    return address.removeprefix("::ffff:")


def fault(method: str, version: str, target: str, headers: list[tuple[str, str]]) -> int:
    """The status for an ambiguous request (RFC 9112, sections 3.2 and 6.1), 0 for another; names are in capitals."""
    hosts = [value for name, value in headers if name == "HOST"]
    codings = [value.lower() for name, value in headers if name == "TRANSFER-ENCODING"]
    if len(hosts) > 1 or (version == "1.1" and not hosts) or not all(map(HOST.fullmatch, hosts)):
        return 400
    absolute = re.match(r"https?://([^/?]+)", target)
    named = [absolute[1]] == hosts if absolute else target[0] == "/" or (method, target) == ("OPTIONS", "*")
    versions = ("1.1",) if codings else ("1.0", "1.1")
    if "#" in target or not named or method == "CONNECT" or version not in versions:
        return 400
    return 501 if codings and codings != ["chunked"] else 0
