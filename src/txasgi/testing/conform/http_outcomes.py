"""
What the access log is told of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable

from txasgi.testing.conform.http_peer import HttpGroup, HttpPeer, answer_with, sends
from txasgi.testing.rig import Call, response_body, response_start


class OutcomeConformance(HttpGroup):
    """
    What the access log is told.
    """

    def outcome_of(self, act: Callable[[HttpPeer, Call], None], method: str = "GET") -> tuple[int, int, str]:
        """
        Status, size and why of the one Outcome of a request.
        """
        rig, peer, script = self.script()
        peer.request(method, b"/a")
        act(peer, script.call)
        rig.advance(30)
        if not script.call.ended:
            script.call.finish()
        (outcome,) = rig.outcomes
        assert outcome.head is not None
        assert (method, b"/a") == (outcome.head.method, outcome.head.target)
        assert outcome.seconds >= 0
        return outcome.status, outcome.size, outcome.why

    def test_outcome_complete(self) -> None:
        """
        A complete answer is reported with its status and size, once.
        """
        assert self.outcome_of(
            lambda _, call: call.send(response_start(), response_body(b"he", more=True), response_body(b"llo"))
        ) == (200, 5, "")
        assert self.outcome_of(lambda _, call: answer_with(call, b"no", 404)) == (404, 2, "")

    def test_outcome_no_body(self) -> None:
        """
        The size of an answer without body is 0.
        """
        assert self.outcome_of(lambda _, call: answer_with(call), "HEAD") == (200, 0, "")
        assert self.outcome_of(lambda _, call: answer_with(call, b"", 204)) == (204, 0, "")

    def test_reported_before_background_work(self) -> None:
        """
        A complete answer is reported while the application still runs, and not again when that fails.
        """
        rig, peer, script = self.script()
        peer.request()
        script.call.send(response_start(), response_body(b"ok"))
        assert [outcome.status for outcome in rig.outcomes] == [200]

        script.call.fail(ValueError("oops"))

        assert [(outcome.status, outcome.why) for outcome in rig.outcomes] == [(200, "")]

    def test_outcome_application_failed(self) -> None:
        """
        An answer that the application failed to give, or broke off, is reported as such.
        """

        def before(_: HttpPeer, call: Call) -> None:
            call.fail(ValueError("oops"))

        def after(_: HttpPeer, call: Call) -> None:
            call.send(response_start(201), response_body(b"abc", more=True))
            call.fail(ValueError("oops"))

        def none(_: HttpPeer, call: Call) -> None:
            call.finish()

        status, _, why = self.outcome_of(before)
        assert status == 500
        assert why
        status, _, why = self.outcome_of(none)
        assert status == 500
        assert why
        assert self.outcome_of(after)[:2] == (201, 3)
        assert self.outcome_of(after)[2]

    def test_outcome_client_left(self) -> None:
        """
        A request whose client left is reported with what it got by then.
        """

        def at_once(peer: HttpPeer, _: Call) -> None:
            peer.leave()

        def in_the_middle(peer: HttpPeer, call: Call) -> None:
            call.send(response_start(201), response_body(b"abc", more=True))
            peer.leave()

        status, size, why = self.outcome_of(at_once)
        assert (status, size) == (0, 0)
        assert why
        status, size, why = self.outcome_of(in_the_middle)
        assert (status, size) == (201, 3)
        assert why

    def test_no_report(self) -> None:
        """
        Nobody needs to listen.
        """
        answer = self.answer_to(sends(response_start(), response_body(b"ok")), report=None)

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
