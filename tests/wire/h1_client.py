"""
HTTP/1.1 in bytes: a client, and what its tests share. What every wire does is in the conformance suite; the modules
`test_h1_*` beside this one have what only HTTP/1.1 does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from txasgi.testing.conform.http_peer import Answer
from txasgi.testing.h1_peer import read_answers
from txasgi.testing.rig import Rig, response_body, response_start
from txasgi.testing.transports import MemoryTransport

KIB = 1024
MIB = 1024 * KIB

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n"
# A protocol that is not spoken (RFC 9110 section 7.8 has it for an example); one that is, but not behind a body.
IRC = (b"Connection: Upgrade", b"Upgrade: IRC/6.9")
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")


def get(target: bytes = b"/", *lines: bytes) -> bytes:
    """
    A GET with these header lines behind Host.
    """
    return b"".join(line + b"\r\n" for line in (b"GET " + target + b" HTTP/1.1", b"Host: a", *lines, b""))


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/") -> bytes:
    """
    A POST with these header lines behind Host; framing is the caller's.
    """
    return b"".join(line + b"\r\n" for line in (b"POST " + target + b" HTTP/1.1", b"Host: a", *lines, b"")) + body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """
    Answers with path, query and body; not at all when the client leaves within the body.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await send(response_start(200, [(b"x-path", scope["raw_path"]), (b"x-query", scope["query_string"])]))
    await send(response_body(body))


class Client:
    """
    A client that sends bytes and reads with h11.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.transport: MemoryTransport = rig.connect()
        self.pending = bytearray()

    def send(self, data: bytes, step: int = 1 << 30) -> None:
        """
        Send bytes, so many in each read; what the server does not read yet stays pending.
        """
        self.pending += data
        self.go_on(step)

    def go_on(self, step: int = 1 << 30) -> None:
        """
        Send what is pending.
        """
        transport = self.transport
        if self.pending and not transport.reading:
            self.settle()
        while self.pending and transport.reading and not transport.closed:
            piece = bytes(self.pending[:step])
            del self.pending[:step]
            transport.receive(piece)
            # One turn of the loop, as between two reads of a socket.
            self.rig.loop.call_soon(self.rig.loop.stop)
            self.rig.loop.run_forever()
            if not transport.reading:
                self.settle()
        self.settle()
        if transport.disconnecting and not transport.closed:
            transport.finish()
            self.rig.settle()

    def settle(self) -> None:
        """
        Let the server answer what it has read.
        """
        answered = -1
        while len(self.rig.outcomes) != answered:
            answered = len(self.rig.outcomes)
            self.rig.loop.run_until_complete(spin())

    def leave(self) -> None:
        """
        Close the connection.
        """
        self.transport.lose()
        self.rig.settle()

    @property
    def written(self) -> bytes:
        """
        Everything the server sent.
        """
        self.go_on()
        return bytes(self.transport.written)

    @property
    def ended(self) -> bool:
        """
        The server closed its side in an orderly way.
        """
        self.go_on()
        transport = self.transport
        return transport.half_closed or (transport.disconnecting and not transport.aborted)

    def answers(self, *methods: str) -> list[Answer]:
        """
        What the server answered to these methods, or to any number of GETs.
        """
        written = self.written
        return read_answers(written, methods or ["GET"] * 10_000, self.ended, self.transport.aborted)

    def statuses(self, *methods: str) -> list[int]:
        """
        The statuses of the answers, each of which is complete.
        """
        answers = self.answers(*methods)
        assert all(answer.complete for answer in answers)
        return [answer.status for answer in answers]


Serve = Callable[..., Client]


async def spin() -> None:
    """
    Twenty turns of the loop.
    """
    for _ in range(20):
        await asyncio.sleep(0)


def pass_time(rig: Rig, seconds: float) -> None:
    """
    Let time pass where nothing happens at any moment but at the end.
    """
    for _ in range(int(seconds * 2)):
        rig.clock.advance(0.5)
    rig.settle()


def quiet(caplog: pytest.LogCaptureFixture) -> bool:
    """
    Nothing was logged as an error.
    """
    return [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def deadlines(rig: Rig) -> list[Any]:
    """
    Who still waits for a point in time.
    """
    return [waiter for bucket in rig.deadlines._buckets.values() for waiter in bucket if waiter.deadline is not None]


def head_lines(written: bytes) -> tuple[bytes, set[bytes], bytes]:
    """
    Status line, field lines and body of one answer.
    """
    head, _, body = written.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert len(lines) == len(set(lines))
    return first, set(lines), body
