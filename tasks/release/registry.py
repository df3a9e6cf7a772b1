"""The few requests of the OCI distribution specification that a release needs, by the standard library: nox has no more.

Docker's client cannot push by digest from the engine's own image store, nor attach anything to an image.
"""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any
from urllib.parse import urlencode, urljoin
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, UnknownHandler

from ..env import ca_bundle, env
from ..shell import UserError, start
from .image import INDEX, MANIFEST, descriptor, digest_of, manifest_of

DOCKER = "application/vnd.docker.distribution.manifest"
# Without Docker's own media types, a registry may answer that a tag of such an image is free.
ACCEPTED = f"{MANIFEST}, {INDEX}, {DOCKER}.v2+json, {DOCKER}.list.v2+json"
NO_CONFIG = descriptor("application/vnd.oci.empty.v1+json", b"{}")  # of what is no image
ADDRESS = r"([A-Za-z0-9._-]+|\[[A-Fa-f0-9:]+\])(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
IDENTITY = "<token>"  # credential helpers answer with this user where the password is an identity token
TIMEOUT_S = 60
# What may be answered; a blob to which a registry redirects is there.
EXPECTED = {"GET": {200, 404}, "HEAD": {200, 301, 302, 303, 307, 308, 404}, "POST": {202}, "PUT": {201, 202}}
PAUSES_S = (1, 5, 15)  # before a busy registry is asked again; it may ask for up to TIMEOUT_S


