"""What APPLICATION may name; commands, such as workers: signals, orphans, exit codes, errors."""

import runpy
import signal
import sys
from subprocess import PIPE, STDOUT, check_output, run
from types import SimpleNamespace

import pytest
from harness import ENV, SERVER, TESTS, running

SERVE = [sys.executable, str(SERVER / "serve.py")]
HEALTH_CHECK = f'env STACK_HEALTH_SOCKET=/dev/null "{sys.executable}" "{SERVER}/healthcheck.py"'  # where nobody listens
WORKERS = [("command", "python3 worker.py", str(TESTS)), ("asgi", "worker:app", "None")]
EXPRESSIONS = {":application": "it", "": "it", ':create_app("X")': "x", ":sites['y'].wsgi": "z"}


@pytest.mark.parametrize(("expression", "found"), EXPRESSIONS.items())
def test_an_expression_names_the_application(monkeypatch: pytest.MonkeyPatch, expression: str, found: str) -> None:
    sites = {"y": SimpleNamespace(wsgi="z")}
    site = SimpleNamespace(application="it", create_app=str.lower, sites=sites)
    monkeypatch.setitem(sys.modules, "web.site", site)
    monkeypatch.setenv("APPLICATION", f"web.site{expression}")
    assert runpy.run_path(str(SERVER / "serve_application.py"))["application"] == found


@pytest.mark.parametrize(("interface", "application", "path"), WORKERS)
def test_signals_arrive_and_orphans_are_reaped(interface: str, application: str, path: str) -> None:
    with running("ready", 7, INTERFACE=interface, APPLICATION=application) as server:
        server.process.send_signal(signal.SIGUSR1)
        server.wait_for(f"PYTHONPATH {path}\n")
        while len(server.workers()) > 1:  # its two orphans are reaped
            assert server.process.poll() is None


def test_no_signal_is_blocked_or_ignored() -> None:
    ask = "grep -E Sig(Blk|Ign) /proc/self/status"
    env = ENV | {"INTERFACE": "command", "APPLICATION": ask, "OTEL_PYTHON_CONFIGURATOR": "x"}
    lines = check_output(SERVE, env=env, text=True, timeout=10).splitlines()
    masks = [int(line.split()[1], 16) & 0x7FFFFFFF for line in lines]  # without those of threads
    # A script's background job inherits SIGINT and SIGQUIT as ignored.
    inherited = int(check_output(ask.split(), text=True).split()[3], 16)
    assert (masks[0], masks[1] & ~inherited) == (0, 0)


@pytest.mark.parametrize(
    ("interface", "application", "told", "code"),
    [
        ("command", "python3 -c 'exit(3)'", "", 3),
        ("command", "sh -c 'kill -TERM $$'", "", 143),
        ("command", HEALTH_CHECK, "/healthz gets no answer: [Errno 111] Connection refused\n", 1),
        ("wsgi", "", "FORWARDED_ALLOW_IPS: 'proxy' does not appear to be an IPv4 or IPv6 network\n", 1),
        ("wsig", "app:app", "INTERFACE is 'wsig'; it must be wsgi, asgi or command\n", 1),
        ("command", "no-such-program -x", "APPLICATION is 'no-such-program -x', and there is no such program\n", 1),
        ("command", "sleep '1", """APPLICATION is "sleep '1", which is no command line: No closing quotation\n""", 1),
    ],
)
def test_mistakes_are_told_in_one_line(interface: str, application: str, told: str, code: int) -> None:
    env = ENV | {"INTERFACE": interface, "APPLICATION": application, "FORWARDED_ALLOW_IPS": "127.0.0.1, proxy"}
    found = run(SERVE, env=env, text=True, stdout=PIPE, stderr=STDOUT, check=False, timeout=10)
    assert (found.stdout, found.returncode) == (told, code)
