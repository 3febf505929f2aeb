"""
Frames, in every size and cut: through HTTP/1.1 bytes, with wsproto as the other side.
"""

import random
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode

from txasgi.asgi.websocket import WebSocketOptions
from txasgi.testing.conform.websocket_peer import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    TEXT,
    Frame,
    close,
    content,
    deflate,
    departure,
    frame,
    header,
    masked,
    text,
)
from txasgi.testing.h1_websocket_peer import H1WebSocketPeer
from txasgi.testing.rig import Call, Rig, Script
from txasgi.ws import engine

LENGTHS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537)
MIB = 1024 * 1024


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    engine.load()


class Opened:
    """
    An open WebSocket, its application in the hands of the test.
    """

    def __init__(self, extensions: tuple[str, ...] = (), **limits: Any) -> None:
        script = Script()
        self.rig = Rig(script, websocket=WebSocketOptions(**limits))
        self.peer = H1WebSocketPeer(self.rig)
        self.peer.open(extensions=extensions)
        self.call: Call = script.call
        assert {"type": "websocket.connect"} == self.call.receive()
        self.call.send({"type": "websocket.accept"})
        self.rig.settle()
        assert 101 == self.peer.status

    def take(self) -> Frame:
        return content(self.call.receive())

    def close(self) -> None:
        self.rig.close()
        assert [] == self.rig.errors


@pytest.fixture
def opened() -> Iterator[Opened]:
    websocket = Opened()
    yield websocket
    websocket.close()


@pytest.fixture
def deflating() -> Iterator[Opened]:
    websocket = Opened(("permessage-deflate; client_max_window_bits",))
    yield websocket
    websocket.close()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


# Lengths and cuts


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", ["text", "bytes"])
def test_lengths(opened: Opened, kind: str, length: int) -> None:
    """
    A message of each boundary length passes both ways, alone and between others.
    """
    value: Any = "a" * length if kind == "text" else noise(length)
    payload = value.encode() if kind == "text" else value
    sent = frame(TEXT if kind == "text" else BINARY, payload, key=noise(4))
    opened.peer.send_raw(sent)
    assert (kind, value) == opened.take()

    opened.peer.send_raw(text("before") + sent + sent + text("behind"))
    expected = [("text", "before"), (kind, value), (kind, value), ("text", "behind")]
    assert expected == [opened.take() for _ in range(4)]

    opened.call.send({"type": "websocket.send", kind: value})
    assert [(kind, value)] == opened.peer.frames()


@pytest.mark.parametrize("length", [n for n in LENGTHS if n < 1000])
def test_every_split(opened: Opened, length: int) -> None:
    """
    A frame may be cut in two anywhere, with another right behind it.
    """
    payload = noise(length)
    sent = frame(BINARY, payload) + text("next")
    for cut in range(1, len(sent)):
        opened.peer.send_raw(sent[:cut])
        opened.peer.send_raw(sent[cut:])
        assert [("bytes", payload), ("text", "next")] == [opened.take(), opened.take()], cut


@pytest.mark.parametrize("length", [65535, 65536])
def test_splits_of_long_frames(opened: Opened, length: int) -> None:
    """
    A long frame may be cut anywhere in its header, and around the boundaries of its payload.
    """
    payload = noise(length)
    sent = frame(BINARY, payload)
    size = len(sent)
    for cut in (*range(1, 20), 1000, 1001, 32768, 65535, 65536, *range(size - 5, size)):
        opened.peer.send_raw(sent[:cut])
        opened.peer.send_raw(sent[cut:])
        assert ("bytes", payload) == opened.take(), cut


@pytest.mark.parametrize("length", [0, 1, 125, 126, 300, 20_000])
def test_byte_by_byte(opened: Opened, length: int) -> None:
    """
    Frames of every kind may come byte by byte.
    """
    payload = b"a" * length
    sent = frame(TEXT, payload, fin=False) + frame(PING, b"p") + frame(CONTINUATION, payload) + frame(BINARY, payload)
    opened.peer.send_raw(sent + frame(PONG) + close(4000, b"bye"), 1)

    assert [("text", "a" * 2 * length), ("bytes", payload)] == [opened.take(), opened.take()]
    assert (4000, "bye") == departure(opened.call.receive())
    assert ["pong", "close"] == [kind for kind, _ in opened.peer.frames()]


