"""
How a WebSocket ends: by the application's close, the peer's, or the loss of the connection.
"""

from __future__ import annotations

import asyncio
from typing import Any

from txasgi.asgi.task import Message, Receive, Send
from txasgi.asgi.websocket import WebSocketOptions
from txasgi.errors import ApplicationError, ClientDisconnected
from txasgi.testing.conform.websocket_peer import (
    ACCEPT,
    BINARY,
    PING,
    TEXT,
    WebSocketGroup,
    close,
    content,
    departure,
    frame,
    header,
    raised,
    text,
)


class ClosingConformance(WebSocketGroup):
    """
    How a WebSocket ends: by the application's close, the peer's, or the loss of the connection.
    """

    def test_own_close(self) -> None:
        """
        The application's code and reason reach the client; with the client's answer the connection ends.
        """
        messages: list[tuple[Message, tuple[int, str]]] = [
            ({}, (1000, "")),
            ({"code": 4001}, (4001, "")),
            ({"code": 3000, "reason": "zoë"}, (3000, "zoë")),
            ({"code": 1001, "reason": None}, (1001, "")),
            ({"reason": "bye"}, (1000, "bye")),
        ]
        plain = (1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3999, 4999)
        messages.extend(({"code": code}, (code, "")) for code in plain)
        for message, expected in messages:
            call, peer = self.opened()
            call.send({"type": "websocket.close", **message})
            assert [("close", expected)] == peer.frames()
            assert not peer.closed, "closed before the client could answer"

            peer.send_raw(close(expected[0]))
            assert peer.closed
            assert departure(call.receive())[0] == expected[0]
            call.finish()
            assert peer.frames() == []

    def test_work_after_own_close_goes_on(self) -> None:
        """
        An application that has closed by itself may go on working: it is not cancelled when the client has answered.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.close"})
        peer.send_raw(close(1000))
        peer.leave()
        self.rig.advance(60)

        assert not call.cancelled and not call.ended
        call.finish()

    def test_invalid_close_codes(self) -> None:
        """
        Codes that must not be sent, and what is no code, raise; the connection stays open (RFC 6455 section 7.4).
        """
        call, peer = self.opened()
        for code in (1005, 1006, 1015, 999, 5000, 0, -1, 70000, "1000", 1000.5):
            error = raised(call, {"type": "websocket.close", "code": code})
            assert isinstance(error, ApplicationError), (code, error)
        for reason in (b"bytes", 1):
            error = raised(call, {"type": "websocket.close", "reason": reason})
            assert isinstance(error, ApplicationError), (reason, error)
        assert peer.frames() == []

        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_long_reason(self) -> None:
        """
        A reason is cut to 123 bytes of valid UTF-8, as a control frame has room for 125.
        """
        for reason, expected in (("x" * 123, "x" * 123), ("x" * 124, "x" * 123), ("é" * 100, "é" * 61)):
            call, peer = self.opened()
            call.send({"type": "websocket.close", "code": 4000, "reason": reason})
            assert [("close", (4000, expected))] == peer.frames()

    def test_after_own_close(self) -> None:
        """
        After its close, send() and a second close raise ApplicationError.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.close"})

        for message in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}, ACCEPT):
            assert isinstance(raised(call, message), ApplicationError), message
        peer.send_raw(close(1000))
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ApplicationError)
        assert peer.frames() == [("close", (1000, ""))]

    def test_messages_behind_own_close(self) -> None:
        """
        Messages that cross the application's close hold nothing up: the client's close behind them is seen.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        call.send({"type": "websocket.close"})
        peer.send_raw(frame(BINARY, bytes(1000)) * 1000 + close(1000))

        assert peer.closed and not peer.untaken
        assert departure(call.receive())[0] == 1000

    def test_own_close_with_a_full_queue(self) -> None:
        """
        An application that closes with messages left unread is not kept from the client's close by them.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        peer.send_raw(frame(BINARY, bytes(1000)) * 1000)
        assert peer.untaken
        call.send({"type": "websocket.close", "code": 4000})
        assert peer.frames() == [("close", (4000, ""))]
        peer.send_raw(close(4000))

        assert peer.closed and not peer.untaken
        call.finish()
        assert [("open", self.opened_status), ("close", 4000)] == [(o.kind, o.status) for o in self.rig.outcomes]

    def test_close_handshake_deadline(self) -> None:
        """
        A client that does not answer the close within 10 seconds is dropped.
        """
        call, peer = self.opened(limits=WebSocketOptions(ping_interval_s=0))
        call.send({"type": "websocket.close"})
        self.rig.advance(9)
        assert not peer.closed

        self.rig.advance(2.5)
        assert peer.closed
        departure(call.receive())

    def test_peer_closes(self) -> None:
        """
        The client's close reaches the application with code and reason, is answered with its code, and ends it all.
        """
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
            call, peer = self.opened()
            receiving = call.receiving()
            peer.send_raw(close(code, "zoë".encode()))

            assert departure(receiving.result()) == (code, "zoë")
            ((kind, (answer, _)),) = peer.frames()
            assert (kind, answer) == ("close", code)
            assert peer.closed
            call.finish()
            assert peer.frames() == []

    def test_peer_closes_without_code(self) -> None:
        """
        A close without a code is a disconnect 1005 (RFC 6455 section 7.1.5), answered with none or with 1000.
        """
        call, peer = self.opened()
        peer.send_raw(close())

        assert departure(call.receive()) == (1005, "")
        assert peer.frames() in ([("close", (1005, ""))], [("close", (1000, ""))])
        assert peer.closed

    def test_longest_reason_of_the_peer(self) -> None:
        """
        A reason of 123 bytes is the longest there can be, and is passed on whole.
        """
        call, peer = self.opened()
        peer.send_raw(close(4000, b"x" * 123))

        assert departure(call.receive()) == (4000, "x" * 123)
        assert (peer.frames()[0][0], 4000) == ("close", 4000)

    def test_messages_before_the_close(self) -> None:
        """
        Messages that came before the client's close are delivered before the disconnect, those behind it never.
        """
        call, peer = self.opened()
        peer.send_raw(b"".join(map(text, "abc")) + close(4000) + text("behind") + frame(PING))
        peer.send_raw(text("far behind"))

        assert [content(call.receive()) for _ in range(3)] == [("text", "a"), ("text", "b"), ("text", "c")]
        assert [departure(call.receive())[0] for _ in range(2)] == [4000, 4000]
        assert [kind for kind, _ in peer.frames()] == ["close"]

    def test_close_behind_a_full_queue(self) -> None:
        """
        A close behind more messages than may wait is seen when the application has taken them.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        peer.send_raw(text("x") * 50 + close(4000))

        assert [content(call.receive()) for _ in range(50)] == [("text", "x")] * 50
        assert departure(call.receive())[0] == 4000
        assert peer.closed

    def test_peer_leaves(self) -> None:
        """
        A client that leaves without a close is a disconnect 1006, behind the messages that it had sent.
        """
        call, peer = self.opened()
        peer.send_raw(text("last words"))
        peer.leave()

        assert content(call.receive()) == ("text", "last words")
        assert departure(call.receive()) == (1006, "")

    def test_peer_leaves_in_the_middle(self) -> None:
        """
        A client that leaves in the middle of a frame or message is a disconnect 1006, and half a message is no message.
        """
        for half in (frame(TEXT, b"hello")[:-1], frame(TEXT, b"hello", fin=False), header(TEXT, 70000), b"\x81"):
            call, peer = self.opened()
            peer.send_raw(half)
            peer.leave()

            assert departure(call.receive())[0] == 1006

    def test_send_to_nobody(self) -> None:
        """
        send() after the client has left or closed raises ClientDisconnected, an OSError, which is not logged.
        """
        for closed in (False, True):
            call, peer = self.opened()
            if closed:
                peer.send_raw(close(1001))
            peer.leave()
            error = raised(call, {"type": "websocket.send", "text": "x"})
            assert isinstance(error, ClientDisconnected) and isinstance(error, OSError)
            assert departure(call.receive())[0] == (1001 if closed else 1006)
            assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)
            assert isinstance(raised(call, {"type": "websocket.close"}), (ClientDisconnected, type(None)))
            call.fail(error)

    def test_exception_because_of_the_disconnect(self) -> None:
        """
        An exception that was raised because of ClientDisconnected is not logged either; another one is.
        """
        for cause, count in ((True, 0), (False, 1)):
            call, peer = self.opened()
            peer.leave()
            error = ValueError("broken")
            if cause:
                error.__cause__ = raised(call, {"type": "websocket.send", "text": "x"})
            call.fail(error)
            assert count == len(self.faults())

    def test_every_receive_hears_of_the_disconnect(self) -> None:
        """
        Each receive() that waits gets the disconnect, and so does each later one.
        """
        call, peer = self.opened()
        waiting = [call.receiving() for _ in range(3)]
        peer.send_raw(close(4321, b"off"))

        assert [departure(task.result()) for task in waiting] == [(4321, "off")] * 3
        assert [departure(call.receive()) for _ in range(3)] == [(4321, "off")] * 3

    def test_receive_in_a_loop_lets_others_run(self) -> None:
        """
        An application that calls receive() on and on after the disconnect does not keep the loop from others.
        """
        turns = 0
        seen = []

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            work = asyncio.get_running_loop().create_task(others())
            while (await receive())["type"] != "websocket.disconnect":
                pass
            for _ in range(1000):
                await receive()
                seen.append(turns)
            work.cancel()

        peer = self.peer(application)
        peer.open()
        if peer.status is None:
            self.rig.settle_threads(lambda: peer.status is not None)
        peer.leave()
        self.settle_until(lambda: len(seen) == 1000)

        assert len(set(seen)) > 100
