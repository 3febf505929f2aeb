"""
What the peer must not do.
"""

from __future__ import annotations

from txasgi.errors import ClientDisconnected
from txasgi.testing.conform.websocket_peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    WebSocketGroup,
    close,
    content,
    departure,
    frame,
    header,
    masked,
    raised,
    text,
)


class ViolationConformance(WebSocketGroup):
    """
    What the peer must not do.
    """

    def test_wrong_headers(self) -> None:
        """
        A frame that is wrong by its header fails the connection with 1002 before any of its payload has come.
        """
        cases = {
            f"RSV {rsv}, opcode {op}": header(op, 5, rsv=rsv) for rsv in (1, 2, 4, 7) for op in (TEXT, BINARY, PING)
        }
        cases |= {
            f"RSV {rsv} in a continuation": frame(TEXT, b"a", fin=False) + header(0, 5, rsv=rsv) for rsv in (1, 4)
        }
        cases |= {f"reserved opcode {opcode}": header(opcode, 5) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)}
        cases |= {f"not masked, opcode {opcode}": header(opcode, 5, key=None) for opcode in (TEXT, BINARY, PING, CLOSE)}
        cases |= {f"empty, not masked, opcode {opcode}": header(opcode, 0, key=None) for opcode in (TEXT, PONG)}
        cases |= {f"control frame of {n}": header(op, n) for n in (126, 65536) for op in (CLOSE, PING, PONG)}
        cases |= {f"fragmented control frame {op}": header(op, 2, fin=False) for op in (CLOSE, PING, PONG)}
        cases |= {f"continuation of nothing, fin {fin}": header(CONTINUATION, 5, fin=fin) for fin in (True, False)}
        done = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")
        cases["continuation of what was complete"] = done + header(CONTINUATION, 5)
        cases |= {
            f"opcode {opcode} in a fragmented message": frame(TEXT, b"a", fin=False) + header(opcode, 5)
            for opcode in (TEXT, BINARY)
        }
        cases |= {f"length {n} in 16 bits": header(BINARY, n, form=16) for n in (0, 1, 125)}
        cases |= {f"length {n} in 64 bits": header(BINARY, n, form=64) for n in (0, 126, 65535)}
        cases |= {f"length {n:x}": header(BINARY, n, form=64) for n in (1 << 63, (1 << 64) - 1)}

        assert self.wrong_codes({name: (sent, 1002) for name, sent in cases.items()}) == {}

    def test_wrong_frames(self) -> None:
        """
        So does one that comes whole, with more behind it.
        """
        begun = frame(TEXT, b"a", fin=False)
        cases = {
            "RSV1": frame(TEXT, b"hello", rsv=RSV1),
            "RSV2 and RSV3": frame(BINARY, b"hello", rsv=RSV2 | RSV3),
            "reserved opcode": frame(3, b"hello"),
            "reserved control opcode": frame(11),
            "not masked": header(TEXT, 5, key=None) + b"hello",
            "text in a fragmented message": begun + text("hello"),
            "bytes in a fragmented message": begun + frame(BINARY, b"hello"),
            "text behind a ping in a fragmented message": begun + frame(PING) + text("hello"),
            "continuation of nothing": frame(CONTINUATION, b"hello"),
            "continuation behind a whole message": text("hello") + frame(CONTINUATION, b"hello"),
            "length 5 in 16 bits": header(TEXT, 5, form=16) + masked(b"hello"),
            "length 5 in 64 bits": header(TEXT, 5, form=64) + masked(b"hello"),
            "long ping": frame(PING, bytes(126)),
            "fragmented ping": frame(PING, b"hello", fin=False),
        }
        assert self.wrong_codes({name: (sent + text("behind"), 1002) for name, sent in cases.items()}) == {}

    def test_wrong_header_behind_a_message(self) -> None:
        """
        Messages before a wrong frame, in the same read, are delivered.
        """
        call, peer = self.opened()
        peer.send_raw(text("a") + text("b") + header(TEXT, 3, rsv=RSV2))

        assert [(kind, value[0]) for kind, value in peer.frames()] == [("close", 1002)]
        assert [content(call.receive()) for _ in range(2)] == [("text", "a"), ("text", "b")]
        assert departure(call.receive())[0] in (1002, 1006)
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)

    def test_nothing_is_taken_after_a_failure(self) -> None:
        """
        What comes behind a wrong frame is neither delivered nor answered (RFC 6455 section 7.1.7).
        """
        call, peer = self.opened()
        peer.send_raw(frame(3) + text("behind") + frame(PING, b"behind"))
        peer.send_raw(text("later") + frame(PING, b"later"))
        peer.send_raw(close(1002))

        assert [kind for kind, _ in peer.frames()] == ["close"]
        departure(call.receive())
        assert peer.closed

    def test_wrong_close_frames(self) -> None:
        """
        A close frame of one byte or with a code that must not be sent is answered with 1002 (RFC 6455 section 7.4).
        """
        codes = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        cases = {f"code {code}": (close(code), 1002) for code in codes}
        cases["one byte"] = (frame(CLOSE, b"\x03"), 1002)
        cases["reason that is no UTF-8"] = (close(1000, b"\xff\xfe"), 1007)
        cases["reason that ends in half a character"] = (close(1000, b"ab\xe2\x82"), 1007)

        assert self.wrong_codes(cases) == {}

    def test_invalid_utf8(self) -> None:
        """
        A text that is no UTF-8 is closed with 1007, in one frame and in fragments (RFC 6455 section 8.1).
        """
        bad = {
            "stray continuation": b"a\x80b",
            "never allowed": b"\xff",
            "overlong": b"\xc0\xaf",
            "overlong of three": b"\xe0\x80\xaf",
            "surrogate": b"\xed\xa0\x80",
            "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
            "beyond U+10FFFF": b"\xf4\x90\x80\x80",
            "beyond four bytes": b"\xf8\x88\x80\x80\x80",
            "cut off": b"\xce\xba\xe1\xbd",
            "half, then another": b"\xe2\x82a",
        }
        cases = {name: (frame(TEXT, b"x" + payload), 1007) for name, payload in bad.items()}
        for name, payload in bad.items():
            sent = frame(TEXT, b"x" + payload[:1], fin=False) + frame(CONTINUATION, payload[1:])
            cases[f"{name}, in fragments"] = (sent, 1007)
        cases["a continuation byte after a whole message"] = (text("é") + frame(TEXT, b"\xa9"), 1007)

        assert self.wrong_codes(cases) == {}

    def test_valid_utf8(self) -> None:
        """
        Every character may be sent: NUL, noncharacters, the last one.
        """
        call, peer = self.opened()
        for message in ("\x00", "\x7f\x80", "\ufeff", "\ufffe\uffff", "\U0010ffff", "\ud7ff\ue000", "κόσμε"):
            peer.send_raw(text(message))
            assert content(call.receive()) == ("text", message)

    def test_invalid_utf8_early(self) -> None:
        """
        In a long frame or fragment that is no UTF-8, 1007 comes as soon as the wrong bytes do.
        """
        start = masked(b"x" * 100_000 + b"\xff" + b"x" * 100_000)
        cases = {
            "in a frame": (header(TEXT, 1_000_000) + start, 1007),
            "in a fragment": (header(TEXT, 1_000_000, fin=False) + start, 1007),
            "in a later fragment": (frame(TEXT, b"a", fin=False) + header(CONTINUATION, 1_000_000) + start, 1007),
            "at the end of a fragment that is not the last": (frame(TEXT, b"a\xff", fin=False), 1007),
        }
        wrong = {}
        for name, (sent, code) in cases.items():
            observed = self.close_code(sent)
            if observed != code:
                wrong[name] = observed
        assert wrong == {}

    def test_binary_is_no_text(self) -> None:
        """
        Bytes that are no UTF-8 pass in binary messages, in one frame and in fragments.
        """
        call, peer = self.opened()
        peer.send_raw(frame(BINARY, b"\xff\x80") + frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xc0"))

        assert [content(call.receive()) for _ in range(2)] == [("bytes", b"\xff\x80"), ("bytes", b"\xff\xc0")]