def test_reads_of_every_size(opened: Opened) -> None:
    """
    A stream of mixed frames comes out the same whatever the size of the reads.
    """
    chance = random.Random(7)
    messages = [noise(chance.choice((0, 1, 5, 125, 126, 127, 600, 4000)), n) for n in range(60)]
    sent = b""
    for message in messages:
        cut = chance.randrange(len(message) + 1)
        if chance.random() < 0.5:
            sent += frame(BINARY, message, key=chance.randbytes(4))
        else:
            sent += frame(BINARY, message[:cut], fin=False) + frame(PING, b"x") + frame(CONTINUATION, message[cut:])
    for read_bytes in (2, 3, 7, 64, 127, 1000, 4096, 65536, 1 << 20):
        opened.peer.send_raw(sent, read_bytes)
        assert [("bytes", message) for message in messages] == [opened.take() for _ in messages], read_bytes


@pytest.mark.parametrize("key", [bytes(4), b"\xff" * 4, b"\x00\x00\x00\x01", b"\x80\x00\x00\x00", b"abcd"])
def test_mask_keys(opened: Opened, key: bytes) -> None:
    """
    Every mask is taken off, at every alignment and across reads.
    """
    for length in (*range(20), 125, 126, 1001, 65537):
        payload = noise(length)
        opened.peer.send_raw(frame(BINARY, payload, key=key))
        opened.peer.send_raw(frame(BINARY, payload, key=key), 5 if length < 2000 else 4099)
        assert [("bytes", payload)] * 2 == [opened.take(), opened.take()]


# Fragments


def test_fragments_with_control_frames(opened: Opened) -> None:
    """
    Between fragments come pings and pongs, each answered or ignored at once, before the message is complete.
    """
    opened.peer.send_raw(frame(TEXT, b"a", fin=False))
    for number in range(5):
        opened.peer.send_raw(frame(PING, b"%d" % number) + frame(PONG, b"%d" % number))
        assert [("pong", b"%d" % number)] == opened.peer.frames()
        opened.peer.send_raw(frame(CONTINUATION, b"b", fin=False))
    assert not opened.call.receiving().done()
    opened.peer.send_raw(frame(CONTINUATION))


def test_empty_fragments(opened: Opened) -> None:
    """
    Fragments may be empty: the first, the last, all of them.
    """
    opened.peer.send_raw(frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) + frame(CONTINUATION))
    opened.peer.send_raw(frame(BINARY, fin=False) + frame(CONTINUATION, b"x", fin=False) + frame(CONTINUATION))
    opened.peer.send_raw(text("whole"))

    assert [("text", ""), ("bytes", b"x"), ("text", "whole")] == [opened.take() for _ in range(3)]


def test_text_split_everywhere(opened: Opened) -> None:
    """
    Text may be cut into fragments, and into reads, inside a character.
    """
    message = "aé€😀z"
    payload = message.encode()
    for cut in range(len(payload) + 1):
        sent = frame(TEXT, payload[:cut], fin=False) + frame(CONTINUATION, payload[cut:])
        opened.peer.send_raw(sent)
        opened.peer.send_raw(sent, 1)
        assert [("text", message)] * 2 == [opened.take(), opened.take()], cut
    opened.peer.send_raw(frame(TEXT, fin=False))
    for number in range(len(payload)):
        opened.peer.send_raw(frame(CONTINUATION, payload[number : number + 1], fin=False))
    opened.peer.send_raw(frame(CONTINUATION))
    assert ("text", message) == opened.take()


def test_long_text_in_reads(opened: Opened) -> None:
    """
    A long text of long characters may be cut by reads anywhere.
    """
    message = "€" * 50_000 + "😀" * 20_000
    for read_bytes in (997, 4096, 65536):
        opened.peer.send_raw(frame(TEXT, message.encode()), read_bytes)
        assert ("text", message) == opened.take()


def test_text_fails_in_the_read_that_breaks_it(opened: Opened) -> None:
    """
    A long text frame fails in the read in which it stops being UTF-8, not later and not before.
    """
    opened.peer.send_raw(header(TEXT, 300_000))
    payload = masked("é".encode() * 100_000 + b"\x80" + b"a" * 50_000)
    opened.peer.send_raw(payload[:100_000], 10_000)
    assert [] == opened.peer.frames()
    opened.peer.send_raw(payload[100_000:200_000], 9_999)
    assert [] == opened.peer.frames()

    opened.peer.send_raw(payload[200_000:200_008], 8)
    assert [1007] == [value[0] for kind, value in opened.peer.frames() if kind == "close"]


# Against wsproto

MESSAGES = st.lists(
    st.one_of(
        st.text(max_size=300),
        st.binary(max_size=300),
        st.sampled_from([125, 126, 127, 65535, 65536]).map(lambda size: b"\xfe" * size),
        st.sampled_from([126, 65536]).map(lambda size: "é" * size),
    ),
    max_size=12,
)


def sent_by_wsproto(protocol: FrameProtocol, message: str | bytes, cuts: list[int]) -> bytes:
    """
    The frames of a message, in fragments if there are cuts.
    """
    sent = b""
    start = 0
    for cut in sorted({cut % (len(message) + 1) for cut in cuts}):
        sent += protocol.send_data(message[start:cut], fin=False) + protocol.ping(b"between")
        start = cut
    return sent + protocol.send_data(message[start:], fin=True)


