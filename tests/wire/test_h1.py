"""
HTTP/1.1: bytes in, bytes out. What every wire does is in the conformance suite; here is what only this one does.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from txasgi.asgi.task import Application
from txasgi.testing.conform_http import Answer, answer_with, read_body
from txasgi.testing.h1_peer import read_answers
from txasgi.testing.rig import Rig, Script, response_body, response_start
from txasgi.testing.transports import MemoryTransport

KIB = 1024
MIB = 1024 * KIB

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
AFTER = b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n"
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")


def get(target: bytes = b"/", *lines: bytes) -> bytes:
    """
    A GET with these header lines behind Host.
    """
    return b"".join(line + b"\r\n" for line in (b"GET " + target + b" HTTP/1.1", b"Host: a", *lines, b""))


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/") -> bytes:
    """
    A POST with these header lines behind Host; framing is the caller's.
    """
    return b"".join(line + b"\r\n" for line in (b"POST " + target + b" HTTP/1.1", b"Host: a", *lines, b"")) + body


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """
    Answers with path, query and body; not at all when the client leaves within the body.
    """
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    await send(response_start(200, [(b"x-path", scope["raw_path"]), (b"x-query", scope["query_string"])]))
    await send(response_body(body))


class Client:
    """
    A client that sends bytes and reads with h11.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.transport: MemoryTransport = rig.connect()
        self.pending = bytearray()

    def send(self, data: bytes, step: int = 1 << 30) -> None:
        """
        Send bytes, so many in each read; what the server does not read yet stays pending.
        """
        self.pending += data
        self.go_on(step)

    def go_on(self, step: int = 1 << 30) -> None:
        """
        Send what is pending.
        """
        transport = self.transport
        self.settle()
        while self.pending and transport.reading and not transport.closed:
            piece = bytes(self.pending[:step])
            del self.pending[:step]
            transport.receive(piece)
            # One turn of the loop, as between two reads of a socket.
            self.rig.loop.call_soon(self.rig.loop.stop)
            self.rig.loop.run_forever()
            if not transport.reading:
                self.settle()
        self.settle()
        transport.finish()
        self.rig.settle()

    def settle(self) -> None:
        """
        Let the server answer what it has read.
        """
        answered = -1
        while len(self.rig.outcomes) != answered:
            answered = len(self.rig.outcomes)
            self.rig.settle()

    def leave(self) -> None:
        """
        Close the connection.
        """
        self.transport.lose()
        self.rig.settle()

    @property
    def written(self) -> bytes:
        """
        Everything the server sent.
        """
        self.go_on()
        return bytes(self.transport.written)

    @property
    def ended(self) -> bool:
        """
        The server closed its side in an orderly way.
        """
        self.go_on()
        transport = self.transport
        return transport.half_closed or (transport.disconnecting and not transport.aborted)

    def answers(self, *methods: str) -> list[Answer]:
        """
        What the server answered to these methods, or to any number of GETs.
        """
        written = self.written
        return read_answers(written, methods or ["GET"] * 10_000, self.ended, self.transport.aborted)

    def statuses(self, *methods: str) -> list[int]:
        """
        The statuses of the answers, each of which is complete.
        """
        answers = self.answers(*methods)
        assert all(answer.complete for answer in answers)
        return [answer.status for answer in answers]


Serve = Callable[..., Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """
    A client of an application.
    """
    rigs: list[Rig] = []

    def start(application: Application = echo, **options: Any) -> Client:
        options.setdefault("server", None)
        options.setdefault("date", False)
        rig = Rig(application, **options)
        rigs.append(rig)
        return Client(rig)

    yield start
    for rig in rigs:
        faults = list(rig.errors)
        rig.close()
        assert faults == []


def quiet(caplog: pytest.LogCaptureFixture) -> bool:
    """
    Nothing was logged as an error.
    """
    return [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def deadlines(rig: Rig) -> list[Any]:
    """
    Who still waits for a point in time.
    """
    return [waiter for bucket in rig.deadlines._buckets.values() for waiter in bucket if waiter.deadline is not None]


def head_lines(written: bytes) -> tuple[bytes, set[bytes], bytes]:
    """
    Status line, field lines and body of one answer.
    """
    head, _, body = written.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    assert len(lines) == len(set(lines))
    return first, set(lines), body


class TestBytes:
    """
    How answers look.
    """

    def test_answer(self, serve: Serve) -> None:
        """
        A small answer is one write: status line, fields, body.
        """
        writes: list[bytes] = []

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            await send(response_start(200, [(b"content-type", b"text/plain")]))
            await send(response_body(b"hello"))

        client = serve(application, server=b"txasgi", date=True)
        write = client.transport.write
        client.transport.write = lambda data: (writes.append(data), write(data))[1]  # type: ignore[method-assign,func-returns-value]
        client.send(GET)

        assert head_lines(client.written) == (
            b"HTTP/1.1 200 OK",
            {
                b"content-type: text/plain",
                b"content-length: 5",
                b"server: txasgi",
                b"date: Sun, 06 Nov 1994 08:49:37 GMT",
            },
            b"hello",
        )
        assert len(writes) <= 1

    def test_reason_phrases(self, serve: Serve) -> None:
        """
        The status line has a reason phrase, or at least the space in front of one (RFC 9112 section 4).
        """
        for status, line in (
            (200, rb"HTTP/1\.1 200 OK\r\n"),
            (404, rb"HTTP/1\.1 404 Not Found\r\n"),
            (413, rb"HTTP/1\.1 413 [A-Za-z ]*\r\n"),
            (599, rb"HTTP/1\.1 599 [A-Za-z ]*\r\n"),
        ):
            script = Script()
            client = serve(script)
            client.send(GET)
            script.call.send(response_start(status), response_body())
            assert re.match(line, client.written), client.written

    def test_streaming_is_chunked(self, serve: Serve) -> None:
        """
        Each part is a chunk, an empty one none, and the last is followed by the last chunk.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start())
        assert head_lines(client.transport.take()) == (b"HTTP/1.1 200 OK", {b"transfer-encoding: chunked"}, b"")

        script.call.send(response_body(b"x" * 26, more=True))
        assert client.transport.take().lower() == b"1a\r\n" + b"x" * 26 + b"\r\n"
        script.call.send(response_body(b"", more=True))
        assert client.transport.take() == b""
        script.call.send(response_body(b"ok"))
        assert client.transport.take() == b"2\r\nok\r\n0\r\n\r\n"

    def test_end_without_part(self, serve: Serve) -> None:
        """
        An end without bytes is just the last chunk.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start(), response_body(b"ok", more=True))
        client.transport.take()
        script.call.send(response_body())

        assert client.transport.take() == b"0\r\n\r\n"

    def test_trailers(self, serve: Serve) -> None:
        """
        Trailers stand behind the last chunk.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/", b"TE: trailers", b"Connection: TE"))
        script.call.send(response_start(200, trailers=True), response_body(b"ok"))
        script.call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1"), (b"x-b", b"2")]})

        assert client.written.endswith(b"\r\n\r\n2\r\nok\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\n")

    @pytest.mark.parametrize("status", [204, 304])
    def test_no_framing_without_body(self, serve: Serve, status: int) -> None:
        """
        204 and 304 have neither transfer-encoding nor content-length (RFC 9112 section 6.1, RFC 9110 section 8.6).
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start(status))
        script.call.send(response_body())
        script.call.finish()

        _, lines, body = head_lines(client.written)
        assert (lines, body) == (set(), b"")

    def test_early_hints(self, serve: Serve) -> None:
        """
        103 stands alone, before the head.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send({"type": "http.response.early_hint", "links": [b"</a>", b"</b>"]})

        assert client.written in (
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n",
            b"HTTP/1.1 103 Early Hints\r\nlink: </a>, </b>\r\n\r\n",
        )

    def test_no_early_hints_for_http_1_0(self, serve: Serve) -> None:
        """
        HTTP/1.0 gets no informational answer (RFC 9110 section 15.2), whether the application sends one or not.
        """
        script = Script()
        client = serve(script)
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        task = script.call.sending({"type": "http.response.early_hint", "links": [b"</a>"]})
        assert task.done()
        task.exception()
        script.call.send(response_start(), response_body(b"ok"))

        assert client.written.startswith(b"HTTP/1.1 200 OK\r\n")

    def test_no_chunks_and_no_trailers_for_http_1_0(self, serve: Serve) -> None:
        """
        HTTP/1.0 gets a body that ends with the connection, and no trailers.
        """
        script = Script()
        client = serve(script)
        client.send(b"GET / HTTP/1.0\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
        script.call.send(response_start(200, trailers=True), response_body(b"ab", more=True), response_body(b"c"))
        script.call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")]})
        script.call.finish()

        _, lines, body = head_lines(client.written)
        assert b"transfer-encoding: chunked" not in lines
        assert body == b"abc"
        assert client.ended

    def test_http_1_0_is_aborted_when_the_application_fails(self, serve: Serve) -> None:
        """
        A body that ends with the connection is broken off by a reset: an orderly close would make it complete.
        """
        script = Script()
        client = serve(script)
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        script.call.send(response_start(200), response_body(b"ab", more=True))
        script.call.fail(ValueError("oops"))

        assert client.transport.aborted


class TestKeepAlive:
    """
    Connections that stay and connections that go.
    """

    def test_http_1_1(self, serve: Serve) -> None:
        """
        HTTP/1.1 stays open, and nothing needs to be said about it.
        """
        client = serve()
        for n in range(1, 4):
            client.send(GET)
            assert client.statuses() == [200] * n
        assert b"connection:" not in client.written
        assert not client.ended

    def test_http_1_0_closes(self, serve: Serve) -> None:
        """
        HTTP/1.0 closes, even when there would be a content-length.
        """
        client = serve()
        client.send(b"GET / HTTP/1.0\r\n\r\n" + AFTER)

        assert client.statuses() == [200]
        assert client.ended

    def test_http_1_0_keep_alive(self, serve: Serve) -> None:
        """
        HTTP/1.0 that asks for it stays open, and is told so.
        """
        client = serve()
        client.send(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" * 2)

        answers = client.answers()
        assert [answer.status for answer in answers] == [200, 200]
        assert all(answer.values(b"connection") == [b"keep-alive"] for answer in answers)
        assert all(answer.values(b"content-length") == [b"0"] for answer in answers)
        assert not client.ended

    def test_http_1_0_keep_alive_without_length(self, serve: Serve) -> None:
        """
        HTTP/1.0 closes behind a body without content-length, whatever was asked for.
        """
        script = Script()
        client = serve(script)
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + AFTER)
        script.call.send(response_start(), response_body(b"ab", more=True), response_body(b"c"))
        script.call.finish()

        _, lines, body = head_lines(client.written)
        assert lines <= {b"connection: close"}
        assert body == b"abc"
        assert client.ended
        assert len(script.calls) == 1

    def test_http_1_0_head(self, serve: Serve) -> None:
        """
        A streamed answer to a HEAD of HTTP/1.0 is complete and empty.
        """
        script = Script()
        client = serve(script)
        client.send(b"HEAD / HTTP/1.0\r\n\r\n")
        script.call.send(response_start(), response_body(b"ab", more=True), response_body(b"c"))

        assert client.statuses("HEAD") == [200]
        assert client.ended

    @pytest.mark.parametrize(
        "lines",
        [
            [b"Connection: close"],
            [b"connection: CLOSE"],
            [b"Connection: keep-alive, close"],
            [b"Connection: close , x"],
            [b"Connection: x", b"Connection: close"],
            [b"Connection:\tclose"],
        ],
    )
    def test_client_says_close(self, serve: Serve, lines: list[bytes]) -> None:
        """
        After Connection: close the answer says the same, and nothing behind is answered (RFC 9112 section 9.6).
        """
        client = serve()
        client.send(get(b"/", *lines) + AFTER)

        (answer,) = client.answers()
        assert (answer.status, answer.complete) == (200, True)
        assert answer.values(b"connection") == [b"close"]
        assert client.ended

    @pytest.mark.parametrize(
        "line", [b"Connection: closed", b"Connection: x-close", b"Connection:", b"X: close", b"Connection: Close-x"]
    )
    def test_not_quite_close(self, serve: Serve, line: bytes) -> None:
        """
        What only looks like close does not close.
        """
        client = serve()
        client.send(get(b"/", line) + AFTER)

        assert client.statuses() == [200, 200]
        assert not client.ended

    def test_application_says_close(self, serve: Serve) -> None:
        """
        The application's Connection: close is either dropped or obeyed, not sent and then ignored.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start(200, [(b"connection", b"close")]), response_body(b"ok"))
        script.call.finish()

        (answer,) = client.answers()
        assert client.ended == (answer.values(b"connection") == [b"close"])

    def test_streamed_answer_to_close(self, serve: Serve) -> None:
        """
        A streamed answer on a connection that will close can still be told from one that was cut off.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/", b"Connection: close"))
        script.call.send(response_start(), response_body(b"ab", more=True))
        assert not client.ended
        script.call.send(response_body(b"c"))
        script.call.finish()

        (answer,) = client.answers()
        assert (answer.body, answer.complete) == (b"abc", True)
        assert answer.values(b"transfer-encoding") == [b"chunked"]
        assert client.ended

    def test_background_work_holds_no_connection(self, serve: Serve) -> None:
        """
        A connection that closes does so when the answer is complete, not when the application returns.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/", b"Connection: close"))
        script.call.send(response_start(), response_body(b"ok"))

        assert client.ended
        assert not script.call.ended
        script.call.finish()


