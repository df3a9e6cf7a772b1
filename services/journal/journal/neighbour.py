"""Another service, called over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

from werkzeug.exceptions import ServiceUnavailable

TIMEOUT_S = 3.0  # without a word
# These concern one connection, not the request (RFC 9110, 7.6.1), or are made anew for ours.
OF_THE_CONNECTION = {
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "host",
}


class Answer(NamedTuple):
    """What a neighbour said."""

    status: int
    content_type: str
    body: bytes


def ask(url: str, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Send a request to the service at ``url`` and return its answer; raises ServiceUnavailable when there is none."""
    place = urlsplit(url)
    passed = {name: value for name, value in headers.items() if name.lower() not in OF_THE_CONNECTION}
    try:
        with closing(HTTPConnection(place.netloc, timeout=TIMEOUT_S)) as connection:
            connection.request(method, place.path.rstrip("/") + target, body, passed)
            answer = connection.getresponse()
            content_type = answer.headers.get("Content-Type", "application/octet-stream")
            return Answer(answer.status, content_type, answer.read())
    except (OSError, HTTPException):
        raise ServiceUnavailable(f"{place.hostname} does not answer") from None
