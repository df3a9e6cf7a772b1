"""Publishing to registries that want a login, go away, are full, take only some things, or are none."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ..release import push
from ..release.registry import Repository
from ..shell import UserError
from .publishing import COMMIT, publisher, tags
from .registry import Answer, LocalRegistry, Pretended, log_in


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    with LocalRegistry(tmp_path) as started:
        yield started


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, registry: LocalRegistry) -> Callable[..., dict[str, Any]]:
    return publisher(monkeypatch, tmp_path, registry)


def test_a_registry_that_goes_away_in_the_middle_has_no_tag(
    publish: Callable[..., dict[str, Any]], registry: LocalRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach, attached = Repository.attach, []

    def attach_and_stop(self: Repository, *arguments: Any) -> None:
        attach(self, *arguments)
        attached.append(self.name)
        if attached[-1] == "team/two":
            registry.stop()

    monkeypatch.setattr(Repository, "attach", attach_and_stop)
    with pytest.raises(UserError, match=f"the registry {registry.host} cannot be reached"):
        publish()
    registry.start()
    assert tags(registry, "one", "1.2.3", COMMIT[:12]) == []
    monkeypatch.undo()


def test_a_registry_that_goes_away_between_tags_is_completed_by_the_next_publish(
    publish: Callable[..., dict[str, Any]],
    registry: LocalRegistry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    push_manifest = Repository.push_manifest

    def push_and_stop(self: Repository, manifest: bytes, tag: str = "") -> bool:
        answer = push_manifest(self, manifest, tag)
        if (self.name, tag) == ("team/one", "1.2.3"):
            registry.stop()
        return answer

    monkeypatch.setattr(Repository, "push_manifest", push_and_stop)
    with pytest.raises(UserError, match="cannot be reached"):
        publish()
    told = [line.rpartition("/")[2] for line in "".join(capsys.readouterr()).splitlines() if line.startswith("tagged ")]
    assert told == [f"one:{COMMIT[:12]}", f"two:{COMMIT[:12]}", "one:1.2.3"]
    monkeypatch.setattr(Repository, "push_manifest", push_manifest)
    registry.start()
    publish()
    push.verify()


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_login_is_needed_where_the_registry_wants_one(
    publish: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, auth: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with LocalRegistry(tmp_path, auth=auth) as registry:
        address = f"{registry.host}/team"
        with pytest.raises(UserError, match=r"not let you use team/one: run `docker login 127\.0\.0\.1:"):
            publish(registry=address)
        log_in(tmp_path, registry.host)
        publish(registry=address)
        push.verify()


@pytest.mark.parametrize("status", [404, 200, 301, 307])
def test_nothing_is_built_for_a_registry_that_takes_no_images(
    publish: Callable[..., dict[str, Any]], tmp_path: Path, status: int
) -> None:
    class Website(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(200 if self.path == "/page" else 404)

        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status > 300:
                self.send_header("Location", "/page")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Website) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        with pytest.raises(
            UserError,
            match=rf"the registry {host} answers {status} to POST .*: is it a registry of images, without TLS\?",
        ):
            publish(registry=f"{host}/team")
        server.shutdown()
    assert not (tmp_path / "first").exists()


def test_a_registry_with_tls_and_a_login(
    publish: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    local = lambda host, *rest, **options: resolve("127.0.0.1" if host == "registry.test" else host, *rest, **options)  # noqa: E731
    monkeypatch.setattr(socket, "getaddrinfo", local)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with LocalRegistry(tmp_path, auth="basic", tls=True) as registry:
        host = registry.host.replace("127.0.0.1", "registry.test")
        log_in(tmp_path, host)
        with pytest.raises(
            UserError, match=f"the registry {host} cannot be reached .*verify failed.*: check its name, .*STACK_CA"
        ):
            publish(registry=f"{host}/team")
        monkeypatch.setenv("STACK_CA", str(registry.certificate))
        publish(registry=f"{host}/team")
        push.verify()


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk must be mounted")
def test_a_registry_whose_disk_is_full(publish: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        with LocalRegistry(tmp_path, storage=disk) as registry:
            with pytest.raises(
                UserError, match=rf"the registry {registry.host} answers 500 .*is its disk full"
            ) as error:
                publish(secrets.token_hex(200_000), registry=f"{registry.host}/team")
            assert "\n" not in str(error.value)
            assert tags(registry, "one", "1.2.3", COMMIT[:12]) == []
            assert not push.RELEASE.exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_registry_that_takes_nothing_but_images_gets_no_tag(publish: Callable[..., dict[str, Any]]) -> None:
    with Pretended() as registry:
        place = {"Location": "/v2/upload"}
        refused = Answer(400, {"errors": [{"message": "manifest invalid"}]})
        registry.answers |= {"POST": [Answer(202, headers=place)], "PUT /v2/upload": [Answer(201)]}
        registry.answers["PUT /v2/team/one/manifests/"] = [Answer(201), refused]
        told = (
            rf"the registry {registry.host} answers 400 \(manifest invalid\) to PUT /v2/team/one/manifests/sha256:.*See"
        )
        with pytest.raises(UserError, match=told):
            publish(registry=f"{registry.host}/team")
        assert not [
            asked for asked, *_ in registry.requests if re.match(r"PUT /v2/team/\w+/manifests/(?!sha256:)", asked)
        ]
