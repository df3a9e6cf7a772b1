"""`nox -s audit`: known vulnerabilities of what is in the production images, from OSV's database. Optional: delete with its line in noxfile.py.

The format of questions and answers: https://google.github.io/osv.dev/api/ and https://ossf.github.io/osv-schema/
"""

from __future__ import annotations

import datetime
import json
import ssl
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from http.client import HTTPException
from typing import Any
from urllib.parse import parse_qs, urlsplit

import nox

from . import cli, venv
from .env import ca_bundle, env
from .images import bake
from .project import REPORTS, pyproject
from .session import ready, session
from .shell import UserError, run_parallel
from .terminal import say, table

DATABASE = "https://api.osv.dev"
TIMEOUT_S = 30
BATCH = 1000  # the most questions that one request may contain
LEVELS = ("low", "medium", "high", "critical", "unknown")  # "unknown" counts as the worst
Package = tuple[str, str, str]  # ecosystem, name, version


@session(venv=True)
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities in production images: -- [SERVICE...]"""
    services = cli.services("audit", session.posargs)
    settings = check_settings(pyproject().get("tool", {}).get("stack", {}).get("audit", {}))
    ready()
    venv.sbom(session, bake.build(services, "prod"))
    files = {service: REPORTS / f"sbom-{service}-prod.cdx.json" for service in services}
    images = {service: packages(json.loads(path.read_text(encoding="utf-8"))) for service, path in files.items()}
    report(images, vulnerabilities(settings["database"], set().union(*images.values())), settings)


def check_settings(found: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in pyproject.toml's [tool.stack.audit], with defaults; raises UserError for a wrong one."""
    settings = {"level": "high", "allow": [], "database": DATABASE} | dict(found)
    fine = settings["level"] in LEVELS[:-1] and len(settings) == 3 and isinstance(settings["allow"], list)
    for entry in settings["allow"] if fine else ():
        kinds = {key: type(value) for key, value in entry.items()} if isinstance(entry, dict) else {}
        fine = fine and kinds == {"id": str, "reason": str, "until": datetime.date}
    if not fine:
        levels = ", ".join(LEVELS[:-1])
        entry = '{id = "CVE-2026-1", reason = "why", until = 2026-12-31}'
        raise UserError(f"[tool.stack.audit] takes level = one of {levels}; allow = [{entry}]; database = URL")
    return settings


def packages(sbom: Mapping[str, Any]) -> set[Package]:
    """The packages of Python and Debian in a bill of materials (CycloneDX); Debian's under their sources' names."""
    found = set()
    for component in sbom.get("components", ()):
        purl = urlsplit(component.get("purl", ""))
        if purl.path.startswith("pypi/"):
            found.add(("PyPI", component["name"], component["version"]))
        elif purl.path.startswith("deb/debian/") and (release := parse_qs(purl.query).get("distro")):
            upstream = parse_qs(purl.query).get("upstream", [component["name"]])[0]
            source, _, version = upstream.partition("@")
            found.add((release[0].replace("debian-", "Debian:"), source, version or component["version"]))
    return found


def vulnerabilities(database: str, wanted: Iterable[Package]) -> dict[Package, list[dict[str, Any]]]:
    """What the database knows of each package; raises UserError when it does not answer."""
    questions = [(package, "") for package in sorted(wanted)]
    ids: dict[Package, list[str]] = {package: [] for package in wanted}
    while questions:
        batch, questions = questions[:BATCH], questions[BATCH:]
        asked = [
            {"package": {"ecosystem": ecosystem, "name": name}, "version": version}
            | ({"page_token": page} if page else {})
            for (ecosystem, name, version), page in batch
        ]
        answers = ask(database, "/v1/querybatch", json.dumps({"queries": asked}).encode())["results"]
        for (package, _), answer in zip(batch, answers, strict=True):
            ids[package] += [found["id"] for found in answer.get("vulns", ())]
            if page := answer.get("next_page_token"):
                questions.append((package, page))
    every = set().union(*ids.values())
    known = run_parallel({found: partial(ask, database, f"/v1/vulns/{found}") for found in every})
    return {package: [known[found] for found in names] for package, names in ids.items() if names}


