"""
HTTP/1.1 connections that the server ends.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.wire.h1_client import AFTER, GET, Client, Serve, deadlines, echo, get, post, quiet
from tests.wire.h1_requests import CHUNKED

from txasgi.testing.conform.http_peer import answer_with, read_body
from txasgi.testing.rig import Rig, Script, response_body, response_start


class TestKill:
    """
    Clients that vanish, at every byte.
    """

    def check(self, rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
        """
        After the grace nothing is left of them, and nobody was alarmed.
        """
        rig.advance(12)
        assert not rig.gate.tasks
        assert not deadlines(rig)
        assert rig.errors == []
        assert quiet(caplog)

    @pytest.mark.parametrize(
        "request_bytes",
        [
            get(b"/a?b", b"X: y"),
            post(b"Content-Length: 10", body=b"0123456789"),
            post(CHUNKED, body=b"5\r\nhello\r\n3;x\r\nfoo\r\n0\r\nX: y\r\n\r\n"),
            post(b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"),
            GET + GET,
        ],
        ids=["get", "length", "chunked", "expect", "pipelined"],
    )
    @pytest.mark.parametrize("kind", ["script", "echo", "receiving"])
    def test_in_a_request(
        self, serve: Serve, caplog: pytest.LogCaptureFixture, request_bytes: bytes, kind: str
    ) -> None:
        """
        A client that is gone after any byte of its request leaves nothing behind.
        """

        async def receiving(_scope: Any, receive: Any, _send: Any) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        application: Any = {"script": Script(), "echo": echo, "receiving": receiving}[kind]
        first = serve(application)
        for offset in range(len(request_bytes) + 1):
            client = Client(first.rig)
            client.transport.receive(request_bytes[:offset]) if offset else None
            if offset % 2:
                client.rig.settle()
            client.leave()
        first.leave()

        self.check(first.rig, caplog)

    def test_in_an_answer(self, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """
        A client that is gone after any byte of its answer leaves nothing behind.
        """
        for headers in ([], [(b"content-length", b"20")]):
            script = Script()
            first = serve(script)
            for offset in range(22):
                client = Client(first.rig)
                client.send(GET)
                if offset > 0:
                    script.call.send(response_start(200, headers))
                for n in range(max(0, offset - 1)):
                    script.call.send(response_body(b"x", more=n < 19))
                client.leave()
            first.leave()
            self.check_answers(first.rig, script, caplog)

    def check_answers(self, rig: Rig, script: Script, caplog: pytest.LogCaptureFixture) -> None:
        """
        `check`, and that only unfinished answers were cancelled.
        """
        rig.advance(12)
        assert [call.cancelled for call in script.calls] == [True] * 21 + [False]
        script.call.finish()
        self.check(rig, caplog)

    def test_in_a_streamed_answer(self, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """
        An application that streams, and lets ClientDisconnected out, is quiet about it.
        """

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            await send(response_start())
            for _ in range(50):
                await send(response_body(b"x", more=True))
                await asyncio.sleep(0)
            await send(response_body())

        first = serve(application)
        for turns in range(60):
            client = Client(first.rig)
            client.transport.receive(GET)
            for _ in range(turns):
                first.rig.loop.call_soon(first.rig.loop.stop)
                first.rig.loop.run_forever()
            client.transport.lose()
            first.rig.settle()
        first.leave()

        self.check(first.rig, caplog)

    def test_in_a_slow_read(self, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """
        A client that is gone after it read any part of an answer that was held up leaves nothing behind.
        """

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            await send(response_start())
            for n in range(20):
                await send(response_body(bytes(20_000), more=n < 19))

        first = serve(application)
        for reads in range(6):
            client = Client(first.rig)
            client.transport.clogged = True
            client.send(GET)
            for _ in range(reads):
                client.transport.unclog()
                client.transport.clogged = True
                client.rig.settle()
            client.leave()
        first.leave()

        self.check(first.rig, caplog)


class TestDrain:
    """
    A server that goes away.
    """

    def test_no_connection(self, serve: Serve) -> None:
        """
        Without connections it is done at once.
        """
        empty: list[int] = []
        client = serve()
        client.leave()
        client.rig.front.drain(lambda: empty.append(1))
        client.rig.settle()

        assert empty == [1]

    def test_idle(self, serve: Serve) -> None:
        """
        Idle connections close at once, without a word.
        """
        empty: list[int] = []
        client = serve()
        other = Client(client.rig)
        client.send(GET)
        before = client.written
        client.rig.front.drain(lambda: empty.append(1))
        client.rig.settle()
        assert client.transport.disconnecting
        assert empty == []
        client.go_on()
        other.go_on()
        client.rig.settle()

        assert client.transport.closed
        assert other.transport.closed
        assert client.written == before
        assert empty == [1]

    def test_active(self, serve: Serve) -> None:
        """
        A request that runs is answered, with Connection: close, and the connection ends behind it.
        """
        empty: list[int] = []
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2"))
        client.rig.front.drain(lambda: empty.append(1))
        client.rig.settle()
        assert not client.ended
        answer_with(script.call)

        (answer,) = client.answers()
        assert (answer.body, answer.complete) == (b"ok", True)
        assert answer.values(b"connection") == [b"close"]
        assert client.ended
        client.leave()
        assert empty == [1]
        assert len(script.calls) == 1

    def test_requests_that_wait(self, serve: Serve) -> None:
        """
        With requests behind it that were sent ahead, only our side is closed: a reset would take the last answer along.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2"))
        client.send(get(b"/3") * 1000)
        assert client.pending
        client.rig.front.drain(lambda: None)
        answer_with(script.call)

        assert client.transport.half_closed
        assert not client.transport.disconnecting
        assert client.statuses() == [200]

    def test_idle_after_pipelining(self, serve: Serve) -> None:
        """
        A connection that is idle again after pipelined requests closes at once as well.
        """
        client = serve()
        client.send(GET + GET)
        assert client.statuses() == [200, 200]
        client.rig.front.drain(lambda: None)
        client.rig.settle()

        assert client.transport.disconnecting

    def test_in_the_middle(self, serve: Serve) -> None:
        """
        An answer that began before is finished; the connection ends behind it.
        """
        empty: list[int] = []
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start(), response_body(b"a", more=True))
        client.rig.front.drain(lambda: empty.append(1))
        client.rig.advance(100)
        assert not client.ended
        script.call.send(response_body(b"b"))
        script.call.finish()

        (answer,) = client.answers()
        assert (answer.body, answer.complete) == (b"ab", True)
        assert client.ended
        client.leave()
        assert empty == [1]

    def test_body_to_come(self, serve: Serve) -> None:
        """
        A request whose body is still coming is served to its end.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Content-Length: 10", body=b"hello"))
        client.rig.front.drain(lambda: None)
        client.rig.settle()
        client.send(b"world" + AFTER)
        assert read_body(script.call) == b"helloworld"
        answer_with(script.call)

        (answer,) = client.answers()
        assert answer.values(b"connection") == [b"close"]
        assert client.ended
        assert len(script.calls) == 1

    def test_part_of_a_head(self, serve: Serve) -> None:
        """
        A head that is on its way is answered with Connection: close, or the connection closes in time.
        """
        empty: list[int] = []
        client = serve()
        client.send(b"GET / HTTP/1.1\r\nHo")
        client.rig.front.drain(lambda: empty.append(1))
        client.rig.settle()
        if not client.ended:
            client.send(b"st: a\r\n\r\n")
            (answer,) = client.answers()
            assert answer.values(b"connection") == [b"close"]
            assert client.ended
        client.leave()
        assert empty == [1]

    def test_background_work(self, serve: Serve) -> None:
        """
        Background work of a finished answer does not hold the connection.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start(), response_body(b"ok"))
        client.rig.front.drain(lambda: None)
        client.rig.settle()

        assert client.ended
        assert not script.call.ended
        script.call.finish()

    def test_new_connection(self, serve: Serve) -> None:
        """
        A connection that was accepted in the last moment is answered and closed, or closed.
        """
        client = serve()
        client.rig.front.drain(lambda: None)
        client.rig.settle()
        late = Client(client.rig)
        if not late.ended:
            late.send(GET)
            (answer,) = late.answers()
            assert answer.values(b"connection") == [b"close"]
        assert late.ended
