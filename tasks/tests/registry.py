"""A registry for tests: Debian's docker-registry, as a process on 127.0.0.1 with a folder of the test's own."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

import pytest

from .conftest import certificate

PROGRAM = shutil.which("docker-registry")
# What logs in: as a person types it, as `docker login` stores it, and as the registry has it (bcrypt).
PASSWORD = "the-secret-of-the-tests"  # noqa: S105
LOGIN = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
HTPASSWD = "user:$2b$05$2VVhxKmhndPPgUQHfdElful/YwfXxY6vUO8hPN3RSY8a1WIewR8nG\n"
SERVICE = "registry of tests"


class LocalRegistry:
    """A registry that can be stopped and started again with what it has.

    ``auth`` is "basic" or "token" for one that wants a login; ``tls`` for one with a certificate, of its own authority.
    """

    def __init__(self, folder: Path, *, auth: str = "", tls: bool = False, storage: Path | None = None) -> None:
        if not PROGRAM:
            pytest.skip("there is no docker-registry here: apt-get install docker-registry")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        config: dict[str, Any] = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(storage or folder / "registry")}},
            "http": {"addr": self.host},
        }
        self.tokens = TokenServer(folder) if auth == "token" else None
        if auth == "basic":
            (folder / "htpasswd").write_text(HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        elif self.tokens:
            issued = {"realm": self.tokens.url, "service": SERVICE, "issuer": "tests"}
            config["auth"] = {"token": {**issued, "rootcertbundle": str(self.tokens.certificate)}}
        if tls:
            self.certificate, key = certificate(folder, "registry")
            config["http"]["tls"] = {"certificate": str(self.certificate), "key": str(key)}
        self.config = folder / "registry.yml"
        self.config.write_text(json.dumps(config))
        self.start()

    def start(self) -> None:
        assert PROGRAM
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen([PROGRAM, "serve", str(self.config)], stdout=quiet, stderr=quiet)
        address, port = self.host.split(":")
        for _ in range(100):
            with socket.socket() as probe:
                if not probe.connect_ex((address, int(port))):
                    return
            time.sleep(0.1)
        pytest.fail("the registry did not start")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self.tokens:
            self.tokens.server.shutdown()
            self.tokens.server.server_close()


class Answer(NamedTuple):
    """What a Pretended server answers; a body that is no text is sent as JSON."""

    status: int
    body: Any = ""
    headers: dict[str, str] = {}  # noqa: RUF012 (nothing changes it)


class Pretended:
    """A server that answers as a table says, and keeps what it was sent.

    ``answers`` has them by method and beginning of the path, one after the other, the last one again and again; everything
    else is missing.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, str, str]] = []  # method and path, login, body
        answers, requests = self.answers, self.requests

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                asked = f"{self.command} {self.path}"
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode(errors="replace")
                requests.append((asked, self.headers["Authorization"] or "", body))
                left = next((found for key, found in answers.items() if asked.startswith(key)), [Answer(404)])
                answer = left.pop(0) if len(left) > 1 else left[0]
                content = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_HEAD = do_POST = do_PUT = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def logins(self, asked: str) -> list[str]:
        """The logins of requests whose method and path begin so."""
        return [login for request, login, _ in self.requests if request.startswith(asked)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class TokenServer:
    """Gives tokens for what is asked to whoever logs in, as registries with bearer tokens have it."""

    lifetime_s = 60

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = certificate(folder, "tokens")
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = self.headers.get("Authorization") == f"Basic {LOGIN}"
                asked = parse_qs(urlsplit(self.path).query)
                body = json.dumps({"token": tokens.token(asked["scope"][0])} if allowed else {}).encode()
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/token"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, scope: str) -> str:
        """A JSON Web Token (RFC 7519) for a scope like ``repository:NAME:pull,push``."""
        kind, name, actions = scope.split(":")
        chain = ["".join(self.certificate.read_text().splitlines()[1:-1])]
        now = int(time.time())
        claims = {
            "iss": "tests",
            "sub": "user",
            "aud": SERVICE,
            "nbf": now - 5,
            "iat": now,
            "exp": now + self.lifetime_s,
        }
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        parts = ({"typ": "JWT", "alg": "RS256", "x5c": chain}, {**claims, "jti": "1", "access": access})
        text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        sign = ("openssl", "dgst", "-sha256", "-sign", str(self.key))
        signature = subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{encoded(signature)}"


def encoded(data: bytes) -> str:
    """Base64 as tokens have it."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def log_in(folder: Path, host: str) -> None:
    """Do what `docker login` does."""
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": LOGIN}}}))
