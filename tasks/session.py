"""What every session has in common: mistakes told in one line, interrupts that clean up, and a machine that is ready."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Callable

import nox

from . import ownership
from .env import write_env, write_secrets
from .images import bases
from .machine import setup
from .shell import INTERRUPTED, UserError, interruptible
from .stack import lifecycle, ports
from .stack.model import development

# nox says in each session that there is no uv, which is fine.
logging.getLogger("nox").addFilter(lambda record: "uv binary not found" not in record.getMessage())


def session(*, venv: bool = False) -> Callable[[Callable[[nox.Session], None]], object]:
    """A nox session that tells a user's mistake in one line; with ``venv`` it has a virtual environment of its own."""

    def register(function: Callable[[nox.Session], None]) -> object:
        @functools.wraps(function)
        def body(session: nox.Session) -> None:
            interruptible()
            ownership.session_id()
            try:
                function(session)
                if INTERRUPTED:  # nox has kept it to itself
                    raise KeyboardInterrupt
            except (UserError, OSError) as error:  # the latter of a disk, a folder or a file: it says which one
                # What could not be copied: from where, to where, why.
                session.error(str(error.args[0][0][2] if isinstance(error, shutil.Error) else error))

        return nox.session(venv_backend=None if venv else "none")(body)

    return register


def ready(*, choose_ports: bool = False) -> None:
    """Make the machine ready, and write what was found to .env; sessions that build or run images begin with it.

    With ``choose_ports``, services get other ports where theirs are taken.
    """
    facts = setup.ensure() | bases.ensure()
    if ownership.remove_stale():
        lifecycle.remove_unused_networks()  # the stack's network has no label of a session
    write_env(facts | (known := ports.chosen_before()))
    write_secrets()
    if choose_ports and (chosen := ports.choose(development())) != known:
        write_env(facts | chosen)
