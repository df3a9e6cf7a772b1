"""Requests at a fixed rate, however long each takes, and what became of them."""

from __future__ import annotations

import http.client
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import NamedTuple, Self

RATE = 50  # requests a second
TIMEOUT_S = 10
SLOW_S = 1.0  # between the halves of a slow client's body
BODY = b"x" * 2000


class Case(NamedTuple):
    """A kind of request; a slow one sends its body in two halves."""

    method: str
    port: int
    path: str
    slow: bool = False


class Result(NamedTuple):
    """What became of a request: when it was sent and when it ended, and why it is lost, "" if it is not."""

    began: float
    ended: float
    case: Case
    fault: str


class Load:
    """Sends ``RATE`` requests a second to a host, of some kinds in turns, inside of a ``with`` block."""

    def __init__(self, host: str, *cases: Case) -> None:
        self.host, self.cases = host, cases
        self.sent: list[Future[Result]] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.thread.join()

    def run(self) -> None:
        """Send the requests, each on a connection and in a thread of its own."""
        with ThreadPoolExecutor(RATE * TIMEOUT_S) as pool:
            began = time.monotonic()
            for number in count():
                if self.stopped.wait(max(0, began + number / RATE - time.monotonic())):
                    break
                self.sent.append(pool.submit(self.send, self.cases[number % len(self.cases)]))

    def send(self, case: Case) -> Result:
        """Send a request."""
        began, fault = time.monotonic(), ""
        connection = http.client.HTTPConnection(self.host, case.port, timeout=TIMEOUT_S)
        try:
            answer = ask(connection, case)
            if answer.status != http.client.OK:
                fault = f"status {answer.status}"
        except (OSError, http.client.HTTPException) as error:
            fault = repr(error)
        finally:
            connection.close()
        return Result(began, time.monotonic(), case, fault)

    def results(self, first: int) -> list[Result]:
        """What became of all requests since the ``first``, once all that are sent have ended."""
        return [sent.result() for sent in self.sent[first:]]


def ask(connection: http.client.HTTPConnection, case: Case) -> http.client.HTTPResponse:
    """Send a request and return its answer, read to the end."""
    body = BODY * 2 if case.method == "POST" else b""
    connection.putrequest(case.method, case.path)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body[: len(BODY)])
    time.sleep(SLOW_S if case.slow else 0)
    if rest := body[len(BODY) :]:
        connection.send(rest)
    answer = connection.getresponse()
    answer.read()
    return answer
