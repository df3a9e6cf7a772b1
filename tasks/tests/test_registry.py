"""The client of registries: addresses, credentials, tokens."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from ..release.registry import Repository, credentials
from ..shell import UserError
from .conftest import write_tool
from .registry import LocalRegistry, log_in


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
    assert base64.b64decode(credentials("here:1").split()[1]) == b"here:1:s"


@pytest.mark.parametrize(
    ("config", "message"),
    [('{"credsStore": "away"}', "docker-credential-away is not installed"), ("{", r"config\.json does not parse: ")],
)
def test_a_configuration_of_docker_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, message: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        credentials("here:1")


@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1:1", "refused"), ("registry.invalid", r"\[Errno -\d\]")])
def test_no_such_registry(host: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"the registry {host} cannot be reached \(.*{reason}"):
        Repository(f"{host}/team", "one").digest("1")


@pytest.mark.parametrize(
    "address",
    ["registry.example", "https://registry.example/owner", "registry.example/Owner", "registry.example/owner/"],
)
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(UserError, match="--registry must be like"):
        Repository(address, "one")
