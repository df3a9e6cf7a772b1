"""Both servers, for tests of what they have in common."""

from collections.abc import Iterator

import pytest
from harness import ASGI, WSGI, Server, running


@pytest.fixture(scope="module", params=[WSGI, ASGI], ids=["wsgi", "asgi"])
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    return dict(request.param)


@pytest.fixture(scope="module")
def server(settings: dict[str, str]) -> Iterator[Server]:
    with running(**settings) as started:
        yield started