def read_by_wsproto(protocol: FrameProtocol, wire: bytes) -> list[str | bytes]:
    """
    The messages in what the server wrote.
    """
    protocol.receive_bytes(wire)
    messages: list[str | bytes] = []
    parts: list[Any] = []
    for got in protocol.received_frames():
        if got.opcode in (Opcode.TEXT, Opcode.BINARY):
            parts.append(got.payload)
            if got.message_finished:
                messages.append(("" if got.opcode is Opcode.TEXT else b"").join(parts))
                parts.clear()
    return messages


OFFERS = [
    None,
    "permessage-deflate",
    "permessage-deflate; client_max_window_bits",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; client_no_context_takeover; client_max_window_bits=9; server_max_window_bits=9",
    "permessage-deflate; server_no_context_takeover; server_max_window_bits=15",
]


@pytest.mark.parametrize("offer", OFFERS)
@settings(max_examples=25, deadline=None)
@given(messages=MESSAGES, cuts=st.lists(st.integers(0, 1000), max_size=4), read_bytes=st.integers(1, 5000))
def test_round_trips(offer: str | None, messages: list[str | bytes], cuts: list[int], read_bytes: int) -> None:
    """
    Whatever wsproto sends, in fragments and any reads, comes to the application, and wsproto reads what it sends back.
    """
    opened = Opened(() if offer is None else (offer,))
    extensions = []
    if offer is not None:
        (agreed,) = [value for name, value in opened.peer.headers if name == b"sec-websocket-extensions"]
        extension = PerMessageDeflate()
        extension.finalize(agreed.decode())
        extensions.append(extension)
    client = FrameProtocol(client=True, extensions=extensions)
    assert opened.peer.transport is not None
    opened.peer.transport.take()
    for message in messages:
        kind = "text" if isinstance(message, str) else "bytes"
        opened.peer.send_raw(sent_by_wsproto(client, message, cuts), read_bytes)
        assert (kind, message) == opened.take()
        opened.call.send({"type": "websocket.send", kind: message})
    assert messages == read_by_wsproto(client, opened.peer.transport.take())
    opened.close()


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), read_bytes=st.integers(1, 50))
def test_noise(data: bytes, read_bytes: int) -> None:
    """
    Whatever comes, the server answers with whole frames, and what it says in the end is a close frame.
    """
    opened = Opened(("permessage-deflate",))
    opened.peer.send_raw(data, read_bytes)
    frames = opened.peer.frames()
    if opened.peer.closed:
        assert "close" == frames[-1][0]
    opened.peer.leave()
    received = opened.call.receive()
    while received["type"] == "websocket.receive":
        content(received)
        received = opened.call.receive()
    departure(received)
    opened.close()


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=100), whole=st.booleans(), as_text=st.booleans())
def test_noise_deflated(data: bytes, whole: bool, as_text: bool) -> None:
    """
    Whatever is said to be deflated comes out as zlib has it, or is closed with 1007.
    """
    opened = Opened(("permessage-deflate",))
    rest = b"" if whole else frame(CONTINUATION)
    opened.peer.send_raw(frame(TEXT if as_text else BINARY, data, fin=whole, rsv=RSV1) + rest)
    inflate = zlib.decompressobj(wbits=-15)
    expected: Frame | None
    try:
        plain = inflate.decompress(data)
        more = inflate.decompress(b"\x00\x00\xff\xff")
        expected = ("text", plain.decode()) if as_text else ("bytes", plain)
    except (zlib.error, UnicodeDecodeError):
        expected = None
        more = b""
    # What does not end where a message ends, or behind its end has more, can be taken either way.
    if expected is None:
        assert [1007] == [value[0] for kind, value in opened.peer.frames() if kind == "close"]
    elif not more and not inflate.eof:
        assert expected == opened.take()
    opened.close()


# The end of the connection


@pytest.mark.parametrize(
    "wrong", [header(BINARY, (16 << 20) + 1), frame(3), frame(TEXT, b"\xff"), header(TEXT, 3, rsv=2)]
)
def test_close_frame_survives_what_still_comes(opened: Opened, wrong: bytes) -> None:
    """
    After a failure the server shuts down its side and reads on for a while: closing a socket with unread input resets
    the connection, and the close frame is lost (RFC 6455 section 7.1.1).
    """
    transport = opened.peer.transport
    assert transport is not None
    transport.receive(wrong)
    opened.rig.settle()
    assert transport.half_closed and not transport.disconnecting
    for _ in range(100):
        assert transport.reading
        transport.receive(bytes(65536))
    assert ["close"] == [kind for kind, _ in opened.peer.frames()]

    opened.rig.advance(4)
    assert transport.disconnecting