class Repository:
    """A service's repository, HOST[:PORT]/NAMESPACE/SERVICE; on this machine itself it is spoken to without TLS.

    Raises UserError for an address that is none.
    """

    def __init__(self, registry: str, service: str) -> None:
        if not re.fullmatch(ADDRESS, registry):
            raise UserError(f"--registry must be like registry.example:5000/owner, in lower case, not {registry!r}")
        self.host, _, namespace = registry.partition("/")
        self.name = f"{namespace}/{service}"
        self.plain = bool(re.match(r"(localhost|127[.0-9]+|\[::1\])(:|$)", self.host))
        self.root = f"http{'' if self.plain else 's'}://{self.host}/"
        authorities = env().get("STACK_CA") or ca_bundle() or None
        try:
            tls = ssl.create_default_context(cafile=authorities)
        except OSError as error:
            raise UserError(f"STACK_CA in .env is {authorities}, which cannot be read: {error}") from None
        # Without urllib's other handlers: what they follow, redirects and files, is not for whoever has the login.
        self.opener = OpenerDirector()
        proxies = ProxyHandler({} if self.plain else None)  # None: those of the environment
        for handler in (proxies, HTTPHandler(), HTTPSHandler(context=tls), UnknownHandler()):
            self.opener.add_handler(handler)
        self.login = ""

    def get(self, path: str) -> bytes:
        """A manifest, an index or a list of referrers; empty where there is none."""
        status, _, body = self.ask("GET", path, ACCEPTED)
        return body if status == 200 else b""

    def digest(self, reference: str) -> str:
        """The digest that a tag stands for, or of a digest that is there; "" where there is none."""
        return digest_of(found) if (found := self.get(f"manifests/{reference}")) else ""

    def begin_upload(self) -> str:
        """The URL that takes a blob; raises UserError where this user may not push."""
        _, headers, _ = self.ask("POST", "blobs/uploads/", data=b"")
        return urljoin(self.root, str(headers["Location"]))

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
        # GitLab's registry takes this tag for the digest of the image, which has no such list.
        return json.loads(found).get("manifests") or [] if found else []

    def attach(self, image: bytes, kind: str, document: bytes) -> None:
        """Attach a document of a media type to the image with this manifest, unless it has one of that type."""
        present = self.referrers(digest_of(image))
        if any(found.get("artifactType") == kind for found in present):
            return
        layers, subject = [descriptor(kind, document)], descriptor(MANIFEST, image)
        manifest = manifest_of(MANIFEST, artifactType=kind, config=NO_CONFIG, layers=layers, subject=subject)
        self.push_blob(b"{}")
        self.push_blob(document)
        if not self.push_manifest(manifest):
            attached = [*present, descriptor(MANIFEST, manifest) | {"artifactType": kind}]
            self.push_manifest(manifest_of(INDEX, manifests=attached), tag=digest_of(image).replace(":", "-"))

    def ask(self, method: str, path: str, kind: str = "", data: bytes | None = None) -> tuple[int, HTTPMessage, bytes]:
        """Send a request to a path or URL, ``kind`` being the media type of ``data``, or of the answer that is wanted.

        Raises UserError for an answer that is not EXPECTED.
        """
        url = urljoin(f"{self.root}v2/{self.name}/", path)
        headers = {"Accept" if data is None else "Content-Type": kind} if kind else {}
        request = Request(url, data, headers, method=method)  # noqa: S310 (http or https)
        ours = url.startswith(self.root)  # a blob may be wanted at another host, which must not get the login
        status, found, body = self.send(request, self.login if ours else "")
        if status == 401 and ours:  # without a login yet, or with a token that has expired
            self.login = self.log_in(found["WWW-Authenticate"] or "")
            status, found, body = self.send(request, self.login)
        # Registries without lists of referrers answer by a redirect (GitHub's), 406 (Artifactory's) or 401 (Harbor's).
        if status not in EXPECTED[method] and not path.startswith("referrers/"):
            raise self.refusal(request, status, body)
        return status, found, body

    def send(self, request: Request, login: str, pauses_s: Sequence[int] = PAUSES_S) -> tuple[int, HTTPMessage, bytes]:
        """Send a request, and again while what answers is busy; raises UserError where nothing answers."""
        if login:
            request.add_header("Authorization", login)
        try:
            with self.opener.open(request, timeout=TIMEOUT_S) as answer:
                status, found, body = answer.status, answer.headers, answer.read()
        except (OSError, HTTPException) as error:
            why = f"cannot be reached ({getattr(error, 'reason', '') or error}): check its name, the network, STACK_CA"
            raise UserError(f"the registry {self.host} {why}") from None
        if status not in {429, 502, 503, 504} or not pauses_s:
            return status, found, body
        # It may also say a date.
        time.sleep(min(int(said), TIMEOUT_S) if (said := found["Retry-After"] or "").isdecimal() else pauses_s[0])
        return self.send(request, login, pauses_s[1:])

    def refusal(self, request: Request, status: int, body: bytes) -> UserError:
        """What to say of an answer that cannot be worked with."""
        told = re.search(rb'"message": ?"([^"]+)', body)
        words = f" ({told[1].decode(errors='replace')})" if told else ""
        if status in {401, 403}:
            who = f"does not let you use {self.name}: run `docker login {self.host}` as a user who may{words}"
            return UserError(f"the registry {self.host} {who}")
        hint = f"is it a registry of images{', without TLS' if self.plain else ''}? See docs/releasing.md"
        if status == 429 or status >= 500:
            hint = "its log says why; is its disk full, or has it too much to do?"
        what = f"{status}{words} to {request.get_method()} {request.selector.partition('?')[0]}"
        return UserError(f"the registry {self.host} answers {what}: {hint}")

    def log_in(self, challenge: str) -> str:
        """The header that a registry asks for: the stored login, or a token for it, which may expire within a minute."""
        user, password = credentials(self.host)
        stored = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""
        if not challenge.lower().startswith("bearer"):
            return stored
        facts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        realm = urljoin(self.root, facts.get("realm", ""))
        wanted = {"service": facts.get("service", ""), "scope": f"repository:{self.name}:pull,push"}
        request = Request(f"{realm}?{urlencode(wanted)}")  # noqa: S310 (http or https)
        if user == IDENTITY:
            oauth = {"grant_type": "refresh_token", "refresh_token": password, "client_id": "nox"}
            request, stored = Request(realm, urlencode(wanted | oauth).encode()), ""  # noqa: S310
        status, _, body = self.send(request, stored)
        with suppress(ValueError, LookupError, AttributeError):  # there is no token in it
            answer = json.loads(body)
            return f"Bearer {answer.get('token') or answer['access_token']}"
        raise self.refusal(request, status, body)


def credentials(host: str) -> tuple[str, str]:
    """The user and the password that `docker login` has stored for a registry; the user is "" for none, or IDENTITY."""
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        stored = (config.get("auths") or {}).get(host) or {}
        user, _, password = base64.b64decode(stored.get("auth", "")).decode().partition(":")
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} does not parse: {error}") from None
    if token := stored.get("identitytoken"):
        user, password = IDENTITY, token
    if helper := (config.get("credHelpers") or {}).get(host) or config.get("credsStore"):
        with start(f"docker-credential-{helper}", "get", stdin=PIPE, stdout=PIPE, stderr=DEVNULL) as process:
            told, _ = process.communicate(host)
        if not process.returncode:
            found = json.loads(told)
            user, password = found["Username"], found["Secret"]
    return user, password
