"""`nox -s audit` against a database of the tests' own."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .. import audit
from ..shell import UserError
from .conftest import certificate

FLASK, OPENSSL = ("PyPI", "flask", "3.1.3"), ("Debian:13", "openssl", "3.5.9-1")
SBOM: dict[str, Any] = {
    "components": [
        {"name": "flask", "version": "3.1.3", "purl": "pkg:pypi/flask@3.1.3"},
        {
            "name": "libssl3t64",
            "version": "3.5.9-1",
            "purl": "pkg:deb/debian/libssl3t64@3.5.9-1?arch=amd64&distro=debian-13&upstream=openssl",
        },
        {"name": "pilot", "version": "", "type": "file"},
    ]
}


def known(package: audit.Package, fixed: str = "", **more: Any) -> dict[str, Any]:
    events = [{"introduced": "0"}, *([{"fixed": fixed}] if fixed else [])]
    ranges: list[dict[str, Any]] = [
        {"type": "GIT", "events": [{"fixed": "abc"}]},
        {"type": "ECOSYSTEM", "events": events},
    ]
    affected: dict[str, Any] = {"package": {"ecosystem": package[0], "name": package[1]}, "ranges": ranges}
    commits: dict[str, Any] = {"ranges": ranges[:1]}  # the schema does not ask for a package
    return {"affected": [commits, affected | more.pop("affected", {})], **more}


VULNERABILITIES = {
    "GHSA-1": known(FLASK, aliases=["CVE-1"], database_specific={"severity": "MODERATE"}),  # which knows of no fix
    "PYSEC-1": known(FLASK, "3.1.4", aliases=["CVE-1", "GHSA-1"]),
    "DSA-1": known(OPENSSL, "3.5.10-1", upstream=["CVE-2"]),
    "DEBIAN-CVE-3": known(OPENSSL, upstream=["CVE-3"], affected={"ecosystem_specific": {"urgency": "high"}}),
}


class Database(BaseHTTPRequestHandler):
    """Answers as OSV does: at most one vulnerability for each question, and the token of the next page."""

    def do_POST(self) -> None:
        results: list[dict[str, Any]] = []
        for question in json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]:
            names = {"flask": ["GHSA-1", "PYSEC-1"], "openssl": ["DSA-1", "DEBIAN-CVE-3"]}[question["package"]["name"]]
            if token := question.get("page_token"):
                results.append({"vulns": [{"id": token}]})
            else:
                results.append({"vulns": [{"id": names[0]}], "next_page_token": names[1]})
        self.answer({"results": results})

    def do_GET(self) -> None:
        name = self.path.removeprefix("/v1/vulns/")
        self.answer({"id": name, **VULNERABILITIES[name]})

    def answer(self, found: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def look(database: str, **settings: Any) -> None:
    found = audit.check_settings(settings | {"database": database})
    images = {"pilot": audit.packages(SBOM)}
    audit.report(images, audit.vulnerabilities(database, images["pilot"]), found)


def test_packages_are_named_as_the_database_does() -> None:
    assert audit.packages(SBOM) == {FLASK, OPENSSL}


def test_what_has_a_fix_fails_and_all_is_shown(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^known vulnerabilities: CVE-2 in openssl 3.5.9-1: update"):
        look(database)  # of an unknown level
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["openssl", "3.5.9-1", "pilot", "CVE-3", "high", "-"],
        ["openssl", "3.5.9-1", "pilot", "CVE-2", "unknown", "3.5.10-1"],
        ["flask", "3.1.3", "pilot", "CVE-1", "medium", "3.1.4"],
    ]


def test_the_level_decides(database: str) -> None:
    with pytest.raises(UserError, match=r"CVE-2 in openssl 3.5.9-1; CVE-1 in flask 3.1.3: update"):
        look(database, level="medium")


def test_allowed_until_a_date(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"id": "CVE-2", "reason": "not reachable", "until": date(9999, 1, 1)}
    look(database, allow=[entry, entry | {"id": "CVE-9"}])
    out = capsys.readouterr().out
    assert "not reachable" in out
    assert "not found any more, take it out of [tool.stack.audit]: CVE-9" in out
    assert out.endswith("2 packages, none with a vulnerability of level high or worse that has a fix\n")
    with pytest.raises(UserError, match="CVE-2"):
        look(database, allow=[entry | {"until": date(2026, 1, 1)}])
    assert "was allowed until 2026-01-01" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings", [{"level": "bad"}, {"other": 1}, {"allow": [{"id": "CVE-1"}]}, {"allow": [{"id": "CVE-1", "reason": "x", "until": "soon"}]},
                 {"allow": ["CVE-1"]}, {"allow": "CVE-1"}]
)  # fmt: skip
def test_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"\[tool.stack.audit\] takes level = one of low"):
        audit.check_settings(settings)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "osv.example"])
def test_no_database(url: str) -> None:
    with pytest.raises(UserError, match=rf"^{url} does not answer \(.+\): check the network"):
        audit.vulnerabilities(url, {FLASK})


def test_a_database_with_a_certificate_of_an_authority_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, key = certificate(tmp_path, "database")
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda _, *rest, **options: resolve("127.0.0.1", *rest, **options))
    with ThreadingHTTPServer(("127.0.0.1", 0), Database) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        url = f"https://registry.test:{server.server_port}"
        try:
            with pytest.raises(
                UserError, match=r"does not answer .*CERTIFICATE_VERIFY_FAILED.*check the network and STACK_CA"
            ):
                audit.vulnerabilities(url, {FLASK})
            monkeypatch.setenv("STACK_CA", str(own))
            assert len(audit.vulnerabilities(url, {FLASK})[FLASK]) == 2
        finally:
            server.shutdown()
