"""Running commands: each is printed as it is run, so that people can copy it, and ends well or as one clear line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Result = TypeVar("Result")
# The commands that are running, for whoever has to end them all.
RUNNING: WeakSet[subprocess.Popen[str]] = WeakSet()
# How long an interrupted command may take to put its things away, in seconds, before it is killed.
PATIENCE = 30
ENGINE_GONE = "the Docker engine does not answer any more: look at its log, then start it (nox -s setup)"


class UserError(Exception):  # noqa: N818 (what the user is told is no error of the program)
    """Something that the user can mend: its text says in one line what is wrong and what to do."""


def interruptible() -> None:
    """Take SIGTERM and a closed terminal as Ctrl-C, so that clean-up in ``finally`` always happens."""
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt(signal.strsignal(number))


def say(line: str) -> None:
    """Print a line at once, so that it stands in order with what commands print."""
    print(line, flush=True)


def run(*command: str, env: Mapping[str, str] | None = None, quiet: bool = False, stdin: int | None = None) -> int:
    """Run a command on this terminal and return its exit code; ``env`` adds to the environment."""
    if not quiet:
        show(command, env)
    sys.stderr.flush()
    with start(*command, env=env, stdin=stdin) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            stop(process)
            raise


def show(command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
    """Print a command as one would type it."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in (env or {}).items()]
    say("$ " + " ".join([*settings, shlex.join(command)]))


def start(*command: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start a command, with Popen's ``options``; ``env`` adds to the environment. A missing program is a UserError."""
    try:
        process = subprocess.Popen(command, env={**os.environ, **(env or {})}, text=True, **options)
    except FileNotFoundError:
        raise UserError(f"{command[0]} is not installed, or not on the PATH") from None
    RUNNING.add(process)
    return process


def run_parallel(jobs: Mapping[str, Callable[[], Result]]) -> Iterator[tuple[str, Result]]:
    """Do jobs side by side, as many at once as there are processors; yield each one's name and result when it is done.

    When one of them raises, or the session is interrupted, all commands that still run are ended, and nothing new begins.
    """
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        names = {pool.submit(job): name for name, job in jobs.items()}
        try:
            for done in as_completed(names):
                yield names[done], done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(job.done() for job in names):  # one may be just about to start a command
                for process in list(RUNNING):
                    stop(process)
                time.sleep(0.05)
            raise


def stop(process: subprocess.Popen[str]) -> None:
    """End a command: as after Ctrl-C first, so that it can clean up, and for good after PATIENCE."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ask(*command: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Run a command silently beside whatever comes next, until its `answer` is needed."""
    pipe = subprocess.PIPE
    return start(*command, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)


def answer(process: subprocess.Popen[str]) -> str:
    """The standard output of a command that was asked, when it has ended; raises CommandFailed when it fails."""
    with process:
        try:
            out, err = process.communicate()
        except KeyboardInterrupt:
            stop(process)
            raise
    if process.returncode:
        raise CommandFailed(cast("Sequence[str]", process.args), err or out)
    return out


def output(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Run a command silently and return its standard output; raises UserError as `start` and `answer` do."""
    return answer(ask(*command, env=env))


class CommandFailed(UserError):
    """A command that ended with an error; ``text`` is all that it said, ``last`` its last line."""

    def __init__(self, command: Sequence[str], text: str) -> None:
        self.text = text.strip()
        self.last = self.text.splitlines()[-1] if self.text else "it said nothing"
        reason = f"`{shlex.join(command[:4])} ...` failed: {self.last}"
        if "Cannot connect to the Docker daemon" in self.text:
            reason = ENGINE_GONE
        super().__init__(reason)


def lines(*command: str, on_line: Callable[[str], None], env: Mapping[str, str] | None = None, stdin: str = "") -> int:
    """Run a command, hand over each line that it prints as it comes, and return its exit code."""
    pipe = subprocess.PIPE
    with start(*command, env=env, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, errors="replace") as process:
        assert process.stdin is not None  # noqa: S101 (for the type checker: both are pipes)
        assert process.stdout is not None  # noqa: S101
        try:
            with process.stdin as sink:
                sink.write(stdin)
            for line in process.stdout:
                on_line(line.rstrip("\n"))
            return process.wait()
        except KeyboardInterrupt:
            stop(process)
            raise
