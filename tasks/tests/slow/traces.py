"""What a session may leave behind: on the engine, in the clone, in temporary folders, among the processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .clones import Clone


def traces(clone: Clone, scratch: Path) -> dict[str, list[str]]:
    """What sessions of a clone have left, by kind; ``scratch`` is their folder for temporary files. {} is nothing."""
    found = {
        "containers and networks": clone.left("container", "network"),
        "volumes": clone.left("volume"),
        "changes": clone.git("status", "--porcelain").splitlines(),
        "drafts": [str(path) for path in clone.root.rglob("*.draft")],
        "worktrees": clone.git("worktree", "list").splitlines()[1:],
        # Pytest keeps its last folders on purpose.
        "temporary folders": [str(path) for path in scratch.iterdir() if not path.name.startswith("pytest-of-")],
        "processes": list(processes(str(clone.root), str(scratch))),
    }
    return {kind: those for kind, those in found.items() if those}


def processes(*places: str) -> Iterator[str]:
    """The command lines of processes on this machine, pytest aside, that name one of these places."""
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = command.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if any(place in text for place in places) and "pytest" not in text:
            yield text
