"""
An HTTP/2 client on the package h2, which shares nothing with ours, for `conform.http`.
"""

from __future__ import annotations

from collections.abc import Sequence

from txasgi.seam import Address, Field
from txasgi.testing.conform.http_peer import Answer
from txasgi.testing.h2_client import H2Client, Hold
from txasgi.testing.h2_crowd import crowd
from txasgi.testing.h2_stream import ClientStream
from txasgi.testing.rig import Rig
from txasgi.testing.transports import MemoryTransport


class H2Peer:
    """
    A client on one connection of a Rig; an `HttpPeer`.

    trickle: so many bytes of each sending arrive one by one.
    hold: how `clog` stops reading.
    crowded: the connection has other streams, which stand still; the Rig needs `beside`.
    pushes: the server may push.

    transport: the server's end of it.
    """

    version = "2"
    client: Address = ("192.0.2.7", 54321)
    server: Address = ("127.0.0.1", 8000)
    multiplexed = True
    trailers_out = True
    trailers_in = True
    early_hints = True

    def __init__(
        self,
        rig: Rig,
        trickle: int = 0,
        hold: Hold = "transport",
        crowded: bool = False,
        pushes: bool = False,
    ) -> None:
        self.rig = rig
        self.pushes = pushes
        self._connection = H2Client(rig, trickle, hold, pushes=pushes)
        self._requests: list[ClientStream] = []
        if crowded:
            crowd(self._connection)

    @property
    def transport(self) -> MemoryTransport:
        """
        The server's end.
        """
        return self._connection.transport

    @property
    def alive(self) -> bool:
        """
        A further request may be answered.
        """
        self._connection.settle()
        return self._connection.alive

    def request(
        self,
        method: str = "GET",
        target: bytes = b"/",
        headers: Sequence[Field] = (),
        body: bytes | None = None,
        end: bool = True,
    ) -> int:
        """
        `HttpPeer.request`
        """
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"http"),
            (b":authority", b"conform.test"),
            (b":path", target),
            *headers,
        ]
        if end and body is not None and b"content-length" not in dict(headers):
            fields.append((b"content-length", b"%d" % len(body)))
        whole = end and body is None
        stream = self._connection.open(fields, end=whole)
        self._requests.append(stream)
        if not whole:
            self.body(len(self._requests) - 1, body or b"", end)
        return len(self._requests) - 1

    def body(self, handle: int, chunk: bytes = b"", end: bool = False, trailers: Sequence[Field] = ()) -> None:
        """
        `HttpPeer.body`
        """
        self._connection.send(self._requests[handle], chunk, end=end, trailers=trailers)

    def unsent(self, handle: int) -> int:
        """
        `HttpPeer.unsent`
        """
        self._connection.settle()
        return self._requests[handle].untaken + self._connection.pending

    def answer(self, handle: int) -> Answer:
        """
        `HttpPeer.answer`
        """
        self._connection.settle()
        return self._connection.answer(self._requests[handle])

    def pushed(self, handle: int) -> list[tuple[int, list[Field]]]:
        """
        `HttpPeer.pushed`
        """
        self._connection.settle()
        found = []
        for stream in self._requests[handle].pushed:
            if stream not in self._requests:
                self._requests.append(stream)
            found.append((self._requests.index(stream), stream.promised))
        return found

    def abandon(self, handle: int) -> None:
        """
        `HttpPeer.abandon`: RST_STREAM.
        """
        self._connection.reset(self._requests[handle])

    def leave(self) -> None:
        """
        `HttpPeer.leave`
        """
        self._connection.leave()

    def clog(self) -> None:
        """
        `HttpPeer.clog`
        """
        self._connection.clog()

    def unclog(self) -> None:
        """
        `HttpPeer.unclog`
        """
        self._connection.unclog()