class TestPipelining:
    """
    Requests that do not wait for their turn.
    """

    def test_in_order(self, serve: Serve) -> None:
        """
        Answers come in the order of the requests, however slow the first is.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2") + get(b"/3"))
        assert [call.scope["path"] for call in script.calls] == ["/1"]

        for n in range(3):
            assert client.written.count(b"HTTP/1.1") == n
            call = script.calls[n]
            call.send(response_start(), response_body(b"%d" % n))
            call.finish()
            client.go_on()

        assert [answer.body for answer in client.answers()] == [b"0", b"1", b"2"]

    def test_next_starts_when_the_answer_is_complete(self, serve: Serve) -> None:
        """
        Background work does not hold up the next pipelined request.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2"))
        script.call.send(response_start(), response_body(b"ok"))
        client.go_on()

        assert [call.scope["path"] for call in script.calls] == ["/1", "/2"]
        assert not script.calls[0].ended

    def test_bodies(self, serve: Serve) -> None:
        """
        Bodies between pipelined requests stay with their request, in one read and byte by byte.
        """
        data = (
            post(b"Content-Length: 5", body=b"hello")
            + post(b"Transfer-Encoding: chunked", body=b"3\r\nfoo\r\n0\r\n\r\n")
            + get()
            + post(b"Content-Length: 0")
            + post(b"Content-Length: 4", body=b"\r\n\r\n")
            + get()
        )
        for step in (1 << 30, 1, 7):
            client = serve()
            client.send(data, step)
            assert [answer.body for answer in client.answers()] == [b"hello", b"foo", b"", b"", b"\r\n\r\n", b""]

    def test_bad_behind_good(self, serve: Serve) -> None:
        """
        A bad request behind a good one: the good one is answered, then 400, then the end.
        """
        for step in (1 << 30, 1):
            client = serve()
            client.send(GET + b"NOT HTTP\r\n\r\n" + AFTER, step)

            assert client.statuses() in ([200, 400], [200, 501])
            assert client.ended

    def test_bad_behind_slow(self, serve: Serve) -> None:
        """
        The refusal waits for the answers in front of it.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2") + b"NOT HTTP\r\n\r\n" + AFTER)
        assert client.written == b""
        script.calls[0].send(response_start(), response_body(b"1", more=True))
        assert client.written.endswith(b"\r\n1\r\n1\r\n")
        script.calls[0].send(response_body(b"!"))
        client.go_on()
        answer_with(script.calls[1], b"2")

        assert [answer.body for answer in client.answers()][:2] == [b"1!", b"2"]
        assert client.statuses() in ([200, 200, 400], [200, 200, 501])
        assert client.ended
        assert len(script.calls) == 2

    def test_close_behind_good(self, serve: Serve) -> None:
        """
        A request that closes is answered though it is pipelined and more follows it; that is ignored (section 9.6).
        """
        for last in (get(b"/last", b"Connection: close"), b"GET /last HTTP/1.0\r\n\r\n"):
            for behind in (AFTER, b"NOT HTTP", b"\r\n", b""):
                for step in (1 << 30, 1):
                    client = serve()
                    client.send(get(b"/first") + last + behind, step)
                    assert [answer.values(b"x-path") for answer in client.answers()] == [[b"/first"], [b"/last"]]
                    assert client.ended

    def test_garbage_behind_a_chunked_body(self, serve: Serve) -> None:
        """
        Garbage behind a chunked body is refused, the request before it is not touched (CVE-2024-41671).
        """
        client = serve()
        client.send(post(b"Transfer-Encoding: chunked", body=b"3\r\nfoo\r\n0\r\n\r\n") + b"\x01\x02\r\n\r\n" + AFTER)

        assert client.statuses() in ([200, 400], [200, 501])
        assert client.answers()[0].body == b"foo"

    def test_client_leaves_with_requests_waiting(self, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        """
        Pipelined requests that were not begun are forgotten when the client leaves.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2"))
        client.leave()
        client.rig.advance(30)

        assert len(script.calls) == 1
        assert not client.rig.gate.tasks
        assert quiet(caplog)

    def test_nothing_behind_a_failure(self, serve: Serve) -> None:
        """
        Behind an answer that was broken off nothing is answered.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2"))
        script.call.send(response_start(), response_body(b"ab", more=True))
        script.call.fail(ValueError("oops"))
        client.go_on()

        (answer,) = client.answers()
        assert (answer.body, answer.complete, answer.reset) == (b"ab", False, True)
        assert len(script.calls) == 1

    def test_next_goes_on_after_500(self, serve: Serve) -> None:
        """
        Behind a 500 the connection goes on.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + get(b"/2"))
        script.call.fail(ValueError("oops"))
        client.go_on()
        script.call.send(response_start(), response_body(b"ok"))

        assert client.statuses() == [500, 200]


