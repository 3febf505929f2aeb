"""
One task a request.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from txasgi.asgi.task import Receive, Send
from txasgi.testing.conform.http_peer import HttpGroup, answer_with, complete_answer
from txasgi.testing.rig import response_body, response_start


class TaskConformance(HttpGroup):
    """
    One task a request, with a context of its own.
    """

    def test_fresh_context(self) -> None:
        """
        What one request sets in its context the next does not see, one after the other or all at once.
        """
        variable = contextvars.ContextVar("variable", default=0)
        seen: list[int] = []

        async def application(_scope: Any, receive: Receive, send: Send) -> None:
            seen.append(variable.get())
            variable.set(1)
            await receive()
            seen.append(variable.get())
            await send(response_start())
            await send(response_body(b"ok"))
            seen.append(variable.get())

        for at_once in (False, True):
            seen.clear()
            _, peer = self.serve(application)
            handles = []
            for _ in range(3):
                handles.append(peer.request())
                if not at_once:
                    assert peer.answer(handles[-1]).complete
            assert all(peer.answer(handle).complete for handle in handles)
            assert sorted(seen) == [0] * 3 + [1] * 6

    def test_context_of_the_body(self) -> None:
        """
        Body parts of one request do not carry the context of another.
        """
        variable = contextvars.ContextVar("variable", default="none")
        seen: list[str] = []

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            variable.set(scope["path"])
            while (await receive())["more_body"]:
                seen.append(variable.get())
            seen.append(variable.get())
            await send(response_start())
            await send(response_body(b"ok"))

        _, peer = self.serve(application)
        for path in (b"/a", b"/b"):
            seen.clear()
            handle = peer.request("POST", path, end=False)
            peer.body(handle, b"1")
            peer.body(handle, b"2", end=True)
            assert peer.answer(handle).complete
            assert {path.decode()} == set(seen)

    def test_sequence(self) -> None:
        """
        A connection serves many requests, with and without bodies, each answered with its own.
        """

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            body = b""
            while True:
                message = await receive()
                body += message["body"]
                if not message["more_body"]:
                    break
            await send(response_start())
            await send(response_body(scope["raw_path"] + b" " + body))

        rig, peer = self.serve(application)
        for n in range(50):
            body = None if n % 3 == 0 else b"x" * n
            handle = peer.request("POST" if body else "GET", b"/%d" % n, body=body)
            answer = peer.answer(handle)
            assert (b"/%d " % n + (body or b""), True) == (answer.body, answer.complete)
        assert not rig.gate.tasks
        assert len(rig.outcomes) == 50

    def test_all_at_once(self) -> None:
        """
        Requests that are sent without waiting are each answered with their own answer.
        """
        _, peer, script = self.script()
        handles = [peer.request("GET", b"/%d" % n) for n in range(10)]
        for n in range(10):
            peer.unsent(handles[n])
            call = script.calls[n]
            assert call.scope["path"] == f"/{n}"
            answer_with(call, b"%d" % n)

        assert [(200, b"%d" % n, True) for n in range(10)] == [complete_answer(peer, handle) for handle in handles]

    def test_answers_out_of_turn(self) -> None:
        """
        Side by side, an answer does not wait for those to earlier requests; else each request waits for its turn.
        """
        _, peer, script = self.script()
        handles = [peer.request("GET", b"/%d" % n) for n in range(5)]
        if not peer.multiplexed:
            assert [call.scope["path"] for call in script.calls] == ["/0"]
            return
        assert [call.scope["path"] for call in script.calls] == [f"/{n}" for n in range(5)]
        for call in script.calls:
            call.send(response_start(), response_body(b"a", more=True))
        for n in (3, 0, 4, 1, 2):
            script.calls[n].send(response_body(b"%d" % n))
            assert (200, b"a%d" % n, True) == complete_answer(peer, handles[n])
            script.calls[n].finish()
            waiting = [handle for handle, call in zip(handles, script.calls, strict=True) if not call.ended]
            assert [(200, b"a", False)] * len(waiting) == [complete_answer(peer, handle) for handle in waiting]

    def test_send_from_another_task(self) -> None:
        """
        receive() and send() work in tasks that the application starts.
        """

        async def application(_scope: Any, receive: Receive, send: Send) -> None:
            async def answer() -> None:
                await send(response_start())
                await send(response_body(b"ok"))

            async with asyncio.TaskGroup() as group:
                group.create_task(answer())
                group.create_task(receive())  # type: ignore[arg-type]  # receive() is a coroutine

        answer = self.answer_to(application)

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
