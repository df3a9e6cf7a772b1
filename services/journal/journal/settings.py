"""What the environment may set; nothing else in the service reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import make_conninfo


@dataclass(frozen=True)
class Settings:
    """The service's settings.

    ``echo_url`` (``ECHO_URL``): where the echo service is.
    ``database`` (``JOURNAL_DATABASE_URL``): where PostgreSQL is, and who we are there. The password comes from the file
    that ``JOURNAL_DATABASE_PASSWORD_FILE`` names, if any, because other programs can read an environment.
    """

    echo_url: str = "http://echo:8000"
    database: str = "postgresql://journal@journal-database/journal"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings; an unset or empty variable means the default.

        Raises ValueError, naming the variable, when a value makes no sense.
        """
        echo_url = environment.get("ECHO_URL") or cls.echo_url
        if urlsplit(echo_url).scheme != "http" or not urlsplit(echo_url).hostname:
            raise ValueError(f"ECHO_URL must be like {cls.echo_url}, not {echo_url!r}")
        secret = environment.get("JOURNAL_DATABASE_PASSWORD_FILE")
        try:
            known = {"password": Path(secret).read_text(encoding="utf-8").strip()} if secret else {}
            database = make_conninfo(environment.get("JOURNAL_DATABASE_URL") or cls.database, **known)
        except OSError as error:
            raise ValueError(f"JOURNAL_DATABASE_PASSWORD_FILE cannot be read: {error}") from None
        except ProgrammingError:
            raise ValueError(f"JOURNAL_DATABASE_URL must be like {cls.database}") from None
        return cls(echo_url=echo_url, database=database)