def ask(database: str, path: str, body: bytes | None = None) -> dict[str, Any]:
    """The database's answer; raises UserError when there is none."""
    try:
        tls = ssl.create_default_context(cafile=env().get("STACK_CA") or ca_bundle() or None)
        request = urllib.request.Request(database + path, body, {"Content-Type": "application/json"})  # noqa: S310 (a URL of the user's)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=tls) as answer:  # noqa: S310
            return dict(json.load(answer))
    except (OSError, ValueError, HTTPException) as error:
        hint = "check the network and STACK_CA, or name a copy, `database = URL`, under [tool.stack.audit] in pyproject.toml"
        raise UserError(f"{database} does not answer ({error}): {hint}") from None


def level(vulnerability: Mapping[str, Any], package: Package) -> str:
    """How severe it is: what its source says, in its own field or Debian's; "unknown" where it says nothing."""
    words = [vulnerability.get("database_specific", {}).get("severity", "")]
    words += [one.get("ecosystem_specific", {}).get("urgency", "") for one in affected(vulnerability, package)]
    same = {"moderate": "medium", "unimportant": "low"}
    found = [same.get(str(word).lower(), str(word).lower()) for word in words]
    return next((word for word in found if word in LEVELS), "unknown")


def affected(vulnerability: Mapping[str, Any], package: Package) -> list[dict[str, Any]]:
    """What a vulnerability says of a package."""
    named = {"ecosystem": package[0], "name": package[1]}.items()
    # Where only commits are affected, there is no package.
    return [one for one in vulnerability.get("affected", ()) if one.get("package", {}).items() >= named]


def names_of(vulnerability: Mapping[str, Any]) -> list[str]:
    """What a vulnerability is called, by its own source and by others."""
    return [vulnerability["id"], *vulnerability.get("aliases", ()), *vulnerability.get("upstream", ())]


def fixed_in(sources: Iterable[Mapping[str, Any]], package: Package) -> str:
    """The versions that fix a vulnerability, by any of its sources; "" where there is none yet."""
    ranges = [one for source in sources for found in affected(source, package) for one in found.get("ranges", ())]
    events = [event for one in ranges if one.get("type") != "GIT" for event in one.get("events", ())]
    return ", ".join(dict.fromkeys(event["fixed"] for event in events if "fixed" in event))


def report(
    images: Mapping[str, set[Package]],
    found: Mapping[Package, Sequence[Mapping[str, Any]]],
    settings: Mapping[str, Any],
) -> None:
    """Print the vulnerabilities of each package, one line for all names of one.

    Raises UserError for those that have a fix, are at the level in ``settings`` or worse, and are not allowed.
    """
    rows = [["package", "in", "vulnerability", "level", "fixed in", ""]]
    allowed = {entry["id"]: entry for entry in settings["allow"]}
    failing = []
    for package, vulnerabilities in sorted(found.items()):
        title, services = f"{package[1]} {package[2]}", ", ".join(name for name in images if package in images[name])
        left = sorted(vulnerabilities, key=lambda one: LEVELS.index(level(one, package)))
        while left:
            names = names_of(left[0])
            same = [one for one in left if not set(names).isdisjoint(names_of(one))]
            left = [one for one in left if one not in same]
            name = next((name for name in names if name.startswith("CVE-")), names[0])
            entries = [allowed[name] for name in names if name in allowed]
            valid = [entry for entry in entries if entry["until"] >= datetime.datetime.now(datetime.UTC).date()]
            note = valid[0]["reason"] if valid else f"was allowed until {entries[0]['until']}" if entries else ""
            how_bad, fix = level(same[0], package), fixed_in(same, package)
            if fix and not valid and LEVELS.index(how_bad) >= LEVELS.index(settings["level"]):
                failing.append(f"{name} in {title}")
            rows.append([title, services, name, how_bad, fix or "-", note])
    if len(rows) > 1:
        say(table(rows))
    if unused := sorted(allowed.keys() - {name for each in found.values() for one in each for name in names_of(one)}):
        say(f"warning: not found any more, take it out of [tool.stack.audit]: {', '.join(unused)}")
    if failing:
        raise UserError(f"known vulnerabilities: {'; '.join(failing)}: update them (nox -s lock), or allow them")
    number = len(set().union(*images.values()))
    say(f"{number} packages, none with a vulnerability of level {settings['level']} or worse that has a fix")
