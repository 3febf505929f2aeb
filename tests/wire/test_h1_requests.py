"""
HTTP/1.1 requests that are refused, and those that are unusual and right.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.wire.h1_client import AFTER, GET, IRC, Client, Serve, deadlines, echo, get, pass_time, post, quiet
from tests.wire.h1_requests import BAD, GOOD, Bad, Good

from txasgi.testing.conform.http_peer import answer_with, read_body
from txasgi.testing.rig import Script


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
        pass_time(rig, 12)
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
            lines = IRC if way == "behind an upgrade" else ()
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


class TestUnusual:
    """
    Requests that are unusual and right.
    """

    @pytest.mark.parametrize("good", GOOD, ids=[good.name for good in GOOD])
    @pytest.mark.parametrize("way", ["whole", "byte by byte", "between"])
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
            client.send(good.data + AFTER, 1 << 30 if way == "whole" else 499 if large else 1)

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
