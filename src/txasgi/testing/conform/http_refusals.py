"""
Messages that send() refuses.
"""

from __future__ import annotations

from typing import Any

from txasgi.asgi.task import Message
from txasgi.testing.conform.http_peer import HttpGroup, answer_with, complete_answer, refused, sends
from txasgi.testing.rig import response_body, response_start


def _start_with(headers: Any) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers}


class RefusalConformance(HttpGroup):
    """
    Messages that are not allowed raise at the send() that brought them, and nothing of them is sent.
    """

    def check_500(self, bad: Message) -> None:
        """
        The message is refused; the client of an application that fails over it gets 500, and may go on.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.fail(refused(script.call, bad))
        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True), bad
        assert not [name for name, _ in answer.headers if name.startswith(b"x-")]
        self.check_usable(peer, script)

        # The application may also do better.
        handle = peer.request()
        call = script.call
        refused(call, bad)
        call.send(response_start(200), response_body(b"better"))
        call.finish()
        assert complete_answer(peer, handle) == (200, b"better", True)

    def test_status(self) -> None:
        """
        A status is an int from 200 to 599 or so, never an informational one.
        """
        for status in (0, 20, 99, 100, 101, 103, 199, 1000, 2000, -200, "200", b"200", None, [200], 10**30):
            self.check_500({"type": "http.response.start", "status": status, "headers": []})
        self.check_500({"type": "http.response.start", "headers": []})

    def test_header_names(self) -> None:
        """
        Header names are tokens in bytes.
        """
        for name in (
            b"",
            b" x-a",
            b"x-a ",
            b"x a",
            b"x-a:",
            b"x-a\r",
            b"x-a\n",
            b"x-a\r\nx-b",
            b"x-a\0",
            b"x-\xe9",
            b"x(a)",
            b'"x"',
            b":status",
            "x-a",
            None,
            1,
        ):
            self.check_500(_start_with([(name, b"1")]))

    def test_header_values(self) -> None:
        """
        Header values are bytes without control characters.
        """
        for value in (
            b"a\r\nset-cookie: b",
            b"a\nb",
            b"a\rb",
            b"a\r\n b",
            b"a\0b",
            b"\x1b[2J",
            b"a\x7f",
            b"a\r",
            b"a\n",
            b"\na",
            "text",
            None,
            1,
        ):
            self.check_500(_start_with([(b"x-a", value)]))

    def test_header_values_of_known_fields(self) -> None:
        """
        Fields that the server knows are checked no less than others.
        """
        for name in (b"date", b"server", b"location", b"Content-Type", b"connection", b"transfer-encoding"):
            self.check_500(_start_with([(name, b"a\r\nx-b: c")]))
        for name in (b"date", b"server", b"content-length"):
            self.check_500(_start_with([(name, "1")]))

    def test_headers_of_another_shape(self) -> None:
        """
        Headers are pairs.
        """
        for headers in ([(b"x-a",)], [(b"x-a", b"1", b"2")], [b"x-a"], [None], 5, {b"x-a": b"1"}, b"x-a: 1"):
            self.check_500(_start_with(headers))

    def test_refused_start_leaves_nothing(self) -> None:
        """
        A start that was refused leaves nothing behind: neither its status nor its content-length.
        """
        bad = response_start(404, [(b"content-length", b"5"), (b"x-a", b"1"), (b"bad name", b"x")])
        for headers in ([], [(b"content-length", b"2")]):
            _, peer, script = self.script()
            handle = peer.request()
            refused(script.call, bad)
            answer_with(script.call, b"ok", 200, headers)

            assert complete_answer(peer, handle) == (200, b"ok", True)
            assert peer.answer(handle).values(b"x-a") == []
            assert b"5" not in peer.answer(handle).values(b"content-length")

    def test_bad_header_behind_good_ones(self) -> None:
        """
        One bad header spoils the lot.
        """
        self.check_500(_start_with([(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3\r\n")]))

    def test_upper_case_names(self) -> None:
        """
        Upper case in names is forgiven and sent in lower case.
        """
        answer = self.answer_to(
            sends(response_start(200, [(b"X-Upper", b"1"), (b"Content-TYPE", b"text/html")]), response_body())
        )

        assert answer.status == 200
        assert (b"x-upper", b"1") in answer.headers
        assert (b"content-type", b"text/html") in answer.headers

    def test_no_message(self) -> None:
        """
        Messages of an unknown type, or without one, are refused.
        """
        for message in (
            {"type": "http.response.nonsense"},
            {"type": "http.response.debug", "info": {}},
            {"type": "http.request"},
            {"type": "http.disconnect"},
            {"type": "websocket.accept"},
            {"type": "lifespan.startup.complete"},
            {"type": ""},
            {"type": None},
            {},
        ):
            self.check_500(message)

    def test_body_before_start(self) -> None:
        """
        A body without start is refused.
        """
        self.check_500(response_body(b"ok"))
        self.check_500(response_body(b"ok", more=True))

    def test_trailers_before_start(self) -> None:
        """
        Trailers without start are refused.
        """
        self.check_500({"type": "http.response.trailers", "headers": []})

    def test_second_start(self) -> None:
        """
        A second start is refused, before the body and within it, and changes nothing.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(200))
        refused(call, response_start(404))
        call.send(response_body(b"a", more=True))
        refused(call, response_start(404))
        call.send(response_body(b"b"))
        call.finish()

        assert complete_answer(peer, handle) == (200, b"ab", True)
        self.check_usable(peer, script)

    def test_second_start_at_once(self) -> None:
        """
        A second start in the same turn is refused, before anything went out, or the answer broken off.
        """
        answer = self.answer_to(sends(response_start(200), response_start(404), response_body(b"ok")))

        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)

    def test_after_the_end(self) -> None:
        """
        Whatever is sent after the end of the answer is refused, and reaches nobody.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start(), response_body(b"ok"))

        for message in (response_body(b"more"), response_body(), response_start(), {"type": "nonsense"}):
            refused(call, message)

        call.finish()
        assert complete_answer(peer, handle) == (200, b"ok", True)
        self.check_usable(peer, script)

    def test_body_that_is_not_bytes(self) -> None:
        """
        A body that is not bytes is refused; the right one may follow.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        call.send(response_start())
        for body in ("text", None, 5, [b"a"]):
            refused(call, {"type": "http.response.body", "body": body})
            refused(call, {"type": "http.response.body", "body": body, "more_body": True})
        call.send(response_body(b"ok"))
        call.finish()

        assert complete_answer(peer, handle) == (200, b"ok", True)
        self.check_usable(peer, script)

    def test_body_that_is_not_bytes_at_once(self) -> None:
        """
        A body that is not bytes is a 500 as long as nothing went out.
        """
        answer = self.answer_to(
            sends(response_start(), {"type": "http.response.body", "body": "text"}),
        )

        assert (answer.status, answer.complete) == (500, True)
