"""
HTTP/1.1 request bodies: chunked, expected, or not waited for.
"""

from __future__ import annotations

import pytest
from tests.wire.h1_client import AFTER, GET, KIB, MIB, Serve, deadlines, get, post

from txasgi.testing.conform.http_peer import answer_with, read_body
from txasgi.testing.rig import Script, response_body, response_start


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
        for still_sends in (True, False):
            script = Script()
            client = serve(script)
            client.send(post(b"Content-Length: 100000000", body=bytes(KIB)))
            answer_with(script.call, b"no", 413)
            for _ in range(60):
                if still_sends and not client.transport.disconnecting:
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
