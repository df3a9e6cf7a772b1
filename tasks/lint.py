"""What ``nox -s lint`` checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from . import venv
from .project import ROOT, SERVICES, libs_of, service_names

if TYPE_CHECKING:
    from nox import Session


def lint(session: Session, *, fix: bool) -> None:
    """Run every linter; with ``fix`` let ruff mend what it can."""
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    in_images = [str(path) for path in Path("docker").rglob("*.py") if path.parent.name not in {"slice", "tests"}]
    session.run("mypy", "noxfile.py", "tasks", "tests", "template", *in_images)
    session.run("mypy", "docker/build/slice")
    session.run("mypy", "docker/dev/tests")  # by itself: tests/ in the root is a package of the same name
    for service in service_names():
        if not list((SERVICES / service).glob("*/py.typed")):
            continue  # adopted, and not typed
        with session.chdir(SERVICES / service):
            session.run("mypy", "--config-file=../../pyproject.toml", "--cache-dir=../../.mypy_cache", ".")
    for lib in sorted({lib for service in service_names() for lib in libs_of(service)}):
        with session.chdir(ROOT / "libs" / lib):
            session.run("mypy", "--config-file=../../pyproject.toml", "--cache-dir=../../.mypy_cache", ".")
    session.run("hadolint", "docker/Dockerfile")
    session.run("shellcheck", ".ci/run", "docker/build/online", *map(str, Path("docker/bases").rglob("*.sh")))
    session.run("zizmor", "--offline", "--no-progress", ".github")
    session.run("check-jsonschema", "--builtin-schema=vendor.github-workflows", ".github/workflows/ci.yml")
    session.run("check-jsonschema", "--builtin-schema=vendor.dependabot", ".github/dependabot.yml")
    compose_files = ["docker/compose.yaml", "docker/compose.prod.yaml", "docker/service.yaml"]
    compose_files += [f"services/{service}/compose.yaml" for service in service_names()]
    session.run("check-jsonschema", "--builtin-schema=vendor.compose-spec", *compose_files)
    venv.poetry(session, "check", "--lock")
