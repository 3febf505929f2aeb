"""
Ping and pong.
"""

from __future__ import annotations

from txasgi.asgi.websocket import WebSocketOptions
from txasgi.errors import ClientDisconnected
from txasgi.testing.conform.websocket_peer import (
    BINARY,
    MIB,
    PING,
    PONG,
    WebSocketGroup,
    WebSocketPeer,
    content,
    departure,
    frame,
    raised,
    text,
)


class PingConformance(WebSocketGroup):
    """
    Ping and pong.
    """

    def test_ping(self) -> None:
        """
        A ping is answered with its payload, though the application does nothing.
        """
        _, peer = self.opened()
        for payload in (b"", b"hello", b"\xff" * 125):
            peer.send_raw(frame(PING, payload))
            assert [("pong", payload)] == peer.frames()

    def test_unsolicited_pong(self) -> None:
        """
        A pong that nobody asked for is ignored (RFC 6455 section 5.5.3).
        """
        call, peer = self.opened()
        peer.send_raw(frame(PONG, b"hello") + frame(PONG) + text("a"))

        assert peer.frames() == []
        assert content(call.receive()) == ("text", "a")

    def test_ping_flood(self) -> None:
        """
        While the client reads nothing, its pings are not taken without end.
        """
        _, peer = self.opened()
        peer.clog()
        peer.send_raw(frame(PING, bytes(125)) * 40_000)
        assert peer.untaken > 2 * MIB

        last = frame(PING, b"last")
        peer.send_raw(last)
        peer.unclog()
        self.rig.settle()
        assert not peer.untaken
        assert peer.frames()[-1] == ("pong", b"last")

    def keep_alive(self, peer: WebSocketPeer, seconds: float) -> int:
        """
        Let time pass, a second at a time, and answer every ping; how many there were.
        """
        count = 0
        for _ in range(int(seconds)):
            self.rig.advance(1)
            for kind, payload in peer.frames():
                if kind == "ping":
                    count += 1
                    peer.send_raw(frame(PONG, payload))
        return count

    def test_keepalive(self) -> None:
        """
        The client is pinged every 20 seconds, and stays as long as it answers.
        """
        call, peer = self.opened()
        self.rig.advance(19)
        assert peer.frames() == []

        assert self.keep_alive(peer, 3) == 1
        assert 8 <= self.keep_alive(peer, 200) <= 10
        assert not peer.closed
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_keepalive_without_answer(self) -> None:
        """
        A client that does not answer a ping within 20 seconds is ended: a disconnect 1006.
        """
        call, peer = self.opened()
        receiving = call.receiving()
        self.rig.advance(38)
        assert not peer.closed and not receiving.done()

        self.rig.advance(6)
        assert departure(receiving.result())[0] == 1006
        self.rig.advance(11)
        assert peer.closed
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)
        self.end(call)
        assert (self.rig.outcomes[-1].kind, self.rig.outcomes[-1].status) == ("close", 1006)

    def test_keepalive_options(self) -> None:
        """
        Interval and timeout can be set; an interval of 0 is no pings, a timeout of 0 no end without an answer.
        """
        _, peer = self.opened(limits=WebSocketOptions(ping_interval_s=0))
        self.rig.advance(120)
        assert peer.frames() == [] and not peer.closed

        _, peer = self.opened(limits=WebSocketOptions(ping_interval_s=5, ping_timeout_s=3))
        self.rig.advance(6.5)
        assert [kind for kind, _ in peer.frames()] == ["ping"]
        self.rig.advance(4.5)
        assert peer.closed

        _, peer = self.opened(limits=WebSocketOptions(ping_interval_s=5, ping_timeout_s=0))
        self.rig.advance(60)
        assert not peer.closed

    def test_slow_application_is_no_dead_peer(self) -> None:
        """
        A client whose pong waits behind messages that the application does not take is not ended for it.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        peer.send_raw(frame(BINARY, bytes(1000)) * 1000)
        assert peer.untaken
        self.keep_alive(peer, 70)
        assert not peer.closed

        for _ in range(1000):
            assert content(call.receive()) == ("bytes", bytes(1000))
        self.keep_alive(peer, 70)
        assert not peer.closed
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_keepalive_while_send_waits(self) -> None:
        """
        A client that reads nothing answers no ping either, and is ended for it, though a send() waits.
        """
        call, peer = self.opened()
        peer.clog()
        waiting = call.sending({"type": "websocket.send", "bytes": bytes(MIB)})
        assert not waiting.done()
        self.rig.advance(90)

        if peer.multiplexed:
            # The connection is not the WebSocket's to end; its client hears of the end when it reads.
            assert waiting.done()
            peer.unclog()
        assert peer.closed
        assert isinstance(waiting.exception(), (ClientDisconnected, type(None)))
        if not call.ended:
            assert departure(call.receive())[0] == 1006
