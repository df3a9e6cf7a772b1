"""What on the engine and in the temporary folders belongs to this clone, and to which of its sessions.

Labels and names alone tell it, and they tell host and clone, so two machines or containers that share an engine do not
touch each other's. What a killed session (SIGKILL, a power cut) leaves behind, the next session of the clone removes.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .changes import git
from .project import clone_id, name
from .shell import INTERRUPTED, CommandFailed, UserError, answer, ask, output, run
from .terminal import say

# The variable with the session's id; docker/service.yaml puts it into the label of the stack's containers.
SESSION = "STACK_SESSION"
LABEL = "stack.session"
# For each kind of object on the engine: options to list all of it, and to remove it whatever it does.
KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "container": (("--all",), ("--force", "--volumes")),
    "network": ((), ()),
    "volume": ((), ("--force",)),
}
TEMPORARY = "monorepo-"
REMOVALS = 99  # how often a container's removal is tried


def host() -> str:
    """What tells apart the process ids of two machines or containers: boot id and pid namespace, "0-0" without /proc."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        return f"{boot}-{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
    return "0-0"


def session_id() -> str:
    """The id of this session, ``<host>-<process id>``; the commands that it starts inherit it."""
    return os.environ.setdefault(SESSION, f"{host()}-{os.getpid()}")


def is_stale(session: str) -> bool:
    """Whether a session of this host has ended. Of other hosts' sessions nobody here can tell: False."""
    where, _, pid = session.rpartition("-")
    if where != host() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # and not another user's, which may get no signal of ours
    return False


def labels() -> tuple[str, str]:
    """Options of ``docker run`` that say whose a container is."""
    return f"--label=stack.clone={clone_id()}", f"--label={LABEL}={session_id()}"


def project_of_tests(session: str, part: str = "") -> str:
    """The Compose project of a stack that a session tests; ``part`` tells apart several."""
    return "-".join(filter(None, (clone_id(), "stack", session, part)))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder in which programs may run (mmdebstrap fails where /tmp is mounted noexec).

    Raises UserError where there is no place for one.
    """
    if not (places := temporary_places()):
        raise UserError("no folder for temporary files allows programs (noexec): set TMPDIR to one that does")
    with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}{session_id()}-", dir=places[0]) as made:
        yield Path(made)


def temporary_places() -> list[str]:
    """The folders for temporary files that allow programs and devices."""
    # macOS tells neither, and Python has no names there.
    unusable = getattr(os, "ST_NOEXEC", 0) | getattr(os, "ST_NODEV", 0)
    candidates = dict.fromkeys((tempfile.gettempdir(), "/var/tmp", os.path.expanduser("~")))  # noqa: PTH111, S108 (private folders go in; there may be no home)
    return [c for c in candidates if os.access(c, os.W_OK) and not os.statvfs(c).f_flag & unusable]


def remove_stale() -> bool:
    """Remove what ended sessions of this clone have left; of temporary folders, those of any clone of this user.

    Returns whether the engine had anything of them.
    """
    found_any = False
    listings = {}
    for kind, (every, _) in KINDS.items():
        title, wanted = ("{{.Names}}", "label=stack.clone=") if kind == "container" else ("{{.Name}}", "name=")
        form = f'{title} {{{{.Label "{LABEL}"}}}}'
        listings[kind] = ask("docker", kind, "ls", *every, "--filter", wanted + clone_id(), "--format", form)
    of_tests = rf"^{re.escape(project_of_tests(''))}-([0-9a-f]+-\d+-\d+)(?:-\w+)?[-_]"
    for kind, (_, force) in KINDS.items():
        rows = [line.partition(" ") for line in answer(listings[kind]).splitlines()]
        sessions = {found: session or "".join(re.findall(of_tests, found)) for found, _, session in rows}
        if left := [found for found, session in sessions.items() if is_stale(session)]:
            found_any = True
            say(f"setup: removing what a killed session has left: {', '.join(left)}")
            with suppress(CommandFailed):  # another session may be removing it, too
                output("docker", kind, "rm", *force, *left)
    for path in [path for place in temporary_places() for path in Path(place).glob(f"{TEMPORARY}*")]:
        with suppress(FileNotFoundError, UserError):  # another session was faster; this is no git clone
            if is_stale(path.name.removeprefix(TEMPORARY).rpartition("-")[0]) and path.stat().st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
                git("worktree", "prune")
    return found_any


def remove_own() -> None:
    """Remove the containers that this session's interrupted commands have left; after it, none uses a network any more."""
    if INTERRUPTED:  # the engine may still be creating a container, although nobody waits for it any more
        time.sleep(0.5)
    filters = [label.replace("--label", "--filter=label") for label in labels()]
    tries = REMOVALS
    while (own := output("docker", "ps", "--all", "--quiet", *filters).split()) and (tries := tries - 1):
        with suppress(CommandFailed):  # their own commands may be removing them, too, which takes a moment
            output("docker", "rm", *KINDS["container"][1], *own)


def clean() -> None:
    """Remove everything that this clone has on the engine, under names before `rename` too: containers, volumes, images.

    An image's name ``<project>/...`` is shared by clones: it goes if the image is this clone's, and no other's.
    """
    here = clone_id().removeprefix(name())  # which tells machine and path
    own = (f"label=stack.clone={clone_id()}", f"label=com.docker.compose.project={clone_id()}", f"name={here}")
    for kind, (every, force) in KINDS.items():
        listed = [output("docker", kind, "ls", *every, "--quiet", "--filter", wanted) for wanted in own]
        if found := {line for lines in listed for line in lines.split()}:
            run("docker", kind, "rm", *force, *sorted(found))
    form = "{{.ID}} {{.Repository}}:{{.Tag}}"
    images = [line.split() for line in output("docker", "image", "ls", "--format", form).splitlines()]
    ours = {title for _, title in images if re.search(f"{here}[/-]", title)}  # the latter are of Compose's own builds
    # By id and project: of ours-0123abcd/pilot:prod, and so of ours/pilot:prod where that is the same image.
    shared = {(image, title.partition(here)[0]) for image, title in images if title in ours}
    shared -= {(image, re.split("-[0-9a-f]{8}/", title)[0]) for image, title in images if title not in ours}
    if names := ours | {title for image, title in images if (image, title.rpartition("/")[0]) in shared}:
        run("docker", "image", "rm", "--force", *sorted(names))
