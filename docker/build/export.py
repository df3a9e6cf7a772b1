"""Writes out what poetry.lock has for each dependency group: ``export.py FOLDER [SERVICE]``, in a folder with a Poetry project.

FOLDER/GROUP/requirements.txt is what an index has, with hashes; libs.txt is the names of the group's packages of our own.
One process does it for all groups, because Poetry takes far longer to start than to export one.

With SERVICE, which has a lock of its own in services/SERVICE, what that needs is added, and its group `tests` replaces
the shared one if it has one. Shared tools take the versions of its lock where both need a package.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cleo.io.null_io import NullIO
from packaging.requirements import Requirement
from poetry.factory import Factory
from poetry_plugin_export.exporter import Exporter

if TYPE_CHECKING:
    from poetry.poetry import Poetry

OWN = re.compile(r"^.*file://.*/libs/([^/ ;]+).*\n", re.MULTILINE)
ENTRY = re.compile(r"^([\w.-]+).*\n(?:[ \t].*\n)*", re.MULTILINE)  # a requirement, and the lines with its hashes


def load(folder: str) -> Poetry:
    """The project in a folder, whose lock must be up to date."""
    poetry = Factory().create_poetry(Path(folder))
    if not poetry.locker.is_fresh():
        sys.exit("pyproject.toml changed significantly since poetry.lock was last generated")
    return poetry


def export(poetry: Poetry, group: str, folder: Path) -> None:
    """Write a group's requirements and libs to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    requirements = folder / "requirements.txt"
    Exporter(poetry, NullIO()).only_groups([group]).export("requirements.txt", folder, requirements.name)
    text = requirements.read_text(encoding="utf-8")
    requirements.write_text(OWN.sub("", text), encoding="utf-8")
    (folder / "libs.txt").write_text("".join(f"{name}\n" for name in OWN.findall(text)), encoding="utf-8")


def resolve(group: str, folder: Path, fixed: list[Path]) -> None:
    """Find versions for one of the project's groups that go with those in ``fixed``: the locked ones, if they do."""
    file = folder / group / "requirements.txt"
    command = ["/build/online", "/build/tools/bin/uv", "pip", "compile", "--generate-hashes", f"--group={group}"]
    options = [f"--constraint={path / 'requirements.txt'}" for path in fixed]
    done = subprocess.run([*command, *options, f"--output-file={file}"], capture_output=True, text=True, check=False)
    if done.returncode:
        text = " ".join(done.stderr.split())
        why = re.search(r"Because (.*?), (?:we|and)", text)
        mend = "; a group tests of its own replaces it" if group == "tests" else ""
        sys.exit(
            f"the shared group {group} does not go with {fixed[0].name}'s own lock: {why[1] if why else text}{mend}"
        )


def main(folder: Path, service: str = "") -> None:
    """Export the groups of the project here, or what a service's own project changes in them."""
    poetry = load(f"services/{service}" if service else ".")
    groups = poetry.package.dependency_group_names(include_optional=True)
    if not service:
        for group in groups:
            export(poetry, group, folder / group)
        return
    export(poetry, "main", folder / service)
    if "tests" in groups:
        export(poetry, "tests", folder / "tests")
    else:
        resolve("tests", folder, [folder / service])
    resolve("dev", folder, [folder / service, folder / "tests"])
    # Tests of a production image find what both need where production has it; what it needs on another Python is not there.
    entries = ENTRY.finditer((folder / service / "requirements.txt").read_text(encoding="utf-8"))
    needed = [Requirement(one[0].partition("\\")[0].strip()) for one in entries]
    taken = {one.name for one in needed if one.marker is None or one.marker.evaluate()}
    tests = folder / "tests" / "requirements.txt"
    left = [one[0] for one in ENTRY.finditer(tests.read_text(encoding="utf-8")) if one[1] not in taken]
    tests.write_text("".join(left), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