# Queue


def test_reading_pauses() -> None:
    """
    With a message in each read, reading pauses when max_queue of them wait and 64 KiB beside them, and goes on as they
    are taken.
    """
    opened = Opened(max_queue=8)
    transport = opened.peer.transport
    assert transport is not None
    message = text("x" * 100)
    sent = 0
    while transport.reading and sent < 10_000:
        transport.receive(message)
        sent += 1
    assert 8 <= sent <= (65536 + 16384) // len(message) + 8
    opened.rig.settle()
    assert not transport.reading

    for _ in range(sent):
        assert ("text", "x" * 100) == opened.take()
    assert transport.reading
    opened.close()


def test_reading_goes_on_for_those_that_wait() -> None:
    """
    With a queue of one, messages still pass one after the other, in one read and in several.
    """
    opened = Opened(max_queue=1)
    opened.peer.send_raw(b"".join(text(f"{n}") for n in range(50)))
    assert [("text", f"{n}") for n in range(50)] == [opened.take() for _ in range(50)]
    for n in range(50):
        waiting = opened.call.receiving()
        opened.peer.send_raw(text(f"{n}"))
        assert ("text", f"{n}") == content(waiting.result())
    opened.close()


# Linear time


class Counting:
    """
    An application that takes messages as they come.
    """

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.ended = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.count += 1
            self.bytes += len(message.get("bytes") or message.get("text") or b"")
        self.ended = True


def seconds_for(wire: bytes, read_bytes: int, messages: int) -> float:
    """
    Processor time to take this in, to the last message.
    """
    application = Counting()
    rig = Rig(application)
    peer = H1WebSocketPeer(rig)
    peer.open(extensions=["permessage-deflate"])
    assert 101 == peer.status
    begun = time.process_time()
    peer.send_raw(wire, read_bytes)
    for _ in range(100_000):
        if application.count == messages and not peer.untaken:
            break
        rig.settle()
    taken = time.process_time() - begun
    assert application.count == messages
    peer.leave()
    rig.close()
    return taken


def growth(make: Callable[[int], tuple[bytes, int, int]], size: int) -> float:
    """
    How much longer four times the work takes: 4 where it is linear, 16 where it is quadratic. The least of four tries,
    as what else the machine does only ever adds.
    """

    def once() -> float:
        small = min(seconds_for(*make(size)) for _ in range(2))
        return seconds_for(*make(4 * size)) / small

    return min(once() for _ in range(4))


ONE_READ = 1 << 30


def test_linear_in_small_frames() -> None:
    """
    Twice the small frames in one read take twice the time (CVE class of quadratic buffers).
    """
    assert growth(lambda n: (text("abc") * n, ONE_READ, n), 25_000) < 8


def test_linear_in_fragments() -> None:
    """
    Twice the fragments of one message take twice the time, in one read and in many.
    """

    def fragments(n: int) -> bytes:
        return frame(BINARY, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) * n + frame(CONTINUATION)

    assert growth(lambda n: (fragments(n), ONE_READ, 1), 25_000) < 8
    assert growth(lambda n: (fragments(n), 4096, 1), 5_000) < 8


def test_linear_in_the_size_of_a_message() -> None:
    """
    A message of 16 MiB in reads of 64 KiB takes four times as long as one of 4 MiB.
    """
    assert growth(lambda n: (frame(BINARY, bytes(n)), 65536, 1), 4 * MIB) < 10


def test_linear_in_the_size_of_a_text() -> None:
    """
    So does a text, which is validated as it comes.
    """
    assert growth(lambda n: (frame(TEXT, "é".encode() * (n // 2)), 65536, 1), 4 * MIB) < 10


def test_linear_in_small_reads() -> None:
    """
    A long message in small reads is not copied with each of them.
    """
    assert growth(lambda n: (frame(BINARY, bytes(n)), 256, 1), MIB) < 8


def test_linear_in_deflated_fragments() -> None:
    """
    Twice the fragments of a deflated message take twice the time.
    """

    def fragments(n: int) -> bytes:
        squeezed = deflate(noise(n))
        first = frame(BINARY, squeezed[:1], fin=False, rsv=RSV1)
        rest = (frame(CONTINUATION, squeezed[at : at + 1], fin=False) for at in range(1, len(squeezed)))
        return first + b"".join(rest) + frame(CONTINUATION)

    assert growth(lambda n: (fragments(n), ONE_READ, 1), 5_000) < 8


def test_linear_in_pings() -> None:
    """
    Twice the pings in one read take twice the time.
    """
    assert growth(lambda n: (frame(PING, b"abc") * n + text("end"), ONE_READ, 1), 5_000) < 8
