"""Documents, settings and comments name only files that exist."""

from __future__ import annotations

import re
import subprocess

from ..project import ROOT

FOLDERS = ("tasks", "docker", "tests", "docs", "template", "deploy", ".github", ".ci", ".devcontainer", ".vscode")
PATH = re.compile(rf"(?<![\w./{{}}-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*[\w/])")
# A place in any service's folder; and an optional part, which may have been deleted.
EXPECTED = {"tests/conftest.py", "docker/bases", "docs/releasing.md", "docs/deploying.md"}
EXPECTED |= {".github/workflows", ".github/workflows/release.yml"}


def test_every_named_path_exists() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    missing = []
    for name in filter(None, tracked.split("\0")):
        path = ROOT / name
        if "/tests/" in f"/{name}" or name.startswith("services/") or name == "poetry.lock" or not path.is_file():
            continue  # tests make paths up; in a service's folder, tests/ is its own
        found = set(PATH.findall(path.read_text(encoding="utf-8", errors="replace"))) - EXPECTED
        named = [place for place in found if "NAME" not in place]
        missing += [
            f"{name}: {place}" for place in named if not any((at / place).exists() for at in (ROOT, path.parent))
        ]
    assert missing == []
