"""
Trailers, early hints, files.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from txasgi.asgi.task import Message
from txasgi.errors import ApplicationError, ClientDisconnected
from txasgi.seam import Field
from txasgi.testing.conform.http_peer import (
    MIB,
    TEXT,
    HttpGroup,
    HttpPeer,
    answer_with,
    complete_answer,
    errors_logged,
    pieces,
    refused,
    sends,
)
from txasgi.testing.rig import Call, Rig, response_body, response_start

if TYPE_CHECKING:
    import pytest


class ExtensionConformance(HttpGroup):
    """
    Trailers, early hints, files.
    """

    TE: ClassVar[list[Field]] = [(b"te", b"trailers")]

    def test_trailers(self) -> None:
        """
        Promised trailers end the answer and reach a client that asked for them.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, [(b"trailer", b"x-sum")], trailers=True), response_body(b"ok"))
        assert complete_answer(peer, handle) == (200, b"ok", False)

        call.send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"1"), (b"x-more", b"2")]})

        assert complete_answer(peer, handle) == (200, b"ok", True)
        if peer.trailers_out:
            assert peer.answer(handle).trailers == [(b"x-sum", b"1"), (b"x-more", b"2")]
        call.finish()
        self.check_usable(peer, script)

    def test_trailers_at_once(self) -> None:
        """
        Body and trailers in one turn of the loop are no different.
        """
        answer = self.answer_to(
            sends(
                response_start(200, trailers=True),
                response_body(b"ok"),
                {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
            ),
            headers=self.TE,
        )

        assert (answer.status, answer.body, answer.complete) == (200, b"ok", True)
        assert answer.trailers in ([(b"x-sum", b"1")], [])

    def test_trailers_in_parts(self) -> None:
        """
        more_trailers adds up, and the answer waits for the last.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, trailers=True), response_body(b"ok"))
        call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1")], "more_trailers": True})
        assert complete_answer(peer, handle) == (200, b"ok", False)

        call.send({"type": "http.response.trailers", "headers": [(b"x-b", b"2")]})

        assert complete_answer(peer, handle) == (200, b"ok", True)
        if peer.trailers_out:
            assert peer.answer(handle).trailers == [(b"x-a", b"1"), (b"x-b", b"2")]

    def test_trailers_nobody_asked_for(self) -> None:
        """
        A client that did not send TE: trailers gets none, and a complete answer all the same.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(
            response_start(200, trailers=True),
            response_body(b"ok"),
            {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
        )

        answer = peer.answer(handle)
        assert (answer.status, answer.body, answer.complete, answer.trailers) == (200, b"ok", True, [])
        script.call.finish()
        self.check_usable(peer, script)

    def test_trailers_with_content_length(self) -> None:
        """
        An answer with content-length and trailers is complete, whichever of the two the wire can keep.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        script.call.send(
            response_start(200, [(b"content-length", b"2")], trailers=True),
            response_body(b"ok"),
            {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
        )

        assert complete_answer(peer, handle) == (200, b"ok", True)
        if peer.multiplexed:
            # No transfer coding has to make room for them (RFC 9113 section 8.1).
            assert peer.answer(handle).values(b"content-length") == [b"2"]
            assert peer.answer(handle).trailers == [(b"x-sum", b"1")]
        script.call.finish()
        self.check_usable(peer, script)

    def test_trailers_of_a_head(self) -> None:
        """
        An answer without body has no trailers, but may have promised them.
        """
        for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304)):
            _, peer, script = self.script()
            handle = peer.request(method, b"/", self.TE)
            script.call.send(
                response_start(status, trailers=True),
                response_body(),
                {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]},
            )

            assert (status, b"", True) == complete_answer(peer, handle)
            script.call.finish()
            self.check_usable(peer, script)

    def test_no_trailers_after_all(self) -> None:
        """
        Promised trailers may be empty.
        """
        for message in (
            {"type": "http.response.trailers", "headers": []},
            {"type": "http.response.trailers"},
        ):
            _, peer, script = self.script()
            handle = peer.request("GET", b"/", self.TE)
            script.call.send(response_start(200, trailers=True), response_body(b"ok"), message)

            assert complete_answer(peer, handle) == (200, b"ok", True)
            assert peer.answer(handle).trailers == []

    def test_bad_trailers(self) -> None:
        """
        Trailers are checked like headers; the right ones may follow.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, trailers=True), response_body(b"ok"))

        for pair in ((b"x a", b"1"), (b"x-a", b"1\r\nx-b: 2"), ("x-a", b"1"), (b"x-a", "1"), (b":a", b"1")):
            refused(call, {"type": "http.response.trailers", "headers": [pair]})
        for headers in (None, 5, [b"x-a"], [(b"x-a",)], [(b"x-a", b"1", b"2")], [None]):
            refused(call, {"type": "http.response.trailers", "headers": headers})
        assert complete_answer(peer, handle) == (200, b"ok", False)
        call.send({"type": "http.response.trailers", "headers": [(b"x-a", b"1"), (b"connection", b"close")]})

        assert complete_answer(peer, handle) == (200, b"ok", True)
        assert peer.answer(handle).trailers in ([(b"x-a", b"1")], [])

    def test_trailers_out_of_order(self) -> None:
        """
        Trailers that were not promised, that come before the end of the body or twice are refused.
        """
        _, peer, script = self.script()
        trailers: Message = {"type": "http.response.trailers", "headers": [(b"x-a", b"1")]}
        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200))
        refused(call, trailers)
        call.send(response_body(b"ok"))
        refused(call, trailers)
        call.finish()
        assert complete_answer(peer, handle) == (200, b"ok", True)

        handle = peer.request("GET", b"/", self.TE)
        call = script.call
        call.send(response_start(200, trailers=True))
        refused(call, trailers)
        call.send(response_body(b"o", more=True))
        refused(call, trailers)
        call.send(response_body(b"k"))
        refused(call, response_body(b"more"))
        call.send(trailers)
        refused(call, trailers)
        call.finish()
        assert complete_answer(peer, handle) == (200, b"ok", True)

    def test_missing_trailers(self) -> None:
        """
        An application that promised trailers and returns without leaves no complete answer.
        """
        _, peer, script = self.script()
        handle = peer.request("GET", b"/", self.TE)
        script.call.send(response_start(200, trailers=True), response_body(b"ok"))

        script.call.finish()

        self.check_broken_off(peer, script, handle)

    def test_early_hints_before_start(self) -> None:
        """
        Early hints before the start are sent at once, as often as the application likes.
        """
        _, peer, script = self.script()
        handle = peer.request()
        if not peer.early_hints:
            return
        script.call.send(_hint(b"</a.css>; rel=preload"))
        assert _hints(peer, handle) == [(103, [(b"link", b"</a.css>; rel=preload")])]
        script.call.send(_hint(b"</b>; rel=preload", b"</c>; rel=preconnect"))
        answer_with(script.call)

        links = [value for _, headers in _hints(peer, handle) for _, value in headers]
        assert links == [b"</a.css>; rel=preload", b"</b>; rel=preload", b"</c>; rel=preconnect"]
        assert complete_answer(peer, handle) == (200, b"ok", True)
        assert peer.answer(handle).values(b"link") == []
        self.check_usable(peer, script)

    def test_early_hints_after_start(self) -> None:
        """
        Early hints after the start, where ASGI has them, go out before the head that is still held back.
        """
        _, peer = self.serve(sends(response_start(), _hint(b"</a>; rel=preload"), response_body(b"ok")))
        handle = peer.request()

        if peer.early_hints:
            assert _hints(peer, handle) == [(103, [(b"link", b"</a>; rel=preload")])]
        assert complete_answer(peer, handle) == (200, b"ok", True)

    def test_early_hints_too_late(self) -> None:
        """
        Early hints after a head that went out are left out; that is no error.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start())
        assert peer.answer(handle).status == 200
        if not peer.early_hints:
            return

        script.call.send(_hint(b"</a>; rel=preload"), response_body(b"a", more=True), _hint(b"</b>"))
        script.call.send(response_body(b"b"))

        assert complete_answer(peer, handle) == (200, b"ab", True)
        assert _hints(peer, handle) == []

    def test_bad_early_hints(self) -> None:
        """
        Links are checked like header values.
        """
        _, peer, script = self.script()
        handle = peer.request()
        if not peer.early_hints:
            return
        for link in (b"</a>\r\nx-a: 1", b"</a>\n", "</a>", None):
            refused(script.call, _hint(link))
        for links in (None, 5, "</a>"):
            refused(script.call, {"type": "http.response.early_hint", "links": links})
        answer_with(script.call)

        assert complete_answer(peer, handle) == (200, b"ok", True)
        assert _hints(peer, handle) == []

    def test_early_hints_after_the_end(self) -> None:
        """
        Early hints after the end of the answer reach nobody.
        """
        _, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(), response_body(b"ok"))

        error = script.call.sending(_hint(b"</a>")).exception()
        assert error is None or isinstance(error, ApplicationError)
        script.call.finish()
        assert _hints(peer, handle) == []
        self.check_usable(peer, script)

    def send_path(self, rig: Rig, call: Call, path: object) -> asyncio.Task[None]:
        """
        Send pathsend and wait for the threads that read the file.
        """
        task = call.sending({"type": "http.response.pathsend", "path": path})
        rig.settle_threads(task.done)
        rig.settle()
        return task

    def test_pathsend(self, tmp_path: Path) -> None:
        """
        A file is the body, and the answer complete with it; with and without content-length.
        """
        for size in (0, 1, 65536, 300_001):
            file = tmp_path / str(size)
            content = b"".join(pieces(size, 1000))
            file.write_bytes(content)
            for headers in ([], [(b"content-length", b"%d" % size)]):
                rig, peer, script = self.script()
                handle = peer.request()
                script.call.send(response_start(200, headers))

                self.send_path(rig, script.call, str(file)).result()

                assert (200, content, True) == complete_answer(peer, handle)
                script.call.finish()
                self.check_usable(peer, script)

    def test_pathsend_at_once(self, tmp_path: Path) -> None:
        """
        A file in the turn of the start has the header fields that the application gave.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        send_file: Message = {"type": "http.response.pathsend", "path": str(file)}
        for headers in ([TEXT], [TEXT, (b"content-length", b"5")]):
            rig, peer = self.serve(sends(response_start(200, headers), send_file))
            handle = peer.request()
            rig.settle_threads(lambda rig=rig: not rig.gate.tasks)  # type: ignore[misc]  # a lambda's default
            assert complete_answer(peer, handle) == (200, b"hello", True)
            answer = peer.answer(handle)
            assert answer.values(b"content-type") == [b"text/plain"]
            assert answer.values(b"content-length") in ([b"5"], [])
            assert peer.alive

    def test_pathsend_of_a_head(self, tmp_path: Path) -> None:
        """
        The answer to HEAD has nothing of the file.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        rig, peer, script = self.script()
        handle = peer.request("HEAD")
        script.call.send(response_start(200, [(b"content-length", b"5")]))

        self.send_path(rig, script.call, str(file)).result()

        assert complete_answer(peer, handle) == (200, b"", True)
        assert peer.answer(handle).values(b"content-length") == [b"5"]
        script.call.finish()
        self.check_usable(peer, script)

    def test_pathsend_of_no_file(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """
        What cannot be read raises at that send(), and another body may follow.
        """
        for path in (str(tmp_path / "missing"), str(tmp_path), "", 5, None):
            rig, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200))

            task = self.send_path(rig, script.call, path)
            assert isinstance(task.exception(), (OSError, ApplicationError)), path
            assert not isinstance(task.exception(), ClientDisconnected)
            script.call.send(response_body(b"none"))

            assert complete_answer(peer, handle) == (200, b"none", True)
            script.call.finish()
        assert errors_logged(caplog) == []

    def test_pathsend_of_a_pipe(self, tmp_path: Path) -> None:
        """
        A pipe that nobody writes to is refused, it does not hold a thread for ever.
        """
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        rig, peer, script = self.script()
        handle = peer.request()
        script.call.send(response_start(200))
        task = script.call.sending({"type": "http.response.pathsend", "path": str(pipe)})
        rounds = iter(range(200))
        rig.settle_threads(lambda: task.done() or next(rounds, None) is None)
        waited = not task.done()
        if waited:
            # Let the thread go.
            os.close(os.open(pipe, os.O_RDWR))
            rig.settle_threads(task.done)
        assert isinstance(task.exception(), OSError)
        assert not waited
        script.call.send(response_body(b"ok"))

        assert complete_answer(peer, handle) == (200, b"ok", True)

    def test_pathsend_of_no_file_at_once(self, tmp_path: Path) -> None:
        """
        A missing file is a 500 when the application lets the error out and nothing was sent, else a broken off answer.
        """
        missing: Message = {"type": "http.response.pathsend", "path": str(tmp_path / "missing")}
        rig, peer = self.serve(sends(response_start(200), missing))
        handle = peer.request()
        rig.settle_threads(lambda: not rig.gate.tasks)
        rig.settle()

        answer = peer.answer(handle)
        assert (answer.status, answer.complete) == (500, True) or (
            answer.complete,
            answer.reset,
        ) == (False, True)

    def test_pathsend_of_another_size(self, tmp_path: Path) -> None:
        """
        A file longer or shorter than content-length never gives a complete answer with the wrong body.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        for length in (b"3", b"8"):
            rig, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200, [(b"content-length", length)]))
            task = self.send_path(rig, script.call, str(file))
            error = task.exception()
            if error is None:
                script.call.finish()
            else:
                script.call.fail(error)

            assert len(peer.answer(handle).body) <= int(length)
            self.check_broken_off(peer, script, handle)

    def test_pathsend_out_of_order(self, tmp_path: Path) -> None:
        """
        A file is not mixed with body messages, nor sent twice, nor before the start.
        """
        file = tmp_path / "file"
        file.write_bytes(b"hello")
        send_file: Message = {"type": "http.response.pathsend", "path": str(file)}
        rig, peer, script = self.script()
        handle = peer.request()
        call = script.call
        refused(call, send_file)
        call.send(response_start(), response_body(b"a", more=True))
        refused(call, send_file)
        call.send(response_body(b"b"))
        refused(call, send_file)
        call.finish()
        assert complete_answer(peer, handle) == (200, b"ab", True)

        handle = peer.request()
        call = script.call
        call.send(response_start())
        self.send_path(rig, call, str(file)).result()
        refused(call, send_file)
        refused(call, response_body(b"a"))
        call.finish()
        assert complete_answer(peer, handle) == (200, b"hello", True)

    def test_pathsend_back_pressure(self, tmp_path: Path) -> None:
        """
        A large file waits for a client that does not read; once it left, send() raises and the file is closed.
        """
        file = tmp_path / "file"
        with file.open("wb") as opened:
            opened.truncate(8 * MIB)
        for leaves in (True, False):
            rig, peer, script = self.script()
            handle = peer.request()
            script.call.send(response_start(200, [(b"content-length", b"%d" % (8 * MIB))]))
            peer.clog()
            task = script.call.sending({"type": "http.response.pathsend", "path": str(file)})
            _let_threads_run(rig)
            assert not task.done()

            if leaves:
                peer.leave()
                rig.settle_threads(task.done)
                assert isinstance(task.exception(), ClientDisconnected)
            else:
                peer.unclog()
                rig.settle_threads(task.done)
                task.result()
                assert (len(peer.answer(handle).body), peer.answer(handle).complete) == (8 * MIB, True)
            assert str(file) not in _open_files()


def _let_threads_run(rig: Rig) -> None:
    """
    Give the loop's threads 50 rounds; enough for what does not wait for anything else.
    """
    rounds = iter(range(50))
    rig.settle_threads(lambda: next(rounds, None) is None)


def _open_files() -> list[str]:
    folder = "/proc/self/fd"
    found = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            found.append(os.readlink(os.path.join(folder, name)))
        except OSError:
            continue
    return found


def _hint(*links: object) -> Message:
    return {"type": "http.response.early_hint", "links": list(links)}


def _hints(peer: HttpPeer, handle: int) -> list[tuple[int, list[Field]]]:
    return peer.answer(handle).informational
