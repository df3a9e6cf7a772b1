"""Notices changes: ``watch.py PID`` sends SIGUSR1 when it is ready, and for every change under the working directory."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from watchfiles import watch

QUIET_MS = 100  # without a change for so long, many changes are over
FEW = 3  # so many changed files are not many: they are told at once
HERE = Path.cwd()
# Packages that services share: docker/Dockerfile puts their folders on the path.
LIBS = [Path(entry) for entry in sys.path if Path(entry).parent.name == "libs"]
# Hidden files, and what editors, tests and the service itself write beside the source.
IGNORED = re.compile(r"(^|/)(\.[^./]|__pycache__(/|$)|4913$)|([~#]|___|\.(py[co]|sw.|tmp|log|(db|sqlite3?)(-\w+)?))$")
# File systems of Docker Desktop, virtual machines and networks: inotify does not tell of changes made on their other side.
NO_INOTIFY = re.compile(r"virtiofs|9p|fakeowner|nfs4?|cifs|vboxsf|prl_fs|(fuse\.)?(grpcfuse|osxfs)")


def notify(pid: int, *, poll: bool | None) -> None:
    """Send the signals while the process, this one's parent, lives, and the folder is the one that has its name."""
    options = {"debounce": 50, "step": 5, "rust_timeout": QUIET_MS, "yield_on_timeout": True, "force_polling": poll}
    batches = watch(HERE, *LIBS, watch_filter=None, ignore_permission_denied=True, **options)  # type: ignore[arg-type]
    next(batches)
    os.kill(pid, signal.SIGUSR1)
    changed: set[str] = set()
    for batch in batches:
        # Another folder has the name after git has checked out a branch without it, and one with it again.
        if os.getppid() != pid or (HERE.is_dir() and not HERE.samefile(".")):
            return
        new = {path for path in {os.path.relpath(path, HERE) for _, path in batch} if not IGNORED.search(path)}
        changed |= new
        # Many changes may not be all yet, as of a checkout, and a new folder may be filling up: those wait until it is quiet.
        if changed and (not new or (len(changed) <= FEW and not any(map(os.path.isdir, changed)))):
            print(f"live: {min(changed)} changed" + f", and {len(changed) - 1} more" * (len(changed) > 1), flush=True)
            changed.clear()
            os.kill(pid, signal.SIGUSR1)


def must_poll() -> bool | None:
    """Whether to poll: STACK_POLL (0 or 1) decides, or else the source's file system; None leaves it to watchfiles."""
    if setting := os.environ.get("STACK_POLL"):
        return setting != "0"
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    _, kind = max((len(at), kind) for at, kind in mounts if HERE.is_relative_to(at.replace(r"\040", " ")))
    return True if NO_INOTIFY.fullmatch(kind) else None


if __name__ == "__main__":
    try:
        notify(int(sys.argv[1]), poll=must_poll())
    except OSError as error:  # most likely no inotify watch is left
        print(f"live: {error}; polling instead", flush=True)
        notify(int(sys.argv[1]), poll=True)
