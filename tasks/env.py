"""The machine facts in .env: one reader and one writer, which agree with Compose. Also the secrets and the CA bundle."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from .project import ROOT, clone_id, compose_texts, name
from .shell import UserError

ENV = ROOT / ".env"

_HEAD = "# Written by `nox -s setup`. Put your own settings below the line; they win."
_LINE = "# ------------------------------------------------------------------- yours:"
# A line of .env as Compose reads it: a quote ends at the next one that has no backslash in front, and elsewhere a comment
# begins at a space and #. See https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/
_SETTING = re.compile(
    r"""(?mx) ^[ \t]* (?:export[ \t]+)? (?P<key>\w+) [ \t]*=[ \t]*
    (?: '(?P<single>(?:\\.|[^'\\])*)' | "(?P<double>(?:\\.|[^"\\])*)" | (?P<plain>[^'"\n].*?)?(?=[ \t]+\#|[ \t]*$) )"""
)
# How a value names a variable, and what to take where that is not set or empty.
_NAMED = re.compile(r"(?a)\$(?:\$|([a-z_]\w*)|\{([a-z_]\w*)(?::-([^}]*))?\})", re.IGNORECASE)
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS
)


def official_base() -> str:
    """The official base image, as docker/Dockerfile names it."""
    if not (found := re.search(r"(?m)^FROM (\S+) AS official$", (ROOT / "docker/Dockerfile").read_text("utf-8"))):
        raise UserError("docker/Dockerfile has no line `FROM ... AS official`, which names the base image")
    return found[1]


def ca_bundle() -> str:
    """The file with the certificate authorities that this machine trusts, private ones included; "" for none."""
    candidates = (os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"), *_CA_BUNDLES)
    return next((str(Path(found).resolve()) for found in candidates if found and Path(found).is_file()), "")


def env() -> dict[str, str]:
    """The settings that Compose will see: those of .env, overridden by the environment."""
    return parse(read()) | dict(os.environ)


def read() -> str:
    """The text of .env; "" without one."""
    return ENV.read_text(encoding="utf-8", errors="surrogateescape") if ENV.exists() else ""


def users_part(text: str) -> str:
    """What the user wrote of .env: all below our line, or everything where `setup` has not written yet."""
    return text.partition(_LINE)[2].partition("\n")[2] if _LINE in text else text


def parse(text: str) -> dict[str, str]:
    """The settings in a text like .env; a value may name variables of the environment, and settings above it."""
    settings: dict[str, str] = {}

    def named(it: re.Match[str]) -> str:
        # Of $$, the name is "".
        return {"": "$", **settings, **os.environ}.get(it[1] or it[2] or "") or it[3] or ""

    for found in _SETTING.finditer(text):
        double = re.sub(r'\\(["\\$])', lambda it: it[1].replace("$", "$$"), found["double"] or "")
        value = _NAMED.sub(named, found["plain"] or double)
        single = found["single"]  # where a dollar sign has no meaning
        settings[found["key"]] = value if single is None else single.replace("\\'", "'")
    return settings


def chosen_by_user() -> dict[str, str]:
    """The settings that the user has made: in the environment, and in his part of .env."""
    chosen = {*parse(users_part(read())), *os.environ}
    return {key: value for key, value in env().items() if key in chosen}


def write_env(found: Mapping[str, str]) -> None:
    """Write the machine facts to .env, for nox and plain Docker Compose alike; the user's own part stays as it is.

    ``found`` is what others have found: user id, base images, ports.
    """
    facts = {
        "COMPOSE_FILE": "docker/compose.yaml",
        "COMPOSE_PROJECT_NAME": clone_id(),
        "STACK_CLONE": clone_id(),
        "STACK_PROJECT": name(),
        **found,
        "STACK_CA": ca_bundle(),
    }
    old = read()
    quoted = "".join(f"{key}={_quote(value)}\n" for key, value in facts.items())
    new = f"{_HEAD}\n{quoted}{_LINE}\n{users_part(old)}"
    if new != old:
        draft = ENV.with_suffix(".draft")
        draft.write_text(new, encoding="utf-8", errors="surrogateescape")
        draft.replace(ENV)


def write_secrets() -> None:
    """Make a password for each file in .secrets/ that a service's compose file names; existing ones stay.

    The folder is for its owner alone. The files in it are not, because containers that get them mounted run as users
    of their own, whose ids differ between images.
    """
    for secret in sorted({*re.findall(r"/\.secrets/([\w.-]+)", compose_texts())}):
        path = ROOT / ".secrets" / secret
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            path.write_text(secrets.token_urlsafe(32), encoding="utf-8")
            path.chmod(0o644)


def _quote(value: str) -> str:
    """A value as .env has it."""
    if re.fullmatch(r"[\w./:@-]*", value, re.ASCII):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$") + '"'
