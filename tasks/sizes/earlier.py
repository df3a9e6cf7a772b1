"""Weighs another commit of this project, for `sizes -- --against REF`."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from ..changes import git
from ..env import parse
from ..ownership import temporary_folder
from ..shell import UserError, output, run
from .weigh import Image, weigh

if TYPE_CHECKING:
    from collections.abc import Sequence


def weigh_at(ref: str, services: Sequence[str], flavors: Sequence[str]) -> list[Image]:
    """Build a commit in a worktree, on the same engine, weigh its images, and remove it all again.

    Raises UserError for a ``ref`` that git does not know, and when that commit does not build.
    """
    if git("rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}") is None:
        raise UserError(f"git knows no commit {ref!r} here: fetch it, or name another one")
    with temporary_folder() as folder:
        tree = folder / "tree"
        nox = (sys.executable, "-m", "nox", "-f", str(tree / "noxfile.py"))
        try:
            output("git", "worktree", "add", "--detach", str(tree), ref)
            found = [service for service in services if (tree / "services" / service).is_dir()]
            names = []
            for flavor in flavors:
                if run(*nox, "-s", "build", "--", *found, "--flavor", flavor):
                    raise UserError(f"{ref} does not build; its own words stand above")
                clone = parse((tree / ".env").read_text(encoding="utf-8"))["COMPOSE_PROJECT_NAME"]
                names += [f"{clone}/{service}:{flavor}" for service in found]
            return weigh(names)
        finally:
            if (tree / ".env").exists():
                run(*nox, "-s", "clean", quiet=True)
            shutil.rmtree(tree, ignore_errors=True)
            git("worktree", "prune")
