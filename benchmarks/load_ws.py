"""
WebSocket echo load: every connection sends one text frame, waits until all of it has come back, sends again.

Built to cost less than any server under it: frames are masked beforehand, one read and one write an echo on
non-blocking sockets, nothing parsed unless the bytes are not those of the expected echo.
"""

import os
import select
import socket
import time
from base64 import b64encode
from dataclasses import dataclass, field

from benchmarks.client import Request, WrongAnswerError
from benchmarks.measure import Load, MeasureError, Sample, cost_of_load
from benchmarks.processes import ServerProcess

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
HANDSHAKE_S = 10.0

# A server that echoes nothing for this long has stopped.
SILENCE_S = 5.0

READ_BYTES = 64 * 1024


def length_field(size: int, masked: bool) -> bytes:
    """
    The second byte of a frame and what follows it, up to the mask. RFC 6455 section 5.2.
    """
    flag = 0x80 if masked else 0
    if size < 126:
        return bytes([flag | size])
    if size < 65536:
        return bytes([flag | 126]) + size.to_bytes(2, "big")
    return bytes([flag | 127]) + size.to_bytes(8, "big")


def client_frame(payload: bytes) -> bytes:
    """
    A whole text frame, masked.
    """
    masked = bytes(byte ^ MASK[n % 4] for n, byte in enumerate(payload))
    return bytes([0x80 | TEXT]) + length_field(len(payload), masked=True) + MASK + masked


def server_frame(payload: bytes) -> bytes:
    """
    The same text as a server sends it.
    """
    return bytes([0x80 | TEXT]) + length_field(len(payload), masked=False) + payload


def connect(port: int) -> socket.socket:
    """
    A connection that has been upgraded, still blocking. Raises WrongAnswerError or OSError.
    """
    sock = socket.create_connection(("127.0.0.1", port), timeout=HANDSHAKE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    # The application speaks only when spoken to, so nothing can follow the head.
    while not head.endswith(b"\r\n\r\n"):
        more = sock.recv(READ_BYTES)
        if not more:
            break
        head += more
    if not head.startswith(b"HTTP/1.1 101 "):
        sock.close()
        raise WrongAnswerError(f"no upgrade: {head[:200]!r}")
    return sock


@dataclass(slots=True)
class Peers:
    """
    Open connections in the middle of an echo, by file descriptor.

    unread: what has come of an echo that came in pieces.
    """

    sockets: dict[int, socket.socket]
    unread: dict[int, bytearray] = field(default_factory=dict)
    sent_at: dict[int, float] = field(default_factory=dict)

    def close(self) -> None:
        """
        Drop all connections.
        """
        for sock in self.sockets.values():
            sock.close()


def open_peers(port: int, count: int) -> Peers:
    """
    So many upgraded connections, non-blocking from here on.
    """
    peers = Peers({})
    try:
        for _ in range(count):
            sock = connect(port)
            sock.setblocking(False)
            peers.sockets[sock.fileno()] = sock
    except BaseException:
        peers.close()
        raise
    return peers


def whole_echo(unread: bytearray, expected: bytes) -> bool:
    """
    Whether *unread* is the whole expected echo; pings of the server in front of it are removed.

    Raises WrongAnswerError if it is something else.
    """
    while len(unread) >= 2 and unread[0] & 0x0F in (PING, PONG) and len(unread) >= 2 + unread[1]:
        del unread[: 2 + unread[1]]
    if len(unread) < len(expected):
        return False
    if unread != expected:
        raise WrongAnswerError(f"{len(unread)} bytes echoed, expected {len(expected)}: {bytes(unread[:40])!r}")
    return True


def run(peers: Peers, payload: bytes, seconds: float) -> list[float]:
    """
    Echo *payload* on all connections for so many seconds; the time that each echo took, in seconds.

    Raises WrongAnswerError, or MeasureError if the server falls silent or hangs up.
    """
    frame = client_frame(payload)
    with select.epoll() as poll:
        for fd, sock in peers.sockets.items():
            poll.register(fd, select.EPOLLIN)
            peers.sent_at[fd] = time.perf_counter()
            sock.send(frame)
        return echo(peers, poll, frame, server_frame(payload), time.perf_counter() + seconds)


def echo(peers: Peers, poll: select.epoll, frame: bytes, expected: bytes, end: float) -> list[float]:
    """
    The loop of run(), until the clock says *end*. Every name in it is a local one on purpose.
    """
    now, wait, size = time.perf_counter, poll.poll, len(frame)
    took: list[float] = []
    add, sent_at, unread = took.append, peers.sent_at, peers.unread
    calls = {fd: (sock.recv, sock.send) for fd, sock in peers.sockets.items()}
    while now() < end:
        ready = wait(SILENCE_S)
        if not ready:
            raise MeasureError(f"no echo for {SILENCE_S:g} s")
        for fd, _ in ready:
            recv, send = calls[fd]
            came = recv(READ_BYTES)
            if came != expected:
                if not came:
                    raise MeasureError("the server hung up")
                held = unread.setdefault(fd, bytearray())
                held += came
                if not whole_echo(held, expected):
                    continue
                held.clear()
            at = now()
            add(at - sent_at[fd])
            sent_at[fd] = at
            if send(frame) != size:
                raise MeasureError("the kernel took only part of a frame")
    return took


@dataclass(frozen=True, slots=True)
class EchoLoad:
    """
    CPU per echo of a text message of *size* bytes, throughput and latency.
    """

    size: int
    unit: str = "µs CPU per echo"
    fresh_starts: int = 0

    @property
    def payload(self) -> bytes:
        """
        ASCII text; what the bytes are makes no difference to any server here.
        """
        return (b"abcdefghijklmnopqrstuvwxyz 0123456789 " * (self.size // 38 + 1))[: self.size]

    def check(self, server: ServerProcess) -> None:
        """
        One echo is right.
        """
        server.await_answer(Request(length=13))
        peers = open_peers(server.port, 1)
        try:
            sock = next(iter(peers.sockets.values()))
            sock.settimeout(HANDSHAKE_S)
            sock.sendall(client_frame(self.payload))
            unread, expected = bytearray(), server_frame(self.payload)
            while not whole_echo(unread, expected):
                came = sock.recv(READ_BYTES)
                if not came:
                    raise WrongAnswerError(f"hung up after {len(unread)} of {len(expected)} bytes")
                unread += came
        finally:
            peers.close()

    def sample(self, server: ServerProcess, load: Load) -> Sample:
        """
        Run the load once, in this process. Upgrades come before the counted time, closing after it.
        """
        peers = open_peers(server.port, load.connections)
        try:
            cpu_s, started = server.cpu_s(), time.perf_counter()
            took = run(peers, self.payload, load.seconds)
            wall_s = time.perf_counter() - started
            cost, busy = cost_of_load(server, cpu_s, wall_s, len(took))
        finally:
            peers.close()
        ranked = sorted(took)
        p50, p99 = ranked[len(ranked) // 2] * 1000, ranked[len(ranked) * 99 // 100] * 1000
        return Sample(cost, len(took) / wall_s, p50, p99, busy)
