"""
The answer of an application that does not accept: `websocket.http.response`.
"""

from __future__ import annotations

from txasgi.asgi.task import Message
from txasgi.errors import ApplicationError
from txasgi.testing.conform.websocket_peer import ACCEPT, WebSocketGroup, departure, raised


class DenialConformance(WebSocketGroup):
    """
    The answer of an application that does not accept: `websocket.http.response`.
    """

    def test_denial(self) -> None:
        """
        A denial response is answered as the application says it, and receive gives the disconnect.
        """
        call, peer = self.asked()
        call.send(
            {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]},
            {"type": "websocket.http.response.body", "body": b"who are you?"},
        )

        assert (peer.status, peer.body, peer.complete) == (401, b"who are you?", True)
        assert (b"www-authenticate", b"Basic") in peer.headers
        assert departure(call.receive())[0] == 1006
        call.finish()
        assert [outcome.status for outcome in self.rig.outcomes] == [401]

    def test_streamed_denial(self) -> None:
        """
        The body of a denial response may come in pieces, each sent at once.
        """
        call, peer = self.asked()
        call.send({"type": "websocket.http.response.start", "status": 503, "headers": []})
        for piece in (b"one ", b"", b"two "):
            call.send({"type": "websocket.http.response.body", "body": piece, "more_body": True})
        assert (peer.status, peer.body, peer.complete) == (503, b"one two ", False)

        call.send({"type": "websocket.http.response.body", "body": b"three"})
        assert (peer.body, peer.complete) == (b"one two three", True)

    def test_denial_without_body(self) -> None:
        """
        A denial response may have an empty body.
        """
        call, peer = self.asked()
        call.send(
            {"type": "websocket.http.response.start", "status": 404},
            {"type": "websocket.http.response.body"},
        )

        assert (peer.status, peer.body, peer.complete) == (404, b"", True)

    def test_wrong_denial(self) -> None:
        """
        A denial response with a bad status or header raises, and what is right then still answers.
        """
        start: Message = {"type": "websocket.http.response.start"}
        for wrong in (
            {**start},
            {**start, "status": "403"},
            {**start, "status": 99},
            {**start, "status": 101},
            {**start, "status": 403, "headers": [(b"x", b"a\nb")]},
        ):
            call, peer = self.asked()
            assert isinstance(raised(call, wrong), ApplicationError), wrong
            assert peer.status is None, wrong

            call.send({**start, "status": 403}, {"type": "websocket.http.response.body", "body": b"no"})
            assert peer.status == 403, wrong
            assert peer.body == b"no", wrong

    def test_denial_excludes_the_rest(self) -> None:
        """
        Once a denial response has begun, accept, send, close and a second start raise.
        """
        call, peer = self.asked()
        start = {"type": "websocket.http.response.start", "status": 403}
        call.send(start)
        for wrong in (ACCEPT, start, {"type": "websocket.close"}, {"type": "websocket.send", "text": "x"}):
            assert isinstance(raised(call, wrong), ApplicationError), wrong
        call.send({"type": "websocket.http.response.body", "body": b"no"})

        assert (peer.status, peer.body, peer.complete) == (403, b"no", True)
        assert isinstance(raised(call, {"type": "websocket.http.response.body", "body": b"more"}), ApplicationError)

    def test_denial_after_accept(self) -> None:
        """
        A denial response after the accept raises, and the connection stays open.
        """
        call, peer = self.opened()

        wrong = {"type": "websocket.http.response.start", "status": 403}
        assert isinstance(raised(call, wrong), ApplicationError)
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_denial_that_breaks_off(self) -> None:
        """
        A denial response that the application does not complete is not shown as complete.
        """
        call, peer = self.asked()
        call.send(
            {"type": "websocket.http.response.start", "status": 404},
            {"type": "websocket.http.response.body", "body": b"half", "more_body": True},
        )
        call.fail(ValueError("broken"))

        assert not peer.complete and peer.closed
        assert len(self.faults()) == 1

    def test_denial_without_end(self) -> None:
        """
        A denial response of which only the start was sent is a 500, or broken off.
        """
        call, peer = self.asked()
        call.send({"type": "websocket.http.response.start", "status": 404})
        call.finish()

        assert (peer.status, peer.complete) == (500, True) or (not peer.complete and peer.closed)
        assert len(self.faults()) == 1
