"""Brings a clone that was renamed and changed to the template's newer tooling, by a three-way merge in git."""

from __future__ import annotations

import re
import tempfile
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..changes import clean_commit, git
from ..project import name
from ..shell import UserError, run
from ..terminal import say
from .rename import VERSION, make_own, without_credentials

# What is the clone's own, whatever the template does with it.
OWN = ("services", "libs", "template", "README.md", "LICENSE", "poetry.lock", "tasks/VERSION")
# No hooks, and an author where git knows none.
OPTIONS = ("-c", "core.hooksPath=/dev/null", "-c", "commit.gpgSign=no", "-c", "user.name=-", "-c", "user.email=-")


def update(args: Namespace) -> None:
    """Merge what the template has changed in its tooling up to ``args.ref`` of ``args.url``; commit nothing.

    Raises UserError where that cannot begin, in which case nothing has changed, and where there are conflicts.
    """
    clean_commit()
    if inside := (git("rev-parse", "--show-prefix") or "").strip():
        raise UserError(f"{inside} is a folder of another repository, and only a repository of its own can be updated")
    base, remembered = version()
    if not (url := args.url or remembered):
        raise UserError("tasks/VERSION has no second line that says where the template is: nox -s update -- URL")
    url = str(Path(url).resolve()) if Path(url).exists() else url
    new = fetch(url, args.ref)
    if git("cat-file", "-e", f"{base}^{{commit}}") is None:
        raise UserError(f"the template's commit {base[:12]} in tasks/VERSION is neither here nor in {url}")
    if any(git("merge-base", "--is-ancestor", new, old) is not None for old in ("HEAD", base)):
        say(f"nothing to do: {url} has nothing in {args.ref or 'HEAD'} that is not here")
        return
    try:
        conflicts = merge(base, new, f"Update the tooling to the template's {args.ref or new[:12]}")
        stays = remembered and Path(url).exists()  # a folder or a bundle is where one update came from
        VERSION.write_text(f"{new}\n{remembered if stays else without_credentials(url)}\n", encoding="utf-8")
        git("add", "--", str(VERSION))
    except BaseException:
        git("reset", "--hard", "--quiet")
        raise
    run("git", "status", "--short")
    changed = listing("diff", "--name-only", "-z", "HEAD", "--", "pyproject.toml")
    steps = ["git diff HEAD", *["nox -s lock"] * len(changed), "nox -s test lint", "git commit"]
    if conflicts:
        told = f"conflicts in {', '.join(conflicts)}: resolve them, `git add` (or `git reset --hard` undoes it all)"
        raise UserError(f"{told}; then {'; '.join(steps)}")
    say(f"the tooling is at {new[:12]} of {url}; next: {'; '.join(steps)}")


def version() -> tuple[str, str]:
    """The template's commit that the tooling is at, and its URL or "", from tasks/VERSION."""
    lines = VERSION.read_text(encoding="utf-8").splitlines() if VERSION.exists() else []
    if not lines or not re.fullmatch("[0-9a-f]{40}", lines[0]):
        raise UserError("tasks/VERSION names no commit of the template: `nox -s rename`, or you, write it there")
    return lines[0], lines[1] if len(lines) > 1 else ""


def fetch(url: str, ref: str) -> str:
    """Fetch a ref, ``HEAD`` by default, and return its commit."""
    if (listed := git("ls-remote", url)) is None:
        raise UserError(f"there is no git repository to be read at {url}: `git ls-remote {url}` says why")
    branches = re.findall("\trefs/heads/(.+)", listed)
    ref = ref or ("HEAD" if "\tHEAD\n" in listed or len(branches) != 1 else branches[0])  # of a bundle
    if git("fetch", "--quiet", "--no-tags", url, ref) is None:
        names = ", ".join([*branches, *re.findall("(?m)\trefs/tags/([^^\n]+)$", listed)][:9]) or "no branch"
        raise UserError(f"{url} gives no {ref} (`git fetch {url} {ref}` says why); it has {names}, or a full commit id")
    if not (found := (git("rev-parse", "FETCH_HEAD^{commit}") or "").strip()):
        raise UserError(f"{url} is a shallow clone, of which git takes nothing: run `git fetch --unshallow` in it")
    return found


def merge(base: str, new: str, title: str) -> list[str]:
    """Apply the difference of two of the template's commits to this clone; return the files with conflicts.

    It is taken between commits of a temporary worktree, in which both are renamed as this clone is, and both lack what
    it has deleted or owns.
    """
    stay, others = deleted(base, new), [f":(exclude){path}" for path in OWN]
    if touched := sorted(stay & {*listing("diff", "--name-only", "-z", base, new, "--", *others)}):
        say(f"you have deleted these, and they stay deleted: {', '.join(touched)}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            do("worktree", "add", "--quiet", "--detach", folder, base)
            commit(Path(folder), stay, "the template as it was")
            do("-C", folder, "read-tree", "--reset", "-u", new)
            made = commit(Path(folder), stay, title)
    finally:
        git("worktree", "remove", "--force", folder)  # its files are gone: an interrupt would find it hardly at work
    fine = git(*OPTIONS, "cherry-pick", "--no-commit", "--allow-empty", made) is not None
    conflicts = listing("diff", "--name-only", "--diff-filter=U", "-z")
    if not fine and not conflicts:
        raise UserError(f"`git cherry-pick --no-commit {made}` failed, and nothing was changed")
    return conflicts


def deleted(base: str, new: str) -> set[str]:
    """The template's files that this clone has deleted, and new ones in folders that it has deleted."""
    before, after, here = ({*listing("ls-tree", "-rz", "--name-only", tree)} for tree in (base, new, "HEAD"))
    gone = folders(before) - folders(here)
    return {path for path in (before | after) - here if path in before or folders([path]) & gone}


def folders(paths: Iterable[str]) -> set[PurePosixPath]:
    """All folders above some paths."""
    return {folder for path in paths for folder in PurePosixPath(path).parents}


def commit(folder: Path, without: Iterable[str], title: str) -> str:
    """Commit a worktree, made this clone's own and without some files and OWN, and return the commit's id."""
    make_own(folder, name())
    remove_services(folder)
    do("-C", str(folder), "add", "--all")
    do("-C", str(folder), "--literal-pathspecs", "rm", "-rf", "--quiet", "--ignore-unmatch", "--", *without, *OWN)
    do("-C", str(folder), "commit", "--quiet", "--allow-empty", "--message", title)
    return do("-C", str(folder), "rev-parse", "HEAD").strip()


def remove_services(folder: Path) -> None:
    """Remove services that this clone lacks, the samples, from a checkout's pyproject.toml and docker/compose.yaml."""
    services = [path.parent.name for path in (folder / "services").glob("*/compose.yaml")]
    for service in [service for service in services if not git("ls-tree", "HEAD", f"services/{service}")]:
        lines = rf'^{service} = \[\n(?: .*\n)*\]\n|^{service}\.dependencies\..*\n|^"{service}:.*\n|^ .*/services/{service}/.*\n'
        for path in (folder / "pyproject.toml", folder / "docker/compose.yaml"):
            text = re.sub(lines, "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            path.write_text(text, encoding="utf-8")


def do(*arguments: str) -> str:
    """What git answers; raises UserError when it fails."""
    if (answer := git(*OPTIONS, *arguments)) is None:
        raise UserError(f"`git {' '.join(arguments)}` failed, and nothing was changed")
    return answer


def listing(*arguments: str) -> list[str]:
    """The paths that git lists, each ended by a zero byte."""
    return [path for path in do(*arguments).split("\0") if path]
