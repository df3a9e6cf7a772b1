"""The client of registries: addresses, credentials, tokens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

import pytest

from ..release.image import MANIFEST, compact, descriptor, digest_of
from ..release.registry import Repository, credentials
from ..shell import UserError
from .conftest import write_tool
from .registry import LOGIN, Answer, LocalRegistry, Pretended, log_in


def test_a_token_that_expires_during_a_build_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with LocalRegistry(tmp_path, auth="token") as registry:
        assert registry.tokens
        registry.tokens.lifetime_s = -58  # the registry allows 60 s more
        log_in(tmp_path, registry.host)
        repository = Repository(f"{registry.host}/team", "one")
        assert repository.digest("1") == ""
        first = repository.login
        time.sleep(3)
        repository.push_blob(b"content")
        assert repository.login != first


def test_a_credential_helper_is_asked(no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    write_tool(no_docker / "docker-credential-test", 'echo "{\\"Username\\": \\"$(cat)\\", \\"Secret\\": \\"s\\"}"')
    (tmp_path / "config.json").write_text('{"credsStore": "test"}')
    assert credentials("here:1") == ("here:1", "s")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"credsStore": "away"}', "docker-credential-away is not installed"),
        ("{", r"config\.json does not parse: "),
        ("[]", r"config\.json does not parse: "),
    ],
)
def test_a_configuration_of_docker_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, message: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        credentials("here:1")


@pytest.fixture
def pretended() -> Iterator[Pretended]:
    with Pretended() as server:
        yield server


@pytest.fixture
def logged_in(pretended: Pretended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository of a registry that asks for a login, which is stored."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    log_in(tmp_path, pretended.host)
    pretended.answers["GET /v2/team/one/manifests/first"] = [challenge("Basic"), Answer(404)]
    repository = Repository(f"{pretended.host}/team", "one")
    assert repository.digest("first") == ""
    assert repository.login == f"Basic {LOGIN}"
    return repository


def challenge(words: str) -> Answer:
    return Answer(401, headers={"WWW-Authenticate": words})


def redirect(server: Pretended, status: int = 307) -> Answer:
    return Answer(status, headers={"Location": f"http://{server.host}/blobs?x=1"})


def test_a_busy_registry_is_asked_again(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    times = ("7", "Mon, 30 Nov 2026 00:00:00 GMT", "100000")
    busy = [Answer(status, headers={"Retry-After": it}) for status, it in zip((429, 503, 429), times, strict=True)]
    pretended.answers["GET"] = [*busy, Answer(200, "manifest")]
    repository = Repository(f"{pretended.host}/team", "one")
    assert repository.digest("1") == digest_of(b"manifest")
    assert waited == [7, 5, 60]
    pretended.answers["GET"] = [Answer(429, {"errors": [{"message": "slow down"}]})]
    told = r"answers 429 \(slow down\) to GET /v2/team/one/manifests/1: its log says why; .*too much to do"
    with pytest.raises(UserError, match=told):
        repository.digest("1")
    assert waited[3:] == [1, 5, 15]


def test_another_host_does_not_get_the_login(pretended: Pretended, logged_in: Repository) -> None:
    with Pretended() as other:
        pretended.answers |= {"HEAD": [Answer(404)], "POST": [redirect(other, 202)], "GET": [redirect(other)]}
        other.answers |= {"PUT": [Answer(201), challenge("Basic")]}
        logged_in.push_blob(b"content")
        with pytest.raises(UserError, match="does not let you use team/one"):
            logged_in.push_blob(b"content")
        with pytest.raises(
            UserError, match=rf"{pretended.host} answers 307 to GET /v2/team/one/manifests/1: is it a reg"
        ):
            logged_in.digest("1")
        put = (f"PUT /blobs?x=1&digest={digest_of(b'content')}", "", "content")
        assert other.requests == [put, put]
        assert pretended.logins("POST") == [f"Basic {LOGIN}"] * 2


def test_a_blob_that_is_at_another_host_is_there(pretended: Pretended, logged_in: Repository) -> None:
    """Where its address is signed, it is so for HEAD alone, and urllib would have asked for it by GET."""
    with Pretended() as other:
        pretended.answers["HEAD"] = [redirect(other)]
        logged_in.push_blob(b"content")
        assert pretended.requests[-1][0].startswith("HEAD ")
        assert other.requests == []


@pytest.mark.parametrize("stored", ["file", "helper"])
def test_an_identity_token_is_exchanged(
    pretended: Pretended, no_docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    configs = {
        "file": {"auths": {pretended.host: {"auth": "dXNlcjo=", "identitytoken": "long lived"}}},
        "helper": {"credHelpers": {pretended.host: "test"}},
    }
    (tmp_path / "config.json").write_text(json.dumps(configs[stored]))
    write_tool(no_docker / "docker-credential-test", """echo '{"Username": "<token>", "Secret": "long lived"}'""")
    bearer = challenge(f'Bearer realm="http://{pretended.host}/oauth2/token",service="here"')
    pretended.answers |= {"GET": [bearer, Answer(404)], "POST": [Answer(200, {"access_token": "short lived"})]}
    Repository(f"{pretended.host}/team", "one").digest("1")
    assert pretended.logins("GET") == ["", "Bearer short lived"]
    (sent,) = [(asked, login, dict(parse_qsl(body))) for asked, login, body in pretended.requests if body]
    form = {"grant_type": "refresh_token", "refresh_token": "long lived", "client_id": "nox"}
    assert sent == ("POST /oauth2/token", "", form | {"service": "here", "scope": "repository:team/one:pull,push"})


@pytest.mark.parametrize("body", ["<html>log in</html>", {"token": ""}, [], {}])
def test_a_token_server_that_gives_no_token(pretended: Pretended, body: object) -> None:
    bearer = challenge(f'Bearer realm="http://{pretended.host}/token"')
    pretended.answers |= {"GET /v2/": [bearer], "GET /token": [Answer(200, body)]}
    with pytest.raises(UserError, match=rf"^the registry {pretended.host} answers 200 to GET /token: is it a registry"):
        Repository(f"{pretended.host}/team", "one").digest("1")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Bearer", "answers 404 to GET /: is it a registry"),
        ('Bearer realm="token"', "answers 404 to GET /token: is it a registry"),
        ('Bearer realm="file:///etc/hostname"', r"cannot be reached \(unknown url type: file\)"),
    ],
)
def test_a_registry_that_names_no_token_server(pretended: Pretended, words: str, told: str) -> None:
    pretended.answers |= {"GET /v2/": [challenge(words)]}
    with pytest.raises(UserError, match=rf"^the registry {pretended.host} {told}"):
        Repository(f"{pretended.host}/team", "one").digest("1")


def test_a_refusal_says_why(pretended: Pretended) -> None:
    told = "adding 1 MiB of storage would exceed the quota"
    pretended.answers["POST"] = [Answer(403, {"errors": [{"code": "DENIED", "message": told}]})]
    with pytest.raises(
        UserError, match=rf"not let you use team/one: run `docker login .*` as a user who may \({told}\)"
    ):
        Repository(f"{pretended.host}/team", "one").begin_upload()


def test_a_tag_of_an_image_that_docker_has_pushed_is_not_free(tmp_path: Path) -> None:
    with LocalRegistry(tmp_path) as registry:
        repository = Repository(f"{registry.host}/team", "one")
        for blob in (b"{}", b"layer"):
            repository.push_blob(blob)
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        layer = descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", b"layer")
        config = descriptor("application/vnd.docker.container.image.v1+json", b"{}")
        manifest = compact({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]})
        repository.push_manifest(manifest, "1")
        assert repository.digest("1") == digest_of(manifest)


@pytest.mark.parametrize("status", [303, 400, 401, 405, 406])
@pytest.mark.parametrize("by_tag", [Answer(404), Answer(200, {"mediaType": MANIFEST, "config": {}, "layers": []})])
def test_registries_without_lists_of_referrers(pretended: Pretended, status: int, by_tag: Answer) -> None:
    pretended.answers |= {"GET /v2/team/one/referrers/": [Answer(status)], "GET /v2/team/one/manifests/": [by_tag]}
    assert Repository(f"{pretended.host}/team", "one").referrers("sha256:1") == []


def test_a_registry_without_anything_attached_may_say_null(pretended: Pretended) -> None:
    pretended.answers["GET"] = [Answer(200, {"manifests": None})]
    assert Repository(f"{pretended.host}/team", "one").referrers("sha256:1") == []


def test_no_proxy_stands_before_a_registry_on_this_machine(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pretended() as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        assert Repository(f"{pretended.host}/team", "one").digest("1") == ""
        assert (len(pretended.requests), proxy.requests) == (1, [])


def test_an_address_of_ipv6() -> None:
    with pytest.raises(UserError, match=r"the registry \[::1\]:1 cannot be reached \(\[Errno \d+\]"):
        Repository("[::1]:1/team", "one").digest("1")
    assert Repository("[2001:db8::1]/team", "one").root == "https://[2001:db8::1]/"


@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1:1", "refused"), ("registry.invalid", r"\[Errno -\d\]")])
def test_no_such_registry(host: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"the registry {host} cannot be reached \(.*{reason}"):
        Repository(f"{host}/team", "one").digest("1")


@pytest.mark.parametrize(
    "address",
    [
        *("registry.example", "https://registry.example/owner", "registry.example/Owner", "registry.example/owner/"),
        *("régistry.example/owner", "registry.example:٣/owner", "::1/owner", "[::1/owner"),
    ],
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="--registry must be like"):
        Repository(address, "one")
