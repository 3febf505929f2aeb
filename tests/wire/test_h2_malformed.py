"""
Requests that RFC 9113 section 8.1.1 calls malformed.
"""

from __future__ import annotations

import pytest
from tests.wire.h2_frames import (
    HEADERS,
    KIB,
    WHOLE,
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
from tests.wire.h2_mistakes import (
    GET_BLOCK,
    MALFORMED,
    PROTOCOL,
    RIGHT,
)
from tests.wire.h2_scene import Scene

from txasgi.seam import Field


class TestMalformed:
    """
    RFC 9113 section 8.1.1.
    """

    @pytest.mark.parametrize("step", [WHOLE, 1], ids=["whole", "byte by byte"])
    @pytest.mark.parametrize("name", MALFORMED)
    def test_requests(self, scene: Scene, name: str, step: int) -> None:
        """
        The application does not hear of it, the stream ends, and the connection serves on.
        """
        bad = scene.misbehave()
        body = "content-length" in name
        bad.send(headers(1, MALFORMED[name], end=not body), data(1, b"hello", end=True) if body else b"", step=step)

        assert scene.app.begun == []
        self.refused(scene, bad, 1)
        scene.usable(bad, 3)

    def refused(self, scene: Scene, bad: Client, stream: int) -> None:
        """
        RST_STREAM, or an answer that says so in front of it, as section 8.1.1 allows.
        """
        answer = bad.answers.get(stream)
        assert answer is not None, f"nothing came: {bad.told}"
        if answer.status:
            assert answer.complete and 400 <= answer.status < 600
            assert bad.resets.get(stream, Code.NO_ERROR) in (Code.NO_ERROR, Code.PROTOCOL_ERROR)
        else:
            scene.stream_error(bad, stream, PROTOCOL)

    @pytest.mark.parametrize(
        ("length", "sent"),
        [
            (b"5", [headers(1, asked(b"POST", b"/", (b"content-length", b"5")))]),
            (b"5", [data(1, b"hell", end=True)]),
            (b"5", [data(1, b"hell"), data(1, end=True)]),
            (b"5", [data(1, b"hell"), headers(1, [(b"x", b"y")])]),
            (b"5", [data(1, b"hello!", end=True)]),
            (b"5", [data(1, b"hello"), data(1, b"!")]),
            (b"5", [data(1, b"hello!", pad=4)]),
            (b"0", [data(1, b"!")]),
            (b"0", [data(1, b"!", end=True)]),
        ],
        ids=[
            "nothing",
            "short",
            "short and empty",
            "short and trailers",
            "long",
            "longer",
            "padded",
            "some",
            "some end",
        ],
    )
    def test_content_length(self, scene: Scene, length: bytes, sent: list[bytes]) -> None:
        """
        A body that is not as long as content-length says is never taken for whole, and its stream is reset.
        """
        bad = scene.misbehave()
        if sent[0][3] != HEADERS:
            bad.send(post(1, b"/", (b"content-length", length)))
        for part in sent:
            bad.send(part)

        assert scene.app.whole == []
        self.refused(scene, bad, 1)
        scene.usable(bad, 3)
        assert scene.app.running == 0

    @pytest.mark.parametrize("name", RIGHT)
    def test_right_ones(self, scene: Scene, name: str) -> None:
        """
        What is unusual and allowed is served.
        """
        bad = scene.misbehave()
        bad.send(headers(1, RIGHT[name]))

        assert len(scene.app.begun) == 1
        assert bad.answer(1) == (200, b"")

    @pytest.mark.parametrize("first", ["malformed", "too large", "refused", "behind its end"])
    def test_compression_stays_in_step(self, scene: Scene, first: str) -> None:
        """
        What a header block puts into the table is there afterwards, even if its request was refused (section 4.3).
        """
        bad = scene.misbehave(acks=False)
        added = literal(b"x-kept", b"kept", 0x40)
        if first == "malformed":
            bad.send(headers(1, GET_BLOCK + added + literal(b"X", b"y")))
        elif first == "too large":
            bad.send(headers(1, GET_BLOCK + added + literal(b"x", bytes(b"y" * 80 * KIB))))
        elif first == "refused":
            bad.send(*(post(stream) for stream in range(1, 201, 2)), headers(201, GET_BLOCK + added))
            assert bad.resets == {201: Code.REFUSED_STREAM}
            bad.send(*(rst_stream(stream) for stream in range(1, 201, 2)))
            assert scene.app.running == 0
        else:
            bad.send(get(1), headers(1, added + literal(b"x", b"y")))
        if bad.goaways:
            # Then nothing follows for which it would matter.
            return
        seen: list[list[Field]] = []
        inner = scene.app

        async def watch(scope, receive, send):  # type: ignore[no-untyped-def]
            seen.append(scope["headers"])
            await inner(scope, receive, send)

        scene.rig.gate.application = watch
        bad.send(headers(1001, GET_BLOCK + b"\xbe"))
        assert bad.answer(1001) == (200, b"")
        assert (b"x-kept", b"kept") in seen[0]
