"""Writes out what poetry.lock has for each dependency group: ``export.py FOLDER``, in a folder with a Poetry project.

FOLDER/GROUP/requirements.txt is what an index has, with hashes; libs.txt is the names of the group's packages of our own.
One process does it for all groups, because Poetry takes far longer to start than to export one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from cleo.io.null_io import NullIO
from poetry.factory import Factory
from poetry_plugin_export.exporter import Exporter

OWN = re.compile(r"^.*file://.*/libs/([^/ ;]+).*\n", re.MULTILINE)

poetry = Factory().create_poetry()
if not poetry.locker.is_fresh():
    sys.exit("pyproject.toml changed significantly since poetry.lock was last generated")
for group in poetry.package.dependency_group_names(include_optional=True):
    folder = Path(sys.argv[1]) / group
    folder.mkdir(parents=True)
    requirements = folder / "requirements.txt"
    Exporter(poetry, NullIO()).only_groups([group]).export("requirements.txt", folder, requirements.name)
    text = requirements.read_text(encoding="utf-8")
    requirements.write_text(OWN.sub("", text), encoding="utf-8")
    (folder / "libs.txt").write_text("".join(f"{name}\n" for name in OWN.findall(text)), encoding="utf-8")
