"""
Handshake load: every connection makes a full TLS 1.3 handshake, sends one GET, reads the answer and closes;
the next one takes its place.

One process on non-blocking sockets: the load has one core, and more processes would only share it.
TLS runs in memory, so that the last message of the handshake and the request leave in one write.
"""

import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Request, WrongAnswerError, ask
from benchmarks.measure import Load, MeasureError, Sample, cost_of_load
from benchmarks.processes import ServerProcess

# A name, not an address: only names are sent in the handshake. The certificate has it.
HOST = "localhost"

CONNECT_S = 10.0

# A server that sends nothing on any connection for this long has stopped.
SILENCE_S = 5.0

READ_BYTES = 64 * 1024
STATUS = b"HTTP/1.1 200 "


def terms(certificate: Path) -> ssl.SSLContext:
    """
    What every connection asks for: TLS 1.3, X25519, HTTP/1.1, and *certificate*, which is verified.
    """
    context = ssl.create_default_context(cafile=str(certificate))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # A recent OpenSSL offers post-quantum groups too, and not every server would take them: work of another size.
    context.set_ecdh_curve("X25519")
    context.set_alpn_protocols(["http/1.1"])
    return context


class Visit:
    """
    One connection, from its opening until its answer is there.

    Its session is its own: the context keeps none, so there is nothing that could be resumed.
    """

    __slots__ = ("answer", "incoming", "opened_at", "outgoing", "shaken", "sock", "tls")

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.opened_at = time.perf_counter()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)
        self.shaken = False
        self.answer = b""
        self.sock = socket.socket()
        try:
            self.sock.settimeout(CONNECT_S)
            self.sock.connect(("127.0.0.1", port))
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sock.setblocking(False)
            self.shake()
            self.flush()
        except BaseException:
            self.sock.close()
            raise

    def advance(self, head: bytes, body: bytes) -> bool:
        """
        Take in what has come, send what follows from it; *head* is the request. Whether the answer is whole.

        Raises WrongAnswerError, MeasureError, or ssl.SSLError, which is an OSError.
        """
        came = self.sock.recv(READ_BYTES)
        if not came:
            raise MeasureError(f"the server hung up, having answered {self.answer[:200]!r}")
        self.incoming.write(came)
        if self.shaken:
            return self.read(body)
        if self.shake():
            self.tls.write(head)
        self.flush()
        return False

    def shake(self) -> bool:
        """
        As much of the handshake as can be done now; whether it is complete. Raises MeasureError if it was a short one.
        """
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        if self.tls.session_reused:
            raise MeasureError("a session was resumed")
        self.shaken = True
        return True

    def read(self, body: bytes) -> bool:
        """
        Read the answer as far as it has come; whether it has ended with *body*, whatever its framing.
        """
        try:
            while not self.answer.endswith(body):
                more = self.tls.read(READ_BYTES)
                if not more:
                    raise MeasureError(f"the server ended TLS, having answered {self.answer[:200]!r}")
                self.answer += more
                if self.answer[: len(STATUS)] != STATUS[: len(self.answer)]:
                    raise WrongAnswerError(f"not a 200: {self.answer[:200]!r}")
        except ssl.SSLWantReadError:
            # Part of a record, or session tickets, which come before the answer.
            return False
        return True

    def flush(self) -> None:
        """
        Send what TLS has written.
        """
        if self.outgoing.pending:
            data = self.outgoing.read()
            if self.sock.send(data) != len(data):
                raise MeasureError("the kernel took only part of a message")

    def leave(self) -> None:
        """
        Say goodbye and close, as a browser does, without waiting for the server to say the same.
        """
        try:
            with suppress(ssl.SSLWantReadError):
                self.tls.unwrap()
            self.flush()
        finally:
            self.sock.close()


def run(server: ServerProcess, request: Request, connections: int, seconds: float) -> list[float]:
    """
    Keep so many *connections* on their way for so many *seconds*, then let those that are finish.

    Returns what each took from its opening to the whole answer, in seconds.
    Raises WrongAnswerError, OSError, or MeasureError if the server falls silent, hangs up or resumes a session.
    """
    assert server.certificate is not None and request.answer is not None
    context = terms(server.certificate)
    head = f"GET {request.path} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode()
    body, port, now = request.answer, server.port, time.perf_counter
    visits: dict[int, Visit] = {}
    took: list[float] = []
    with select.epoll() as poll:

        def enter() -> None:
            visit = Visit(port, context)
            visits[visit.sock.fileno()] = visit
            poll.register(visit.sock, select.EPOLLIN)

        try:
            end = now() + seconds
            for _ in range(connections):
                enter()
            while visits:
                ready = poll.poll(SILENCE_S)
                if not ready:
                    raise MeasureError(f"{len(visits)} connections without an answer for {SILENCE_S:g} s")
                for fd, _ in ready:
                    visit = visits[fd]
                    if visit.advance(head, body):
                        at = now()
                        took.append(at - visit.opened_at)
                        # Closing takes the descriptor out of the poll, and the next one may get its number.
                        del visits[fd]
                        visit.leave()
                        if at < end:
                            enter()
        finally:
            for visit in visits.values():
                visit.sock.close()
    return took


@dataclass(frozen=True, slots=True)
class HandshakeLoad:
    """
    CPU per connection with a full handshake and one request, throughput and latency.
    """

    request: Request
    unit: str = "µs CPU per handshake"
    fresh_starts: int = 0

    def check(self, server: ServerProcess) -> None:
        """
        The answer is right, twice with the standard client's handshake and once with ours.
        """
        server.await_answer(self.request)
        ask(server.port, server.certificate, self.request, CONNECT_S, times=2)
        run(server, self.request, connections=1, seconds=0)

    def sample(self, server: ServerProcess, load: Load) -> Sample:
        """
        Run the load once, in this process. All that the server was asked is answered before its CPU is read again.
        """
        cpu_s, started = server.cpu_s(), time.perf_counter()
        took = run(server, self.request, load.connections, load.seconds)
        wall_s = time.perf_counter() - started
        cost, busy = cost_of_load(server, cpu_s, wall_s, len(took))
        ranked = sorted(took)
        p50, p99 = ranked[len(ranked) // 2] * 1000, ranked[len(ranked) * 99 // 100] * 1000
        return Sample(cost, len(took) / wall_s, p50, p99, busy)
