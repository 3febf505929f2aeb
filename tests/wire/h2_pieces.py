"""
What the tests of HTTP/2's flow control share: an application that sends and takes bodies, and a client that counts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.wire.h2_frames import (
    DATA,
    DEFAULT_WINDOW,
    INITIAL_WINDOW_SIZE,
    KIB,
    MIB,
    Client,
    Frame,
    window_update,
)

from txasgi.testing.rig import Rig, response_body, response_start
from txasgi.testing.transports import MemoryTransport

PIECE_BYTES = 16 * KIB
# The largest window that the server may open for a stream whose application takes nothing.
STREAM_BYTES = MIB
# Queued for one stream before send() waits, and the piece that was too much.
QUEUED_BYTES = 64 * KIB + PIECE_BYTES


class CountingTransport(MemoryTransport):
    """
    writes: the length of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []

    def write(self, data: bytes) -> None:
        self.writes.append(len(data))
        super().write(data)


class Reader(Client):
    """
    A client that opens windows by `allow` and sees to it that no more comes through them.
    """

    def __init__(self, rig: Rig, initial: int = DEFAULT_WINDOW, **how: Any) -> None:
        self.initial = initial
        self.allowed: Counter[int] = Counter()
        self.got: Counter[int] = Counter()
        super().__init__(rig, (INITIAL_WINDOW_SIZE, initial), **how)

    def allow(self, stream: int, size: int) -> bytes:
        """
        A WINDOW_UPDATE, to be sent.
        """
        self.allowed[stream] += size
        return window_update(stream, size)

    def _take(self, one: Frame) -> None:
        if one.kind == DATA:
            for stream, initial in ((one.stream, self.initial), (0, DEFAULT_WINDOW)):
                self.got[stream] += len(one.payload)
                room = initial + self.allowed[stream] - self.got[stream]
                # An empty frame needs no room, and the window may be below zero (section 6.9.2).
                assert room >= 0 or not one.payload, f"{-room} bytes too many on {stream}"
        super()._take(one)


def content(path: str, pieces: int) -> Iterator[bytes]:
    """
    So many pieces that tell paths, and each other, apart.
    """
    seed = sum(path.encode())
    return (bytes([(seed + number) % 251]) * PIECE_BYTES for number in range(pieces))


class Pieces:
    """
    An application that sends /big/N in N pieces, takes nothing at /deaf, and answers the rest with its body.

    handed: bytes given to send(). accepted: those for which it has returned.
    """

    def __init__(self) -> None:
        self.handed: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path.startswith("/deaf"):
            await asyncio.Future()
        elif path.startswith("/big/"):
            await send(response_start())
            for piece in content(path, int(path.split("/")[2])):
                self.handed[path] += len(piece)
                await send(response_body(piece, more=True))
                self.accepted[path] += len(piece)
            await send(response_body(b""))
        else:
            body = []
            more = True
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return
                self.messages[path] += 1
                body.append(message["body"])
                more = message["more_body"]
            await send(response_start())
            await send(response_body(b"".join(body)))


def whole(path: str) -> bytes:
    return b"".join(content(path, int(path.split("/")[2])))


def turns(rig: Rig, count: int = 30) -> Iterator[None]:
    """
    One turn of the loop after another.
    """
    for _ in range(count):
        rig.loop.call_soon(rig.loop.stop)
        rig.loop.run_forever()
        yield
