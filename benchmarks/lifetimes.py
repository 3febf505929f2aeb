"""
Measurements that need a new process each time: memory of idle connections, and time to the first answer.
"""

import select
import socket
import time
from dataclasses import dataclass

from benchmarks.client import Request, WrongAnswerError, ask
from benchmarks.measure import Load, MeasureError, Sample
from benchmarks.processes import ServerProcess

# The allocator has its arenas and every lazy import is done after this many requests.
WARM_UP_REQUESTS = 300

# Opened at a time: more would fill a small backlog and measure the peak of the burst.
BURST = 50

ANSWER_S = 10.0
SETTLE_S = 0.3


def open_idle(port: int, request: Request, count: int) -> list[socket.socket]:
    """
    So many connections that have had one answer each and are kept alive.

    Raises WrongAnswerError or OSError, with all of them closed.
    """
    head = f"{request.method} {request.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    opened: list[socket.socket] = []
    try:
        while len(opened) < count:
            burst = range(min(BURST, count - len(opened)))
            fresh = []
            for _ in burst:
                fresh.append(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S))
                opened.append(fresh[-1])
                fresh[-1].sendall(head)
            for sock in fresh:
                read_answer(sock, request)
    except BaseException:
        close_all(opened)
        raise
    return opened


def read_answer(sock: socket.socket, request: Request) -> None:
    """
    Read one answer with a known body; whatever its framing, it ends with those bytes.
    """
    assert request.answer is not None
    came = b""
    while not came.endswith(request.answer):
        more = sock.recv(64 * 1024)
        if not more:
            raise WrongAnswerError(f"hung up after {came[:200]!r}")
        came += more
    if not came.startswith(b"HTTP/1.1 200 "):
        raise WrongAnswerError(f"not a 200: {came[:200]!r}")


def close_all(opened: list[socket.socket]) -> None:
    """
    Close them.
    """
    for sock in opened:
        sock.close()


def count_closed(opened: list[socket.socket]) -> int:
    """
    How many of the connections the server has closed: an idle one has nothing to read.
    """
    poll = select.poll()
    for sock in opened:
        poll.register(sock, select.POLLIN)
    return len(poll.poll(0))


@dataclass(frozen=True, slots=True)
class IdleMemory:
    """
    Resident memory for each of many open connections that have had one answer and are silent.
    """

    request: Request
    connections: int = 3000
    unit: str = "KiB per connection"
    fresh_starts: int = 3

    def check(self, server: ServerProcess) -> None:
        """
        The answer is right.
        """
        server.await_answer(self.request)

    def sample(self, server: ServerProcess, load: Load) -> Sample:
        """
        Open the connections and compare. Raises MeasureError if the server has closed any of them meanwhile.
        """
        server.await_answer(self.request)
        ask(server.port, server.certificate, self.request, ANSWER_S, times=WARM_UP_REQUESTS)
        time.sleep(SETTLE_S)
        before = server.rss_bytes()
        opened = open_idle(server.port, self.request, self.connections)
        try:
            time.sleep(SETTLE_S)
            grown = server.rss_bytes() - before
            closed = count_closed(opened)
        finally:
            close_all(opened)
        if closed:
            raise MeasureError(f"the server closed {closed} of {self.connections} idle connections")
        return Sample(grown / self.connections / 1024)


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """
    Milliseconds from the start of the process until a client has its first whole answer.
    """

    request: Request
    unit: str = "ms"
    fresh_starts: int = 7

    def check(self, server: ServerProcess) -> None:
        """
        The answer is right. This start also fills the bytecode and page caches.
        """
        server.await_answer(self.request)

    def sample(self, server: ServerProcess, load: Load) -> Sample:
        """
        Ask every millisecond until somebody answers.
        """
        return Sample(server.await_answer(self.request, pause_s=0.001) * 1000)
