"""
Heads of HTTP/2 that are too large, or become so.
"""

from __future__ import annotations

import pytest
from tests.wire.h2_frames import (
    MIB,
    Client,
    Code,
    asked,
    data,
    get,
    headers,
    literal,
    post,
    rst_stream,
)
from tests.wire.h2_mistakes import GET_BLOCK
from tests.wire.h2_scene import TOO_MUCH, Scene, resident_bytes


class TestHeaders:
    """
    Header lists over the limit.
    """

    @pytest.mark.parametrize(
        "fill",
        [
            literal(b"x", b"y" * 4000, 0x40),
            literal(b"cookie", b"y" * 4000, 0x40),
            literal(b"x", b"", 0x40),
            literal(b"cookie", b"", 0x40),
        ],
        ids=["large", "cookies", "empty", "empty cookies"],
    )
    def test_bomb(self, scene: Scene, fill: bytes) -> None:
        """
        A block of 16 KiB that stands for 64 MiB, or for 16,000 fields, is refused while it is read.
        """
        bad = scene.misbehave()
        before = resident_bytes()
        bad.send(headers(1, GET_BLOCK + fill))
        bad.send(*(headers(stream, GET_BLOCK + b"\xbe" * 16_000) for stream in range(3, 43, 2)))
        grown = resident_bytes() - before

        assert grown < 8 * MIB
        scene.meanwhile()
        assert len(scene.app.begun) == 1
        self.refused(scene, bad, 3)

    def refused(self, scene: Scene, bad: Client, stream: int, *, connection: bool = True) -> None:
        """
        431 (for a path also 414), or a reset; or the end of the connection.
        """
        answer = bad.answers.get(stream)
        if answer is not None and answer.status:
            assert answer.status in (414, 431) and answer.complete
        elif connection:
            scene.stream_error(bad, stream, TOO_MUCH | {Code.COMPRESSION_ERROR}, connection=True)
        else:
            scene.stream_error(bad, stream, {Code.ENHANCE_YOUR_CALM})

    @pytest.mark.parametrize(
        "more",
        [
            [(b"x", b"y" * 60_000), (b"x", b"y" * 6000)],
            [(b"x" * 60_000, b"y"), (b"x" * 6000, b"y")],
            [(b"x%d" % number, b"y" * 1000) for number in range(66)],
            [(b"x%d" % number, b"") for number in range(220)],
            [(b"cookie", b"y" * 1000)] * 66,
            [(b"cookie", b"y")] * 220,
        ],
        ids=["values", "names", "fields", "number", "cookies", "crumbs"],
    )
    @pytest.mark.parametrize("end", [True, False], ids=["GET", "POST"])
    def test_too_large(self, scene: Scene, more: list[tuple[bytes, bytes]], end: bool) -> None:
        """
        A little more than 64 KiB or 200 fields is refused, and the connection serves on.
        """
        bad = scene.misbehave()
        bad.send(headers(1, asked(b"GET" if end else b"POST", b"/", *more), end=end))

        assert scene.app.begun == []
        self.refused(scene, bad, 1, connection=False)
        scene.usable(bad, 3)

    @pytest.mark.parametrize(
        "more",
        [
            [(b"x", b"y" * 66_000)],
            [(b"x" * 66_000, b"y")],
            [(b"x", b"y" * 60_000)] * 2,
            [(b"x%d" % number, b"") for number in range(1000)],
            [(b"cookie", b"y" * 66_000)],
            [(b"cookie", b"y" * 1000)] * 120,
        ],
        ids=["value", "name", "values", "number", "cookie", "cookies"],
    )
    def test_far_too_large(self, scene: Scene, more: list[tuple[bytes, bytes]]) -> None:
        """
        Much more may cost the connection (section 10.5.1).
        """
        bad = scene.misbehave()
        bad.send(headers(1, asked(b"GET", b"/", *more)))

        assert scene.app.begun == []
        self.refused(scene, bad, 1)

    @pytest.mark.parametrize(
        "more",
        [[(b"x", b"y" * 60_000)], [(b"x%d" % number, b"") for number in range(190)], [(b"cookie", b"y" * 600)] * 90],
        ids=["value", "number", "cookies"],
    )
    def test_large(self, scene: Scene, more: list[tuple[bytes, bytes]]) -> None:
        """
        Less than that is served.
        """
        bad = scene.misbehave()
        bad.send(headers(1, asked(b"GET", b"/", *more)))

        assert bad.answer(1) == (200, b"")

    @pytest.mark.parametrize("end", [True, False], ids=["GET", "POST"])
    def test_refused_and_reset_in_one_read(self, scene: Scene, end: bool) -> None:
        """
        A client that resets at once what would be refused gets no answer, and is served on.
        """
        bad = scene.misbehave()
        more = [(b"cookie", b"y")] * 220
        bad.send(headers(1, asked(b"GET" if end else b"POST", b"/", *more), end=end) + rst_stream(1))

        assert scene.app.begun == []
        assert 1 not in bad.answers
        scene.usable(bad, 3)

    @pytest.mark.parametrize("size", [65_500, 70_000])
    def test_target_too_long(self, scene: Scene, size: int) -> None:
        """
        A path over the limit is refused.
        """
        bad = scene.misbehave()
        bad.send(get(1, b"/" + b"x" * size))

        assert scene.app.begun == []
        self.refused(scene, bad, 1, connection=size > 66_000)

    def test_large_trailers(self, scene: Scene) -> None:
        """
        Trailers far over the limit end their stream, or the connection, not as if the body were whole.
        """
        bad = scene.misbehave()
        bad.send(post(1), data(1, b"x"), headers(1, [(b"x", b"y" * 66_000)]))

        assert scene.app.whole == []
        self.refused(scene, bad, 1)
