from __future__ import annotations

from skeleton import create_app


def test_hello() -> None:
    assert create_app().test_client().get("/").text == "Hello from skeleton\n"


def test_healthz() -> None:
    assert create_app().test_client().get("/healthz").status_code == 200
