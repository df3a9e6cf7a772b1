"""Copies of this project, to try and to measure things in."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tasks.env import env
from tasks.images import bases
from tasks.project import ROOT
from tasks.shell import output

if TYPE_CHECKING:
    from pathlib import Path


def copy_project(root: Path, *, without: tuple[str, ...] = ()) -> None:
    """Copy the project as it is now, what is not committed included, but for what git ignores and the folders ``without``.

    The copy knows of the base images that this machine has already; all else `setup` finds out anew.
    """
    for name in output("git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard").split("\0"):
        if name and not name.startswith(without) and (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    images = ["STACK_BASE", *(f"STACK_{recipe.upper()}" for recipe in bases.needed())]
    (root / ".env").write_text("".join(f"{image}={env()[image]}\n" for image in images), encoding="utf-8")
