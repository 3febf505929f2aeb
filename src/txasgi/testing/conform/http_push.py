"""
Answers that the client did not ask for (the ASGI extension http.response.push, RFC 9113 section 8.4).
"""

from __future__ import annotations

from typing import Any

from txasgi.asgi.task import Message
from txasgi.errors import ApplicationError
from txasgi.testing.conform.http_peer import DISCONNECT, TEXT, HttpGroup, answer_with, complete_answer, refused
from txasgi.testing.rig import response_body, response_start


def _push(path: Any = "/pushed", headers: Any = ()) -> Message:
    return {"type": "http.response.push", "path": path, "headers": headers}


class PushConformance(HttpGroup):
    """
    Answers that the client did not ask for.
    """

    def test_push_is_announced(self) -> None:
        """
        The scope names the extension where the client takes what is pushed; elsewhere the message is refused.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call

        assert peer.pushes == ("http.response.push" in call.scope["extensions"])
        if peer.pushes:
            assert call.scope["extensions"]["http.response.push"] == {}
        else:
            refused(call, _push())
        answer_with(call)
        assert complete_answer(peer, handle) == (200, b"ok", True)
        self.check_usable(peer, script)

    def test_push(self) -> None:
        """
        What is pushed is a request of its own, with the path and the headers of the message, and is answered as such.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/page")
        page = script.call
        if not peer.pushes:
            return
        page.send(_push("/style.css?v=1", [(b"accept", b"text/css")]))

        pushed = script.call
        assert pushed is not page
        scope = pushed.scope
        assert (scope["type"], scope["method"], scope["http_version"]) == ("http", "GET", peer.version)
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/style.css", b"/style.css", b"v=1")
        assert (b"accept", b"text/css") in scope["headers"]
        hosts = [[value for name, value in call.scope["headers"] if name == b"host"] for call in (page, pushed)]
        assert hosts[0] == hosts[1]
        assert pushed.receive() == {"type": "http.request", "body": b"", "more_body": False}

        answer_with(page, b"page")
        answer_with(pushed, b"style", headers=[TEXT])
        ((promised, fields),) = peer.pushed(handle)
        assert [value for name, value in fields if name == b":path"] == [b"/style.css?v=1"]
        assert (b"accept", b"text/css") in fields
        assert complete_answer(peer, handle) == (200, b"page", True)
        assert complete_answer(peer, promised) == (200, b"style", True)
        assert peer.answer(promised).values(b"content-type") == [b"text/plain"]
        self.check_usable(peer, script)

    def test_push_within_the_answer(self) -> None:
        """
        Pushing is possible until the answer is complete, as often as the client takes it, and not after that.
        """
        rig, peer, script = self.script()
        handle = peer.request()
        page = script.call
        if not peer.pushes:
            return
        for n, message in enumerate((response_start(), response_body(b"a", more=True), response_body(b"b"))):
            page.send(_push(f"/{n}"))
            page.send(message)
        assert [call.scope["path"] for call in script.calls] == ["/", "/0", "/1", "/2"]
        error = page.sending(_push()).exception()
        assert error is None or isinstance(error, ApplicationError)
        page.finish()
        for call in script.calls[1:]:
            answer_with(call, call.scope["raw_path"])

        assert len(script.calls) == 4
        assert complete_answer(peer, handle) == (200, b"ab", True)
        assert [complete_answer(peer, promised) for promised, _ in peer.pushed(handle)] == [
            (200, b"/%d" % n, True) for n in range(3)
        ]
        assert not rig.gate.tasks
        assert len(rig.outcomes) == 4

    def test_push_of_what_was_pushed(self) -> None:
        """
        What was pushed pushes nothing (RFC 9113 section 8.4).
        """
        _, peer, script = self.script()
        peer.request()
        if not peer.pushes:
            return
        script.call.send(_push())

        assert "http.response.push" not in script.call.scope["extensions"]
        refused(script.call, _push("/more"))
        assert len(script.calls) == 2

    def test_pushed_and_given_up(self) -> None:
        """
        A client may give up what is pushed to it; that is its own disconnect, and touches nothing else.
        """
        _, peer, script = self.script()
        handle = peer.request()
        page = script.call
        if not peer.pushes:
            return
        page.send(_push())
        pushed = script.call
        ((promised, _),) = peer.pushed(handle)

        peer.abandon(promised)

        assert DISCONNECT in (pushed.receive(), pushed.receive())
        answer_with(page)
        assert complete_answer(peer, handle) == (200, b"ok", True)
        self.check_usable(peer, script)

    def test_bad_pushes(self) -> None:
        """
        A path that is none, and bad headers, are refused, and nothing is promised.
        """
        _, peer, script = self.script()
        handle = peer.request()
        call = script.call
        if not peer.pushes:
            return
        for path in (None, b"/a", "", "a", "http://a/", "/a b", "/a\r\n", "/\0", "/ä", 1):
            refused(call, _push(path))
        for headers in (
            5,
            [b"x-a"],
            [("x-a", b"1")],
            [(b"x a", b"1")],
            [(b"x-a", b"1\r\nx-b: 2")],
            [(b":path", b"/b")],
        ):
            refused(call, _push(headers=headers))
        refused(call, {"type": "http.response.push"})

        assert script.calls == [call]
        assert peer.pushed(handle) == []
        answer_with(call)
        assert complete_answer(peer, handle) == (200, b"ok", True)
