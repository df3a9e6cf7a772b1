"""What the environment may set; nothing else in the service reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Settings:
    """The service's settings.

    ``max_body_bytes`` (``ECHO_MAX_BODY_BYTES``): the longest request body that is echoed, in bytes; longer ones get 413.
    """

    max_body_bytes: int = 1024 * 1024

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings; an unset or empty variable means the default.

        Raises ValueError, naming the variable, when a value makes no sense.
        """
        value = environment.get("ECHO_MAX_BODY_BYTES") or str(cls.max_body_bytes)
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"ECHO_MAX_BODY_BYTES must be a whole number of bytes, not {value!r}")
        return cls(max_body_bytes=int(value))
