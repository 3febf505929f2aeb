"""
Messages, both ways.
"""

from __future__ import annotations

from enum import IntEnum

from txasgi.errors import ApplicationError
from txasgi.testing.conform.websocket_peer import (
    BINARY,
    CONTINUATION,
    DEFLATE,
    PING,
    PONG,
    TEXT,
    Frame,
    WebSocketGroup,
    content,
    frame,
    raised,
    text,
)


class MessageConformance(WebSocketGroup):
    """
    Messages, both ways.
    """

    def test_send(self) -> None:
        """
        Text and bytes reach the client as such, empty ones too.
        """
        call, peer = self.opened()
        sent: list[Frame] = [("text", "zoë €"), ("bytes", b"\x00\xff"), ("text", ""), ("bytes", b""), ("text", "end")]
        for kind, value in sent:
            call.send({"type": "websocket.send", kind: value})
        call.send({"type": "websocket.send", "text": None, "bytes": b"a"})
        call.send({"type": "websocket.send", "text": "b", "bytes": None})

        assert [*sent, ("bytes", b"a"), ("text", "b")] == peer.frames()

    def test_send_subclasses(self) -> None:
        """
        Subclasses of str, bytes and int do what these do: Django's SafeString, an IntEnum of close codes.
        """

        class Text(str):
            __slots__ = ()

        class Bytes(bytes):
            __slots__ = ()

        class Code(IntEnum):
            AWAY = 4001

        call, peer = self.opened(extensions=[DEFLATE], subprotocols=["chat"])
        call.send({"type": "websocket.send", "text": Text("zoë")}, {"type": "websocket.send", "bytes": Bytes(b"zo")})
        call.send({"type": "websocket.close", "code": Code.AWAY, "reason": Text("é")})
        assert peer.frames() == [("text", "zoë"), ("bytes", b"zo"), ("close", (4001, "é"))]

        call, peer = self.opened()
        call.send({"type": "websocket.send", "text": Text("zoë")}, {"type": "websocket.send", "bytes": Bytes(b"zo")})
        assert peer.frames() == [("text", "zoë"), ("bytes", b"zo")]

    def test_send_of_every_length(self) -> None:
        """
        Messages at the boundaries of the three forms of a length arrive whole (RFC 6455 section 5.2).
        """
        call, peer = self.opened()
        for size in (125, 126, 127, 65535, 65536, 200_000):
            call.send({"type": "websocket.send", "bytes": bytes(range(256)) * (size // 256) + bytes(size % 256)})
            ((kind, value),) = peer.frames()
            assert (kind, len(value)) == ("bytes", size)
            assert value[:256] == bytes(range(256))[:size] or size < 256

    def test_wrong_send(self) -> None:
        """
        A send with both, with none or with the wrong type raises, sends nothing, and the connection stays open.
        """
        call, peer = self.opened()
        for wrong in (
            {"text": "a", "bytes": b"a"},
            {},
            {"text": None, "bytes": None},
            {"text": b"a"},
            {"bytes": "a"},
            {"text": 1},
            {"text": "\ud800"},
        ):
            error = raised(call, {"type": "websocket.send", **wrong})
            assert isinstance(error, (ApplicationError, UnicodeEncodeError)), (wrong, error)
        for wrong in ({"type": "http.response.body", "body": b""}, {"type": "nothing"}, {"text": "a"}):
            assert isinstance(raised(call, wrong), ApplicationError), wrong
        assert peer.frames() == []

        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_receive(self) -> None:
        """
        Text and bytes reach the application as such, in their order, empty ones too.
        """
        call, peer = self.opened()
        peer.send_raw(text("zoë €") + frame(BINARY, b"\x00\xff") + text("") + frame(BINARY) + text("end"))

        expected = [("text", "zoë €"), ("bytes", b"\x00\xff"), ("text", ""), ("bytes", b""), ("text", "end")]
        assert expected == [content(call.receive()) for _ in range(5)]

    def test_receive_waits(self) -> None:
        """
        receive() waits for a message; of two that wait, one gets it.
        """
        call, peer = self.opened()
        first, second = call.receiving(), call.receiving()
        assert not first.done() and not second.done()

        peer.send_raw(text("a"))
        assert sorted([first.done(), second.done()], reverse=True) == [True, False]
        peer.send_raw(text("b"))
        assert sorted(content(task.result()) for task in (first, second)) == [("text", "a"), ("text", "b")]

    def test_cancelled_receive_loses_nothing(self) -> None:
        """
        A receive() that was cancelled takes no message with it.
        """
        call, peer = self.opened()
        waiting = call.receiving()
        waiting.cancel()
        peer.send_raw(text("a"))
        assert content(call.receive()) == ("text", "a")

        # Cancelled in the turn in which the message comes.
        waiting = call.receiving()
        self.rig.loop.call_soon(waiting.cancel)
        peer.send_raw(text("b"))
        got = [] if waiting.cancelled() else [content(waiting.result())]
        assert (got or [content(call.receive())]) == [("text", "b")]

    def test_fragments(self) -> None:
        """
        A message in fragments reaches the application as one, control frames between them are served.
        """
        call, peer = self.opened()
        euro = "€".encode()
        peer.send_raw(frame(TEXT, b"a" + euro[:1], fin=False) + frame(PING, b"1") + frame(CONTINUATION, b"", fin=False))
        peer.send_raw(frame(CONTINUATION, euro[1:2], fin=False) + frame(PONG, b"2") + frame(CONTINUATION, euro[2:]))
        peer.send_raw(frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"y", fin=False) + frame(CONTINUATION))

        assert peer.frames() == [("pong", b"1")]
        assert content(call.receive()) == ("text", "a€")
        assert content(call.receive()) == ("bytes", b"xy")

    def test_large_messages(self) -> None:
        """
        A message far larger than any buffer passes, both ways, whether the application waits for it or comes later.
        """
        call, peer = self.opened()
        large = bytes(range(256)) * 8192
        waiting = call.receiving()
        peer.send_raw(frame(BINARY, large))
        assert content(waiting.result()) == ("bytes", large)

        peer.send_raw(frame(BINARY, large))
        assert content(call.receive()) == ("bytes", large)

        call.send({"type": "websocket.send", "bytes": large})
        assert [("bytes", large)] == peer.frames()
