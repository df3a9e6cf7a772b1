"""Documents, settings and comments name only files that exist."""

from __future__ import annotations

import re
import subprocess

import pytest

from ..project import ROOT

FOLDERS = ("tasks", "docker", "tests", "docs", "template", "deploy", ".github", ".ci", ".devcontainer", ".vscode")
PATH = re.compile(rf"(?<![\w./{{}}-])((?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*[\w/])")
# A place in any service's folder; and an optional part, which may have been deleted.
EXPECTED = {"tests/conftest.py", "docker/bases", "docs/releasing.md", "docs/deploying.md"}
EXPECTED |= {".github/workflows", ".github/workflows/release.yml"}
DEBIAN = ROOT / "tasks/machine/debian.py"


@pytest.fixture
def texts() -> dict[str, str]:
    """The tracked files, by their names; but tests make paths up, and in a service's folder, tests/ is its own."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    names = [name for name in filter(None, tracked.split("\0")) if (ROOT / name).is_file() and name != "poetry.lock"]
    kept = [name for name in names if "/tests/" not in f"/{name}" and not name.startswith("services/")]
    return {name: (ROOT / name).read_text(encoding="utf-8", errors="replace") for name in kept}


def test_every_named_path_exists(texts: dict[str, str]) -> None:
    missing = []
    for name, text in texts.items():
        named = [place for place in set(PATH.findall(text)) - EXPECTED if "NAME" not in place]
        places = (ROOT, (ROOT / name).parent)
        missing += [f"{name}: {place}" for place in named if not any((at / place).exists() for at in places)]
    assert missing == []


def test_every_module_that_is_to_be_run_runs(texts: dict[str, str]) -> None:
    """As `sudo python3 -B -m tasks.machine.debian`, an optional part's."""
    named = {module for text in texts.values() for module in re.findall(r"python3? (?:-B )?-m (tasks[\w.]+\w)", text)}
    paths = {module: ROOT / f"{module.replace('.', '/')}.py" for module in named - {"tasks.machine.debian"}}
    if DEBIAN.exists():
        paths["tasks.machine.debian"] = DEBIAN
    assert [module for module, path in paths.items() if "__main__" not in path.read_text(encoding="utf-8")] == []
