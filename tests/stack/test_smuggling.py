"""Ambiguous requests (request smuggling) are rejected by every production container with a server of docker/server."""

from __future__ import annotations

import re
import runpy
import socket
from contextlib import suppress

import pytest

from tasks.project import ROOT, service_names
from tasks.stack.model import Stack

CORPUS = runpy.run_path(str(ROOT / "docker/server/tests/corpus.py"))


@pytest.mark.parametrize("service", service_names())
def test_smuggling(stack: Stack, service: str) -> None:
    """Exactly one answer, and that before the application is asked; whether it would read the body is its own affair."""
    if not (port := stack.container(service).port):
        pytest.skip(f"{service} publishes no port")
    interface = stack.model["services"][service]["build"]["args"].get("INTERFACE")
    if interface == "command":
        pytest.skip(f"{service} has a server of its own")
    wrong = []
    for status, requests in CORPUS["HEADS"].items():
        for request in [request for request in requests if not (interface == "asgi" and CORPUS["differs"](request))]:
            got = b""
            # The server need not read to the end.
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client, suppress(ConnectionError):
                client.sendall(CORPUS["encoded"](request))
                while more := client.recv(65536):
                    got += more
            found = [int(each) for each in re.findall(rb"^HTTP/1\.1 (\d+) ", got, re.MULTILINE)]
            if found != [status] and (found or status != 431):  # that answer may be lost when the connection is reset
                wrong.append((request[:200], found))
    assert wrong == []
