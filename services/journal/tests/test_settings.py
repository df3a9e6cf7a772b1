from __future__ import annotations

from pathlib import Path

import pytest
from journal import create_app
from journal.settings import Settings
from psycopg.conninfo import conninfo_to_dict


def test_defaults() -> None:
    settings = Settings.from_environment({"ECHO_URL": "", "JOURNAL_DATABASE_URL": ""})
    assert settings.echo_url == "http://echo:8000"
    assert conninfo_to_dict(settings.database) == {"host": "journal-database", "user": "journal", "dbname": "journal"}


def test_addresses_and_the_password_are_read(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("it's a 'secret'\n")
    environment = {
        "ECHO_URL": "http://other:80/base",
        "JOURNAL_DATABASE_URL": "postgresql://me@there:5433/mine",
        "JOURNAL_DATABASE_PASSWORD_FILE": str(secret),
    }
    settings = Settings.from_environment(environment)
    assert settings.echo_url == "http://other:80/base"
    expected = {"host": "there", "port": "5433", "user": "me", "dbname": "mine", "password": "it's a 'secret'"}
    assert conninfo_to_dict(settings.database) == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ECHO_URL", "echo:8000"),
        ("ECHO_URL", "ftp://echo"),
        ("JOURNAL_DATABASE_URL", "nonsense"),
        ("JOURNAL_DATABASE_PASSWORD_FILE", "/no/such/file"),
    ],
)
def test_nonsense_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(ValueError, match=variable):
        Settings.from_environment({variable: value})


def test_the_application_starts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither importing nor making it reaches for the database or for echo."""
    monkeypatch.setenv("JOURNAL_DATABASE_URL", "postgresql://nobody@nowhere.invalid/none")
    assert create_app().test_client().get("/healthz").status_code == 200
