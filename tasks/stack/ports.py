"""Which port of this machine each service gets."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import replace

from ..env import chosen_by_user, env
from ..shell import UserError
from ..terminal import say
from .model import Stack, port_variables


def choose(stack: Stack) -> dict[str, str]:
    """Settings (``PILOT_PORT=5001``) for the services whose usual port on this machine is taken, for .env.

    Raises UserError when a taken port was set by the user, or two services want the same one. A port that the stack
    itself uses is free for it.
    """
    # Empty: the usual ports, not those that were chosen last time.
    stack = replace(stack, settings={**stack.settings, **dict.fromkeys(chosen_before(), "")})
    held = {container.port for container in stack.containers()}
    settings, wanted_by, claimed = dict[str, str](), dict[int, str](), set[int]()
    for variable, service in port_variables(stack.model).items():
        for port in stack.model["services"][service]["ports"]:
            wanted = int(port.get("published", 0))
            if wanted and wanted_by.setdefault(wanted, service) != service:
                raise UserError(
                    f"{wanted_by[wanted]} and {service} both want port {wanted} of this machine: change it in one's compose.yaml"
                )
            found = wanted
            while found and (found in claimed or (found not in held and is_taken(port.get("host_ip", ""), found))):
                if variable in chosen_by_user():
                    raise UserError(
                        f"port {wanted} is taken, and {variable} asks for it: set another one, or stop what uses it"
                    )
                found += 1
            claimed.add(found)
            if found != wanted:
                say(f"setup: port {wanted} is taken: {service} gets {found}")
                settings[variable] = str(found)
    return settings


def chosen_before() -> dict[str, str]:
    """The ports that are in .env because `setup` has chosen them."""
    users = chosen_by_user()
    return {name: value for name, value in env().items() if name.endswith("_PORT") and name not in users}


def is_taken(host: str, port: int) -> bool:
    """Whether something on this machine listens there already."""
    with suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return False
    return True
