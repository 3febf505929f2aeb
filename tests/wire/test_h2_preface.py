"""
How HTTP/2 begins, and how it must not begin.
"""

from __future__ import annotations

import pytest
from tests.wire.h2_frames import (
    CONTINUATION,
    GOAWAY,
    PREFACE,
    SETTINGS,
    SETTINGS_ACK,
    WHOLE,
    Client,
    Code,
    data,
    frame,
    get,
    ping,
    post,
    settings,
    window_update,
)
from tests.wire.h2_mistakes import (
    PROTOCOL,
    SIZE,
)
from tests.wire.h2_scene import Scene


class TestPreface:
    """
    RFC 9113 section 3.4.
    """

    def test_split_anywhere(self, scene: Scene) -> None:
        """
        A preface is known wherever it is cut, and byte by byte.
        """
        whole = PREFACE + settings() + post(1) + data(1, b"hello", end=True)
        for cut in range(1, len(PREFACE) + 20):
            bad = scene.misbehave(begin=False, acks=False)
            bad.send(whole[:cut])
            bad.send(whole[cut:])
            assert bad.answer(1) == (200, b"hello")
            bad.leave()
        bad = scene.misbehave(begin=False, acks=False)
        bad.send(whole, step=1)
        assert bad.answer(1) == (200, b"hello")

    @pytest.mark.parametrize("place", range(len(PREFACE)))
    def test_wrong(self, scene: Scene, place: int) -> None:
        """
        A preface with a wrong byte is no request that an application would see, and the connection ends.
        """
        wrong = bytearray(PREFACE)
        wrong[place] ^= 0x02
        bad = scene.misbehave(begin=False)
        self.send_raw(scene, bad, bytes(wrong) + settings() + get(1))

        written = bytes(bad.transport.written)
        assert scene.app.begun == []
        assert written == b"" or written.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")) or written[3] in (SETTINGS, GOAWAY)

    def send_raw(self, scene: Scene, bad: Client, sent: bytes) -> None:
        """
        Send what may be answered in HTTP/1.1, and wait for the end.
        """
        transport = bad.transport
        transport.receive(sent)
        for _ in range(40):
            scene.rig.advance(1)
            transport.finish()
            if transport.closed:
                return
        raise AssertionError("the connection stays")

    @pytest.mark.parametrize(
        "first", [ping(), get(1), SETTINGS_ACK, window_update(0, 1), frame(0xBB), frame(CONTINUATION)]
    )
    def test_settings_come_first(self, scene: Scene, first: bytes) -> None:
        """
        A preface without SETTINGS is a connection error; GOAWAY may be left out.
        """
        bad = scene.misbehave(begin=False)
        bad.send(PREFACE + first + settings() + get(1))

        scene.connection_error(bad, PROTOCOL, silent=True)
        assert scene.app.begun == []

    @pytest.mark.parametrize("cut", [1, 3, 14, 23, 24, 24 + 8])
    def test_incomplete(self, scene: Scene, cut: int) -> None:
        """
        A preface that does not become whole within head_s ends the connection.
        """
        bad = scene.misbehave(begin=False)
        self.send_raw(scene, bad, (PREFACE + settings())[:cut])

        assert scene.rig.clock.seconds() <= 1000 + 30 + 4

    @pytest.mark.parametrize("waits", [False, True], ids=["at once", "behind the answer"])
    def test_not_behind_http_1(self, scene: Scene, waits: bool) -> None:
        """
        Behind a request of HTTP/1.1 a preface is a bad request.
        """
        bad = scene.misbehave(begin=False)
        first, second = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n", PREFACE + settings() + get(1, b"/second")
        if waits:
            bad.transport.receive(first)
            scene.rig.settle()
            self.send_raw(scene, bad, second)
        else:
            self.send_raw(scene, bad, first + second)

        written = bytes(bad.transport.written)
        assert written.startswith(b"HTTP/1.1 200 ")
        assert written.count(b"HTTP/1.1 ") == 2
        assert scene.app.begun == ["/first"]


def upgrade(*lines: bytes, method: bytes = b"GET") -> bytes:
    """
    A request of HTTP/1.1 that asks for h2c.
    """
    first = [method + b" / HTTP/1.1", b"Host: a", b"Upgrade: h2c", *lines]
    return b"\r\n".join([*first, b"", b""])