class TestChunkedRequests:
    """
    Bodies in chunks.
    """

    def test_chunks(self, serve: Serve) -> None:
        """
        Chunks are joined and what surrounds them is taken away, wherever reads are cut.
        """
        body = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\n\r\n"
        for step in range(1, len(body) + 1):
            client = serve()
            client.send(post(b"Transfer-Encoding: chunked"))
            client.send(body, step)
            assert client.answers()[0].body == b"hello world"

    def test_delivered_at_once(self, serve: Serve) -> None:
        """
        A part of a chunk is received before the rest of it has come.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Transfer-Encoding: chunked", body=b"ff\r\nhello"))

        message = script.call.receive()
        assert (message["body"], message["more_body"]) == (b"hello", True)

    @pytest.mark.parametrize("cut", range(1, 5))
    def test_cut_off(self, serve: Serve, cut: int) -> None:
        """
        A body without its last bytes is not complete.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Transfer-Encoding: chunked", body=b"2\r\nok\r\n0\r\n\r\n"[:-cut]))
        client.leave()

        messages = [script.call.receive() for _ in range(3)]
        assert [message for message in messages if message.get("more_body") is False] == []
        assert messages[-1] == {"type": "http.disconnect"}

    def test_many_tiny_chunks(self, serve: Serve) -> None:
        """
        A read full of one-byte chunks is joined to few messages.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Transfer-Encoding: chunked"))
        client.send(b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n")

        received = b""
        count = 0
        while True:
            message = script.call.receive()
            received += message["body"]
            count += 1
            client.go_on()
            if not message["more_body"]:
                break
        assert received == b"x" * 10_000
        assert count < 100


class TestExpect:
    """
    Expect: 100-continue (RFC 9110 section 10.1.1).
    """

    EXPECT = post(b"Content-Length: 5", b"Expect: 100-continue")

    def test_at_first_receive(self, serve: Serve) -> None:
        """
        100 Continue goes out at the first receive(), once.
        """
        script = Script()
        client = serve(script)
        client.send(self.EXPECT)
        assert client.written == b""

        first = script.call.receiving()
        assert client.transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"he")
        assert first.result()["body"] == b"he"
        second = script.call.receiving()
        client.send(b"llo")
        assert second.result()["body"] == b"llo"
        answer_with(script.call)
        client.send(GET)
        script.call.send(response_start(), response_body(b"ok"))

        assert client.statuses() == [200, 200]
        assert not client.ended

    @pytest.mark.parametrize("value", [b"100-Continue", b"100-CONTINUE", b" 100-continue "])
    def test_spelling(self, serve: Serve, value: bytes) -> None:
        """
        The expectation has no case.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Content-Length: 5", b"Expect:" + value))
        script.call.receiving()

        assert client.transport.take() == b"HTTP/1.1 100 Continue\r\n\r\n"

    def test_body_is_there_already(self, serve: Serve) -> None:
        """
        A body that came without waiting is received; a 100 may be left out.
        """
        script = Script()
        client = serve(script)
        client.send(self.EXPECT + b"hello")
        assert read_body(script.call) == b"hello"
        answer_with(script.call)
        client.send(GET)
        script.call.send(response_start(), response_body(b"ok"))

        assert client.statuses() == [200, 200]

    def test_not_for_http_1_0(self, serve: Serve) -> None:
        """
        HTTP/1.0 gets no 100.
        """
        script = Script()
        client = serve(script)
        client.send(b"POST / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        waiting = script.call.receiving()
        assert client.written == b""
        client.send(b"hello")
        assert waiting.result()["body"] == b"hello"
        script.call.send(response_start(), response_body(b"ok"))

        assert client.statuses() == [200]

    def test_not_without_body(self, serve: Serve) -> None:
        """
        There is nothing to wait for without a body, and the connection goes on.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/", b"Expect: 100-continue") + AFTER)
        assert read_body(script.call) == b""
        answer_with(script.calls[0])
        client.go_on()
        answer_with(script.calls[1])

        assert client.statuses() == [200, 200]

    def test_answered_without_receive(self, serve: Serve) -> None:
        """
        An application that answers without receive() gets no 100 sent; whether the body comes is not known: close.
        """
        script = Script()
        client = serve(script)
        client.send(self.EXPECT)
        answer_with(script.call, b"no", 413)

        (answer,) = client.answers()
        assert (answer.status, answer.complete, answer.informational) == (413, True, [])
        assert answer.values(b"connection") == [b"close"]
        assert client.ended
        client.send(b"hello" + AFTER)
        assert client.statuses() == [413]
        assert len(script.calls) == 1

    def test_no_100_within_the_answer(self, serve: Serve) -> None:
        """
        A receive() after the start sends no 100 into the answer.
        """
        script = Script()
        client = serve(script)
        client.send(self.EXPECT)
        script.call.send(response_start(200), response_body(b"a", more=True))
        script.call.receiving()
        script.call.send(response_body(b"b"))
        script.call.finish()

        (answer,) = client.answers()
        assert (answer.body, answer.complete, answer.informational) == (b"ab", True, [])

    def test_no_100_after_the_answer(self, serve: Serve) -> None:
        """
        A receive() after the answer sends nothing either.
        """
        script = Script()
        client = serve(script)
        client.send(self.EXPECT)
        script.call.send(response_start(200), response_body(b"a"))
        before = client.written
        script.call.receive()

        assert client.written == before

    def test_pipelined(self, serve: Serve) -> None:
        """
        The 100 of a pipelined request comes behind the answer before it.
        """
        script = Script()
        client = serve(script)
        client.send(get(b"/1") + self.EXPECT)
        answer_with(script.calls[0], b"1")
        client.go_on()
        receiving = script.calls[1].receiving()
        client.send(b"hello")
        assert receiving.result()["body"] == b"hello"
        script.call.send(response_start(200), response_body(b"2"))

        first, second = client.answers()
        assert (first.body, first.informational) == (b"1", [])
        assert (second.body, second.informational) == (b"2", [(100, [])])


class TestEarlyAnswers:
    """
    Answers that do not wait for the request.
    """

    def test_small_body(self, serve: Serve) -> None:
        """
        A small body that nobody received is skipped, and not taken for a request.
        """
        body = b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n".ljust(100, b"x")
        for at_once in (True, False):
            script = Script()
            client = serve(script)
            client.send(post(b"Content-Length: 100"))
            if at_once:
                client.send(body)
            answer_with(script.call, b"no", 413)
            assert client.statuses() == [413]
            if not at_once:
                client.send(body)
            client.send(AFTER)
            assert [call.scope["path"] for call in script.calls] == ["/", "/after"]
            script.call.send(response_start(), response_body(b"ok"))

            assert client.statuses() == [413, 200]
            assert not client.ended

    def test_small_chunked_body(self, serve: Serve) -> None:
        """
        The same for a body in chunks that has come.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Transfer-Encoding: chunked", body=b"3\r\nfoo\r\n0\r\n\r\n") + AFTER)
        answer_with(script.calls[0], b"no", 413)
        client.go_on()
        answer_with(script.calls[1])

        assert client.statuses() == [413, 200]

    def test_partly_received(self, serve: Serve) -> None:
        """
        The rest of a body of which a part was received is skipped as well.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Content-Length: 10", body=b"hello"))
        assert script.call.receive()["body"] == b"hello"
        answer_with(script.call, b"no", 413)
        client.send(b"world" + AFTER)
        script.call.send(response_start(), response_body(b"ok"))

        assert client.statuses() == [413, 200]

    def test_large_body(self, serve: Serve) -> None:
        """
        A large body is not worth waiting for: the answer says close, our side closes, theirs is read for a while.

        Closing both at once would reset the connection and might take the answer with it (RFC 9112 section 9.6).
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Content-Length: 100000000", body=bytes(KIB)))
        answer_with(script.call, b"no", 413)

        (answer,) = client.answers()
        assert (answer.status, answer.body, answer.complete) == (413, b"no", True)
        assert answer.values(b"connection") == [b"close"]
        assert client.transport.half_closed
        assert not client.transport.disconnecting
        client.send(bytes(MIB), 64 * KIB)
        assert not client.transport.aborted
        assert client.statuses() == [413]

        client.leave()
        client.rig.advance(60)
        assert not deadlines(client.rig)

    def test_lingering_ends(self, serve: Serve) -> None:
        """
        A client that goes on sending, or just stays, is let go after a while.
        """
        for sends in (True, False):
            script = Script()
            client = serve(script)
            client.send(post(b"Content-Length: 100000000", body=bytes(KIB)))
            answer_with(script.call, b"no", 413)
            for _ in range(60):
                if sends and not client.transport.disconnecting:
                    client.send(bytes(KIB))
                client.rig.advance(1)
            assert client.transport.disconnecting
            client.go_on()
            assert client.transport.closed
            assert not deadlines(client.rig)

    def test_unknown_length(self, serve: Serve) -> None:
        """
        A chunked body whose end is not in sight after an answer does not keep the connection for ever.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Transfer-Encoding: chunked", body=b"3\r\nfoo\r\n"))
        answer_with(script.call, b"no", 413)
        for _ in range(100):
            if client.ended:
                break
            client.send(b"10000\r\n" + bytes(0x10000) + b"\r\n")

        assert client.ended
        assert client.statuses() == [413]

    def test_answer_while_the_body_comes(self, serve: Serve) -> None:
        """
        An application may answer and receive at the same time.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Content-Length: 10", body=b"hello"))
        script.call.send(response_start(200), response_body(b"a", more=True))
        assert script.call.receive()["body"] == b"hello"
        client.send(b"world")
        assert script.call.receive()["body"] == b"world"
        script.call.send(response_body(b"b"))
        script.call.finish()
        client.send(AFTER)
        script.call.send(response_start(200), response_body(b"c"))

        assert [answer.body for answer in client.answers()] == [b"ab", b"c"]

    def test_bad_body_behind_an_answer(self, serve: Serve) -> None:
        """
        A body that turns out to be malformed after the answer ends the connection without a second answer.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Transfer-Encoding: chunked", body=b"3\r\nfoo\r\n"))
        answer_with(script.call, b"no", 413)
        client.send(b"zz\r\n" + AFTER)

        assert [answer.status for answer in client.answers()] == [413]
        assert len(script.calls) == 1
        assert client.ended or client.transport.aborted

    def test_bad_body_within_an_answer(self, serve: Serve) -> None:
        """
        A body that turns out to be malformed during the answer: the application gets http.disconnect, nobody a 400.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Transfer-Encoding: chunked", body=b"3\r\nfoo\r\n"))
        script.call.send(response_start(200), response_body(b"ab", more=True))
        client.send(b"zz\r\n" + AFTER)

        messages = [script.call.receive(), script.call.receive()]
        assert messages[-1] == {"type": "http.disconnect"}
        (answer,) = client.answers()
        assert (answer.status, answer.complete) == (200, False)
        client.rig.advance(12)
        assert not client.rig.gate.tasks


@dataclass(slots=True)
class Bad:
    """
    A request to be refused.

    in_body: the fault shows only when the application may already have been called.
    """

    name: str
    data: bytes
    statuses: set[int]
    in_body: bool = False


def bad_line(line: bytes, *statuses: int) -> Bad:
    """
    A request line to be refused.
    """
    return Bad(repr(line)[:60], line + b"\r\nHost: a\r\n\r\n", set(statuses) or {400})


def bad_header(line: bytes, *statuses: int) -> Bad:
    """
    A header line to be refused.
    """
    return Bad(repr(line)[:60], get(b"/", line), set(statuses) or {400})


def bad_host(value: bytes) -> Bad:
    """
    A Host to be refused.
    """
    return Bad(f"host {value!r}", b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", {400})


def bad_framing(*lines: bytes, statuses: set[int] | None = None) -> Bad:
    """
    Header lines of a POST to be refused; a body follows that fits none.
    """
    return Bad(repr(b"|".join(lines))[:60], post(*lines, body=b"5\r\nhello\r\n0\r\n\r\n"), statuses or {400})


def bad_chunk(body: bytes, *statuses: int) -> Bad:
    """
    A chunked body to be refused.
    """
    return Bad(
        f"chunk {body!r}"[:60],
        post(b"Transfer-Encoding: chunked", body=body),
        set(statuses) or {400},
        in_body=True,
    )


BAD = [
    # The request line, RFC 9112 section 3.
    bad_line(b"GET / HTTP/1.1 "),
    bad_line(b"GET\t/\tHTTP/1.1", 400, 501),
    bad_line(b" GET / HTTP/1.1", 400, 501),
    bad_line(b"GET /", 400, 505),
    bad_line(b"GET", 400, 501),
    bad_line(b"GET / ", 400, 505),
    bad_line(b"GET /a b HTTP/1.1"),
    bad_line(b"GET / HTTP/1.1 x"),
    bad_line(b"HTTP/1.1 200 OK", 400, 501),
    bad_line(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, 501),
    bad_line(b"\x00GET / HTTP/1.1", 400, 501),
    bad_line(b"\xef\xbb\xbfGET / HTTP/1.1", 400, 501),
    # Its version.
    bad_line(b"GET / HTTP/2.0", 505),
    bad_line(b"GET / HTTP/3.0", 400, 505),
    bad_line(b"GET / HTTP/0.9", 400, 505),
    bad_line(b"GET / HTTP/9.9", 400, 505),
    bad_line(b"GET / HTTP/1"),
    bad_line(b"GET / HTTP/1."),
    bad_line(b"GET / HTTP/11"),
    bad_line(b"GET / HTTP/1.10"),
    bad_line(b"GET / HTTP/01.1"),
    bad_line(b"GET / HTTP/1,1"),
    bad_line(b"GET / HTTP/1.1x"),
    bad_line(b"GET / http/1.1"),
    bad_line(b"GET / HTP/1.1"),
    bad_line(b"GET / HTTP /1.1"),
    bad_line(b"DESCRIBE / RTSP/1.0", 400, 501, 505),
    bad_line(b"SOURCE / ICE/1.0", 400, 501, 505),
    # Its method. A parser that goes byte by byte cannot tell a wrong one from an unknown one.
    bad_line(b"FOO / HTTP/1.1", 400, 501),
    bad_line(b"get / HTTP/1.1", 400, 501),
    bad_line(b"GETT / HTTP/1.1", 400, 501),
    bad_line(b"X" * 1000 + b" / HTTP/1.1", 400, 501),
    bad_line(b"G@T / HTTP/1.1", 400, 501),
    bad_line(b"G\x00T / HTTP/1.1", 400, 501),
    bad_line(b"G\xc3T / HTTP/1.1", 400, 501),
    bad_line(b"GET: / HTTP/1.1", 400, 501),
    bad_line(b"CONNECT a:443 HTTP/1.1", 400, 501),
    bad_line(b"CONNECT / HTTP/1.1", 400, 501),
    # Its target.
    bad_line(b"GET foo HTTP/1.1"),
    bad_line(b"GET * HTTP/1.1"),
    bad_line(b"POST * HTTP/1.1"),
    bad_line(b"OPTIONS *x HTTP/1.1"),
    bad_line(b"GET ?a HTTP/1.1"),
    bad_line(b"GET a:80 HTTP/1.1"),
    bad_line(b"GET http:// HTTP/1.1"),
    bad_line(b"GET http:///a HTTP/1.1"),
    bad_line(b"GET http:a HTTP/1.1"),
    bad_line(b"GET /#a HTTP/1.1"),
    bad_line(b"GET /a?b#c HTTP/1.1"),
    bad_line(b"GET /\x01 HTTP/1.1"),
    bad_line(b"GET /\x7f HTTP/1.1"),
    bad_line(b"GET /\x00 HTTP/1.1"),
    bad_line(b"GET /?\x0b HTTP/1.1"),
    bad_line(b"GET /a\rb HTTP/1.1"),
    bad_line(b"GET /" + b"a" * 70_000 + b" HTTP/1.1", 414, 431),
    bad_line(b"GET /?" + b"a" * 70_000 + b" HTTP/1.1", 414, 431),
    # Line ends, RFC 9112 section 2.2.
    Bad("only LF", b"GET / HTTP/1.1\nHost: a\n\n", {400}),
    Bad("LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", {400}),
    Bad("LF behind a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", {400}),
    Bad("LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", {400}),
    Bad("only CR", b"GET / HTTP/1.1\rHost: a\r\r", {400}),
    Bad("CR CR LF", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", {400}),
    Bad("CR CR LF behind a field", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", {400}),
    # Fields, RFC 9112 section 5.
    bad_header(b"Header : x"),
    bad_header(b"Header\t: x"),
    bad_header(b" Folded: x"),
    bad_header(b"X: a\r\n folded"),
    bad_header(b"X: a\r\n\tfolded"),
    Bad("first line folded", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", {400}),
    Bad("first line blank", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", {400}),
    bad_header(b": x"),
    bad_header(b"no colon"),
    bad_header(b"x"),
    bad_header(b"na me: x"),
    bad_header(b"n\x00: x"),
    bad_header(b"n\x7f: x"),
    bad_header(b"n(: x"),
    bad_header(b"n\xe9: x"),
    bad_header(b"{n}: x"),
    bad_header(b'"n": x'),
    *(
        bad_header(b"X: a" + bytes([code]) + b"b")
        for code in (0, 1, 8, 0x0B, 0x0C, 0x0D, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F, 0x7F)
    ),
    bad_header(b"X: \x00"),
    bad_header(b"X: a\r"),
    # Host, RFC 9112 section 3.2.
    Bad("no host", b"GET / HTTP/1.1\r\n\r\n", {400}),
    Bad("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    Bad("the same host twice", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", {400}),
    Bad("a bad host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a@b\r\n\r\n", {400}),
    Bad("absolute-form without host", b"GET http://a/ HTTP/1.1\r\n\r\n", {400}),
    bad_host(b""),
    bad_host(b"a/../admin?"),
    bad_host(b"a@b"),
    bad_host(b"a b"),
    bad_host(b"a\tb"),
    bad_host(b"a?b"),
    bad_host(b"a#b"),
    bad_host(b"a\\b"),
    bad_host(b"<script>"),
    bad_host(b"[::1"),
    bad_host(b"a:b"),
    bad_host(b"a:80:80"),
    bad_host(b":80"),
    bad_host(b"http://a"),
    # Content-Length, RFC 9112 section 6.3.
    bad_framing(b"Content-Length: +5"),
    bad_framing(b"Content-Length: -5"),
    bad_framing(b"Content-Length: -0"),
    bad_framing(b"Content-Length: 5 5"),
    bad_framing(b"Content-Length: 5, 5"),
    bad_framing(b"Content-Length: 5,5"),
    bad_framing(b"Content-Length: 5,"),
    bad_framing(b"Content-Length: 5;"),
    bad_framing(b"Content-Length: 0x5"),
    bad_framing(b"Content-Length: 5.0"),
    bad_framing(b"Content-Length: 1_0"),
    bad_framing(b"Content-Length: 5a"),
    bad_framing(b"Content-Length: a"),
    bad_framing(b"Content-Length:"),
    bad_framing(b'Content-Length: "5"'),
    bad_framing(b"Content-Length: \xef\xbc\x95"),
    bad_framing(b"Content-Length: \xb2"),
    bad_framing(b"Content-Length: " + b"9" * 5000),
    bad_framing(b"Content-Length: 18446744073709551621"),
    bad_framing(b"Content-Length: 5", b"Content-Length: 5"),
    bad_framing(b"Content-Length: 6", b"Content-Length: 0"),
    bad_framing(b"Content-Length: 5", b"content-length: 6"),
    bad_framing(b"Content-Length : 5"),
    bad_framing(b" Content-Length: 5"),
    # Transfer-Encoding, RFC 9112 section 6.1.
    bad_framing(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    bad_framing(b"Transfer-Encoding: chunked", b"Content-Length: 4"),
    bad_framing(b"Transfer-Encoding: chunked", b"Content-Length: 0"),
    bad_framing(b"Transfer-Encoding: identity", b"Content-Length: 4", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked, gzip", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: gzip, chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: gzip", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: identity", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: xchunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunkedx", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked, chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked, identity", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked;q=1", statuses={400, 501}),
    bad_framing(b'Transfer-Encoding: "chunked"', statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chun ked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: \x0bchunked"),
    bad_framing(b"Transfer-Encoding:", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding : chunked"),
    bad_framing(b"Transfer-Encoding\x00: chunked"),
    Bad(
        "chunked in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    # Chunks, RFC 9112 section 7.1.
    bad_chunk(b"0x5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"+5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"-5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"_5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"0_5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b" 5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5 5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"g\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b";a=b\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"\xb2\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5\rhello\r\n0\r\n\r\n"),
    bad_chunk(b"5\r\nhello\n0\r\n\r\n"),
    bad_chunk(b"5\r\nhelloXX0\r\n\r\n"),
    bad_chunk(b"5\r\nhello0\r\n\r\n"),
    bad_chunk(b"5\r\nhello world\r\n0\r\n\r\n"),
    bad_chunk(b"5;a=\r\nhello\r\n0\n\r\n"),
    bad_chunk(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"0\r\nX : y\r\n\r\n"),
    bad_chunk(b"0\r\n folded\r\n\r\n"),
    bad_chunk(b"0\r\nno colon\r\n\r\n"),
    bad_chunk(b"0\r\nX: a\x00b\r\n\r\n"),
    bad_chunk(b"0\r\nX: y\n\r\n"),
    # Expectations and upgrades.
    bad_header(b"Expect: 200-ok", 417),
    Bad(
        "WebSocket version",
        get(
            b"/",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 8",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        {426},
    ),
    Bad(
        "WebSocket key",
        get(b"/", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        {400},
    ),
    # Limits.
    bad_header(b"X: " + b"a" * 70_000, 431),
    bad_header(b"X" * 70_000 + b": a", 431),
    bad_header(b"\r\n".join(b"X-%d: a" % n for n in range(250)), 431),
    bad_header(b"\r\n".join(b"X-%d: %s" % (n, b"a" * 1000) for n in range(80)), 431),
]


class TestRefusals:
    """
    Requests that are refused: the status, the end of the connection, and nothing else.
    """

    def check(self, client: Client, bad: Bad, before: int) -> None:
        """
        After *before* good answers there is the refusal, and that is all.
        """
        rig = client.rig
        answers = client.answers()
        assert [answer.status for answer in answers[:before]] == [200] * before
        assert len(answers) == before + 1, [answer.status for answer in answers]
        last = answers[-1]
        assert last.status in bad.statuses
        assert last.complete
        assert b"close" in b"".join(last.values(b"connection")).split(b", ")
        assert client.ended
        assert b"<" not in last.body
        # A handshake is refused behind the seam.
        assert len(rig.refusals) == 1 or bad.in_body or b"Upgrade: websocket" in bad.data
        assert rig.refusals == [] or rig.refusals[0].status == last.status
        client.leave()
        rig.advance(12)
        assert not rig.gate.tasks
        assert not deadlines(rig)

    @pytest.mark.parametrize("bad", BAD, ids=[bad.name for bad in BAD])
    @pytest.mark.parametrize("way", ["whole", "byte by byte", "between", "behind an upgrade"])
    def test_refused(self, serve: Serve, caplog: pytest.LogCaptureFixture, bad: Bad, way: str) -> None:
        """
        A malformed request is answered once, with the right status, and the connection ends: nothing behind it counts.
        """
        paths: list[str] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            paths.append(scope["path"])
            await echo(scope, receive, send)

        client = serve(application)
        before = 0
        if way == "whole":
            client.send(bad.data)
        elif way == "byte by byte":
            client.send(bad.data, 1 if len(bad.data) < 6000 else 997)
        else:
            before = 1
            lines = H2C if way == "behind an upgrade" else ()
            client.send(get(b"/before", *lines) + bad.data + AFTER)

        self.check(client, bad, before)
        assert "/after" not in paths
        assert len(paths) <= before + (1 if bad.in_body else 0)
        assert quiet(caplog)

    @pytest.mark.parametrize("method", [b"FOO", b"get", b"GETT", b"X" * 100])
    def test_unknown_method(self, serve: Serve, method: bytes) -> None:
        """
        A method that is well formed and unknown is 501 (RFC 9110 section 9.1).

        Behind another request in the same read llhttp does not tell where it stood, and it is 400.
        """
        line = method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
        for data, step in ((line, 1 << 30), (line, 1), (GET + line, 1 << 30), (GET + line, 1)):
            client = serve()
            client.send(data, step)
            assert client.statuses()[-1] == (400 if data is not line and step > 1 else 501), (data, step)

    @pytest.mark.parametrize(
        "line", [b" GET / HTTP/1.1", b"HTTP/1.1 200 OK", b"\x16\x03\x01\x02\x00\x01", b"G@T / HTTP/1.1"]
    )
    def test_garbage(self, serve: Serve, line: bytes) -> None:
        """
        What is no request line is 400 (RFC 9112 section 3), however it is cut and wherever it stands.
        """
        data = line + b"\r\nHost: a\r\n\r\n"
        for sent, step in ((data, 1 << 30), (data, 1), (GET + data, 1 << 30), (GET + data, 1)):
            client = serve()
            client.send(sent, step)
            # Cut short, "HT" and "G" could become methods.
            assert client.statuses()[-1] in (400, 501), (sent, step)

    def test_proxy_connection(self, serve: Serve) -> None:
        """
        Proxy-Connection is no field of ours: it does not close, or at least not without saying so.
        """
        client = serve()
        client.send(get(b"/", b"Proxy-Connection: close") + AFTER)
        answers = client.answers()

        assert len(answers) == 2 or answers[0].values(b"connection") == [b"close"]

    def test_http_1_0(self, serve: Serve) -> None:
        """
        The refusal of HTTP/1.0 is HTTP/1.1's.
        """
        client = serve()
        client.send(b"GET / HTTP/1.0\r\nContent-Length: x\r\n\r\n")

        assert client.statuses() == [400]
        assert client.ended

    def test_host_in_absolute_form(self, serve: Serve) -> None:
        """
        A target in absolute-form counts instead of Host, or a Host that contradicts it is refused (section 3.2.2).
        """
        script = Script()
        client = serve(script)
        client.send(b"GET http://a/x HTTP/1.1\r\nHost: b\r\n\r\n")

        if script.calls:
            assert [value for name, value in script.call.scope["headers"] if name == b"host"] == [b"a"]
            assert script.call.scope["path"] == "/x"
        else:
            assert client.statuses() == [400]

    @pytest.mark.parametrize("target", [b"/\xff", b"/\xc3\xa9", b"/?\xff", b"/a\x80b"])
    def test_target_not_in_ascii(self, serve: Serve, target: bytes, caplog: pytest.LogCaptureFixture) -> None:
        """
        Bytes beyond ASCII in a target are refused or reach the application, never a 500.
        """
        client = serve()
        client.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")

        assert client.statuses() in ([400], [200])
        assert quiet(caplog)

    def test_forbidden_trailers_change_nothing(self, serve: Serve) -> None:
        """
        Framing in trailers is refused or ignored (RFC 9110 section 6.5.1), never obeyed.
        """
        for line in (b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Host: b", b"Connection: close"):
            client = serve()
            client.send(post(b"Transfer-Encoding: chunked", body=b"3\r\nfoo\r\n0\r\n" + line + b"\r\n\r\n") + AFTER)
            # llhttp takes a Connection: close; a connection may be closed at any time.
            assert client.statuses() in ([200, 200], [200], [400]), line

    @pytest.mark.parametrize("bad", [b"NOT HTTP\r\n\r\n", b"FOO / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
    def test_refusal_behind_head(self, serve: Serve, bad: bytes) -> None:
        """
        The refusal of what follows a HEAD has the body that its content-length says.
        """
        for at_once in (True, False):
            client = serve()
            client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + (bad if at_once else b""))
            if not at_once:
                client.send(bad)
            answers = client.answers("HEAD", "GET")
            assert [answer.complete for answer in answers] == [True, True]
            assert answers[1].status in (400, 501)

    def test_refusal_of_head(self, serve: Serve) -> None:
        """
        A refusal can be read whatever the method was.
        """
        client = serve()
        client.send(b"HEAD / HTTP/1.1\r\n\r\n")
        (answer,) = client.answers("HEAD")

        assert (answer.status, answer.complete) == (400, True)

    def test_client_that_does_not_read_its_refusal(self, serve: Serve) -> None:
        """
        A client that neither reads nor closes after a refusal is let go.
        """
        client = serve()
        client.transport.clogged = True
        client.send(b"NOT HTTP\r\n\r\n")
        client.rig.advance(120)
        client.transport.finish()

        assert client.transport.disconnecting
        assert not deadlines(client.rig)


@dataclass(slots=True)
class Good:
    """
    A request to be served, followed by another one.

    path, query, body, headers: what the application sees, the latter among others.
    """

    name: str
    data: bytes
    path: str = "/"
    query: bytes = b""
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    method: str = "GET"
    closes: bool = False
    version: str = "1.1"


CHUNKED = b"Transfer-Encoding: chunked"

GOOD = [
    Good("plain", GET),
    Good("absolute-form", b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "/x", b"y"),
    Good("absolute-form in capitals", b"GET HTTP://A/X HTTP/1.1\r\nHost: A\r\n\r\n", "/X"),
    Good("absolute-form with port", b"GET http://a:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n", "/x"),
    Good("absolute-form without path", b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "/"),
    Good("absolute-form, query without path", b"GET http://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", "/", b"x=1"),
    Good("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "*", method="OPTIONS"),
    Good("empty value", get(b"/", b"X:"), headers=[(b"x", b"")]),
    Good("blank value", get(b"/", b"X: \t "), headers=[(b"x", b"")]),
    Good("obs-text", get(b"/", b"X: \xe9\x80\xff"), headers=[(b"x", b"\xe9\x80\xff")]),
    Good("UTF-8", get(b"/", "X: é€".encode()), headers=[(b"x", "é€".encode())]),
    Good("tab within", get(b"/", b"X: a\tb"), headers=[(b"x", b"a\tb")]),
    Good("no space before the value", get(b"/", b"X:a"), headers=[(b"x", b"a")]),
    Good("white space around the value", get(b"/", b"X: \t a b \t "), headers=[(b"x", b"a b")]),
    Good("colons in the value", get(b"/", b"X: a: b:"), headers=[(b"x", b"a: b:")]),
    Good("capitals in names", get(b"/", b"X-UPPER: A"), headers=[(b"x-upper", b"A")]),
    Good("every token character", get(b"/", b"!#$%&'*+-.^_`|~09azAZ: a"), headers=[(b"!#$%&'*+-.^_`|~09azaz", b"a")]),
    Good(
        "the same name twice", get(b"/", b"X: 1", b"Y: 2", b"x: 3"), headers=[(b"x", b"1"), (b"y", b"2"), (b"x", b"3")]
    ),
    Good("cookies", get(b"/", b"Cookie: a=1", b"Cookie: b=2"), headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
    Good("many fields", get(b"/", *(b"X-%d: a" % n for n in range(190))), headers=[(b"x-189", b"a")]),
    Good("one long field", get(b"/", b"X: " + b"a" * 50_000), headers=[(b"x", b"a" * 50_000)]),
    Good("long query", get(b"/?" + b"q" * 50_000), query=b"q" * 50_000),
    Good("long path", get(b"/" + b"p" * 50_000), "/" + "p" * 50_000),
    Good("percent-encoded path", get(b"/a%20b/%C3%A9%2f"), "/a b/é/"),
    Good("every character of a path", get(b"/!$&'()*+,;=:@-._~aZ09%41/?/?"), "/!$&'()*+,;=:@-._~aZ09A/", b"/?"),
    Good("two slashes", get(b"//a//b"), "//a//b"),
    Good("question mark and nothing", get(b"/a?"), "/a"),
    Good("CRLF in front", b"\r\n" + GET),
    Good("two CRLF in front", b"\r\n\r\n" + GET),
    Good("GET with a body", get(b"/", b"Content-Length: 5") + b"hello", body=b"hello"),
    Good("GET with a body in chunks", get(b"/", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", body=b"hello"),
    Good("GET with content-length 0", get(b"/", b"Content-Length: 0")),
    Good("content-length with zeros", post(b"Content-Length: 005", body=b"hello"), body=b"hello", method="POST"),
    Good("content-length in white space", post(b"Content-Length: \t 5 ", body=b"hello"), body=b"hello", method="POST"),
    Good("POST without a body", post(), method="POST"),
    Good(
        "chunk sizes in capitals",
        post(CHUNKED, body=b"A\r\n0123456789\r\n0\r\n\r\n"),
        body=b"0123456789",
        method="POST",
    ),
    Good(
        "chunk sizes in small letters",
        post(CHUNKED, body=b"a\r\n0123456789\r\n0\r\n\r\n"),
        body=b"0123456789",
        method="POST",
    ),
    Good("chunk sizes with zeros", post(CHUNKED, body=b"0005\r\nhello\r\n000\r\n\r\n"), body=b"hello", method="POST"),
    Good(
        "chunk extensions", post(CHUNKED, body=b'5;a=b;c;d="e f"\r\nhello\r\n0;x\r\n\r\n'), body=b"hello", method="POST"
    ),
    Good("no chunks", post(CHUNKED, body=b"0\r\n\r\n"), method="POST"),
    Good(
        "trailers",
        post(CHUNKED, b"Trailer: X", body=b"5\r\nhello\r\n0\r\nX: y\r\nZ: z\r\n\r\n"),
        body=b"hello",
        method="POST",
    ),
    Good(
        "Chunked", post(b"tRANSFER-eNCODING:\t Chunked ", body=b"5\r\nhello\r\n0\r\n\r\n"), body=b"hello", method="POST"
    ),
    Good("300 chunks", post(CHUNKED, body=b"1\r\nx\r\n" * 300 + b"0\r\n\r\n"), body=b"x" * 300, method="POST"),
    Good(
        "body that looks like a request",
        post(b"Content-Length: %d" % len(AFTER), body=AFTER),
        body=AFTER,
        method="POST",
    ),
    Good(
        "TE",
        get(b"/", b"TE: trailers, deflate;q=0.5", b"Connection: TE"),
        headers=[(b"te", b"trailers, deflate;q=0.5")],
    ),
    Good("Connection: close, TE", get(b"/", b"Connection: close, TE", b"TE: trailers"), closes=True),
    Good("Upgrade: h2c", get(b"/", *H2C), headers=[(b"upgrade", b"h2c")]),
    Good("Upgrade: h2c with a body", post(*H2C, b"Content-Length: 5", body=b"hello"), body=b"hello", method="POST"),
    Good(
        "Upgrade: h2c with chunks", post(*H2C, CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"), body=b"hello", method="POST"
    ),
    Good("Upgrade to something", get(b"/", b"Connection: keep-alive, Upgrade", b"Upgrade: TLS/1.0, foo/2")),
    Good(
        "WebSocket in HTTP/1.0",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        closes=True,
        version="1.0",
    ),
    Good("HEAD", b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n", "/x", method="HEAD"),
    Good("host with port", b"GET / HTTP/1.1\r\nHost: a.b-c_d:8000\r\n\r\n", headers=[(b"host", b"a.b-c_d:8000")]),
    Good("IPv4 host", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n", headers=[(b"host", b"127.0.0.1:8000")]),
    Good("IPv6 host", b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", headers=[(b"host", b"[::1]:8000")]),
    Good("host at the end", b"GET / HTTP/1.1\r\nX: y\r\nHost:a\r\n\r\n", headers=[(b"x", b"y"), (b"host", b"a")]),
    Good("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", closes=True, version="1.0"),
    Good("HTTP/1.0 with host", b"GET /?x HTTP/1.0\r\nHost: a\r\n\r\n", query=b"x", closes=True, version="1.0"),
    Good(
        "HTTP/1.0 with a body",
        b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        body=b"hello",
        method="POST",
        closes=True,
        version="1.0",
    ),
    Good("HTTP/1.0 that stays", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", version="1.0"),
    Good("underscore names", get(b"/", b"X_A: 1", b"X-A: 2"), headers=[(b"x-a", b"2")]),
]


class TestUnusual:
    """
    Requests that are unusual and right.
    """

    @pytest.mark.parametrize("good", GOOD, ids=[good.name for good in GOOD])
    @pytest.mark.parametrize("way", ["whole", "byte by byte", "in sevens", "between"])
    def test_served(self, serve: Serve, caplog: pytest.LogCaptureFixture, good: Good, way: str) -> None:
        """
        The application sees what the client meant, and the request behind it is served as well.
        """
        scopes: list[Any] = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] != "/before":
                scopes.append(scope)
            await echo(scope | {"raw_path": b"", "query_string": b""}, receive, send)

        client = serve(application)
        large = len(good.data) > 6000
        if way == "between":
            client.send(get(b"/before") + good.data + AFTER)
        else:
            steps = {"whole": 1 << 30, "byte by byte": 499 if large else 1, "in sevens": 1009 if large else 7}
            client.send(good.data + AFTER, steps[way])

        methods = ["GET"] * (way == "between") + [good.method, "GET"]
        answers = client.answers(*methods)
        assert [answer.status for answer in answers] == [200] * (len(methods) - good.closes)
        assert all(answer.complete for answer in answers)
        answers = answers[way == "between" :]
        assert answers[0].body == (b"" if good.method == "HEAD" else good.body)
        scope = scopes[0]
        assert scope["type"] == "http"
        assert (scope["method"], scope["path"], scope["query_string"]) == (good.method, good.path, good.query)
        assert scope["http_version"] == good.version
        headers = [tuple(pair) for pair in scope["headers"]]
        assert [pair for pair in headers if pair in good.headers] == good.headers
        assert client.ended == good.closes
        assert answers[0].values(b"upgrade") == []
        assert client.rig.refusals == []
        assert quiet(caplog)

    @pytest.mark.parametrize("good", GOOD, ids=[good.name for good in GOOD])
    def test_served_again(self, serve: Serve, good: Good) -> None:
        """
        The same request again and again is served again and again, in one read and byte by byte.
        """
        for step in (1 << 30, 499 if len(good.data) > 6000 else 1):
            seen: list[Any] = []

            async def application(scope: Any, receive: Any, send: Any, seen: list[Any] = seen) -> None:
                seen.append((scope["method"], scope["path"], scope["query_string"], scope["http_version"]))
                await echo(scope | {"raw_path": b"", "query_string": b""}, receive, send)

            client = serve(application)
            client.send(good.data * 3, step)
            times = 1 if good.closes else 3
            assert seen == [(good.method, good.path, good.query, good.version)] * times
            bodies = [b"" if good.method == "HEAD" else good.body] * times
            assert [answer.body for answer in client.answers(*[good.method] * times)] == bodies

    @pytest.mark.parametrize("lines", [(), (b"Connection: keep-alive",)])
    def test_versions_mixed(self, serve: Serve, lines: tuple[bytes, ...]) -> None:
        """
        Each request has its own version, method and body, however much it is like the one before.
        """

        def head(first: bytes, *more: bytes) -> bytes:
            return b"".join(line + b"\r\n" for line in (first, b"Host: a", *lines, *more, b""))

        new, old = head(b"GET / HTTP/1.1"), head(b"GET / HTTP/1.0")
        body = head(b"POST / HTTP/1.1", b"Content-Length: 2") + b"ab"
        for order in ([new, new, old], [new, body, body, new, old], [old, new, old], [old, old, new]):
            script = Script()
            client = serve(script)
            for data in order:
                if client.ended:
                    break
                client.send(data)
                scope = script.call.scope
                assert scope["http_version"] == ("1.0" if data is old else "1.1")
                assert scope["method"] == ("POST" if data is body else "GET")
                assert read_body(script.call) == (b"ab" if data is body else b"")
                answer_with(script.call, headers=[(b"content-length", b"2")])
            assert client.ended == (old in order and not lines)

        for version in (b"2.0", b"0.9"):
            client = serve()
            client.send(new + new + head(b"GET / HTTP/" + version) + new)
            assert client.statuses()[:2] == [200, 200]
            assert client.statuses()[2:] in ([505], [400])

    def test_crlf_behind_a_body(self, serve: Serve) -> None:
        """
        A CRLF that old clients send behind a body is skipped (RFC 9112 section 2.2).
        """
        client = serve()
        client.send(post(b"Content-Length: 5", body=b"hello") + b"\r\n" + AFTER)

        assert client.statuses() == [200, 200]

    def test_endless_crlf(self, serve: Serve) -> None:
        """
        Nothing but CRLF is not answered for ever, and costs no memory.
        """
        client = serve()
        for _ in range(100):
            client.send(b"\r\n" * 1000)
            if client.transport.disconnecting or client.transport.half_closed:
                break
        else:
            client.rig.advance(40)
            client.go_on()

        assert client.ended
        assert client.statuses() in ([], [400], [408], [431])


class TestHeadLimits:
    """
    Heads that are too large.
    """

    @pytest.mark.parametrize(
        "start",
        [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"GET / HTTP/1.1\r\nHost: a\r\nX", b"GET / HTTP/1.1\r\nHost: a\r\n"],
    )
    def test_endless_header(self, serve: Serve, start: bytes) -> None:
        """
        A header that never ends is refused when it passes the limit, not later.
        """
        client = serve()
        client.send(start)
        sent = len(start)
        piece = (b"X: y\r\n" * 200)[:1000] if start.endswith(b"\n") else b"a" * 1000
        while not client.ended:
            client.send(piece)
            sent += len(piece)
            assert sent < 70_000

        assert client.statuses() == [431]

    def test_endless_target(self, serve: Serve) -> None:
        """
        A target that never ends is refused with 414.
        """
        for start in (b"GET /", b"GET /?", b"GET http://"):
            client = serve()
            client.send(start)
            sent = 0
            while not client.ended:
                client.send(b"a" * 1000)
                sent += 1000
                assert sent < 70_000

            assert client.statuses() == [414]

    def test_endless_method(self, serve: Serve) -> None:
        """
        A method that never ends is refused.
        """
        client = serve()
        sent = 0
        while not client.ended:
            client.send(b"A" * 1000)
            sent += 1000
            assert sent < 70_000

        (status,) = client.statuses()
        assert status in (400, 414, 431, 501)

    @pytest.mark.parametrize("start", [b"5;", b"5;a=", b'5;a="', b"0\r\nX: ", b"0\r\nX", b"0" * 1000])
    def test_endless_chunk_lines(self, serve: Serve, start: bytes) -> None:
        """
        A chunk extension, a chunk size and a trailer that never end are refused.
        """
        client = serve()
        client.send(post(b"Transfer-Encoding: chunked", body=start))
        sent = 0
        while not client.ended:
            client.send((b"0" if start.startswith(b"00") else b"a") * 1000)
            sent += 1000
            assert sent < 140_000

        (status,) = client.statuses()
        assert status in (400, 413, 431)

    def test_endless_trailers(self, serve: Serve) -> None:
        """
        Trailers without end are refused.
        """
        client = serve()
        client.send(post(b"Transfer-Encoding: chunked", body=b"0\r\n"))
        sent = 0
        while not client.ended:
            client.send(b"X: y\r\n" * 200)
            sent += 1200
            assert sent < 140_000

        (status,) = client.statuses()
        assert status in (400, 431)

    @pytest.mark.parametrize("piece", [b"a" * 100_000, b"X: y\r\n" * 20_000])
    def test_trailers_are_not_kept(self, serve: Serve, piece: bytes) -> None:
        """
        Nobody gets the trailers of a request, so nothing holds them: 10 MiB of them cost no memory.
        """
        client = serve()
        client.send(post(b"Transfer-Encoding: chunked", body=b"0\r\nX: "))
        tracemalloc.start()
        try:
            for _ in range(10 * MIB // len(piece)):
                if not client.transport.reading:
                    break
                client.transport.receive(piece)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert held < 2 * MIB

    def test_extensions_in_every_chunk(self, serve: Serve) -> None:
        """
        Chunk extensions are not kept: a body with many of them is served.
        """
        client = serve()
        client.send(post(b"Transfer-Encoding: chunked"))
        for _ in range(200):
            client.send(b"1;" + b"e" * 1000 + b"\r\nx\r\n")
        client.send(b"0\r\n\r\n")

        # Refusing is as good: nobody has a use for them.
        assert client.statuses() in ([200], [400], [413], [431])

    def test_options(self, serve: Serve) -> None:
        """
        Both limits are options, each refused with 431 when passed.
        """
        client = serve(h1={"head_bytes": 1000})
        client.send(get(b"/", b"X: " + b"a" * 800))
        client.send(get(b"/", b"X: " + b"a" * 1000))
        assert client.statuses() == [200, 431]

        client = serve(h1={"head_fields": 10})
        client.send(get(b"/", *(b"X: a" for _ in range(9))))
        client.send(get(b"/", *(b"X: a" for _ in range(10))))
        assert client.statuses() == [200, 431]

    def test_fields(self, serve: Serve) -> None:
        """
        Two hundred fields are served, one more is not.
        """
        client = serve()
        client.send(get(b"/", *(b"X: a" for _ in range(199))))
        client.send(get(b"/", *(b"X: a" for _ in range(200))))

        assert client.statuses() == [200, 431]

    def test_each_request_has_its_own(self, serve: Serve) -> None:
        """
        The limit counts from one request to the next, whatever bodies lie between.
        """
        client = serve(h1={"head_bytes": 1000})
        one = get(b"/", b"X: " + b"a" * 500) + post(b"Content-Length: 2000", body=b"b" * 2000)
        client.send(one * 20)
        client.send(one * 2, 1)

        assert client.statuses() == [200] * 44

    def test_body_is_not_limited(self, serve: Serve) -> None:
        """
        The limit is the head's, not the body's, though both come in one read.
        """
        client = serve(h1={"head_bytes": 1000})
        client.send(post(b"Content-Length: 100000", body=b"b" * 100_000))
        client.send(post(CHUNKED, body=b"186A0\r\n" + b"b" * 100_000 + b"\r\n0\r\n\r\n"))

        assert [len(answer.body) for answer in client.answers()] == [100_000, 100_000]

    def test_too_large_behind_good(self, serve: Serve) -> None:
        """
        A head too large behind good ones is refused in its turn, though all come in one read.
        """
        script = Script()
        client = serve(script)
        client.send(GET + get(b"/", b"X: " + b"a" * 70_000) + AFTER)
        assert client.written == b""
        answer_with(script.calls[0])

        assert client.statuses() == [200, 431]
        assert len(script.calls) == 1


class TestDeadlines:
    """
    Clients that take their time.
    """

    def test_idle(self, serve: Serve) -> None:
        """
        An idle connection is closed after five seconds, without a word.
        """
        client = serve()
        client.send(GET)
        before = client.written
        client.rig.advance(4.5)
        assert not client.ended
        client.rig.advance(2.5)

        assert client.ended
        assert client.written == before
        assert client.transport.closed
        assert not deadlines(client.rig)

    def test_idle_begins_anew(self, serve: Serve) -> None:
        """
        Each answer starts the idle time again.
        """
        client = serve()
        for _ in range(5):
            client.send(GET)
            client.rig.advance(4.5)
        assert client.statuses() == [200] * 5
        assert not client.ended

    def test_idle_option(self, serve: Serve) -> None:
        """
        The idle time is an option.
        """
        client = serve(h1={"keep_alive_s": 20.0})
        client.send(GET)
        client.rig.advance(19)
        assert not client.ended
        client.rig.advance(3)
        assert client.ended

    def test_idle_counts_from_the_answer(self, serve: Serve) -> None:
        """
        A slow application, and slow background work, are not idle time of the connection.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        client.rig.advance(100)
        assert not client.ended
        script.call.send(response_start(), response_body(b"ok"))
        client.rig.advance(4)
        assert not client.ended
        client.rig.advance(3)
        assert client.ended
        assert not script.call.ended

    def test_new_connection(self, serve: Serve) -> None:
        """
        A connection on which nothing ever comes is closed.
        """
        client = serve()
        client.rig.advance(32)

        assert client.ended
        assert client.statuses() in ([], [408])

    def test_head(self, serve: Serve) -> None:
        """
        A head that is not complete after thirty seconds is refused with 408.
        """
        client = serve()
        client.send(b"GET / HTTP/1.1\r\nHost")
        client.rig.advance(29)
        assert not client.ended
        client.rig.advance(3)

        (answer,) = client.answers()
        assert (answer.status, answer.complete) == (408, True)
        assert answer.values(b"connection") == [b"close"]
        assert client.ended
        client.leave()
        client.rig.advance(60)
        assert not deadlines(client.rig)

    def test_drip_feed(self, serve: Serve) -> None:
        """
        A byte now and then does not extend the time for a head.
        """
        client = serve()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        seconds = 0
        while not client.ended and seconds < 40:
            client.send(b"a")
            client.rig.advance(1)
            seconds += 1
        assert 30 <= seconds <= 32
        assert client.statuses() == [408]

    def test_drip_feed_of_line_ends(self, serve: Serve) -> None:
        """
        Nor do empty lines in front of a head.
        """
        client = serve()
        for _ in range(40):
            if client.ended:
                break
            client.send(b"\r\n")
            client.rig.advance(1)
        assert client.ended
        assert client.statuses() in ([], [408], [400])

    def test_head_of_the_next(self, serve: Serve) -> None:
        """
        The head of a later request has thirty seconds too; it is not idle time.
        """
        client = serve()
        client.send(GET)
        client.rig.advance(4)
        client.send(b"GET / HTTP/1.1\r\n")
        client.rig.advance(20)
        assert not client.ended
        client.send(b"Host: a\r\n\r\n")
        assert client.statuses() == [200, 200]

        client.send(b"GET / HTTP/1.1\r\n")
        client.rig.advance(32)
        assert client.statuses() == [200, 200, 408]
        assert client.ended

    def test_pipelined_part_of_a_head(self, serve: Serve) -> None:
        """
        A part of a head that came with the request before does not stay for ever either.
        """
        script = Script()
        client = serve(script)
        client.send(GET + b"GET / HT")
        client.rig.advance(100)
        assert client.written == b""
        answer_with(script.call)
        client.rig.advance(32)

        assert client.ended
        assert client.statuses() in ([200], [200, 408])

    def test_head_that_began_with_the_request_before(self, serve: Serve) -> None:
        """
        A head that began in the read of the request before has thirty seconds as well: the connection is not idle.
        """
        client = serve()
        client.send(GET + b"GET /part")
        client.rig.advance(4)
        client.send(b"ial")
        client.rig.advance(8)
        client.send(b" HTTP/1.1\r\nHost: a\r\n\r\n")

        assert client.statuses() == [200, 200]

    def test_answer_that_is_not_read(self, serve: Serve) -> None:
        """
        A client that never reads its answer does not keep the connection, and the answer, for ever.
        """

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            await send(response_start())
            await send(response_body(bytes(MIB)))

        for lines in ((), (b"Connection: close",)):
            client = serve(application)
            client.transport.clogged = True
            client.send(get(b"/", *lines))
            for _ in range(60):
                client.rig.advance(10)
            client.transport.finish()

            assert client.transport.closed
            assert not deadlines(client.rig)

    def test_head_option(self, serve: Serve) -> None:
        """
        The time for a head is an option.
        """
        client = serve(h1={"head_s": 3.0})
        client.send(b"G")
        client.rig.advance(2.5)
        assert not client.ended
        client.rig.advance(2.5)
        assert client.statuses() == [408]

    def test_complete_head_in_time(self, serve: Serve) -> None:
        """
        The time for a head does not run on within the body or the answer.
        """
        script = Script()
        client = serve(script)
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\n")
        client.rig.advance(20)
        client.send(b"Content-Length: 5\r\n\r\n")
        client.rig.advance(20)
        client.send(b"hello")
        assert read_body(script.call) == b"hello"
        script.call.send(response_start(), response_body(b"ok"))

        assert client.statuses() == [200]


class TestMemory:
    """
    What a client can make the server hold.
    """

    def test_pipelined_requests(self, serve: Serve) -> None:
        """
        A read full of pipelined requests stops reading until they are answered.
        """
        script = Script()
        client = serve(script)
        client.transport.receive(get(b"/x") * 2000)
        client.rig.settle()
        assert not client.transport.reading

        for n in range(2000):
            call = script.calls[n]
            call.send(response_start(), response_body(b"ok"))
            call.finish()
        assert client.transport.reading
        assert client.statuses() == [200] * 2000

    def test_pipelined_requests_go_on(self, serve: Serve) -> None:
        """
        Requests without end are all answered, each once.
        """
        client = serve()
        client.send(b"".join(get(b"/%d" % n) for n in range(3000)), 5000)

        assert [answer.values(b"x-path") for answer in client.answers()] == [[b"/%d" % n] for n in range(3000)]

    def test_answers_nobody_reads(self, serve: Serve) -> None:
        """
        A client that sends requests and reads no answers is not served without end.
        """

        async def application(_scope: Any, _receive: Any, send: Any) -> None:
            await send(response_start())
            await send(response_body(bytes(10_000)))

        client = serve(application)
        client.transport.clogged = True
        client.send(GET * 1000, 4 * KIB)
        assert len(client.transport._unsent) < MIB
        assert len(client.rig.outcomes) < 200

        client.transport.unclog()
        client.go_on(4 * KIB)
        assert client.statuses() == [200] * 1000

    def test_body(self, serve: Serve) -> None:
        """
        Reading stops while the application does not take the body, and goes on when it does.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Content-Length: %d" % (4 * MIB), body=bytes(4 * MIB)) + AFTER, 64 * KIB)
        assert not client.transport.reading
        assert len(client.pending) > 3 * MIB

        received = 0
        while True:
            message = script.call.receive()
            received += len(message["body"])
            client.go_on(64 * KIB)
            if not message["more_body"]:
                break
        assert received == 4 * MIB
        answer_with(script.call)
        client.go_on(64 * KIB)
        assert script.call.scope["path"] == "/after"

    def test_chunked_body(self, serve: Serve) -> None:
        """
        The same for a body in chunks.
        """
        script = Script()
        client = serve(script)
        chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        client.send(post(CHUNKED) + chunk * 64 + b"0\r\n\r\n", 64 * KIB)
        assert len(client.pending) > 3 * MIB

        received = 0
        while True:
            message = script.call.receive()
            received += len(message["body"])
            client.go_on(64 * KIB)
            if not message["more_body"]:
                break
        assert received == 4 * MIB

    def test_body_nobody_takes(self, serve: Serve) -> None:
        """
        An application that answers without taking the body lets the connection go on, or end.
        """
        script = Script()
        client = serve(script)
        client.send(post(b"Content-Length: %d" % MIB, body=bytes(MIB)) + AFTER, 64 * KIB)
        answer_with(script.call)
        client.go_on(64 * KIB)
        if len(script.calls) == 2:
            script.call.send(response_start(), response_body(b"ok"))
            assert client.statuses() == [200, 200]
        else:
            assert client.ended
            assert client.statuses() == [200]

    def test_paused_transport(self, serve: Serve) -> None:
        """
        send() waits while the transport is paused, and goes on when it resumes.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start())
        assert client.transport.producer is not None
        client.transport.producer.pauseProducing()
        task = script.call.sending(response_body(b"a", more=True))
        client.rig.settle()
        assert not task.done()
        client.transport.producer.resumeProducing()
        client.rig.settle()
        assert task.done()
        script.call.send(response_body(b"b"))

        assert client.answers()[0].body == b"ab"

    def test_paused_before_the_request(self, serve: Serve) -> None:
        """
        A transport that is paused since the answer before holds up the next one as well.
        """
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start(), response_body(b"a"))
        script.call.finish()
        client.transport.producer.pauseProducing()
        client.send(AFTER)
        if len(script.calls) == 2:
            script.call.sending(response_start())
            task = script.call.sending(response_body(b"b", more=True))
            client.rig.settle()
            assert not task.done()
        client.transport.producer.resumeProducing()
        client.rig.settle()

        assert len(script.calls) == 2

    def test_connections_do_not_add_up(self, serve: Serve) -> None:
        """
        Nothing is left of connections that are gone.
        """
        client = serve()
        empty: list[int] = []
        for _ in range(50):
            other = Client(client.rig)
            other.send(GET)
            other.leave()
        client.send(get(b"/", b"Connection: close"))
        client.leave()
        client.rig.advance(40)
        client.rig.front.drain(lambda: empty.append(1))
        client.rig.settle()

        assert empty == [1]
        assert not client.rig.gate.tasks
        assert not deadlines(client.rig)


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


class TestFiles:
    """
    pathsend, where only the descriptors tell.
    """

    def test_cancelled_while_it_opens(self, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A pathsend that is cancelled while a thread opens the file leaves no descriptor behind.
        """
        go_on = threading.Event()
        opened: list[int] = []
        real = os.open

        def slow(path: Any, *arguments: Any, **options: Any) -> int:
            descriptor = real(path, *arguments, **options)
            if str(path) == str(file):
                opened.append(descriptor)
                go_on.wait(10)
            return descriptor

        file = tmp_path / "file"
        file.write_bytes(b"hello")
        script = Script()
        client = serve(script)
        client.send(GET)
        script.call.send(response_start())
        monkeypatch.setattr(os, "open", slow)
        task = script.call.sending({"type": "http.response.pathsend", "path": str(file)})
        client.rig.settle_threads(lambda: bool(opened))
        task.cancel()
        client.rig.settle()
        go_on.set()
        rounds = iter(range(50))
        client.rig.settle_threads(lambda: next(rounds, None) is None)

        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(opened[0])


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


# What a mutation puts in.
TOKENS = [
    *(bytes([code]) for code in b"\r\n\t :,;+#?%\x00\x0b\x85\xff"),
    b"\r\n",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"Connection: close\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
    b"CONNECT ",
    b"0x",
]
SMALL = [data for data in [*(good.data for good in GOOD), *(bad.data for bad in BAD)] if len(data) < 1000]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """
    Two messages out of the tables, with a few bytes added, dropped or doubled, and a good one behind.
    """
    data = bytearray(draw(st.sampled_from(SMALL)) + draw(st.sampled_from(SMALL)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.integers(0, 2))
        if kind == 0:
            data[place:place] = draw(st.sampled_from(TOKENS))
        elif kind == 1:
            del data[place : place + draw(st.integers(1, 4))]
        else:
            data[place:place] = data[place : place + draw(st.integers(1, 30))]
    return bytes(data) + AFTER


class TestFuzz:
    """
    Requests nobody thought of.
    """

    def served(self, data: bytes, cuts: list[int]) -> list[tuple[str, bytes, bytes, bytes]]:
        """
        Send data cut at these places; the requests that the application got whole.
        """
        seen = []

        async def application(scope: Any, receive: Any, send: Any) -> None:
            body = b""
            while (message := await receive())["type"] == "http.request":
                body += message["body"]
                if not message["more_body"]:
                    seen.append((scope["method"], scope["raw_path"], scope["query_string"], body))
                    await send(response_start(200))
                    await send(response_body(b"ok"))
                    break

        rig = Rig(application)
        client = Client(rig)
        for start, end in itertools.pairwise([0, *cuts, len(data)]):
            client.send(data[start:end])
        client.leave()
        rig.advance(12)
        assert not rig.gate.tasks
        assert not deadlines(rig)
        assert rig.errors == []
        rig.close()
        return seen

    def check(self, data: bytes, cuts: list[int], caplog: pytest.LogCaptureFixture) -> None:
        """
        The same requests are served however the bytes are cut, and nothing is logged.
        """
        whole = self.served(data, [])
        assert self.served(data, list(range(1, len(data)))) == whole
        assert self.served(data, cuts) == whole
        assert quiet(caplog)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(data=mutated(), parts=st.lists(st.integers(1, 400), max_size=4))
    def test_cuts_do_not_matter(self, caplog: pytest.LogCaptureFixture, data: bytes, parts: list[int]) -> None:
        """
        However wrong the bytes are, where they are cut does not change what is served, and no error is ours.
        """
        self.check(data, sorted({part for part in parts if part < len(data)}), caplog)

    @pytest.mark.slow
    @settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(data=mutated(), parts=st.lists(st.integers(1, 400), max_size=4))
    def test_cuts_do_not_matter_at_length(
        self, caplog: pytest.LogCaptureFixture, data: bytes, parts: list[int]
    ) -> None:
        """
        The same, for longer and at random.
        """
        self.check(data, sorted({part for part in parts if part < len(data)}), caplog)
