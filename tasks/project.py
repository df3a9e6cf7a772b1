"""What this clone is: its root, its name, its services and the dependency groups in pyproject.toml."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import tomllib
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from .shell import UserError, output

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ROOT / "services"
REPORTS = ROOT / "reports"
LONGEST_NAME = 40  # a DNS label has 63, and Compose puts the project's name in front and a number behind
toml = cache(tomllib.loads)  # each text once: the lock is asked for by every service


def pyproject(file: str = "pyproject.toml") -> dict[str, Any]:
    """Read pyproject.toml, or another ``file`` below the root; raises UserError, with the place, when it cannot."""
    try:
        return toml((ROOT / file).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        merged = ": after a merge, `git checkout --ours` it, then `nox -s lock`" if file.endswith(".lock") else ""
        raise UserError(f"{file.removeprefix(f'{ROOT}/')} does not parse: {error}{merged}") from None


def has_own_lock(service: str) -> bool:
    """Whether a service is resolved by itself: its folder has a pyproject.toml and a poetry.lock."""
    return all((SERVICES / service / name).is_file() for name in ("pyproject.toml", "poetry.lock"))


def own_tests(service: str) -> set[str]:
    """The packages that a service's own lock has for its dependency group ``tests``; none where the shared ones are used."""
    packages = pyproject(f"services/{service}/poetry.lock").get("package", ()) if has_own_lock(service) else ()
    return {package["name"] for package in packages if "tests" in package.get("groups", ())}


def name() -> str:
    """The project's name, as the first part of its images' names."""
    found = pyproject().get("project", {}).get("name", "")
    if not re.fullmatch(r"[a-z0-9]+([._-][a-z0-9]+)*", found):
        raise UserError(f"pyproject.toml: the name must be lower-case letters, digits and single dashes, not {found!r}")
    return str(found)


def clone_id() -> str:
    """The Compose project's name, different for each clone: ``<project>-<8 hex digits>`` of the machine and the path."""
    return f"{name()}-{hashlib.sha256(os.fsencode(f'{machine_id()}{ROOT}')).hexdigest()[:8]}"


@cache
def machine_id() -> str:
    """What tells apart machines, and containers, that share an engine: machine-id(5), a Mac's UUID, in a container its host name."""
    if sys.platform == "darwin":  # where the host name changes with the network, and with it would the data's name
        return output("ioreg", "-rd1", "-c", "IOPlatformExpertDevice").partition('"IOPlatformUUID" = "')[2][:36]
    contained = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    file = Path("/etc/machine-id")
    return (file.read_text(encoding="ascii").strip() if file.exists() and not contained else "") or platform.node()


def service_names() -> list[str]:
    """The names of all services, sorted: the folders in services/.

    Raises UserError when a folder cannot have its name, or lacks its compose file or its dependency group.
    """
    # git leaves folders with bytecode, coverage, caches and data behind when it switches branches.
    left = r"/\.|^/_|\.pyc$|^/[^/]+/instance/"
    found = sorted(
        folder.name
        for folder in SERVICES.glob("*")  # git keeps no empty folder: there may be no services/
        if any(f.is_file() and not re.search(left, f"/{f.relative_to(SERVICES)}") for f in folder.rglob("*"))
    )
    groups = pyproject().get("dependency-groups", {})
    for service in found:
        check_label("a service", service)
        libs_of(service)
        if not (SERVICES / service / "compose.yaml").is_file():
            raise UserError(f"services/{service} has no compose.yaml: `nox -s new` makes one; or remove the folder")
        if service in groups and has_own_lock(service):
            own = f"services/{service} has a poetry.lock of its own"
            raise UserError(f"{own}: remove the dependency group {service!r} from pyproject.toml")
        if service not in groups and not has_own_lock(service):
            told = f"pyproject.toml has no dependency group {service!r} for services/{service}: add it"
            own = f"; or `nox -s lock -- --service {service}`, for a lock of its own"
            raise UserError(f"{told}, then `nox -s lock`" + own * (SERVICES / service / "pyproject.toml").is_file())
    return found


