"""
Back pressure, both ways.
"""

from __future__ import annotations

from txasgi.asgi.websocket import WebSocketOptions
from txasgi.errors import ClientDisconnected
from txasgi.testing.conform.websocket_peer import BINARY, MIB, PING, WebSocketGroup, close, content, frame, raised, text


class FlowConformance(WebSocketGroup):
    """
    Back pressure, both ways.
    """

    def test_queue_is_finite(self) -> None:
        """
        What the application does not take stays with the client, and none of it is lost.
        """
        application, peer = self.rationed(WebSocketOptions(max_queue=4))
        for number in range(2000):
            peer.send_raw(text(f"{number:01000}"))
        assert peer.untaken > MIB

        self.take(application, 2000)
        assert list(range(2000)) == [int(value) for _, value in map(content, application.taken)]
        assert not peer.untaken

    def test_queue_of_large_messages_is_finite(self) -> None:
        """
        Of large messages, too, only about max_queue are taken before the application takes them.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=4))
        for _ in range(16):
            peer.send_raw(frame(BINARY, bytes(MIB)))
        assert peer.untaken >= 10 * MIB

        for _ in range(16):
            assert content(call.receive()) == ("bytes", bytes(MIB))
        assert not peer.untaken

    def test_queue_is_finite_in_bytes(self) -> None:
        """
        Of large messages fewer than max_queue are taken ahead: what waits is counted in bytes, too.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=32))
        for _ in range(24):
            peer.send_raw(frame(BINARY, bytes(MIB)))
        assert peer.untaken >= 16 * MIB

        for _ in range(24):
            assert content(call.receive()) == ("bytes", bytes(MIB))
        assert not peer.untaken

    def test_many_messages_in_one_read(self) -> None:
        """
        Of 10,000 messages in one read about max_queue are parsed before the application takes them: a ping behind
        them is not answered until then.
        """
        application, peer = self.rationed(WebSocketOptions(max_queue=4))
        peer.send_raw(b"".join(text(f"{number}") for number in range(10_000)) + frame(PING, b"end"), 1 << 20)
        assert peer.frames() == []

        self.take(application, 9900)
        assert peer.frames() == []
        self.take(application, 100)
        assert list(range(10_000)) == [int(value) for _, value in map(content, application.taken)]
        assert peer.frames() == [("pong", b"end")]

    def test_send_waits(self) -> None:
        """
        send() waits while the client reads nothing, and everything arrives in its order when it reads on.
        """
        call, peer = self.opened()
        peer.clog()
        messages = [bytes([number]) * 16384 for number in range(100)]
        sends = [call.sending({"type": "websocket.send", "bytes": message}) for message in messages]
        assert any(not task.done() for task in sends)
        assert sum(task.done() for task in sends) < 50, "a client that reads nothing is sent to without end"

        peer.unclog()
        self.rig.settle()
        assert all(task.done() for task in sends)
        assert [task.result() for task in sends] == [None] * 100
        assert [("bytes", message) for message in messages] == peer.frames()

    def test_send_that_waits_ends_with_the_client(self) -> None:
        """
        A send() that waits ends when the client leaves, with ClientDisconnected if it raises.
        """
        call, peer = self.opened()
        peer.clog()
        sends = [call.sending({"type": "websocket.send", "bytes": bytes(MIB)}) for _ in range(3)]
        assert not sends[-1].done()
        peer.leave()

        assert all(task.done() for task in sends)
        assert all(isinstance(task.exception(), (ClientDisconnected, type(None))) for task in sends)
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)

    def test_close_behind_what_waits(self) -> None:
        """
        A close behind messages for a client that reads nothing comes behind them when it reads on.
        """
        call, peer = self.opened()
        peer.clog()
        call.sending({"type": "websocket.send", "bytes": bytes(MIB)})
        call.sending({"type": "websocket.close", "code": 4000})
        peer.unclog()
        self.rig.settle()

        assert [("bytes", bytes(MIB)), ("close", (4000, ""))] == peer.frames()
        peer.send_raw(close(4000))
        assert peer.closed
