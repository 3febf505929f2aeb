"""
Answers: what the application sends, as the client sees it.
"""

from __future__ import annotations

import http
from email.utils import parsedate_to_datetime
from typing import Any

from txasgi.asgi.task import Receive, Send
from txasgi.errors import ClientDisconnected
from txasgi.testing.conform.http_peer import (
    HELD,
    KIB,
    MIB,
    TEXT,
    HttpGroup,
    answer_with,
    complete_answer,
    pieces,
    refused,
    sends,
)
from txasgi.testing.rig import response_body, response_start


class SendConformance(HttpGroup):
    """
    What the application sends, as the client sees it.
    """

    def test_one_shot(self) -> None:
        """
        An answer sent at once has a content-length, though the application gave none.
        """
        answer = self.answer_to(sends(response_start(200, [TEXT]), response_body(b"ok")))

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.values(b"content-length") == [b"2"]
        assert answer.values(b"content-type") == [b"text/plain"]

    def test_one_shot_empty(self) -> None:
        """
        An empty answer has a content-length of 0; keys that may be missing are not missed.
        """
        answer = self.answer_to(sends({"type": "http.response.start", "status": 404}, {"type": "http.response.body"}))

        assert (answer.status, answer.body, answer.complete) == (404, b"", True)
        assert answer.values(b"content-length") == [b"0"]

    def test_streaming(self) -> None:
        """
        Each part reaches the client when it is sent, without a content-length.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call

        call.send(response_start(200, [TEXT]), response_body(b"a", more=True))
        assert complete_answer(peer, handle) == (200, b"a", False)
        call.send(response_body(b"bc", more=True))
        assert complete_answer(peer, handle) == (200, b"abc", False)
        call.send(response_body(b"d"))

        assert complete_answer(peer, handle) == (200, b"abcd", True)
        assert peer.answer(handle).values(b"content-length") == []
        call.finish()
        self.check_usable(peer, script)

    def test_head_is_flushed(self) -> None:
        """
        The head goes out although the first part of the body is late.
        """
        _, peer, script = self.script()
        handle = peer.request()

        script.call.send(response_start(200, [(b"x-a", b"1")]))

        assert complete_answer(peer, handle) == (200, b"", False)
        assert peer.answer(handle).values(b"x-a") == [b"1"]

    def test_empty_parts(self) -> None:
        """
        An empty part in the middle of a body does not end it.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call

        call.send(response_start(), response_body(b"", more=True), response_body(b"a", more=True))
        call.send(response_body(b"", more=True))
        assert complete_answer(peer, handle) == (200, b"a", False)
        call.send(response_body(b"b", more=True), response_body(b""))

        assert complete_answer(peer, handle) == (200, b"ab", True)

    def test_parts_in_one_turn(self) -> None:
        """
        Parts that are sent in one turn of the loop come complete and in order.
        """
        answer = self.answer_to(sends(response_start(), *(response_body(b"%d," % n, more=n < 99) for n in range(100))))

        assert answer.complete
        assert b"".join(b"%d," % n for n in range(100)) == answer.body

    def test_large_answer(self) -> None:
        """
        A large answer comes complete, in one message and in many.
        """
        body = b"".join(pieces(2 * MIB, 100_000))
        for messages in (
            [response_body(body)],
            [*(response_body(piece, more=True) for piece in pieces(2 * MIB, 100_000)), response_body()],
        ):
            answer = self.answer_to(sends(response_start(), *messages))
            assert answer.complete
            assert body == answer.body

    def test_headers_as_any_iterable(self) -> None:
        """
        Headers may be any iterable of two-item iterables; order and duplicates are kept.
        """
        pairs = ([b"set-cookie", b"b=1"], (b"x-a", b"\xe9"), [b"set-cookie", b"a=2"], (b"x-empty", b""))
        for headers in (pairs, list(pairs), iter(pairs), (list(pair) for pair in pairs)):
            message = {"type": "http.response.start", "status": 200, "headers": headers}
            answer = self.answer_to(sends(message, response_body(b"ok")))
            assert answer.status == 200
            assert answer.values(b"set-cookie") == [b"b=1", b"a=2"]
            assert answer.values(b"x-a") == [b"\xe9"]
            assert answer.values(b"x-empty") == [b""]
            names = [name for name, _ in answer.headers]
            assert names.index(b"set-cookie") < names.index(b"x-a") < names.index(b"x-empty")

    def test_statuses(self) -> None:
        """
        Each final status from 200 to 599 goes out, also as an http.HTTPStatus.
        """
        _, peer, script = self.script()
        for status in (200, 201, 206, 226, 299, 302, 404, 418, 499, 500, 503, 599, http.HTTPStatus.ACCEPTED):
            handle = peer.request()
            answer_with(script.call, status=status)
            answer = peer.answer(handle)
            assert (int(status), b"ok", True) == (answer.status, answer.body, answer.complete)

    def test_head(self) -> None:
        """
        The answer to HEAD has the header fields of the one to GET and no body.
        """
        for application in (
            sends(response_start(200, [TEXT]), response_body(b"hello")),
            sends(response_start(200, [TEXT, (b"content-length", b"5")]), response_body(b"hello")),
            sends(response_start(200, [TEXT, (b"content-length", b"5")]), response_body(b"")),
        ):
            answer = self.answer_to(application, "HEAD")
            assert (answer.status, answer.body, answer.complete) == (200, b"", True)
            assert answer.values(b"content-length") == [b"5"]
            assert answer.values(b"content-type") == [b"text/plain"]

    def test_head_streaming(self) -> None:
        """
        A streamed answer to HEAD is complete and empty, and the connection usable.
        """
        _, peer, script = self.script()
        handle = peer.request("HEAD")

        script.call.send(response_start(), response_body(b"a", more=True), response_body(b"b"))

        assert complete_answer(peer, handle) == (200, b"", True)
        script.call.finish()
        self.check_usable(peer, script)

    def test_no_content(self) -> None:
        """
        204 has neither body nor content-length.
        """
        for headers in ([], [(b"content-length", b"0")]):
            answer = self.answer_to(sends(response_start(204, headers), response_body()))
            assert (answer.status, answer.body, answer.complete) == (204, b"", True)
            assert answer.values(b"content-length") == []

    def test_not_modified(self) -> None:
        """
        304 has no body, and only the content-length that the application gave.
        """
        for headers, expected in (([], []), ([(b"content-length", b"123")], [b"123"])):
            answer = self.answer_to(sends(response_start(304, headers), response_body()))
            assert (answer.status, answer.body, answer.complete) == (304, b"", True)
            assert expected == answer.values(b"content-length")

    def test_body_where_none_may_be(self) -> None:
        """
        A body sent with 204 or 304 reaches nobody, least of all the next answer.
        """
        _, peer, script = self.script()
        for status in (204, 304):
            handle = peer.request()
            call = script.call
            call.send(response_start(status))
            task = call.sending(response_body(b"HTTP/1.1 200 OK\r\n\r\n"))
            assert task.done()
            if task.exception() is not None:
                call.send(response_body())
            call.finish()
            assert (status, b"", True) == complete_answer(peer, handle)
            self.check_usable(peer, script)

    def test_content_length_is_kept(self) -> None:
        """
        The application's content-length is sent, once, and the body as it comes.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call

        call.send(response_start(200, [(b"Content-Length", b"5")]), response_body(b"he", more=True))
        assert complete_answer(peer, handle) == (200, b"he", False)
        call.send(response_body(b"llo", more=True), response_body())

        assert complete_answer(peer, handle) == (200, b"hello", True)
        assert peer.answer(handle).values(b"content-length") == [b"5"]
        call.finish()
        self.check_usable(peer, script)

    def test_body_too_long(self) -> None:
        """
        The part that exceeds content-length is refused and not sent; the right one may follow.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"5")]), response_body(b"123", more=True))

        refused(call, response_body(b"456"))
        refused(call, response_body(b"456", more=True))
        assert complete_answer(peer, handle) == (200, b"123", False)

        call.send(response_body(b"45"))
        assert complete_answer(peer, handle) == (200, b"12345", True)
        call.finish()
        self.check_usable(peer, script)

    def test_body_too_long_is_never_complete(self) -> None:
        """
        An application that fails over a body too long leaves an answer that is seen to be incomplete.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"5")]), response_body(b"123", more=True))

        call.fail(refused(call, response_body(b"456")))

        assert peer.answer(handle).body == b"123"
        self.check_broken_off(peer, script, handle)

    def test_body_too_long_at_once(self) -> None:
        """
        A body too long from the start is a 500, nothing of it sent.
        """
        answer = self.answer_to(sends(response_start(200, [(b"content-length", b"2")]), response_body(b"12345")))

        assert (answer.status, answer.complete) == (500, True)
        assert b"12" not in answer.body

    def test_body_too_short(self) -> None:
        """
        A body that ends before its content-length is never complete.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"5")]), response_body(b"123", more=True))

        task = call.sending(response_body())
        assert task.done()
        error = task.exception()
        if error is None:
            call.finish()
        else:
            call.fail(error)

        assert peer.answer(handle).body == b"123"
        self.check_broken_off(peer, script, handle)

    def test_body_too_short_at_once(self) -> None:
        """
        A body too short from the start is a 500.
        """
        answer = self.answer_to(sends(response_start(200, [(b"content-length", b"5")]), response_body(b"12")))

        assert (answer.status, answer.complete) == (500, True)

    def test_content_length_that_is_none(self) -> None:
        """
        A content-length that is not one decimal number is refused.
        """
        _, peer, script = self.script()
        for lengths in (
            [b"abc"],
            [b"-1"],
            [b"+1"],
            [b"1_0"],
            [b"0x2"],
            [b""],
            [b"2, 2"],
            [b"2", b"3"],
            [b"9" * 5000],
        ):
            handle = peer.request()
            headers = [(b"content-length", length) for length in lengths]
            script.call.fail(refused(script.call, response_start(200, headers)))
            answer = peer.answer(handle)
            assert (answer.status, answer.complete) == (500, True), lengths
        self.check_usable(peer, script)

    def test_hop_by_hop_fields_are_dropped(self) -> None:
        """
        Fields of the connection are the wire's: the application's are not sent.
        """
        answer = self.answer_to(
            sends(
                response_start(
                    200,
                    [
                        (b"connection", b"x-hop, upgrade"),
                        (b"Keep-Alive", b"timeout=99"),
                        (b"proxy-connection", b"keep-alive"),
                        (b"transfer-encoding", b"gzip, chunked"),
                        (b"upgrade", b"h2c"),
                        (b"x-end-to-end", b"1"),
                    ],
                ),
                response_body(b"ok"),
            )
        )

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.values(b"x-end-to-end") == [b"1"]
        for name in (b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"):
            assert answer.values(name) == [], name
        assert not any(b"x-hop" in value for value in answer.values(b"connection"))

    def test_transfer_encoding_does_not_beat_content_length(self) -> None:
        """
        With content-length and transfer-encoding from the application the first one counts.
        """
        answer = self.answer_to(
            sends(
                response_start(200, [(b"content-length", b"2"), (b"Transfer-Encoding", b"chunked")]),
                response_body(b"ok"),
            )
        )

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.values(b"content-length") == [b"2"]
        assert answer.values(b"transfer-encoding") == []

    def test_date_and_server(self) -> None:
        """
        Date and Server are sent once with each answer, also with one that is not the application's.
        """
        for application in (sends(response_start(), response_body(b"ok")), sends()):
            answer = self.answer_to(application)
            assert answer.values(b"server") == [b"txasgi"]
            (date,) = answer.values(b"date")
            assert parsedate_to_datetime(date.decode()).timestamp() == 784111777.0

    def test_own_date_and_server(self) -> None:
        """
        The application's Date and Server are sent instead, in whatever case.
        """
        own = [(b"Server", b"mine"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]

        answer = self.answer_to(sends(response_start(200, own), response_body(b"ok")))

        assert answer.values(b"server") == [b"mine"]
        assert answer.values(b"date") == [b"Thu, 01 Jan 1970 00:00:00 GMT"]

    def test_one_of_date_and_server(self) -> None:
        """
        One of the two from the application does not cost the other.
        """
        answer = self.answer_to(sends(response_start(200, [(b"server", b"mine")]), response_body(b"ok")))

        assert answer.values(b"server") == [b"mine"]
        assert len(answer.values(b"date")) == 1

    def test_no_date_and_server(self) -> None:
        """
        Either can be turned off, and fields be added to every answer.
        """
        answer = self.answer_to(
            sends(response_start(), response_body(b"ok")),
            server=None,
            date=False,
            extra_fields=[(b"x-extra", b"1")],
        )

        assert answer.values(b"server") == []
        assert answer.values(b"date") == []
        assert answer.values(b"x-extra") == [b"1"]

    def test_back_pressure(self) -> None:
        """
        send() waits when the client does not read, and goes on once it does; nothing is lost.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        sent = b""
        waiting = None
        for piece in pieces(4 * MIB):
            sent += piece
            task = call.sending(response_body(piece, more=True))
            if not task.done():
                waiting = task
                break
            task.result()
        assert waiting is not None, "send() never waits"
        assert len(sent) <= HELD

        peer.unclog()

        assert peer.answer(handle).body == sent
        assert waiting.done()
        waiting.result()
        call.send(response_body())
        assert (200, sent, True) == complete_answer(peer, handle)
        call.finish()

    def test_back_pressure_within_one_turn(self) -> None:
        """
        An application that sends and sends without ever waiting for anything else is held up as well.
        """
        for size in (100, 10_000, 64 * KIB, 300_000):
            taken = 0

            async def application(_scope: Any, _receive: Receive, send: Send, size: int = size) -> None:
                nonlocal taken
                await send(response_start())
                while taken < 4 * MIB:
                    await send(response_body(bytes(size), more=True))
                    taken += size
                await send(response_body())

            _, peer = self.serve(application)
            peer.clog()
            handle = peer.request()
            assert taken <= HELD, size

            peer.unclog()
            answer = peer.answer(handle)
            for _ in range(1000):
                if answer.complete:
                    break
                answer = peer.answer(handle)
            assert (answer.status, len(answer.body), answer.complete) == (200, taken, True)

    def test_back_pressure_of_several_senders(self) -> None:
        """
        Each send() that waits goes on.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        tasks = [call.sending(response_body(piece, more=True)) for piece in pieces(2 * MIB)]
        assert not tasks[-1].done()
        assert not tasks[-2].done()

        peer.unclog()
        peer.answer(handle)

        assert [None] * len(tasks) == [task.result() for task in tasks]
        call.send(response_body())
        assert (200, len(peer.answer(handle).body), peer.answer(handle).complete) == (200, 2 * MIB, True)

    def test_cancelled_send(self) -> None:
        """
        A send() that was cancelled while it waited was sent whole or not at all, and others may follow.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        peer.clog()
        sent = b""
        for piece in pieces(4 * MIB):
            task = call.sending(response_body(piece, more=True))
            if not task.done():
                break
            sent += piece
        task.cancel()
        rig.settle()
        assert task.cancelled()

        peer.unclog()
        peer.answer(handle)
        call.send(response_body(b"end"))

        answer = peer.answer(handle)
        assert answer.complete
        assert answer.body in (sent + piece + b"end", sent + b"end")
        call.finish()
        self.check_usable(peer, script)

    def test_last_send_to_a_client_that_leaves(self) -> None:
        """
        A last send() that waits when the client leaves ends, and so may the application.
        """
        rig, peer, script = self.script()
        peer.request()
        peer.clog()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"%d" % MIB)]))
        task = call.sending(response_body(bytes(MIB)))

        peer.leave()

        assert task.done()
        error = task.exception()
        assert error is None or isinstance(error, ClientDisconnected)
        call.finish()
        assert not rig.gate.tasks
        assert len(rig.outcomes) == 1

    def test_one_shot_to_a_clogged_client(self) -> None:
        """
        A large answer in one message is complete once the client reads, whether its send() waited or not.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        peer.clog()
        call = script.call
        call.send(response_start(200, [(b"content-length", b"%d" % MIB)]))
        task = call.sending(response_body(bytes(MIB)))

        peer.unclog()
        answer = peer.answer(handle)
        rig.settle()

        assert (len(answer.body), answer.complete) == (MIB, True)
        task.result()
        call.finish()
        self.check_usable(peer, script)
