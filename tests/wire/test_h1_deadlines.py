"""
How long an HTTP/1.1 client may take.
"""

from __future__ import annotations

from tests.wire.h1_client import GET, Serve, deadlines

from txasgi.testing.conform.http_peer import answer_with, read_body
from txasgi.testing.rig import Script, response_body, response_start


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
