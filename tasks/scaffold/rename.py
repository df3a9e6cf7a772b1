"""Makes a fresh clone of the template somebody's own project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from ..changes import clean_commit, git
from ..images.uptodate import RECORD
from ..project import ROOT, check_label, name, toml
from ..shell import UserError
from ..terminal import say

# Lines that refer to template/ and go with it, marked by their end.
MARKED = "(?:.*(?:# template only|<!-- template only -->)\n)+"
# The template's commit that the tooling is at; below it, where the template is to be had.
VERSION = ROOT / "tasks" / "VERSION"


def rename(wanted: str) -> None:
    """Give the clone a name, remove what only the template's makers need, and record the template's commit."""
    check_label("a project", wanted)
    clean_commit()
    old = name()
    try:
        make_own(ROOT, wanted)
        if name() != wanted:
            raise UserError(f'pyproject.toml has no line `name = "{old}"`: write the name like that')
        record_version()
    except BaseException:
        git("checkout", "--quiet", "--", ".")
        raise
    ran = f"; `nox -s clean` removes what has run as {old}" if RECORD.exists() else ""
    say(f"{old} is {wanted} now; look at `git diff`, and commit it{ran}")


def make_own(root: Path, wanted: str) -> None:
    """Edit a checkout of the template, of any age, to be the project ``wanted``."""
    old = toml((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
    for path, pattern, replacement in (
        ("pyproject.toml", rf'^name = "{old}"$', f'name = "{wanted}"'),
        ("pyproject.toml", "^description = .*$", f'description = "{wanted}"'),
        ("README.md", r"\A# .*$", f"# {wanted}"),
    ):
        text = (root / path).read_text(encoding="utf-8")
        (root / path).write_text(re.sub(pattern, replacement, text, flags=re.MULTILINE), encoding="utf-8")
    shutil.rmtree(root / "template", ignore_errors=True)
    found = git("-C", str(root), "grep", "-z", "--no-color", "--files-with-matches", "template only") or ""
    for path in found.split("\0"):
        if (root / path).is_file():
            text = (root / path).read_text(encoding="utf-8")
            # Of the empty lines around them one stays.
            kept = re.sub(rf"(?<=\n\n){MARKED}\n|{MARKED}", "", text)
            (root / path).write_text(kept.rstrip("\n") + "\n", encoding="utf-8")


def record_version() -> None:
    """Write tasks/VERSION: the template's commit, and the URL that the clone was made from, without credentials."""
    if re.match("[0-9a-f]{40}\n", VERSION.read_text(encoding="utf-8")):
        return  # a downloaded archive, see .gitattributes, or a clone that has been renamed before
    # Commits that were made here before are not the template's: `update` would take out what they brought.
    commit = (git("merge-base", "HEAD", "origin/HEAD") or git("rev-parse", "HEAD") or "").strip()
    url = without_credentials((git("remote", "get-url", "origin") or "").strip())
    VERSION.write_text("".join(f"{line}\n" for line in (commit, url) if line), encoding="utf-8")


def without_credentials(url: str) -> str:
    """A URL without a user and a password; in a URL for SSH the user is no secret, and needed."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.scheme.startswith("http") else url
