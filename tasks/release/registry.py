"""The few requests of the OCI distribution specification that a release needs.

Docker's client cannot push by digest from the engine's own image store, nor attach anything to an image.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import Request, urlopen

from ..env import ca_bundle, env
from ..shell import UserError
from .image import MANIFEST, compact, descriptor, digest_of

if TYPE_CHECKING:
    from email.message import Message

INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"  # the configuration of what is no image
TIMEOUT_S = 60


class Answer(NamedTuple):
    """What a registry answers."""

    status: int
    url: str
    headers: Message
    body: bytes


def parse(registry: str, service: str) -> tuple[str, str]:
    """A registry's host, and the name that a service's images have there; raises UserError for an address that is none."""
    if not re.fullmatch(r"[\w.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+", registry):
        raise UserError(f"--registry must be like registry.example/owner or 127.0.0.1:5000/project, not {registry!r}")
    host, _, namespace = registry.partition("/")
    return host, f"{namespace}/{service}"


class Repository:
    """A service's repository, HOST[:PORT]/NAMESPACE/SERVICE; on this machine itself it is spoken to without TLS."""

    def __init__(self, registry: str, service: str) -> None:
        self.host, self.name = parse(registry, service)
        local = re.match(r"(localhost|127[.0-9]+)(:|$)", self.host)
        self.base = f"http{'' if local else 's'}://{self.host}/v2/"
        self.tls = None if local else ssl.create_default_context(cafile=env().get("STACK_CA") or ca_bundle() or None)
        self.login = ""

    def get(self, path: str) -> bytes:
        """A manifest, an index or a list of referrers; empty where there is none."""
        answer = self.ask("GET", path, f"{MANIFEST}, {INDEX}", allowed=404)
        return answer.body if answer.status != 404 else b""

    def digest(self, reference: str) -> str:
        """The digest that a tag stands for, or of a digest that is there; "" where there is none."""
        found = self.get(f"manifests/{reference}")
        return digest_of(found) if found else ""

    def push_blob(self, blob: bytes) -> None:
        """Upload a blob, unless it is there."""
        digest = digest_of(blob)
        if self.ask("HEAD", f"blobs/{digest}", allowed=404).status == 404:
            begun = self.ask("POST", "blobs/uploads/", data=b"")
            place = urljoin(begun.url, begun.headers["Location"])
            self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", "application/octet-stream", blob)

    def push_manifest(self, manifest: bytes, tag: str = "") -> bool:
        """Put a manifest under its digest or a tag; return whether the registry keeps lists of referrers."""
        kind = json.loads(manifest)["mediaType"]
        answer = self.ask("PUT", f"manifests/{tag or digest_of(manifest)}", kind, manifest)
        return bool(answer.headers["OCI-Subject"])

    def referrers(self, digest: str) -> list[dict[str, Any]]:
        """What is attached to an image: the registry's list, or the tag that takes its place where it keeps none."""
        found = self.get(f"referrers/{digest}") or self.get(f"manifests/{digest.replace(':', '-')}")
        return list(json.loads(found)["manifests"]) if found else []

    def attach(self, image: bytes, kind: str, document: bytes) -> None:
        """Attach a document of a media type to the image with this manifest, unless it has one of that type."""
        present = self.referrers(digest_of(image))
        if any(found.get("artifactType") == kind for found in present):
            return
        content: dict[str, Any] = {"config": descriptor("application/vnd.oci.empty.v1+json", EMPTY)}
        content |= {"layers": [descriptor(kind, document)], "subject": descriptor(MANIFEST, image)}
        manifest = compact({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind, **content})
        self.push_blob(EMPTY)
        self.push_blob(document)
        if not self.push_manifest(manifest):
            attached = [*present, descriptor(MANIFEST, manifest) | {"artifactType": kind}]
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": attached}
            self.push_manifest(compact(index), tag=digest_of(image).replace(":", "-"))

    def ask(self, method: str, path: str, kind: str = "", data: bytes | None = None, allowed: int = 0) -> Answer:
        """Send a request to a path or URL, ``kind`` being the media type of ``data``, or of the answer that is wanted.

        Raises UserError for a status over 400 that is not ``allowed``.
        """
        url = urljoin(f"{self.base}{self.name}/", path)
        headers = {"Accept" if data is None else "Content-Type": kind} if kind else {}
        request = Request(url, data, headers, method=method)  # noqa: S310 (http or https)
        if self.login:
            request.add_unredirected_header("Authorization", self.login)  # not for the storage that a blob may be in
        answer = self.send(request, allowed, 401)
        if answer.status == 401:  # without a login yet, or with a token that has expired
            self.login = self.log_in(answer.headers["WWW-Authenticate"] or "")
            request.add_unredirected_header("Authorization", self.login)
            answer = self.send(request, allowed)
        return answer

    def send(self, request: Request, *allowed: int) -> Answer:
        """Send a request as it is; raises UserError where nobody answers, too."""
        try:
            try:
                answer = urlopen(request, timeout=TIMEOUT_S, context=self.tls)  # noqa: S310
            except HTTPError as error:
                answer = error
            with answer:
                found = Answer(answer.status, answer.url, answer.headers, answer.read())
        except (OSError, HTTPException) as error:
            reason = f"cannot be reached ({getattr(error, 'reason', '') or error}): check its name and the network"
        else:
            if found.status < 400 or found.status in allowed:
                return found
            if found.status in {401, 403}:
                reason = f"does not let you use {self.name}: run `docker login {self.host}` as a user who may"
            else:
                told = re.search(rb'"message": ?"([^"]+)', found.body)
                words = f" ({told[1].decode()})" if told else ""
                hint = ": its log says why; is its disk full?" if found.status >= 500 else ""
                path = request.selector.partition("?")[0]
                reason = f"answers {found.status}{words} to {request.method} {path}{hint}"
        raise UserError(f"the registry {self.host} {reason}")

    def log_in(self, challenge: str) -> str:
        """The header that a registry asks for: the stored login, or a token for it, which may expire within a minute."""
        stored = credentials(self.host)
        if not challenge.lower().startswith("bearer"):
            return stored
        facts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = {"service": facts.get("service", ""), "scope": f"repository:{self.name}:pull,push"}
        headers = {"Authorization": stored} if stored else {}
        answer = json.loads(self.send(Request(f"{facts['realm']}?{urlencode(query)}", headers=headers)).body)  # noqa: S310
        return f"Bearer {answer.get('token') or answer['access_token']}"


def credentials(host: str) -> str:
    """The login that `docker login` has stored for a registry, as a header; "" for none."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    login = config.get("auths", {}).get(host, {}).get("auth", "")
    if helper := config.get("credHelpers", {}).get(host) or config.get("credsStore", ""):
        command = (f"docker-credential-{helper}", "get")
        told = subprocess.run(command, input=host, capture_output=True, text=True, check=False)
        if told.returncode == 0:
            found = json.loads(told.stdout)
            login = base64.b64encode(f"{found['Username']}:{found['Secret']}".encode()).decode()
    return f"Basic {login}" if login else ""
