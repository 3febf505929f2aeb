"""
How HTTP/1.1 answers look on the wire, and files in them.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.wire.h1_client import GET, Serve, get, head_lines

from txasgi.testing.rig import Script, response_body, response_start


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
