"""Tells a process of changes under the working directory: ``watch.py PID`` sends it SIGUSR1, and once when it is ready.

When the service's dependencies change, for which no reload is enough, it asks for a rebuild in the log.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tomllib
from pathlib import Path

from watchfiles import watch

QUIET = 100  # milliseconds without a change, after which many changes at once are over
FEW = 3  # files whose change is told at once, without waiting for quiet
HERE = Path.cwd()
# Packages of our own that the service uses: docker/Dockerfile has put their folders on the path.
LIBS = [Path(entry) for entry in sys.path if Path(entry).parent.name == "libs"]
# What editors, tests and the service itself write beside the source.
IGNORED = re.compile(r"(^|/)(\.|__pycache__(/|$)|4913$)|(~|___|\.(py[co]|sw[a-p]|tmp|log|(db|sqlite3?)(-\w+)?))$")
# File systems of Docker Desktop, virtual machines and networks: the kernel here does not hear of changes made there.
DEAF = re.compile(r"virtiofs|9p|fakeowner|nfs4?|cifs|vboxsf|prl_fs|(fuse\.)?(grpcfuse|osxfs)")
REBUILD = "the dependencies of {} have changed: rebuild its image (`nox -s dev`, or `docker compose up --build`)"


def main(listener: int, *, poll: bool | None) -> None:
    """Watch for as long as the listener, which is this process's parent, lives."""
    dependencies = Dependencies()
    paths: set[str] = set()
    ready = False
    options = {"debounce": 50, "step": 10, "rust_timeout": QUIET, "yield_on_timeout": True}
    for changes in watch(HERE, *LIBS, watch_filter=None, force_polling=poll, ignore_permission_denied=True, **options):  # type: ignore[arg-type]
        if os.getppid() != listener:
            return
        fresh = {name for _, path in changes if not IGNORED.search(name := inside(path))}
        paths |= fresh
        # A new folder may be filling up, and a checkout may not be over: those wait until it is quiet.
        if paths and (not fresh or (len(paths) <= FEW and not any(map(os.path.isdir, paths)))):
            say(f"{min(paths)} changed" + (f", and {len(paths) - 1} more" if len(paths) > 1 else ""))
            paths.clear()
            os.kill(listener, signal.SIGUSR1)
        elif not ready:
            os.kill(listener, signal.SIGUSR1)
        ready = True
        if dependencies.changed():
            say(REBUILD.format(HERE.name))


def inside(path: str) -> str:
    """A path as seen from the watched folder that it is in: what is hidden further up does not matter."""
    return os.path.relpath(path, next((folder for folder in LIBS if Path(path).is_relative_to(folder)), HERE))


def say(line: str) -> None:
    """Print a line to the log at once."""
    print(f"live: {line}", flush=True)


def must_poll() -> bool | None:
    """Whether to look for changes instead of waiting for the kernel to tell; None leaves it to watchfiles' own setting.

    STACK_POLL (0 or 1) decides, or else the file system that the source lies on.
    """
    if setting := os.environ.get("STACK_POLL"):
        return setting != "0"
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    _, kind = max((len(at), kind) for at, kind in mounts if HERE.is_relative_to(at.replace(r"\040", " ")))
    return True if DEAF.fullmatch(kind) else None


class Dependencies:
    """What pyproject.toml and poetry.lock, two folders up, put into the image of the service that is named like this one."""

    def __init__(self) -> None:
        self.files = [HERE.parent.parent / name for name in ("pyproject.toml", "poetry.lock")]
        self.stamps: list[tuple[int, int]] = []
        self.known = ""

    def changed(self) -> bool:
        """Whether they are others than at the last call."""
        try:
            stamps = [(status.st_mtime_ns, status.st_nlink) for status in map(os.stat, self.files)]
            if stamps == self.stamps:
                return False
            self.stamps = stamps
            # A file that is mounted alone stays the old one when another takes its name, but then it has no name left.
            needs = self.read() if all(links for _, links in stamps) else "others"
        except (OSError, ValueError):  # not mounted, or half-written
            return False
        before, self.known = self.known, needs
        return before not in {"", needs}

    def read(self) -> str:
        """The dependency groups in the image, and their packages' versions, in some form."""
        project, lock = (tomllib.loads(file.read_text(encoding="utf-8")) for file in self.files)
        groups = {HERE.name, "dev", "tests"}
        packages = [(p["name"], p["version"]) for p in lock["package"] if groups & set(p.get("groups", ()))]
        return str([packages, *(project["dependency-groups"].get(group) for group in sorted(groups))])


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), poll=must_poll())
    except OSError as error:  # most likely the kernel has no inotify watch left
        say(f"{error}; looking for changes from time to time instead")
        main(int(sys.argv[1]), poll=True)