def check_label(what: str, wanted: str) -> None:
    """Raise UserError unless a name can be part of a host's and an image's; ``what`` is to be called so."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", wanted) or len(wanted) > LONGEST_NAME:
        rule = f"lower-case letters and digits, words joined by single dashes, at most {LONGEST_NAME} characters"
        raise UserError(f"{what} cannot be called {wanted!r}: it must be {rule}")


def compose_texts() -> str:
    """All services' compose.yaml, one after the other; a fault in them is for Compose to tell."""
    return "\n".join(path.read_text("utf-8", "replace") for path in sorted(SERVICES.glob("*/compose.yaml")))


def choose_services(wanted: Sequence[str], *, also: Collection[str] = ()) -> list[str]:
    """Check names that a user typed; none means all services. ``also`` are further words that are allowed.

    Raises UserError, listing the services, for an unknown name, and where there is no service at all.
    """
    known = service_names()
    if not known and not {*wanted} & {*also}:
        raise UserError("there is no service yet: `nox -s new -- NAME` makes one")
    if unknown := [word for word in wanted if word not in {*known, *also}]:
        others = ", ".join(word for word in also if word not in known)
        told = f"there is no service {unknown[0]!r}; the services are: {', '.join(known)}"
        raise UserError(told + f" (or {others})" * bool(others))
    return list(dict.fromkeys(wanted)) or known


def env_prefix(service: str) -> str:
    """A service's name as the beginning of its environment variables' names."""
    return service.upper().replace("-", "_")


def libs_of(service: str) -> list[str]:
    """The names of the libs/ packages that a service's dependencies ask for, and those that these ask for in turn.

    Raises UserError for a missing one, for one that is named without its path, and for a circle of libs.
    """
    file, group = (f"services/{service}/pyproject.toml", "") if has_own_lock(service) else ("pyproject.toml", service)
    return sorted({*_libs(file, group, (service,))})


def _libs(file: str, group: str, users: tuple[str, ...]) -> Iterator[str]:
    """The libs that a file's dependency group, or with "" its project, asks for, and theirs; ``users`` lead here."""
    found = pyproject(file)
    poetry, named = found.get("tool", {}).get("poetry", {}), found.get("project", {}).get("dependencies", ())
    if group:
        poetry, named = poetry.get("group", {}).get(group, {}), found.get("dependency-groups", {}).get(group, ())
    specs = [spec for spec in poetry.get("dependencies", {}).values() if isinstance(spec, dict)]
    paths = [os.path.normpath(Path(file).parent / spec["path"]) for spec in specs if "path" in spec]
    libs = [path.removeprefix("libs/") for path in paths if path.startswith("libs/")]
    words = [re.split(r"[^\w.-]", word.strip())[0].replace("-", "_") for word in named if isinstance(word, str)]
    for lib in [*libs, *(word for word in words if (ROOT / "libs" / word / word).is_dir())]:
        if lib not in libs:  # Poetry would take a package of that name from the index
            raise UserError(f"{file}: {users[-1]} uses libs/{lib} without its path: add it, as libs/README.md says")
        if lib in users[1:]:
            raise UserError(f"libs use each other in a circle: {' -> '.join((*users[users.index(lib, 1) :], lib))}")
        if not (ROOT / "libs" / lib / lib).is_dir():
            raise UserError(f"{file}: {users[-1]} uses libs/{lib}, and there is no package libs/{lib}/{lib}")
        yield lib
        if (ROOT / (inside := f"libs/{lib}/pyproject.toml")).is_file():
            yield from _libs(inside, "", (*users, lib))
    for word in [word for word in named if isinstance(word, dict) and str(word) not in users]:
        yield from _libs(file, word["include-group"], (*users, str(word)))
