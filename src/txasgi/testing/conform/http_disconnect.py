"""
Clients that leave.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from txasgi.asgi.task import Receive, Send
from txasgi.errors import ClientDisconnected
from txasgi.testing.conform.http_peer import (
    DISCONNECT,
    MIB,
    HttpGroup,
    answer_with,
    complete_answer,
    errors_logged,
    logged_once,
    pieces,
    read_body,
    refused,
)
from txasgi.testing.rig import response_body, response_start

if TYPE_CHECKING:
    import pytest


class DisconnectConformance(HttpGroup):
    """
    Clients that leave.
    """

    def test_send_raises(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        send() to a client that left raises ClientDisconnected, an OSError, which is not logged.
        """
        for before in ([], [response_start()], [response_start(), response_body(b"a", more=True)]):
            rig, peer, script = self.script()
            peer.request()
            call = script.call
            call.send(*before)
            peer.leave()

            for message in (response_start() if not before else response_body(b"b"), response_body(b"c")):
                error = call.sending(message).exception()
                assert isinstance(error, ClientDisconnected)
                assert isinstance(error, OSError)
                if error is not None:
                    last = error
            call.fail(last)

            assert not rig.gate.tasks
            assert errors_logged(caplog) == []

    def test_waiting_send_raises(self) -> None:
        """
        A send() that waits for a client that does not read raises once the client leaves.
        """
        _, peer, script = self.script()
        peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        tasks = [call.sending(response_body(piece, more=True)) for piece in pieces(2 * MIB)]
        assert not tasks[-1].done()

        peer.leave()

        waited = [task for task in tasks if task.exception() is not None]
        assert tasks[-1] in waited
        assert all(isinstance(task.exception(), ClientDisconnected) for task in waited)

    def test_wrapped_disconnect_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        ClientDisconnected is not logged either as the cause of another exception or within a group.
        """

        def raised_from(error: Exception) -> Exception:
            try:
                raise ValueError("wrapped") from error
            except ValueError as wrapped:
                return wrapped

        for wrap in (
            raised_from,
            lambda error: raised_from(raised_from(error)),
            lambda error: ExceptionGroup("several", [error]),
            lambda error: ExceptionGroup("outer", [ExceptionGroup("inner", [error]), raised_from(error)]),
            lambda error: raised_from(ExceptionGroup("several", [error])),
        ):
            _, peer, script = self.script()
            peer.request()
            peer.leave()
            error = script.call.sending(response_start()).exception()
            assert isinstance(error, ClientDisconnected)

            script.call.fail(wrap(error))

            assert errors_logged(caplog) == []

    def test_other_faults_are_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        A fault that has nothing to do with the client is logged, though the client left.
        """
        for other in (False, True):
            caplog.clear()
            _, peer, script = self.script()
            peer.request()
            peer.leave()
            error = script.call.sending(response_start()).exception()
            assert isinstance(error, ClientDisconnected)
            fault: Exception = ValueError("oops")
            if other:
                fault = ExceptionGroup("oops", [error, fault])

            script.call.fail(fault)

            logged_once(caplog, "oops")

    def test_returning_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that returns without a complete answer, its client having left, does nothing wrong.
        """
        for before in ([], [response_start()], [response_start(), response_body(b"a", more=True)]):
            _, peer, script = self.script()
            peer.request()
            script.call.send(*before)
            peer.leave()
            script.call.finish()

        assert errors_logged(caplog) == []

    def test_grace(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application whose client left is cancelled after ten seconds, not before; that is no error.
        """
        for before in ([], [response_start()], [response_start(), response_body(b"a", more=True)]):
            rig, peer, script = self.script()
            peer.request()
            call = script.call
            call.send(*before)

            peer.leave()
            rig.advance(9.5)
            assert not call.ended

            rig.advance(2.5)
            assert call.cancelled
            assert call.ended
            assert not rig.gate.tasks
        assert errors_logged(caplog) == []

    def test_grace_is_an_option(self) -> None:
        """
        The time of grace can be set.
        """
        rig, peer, script = self.script(disconnect_grace_s=3.0)
        peer.request()
        peer.leave()
        rig.advance(2.5)
        assert not script.call.ended
        rig.advance(2.5)

        assert script.call.cancelled

    def test_abandoned_request(self) -> None:
        """
        A client that gives up one request counts as gone for this one.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        call = script.call
        read_body(call)
        waiting = call.receiving()

        peer.abandon(handle)

        assert waiting.result() == DISCONNECT
        assert isinstance(call.sending(response_start()).exception(), ClientDisconnected)
        if peer.multiplexed:
            self.check_usable(peer, script)
        else:
            assert not peer.alive
        rig.advance(12)
        assert call.cancelled

    def test_ends_within_grace(self) -> None:
        """
        An application that ends by itself in time is not cancelled.
        """
        rig, peer, script = self.script()
        peer.request()
        peer.leave()
        rig.advance(5)

        script.call.finish()

        rig.advance(60)
        assert not script.call.cancelled
        assert not rig.gate.tasks

    def test_application_that_will_not_be_cancelled(self) -> None:
        """
        An application that goes on after it was cancelled is left alone.
        """
        rounds = 0

        async def application(_scope: Any, _receive: Receive, _send: Send) -> None:
            nonlocal rounds
            for _ in range(2):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    rounds += 1
                    return

        rig, peer = self.serve(application)
        peer.request()
        peer.leave()
        rig.advance(60)

        assert rounds == 1
        assert not rig.gate.tasks

    def test_finished_answer_is_never_cancelled(self) -> None:
        """
        What an application does after its answer is not disturbed by a client that leaves.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(), response_body(b"ok"))
        assert peer.answer(handle).complete

        peer.leave()
        rig.advance(600)

        assert not script.call.ended
        script.call.finish()
        assert not script.call.cancelled
        assert not rig.gate.tasks

    def test_background_work_does_not_hold_up_the_next_request(self) -> None:
        """
        The next request is served while the application still works on behalf of the one before.
        """
        _, peer, script = self.script()
        handle = peer.request()
        background = script.call
        background.send(response_start(), response_body(b"ok"))
        assert peer.answer(handle).complete

        self.check_usable(peer, script)

        assert not background.ended
        background.finish()
        self.check_usable(peer, script)

    def test_background_work_of_one_does_not_touch_the_next(self) -> None:
        """
        A client that leaves during its second request costs only this one's task.
        """
        rig, peer, script = self.script()
        peer.request()
        first = script.call
        first.send(response_start(), response_body(b"ok"))
        peer.request()
        second = script.call
        assert first is not second

        peer.leave()
        rig.advance(60)

        assert second.cancelled
        assert not first.ended
        refused(first, response_body(b"more"))

    def test_leaving_before_the_application_runs(self, caplog: pytest.LogCaptureFixture) -> None:
        """
        A client that is gone before the application had its first turn is no fault of anybody's.
        """

        async def application(_scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await send(response_start())
            await send(response_body(b"ok"))

        rig, peer = self.serve(application)
        peer.request()
        peer.leave()
        rig.advance(30)

        assert not rig.gate.tasks
        assert errors_logged(caplog) == []

    def test_concurrent_requests_fail_alone(self) -> None:
        """
        On a wire that carries several requests at a time, one that fails or is given up does not touch the others; on
        one that answers in turn, those behind it are not answered, and their applications never run.
        """
        _, peer, script = self.script()
        handles = [peer.request("GET", b"/%d" % n) for n in range(4)]
        if not peer.multiplexed:
            (failing,) = script.calls
            failing.send(response_start(), response_body(b"a", more=True))
            failing.fail(ValueError("oops"))
            assert [peer.answer(handle).reset for handle in handles] == [True] * 4
            assert [failing] == script.calls
            return
        failing, abandoned, slow, quick = script.calls
        failing.send(response_start(), response_body(b"a", more=True))
        failing.fail(ValueError("oops"))
        peer.abandon(handles[1])
        answer_with(quick, b"quick")

        assert peer.answer(handles[0]).reset
        assert DISCONNECT in (abandoned.receive(), abandoned.receive())
        assert complete_answer(peer, handles[3]) == (200, b"quick", True)
        assert peer.answer(handles[2]).status == 0
        answer_with(slow, b"slow")
        assert complete_answer(peer, handles[2]) == (200, b"slow", True)
        self.check_usable(peer, script)
