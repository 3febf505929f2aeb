"""
A WebSocket client over HTTP/1.1 (RFC 6455), for `conform.websocket`: h11 reads the answer, wsproto the frames.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Iterable
from typing import Any

import h11
from twisted.internet.interfaces import ISSLTransport
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameDecoder, MessageDecoder, Opcode
from zope.interface import directlyProvides, providedBy

from txasgi.seam import Field
from txasgi.testing.conform.websocket_peer import Frame
from txasgi.testing.rig import Rig
from txasgi.testing.transports import MemoryTransport

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
        self._decoder: FrameDecoder | None = None
        self._messages = MessageDecoder()
        self._parts: list[Any] = []
        self._frames: list[Frame] = []
        self._received = 0

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
        return self._received

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
        frames, self._frames = self._frames, []
        return frames

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
        if self._decoder is None:
            self._read_answer(data)
        elif data:
            self._read_frames(data)

    def _read_answer(self, data: bytes) -> None:
        http = self._http
        if data:
            http.receive_data(data)
        while not self._complete and self._decoder is None:
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
        extensions = []
        if agreed := answer.get(b"sec-websocket-extensions"):
            deflate = PerMessageDeflate()
            deflate.finalize(agreed.decode())
            extensions.append(deflate)
        self._decoder = FrameDecoder(client=True, extensions=[*extensions])
        rest, _ = self._http.trailing_data
        if rest:
            self._read_frames(bytes(rest))

    def _read_frames(self, data: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        self._received += len(data)
        decoder.receive_bytes(data)
        while (frame := decoder.process_buffer()) is not None:
            payload: Any = frame.payload
            if frame.opcode is Opcode.CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                self._frames.append(("close", (code, bytes(payload[2:]).decode())))
            elif frame.opcode.iscontrol():
                self._frames.append((frame.opcode.name.lower(), payload))
            else:
                frame = self._messages.process_frame(frame)
                self._parts.append(frame.payload)
                if frame.message_finished:
                    is_text = frame.opcode is Opcode.TEXT
                    whole = "".join(self._parts) if is_text else b"".join(self._parts)
                    self._frames.append(("text" if is_text else "bytes", whole))
                    self._parts.clear()
