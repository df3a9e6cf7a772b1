"""Which port of this machine each service gets."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from ..env import env
from ..project import env_prefix
from ..shell import UserError, say
from ..stack.stack import containers, model

if TYPE_CHECKING:
    from collections.abc import Sequence


def free(services: Sequence[str]) -> dict[str, str]:
    """Settings (``ECHO_PORT=5001``) for the services whose usual port on this machine is taken.

    Raises UserError when the taken port was set by the user, or two services want the same. A port that the stack itself
    holds already is no conflict.
    """
    defined = model()["services"]
    held = {c.port for c in containers()}
    settings: dict[str, str] = {}
    wishes: dict[int, str] = {}
    claimed: set[int] = set()
    for service in services:
        for port in defined[service].get("ports", ()):
            wanted = int(port.get("published", 0))
            if wanted and wishes.setdefault(wanted, service) != service:
                raise UserError(
                    f"{wishes[wanted]} and {service} both want port {wanted} of this machine: change it in one's compose.yaml"
                )
            chosen = wanted
            setting = f"{env_prefix(service)}_PORT"
            while chosen and (chosen in claimed or (chosen not in held and taken(port.get("host_ip", ""), chosen))):
                if setting in env():
                    raise UserError(
                        f"port {wanted} is taken, and {setting} asks for it: set another one, or stop what holds it"
                    )
                chosen += 1
            claimed.add(chosen)
            if chosen != wanted:
                say(f"port {wanted} is taken: {service} gets {chosen}")
                settings[setting] = str(chosen)
    return settings


def next_free(port: int) -> int:
    """The first port of loopback, from this one on, where nothing listens."""
    while taken("127.0.0.1", port):
        port += 1
    return port


def taken(host: str, port: int) -> bool:
    """Whether something on this machine listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False
