"""Which port of this machine each service gets."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace

from ..env import chosen_by_user, env
from ..project import compose_texts
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
    held = {port for container in stack.containers() for port in container.ports}
    settings, wanted_by, claimed = dict[str, str](), dict[int, str](), set[int]()
    for variable, service in port_variables(stack.model).items():
        ports = [port for port in stack.model["services"][service]["ports"] if port.get("protocol") != "udp"]
        ports.sort(key=lambda port: port["target"] != 8000)  # which is the variable's, or else the first one
        # Not of a range, such as 7000-7009: there, Docker takes one that is free.
        numbers = dict.fromkeys(int(port["published"]) for port in ports if port.get("published", "").isdigit())
        # Only the first one can get another number, and only where a compose file names the variable.
        for position, wanted in enumerate(numbers, start=variable not in compose_texts()):
            hosts = [port.get("host_ip", "") for port in ports if port.get("published") == str(wanted)]
            if wanted and wanted_by.setdefault(wanted, service) != service:
                raise UserError(f"{wanted_by[wanted]} and {service} both want port {wanted}: change it for one of them")
            found = wanted
            while found and (found in claimed or (found not in held and any(is_taken(host, found) for host in hosts))):
                if position or variable in chosen_by_user():
                    who = f"port {wanted} is taken, and {service if position else variable} asks for it"
                    raise UserError(f"{who}: set another one, or stop what uses it")
                found += 1
            claimed.add(found)
            if found != wanted:
                settings[variable] = str(found)
                if env().get(variable) != str(found):  # else it has been told before
                    say(f"setup: port {wanted} is taken: {service} gets {found}")
    return settings


def chosen_before() -> dict[str, str]:
    """The ports that are in .env because `setup` has chosen them."""
    users = chosen_by_user()
    return {name: value for name, value in env().items() if name.endswith("_PORT") and name not in users}


def is_taken(host: str, port: int) -> bool:
    """Whether something on this machine listens there already."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:  # the engine may listen where this user may not, as on port 80
        return error.errno == errno.EADDRINUSE
    return False
