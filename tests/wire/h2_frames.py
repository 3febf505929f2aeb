"""
HTTP/2 in bytes: frames made by hand, right ones and wrong ones, and a client that keeps every frame it gets.

The client does only what it is told: it never gives a window back by itself, and answers SETTINGS unless it is told
not to. Header blocks are written here without Huffman and without a table, and read by `hpack`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from hpack import Decoder
from twisted.internet.address import IPv4Address

from txasgi.seam import Field
from txasgi.testing.conform.http_peer import Answer
from txasgi.testing.rig import Rig
from txasgi.testing.transports import MemoryTransport

KIB = 1024
MIB = 1024 * KIB
WHOLE = 1 << 30
# What a socket gives at a time.
READ_BYTES = 64 * KIB

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types (RFC 9113 section 6, RFC 7838, RFC 8336, RFC 9218)
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ALTSVC, ORIGIN, PRIORITY_UPDATE = 0xA, 0xC, 0x10

# Flags
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

# Settings
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)
ENABLE_CONNECT_PROTOCOL, NO_RFC7540_PRIORITIES = 8, 9

LARGEST_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535
FRAME_BYTES = 16384
STREAMS = 100


class Code(IntEnum):
    """
    Error codes (RFC 9113 section 7).
    """

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


# Frames


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """
    Any frame. length: what its header says, when that is not the truth.
    """
    size = len(payload) if length is None else length
    return size.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def integer(value: int, bits: int, first: int = 0) -> bytes:
    """
    RFC 7541 section 5.1. first: the bits in front of the prefix.
    """
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    found = bytearray([first | most])
    value -= most
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def text(value: bytes) -> bytes:
    """
    A string, not Huffman coded (RFC 7541 section 5.2).
    """
    return integer(len(value), 7) + value


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    """
    A field in full; with first=0x40 the table has it afterwards, at index 62 (RFC 7541 section 6.2).
    """
    return bytes([first]) + text(name) + text(value)


def block(fields: Iterable[Field]) -> bytes:
    """
    A header block that leaves the table as it is.
    """
    return b"".join(literal(name, value) for name, value in fields)


def asked(method: bytes = b"GET", path: bytes = b"/", *more: Field) -> list[Field]:
    """
    The fields of a request.
    """
    return [(b":method", method), (b":scheme", b"http"), (b":authority", b"a"), (b":path", path), *more]


def headers(stream: int, fields: Sequence[Field] | bytes, end: bool = True, size: int = FRAME_BYTES) -> bytes:
    """
    HEADERS, and as many CONTINUATION as frames of this size need. fields: or a header block.
    """
    encoded = fields if isinstance(fields, bytes) else block(fields)
    parts = [encoded[start : start + size] for start in range(0, len(encoded), size)] or [b""]
    last = len(parts) - 1
    found = frame(HEADERS, END_STREAM * end | END_HEADERS * (last == 0), stream, parts[0])
    for number, part in enumerate(parts[1:], 1):
        found += continuation(stream, part, number == last)
    return found


def get(stream: int, path: bytes = b"/", *more: Field) -> bytes:
    """
    A request without a body.
    """
    return headers(stream, asked(b"GET", path, *more))


def post(stream: int, path: bytes = b"/", *more: Field) -> bytes:
    """
    A request whose body follows.
    """
    return headers(stream, asked(b"POST", path, *more), end=False)


def continuation(stream: int, encoded: bytes = b"", end: bool = False) -> bytes:
    return frame(CONTINUATION, END_HEADERS * end, stream, encoded)


def data(stream: int, payload: bytes = b"", end: bool = False, pad: int | None = None) -> bytes:
    """
    DATA. pad: the length of its padding; None for a frame that cannot have one.
    """
    if pad is None:
        return frame(DATA, END_STREAM * end, stream, payload)
    return frame(DATA, END_STREAM * end | PADDED, stream, bytes([pad]) + payload + bytes(pad))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, payload=b"".join(name.to_bytes(2) + value.to_bytes(4) for name, value in pairs))


SETTINGS_ACK = frame(SETTINGS, ACK)


def ping(opaque: bytes = b"a ping..", ack: bool = False) -> bytes:
    return frame(PING, ACK * ack, payload=opaque)


def rst_stream(stream: int, code: int = Code.CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4))


def goaway(last: int = 0, code: int = Code.NO_ERROR, debug: bytes = b"") -> bytes:
    return frame(GOAWAY, payload=last.to_bytes(4) + code.to_bytes(4) + debug)


def priority(stream: int, parent: int = 0, weight: int = 16) -> bytes:
    """
    RFC 7540 section 6.3.
    """
    return frame(PRIORITY, 0, stream, parent.to_bytes(4) + bytes([weight - 1]))


def priority_update(stream: int, value: bytes = b"u=1") -> bytes:
    """
    RFC 9218 section 7.1.
    """
    return frame(PRIORITY_UPDATE, payload=stream.to_bytes(4) + value)


class Frame(NamedTuple):
    """
    A frame that was received.
    """

    kind: int
    flags: int
    stream: int
    payload: bytes


class GoneAway(NamedTuple):
    """
    A GOAWAY that was received.
    """

    last: int
    code: int
    debug: bytes


def split(received: bytearray) -> list[Frame]:
    """
    The frames in front of some bytes, which are taken away.
    """
    found = []
    position = 0
    while len(received) - position >= 9:
        end = position + 9 + int.from_bytes(received[position : position + 3])
        if end > len(received):
            break
        kind, flags = received[position + 3], received[position + 4]
        stream = int.from_bytes(received[position + 5 : position + 9])
        found.append(Frame(kind, flags, stream, bytes(received[position + 9 : end])))
        position = end
    del received[:position]
    return found


class Client:
    """
    A client on a connection of a Rig.

    sets: its settings. begin: it sends preface and SETTINGS at once. acks: it acknowledges those of the server.
    port: its own, to tell connections apart.

    frames: all that were received. answers, resets: by stream; resets have the error code.
    goaways, pongs: in order, pongs with the payload. sets_of_server: the last value of each.
    most_tasks: how many applications ran at once, of all connections, as seen after each read.
    """

    def __init__(
        self,
        rig: Rig,
        *sets: tuple[int, int],
        begin: bool = True,
        acks: bool = True,
        port: int = 54321,
        transport: MemoryTransport | None = None,
    ) -> None:
        self.rig = rig
        self.transport = transport or MemoryTransport(peer=IPv4Address("TCP", "192.0.2.7", port))
        self.acks = acks
        self.frames: list[Frame] = []
        self.answers: dict[int, Answer] = {}
        self.resets: dict[int, int] = {}
        self.goaways: list[GoneAway] = []
        self.pongs: list[bytes] = []
        self.sets_of_server: dict[int, int] = {INITIAL_WINDOW_SIZE: DEFAULT_WINDOW}
        self.most_tasks = 0
        self.given: dict[int, int] = {}
        self.uploaded: dict[int, int] = {}
        self._pending = bytearray()
        self._received = bytearray()
        self._decoder = Decoder(max_header_list_size=MIB)
        self._block = bytearray()
        rig.connect(self.transport)
        if begin:
            self.send(PREFACE + settings(*sets))

    # Sending

    def send(self, *parts: bytes, step: int = READ_BYTES) -> None:
        """
        Send bytes, so many in each read of the server; what it does not read yet stays pending.
        """
        self._pending += b"".join(parts)
        self.go_on(step)

    def go_on(self, step: int = READ_BYTES) -> None:
        """
        Send what is pending, let the server do what it has to do, and read what it wrote.
        """
        transport, loop = self.transport, self.rig.loop
        while self._pending and not transport.closed and not transport.disconnecting:
            if not transport.reading:
                self.rig.settle()
                if not transport.reading:
                    break
            piece = bytes(self._pending[:step])
            del self._pending[: len(piece)]
            transport.receive(piece)
            self.most_tasks = max(self.most_tasks, len(self.rig.gate.tasks))
            # One turn of the loop, as between two reads of a socket.
            loop.call_soon(loop.stop)
            loop.run_forever()
        self.settle()
        before = len(self._pending)
        self.read()
        if len(self._pending) > before:
            # The server's SETTINGS have come.
            self.go_on(step)
        if transport.disconnecting and not transport.closed and (transport.producer is None or transport.aborted):
            transport.finish()
            self.rig.settle()

    def settle(self) -> None:
        """
        Let the server write all that it can.
        """
        transport = self.transport
        written = -1
        while written != len(transport.written) + self.unread:
            written = len(transport.written) + self.unread
            self.rig.settle()

    @property
    def pending(self) -> int:
        """
        How many bytes the server does not read yet.
        """
        return len(self._pending)

    def credit(self, stream: int) -> int:
        """
        How many bytes of DATA the server allows now, by both windows.
        """
        initial = self.sets_of_server[INITIAL_WINDOW_SIZE]
        of_stream = initial + self.given.get(stream, 0) - self.uploaded.get(stream, 0)
        return min(of_stream, DEFAULT_WINDOW + self.given.get(0, 0) - self.uploaded.get(0, 0))

    def upload(self, stream: int, body: bytes, end: bool = False) -> int:
        """
        Send as much of a body as the windows allow, and its end if that is all of it; how much that was.
        """
        size = min(len(body), max(0, self.credit(stream)))
        cuts = range(0, size, FRAME_BYTES)
        parts = [data(stream, body[start : min(size, start + FRAME_BYTES)]) for start in cuts]
        if end and size == len(body):
            parts.append(data(stream, end=True))
        self.count(stream, size)
        self.send(*parts)
        return size

    def count(self, stream: int, size: int) -> None:
        """
        So many bytes of flow-controlled DATA were sent by hand.
        """
        self.uploaded[stream] = self.uploaded.get(stream, 0) + size
        self.uploaded[0] = self.uploaded.get(0, 0) + size

    def leave(self) -> None:
        """
        Close the connection.
        """
        self._pending.clear()
        self.transport.lose()
        self.rig.settle()

    # Receiving

    def read(self) -> None:
        """
        Take what the server wrote, frame by frame.
        """
        self._received += self.transport.take()
        for one in split(self._received):
            self.frames.append(one)
            self._take(one)

    def _take(self, one: Frame) -> None:
        assert len(one.payload) <= FRAME_BYTES, f"a frame of {len(one.payload)} bytes"
        assert not self._block or one.kind == CONTINUATION, f"{one} within a header block"
        assert self.frames[0].kind == SETTINGS, f"{self.frames[0]} before SETTINGS (section 3.4)"
        answer = self.answers.get(one.stream)
        if answer is not None and one.kind in (HEADERS, DATA):
            assert not answer.complete and one.stream not in self.resets, f"{one} behind the end of its stream"
        if one.kind in (HEADERS, CONTINUATION):
            self._block += _unpadded(one)
            if one.flags & END_HEADERS:
                self._take_fields(one)
        elif one.kind == DATA:
            self._answer(one.stream).body += _unpadded(one)
        elif one.kind == RST_STREAM:
            self.resets[one.stream] = int.from_bytes(one.payload)
            self._answer(one.stream).reset = True
        elif one.kind == GOAWAY:
            last, code = int.from_bytes(one.payload[:4]), int.from_bytes(one.payload[4:8])
            self.goaways.append(GoneAway(last, code, one.payload[8:]))
        elif one.kind == PING and one.flags & ACK:
            self.pongs.append(one.payload)
        elif one.kind == WINDOW_UPDATE:
            self.given[one.stream] = self.given.get(one.stream, 0) + int.from_bytes(one.payload)
        elif one.kind == SETTINGS and not one.flags & ACK:
            self._take_settings(one.payload)
        if one.kind in (HEADERS, DATA) and one.flags & END_STREAM:
            self._answer(one.stream).complete = True

    def _take_fields(self, last: Frame) -> None:
        fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(bytes(self._block), raw=True)]
        self._block.clear()
        answer = self._answer(last.stream)
        found = dict(fields).get(b":status")
        if found is None:
            answer.trailers = fields
        elif found.startswith(b"1"):
            answer.informational.append((int(found), fields))
        else:
            answer.status, answer.headers = int(found), fields

    def _take_settings(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            name = int.from_bytes(payload[start : start + 2])
            self.sets_of_server[name] = int.from_bytes(payload[start + 2 : start + 6])
        if self.acks:
            self._pending += SETTINGS_ACK

    def _answer(self, stream: int) -> Answer:
        return self.answers.setdefault(stream, Answer())

    def answer(self, stream: int) -> tuple[int, bytes]:
        """
        Status and body of an answer that is complete and not broken off.
        """
        answer = self.answers.get(stream)
        assert answer is not None, f"nothing for stream {stream}: {self.told}"
        assert answer.complete, f"{answer.status} and {len(answer.body)} bytes, not complete: {self.told}"
        assert self.resets.get(stream, Code.NO_ERROR) == Code.NO_ERROR, self.told
        return answer.status, answer.body

    def taken(self, kind: int, stream: int | None = None) -> list[Frame]:
        """
        The frames of one kind that were received, of one stream or of all.
        """
        return [one for one in self.frames if one.kind == kind and stream in (None, one.stream)]

    @property
    def told(self) -> str:
        """
        Resets and GOAWAY, for messages.
        """
        resets = {stream: Code(code).name for stream, code in list(self.resets.items())[:5]}
        goaways = [(one.last, Code(one.code).name, one.debug) for one in self.goaways]
        return f"resets {resets}, GOAWAY {goaways}, closed {self.transport.closed}"

    @property
    def closing(self) -> bool:
        """
        The server writes no more.
        """
        return self.transport.half_closed or self.transport.disconnecting or self.transport.closed

    @property
    def unread(self) -> int:
        """
        How many bytes the server has written that a client which reads nothing has not read.
        """
        return len(self.transport._unsent)


def _unpadded(one: Frame) -> bytes:
    payload = one.payload
    if one.flags & PADDED:
        payload = payload[1 : len(payload) - payload[0]]
    if one.kind == HEADERS and one.flags & PRIORITIZED:
        payload = payload[5:]
    return payload
