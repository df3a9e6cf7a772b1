"""What this clone is: its root, its name, and the machine facts in .env."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import ssl
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .shell import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "reports"
ENV = ROOT / ".env"

_HEAD = "# Written by `nox -s setup`. Put your own settings below the line; they win."
_LINE = "# ------------------------------------------------------------------- yours:"
# A line of .env as Compose reads it: a quote ends at the next one that has no backslash in front, and elsewhere a comment
# begins at a space and #. See https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/
_SETTING = re.compile(
    r"""(?mx) ^[ \t]* (?:export[ \t]+)? (?P<key>\w+) [ \t]*=[ \t]*
    (?: '(?P<single>(?:\\.|[^'\\])*)' | "(?P<double>(?:\\.|[^"\\])*)" | (?P<plain>[^'"\n].*?)?(?=[ \t]+\#|[ \t]*$) )"""
)
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS
)


@cache
def toml(text: str) -> dict[str, Any]:
    """What a text in TOML says. It is parsed once: for each service, somebody asks for the lock of all."""
    return tomllib.loads(text)


def pyproject() -> dict[str, Any]:
    """Read pyproject.toml; raises UserError, with the place, when it does not parse."""
    try:
        return toml((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"pyproject.toml does not parse: {error}") from None


def name() -> str:
    """The project's name, as the first part of its images' names."""
    found = pyproject().get("project", {}).get("name", "")
    if not re.fullmatch(r"[a-z0-9]+([._-][a-z0-9]+)*", found):
        raise UserError(
            f"pyproject.toml: [project] name must be lower-case letters, digits and single dashes, not {found!r}"
        )
    return str(found)


def clone() -> str:
    """The Compose project's name, different for each clone: ``<project>-<8 hex digits of the clone's path>``."""
    return f"{name()}-{hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]}"


def official_base() -> str:
    """The official base image, as docker/Dockerfile names it."""
    found = re.search(
        r"^ARG STACK_BASE=(\S+)", (ROOT / "docker/Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    if not found:
        raise UserError("docker/Dockerfile has no line `ARG STACK_BASE=...`, which names the base image")
    return found[1]


def ca_bundle() -> str:
    """The file with the certificate authorities that this machine trusts, private ones included; "" for none."""
    candidates = [os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"), *_CA_BUNDLES]
    candidates.append(ssl.get_default_verify_paths().cafile)
    return next((str(Path(found).resolve()) for found in candidates if found and Path(found).is_file()), "")


def env() -> dict[str, str]:
    """The settings that Compose will see: those of .env, under those of the environment."""
    text = ENV.read_text(encoding="utf-8") if ENV.exists() else ""
    return {found["key"]: _unquote(found) for found in _SETTING.finditer(text)} | dict(os.environ)


def write_env(found: Mapping[str, str]) -> None:
    """Write the machine facts to .env, for nox and plain Docker Compose alike; the user's own part stays as it is.

    ``found`` is what others have found: who containers run as, and the base images in use.
    """
    facts = {
        "COMPOSE_FILE": "docker/compose.yaml",
        "COMPOSE_PROJECT_NAME": clone(),
        "STACK_CLONE": clone(),
        "STACK_PROJECT": name(),
        **found,
        "STACK_CA": ca_bundle(),
    }
    old = ENV.read_text(encoding="utf-8") if ENV.exists() else f"{_LINE}\n"
    # A .env that was there before has no line yet: then all of it is the user's.
    yours = old.partition(f"{_LINE}\n")[2] if _LINE in old else old
    quoted = "".join(f"{key}={_quote(value)}\n" for key, value in facts.items())
    new = f"{_HEAD}\n{quoted}{_LINE}\n{yours}"
    if new != old:
        draft = ENV.with_suffix(".draft")
        draft.write_text(new, encoding="utf-8")
        draft.replace(ENV)


def write_secrets() -> None:
    """Make a password for each file in .secrets/ that a service's compose file names, and leave those that are there.

    The folder is for its owner alone. The files in it are not, because containers that get them mounted run as users
    of their own, whose numbers differ between images.
    """
    texts = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("services/*/compose.yaml"))]
    for secret in sorted({found for text in texts for found in re.findall(r"/\.secrets/([\w.-]+)", text)}):
        path = ROOT / ".secrets" / secret
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            path.write_text(secrets.token_urlsafe(32), encoding="utf-8")
            path.chmod(0o644)


def constraints() -> str:
    """Write the versions in poetry.lock to a file that pip and uv take with ``--constraint``, and return its path."""
    try:
        packages = tomllib.loads((ROOT / "poetry.lock").read_text(encoding="utf-8"))["package"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"poetry.lock cannot be read ({error}): run `nox -s lock`") from None
    versions: dict[str, list[str]] = {}
    for package in packages:
        if package.get("source", {}).get("type") == "directory":
            continue  # a package of our own
        versions.setdefault(package["name"], []).append(package["version"])
    # A package that is locked at several versions, for several Pythons, is left to the resolver.
    lines = [f"{package}=={found[0]}\n" for package, found in versions.items() if len(found) == 1]
    path = ROOT / ".nox" / "constraints.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")
    return str(path)


def _quote(value: str) -> str:
    """A value as .env has it. Backslashes need double quotes: before a single quote they could not be told from escapes."""
    if re.fullmatch(r"[\w./:@-]*", value, re.ASCII):
        return value
    if "\\" in value:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'
    return "'" + value.replace("'", "\\'") + "'"


def _unquote(found: re.Match[str]) -> str:
    if (single := found["single"]) is not None:
        return single.replace("\\'", "'")
    if (double := found["double"]) is not None:
        return re.sub(r'\\(["\\])', r"\1", double).replace("$$", "$")
    return found["plain"] or ""
