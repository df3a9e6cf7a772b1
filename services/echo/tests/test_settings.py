from __future__ import annotations

import pytest
from echo import create_app
from echo.settings import Settings


def test_defaults() -> None:
    assert Settings.from_environment({}).max_body_bytes == 1024 * 1024
    assert Settings.from_environment({"ECHO_MAX_BODY_BYTES": ""}).max_body_bytes == 1024 * 1024


def test_a_setting_reaches_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHO_MAX_BODY_BYTES", "3")
    client = create_app().test_client()
    assert client.post("/", data="abc").status_code == 200
    assert client.post("/", data="abcd").status_code == 413


@pytest.mark.parametrize("value", ["-1", "1MB", "1.5", "²", " 1"])
def test_nonsense_names_the_variable(value: str) -> None:
    with pytest.raises(ValueError, match="ECHO_MAX_BODY_BYTES"):
        Settings.from_environment({"ECHO_MAX_BODY_BYTES": value})
