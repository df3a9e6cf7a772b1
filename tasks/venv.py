"""Virtual environments on this machine: dependency groups at the versions in poetry.lock, Poetry itself, and Syft."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import nox.project
from nox import Session
from nox.command import CommandFailed

from .env import ca_bundle, env
from .project import REPORTS, ROOT, libs_of, pyproject
from .shell import INTERRUPTED, UserError, ask, output, show
from .terminal import Status, say


def install(session: Session, *groups: str) -> None:
    """Install dependency groups of pyproject.toml, at the versions in poetry.lock, unless they are installed.

    Packages of our own come from libs/, never from an index where somebody else may have taken their names.
    """
    own = sorted({lib for group in groups for lib in libs_of(group)})
    wanted = [name for name in nox.project.dependency_groups(pyproject(), *groups) if name not in own]
    wanted += [word for lib in own for word in ("--editable", f"libs/{lib}")]
    locked = (ROOT / "poetry.lock").read_bytes() if (ROOT / "poetry.lock").exists() else b""
    key = hashlib.sha256("\n".join(wanted).encode() + locked).hexdigest()
    done = Path(session.virtualenv.location) / f"{'-'.join(groups)[:99]}.sha256"  # lint's groups are all services
    if not done.exists() or done.read_text() != key:
        done.with_suffix(".txt").write_text(constraints(*groups), encoding="utf-8")
        pip(session, "--constraint", str(done.with_suffix(".txt")), *wanted)
        done.write_text(key)


def pip(session: Session, *arguments: str) -> None:
    """Install packages in this session's environment; raises UserError when that fails, soon where no index answers."""
    try:
        index = env().get("PIP_INDEX_URL")
        extra = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # of several indexes: the lock has chosen
        extra |= {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index} if index else {}
        extra |= {"SSL_CERT_FILE": found} if (found := env().get("STACK_CA") or ca_bundle()) else {}  # uv has its own
        # Bytecode, because uv writes none and every test that starts a server would compile its imports again.
        session.install(*arguments, env={"PIP_TIMEOUT": "15", "PIP_RETRIES": "1", "UV_COMPILE_BYTECODE": "1", **extra})
        if INTERRUPTED:
            raise KeyboardInterrupt
    except CommandFailed:
        raise UserError("packages could not be installed; the installer's own words stand above") from None


def constraints(*groups: str) -> str:
    """The versions in poetry.lock, and the further indexes that it has for dependency groups, as a file for pip and uv."""
    packages = pyproject("poetry.lock").get("package", ())
    others = [package for package in packages if package.get("source", {}).get("type") != "directory"]  # which is ours
    # A package that is locked at several versions, for several Pythons, is left to the resolver.
    times = Counter(package["name"] for package in others)
    pins = [f"{package['name']}=={package['version']}\n" for package in others if times[package["name"]] == 1]
    sources = [package.get("source", {}) for package in packages if {*groups} & {*package.get("groups", ())}]
    indexes = {f"--extra-index-url={source['url']}\n" for source in sources if source.get("type") == "legacy"}
    return "".join([*sorted(indexes), *pins])


def sbom(session: Session, images: Sequence[str]) -> None:
    """Write a software bill of materials for each image to reports/, in CycloneDX."""
    install(session, "report")
    for image in images:
        target = REPORTS / f"sbom-{image.rpartition('/')[2].replace(':', '-')}.cdx.json"
        with TemporaryDirectory() as scratch:  # an interrupted Syft leaves there what it has unpacked
            settings = {"SYFT_CHECK_FOR_APP_UPDATE": "false", "NO_COLOR": "1", "TMPDIR": scratch}
            command = (str(Path(session.bin) / "syft"), "scan", f"docker:{image}", "--output=cyclonedx-json")
            target.write_text(output(*command, env=settings), encoding="utf-8")
        say(f"wrote {target.relative_to(ROOT)}")


def poetry(session: Session, *arguments: str, silent: bool = False) -> None:
    """Run Poetry, which nobody has to install, against the package index that pip uses.

    Raises UserError when it fails; if ``silent``, CommandFailed with its words, which are not shown.
    """
    # pip, because uv makes environments without it, and it knows its default index.
    pip(session, "--quiet", "pip", "--requirement", "docker/build/tools.txt")
    program = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
    index = env().get("PIP_INDEX_URL") or output(python(session), "-c", program).strip()
    settings = {"POETRY_PYPI_MIRROR_URL": index, "POETRY_REQUESTS_TIMEOUT": "15", "POETRY_VIRTUALENVS_CREATE": "false"}
    # Poetry does not look at the system's certificates.
    settings |= {"REQUESTS_CA_BUNDLE": found} if (found := env().get("STACK_CA") or ca_bundle()) else {}
    show(("poetry", *arguments))
    command = (str(Path(session.bin) / "poetry"), *arguments)
    if silent:
        output(*command, env=settings)
        return
    with Status(f"poetry {' '.join(arguments)}"), ask(*command, env=settings) as process:
        text = "".join(process.communicate())
    credentials = "".join(re.findall(r"://([^/\s]+)@", index))  # Poetry shows them when the index does not answer
    say(text := text.strip().replace(credentials or "\0", "***"))
    if process.returncode:
        newer = re.findall(r"- (\S+) requires Python (.+), so it will not", text)
        how = "{0} needs Python {1}: add --python '{1}' (see docs/configuration.md), or change `requires-python`"
        why = "; ".join(how.format(*found) for found in newer) or "its own words stand above"
        raise UserError(f"`poetry {' '.join(arguments)}` failed, and nothing was changed; {why}")


def python(session: Session) -> str:
    """The interpreter of this session's environment."""
    return str(Path(session.bin) / "python")
