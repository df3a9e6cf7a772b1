"""What ``nox -s lint`` checks."""

from __future__ import annotations

from pathlib import Path

from nox import Session

from . import venv
from .project import ROOT, SERVICES, has_own_lock, libs_of, service_names


def lint(session: Session, *, fix: bool) -> None:
    """Run every linter; with ``fix`` let ruff correct what it can."""
    services = [service for service in service_names() if not has_own_lock(service)]
    typed = [service for service in services if list((SERVICES / service).glob("*/py.typed"))]
    # Of others nothing is needed, and what has no wheel would be compiled on this machine.
    venv.install(session, "host", "lint", "tests", *(it for it in services if it in typed or libs_of(it)))
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")
    in_images = [str(path) for path in Path("docker").rglob("*.py") if path.parent.name not in {"slice", "tests"}]
    folders = [folder for folder in ("tests", "template") if any(Path(folder).rglob("*.py"))]
    session.run("mypy", "noxfile.py", "tasks", *folders, *in_images)
    stack_tests = sorted({path.parent for path in SERVICES.glob("*/stack/*.py")})
    for folder in ("docker/build/slice", *Path().glob("deploy"), *sorted(Path("docker").glob("*/tests")), *stack_tests):
        session.run("mypy", str(folder))  # by itself: several packages are called tests, and modules test_api
    libs = sorted({lib for service in services for lib in libs_of(service)})
    for package in (*(SERVICES / service for service in typed), *(ROOT / "libs" / lib for lib in libs)):
        with session.chdir(package):  # where it may have settings of its own
            session.run("mypy", "--cache-dir=../../.mypy_cache", "--exclude=^stack/", ".")
    session.run("hadolint", "docker/Dockerfile")
    session.run("shellcheck", ".ci/run", "docker/build/online", *map(str, Path("docker").rglob("*.sh")))
    if workflows := [str(path) for path in sorted(Path(".github/workflows").glob("*.y*ml"))]:
        session.run("zizmor", "--offline", "--no-progress", ".github")
        session.run("check-jsonschema", "--builtin-schema=vendor.github-workflows", *workflows)
    for path in Path(".github").glob("dependabot.yml"):
        session.run("check-jsonschema", "--builtin-schema=vendor.dependabot", str(path))
    compose_files = [str(path) for path in (*Path("docker").glob("*.yaml"), *SERVICES.glob("*/compose.yaml"))]
    session.run("check-jsonschema", "--builtin-schema=vendor.compose-spec", *compose_files)
    for folder in (".", *(f"services/{service}" for service in filter(has_own_lock, service_names()))):
        venv.poetry(session, f"--directory={folder}", "check", "--lock")
