"""What of the engine's and of the temporary folders is this clone's, and whose of its sessions.

A session that is killed (kill -9, a power cut) leaves things: the next one finds them by the process id that they bear.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .changes import git
from .project import ROOT, clone_id
from .shell import CommandFailed, UserError, answer, ask, output, run, say

if TYPE_CHECKING:
    from collections.abc import Iterator

# Whose the things are that a session makes for itself: the id of its process.
OWNER = "STACK_SESSION"
LABEL = "stack.session"
# Where a session writes that id while it has the development stack up for no longer than it lasts itself.
ATTACHED = ROOT / ".nox" / "attached"
# The kinds of things on the engine: options for listing all of them, and for removing them whatever they do.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "container": (("--all",), ("--force", "--volumes")),
    "network": ((), ()),
    "volume": ((), ()),
    "image": (("--all",), ("--force",)),
}


def owner() -> str:
    """The id of the process of this session; what the session starts inherits it."""
    return os.environ.setdefault(OWNER, str(os.getpid()))


def labels() -> tuple[str, str]:
    """Options of ``docker run`` that say whose a container is, so that it is found if it is left behind."""
    return f"--label=stack.clone={clone_id()}", f"--label={LABEL}={owner()}"


def stack_name(session: str) -> str:
    """The Compose project of the stack that a session tests."""
    return f"{clone_id()}-stack-{session}"


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder in which programs may run (mmdebstrap fails where /tmp is mounted noexec).

    Raises UserError where there is no place for one.
    """
    if not places():
        raise UserError("no folder for temporary files allows programs (noexec): set TMPDIR to one that does")
    with tempfile.TemporaryDirectory(prefix=f"stack-{owner()}-", dir=places()[0]) as made:
        yield Path(made)


def places() -> list[str]:
    """The folders for temporary files that allow programs and devices."""
    candidates = dict.fromkeys((tempfile.gettempdir(), "/var/tmp", os.path.expanduser("~")))  # noqa: PTH111, S108 (private folders go in; there may be no home)
    nothing = os.ST_NOEXEC | os.ST_NODEV
    return [c for c in candidates if os.access(c, os.W_OK) and not os.statvfs(c).f_flag & nothing]


def reap() -> None:
    """Remove what sessions of this clone have left that are no more; of temporary folders, what any of this user's have."""
    ours = rf"{re.escape(stack_name(''))}(\d+)[-_]|\S+ (\d+)$"
    listings = {}
    kinds = {kind: options for kind, options in KINDS.items() if kind != "image"}
    for kind, (every, _) in kinds.items():
        name, mark = ("{{.Names}}", "label=stack.clone=") if kind == "container" else ("{{.Name}}", "name=")
        wanted = ("--filter", mark + clone_id(), "--format", f'{name} {{{{.Label "{LABEL}"}}}}')
        listings[kind] = ask("docker", kind, "ls", *every, *wanted)
    for kind, (_, force) in kinds.items():
        if lost := [line.split()[0] for line in answer(listings[kind]).splitlines() if orphaned(line, ours)]:
            say(f"setup: removing what a killed session has left: {', '.join(lost)}")
            with suppress(CommandFailed):  # another session may be at it, too
                output("docker", kind, "rm", *force, *lost)
    for path in [path for place in places() for path in Path(place).glob("stack-*-*")]:
        with suppress(FileNotFoundError, UserError):  # another session was faster; this is no git clone
            if orphaned(path.name, r"stack-(\d+)-") and path.stat().st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
                git("worktree", "prune")


def remove_own() -> None:
    """Remove the containers that bear this session's id: what a command has left that was interrupted in the middle."""
    filters = [label.replace("--label", "--filter=label") for label in labels()]
    if own := output("docker", "ps", "--all", "--quiet", *filters).split():
        output("docker", "rm", *KINDS["container"][1], *own)


def clean() -> None:
    """Remove everything that this clone has on the engine, found by labels and names: containers, networks, volumes, images."""
    ATTACHED.unlink(missing_ok=True)
    labels = [f"label=stack.clone={clone_id()}", f"label=com.docker.compose.project={clone_id()}"]
    for kind, (every, force) in KINDS.items():
        filters = labels if kind == "image" else [*labels, f"name=^{clone_id()}"]
        listed = [output("docker", kind, "ls", *every, "--quiet", "--filter", wanted) for wanted in filters]
        if found := {line for lines in listed for line in lines.split()}:
            run("docker", kind, "rm", *force, *sorted(found))


def orphaned(name: str, pattern: str) -> bool:
    """Whether a name matches the pattern, and there is no process of the id that is in one of its groups."""
    if found := re.match(pattern, name):
        try:
            os.kill(int("".join(filter(None, found.groups()))), 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # somebody else's
    return False
