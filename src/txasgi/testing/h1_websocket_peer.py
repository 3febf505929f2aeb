"""
A WebSocket client over HTTP/1.1 (RFC 6455), for `conform.websocket`: h11 reads the answer, wsproto the frames.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable

import h11
from twisted.internet.interfaces import ISSLTransport
from zope.interface import directlyProvides, providedBy

from txasgi.seam import Field
from txasgi.testing.conform.websocket_peer import Frame
from txasgi.testing.rig import Rig
from txasgi.testing.transports import MemoryTransport
from txasgi.testing.websocket_frames import FrameReader

# RFC 6455 section 1.3
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class _Transport(MemoryTransport):
    """
    When the server reads on, what was sent meanwhile comes from the loop, as from a socket.
    """

    def __init__(self, peer: H1WebSocketPeer) -> None:
        super().__init__()
        self._owner = peer

    def resumeProducing(self) -> None:
        """
        The server reads on.
        """
        super().resumeProducing()
        self._owner.rig.loop.call_soon(self._owner.deliver)


class H1WebSocketPeer:
    """
    One client; `WebSocketPeer` tells what its calls do.

    transport: None before `open`.
    """

    multiplexed = False

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.transport: MemoryTransport | None = None
        self._http = h11.Connection(h11.CLIENT)
        self._key = base64.b64encode(os.urandom(16))
        self._status: int | None = None
        self._headers: list[Field] = []
        self._body = b""
        self._complete = False
        self._outgoing: list[tuple[memoryview, int]] = []
        self._frames: FrameReader | None = None

    @property
    def _connected(self) -> MemoryTransport:
        assert self.transport is not None, "open() comes first"
        return self.transport

    @property
    def status(self) -> int | None:
        """
        Of the answer.
        """
        self._read()
        return self._status

    @property
    def headers(self) -> list[Field]:
        """
        Of the answer.
        """
        self._read()
        return self._headers

    @property
    def body(self) -> bytes:
        """
        Of the answer.
        """
        self._read()
        return self._body

    @property
    def complete(self) -> bool:
        """
        The answer is whole.
        """
        self._read()
        return self._complete

    @property
    def closed(self) -> bool:
        """
        The server has closed its side, or all of it.
        """
        transport = self._connected
        ended = transport.aborted or (transport.disconnecting and transport.producer is None)
        return transport.half_closed or transport.closed or ended

    @property
    def alive(self) -> bool:
        """
        The WebSocket is all that the connection carries.
        """
        return not self.closed

    @property
    def untaken(self) -> int:
        """
        Bytes that wait for the server to read.
        """
        return sum(len(view) for view, _ in self._outgoing)

    @property
    def received(self) -> int:
        """
        Bytes behind the answer.
        """
        self._read()
        return self._frames.received if self._frames is not None else 0

    def open(
        self,
        target: bytes = b"/",
        headers: Iterable[Field] = (),
        subprotocols: Iterable[str] = (),
        extensions: Iterable[str] = (),
        secure: bool = False,
    ) -> None:
        """
        GET with Upgrade (RFC 6455 section 4.1).
        """
        fields = [
            (b"Host", b"example.com"),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", self._key),
            (b"Sec-WebSocket-Version", b"13"),
            *headers,
        ]
        offered = ", ".join(subprotocols)
        if offered:
            fields.append((b"Sec-WebSocket-Protocol", offered.encode()))
        fields += [(b"Sec-WebSocket-Extensions", extension.encode()) for extension in extensions]
        self.transport = _Transport(self)
        if secure:
            directlyProvides(self.transport, ISSLTransport, providedBy(self.transport))
        self.rig.connect(self.transport)
        request = self._http.send(h11.Request(method="GET", target=target, headers=fields))
        self._http.send(h11.EndOfMessage())
        assert request is not None
        self.send_raw(request)

    def send_raw(self, data: bytes, read_bytes: int = 65536) -> None:
        """
        To the server, if it reads; else it waits here.
        """
        if data:
            self._outgoing.append((memoryview(data), read_bytes))
        self.deliver()
        self.rig.settle()

    def deliver(self) -> None:
        """
        Hand over what waits, as long as the server reads.
        """
        transport = self._connected
        while self._outgoing and (transport.closed or transport.disconnecting):
            self._outgoing.pop()
        while self._outgoing and transport.reading:
            view, read_bytes = self._outgoing[0]
            if len(view) > read_bytes:
                self._outgoing[0] = (view[read_bytes:], read_bytes)
            else:
                del self._outgoing[0]
            transport.receive(bytes(view[:read_bytes]))

    def frames(self) -> list[Frame]:
        """
        What came; taken.
        """
        self._read()
        return self._frames.take() if self._frames is not None else []

    def leave(self) -> None:
        """
        connectionLost.
        """
        transport = self._connected
        self._read()
        self._outgoing.clear()
        transport.lose()
        self.rig.settle()

    def clog(self) -> None:
        """
        The socket's buffer is full.
        """
        self._connected.clogged = True

    def unclog(self) -> None:
        """
        The socket's buffer is empty.
        """
        self._connected.unclog()
        self.rig.settle()

    def _read(self) -> None:
        data = self._connected.take()
        if self._frames is None:
            self._read_answer(data)
        elif data:
            self._frames.read(data)

    def _read_answer(self, data: bytes) -> None:
        http = self._http
        if data:
            http.receive_data(data)
        while not self._complete and self._frames is None:
            event = http.next_event()
            if event is h11.NEED_DATA:
                break
            if isinstance(event, (h11.Response, h11.InformationalResponse)):
                self._status = event.status_code
                self._headers = list(event.headers)
                if event.status_code == 101:
                    self._switch()
            elif isinstance(event, h11.Data):
                self._body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._complete = True

    def _switch(self) -> None:
        answer = dict(self._headers)
        expected = base64.b64encode(hashlib.sha1(self._key + _GUID).digest())
        assert answer[b"sec-websocket-accept"] == expected
        assert answer[b"upgrade"].lower() == b"websocket" and answer[b"connection"].lower() == b"upgrade"
        self._frames = FrameReader(self._headers)
        rest, _ = self._http.trailing_data
        if rest:
            self._frames.read(bytes(rest))
