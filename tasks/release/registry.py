"""The few requests of the OCI distribution specification that a release needs, by the standard library: nox has no more.

Docker's client cannot push by digest from the engine's own image store, nor attach anything to an image.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin
from urllib.request import Request, urlopen

from ..env import ca_bundle, env
from ..shell import UserError, start
from .image import MANIFEST, compact, descriptor, digest_of

INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"  # the configuration of what is no image
TIMEOUT_S = 60


class Repository:
    """A service's repository, HOST[:PORT]/NAMESPACE/SERVICE; on this machine itself it is spoken to without TLS.

    Raises UserError for an address that is none.
    """

    def __init__(self, registry: str, service: str) -> None:
        if not re.fullmatch(r"[\w.-]+(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+", registry):
            raise UserError(f"--registry must be like registry.example:5000/owner, in lower case, not {registry!r}")
        self.host, _, namespace = registry.partition("/")
        self.name = f"{namespace}/{service}"
        local = re.match(r"(localhost|127[.0-9]+)(:|$)", self.host)
        self.base = f"http{'' if local else 's'}://{self.host}/v2/{self.name}/"
        authorities = env().get("STACK_CA") or ca_bundle() or None
        try:
            self.tls = None if local else ssl.create_default_context(cafile=authorities)
        except OSError as error:
            raise UserError(f"STACK_CA in .env is {authorities}, which cannot be read: {error}") from None
        self.login = ""

    def get(self, path: str) -> bytes:
        """A manifest, an index or a list of referrers; empty where there is none."""
        status, _, body = self.ask("GET", path, f"{MANIFEST}, {INDEX}")
        return b"" if status == 404 else body

    def digest(self, reference: str) -> str:
        """The digest that a tag stands for, or of a digest that is there; "" where there is none."""
        found = self.get(f"manifests/{reference}")
        return digest_of(found) if found else ""

    def begin_upload(self) -> str:
        """The URL that takes a blob; raises UserError where this user may not push."""
        _, headers, _ = self.ask("POST", "blobs/uploads/", data=b"")
        return urljoin(self.base, str(headers["Location"]))

    def push_blob(self, blob: bytes) -> None:
        """Upload a blob, unless it is there."""
        digest = digest_of(blob)
        if self.ask("HEAD", f"blobs/{digest}")[0] == 404:
            place = self.begin_upload()
            self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", "application/octet-stream", blob)

    def push_manifest(self, manifest: bytes, tag: str = "") -> bool:
        """Put a manifest under its digest or a tag; return whether the registry keeps lists of referrers."""
        kind = json.loads(manifest)["mediaType"]
        _, headers, _ = self.ask("PUT", f"manifests/{tag or digest_of(manifest)}", kind, manifest)
        return bool(headers["OCI-Subject"])

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

    def ask(self, method: str, path: str, kind: str = "", data: bytes | None = None) -> tuple[int, Message, bytes]:
        """Send a request to a path or URL, ``kind`` being the media type of ``data``, or of the answer that is wanted.

        What is asked for without data may be missing (404); otherwise, raises UserError for a status from 400 on.
        """
        headers = {"Accept" if data is None else "Content-Type": kind} if kind else {}
        request = Request(urljoin(self.base, path), data, headers, method=method)  # noqa: S310 (http or https)
        status, found, body = self.send(request, self.login)
        if status == 401:  # without a login yet, or with a token that has expired
            self.login = self.log_in(found["WWW-Authenticate"] or "")
            status, found, body = self.send(request, self.login)
        if status != 404 or data is not None:
            self.check(request, status, body)
        return status, found, body

    def send(self, request: Request, login: str) -> tuple[int, Message, bytes]:
        """Send a request as it is, and return status, headers and body; raises UserError where nobody answers."""
        if login:
            request.add_unredirected_header("Authorization", login)  # not for the storage that a blob may be in
        try:
            try:
                answer = urlopen(request, timeout=TIMEOUT_S, context=self.tls)  # noqa: S310
            except HTTPError as error:
                answer = error
            with answer:
                return answer.status, answer.headers, answer.read()
        except (OSError, HTTPException) as error:
            why = f"cannot be reached ({getattr(error, 'reason', '') or error}): check its name, the network, STACK_CA"
            raise UserError(f"the registry {self.host} {why}") from None

    def check(self, request: Request, status: int, body: bytes) -> None:
        """Raise UserError for a status from 400 on, and where what was sent was not taken, but answered by a page."""
        if status in {401, 403}:
            who = f"does not let you use {self.name}: run `docker login {self.host}` as a user who may"
            raise UserError(f"the registry {self.host} {who}")
        if status >= 400 or (request.data is not None and status not in {201, 202}):
            told = re.search(rb'"message": ?"([^"]+)', body)
            words = f" ({told[1].decode()})" if told else ""
            plain = "" if self.tls else ", without TLS"  # as one on this machine must be
            hint = f"is it a registry of images{plain}? See docs/releasing.md"
            hint = "its log says why; is its disk full?" if status >= 500 else hint
            what = f"{status}{words} to {request.method} {request.selector.partition('?')[0]}"
            raise UserError(f"the registry {self.host} answers {what}: {hint}")

    def log_in(self, challenge: str) -> str:
        """The header that a registry asks for: the stored login, or a token for it, which may expire within a minute."""
        stored = credentials(self.host)
        if not challenge.lower().startswith("bearer"):
            return stored
        facts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = {"service": facts.get("service", ""), "scope": f"repository:{self.name}:pull,push"}
        request = Request(f"{facts['realm']}?{urlencode(query)}")  # noqa: S310
        status, _, body = self.send(request, stored)
        self.check(request, status, body)
        answer = json.loads(body)
        return f"Bearer {answer.get('token') or answer['access_token']}"


def credentials(host: str) -> str:
    """The login that `docker login` has stored for a registry, as a header; "" for none."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} does not parse: {error}") from None
    login = config.get("auths", {}).get(host, {}).get("auth", "")
    if helper := config.get("credHelpers", {}).get(host) or config.get("credsStore", ""):
        with start(f"docker-credential-{helper}", "get", stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
            told, _ = process.communicate(host)
        if not process.returncode:
            found = json.loads(told)
            login = base64.b64encode(f"{found['Username']}:{found['Secret']}".encode()).decode()
    return f"Basic {login}" if login else ""
