"""Running commands: shown as they run, ended by Ctrl-C and SIGTERM, and a failure told in one line."""

from __future__ import annotations

import atexit
import os
import re
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread, current_thread, main_thread
from typing import Any, NoReturn, TypeVar, cast
from weakref import WeakSet

from .terminal import Status, masked, say

Result = TypeVar("Result")
RUNNING: WeakSet[subprocess.Popen[str]] = WeakSet()  # all commands, for an interrupt to end
STOP_TIMEOUT_S = 30  # for an interrupted command to clean up before it is killed
INTERRUPTS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
INTERRUPTED: list[int] = []  # which came; nox keeps one to itself where a child of its own ends well right after it
ENGINE_GONE = "the Docker engine does not answer any more: look at its log, then start it (nox -s setup)"


class UserError(Exception):
    """A user's mistake, or a machine's fault that the user can correct: one line that says what is wrong and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(masked(message))


class CommandFailed(UserError):  # noqa: N818 (it is what has happened)
    """A command that ended with an error; ``text`` is all that it printed, ``last`` its last line."""

    def __init__(self, command: Sequence[str], text: str) -> None:
        self.text = text.partition("\nRun 'docker ")[0].strip()  # its last line is about options
        self.last = self.text.splitlines()[-1] if self.text else "it printed nothing"
        gone = re.search("Cannot connect to the Docker daemon|error during connect", self.text)
        super().__init__(ENGINE_GONE if gone else f"`{shlex.join(command[:4])} ...` failed: {self.last}")


class Command(subprocess.Popen[str]):
    """A command that runs; an interrupt in its ``with`` block ends it."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is KeyboardInterrupt:
            stop(self)
        super().__exit__(kind, error, trace)


def interruptible() -> None:
    """Take SIGTERM and a closed terminal as Ctrl-C, so that clean-up in ``finally`` always happens."""
    # SIGINT, too: a script's background job inherits it as ignored, and so would the commands that `stop` ends by it.
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    if hasattr(signal, "setitimer"):  # a signal right before a read or a wait is handled only after it: interrupt that
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
        atexit.register(signal.setitimer, signal.ITIMER_REAL, 0)  # while Python ends, it would kill it


def _interrupt(number: int, _frame: object) -> NoReturn:
    INTERRUPTED.append(number)
    raise KeyboardInterrupt(signal.strsignal(number))


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Have an interrupt that comes in the block raise KeyboardInterrupt at its end."""
    came: list[int] = []
    numbers = [number for number in INTERRUPTS if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt(signal.strsignal(came[0]))


def show(command: Sequence[str]) -> None:
    """Print a command as one would type it."""
    say("$ " + shlex.join(command))


def start(*command: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start a command, with Popen's ``options``; ``env`` adds to the environment. A missing program is a UserError."""
    process = None
    try:
        # In the middle of Popen, an interrupt would leave a command of which nobody knows.
        with interrupts_later() if current_thread() is main_thread() else nullcontext():
            # Whatever a command prints, such as a service's log in another encoding, must not end this session.
            process = Command(command, env={**os.environ, **(env or {})}, text=True, errors="replace", **options)
            RUNNING.add(process)
    except (FileNotFoundError, PermissionError):  # the latter after `su`, where a folder on the PATH is root's
        raise UserError(f"{command[0]} is not installed, or not on the PATH") from None
    except KeyboardInterrupt:
        with process or nullcontext():
            raise
    return process


def stop(process: subprocess.Popen[str]) -> None:
    """End a command: by SIGINT, so that it can clean up, and by SIGKILL after STOP_TIMEOUT_S."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        process.kill()  # does nothing to one that has ended
        process.wait()


def run(*command: str, env: Mapping[str, str] | None = None) -> int:
    """Run a command on this terminal and return its exit code; ``env`` adds to the environment."""
    show(command)
    with start(*command, env=env) as process:
        return process.wait()


def ask(*command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command whose output is wanted later, by `answer`."""
    return start(*command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def answer(process: subprocess.Popen[str]) -> str:
    """Wait for a command that `ask` has started and return its standard output; raises CommandFailed when it fails."""
    with process:
        out, err = process.communicate()
    if process.returncode:
        raise CommandFailed(cast("Sequence[str]", process.args), err or out)
    return out


def output(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command silently and return its standard output; raises UserError as `start` and `answer` do."""
    return answer(ask(*command, env=env))


def step(title: str, *command: str, log: Path, env: Mapping[str, str] | None = None) -> None:
    """Run a command that takes a while: one line with its title and time; command and output go to the file ``log``.

    Raises CommandFailed when it fails.
    """
    said: list[str] = []
    with Status(title) as status:
        code = lines(*command, on_line=said.append, env=env)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(masked("\n".join([f"$ {shlex.join(command)}", *said, ""])), encoding="utf-8")
    if code:
        raise CommandFailed(command, "\n".join(said))
    say(f"{title}: {status.seconds:.1f} s")


def lines(*command: str, on_line: Callable[[str], None], env: Mapping[str, str] | None = None, stdin: str = "") -> int:
    """Run a command, call ``on_line`` with each line that it prints, and return its exit code."""
    pipe = subprocess.PIPE
    with start(*command, env=env, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT) as process:
        assert process.stdin and process.stdout  # noqa: S101, PT018 (for the type checker: both are pipes)
        with suppress(BrokenPipeError), process.stdin as sink:  # it may fail before it has read everything
            sink.write(stdin)
        for line in process.stdout:
            on_line(line.rstrip("\n"))
        return process.wait()


def run_parallel(
    jobs: Mapping[str, Callable[[], Result]], on_done: Callable[[str, Result], object] = lambda *_: None
) -> dict[str, Result]:
    """Run jobs in parallel, one per processor at a time, call ``on_done`` for each that ends, and return their results.

    When a job raises, or the session is interrupted, all running commands are ended and no further job begins.
    """
    waiting = deque(jobs.items())
    ended: SimpleQueue[tuple[str, Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        with suppress(IndexError):  # nothing waits any more
            while True:
                name, job = waiting.popleft()
                try:
                    ended.put((name, job(), None))
                except BaseException as error:
                    waiting.clear()
                    ended.put((name, None, error))

    threads = [Thread(target=work, daemon=True) for _ in range(min(len(jobs), os.cpu_count() or 1))]
    results: dict[str, Result] = {}
    try:
        for thread in threads:
            thread.start()
        while len(results) < len(jobs):
            name, result, error = ended.get()
            if error:
                raise error
            results[name] = result
            on_done(name, result)
    except BaseException:
        waiting.clear()
        while any(thread.is_alive() for thread in threads):  # a job may be just about to start a command
            for process in list(RUNNING):
                stop(process)
            time.sleep(0.05)
        raise
    return results
