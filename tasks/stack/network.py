"""`dev -- --network NAME`: a network that several stacks share. Optional: delete with its line in noxfile.py."""

from __future__ import annotations

import argparse

from .. import cli
from ..project import name
from ..shell import output
from ..terminal import say
from . import lifecycle
from .model import Stack

LABEL = "stack.network"  # of the networks that were made here


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option to ``dev``'s command line."""
    parser.add_argument("--network", metavar="NAME", default="", help="put the stack on a network that others share")


def join(stack: Stack, args: argparse.Namespace) -> None:
    """Put a stack's containers on the network that was asked for, each as ``<service>.<project>``.

    The network is created when it is missing; `down` removes it when no container uses it any more.
    """
    if not (network := args.network):
        return
    if not output("docker", "network", "ls", "--quiet", "--filter", f"name=^{network}$").strip():
        output("docker", "network", "create", "--label", f"{LABEL}=yes", network)
    joined = output("docker", "network", "inspect", "--format", "{{json .Containers}}", network)
    for container in stack.containers():
        alias = f"{container.service}.{name()}"
        if container.id not in joined:
            output("docker", "network", "connect", "--alias", alias, network, container.id)
        say(f"on {network}: {alias}")


cli.OPTIONS["dev"].append(add_option)
lifecycle.ON_UP.append(join)
lifecycle.ON_DOWN.append(lambda: lifecycle.remove_unused_networks(LABEL))
