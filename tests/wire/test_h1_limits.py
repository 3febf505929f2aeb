"""
What an HTTP/1.1 client can make the server hold.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from tests.wire.h1_client import AFTER, GET, KIB, MIB, Client, Serve, deadlines, get, post
from tests.wire.h1_requests import CHUNKED

from txasgi.testing.conform.http_peer import answer_with
from txasgi.testing.rig import Script, response_body, response_start


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
