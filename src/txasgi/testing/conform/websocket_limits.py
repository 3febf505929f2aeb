"""
The largest message.
"""

from __future__ import annotations

import tracemalloc
import zlib

from txasgi.asgi.websocket import WebSocketOptions
from txasgi.testing.conform.websocket_peer import (
    BINARY,
    CONTINUATION,
    DEFLATE,
    MIB,
    RSV1,
    TEXT,
    WebSocketGroup,
    content,
    deflate,
    departure,
    frame,
    header,
    text,
)


class LimitConformance(WebSocketGroup):
    """
    The largest message.
    """

    def test_largest_message(self) -> None:
        """
        A message of exactly max_size passes, in one frame, in fragments and deflated.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_size=1000), extensions=[DEFLATE])
        peer.send_raw(frame(BINARY, bytes(1000)))
        peer.send_raw(frame(BINARY, bytes(600), fin=False) + frame(CONTINUATION, bytes(400)))
        peer.send_raw(frame(BINARY, deflate(bytes(1000)), rsv=RSV1))
        # The limit is of bytes.
        peer.send_raw(text("é" * 500))

        assert [("bytes", bytes(1000))] * 3 + [("text", "é" * 500)] == [content(call.receive()) for _ in range(4)]

    def test_too_big(self) -> None:
        """
        A frame, or fragments, that announce more than max_size are closed with 1009 before the payload comes.
        """
        some = frame(BINARY, bytes(600), fin=False)
        cases = {
            "frame": header(BINARY, 1001),
            "whole frame": frame(BINARY, bytes(1001)),
            "whole text": frame(TEXT, b"a" * 1001) + text("behind"),
            "text": header(TEXT, 1001),
            "huge frame": header(BINARY, (1 << 63) - 1),
            "first fragment": header(BINARY, 1001, fin=False),
            "second fragment": some + header(CONTINUATION, 401),
            "second huge fragment": some + header(CONTINUATION, 1 << 62, fin=False),
            "many fragments": some + frame(CONTINUATION, bytes(4), fin=False) * 100 + header(CONTINUATION, 1),
        }
        limits = WebSocketOptions(max_size=1000)

        assert self.wrong_codes({name: (sent, 1009) for name, sent in cases.items()}, limits=limits) == {}

    def test_default_limit(self) -> None:
        """
        Without more, a message may have 16 MiB.
        """
        assert self.close_code(header(BINARY, 16 * MIB + 1)) == 1009
        _, peer = self.opened()
        peer.send_raw(header(BINARY, 16 * MIB))
        assert peer.frames() == [] and not peer.closed

    def test_too_big_inflated(self) -> None:
        """
        A message that inflates to more than max_size is closed with 1009.
        """
        squeezed = deflate(bytes(1001))
        cases = {
            "frame": (frame(BINARY, squeezed, rsv=RSV1), 1009),
            "fragments": (frame(BINARY, squeezed[:5], fin=False, rsv=RSV1) + frame(CONTINUATION, squeezed[5:]), 1009),
            "text": (frame(TEXT, deflate(b"a" * 1001), rsv=RSV1), 1009),
        }
        assert self.wrong_codes(cases, limits=WebSocketOptions(max_size=1000), extensions=[DEFLATE]) == {}

    def test_deflate_bomb(self) -> None:
        """
        A frame of 1 MiB that would inflate to 1 GiB is closed with 1009, and takes no more memory than max_size does.
        """
        compressor = zlib.compressobj(wbits=-15, level=9)
        # A whole piece after another, each in a context of its own.
        piece = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
        bomb = frame(BINARY, piece * 1024, rsv=RSV1)
        assert len(bomb) < 2 * MIB
        call, peer = self.opened(limits=WebSocketOptions(max_size=4 * MIB), extensions=[DEFLATE])
        tracemalloc.start()
        try:
            peer.send_raw(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert [(kind, value[0]) for kind, value in peer.frames()] == [("close", 1009)]
        assert peak < 24 * MIB
        departure(call.receive())
