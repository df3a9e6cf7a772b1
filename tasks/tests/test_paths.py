"""Documents, settings and comments name only files that exist."""

from __future__ import annotations

import re
import subprocess

from ..project import ROOT

FOLDERS = ("tasks", "docker", "tests", "docs", "template", "deploy", ".github", ".ci", ".devcontainer", ".vscode")
PATH = re.compile(rf"(?<![\w./{{}}-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*[\w/])")
# Named as a place in any service's folder.
EXPECTED = {"tests/conftest.py"}


def test_every_named_path_exists() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    missing = []
    for name in filter(None, tracked.split("\0")):
        path = ROOT / name
        if "/tests/" in f"/{name}" or name.startswith("services/") or name == "poetry.lock" or not path.is_file():
            continue  # tests make paths up; in a service's folder, tests/ is its own
        for found in PATH.findall(path.read_text(encoding="utf-8", errors="replace")):
            if (
                "NAME" not in found
                and found not in EXPECTED
                and not (ROOT / found).exists()
                and not (path.parent / found).exists()
            ):
                missing.append(f"{name}: {found}")
    assert missing == []
