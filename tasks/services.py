"""What services exist: found in services/, never listed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .project import ROOT, pyproject
from .shell import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICES = ROOT / "services"
# The dependency groups that serve the house, not a service.
HOUSE_GROUPS = {"dev", "host", "lint", "report", "stack", "tests"}


def names() -> list[str]:
    """The names of all services, sorted.

    Raises UserError when a folder lacks its compose file or its dependency group, or a group its folder.
    """
    found = sorted(
        folder.name for folder in SERVICES.iterdir() if folder.is_dir() and not re.match(r"[._]", folder.name)
    )
    groups = pyproject().get("dependency-groups", {})
    for service in found:
        libs(service)
        if not (SERVICES / service / "compose.yaml").is_file():
            raise UserError(
                f"services/{service} has no compose.yaml: add one (services/echo has a model), or remove the folder"
            )
        if service not in groups:
            raise UserError(
                f"pyproject.toml has no dependency group {service!r} for services/{service}: add it, then `nox -s lock`"
            )
    if lost := sorted(set(groups) - set(found) - HOUSE_GROUPS):
        raise UserError(
            f"pyproject.toml has a dependency group {lost[0]!r}, and there is no services/{lost[0]}: remove the group, "
            "or, if it is not for a service, name it in tasks/services.py"
        )
    return found


def choose(wanted: Sequence[str], *, also: Sequence[str] = ()) -> list[str]:
    """Check names that a user typed; none means all services. ``also`` are further words that are allowed.

    Raises UserError, listing the services, for a name that is none.
    """
    known = names()
    for word in wanted:
        if word not in known and word not in also:
            others = f" (or {', '.join(also)})" if also else ""
            raise UserError(f"there is no service {word!r}; the services are: {', '.join(known)}{others}")
    return list(dict.fromkeys(wanted)) or known


def variable(service: str) -> str:
    """A service's name as the beginning of its environment variables' names."""
    return service.upper().replace("-", "_")


def libs(service: str) -> list[str]:
    """The names of the libs/ packages that a service's dependency group asks for; raises UserError for one that is none."""
    group = pyproject().get("tool", {}).get("poetry", {}).get("group", {}).get(service, {})
    paths = [spec.get("path", "") for spec in group.get("dependencies", {}).values() if isinstance(spec, dict)]
    found = sorted(path.removeprefix("libs/").rstrip("/") for path in paths if path.startswith("libs/"))
    for lib in found:
        if not (ROOT / "libs" / lib / lib).is_dir():
            raise UserError(f"pyproject.toml: {service} uses libs/{lib}, and there is no package libs/{lib}/{lib}")
    return found
