from __future__ import annotations

import pytest
from echo import create_app
from echo.settings import Settings
from flask import Flask
from flask.testing import FlaskClient

LIMIT = 1000


@pytest.fixture(scope="session")
def app() -> Flask:
    app = create_app(Settings(max_body_bytes=LIMIT))
    app.testing = True
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
