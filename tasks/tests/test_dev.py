"""`nox -s dev`: what it starts."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from ..stack.model import Stack


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("named", "started"), [(["pilot"], ["pilot", "pilot-mail"]), ([], [])])
def test_without_names_it_starts_all_that_compose_has(
    monkeypatch: pytest.MonkeyPatch, named: list[str], started: list[str]
) -> None:
    """Also a service that is not built here and that no other one depends on, such as a page that shows a database."""
    noxfile = importlib.import_module("noxfile")
    stack = Stack("ours-1", (), "dev")
    built = {
        name: {"build": {"args": {"SERVICE": name.partition("-")[0]}}} for name in ("other", "pilot", "pilot-mail")
    }
    stack.__dict__["model"] = {"services": {**built, "adminer": {"image": "adminer"}}}
    seen: list[Sequence[str]] = []

    def running(_stack: Stack, services: Sequence[str], *_: object, **__: object) -> nullcontext[None]:
        seen.append(services)
        return nullcontext()

    monkeypatch.setattr(noxfile, "ready", lambda **_: None)
    monkeypatch.setattr(noxfile, "development", lambda **_: stack)
    monkeypatch.setattr(noxfile.bake, "build", lambda *_: None)
    for name in ("wait", "urls"):
        monkeypatch.setattr(noxfile.lifecycle, name, lambda *_: None)
    monkeypatch.setattr(noxfile.lifecycle, "running", running)
    monkeypatch.setattr(sys.modules["tasks.session"], "interruptible", lambda: None)
    noxfile.dev.func(SimpleNamespace(posargs=[*named, "--detach"]))
    assert seen == [started]
