"""
HTTP/1.1 connections that carry more than one request.
"""

from __future__ import annotations

import pytest
from tests.wire.h1_client import AFTER, GET, Serve, get, head_lines, post, quiet

from txasgi.testing.conform.http_peer import answer_with, sends
from txasgi.testing.rig import Script, response_body, response_start


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

    @pytest.mark.parametrize(
        "request_bytes", [get(b"/", b"Connection: close"), b"GET / HTTP/1.0\r\n\r\n", GET, GET + GET]
    )
    @pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")]])
    @pytest.mark.parametrize("trailers", [False, True])
    def test_nothing_is_lost_at_the_end(
        self, serve: Serve, request_bytes: bytes, headers: list[tuple[bytes, bytes]], trailers: bool
    ) -> None:
        """
        An answer in several parts, the last one empty, in one turn of the loop, is whole before the connection ends.
        """
        application = sends(
            response_start(200, headers, trailers=trailers),
            response_body(b"he", more=True),
            response_body(b"llo", more=True),
            response_body(b""),
            *([{"type": "http.response.trailers", "headers": []}] if trailers else []),
        )
        client = serve(application)
        client.send(request_bytes)

        answers = client.answers()
        assert [answer.body for answer in answers] == [b"hello"] * request_bytes.count(b"GET")
        assert all(answer.complete for answer in answers)

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
