"""Runs a service's tests on every change: ``rerun.py [ARGUMENT...]``; the arguments are pytest's.

Each run is a child of a supervisor. The next one is there ahead of time: pytest has read its settings and loaded its
plugins, and waits where it would first import code of the service's, in tests/conftest.py.
"""

from __future__ import annotations

import gc
import os
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from supervisor import DONE, END_GRACE_S, NAME, Supervisor

EXAMPLES = 5  # how many examples Hypothesis tries per test, unless the test says so itself
OPTIONS = [
    *("--failed-first", "--new-first"),
    # Nothing but failures: each is shown as soon as it is known, and the verdict at the end.
    *("-qq", "--no-summary", "-o", "console_output_style=classic"),
    # The parent imports libraries before pytest can rewrite their assertions.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
]
BYTECODE = Path(tempfile.gettempdir(), "bytecode")  # of the service and its tests, from one run to the next


class Plugin:
    """Pytest's plugin that has a run wait for its turn, and tells how it went."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.began = 0.0
        self.told = False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self) -> Generator[None]:
        """Do what need not wait for a change, and wait for it."""
        gc.set_threshold(10_000)  # collecting garbage takes a tenth of a short run's time
        with suppress(ImportError), warnings.catch_warnings(action="ignore"):
            prepare_hypothesis()
        remove_young_bytecode()
        self.supervisor.wait_for_turn()
        self.began = time.monotonic()
        if self.supervisor.preloaded:  # otherwise libraries would be compiled again, too
            sys.pycache_prefix, sys.dont_write_bytecode = str(BYTECODE), False
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Find what prints, and have --failed-first sort after --new-first, which sorts all tests."""
        plugins = config.pluginmanager
        self.terminal, self.writer = plugins.getplugin("terminalreporter"), config.get_terminal_writer()
        plugins.register(plugins.unregister(name="lfplugin"), "lfplugin")

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, tuple[str, object, object], tuple[str, str, str]]:
        """Print no dots."""
        return (yield)[0], "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Show a failure at once."""
        if report.failed:
            self.terminal.write_sep("_", report.nodeid, red=True, bold=True)
            report.toterminal(self.writer)
            for title, text in report.sections:
                self.terminal.write_sep("-", title)
                self.terminal.write_line(text.rstrip())

    pytest_collectreport = pytest_runtest_logreport

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None]:
        """Tell the verdict, when all else has been said."""
        yield
        parts, _ = self.terminal.build_summary_stats_line()
        self.tell(", ".join(self.writer.markup(text, **markup) for text, markup in parts))

    def tell(self, verdict: str) -> None:
        """Tell the verdict, once."""
        if self.began and not self.told:
            print(f"{NAME}: {verdict} in {time.monotonic() - self.began:.2f} s", flush=True)
            self.told = True
            self.supervisor.report()


def prepare_hypothesis() -> None:
    """Set the number of examples, and do what Hypothesis does at its first test: it takes a fifth of a short run."""
    from hypothesis import given, settings, strategies

    settings.register_profile("watch", max_examples=EXAMPLES)
    settings.load_profile("watch")
    # In a few examples it might not come to the constants, for which it goes through all modules.
    many = settings(max_examples=100, deadline=None, database=None)
    many(given(text=strategies.text())(lambda text: None))()  # noqa: ARG005


def remove_young_bytecode() -> None:
    """Remove bytecode whose source was still new: Python compares seconds and sizes, and both may stay with a change.

    Bytecode that is checked against its source's contents, as pytest's of the tests is, stays.
    """
    for file in BYTECODE.rglob("*.pyc"):
        by_content, seconds = struct.unpack("<4xII", file.read_bytes()[:12])
        if not by_content and file.stat().st_mtime < seconds + 2:
            file.unlink()


if __name__ == "__main__":
    os.dup2(1, 2)
    supervisor = Supervisor(f"the test run of {NAME}", END_GRACE_S)
    supervisor.run()
    # From here on this is a child.
    plugin = Plugin(supervisor)
    code = pytest.main([*OPTIONS, *sys.argv[1:]], plugins=[plugin])
    plugin.tell("1 error")  # in tests/conftest.py, say: pytest has ended before it started
    sys.exit(DONE if plugin.told else code)
