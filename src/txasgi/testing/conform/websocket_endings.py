"""
How the application ends, and the server.
"""

from __future__ import annotations

from collections.abc import Callable

from txasgi.errors import ClientDisconnected
from txasgi.testing.conform.websocket_peer import ACCEPT, WebSocketGroup, WebSocketPeer, close, departure, frame, raised
from txasgi.testing.rig import Call


class EndingConformance(WebSocketGroup):
    """
    How the application ends, and the server.
    """

    def test_exception_while_open(self) -> None:
        """
        An exception while the connection is open closes it with 1011, and is logged once with its traceback.
        """
        call, peer = self.opened()
        call.fail(ValueError("secret"))

        ((kind, (code, reason)),) = peer.frames()
        assert (kind, code) == ("close", 1011) and "secret" not in reason
        peer.send_raw(close(1011))
        assert peer.closed
        assert [ValueError] == [record.exc_info[0] for record in self.faults() if record.exc_info]

    def test_return_while_open(self) -> None:
        """
        An application that returns while the connection is open closes it with 1000, and nothing is logged.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.send", "text": "bye"})
        call.finish()

        assert peer.frames() == [("text", "bye"), ("close", (1000, ""))]
        peer.send_raw(close(1000))
        assert peer.closed

    def test_what_carried_it(self) -> None:
        """
        A connection that carries more than the WebSocket outlives it, whoever ended it and why; another ends with it.
        """

        def returns(call: Call, peer: WebSocketPeer) -> None:
            call.finish()
            peer.send_raw(close(1000))

        def fails(call: Call, peer: WebSocketPeer) -> None:
            call.fail(ValueError())
            peer.send_raw(close(1011))

        def breaks_a_rule(call: Call, peer: WebSocketPeer) -> None:
            peer.send_raw(frame(3))
            peer.send_raw(close(1002))

        endings: list[Callable[[Call, WebSocketPeer], None]] = [
            lambda call, peer: peer.send_raw(close(1000)),
            returns,
            fails,
            breaks_a_rule,
        ]
        for end in endings:
            call, peer = self.opened()
            end(call, peer)
            assert peer.closed
            assert peer.multiplexed == peer.alive
        self.faults()

    def test_exception_after_own_close(self) -> None:
        """
        An exception after the application's close is logged once, and adds nothing on the wire.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.close", "code": 4000})
        call.fail(ValueError("late"))
        peer.send_raw(close(4000))

        assert peer.frames() == [("close", (4000, ""))]
        assert len(self.faults()) == 1

    def test_drain(self) -> None:
        """
        When the server goes away the client gets a close 1012, and with its answer the connection ends.
        """
        call, peer = self.opened()
        gone: list[bool] = []
        self.rig.front.drain(lambda: gone.append(True))
        self.rig.settle()

        ((kind, (code, _)),) = peer.frames()
        assert (kind, code) == ("close", 1012) and not gone
        peer.send_raw(close(1012))
        assert departure(call.receive())[0] == 1012
        call.finish()
        assert peer.closed and not peer.alive
        assert [("open", self.opened_status), ("close", 1012)] == [(o.kind, o.status) for o in self.rig.outcomes]

    def test_drain_while_sending(self) -> None:
        """
        An application that goes on sending when the server goes away hears that the client is gone; nothing is logged.
        """
        call, peer = self.opened()
        self.rig.front.drain(lambda: None)
        self.rig.settle()
        error = raised(call, {"type": "websocket.send", "text": "x"})
        assert isinstance(error, ClientDisconnected)
        call.fail(error)
        peer.send_raw(close(1012))

        assert [kind for kind, _ in peer.frames()] == ["close"]
        assert peer.closed

    def test_drain_before_accept(self) -> None:
        """
        A handshake that is not decided when the server goes away does not stay open for long when it is accepted.
        """
        call, peer = self.asked()
        self.rig.front.drain(lambda: None)
        self.rig.settle()
        if peer.status is None:
            raised(call, ACCEPT)
            self.rig.settle()

        refused = peer.status is not None and peer.status >= 400
        assert refused or [(kind, value[0]) for kind, value in peer.frames()] == [("close", 1012)]

    def test_outcomes(self) -> None:
        """
        A WebSocket is reported when it opens and when it ends, with the close code and the bytes of its messages.
        """

        def own_close(call: Call, peer: WebSocketPeer) -> None:
            call.send({"type": "websocket.close", "code": 4002})
            peer.send_raw(close(4002))

        def returned(call: Call, peer: WebSocketPeer) -> None:
            call.finish()
            peer.send_raw(close(1000))

        def failed(call: Call, peer: WebSocketPeer) -> None:
            call.fail(ValueError())
            peer.send_raw(close(1011))

        endings: list[tuple[Callable[[Call, WebSocketPeer], None], int]] = [
            (lambda call, peer: peer.send_raw(close(4001)), 4001),
            (lambda call, peer: peer.send_raw(close()), 1005),
            (lambda call, peer: peer.leave(), 1006),
            (lambda call, peer: peer.send_raw(frame(3)), 1002),
            (own_close, 4002),
            (returned, 1000),
            (failed, 1011),
        ]
        for end, code in endings:
            call, peer = self.opened()
            call.send({"type": "websocket.send", "text": "12345"}, {"type": "websocket.send", "bytes": b"678"})
            assert [("open", self.opened_status)] == [(o.kind, o.status) for o in self.rig.outcomes]
            end(call, peer)
            peer.leave()
            if not call.ended:
                departure(call.receive())
                call.finish()
            assert [("open", self.opened_status), ("close", code)] == [(o.kind, o.status) for o in self.rig.outcomes]
            assert self.rig.outcomes[-1].size == 8
        self.faults()
