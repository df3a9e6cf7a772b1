"""What APPLICATION may name; commands, such as workers: signals, orphans, exit codes, errors."""

import ctypes
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen, run
from threading import Timer
from types import SimpleNamespace

import pytest
from harness import SERVER

SERVE = SERVER / "serve.py"
WORKER = """
import os, signal, time
if not os.fork():
    os.fork() or time.sleep(0.2)
    os._exit(0)
time.sleep(0.4)
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, os.environ.get("PYTHONPATH", "none").encode() + b"\\n"))
signal.signal(signal.SIGTERM, lambda *_: exit(7))
print("ready", flush=True)
while True: time.sleep(1)
"""
EXPRESSIONS = {":application": "it", "": "it", ":create_app()": "app", ":sites['y'].wsgi": "z"}
EXPRESSIONS[':create_app("x").upper()'] = "X"
# PR_SET_CHILD_SUBREAPER: orphans become this process's, as they become PID 1's.
become_reaper = partial(ctypes.CDLL(None).prctl, 36, 1)


@pytest.mark.parametrize(("expression", "found"), EXPRESSIONS.items())
def test_an_expression_names_the_application(monkeypatch: pytest.MonkeyPatch, expression: str, found: str) -> None:
    sites = {"y": SimpleNamespace(wsgi="z")}
    site = SimpleNamespace(application="it", create_app=lambda name="app": name, sites=sites)
    monkeypatch.setitem(sys.modules, "web.site", site)
    monkeypatch.setenv("APPLICATION", f"web.site{expression}")
    assert runpy.run_path(str(SERVER / "serve_application.py"))["application"] == found


@contextmanager
def started(
    application: str, interface: str = "command", folder: Path = SERVE.parent, **env: str
) -> Iterator[Popen[str]]:
    env |= {"PATH": f"{Path(sys.executable).parent}:/bin:/usr/bin", "INTERFACE": interface, "APPLICATION": application}
    env |= {"OTEL_PYTHON_CONFIGURATOR": "x"} if interface == "command" else {}
    command = [sys.executable, str(SERVE)]
    process = Popen(command, cwd=folder, env=env, text=True, stdout=PIPE, stderr=STDOUT, preexec_fn=become_reaper)
    with process:  # which waits for its end
        timer = Timer(10, process.kill)  # seconds
        timer.start()
        yield process
        process.wait()
        timer.cancel()


@pytest.mark.parametrize(("interface", "application"), [("command", "python3 worker.py"), ("asgi", "worker:app")])
def test_signals_arrive_orphans_are_reaped_and_the_exit_code_comes_back(
    tmp_path: Path, interface: str, application: str
) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    with started(application, interface, tmp_path) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(10)
        assert process.stdout.readline() == ("none\n" if interface == "asgi" else f"{tmp_path}\n")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(children.read_text().split()) > 1:  # its two orphans are reaped
            assert process.poll() is None
        process.terminate()
    assert process.returncode == 7


def test_no_signal_is_blocked_or_ignored() -> None:
    ask = "grep -E Sig(Blk|Ign) /proc/self/status"
    with started(ask) as process:
        assert process.stdout
        masks = [int(line.split()[1], 16) & 0x7FFFFFFF for line in process.stdout]  # without those of threads
    # A script's background job inherits SIGINT and SIGQUIT as ignored.
    inherited = int(run(ask.split(), capture_output=True, text=True, check=True).stdout.split()[3], 16)
    assert (masks[0], masks[1] & ~inherited) == (0, 0)


def test_a_command_that_a_signal_ends() -> None:
    with started("sleep 100") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not any("sleep" in Path(f"/proc/{pid}/cmdline").read_text() for pid in children.read_text().split()):
            assert process.poll() is None
        process.terminate()
    assert process.returncode == 143


@pytest.mark.parametrize(
    ("interface", "application", "told", "code"),
    [
        ("command", "python3 -c 'exit(3)'", "", 3),
        ("wsgi", "", "FORWARDED_ALLOW_IPS: 'proxy' does not appear to be an IPv4 or IPv6 network\n", 1),
        ("asgi", "", "FORWARDED_ALLOW_IPS: 'proxy' does not appear to be an IPv4 or IPv6 network\n", 1),
        ("wsig", "app:app", "INTERFACE is 'wsig'; it must be wsgi, asgi or command\n", 1),
        ("command", "no-such-program -x", "APPLICATION is 'no-such-program -x', and there is no such program\n", 1),
        ("command", "", "APPLICATION is '', and there is no such program\n", 1),
        ("command", "sleep '1", """APPLICATION is "sleep '1", which is no command line: No closing quotation\n""", 1),
    ],
)
def test_mistakes_are_told_in_one_line(interface: str, application: str, told: str, code: int) -> None:
    with started(application, interface, FORWARDED_ALLOW_IPS="127.0.0.1, proxy") as process:
        assert process.stdout
        assert process.stdout.read() == told
    assert process.returncode == code
