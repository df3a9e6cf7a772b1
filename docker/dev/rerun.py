"""Runs a service's tests on every change: ``retest.py [ARGUMENT...]``, the arguments are pytest's.

One process reads pytest's settings, loads its plugins, and stops where pytest would first import code of the service's,
in tests/conftest.py. A fork of it waits there, and goes on with the change that the watcher tells of; then comes the
next one. Tests that failed last run first, then those that touch what was written last: their own file, or one of whose
functions they called.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import struct
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from live import HERE, LAST_GRACE, LIBRARIES, Parent, make_stub, say, tell_libraries, wanted_elsewhere

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from types import CodeType

EXAMPLES = 5  # how many examples Hypothesis tries per test, unless the test says so itself
OPTIONS = [
    # Nothing but failures: each is shown as soon as it is known, and the verdict at the end.
    *("-qq", "--no-summary", "-o", "console_output_style=classic"),
    # That the libraries are there already, before pytest could look into their assertions, is no news.
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
]
BYTECODE = Path(tempfile.gettempdir(), "bytecode")  # of the service and its tests, from one run to the next
TOOL = 4  # a number for sys.monitoring that nobody has claimed


class Forked(Exception):  # noqa: N818 (no error: it takes a child out of its parent's loop)
    """This process is a child, and has tests to run."""


class Retest(Parent):
    """The process that forks a run of pytest for every change, and in each fork pytest's plugin."""

    def __init__(self) -> None:
        super().__init__(["pytest"])
        self.memory = os.memfd_create("memory")  # by test, whether it failed and which files it touched
        self.tests: dict[str, tuple[bool, list[str]]] = {}
        # Of the test that runs.
        self.touched: set[str] = set()
        self.failed = False
        self.waiting = 0  # the process id of the next run, if it is there
        self.go = 0  # the file descriptor that it waits for
        self.began = 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self) -> Generator[None]:
        """Stay in the parent until there are tests to run."""
        with suppress(ImportError):
            from hypothesis import settings

            settings.register_profile("watch", max_examples=EXAMPLES)
            settings.load_profile("watch")
        gc.set_threshold(10_000)  # looking for garbage takes a tenth of a short run's time
        self.trace()
        with suppress(Forked):
            self.run()
        self.tests = json.loads(os.pread(self.memory, 1 << 26, 0) or "{}")
        yield

    def start(self, failure: str = "") -> None:  # noqa: ARG002 (there is no one to show it to)
        """Have the tests run, in the fork that waits for it, if it had the time to get there."""
        os.ftruncate(self.report, 0)
        forget_young_bytecode()
        if not self.waiting:
            self.prepare()
        os.write(self.go, b".")
        os.close(self.go)
        self.current, self.waiting = self.waiting, 0

    def prepare(self) -> None:
        """Fork a run ahead of its time, as far as it can go."""
        self.known = self.asked.union(sys.modules)
        heard, self.go = os.pipe()

        def go_on() -> NoReturn:
            os.close(self.go)  # so that the end of the parent is heard, too
            # This writes to nearly all memory: what is copied for it need not be copied during the run.
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            if not os.read(heard, 1):
                sys.exit()
            self.began = time.monotonic()
            if self.asked:  # libraries are imported already, and need not look for theirs there
                sys.pycache_prefix, sys.dont_write_bytecode = str(BYTECODE), False
            raise Forked

        self.waiting = self.fork(go_on)
        os.close(heard)

    def preload(self, names: Iterable[str]) -> None:
        """Import libraries, whatever they have to say about it, and warm up those that take time at their first use."""
        with warnings.catch_warnings(action="ignore"):
            super().preload(names)
            if wanted_elsewhere():
                return
            with suppress(Exception):  # it may not be installed, or find this machine too slow
                if "flask" in sys.modules:
                    make_stub()
                from hypothesis import given, settings, strategies

                # In a few examples it might not come to the constants, for which it goes through all modules.
                many = settings(max_examples=100, deadline=None, database=None)
                many(given(text=strategies.text())(lambda text: None))()  # noqa: ARG005

    def stop(self, grace: float) -> None:
        """End a run: nobody wants its verdict any more."""
        super().stop(min(grace, LAST_GRACE))

    def ended(self, code: int) -> None:
        """Prepare the next run, and tell of one that did not come to its end, as when a test kills the process."""
        if not os.fstat(self.report).st_size:
            say(f"{HERE.name}'s tests ended with {code} and without a verdict")
        self.prepare()

    def tell(self, verdict: str) -> None:
        """Give the verdict, once."""
        if not os.fstat(self.report).st_size:
            print(f"{HERE.name}: {verdict} in {time.monotonic() - self.began:.2f} s", flush=True)
            os.pwrite(self.report, b"\n", 0)

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Find what prints."""
        self.terminal = session.config.pluginmanager.getplugin("terminalreporter")
        self.writer = session.config.get_terminal_writer()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put first what failed last, then what touches the file written last."""

        @functools.cache
        def written(file: str) -> int:
            return os.stat(file).st_mtime_ns if os.path.exists(file) else 0  # noqa: PTH110, PTH116 (Path takes its time)

        def order(item: pytest.Item) -> tuple[bool, int]:
            failed, files = self.tests.get(item.nodeid, (False, ()))
            return not failed, -max(map(written, (str(item.path), *files)))

        items.sort(key=order)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Remember whether a test failed and what it touched."""
        self.touched, self.failed = set(), False
        result = yield
        self.tests[item.nodeid] = self.failed, sorted(self.touched)
        if self.failed:
            self.remember()
        return result

    def trace(self) -> None:
        """Note the files whose functions are called, where Python can tell; libraries' functions are asked for once."""
        if sys.version_info >= (3, 12):

            def called(code: CodeType, _offset: int) -> object:
                if code.co_filename.startswith((*LIBRARIES, "<")):
                    return sys.monitoring.DISABLE
                self.touched.add(code.co_filename)
                return None

            start = sys.monitoring.events.PY_START
            sys.monitoring.use_tool_id(TOOL, "retest")
            sys.monitoring.register_callback(TOOL, start, called)
            sys.monitoring.set_events(TOOL, start)

    def remember(self) -> None:
        """Leave the next run what this one knows."""
        os.ftruncate(self.memory, 0)
        os.pwrite(self.memory, json.dumps(self.tests).encode(), 0)

    @pytest.hookimpl(wrapper=True)
    def pytest_report_teststatus(self) -> Generator[None, tuple[str, object, object], tuple[str, str, str]]:
        """Print no dots."""
        return (yield)[0], "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Show a failure at once."""
        if report.failed:
            self.failed = True
            self.show(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Show a file that cannot be read at once."""
        if report.failed:
            self.show(report)

    def show(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Show what went wrong."""
        self.terminal.write_sep("_", report.nodeid, red=True, bold=True)
        report.toterminal(self.writer)
        for title, text in report.sections:
            self.terminal.write_sep("-", title)
            self.terminal.write_line(text.rstrip())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Generator[None]:
        """Sum up when all else has been said; what pytest then puts away, nobody has to wait for."""
        yield
        self.remember()
        parts, _ = self.terminal.build_summary_stats_line()
        self.tell(", ".join(self.writer.markup(text, **markup) for text, markup in parts))


def forget_young_bytecode() -> None:
    """Remove bytecode whose source was still new: Python compares seconds and sizes, and both may stay with a change.

    Pytest's own of the tests it does not concern, for that compares contents.
    """
    for file in BYTECODE.rglob("*.pyc"):
        by_content, seconds = struct.unpack("<4xII", file.read_bytes()[:12])
        if not by_content and file.stat().st_mtime < seconds + 2:
            file.unlink()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder, which is not the service's
    os.dup2(1, 2)
    retest = Retest()
    code = pytest.main([*OPTIONS, *sys.argv[1:]], plugins=[retest])
    retest.tell("1 error")  # in tests/conftest.py, say: pytest has ended before it started
    tell_libraries(os.getppid(), retest.known, retest.report)
    sys.exit(code)
