"""
permessage-deflate.
"""

from __future__ import annotations

import struct
import zlib

from txasgi.asgi.websocket import WebSocketOptions
from txasgi.testing.conform.websocket_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    DEFLATE,
    PING,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    WebSocketGroup,
    content,
    deflate,
    frame,
    header,
    text,
)


class DeflateConformance(WebSocketGroup):
    """
    permessage-deflate.
    """

    def test_deflate(self) -> None:
        """
        With permessage-deflate, messages pass deflated both ways, and plain ones still may come.
        """
        call, peer = self.opened(extensions=[DEFLATE])
        assert [value for name, value in peer.headers if name == b"sec-websocket-extensions"]
        compressor = zlib.compressobj(wbits=-15)
        for message in ("", "a", "zoë", "x" * 100_000, "x" * 100_000):
            peer.send_raw(frame(TEXT, deflate(message.encode(), compressor), rsv=RSV1))
            assert content(call.receive()) == ("text", message)
            call.send(
                {"type": "websocket.send", "text": message}, {"type": "websocket.send", "bytes": message.encode()}
            )
            assert [("text", message), ("bytes", message.encode())] == peer.frames()
        peer.send_raw(text("plain"))
        assert content(call.receive()) == ("text", "plain")
        assert peer.received < 20_000

    def test_deflate_in_fragments(self) -> None:
        """
        A deflated message in fragments has RSV1 on the first alone; control frames between them are plain.
        """
        call, peer = self.opened(extensions=[DEFLATE])
        squeezed = deflate("zoë".encode() * 100)
        sent = frame(TEXT, squeezed[:3], fin=False, rsv=RSV1) + frame(PING, b"p") + frame(CONTINUATION, fin=False)
        sent += frame(CONTINUATION, squeezed[3:4], fin=False) + frame(CONTINUATION, squeezed[4:])
        for read_bytes in (65536, 1):
            peer.send_raw(sent, read_bytes)
            assert content(call.receive()) == ("text", "zoë" * 100)
            assert peer.frames() == [("pong", b"p")]

    def test_deflate_examples(self) -> None:
        """
        The examples of RFC 7692 section 7.2.3 are understood, one after the other.
        """
        call, peer = self.opened(extensions=[DEFLATE])
        for squeezed in (
            "f248cdc9c90700",
            "f200110000",
            "000500faff48656c6c6f00",
            "f248050000 00ffffcac9c90700",
            "f348cdc9c9070000",
            "f248cdc9c90700",
        ):
            peer.send_raw(frame(TEXT, bytes.fromhex(squeezed), rsv=RSV1))
            assert content(call.receive()) == ("text", "Hello"), squeezed
        # Section 7.2.3.6: an empty message.
        peer.send_raw(frame(TEXT, b"\x00", rsv=RSV1) + frame(BINARY, b"\x00", rsv=RSV1))
        assert [content(call.receive()), content(call.receive())] == [("text", ""), ("bytes", b"")]

    def test_deflate_without_context(self) -> None:
        """
        Asked for no context takeover, the server says so and starts each message anew, and so may the client.
        """
        offer = f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover"
        call, peer = self.opened(extensions=[offer])
        (answer,) = [value for name, value in peer.headers if name == b"sec-websocket-extensions"]
        assert b"server_no_context_takeover" in answer
        message = "".join(chr(0x100 + n * 7919 % 5000) for n in range(2000))
        for _ in range(3):
            call.send({"type": "websocket.send", "text": message})
            assert [("text", message)] == peer.frames()
            peer.send_raw(frame(TEXT, deflate(message.encode()), rsv=RSV1))
            assert content(call.receive()) == ("text", message)

    def test_deflate_with_small_window(self) -> None:
        """
        Asked for a small window, the server says so and keeps to it (RFC 7692 section 7.1.2.1).
        """
        call, peer = self.opened(extensions=[f"{DEFLATE}; server_max_window_bits=9"])
        noise = b"".join(struct.pack("!I", n * 2654435761 % (1 << 32)) for n in range(500))
        call.send({"type": "websocket.send", "bytes": noise * 20})

        assert [("bytes", noise * 20)] == peer.frames()

    def test_deflate_off(self) -> None:
        """
        Switched off, permessage-deflate is not agreed to, and RSV1 is a protocol error.
        """
        limits = WebSocketOptions(deflate=False)
        _, peer = self.opened(limits=limits, extensions=[DEFLATE])
        assert not [value for name, value in peer.headers if name == b"sec-websocket-extensions"]

        sent = frame(TEXT, deflate(b"x"), rsv=RSV1)
        assert self.close_code(sent, limits=limits, extensions=[DEFLATE]) == 1002

    def test_wrong_deflate(self) -> None:
        """
        RSV bits where they have no meaning are 1002, corrupt deflate and deflated text that is no UTF-8 are 1007.
        """
        corrupt = b"\x07\xff\xff\xff\xff"
        cases = {
            "RSV1 in a continuation": (frame(TEXT, b"a", fin=False) + header(CONTINUATION, 5, rsv=RSV1), 1002),
            "RSV1 in a ping": (header(PING, 5, rsv=RSV1), 1002),
            "RSV1 in a close": (header(CLOSE, 2, rsv=RSV1), 1002),
            "RSV2": (header(TEXT, 5, rsv=RSV1 | RSV2), 1002),
            "RSV3": (header(TEXT, 5, rsv=RSV3), 1002),
            "corrupt": (frame(BINARY, corrupt, rsv=RSV1), 1007),
            "corrupt in fragments": (frame(BINARY, corrupt[:1], fin=False, rsv=RSV1) + frame(0, corrupt[1:]), 1007),
            "no UTF-8": (frame(TEXT, deflate(b"abc\xff"), rsv=RSV1), 1007),
            "half a character": (frame(TEXT, deflate(b"abc\xe2\x82"), rsv=RSV1), 1007),
        }
        assert self.wrong_codes(cases, extensions=[DEFLATE]) == {}

    def test_invalid_utf8_deflated_early(self) -> None:
        """
        A deflated fragment that holds no UTF-8 is closed with 1007 before the message ends.
        """
        squeezed = deflate(b"\xff" + bytes(range(128)) * 100)
        assert self.close_code(frame(TEXT, squeezed, fin=False, rsv=RSV1), extensions=[DEFLATE]) == 1007
