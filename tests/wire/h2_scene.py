"""
What the tests of HTTP/2's abuse share: an application that counts, a client that misbehaves, a neighbour that must
not notice, and a look at what is left when both are gone.
"""

from __future__ import annotations

import asyncio
import gc
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.wire.h1_client import deadlines
from tests.wire.h2_frames import KIB, MIB, STREAMS, Client, Code, data, get, ping, post, window_update

from txasgi.testing.rig import Rig, response_body, response_start

# The port of the one who misbehaves.
BAD = 666
# A connection error is told, and the connection closed, within 2 s; what is due comes up to a tick later.
CLOSED_S = 3.0
PIECE = bytes(range(256)) * 64
# What the server may hold for a client that reads nothing.
UNREAD_BYTES = MIB

# nghttp2 has codes of its own for what is too much.
TOO_MUCH = {Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR, Code.INTERNAL_ERROR}


class Places:
    """
    An application that does by path what a test needs, and counts.

    /          answers with the body, once all of it has come
    /hang      takes nothing and never answers
    /stubborn  the same, and cannot be cancelled until `released`
    /early     answers 413 and takes nothing
    /big/N     N pieces of 16 KiB

    begun: the paths, in order, of requests that the bad client sent. whole: those whose body came to its end.
    running, most: how many run for the bad client, now and at most.
    handed: bytes given to send(), by path.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.whole: list[str] = []
        self.running = 0
        self.most = 0
        self.handed: Counter[str] = Counter()
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        bad = scope["client"][1] == BAD
        if bad:
            self.begun.append(scope["path"])
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            await self._answer(scope["path"], receive, send)
        finally:
            self.running -= bad

    async def _answer(self, path: str, receive: Any, send: Any) -> None:
        if path == "/hang":
            await asyncio.Future()
        elif path == "/stubborn":
            while not self.released.is_set():
                with suppress(asyncio.CancelledError):
                    await self.released.wait()
        elif path == "/early":
            await send(response_start(413))
            await send(response_body(b"no"))
        elif path.startswith("/big/"):
            await send(response_start())
            for left in range(int(path[5:]) - 1, -1, -1):
                self.handed[path] += len(PIECE)
                await send(response_body(PIECE, more=left > 0))
        else:
            await self._echo(path, receive, send)

    async def _echo(self, path: str, receive: Any, send: Any) -> None:
        body = []
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body.append(message["body"])
            more = message["more_body"]
        self.whole.append(path)
        await send(response_start())
        await send(response_body(b"".join(body)))


class Scene:
    """
    A rig with an application, by default `Places`, and two clients.

    good: the neighbour, with an upload half done on stream 1. bads: made by `misbehave`.
    drained: the neighbour may be told to go away.
    """

    def __init__(self, **options: Any) -> None:
        self.app = Places()
        # Reports would be kept by the rig.
        self.rig = Rig(self.app, server=None, date=False, report=None, **options)
        self.before = self._kept()
        self.good = Client(self.rig, port=1)
        self.good.send(post(1), data(1, b"half "))
        self.next = 3
        self.bads: list[Client] = []
        self.drained = False

    def misbehave(self, *sets: tuple[int, int], clogged: bool = False, **how: Any) -> Client:
        """
        A connection of the bad client.
        """
        bad = Client(self.rig, *sets, port=BAD, **how)
        bad.transport.clogged = clogged
        self.bads.append(bad)
        return bad

    def meanwhile(self) -> None:
        """
        The neighbour is answered, and the bad client has no more than its share of tasks.
        """
        good, stream = self.good, self.next
        self.next += 2
        good.send(get(stream, b"/meanwhile"), ping(stream.to_bytes(8)))
        assert good.answer(stream) == (200, b"")
        assert good.pongs[-1] == stream.to_bytes(8)
        assert good.goaways == []
        self.check_tasks()

    def check_tasks(self) -> None:
        """
        The bad client never had more applications run than its connections may have streams. One is the neighbour's.
        """
        allowed = STREAMS * len(self.bads)
        assert self.app.most <= allowed
        assert max(bad.most_tasks for bad in self.bads) <= allowed + 1
        assert len(self.rig.gate.tasks) <= allowed + 1

    def usable(self, bad: Client, stream: int) -> None:
        """
        The bad client's connection still answers a right request.
        """
        assert not bad.goaways and not bad.closing, bad.told
        bad.send(post(stream, b"/usable"), data(stream, b"ok", end=True))
        assert bad.answer(stream) == (200, b"ok")

    def connection_error(self, bad: Client, codes: Iterable[int], silent: bool = False) -> None:
        """
        The bad client reads GOAWAY with one of these codes, and its connection is closed in time (RFC 9113 section
        5.4.1). silent: it may be closed without a word.
        """
        bad.go_on()
        transport = bad.transport
        if bad.goaways or not silent:
            assert bad.goaways, f"no GOAWAY: {bad.told}, {bad.frames[-3:]}"
            assert Code(bad.goaways[-1].code) in set(codes)
            # What a close loses that does not wait (RFC 9112 section 9.6) loses the GOAWAY.
            assert not transport.aborted, "aborted before the GOAWAY can have arrived"
        begun = len(self.app.begun)
        self.closes_in_time(bad)
        assert len(self.app.begun) == begun

    def closes_in_time(self, bad: Client) -> None:
        """
        The server ends its side at once, and the connection in two seconds.
        """
        assert bad.closing
        for _ in range(int(CLOSED_S * 2)):
            if bad.transport.closed:
                break
            self.rig.advance(0.5)
            bad.go_on()
        assert bad.transport.closed, f"still open after {CLOSED_S} s: {bad.told}"

    def stream_error(self, bad: Client, stream: int, codes: Iterable[int], *, connection: bool = False) -> None:
        """
        A stream was reset with one of these codes, or, as RFC 9113 section 5.4.1 allows if a test does, the connection.
        """
        bad.go_on()
        if connection and bad.goaways:
            self.connection_error(bad, codes)
            return
        assert stream in bad.resets, f"no RST_STREAM for {stream}: {bad.told}, {bad.answers.get(stream)}"
        assert Code(bad.resets[stream]) in set(codes)
        assert not bad.goaways, bad.told

    def _kept(self) -> Counter[str]:
        """
        The wires' objects there are, by the name of their class.
        """
        gc.collect()
        kinds = map(type, gc.get_objects())
        return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("txasgi.wire"))

    def end(self) -> None:
        """
        The neighbour's upload is answered; when all clients are gone, nothing of them is left.
        """
        rig, good = self.rig, self.good
        good.send(data(1, b"done", end=True))
        assert good.answer(1) == (200, b"half done")
        assert good.goaways == [] or self.drained
        self.app.released.set()
        for client in [*self.bads, good]:
            if not client.transport.closed:
                client.leave()
        # disconnect_grace_s, and a tick
        rig.advance(11.5)
        assert rig.front.connections == set()
        assert rig.gate.tasks == set()
        assert deadlines(rig) == []
        assert rig.errors == []
        # The rig's own notes; their tracebacks know the connection.
        rig.refusals.clear()
        kept = self._kept() - self.before
        assert kept == Counter()


def open_wide(*streams: int) -> bytes:
    """
    WINDOW_UPDATE as large as allowed, for the connection and these streams.
    """
    return b"".join(window_update(stream, 2**31 - 1 - 65535) for stream in (0, *streams))


def resident_bytes() -> int:
    """
    What this process takes of memory.
    """
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * KIB
