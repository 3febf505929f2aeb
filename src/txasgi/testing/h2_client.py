"""
An HTTP/2 connection from the client's side, in memory: what `h2_peer` and `h2_websocket_peer` stand on.

The package h2 speaks HTTP/2 here; it shares nothing with ours, and raises for what a server must not do, which fails
the test. Theory of operation:

* What the server does to its transport wakes the client; it moves once in the next turn of the loop, as a socket would
  make it: it reads what was written, gives windows back, and hands over one read. `Rig.settle` goes on for as long as
  a client is awake.
* Body bytes wait in the queue of their stream until the windows let them go; what left it waits in `_outgoing` until
  the server reads.
* GOAWAY is kept from h2, which takes the first one for the end of the connection
  (https://github.com/python-hyper/h2/issues/1181).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PushedStreamReceived
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings
from twisted.internet.interfaces import IHandshakeListener, INegotiated, ISSLTransport
from zope.interface import directlyProvides, providedBy

from txasgi.seam import Field
from txasgi.testing.conform.http_peer import Answer
from txasgi.testing.h2_stream import ClientStream, plain
from txasgi.testing.rig import Rig
from txasgi.testing.transports import MemoryTransport

# What a socket gives at a time.
READ_BYTES = 64 * 1024

Hold = Literal["transport", "windows"]
"""
How a client stops reading: it leaves the bytes in the socket, or it takes them and gives no window back.
"""

# RFC 9113 section 4.1 and 6.8
_FRAME_HEAD = 9
_GOAWAY = 0x7


class _Transport(MemoryTransport):
    """
    Tells the client what the server does, as a socket tells its selector.
    """

    # What Twisted's TLS transports say of ALPN.
    negotiatedProtocol = b"h2"

    def __init__(self, client: H2Client) -> None:
        super().__init__()
        self._client = client

    def write(self, data: bytes) -> None:
        """
        The server writes.
        """
        super().write(data)
        self._client.wake()

    def resumeProducing(self) -> None:
        """
        The server reads on.
        """
        super().resumeProducing()
        self._client.wake()

    def loseConnection(self) -> None:
        """
        The server closes.
        """
        super().loseConnection()
        self._client.wake()

    def abortConnection(self) -> None:
        """
        The server breaks off.
        """
        super().abortConnection()
        self._client.wake()

    def unregisterProducer(self) -> None:
        """
        The server has nothing more to write.
        """
        super().unregisterProducer()
        self._client.wake()


class H2Client:
    """
    The client's end of one connection of a Rig, with prior knowledge (RFC 9113 section 3.3).

    trickle: so many bytes of each sending arrive one by one.
    hold: what `clog` does.
    secure: over TLS.
    pushes: the server may push.

    transport: the server's end of it.
    goaway: (last stream, code) of the last GOAWAY.
    """

    def __init__(
        self, rig: Rig, trickle: int = 0, hold: Hold = "transport", secure: bool = False, pushes: bool = False
    ) -> None:
        self.rig = rig
        self.goaway: tuple[int, int] | None = None
        self.streams: dict[int, ClientStream] = {}
        self._trickle = self._one_by_one = trickle
        self._hold = hold
        self._clogged = False
        self._awake = False
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._rotation = itertools.count()
        self._fault: BaseException | None = None
        self.h2 = H2Connection(H2Configuration(header_encoding=None, normalize_inbound_headers=False))
        self.h2.local_settings = Settings(
            initial_values={SettingCodes.ENABLE_PUSH: int(pushes), SettingCodes.MAX_HEADER_LIST_SIZE: 1024 * 1024}
        )
        self.transport = _Transport(self)
        if secure:
            directlyProvides(self.transport, ISSLTransport, INegotiated, providedBy(self.transport))
        rig.connect(self.transport)
        if secure and IHandshakeListener.providedBy(self.transport.protocol):
            self.transport.protocol.handshakeCompleted()
        self.h2.initiate_connection()
        self.settle()

    @property
    def ended(self) -> bool:
        """
        The server closed its side, in an orderly way or not.
        """
        transport = self.transport
        return transport.half_closed or transport.disconnecting or transport.closed

    @property
    def alive(self) -> bool:
        """
        A further request may be sent.
        """
        return not self.ended and self.goaway is None

    @property
    def pending(self) -> int:
        """
        Bytes, of whatever stream, that the server does not read.
        """
        return len(self._outgoing)

    # What the client does; each settles the rig

    def open(self, fields: Sequence[Field], end: bool, reads: bool = True) -> ClientStream:
        """
        Send a head, pseudo fields included.
        """
        assert self.alive, "the connection takes no further request"
        number = self.h2.get_next_available_stream_id()
        stream = self.streams[number] = ClientStream(number, dict(fields)[b":method"], reads)
        self.h2.send_headers(number, fields, end_stream=end)
        self._one_by_one = self._trickle
        self.settle()
        return stream

    def send(
        self,
        stream: ClientStream,
        data: bytes = b"",
        read_bytes: int = READ_BYTES,
        end: bool = False,
        trailers: Sequence[Field] = (),
    ) -> None:
        """
        Send body bytes, as soon as the windows let them go; ignored once the stream was reset.

        read_bytes: the server gets so many of them at a time.
        """
        if not (stream.was_reset or self.transport.closed):
            stream.queue(data, read_bytes, end, trailers)
        self._one_by_one = self._trickle
        self.settle()

    def reset(self, stream: ClientStream, code: ErrorCodes = ErrorCodes.CANCEL) -> None:
        """
        Send RST_STREAM, unless the stream is closed.
        """
        stream.drop()
        try:
            self.h2.reset_stream(stream.number, code)
        except StreamClosedError:
            pass
        else:
            stream.given_up = True
            stream.answer.reset = True
        self.settle()

    def raw(self, frame: bytes) -> None:
        """
        Send a frame that h2 does not know, or must not know of.
        """
        self._outgoing += self.h2.data_to_send() + frame
        self.settle()

    def leave(self) -> None:
        """
        The connection is gone.
        """
        self._outgoing.clear()
        for stream in self.streams.values():
            stream.drop()
        self.transport.lose()
        self.settle()

    def clog(self) -> None:
        """
        Stop reading.
        """
        self._clogged = True
        self.transport.clogged = self._hold == "transport"

    def unclog(self) -> None:
        """
        Read everything, from now on.
        """
        self._clogged = False
        self.transport.unclog()
        for stream in self.streams.values():
            self._acknowledge(stream)
        self.settle()

    def settle(self) -> None:
        """
        Let everything happen that can.
        """
        self.wake()
        self.rig.settle()
        if self._fault is not None:
            raise self._fault

    # The network, from the loop

    def wake(self) -> None:
        """
        Move in the next turn of the loop.
        """
        if not self._awake:
            self._awake = True
            self.rig.awake.add(self)
            self.rig.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._awake = False
        self.rig.awake.discard(self)
        try:
            self._move()
        except BaseException as fault:
            # The loop tells Rig.errors of it; the test shall hear of it where it happens.
            self._fault = fault
            raise

    def _move(self) -> None:
        self.read()
        transport = self.transport
        if transport.disconnecting and (transport.aborted or transport.producer is None):
            transport.finish()
        if transport.closed or transport.disconnecting:
            self._outgoing.clear()
            return
        if not self._outgoing:
            self._fill()
        if self._outgoing and transport.reading:
            self._hand_over()
            self.wake()

    def _hand_over(self) -> None:
        size = 1 if self._one_by_one > 0 else len(self._outgoing)
        self._one_by_one -= 1
        data = bytes(self._outgoing[:size])
        del self._outgoing[:size]
        self.transport.receive(data)

    def _fill(self) -> None:
        """
        A read's worth: what h2 has to say, and the body of one stream, each stream in its turn.
        """
        streams = [stream for stream in self.streams.values() if not stream.was_reset]
        start = next(self._rotation) % len(streams) if streams else 0
        for stream in streams[start:] + streams[:start]:
            if stream.send(self.h2):
                break
        self._outgoing += self.h2.data_to_send()

    def read(self) -> None:
        """
        Read what was written; the loop need not run.
        """
        self._incoming += self.transport.take()
        while len(self._incoming) >= _FRAME_HEAD:
            size = _FRAME_HEAD + int.from_bytes(self._incoming[:3], "big")
            if len(self._incoming) < size:
                break
            frame = bytes(self._incoming[:size])
            del self._incoming[:size]
            if frame[3] == _GOAWAY:
                self._heard_goaway(frame[_FRAME_HEAD:])
            else:
                for event in self.h2.receive_data(frame):
                    self._heard(event)

    def _heard(self, event: Event) -> None:
        if isinstance(event, PushedStreamReceived):
            self._heard_promise(event)
        stream = self.streams.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        stream.heard(event)
        if isinstance(event, DataReceived):
            if stream.reads:
                stream.unacknowledged += event.flow_controlled_length
                if not self._clogged:
                    self._acknowledge(stream)
            else:
                self.h2.increment_flow_control_window(event.flow_controlled_length)

    def _heard_promise(self, event: PushedStreamReceived) -> None:
        number = event.pushed_stream_id
        assert number is not None and event.parent_stream_id is not None and event.headers is not None
        stream = self.streams[number] = ClientStream(number, b"GET", reads=True)
        stream.promised = plain(event.headers)
        self.streams[event.parent_stream_id].pushed.append(stream)

    def _acknowledge(self, stream: ClientStream) -> None:
        size, stream.unacknowledged = stream.unacknowledged, 0
        if size:
            self.h2.acknowledge_received_data(size, stream.number)
            self.wake()

    def _heard_goaway(self, payload: bytes) -> None:
        last, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
        assert self.goaway is None or last <= self.goaway[0], "a later GOAWAY takes more streams (RFC 9113 section 6.8)"
        self.goaway = last, code
        assert code == ErrorCodes.NO_ERROR, f"GOAWAY {ErrorCodes(code)!r}, {payload[8:]!r}"

    # What became of a request

    def answer(self, stream: ClientStream) -> Answer:
        """
        What has been read of an answer by now.
        """
        answer = stream.answer
        unprocessed = self.goaway is not None and not stream.promised and stream.number > self.goaway[0]
        return Answer(
            answer.status,
            list(answer.headers),
            stream.body(),
            answer.complete,
            answer.reset or ((self.ended or unprocessed) and not answer.complete),
            list(answer.informational),
            list(answer.trailers),
        )
