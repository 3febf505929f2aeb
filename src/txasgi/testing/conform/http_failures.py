"""
Applications that fail over HTTP.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from txasgi.asgi.task import Message, Receive, Send
from txasgi.testing.conform.http_peer import HttpGroup, complete_answer, errors_logged, logged_once, refused, sends
from txasgi.testing.rig import response_body, response_start

if TYPE_CHECKING:
    import pytest


class FailureConformance(HttpGroup):
    """
    Applications that fail.
    """

    def test_exception_before_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception before the start is a 500 at once, logged once with its traceback, and told to nobody outside.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.fail(ValueError("a secret"))

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        assert b"secret" not in answer.body
        assert b"ValueError" not in answer.body
        logged_once(caplog, "a secret")
        self.check_usable(peer, script)

    def test_exception_before_start_with_body_to_come(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        The 500 does not wait for a request body that is still to come.
        """
        _, peer, script = self.script()
        handle = peer.request("POST", headers=[(b"content-length", b"10")], body=b"hello", end=False)

        script.call.fail(ValueError("oops"))

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        logged_once(caplog, "oops")

    def test_exception_in_the_turn_of_the_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception right after the start is a 500 or a broken off answer, never a complete one.
        """

        async def application(_scope: Any, _receive: Receive, send: Send) -> None:
            await send(response_start(200))
            raise ValueError("oops")

        answer = self.answer_to(application)

        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)
        logged_once(caplog, "oops")

    def test_exception_after_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception after the start breaks the answer off, with and without content-length; logged once.
        """
        for headers in ([], [(b"content-length", b"5")], [(b"content-length", b"3")]):
            for body in ([], [response_body(b"abc", more=True)]):
                caplog.clear()
                _, peer, script = self.script()
                handle = peer.request()
                script.call.send(response_start(200, headers), *body)

                script.call.fail(ValueError("oops"))

                assert peer.answer(handle).status == 200
                whole = body and headers == [(b"content-length", b"3")]
                if not whole or peer.multiplexed:
                    # Over HTTP/1.1 three of three bytes are complete, whatever comes after.
                    self.check_broken_off(peer, script, handle)
                logged_once(caplog, "oops")

    def test_exception_after_the_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An exception after a complete answer is logged once and harms neither answer nor connection.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(), response_body(b"ok"))

        script.call.fail(ValueError("oops"))

        assert complete_answer(peer, handle) == (200, b"ok", True)
        logged_once(caplog, "oops")
        self.check_usable(peer, script)

    def test_returns_without_answer(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns without an answer is answered for by a 500, and the operator told.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.finish()

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        assert len(errors_logged(caplog)) == 1
        self.check_usable(peer, script)

    def test_returns_after_start(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns between start and body leaves no complete answer.
        """
        answer = self.answer_to(sends(response_start(200)))

        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)
        assert len(errors_logged(caplog)) == 1

    def test_returns_in_the_middle(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns in the middle of its answer leaves it broken off.
        """
        for headers in ([], [(b"content-length", b"5")]):
            caplog.clear()
            _, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200, headers), response_body(b"abc", more=True))

            script.call.finish()

            assert peer.answer(handle).body == b"abc"
            self.check_broken_off(peer, script, handle)
            assert len(errors_logged(caplog)) == 1

    def test_application_cancels_itself(self) -> None:
        """
        An application that ends by CancelledError is answered for like one that failed.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.fail(asyncio.CancelledError())

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True)
        self.check_usable(peer, script)

    def test_application_that_is_no_coroutine(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that fails when it is called, or returns no awaitable, is a 500.
        """

        def fails(_scope: Any, _receive: Receive, _send: Send) -> Any:
            raise ValueError("oops")

        def returns_none(_scope: Any, _receive: Receive, _send: Send) -> Any:
            return None

        for application in (fails, returns_none):
            caplog.clear()
            answer = self.answer_to(application)
            assert (answer.status, answer.complete) == (500, True)
            assert len(errors_logged(caplog)) == 1

    def test_awaitable_that_is_no_coroutine(self) -> None:
        """
        An application may return any awaitable.
        """

        class Answering:
            def __init__(self, send: Send) -> None:
                self.send = send

            def __await__(self) -> Any:
                yield from sends(response_start(), response_body(b"ok"))({}, self.receive, self.send).__await__()

            async def receive(self) -> Message:
                raise NotImplementedError

        def application(_scope: Any, _receive: Receive, send: Send) -> Any:
            return Answering(send)

        answer = self.answer_to(application)

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)

    def test_refused_message_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        A refused message that the application lets out is logged once; one that it catches is not.
        """
        _, peer, script = self.script()
        peer.request()
        error = refused(script.call, response_start(99))
        assert errors_logged(caplog) == []

        script.call.fail(error)

        logged_once(caplog, "99")

    def test_no_response_splitting_in_the_500(self) -> None:
        """
        The 500 carries nothing of the request.
        """
        _, peer = self.serve(sends())
        answer = peer.answer(peer.request("GET", b"/<script>%0d%0a", [(b"x-a", b"<b>")]))

        assert (answer.status, answer.complete) == (500, True)
        assert b"script" not in answer.body
        assert b"<b>" not in answer.body
        assert all(value.startswith(b"text/plain") for value in answer.values(b"content-type"))

    def test_500_to_head(self) -> None:
        """
        The 500 to a HEAD has no body.
        """
        _, peer, script = self.script()
        handle = peer.request("HEAD")

        script.call.fail(ValueError("oops"))

        assert complete_answer(peer, handle) == (500, b"", True)
        self.check_usable(peer, script)