H2_SETTINGS = b"HTTP2-Settings: AAMAAABkAAQAAP__"
NAMED = b"Connection: Upgrade, HTTP2-Settings"


class TestUpgrade:
    """
    RFC 7540 section 3.2.
    """

    @pytest.mark.parametrize(
        "lines",
        [
            [b"Connection: Upgrade"],
            [NAMED],
            [NAMED, H2_SETTINGS, H2_SETTINGS],
            [NAMED, b"HTTP2-Settings: !!!!"],
            [NAMED, b"HTTP2-Settings: AAM"],
            [NAMED, H2_SETTINGS, b"Content-Length: 5"],
            [NAMED, H2_SETTINGS, b"Transfer-Encoding: chunked"],
        ],
        ids=["no settings", "no settings, named", "two", "no base64", "3 bytes", "length", "chunked"],
    )
    def test_not_upgraded(self, scene: Scene, lines: list[bytes]) -> None:
        """
        What cannot be upgraded is answered as HTTP/1.1, or refused.
        """
        bad = scene.misbehave(begin=False)
        bad.transport.receive(upgrade(*lines, method=b"POST"))
        bad.transport.receive(b"hello" if b"Content-Length: 5" in lines else b"")
        if b"Transfer-Encoding: chunked" in lines:
            bad.transport.receive(b"5\r\nhello\r\n0\r\n\r\n")
        scene.rig.settle()

        written = bytes(bad.transport.written)
        assert written.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 ")), written

    @pytest.mark.parametrize("step", [WHOLE, 1], ids=["in one read", "byte by byte"])
    @pytest.mark.parametrize("first", [b"", b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"], ids=["first", "second"])
    def test_preface_in_the_same_read(self, scene: Scene, step: int, first: bytes) -> None:
        """
        A client that does not wait for 101 is served all the same, be it its first request or not.
        """
        bad = scene.misbehave(begin=False)
        bad.transport.receive(first)
        scene.rig.settle()
        sent = upgrade(NAMED, H2_SETTINGS) + PREFACE + settings() + post(3) + data(3, b"three", end=True)
        for start in range(0, len(sent), step):
            bad.transport.receive(sent[start : start + step])
            scene.rig.settle()
        head, _, rest = bad.transport.take().rpartition(b"HTTP/1.1 101 ")[2].partition(b"\r\n\r\n")
        bad.transport.written += rest
        bad.go_on()

        assert b"upgrade: h2c" in head.lower()
        assert (bad.answer(1), bad.answer(3)) == ((200, b""), (200, b"three"))

    def test_settings_that_must_not_be(self, scene: Scene) -> None:
        """
        A setting that is wrong in itself is refused, or breaks the connection as SETTINGS would.
        """
        bad = scene.misbehave(begin=False)
        bad.transport.receive(upgrade(NAMED, b"HTTP2-Settings: AAT_____"))
        scene.rig.settle()
        head, _, rest = bad.transport.take().partition(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
        if head.startswith(b"HTTP/1.1 101 "):
            bad.transport.written += rest
            scene.connection_error(bad, {Code.FLOW_CONTROL_ERROR})

    @pytest.mark.parametrize(
        "then",
        [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", settings(), get(3), bytes(100)],
        ids=["HTTP/1.1", "SETTINGS", "HEADERS", "zeros"],
    )
    def test_no_preface_behind_it(self, scene: Scene, then: bytes) -> None:
        """
        What follows on 101 must be a preface.
        """
        bad = scene.misbehave(begin=False)
        bad.transport.receive(upgrade(NAMED, H2_SETTINGS))
        scene.rig.settle()
        head, _, rest = bad.transport.take().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        bad.transport.written += rest
        bad.send(then)

        scene.connection_error(bad, PROTOCOL | SIZE, silent=True)
        assert scene.app.begun == ["/"]

    def test_silence_behind_it(self, scene: Scene) -> None:
        """
        A client that was upgraded and says nothing does not stay.
        """
        bad = scene.misbehave(begin=False)
        bad.transport.receive(upgrade(NAMED, H2_SETTINGS))
        for _ in range(40):
            scene.rig.advance(1)
            bad.transport.finish()
        assert bad.transport.closed
