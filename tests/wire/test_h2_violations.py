"""
HTTP/2 with mistakes: frames that break RFC 9113, and header blocks that break RFC 7541.
"""

from __future__ import annotations

import pytest
from tests.wire.h2_frames import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_HEADER_LIST_SIZE,
    PRIORITIZED,
    SETTINGS_ACK,
    WHOLE,
    Client,
    Code,
    data,
    frame,
    get,
    goaway,
    headers,
    ping,
    post,
    priority,
    priority_update,
    rst_stream,
    window_update,
)
from tests.wire.h2_mistakes import (
    BREAKS,
    COMPRESSION,
    EITHER,
    FLOW,
    GARBLED,
    GET_BLOCK,
    NOTHING,
    PROTOCOL,
    SIZE,
)
from tests.wire.h2_scene import Scene


def begun(scene: Scene, **how: object) -> Client:
    """
    A client with stream 1 in the middle of its body.
    """
    bad = scene.misbehave(**how)
    bad.send(post(1), data(1, b"half"))
    assert scene.app.begun[-1] == "/"
    return bad


# libnghttp2 throws these away without a word; they do no harm.
IGNORED = ("HEADERS on a lower stream", "PRIORITY on stream 0", "PRIORITY_UPDATE of stream 0")
ignored = pytest.mark.xfail(reason="libnghttp2 ignores it", strict=True)


class TestConnectionErrors:
    """
    RFC 9113 section 5.4.1.
    """

    @pytest.mark.parametrize("step", [WHOLE, 1], ids=["whole", "byte by byte"])
    @pytest.mark.parametrize(
        "name", [name if name not in IGNORED else pytest.param(name, marks=ignored) for name in BREAKS]
    )
    def test_frames(self, scene: Scene, name: str, step: int) -> None:
        """
        Frames that must not be are answered with GOAWAY and the end; no application takes a half body for a whole.
        """
        sent, codes = BREAKS[name]
        bad = begun(scene)
        bad.send(sent, step=step)

        scene.connection_error(bad, codes)
        scene.meanwhile()
        assert scene.app.whole.count("/") <= sent.count(b"\x01\x05")

    @pytest.mark.parametrize("step", [WHOLE, 1], ids=["whole", "byte by byte"])
    @pytest.mark.parametrize("name", GARBLED)
    def test_compression(self, scene: Scene, name: str, step: int) -> None:
        """
        A header block that cannot be decoded breaks the connection, as nothing after it could be (section 4.3).
        """
        bad = begun(scene)
        bad.send(headers(3, GET_BLOCK + GARBLED[name]), step=step)

        scene.connection_error(bad, COMPRESSION)
        scene.meanwhile()
        assert scene.app.begun == ["/"]

    def test_last_stream(self, scene: Scene) -> None:
        """
        GOAWAY names a stream up to which requests may have been processed (section 6.8).
        """
        bad = scene.misbehave()
        bad.send(get(1), get(3), post(5), ping(bytes(7)))

        scene.connection_error(bad, SIZE)
        assert bad.goaways[-1].last in (5, LARGEST_WINDOW)

    def test_answers_in_front_of_it(self, scene: Scene) -> None:
        """
        An answer that was complete before the mistake has arrived in full before GOAWAY.
        """
        bad = scene.misbehave()
        bad.send(get(1, b"/"))
        bad.send(ping(bytes(7)))

        assert bad.answer(1) == (200, b"")
        scene.connection_error(bad, SIZE)

    def test_disconnect(self, scene: Scene) -> None:
        """
        Applications of the connection hear that their client is gone.
        """
        bad = begun(scene)
        bad.send(get(3, b"/hang"), data(0, b"x"))

        scene.connection_error(bad, PROTOCOL)
        assert scene.app.running == 1
        scene.rig.advance(12)
        assert scene.app.running == 0


class TestStreamErrors:
    """
    RFC 9113 section 5.4.2; that of the whole connection may be made of it.
    """

    @pytest.mark.parametrize("name", EITHER)
    def test_frames(self, scene: Scene, name: str) -> None:
        """
        A frame that must not be ends its stream, or the connection.
        """
        sent, stream, codes = EITHER[name]
        bad = begun(scene)
        bad.send(sent)

        scene.meanwhile()
        scene.stream_error(bad, stream, codes, connection=True)
        if not bad.goaways:
            scene.usable(bad, 9)

    def test_beyond_the_window_of_a_stream(self, scene: Scene) -> None:
        """
        More DATA than the stream's window allows is not taken (section 6.9.1).
        """
        bad = scene.misbehave()
        bad.send(post(1, b"/hang"))
        allowed = bad.sets_of_server[INITIAL_WINDOW_SIZE] + bad.given.get(1, 0)
        for _ in range(allowed // FRAME_BYTES):
            bad.send(data(1, bytes(FRAME_BYTES)))
        assert not bad.resets and not bad.closing
        bad.send(data(1, bytes(FRAME_BYTES)))

        scene.stream_error(bad, 1, FLOW, connection=True)
        scene.meanwhile()

    def test_beyond_the_window_of_the_connection(self, scene: Scene) -> None:
        """
        More DATA than the connection's window allows is not taken, unless the window grows as it comes.
        """
        bad = scene.misbehave()
        streams = range(1, 200, 2)
        bad.send(*(post(stream, b"/hang") for stream in streams))
        allowed = DEFAULT_WINDOW + bad.given.get(0, 0)
        count = min(300, allowed // FRAME_BYTES + 1)
        bad.send(*(data(streams[number % 100], bytes(FRAME_BYTES)) for number in range(count)), step=WHOLE)

        scene.meanwhile()
        if bad.goaways:
            scene.connection_error(bad, FLOW)
        else:
            assert not bad.resets
            assert count * FRAME_BYTES <= DEFAULT_WINDOW + bad.given.get(0, 0)

    @pytest.mark.parametrize(
        "sent",
        [priority(3, 3), frame(HEADERS, END_HEADERS | END_STREAM | PRIORITIZED, 3, b"\0\0\0\x03\x0f" + GET_BLOCK)],
    )
    def test_priority_on_itself(self, scene: Scene, sent: bytes) -> None:
        """
        A stream that depends on itself is an error to RFC 7540 section 5.3.1, and nothing to RFC 9113.
        """
        bad = begun(scene)
        bad.send(sent)

        if bad.goaways:
            scene.connection_error(bad, PROTOCOL)
        else:
            assert bad.resets.get(3) in (None, Code.PROTOCOL_ERROR)
            scene.usable(bad, 5)

    def test_behind_the_end(self, scene: Scene) -> None:
        """
        What was under way when a stream ended is no mistake: WINDOW_UPDATE, RST_STREAM, PRIORITY (section 5.1).
        """
        bad = scene.misbehave()
        bad.send(get(1))
        assert bad.answer(1) == (200, b"")
        bad.send(window_update(1, 1000), priority(1), priority_update(1), rst_stream(1), window_update(1, 1000))

        scene.usable(bad, 3)


@pytest.mark.parametrize("step", [WHOLE, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", NOTHING)
def test_no_mistake(scene: Scene, name: str, step: int) -> None:
    """
    What only looks like a mistake is ignored (sections 4.1, 5.5, 6.5.2, 6.5.3).
    """
    bad = begun(scene)
    bad.send(NOTHING[name], step=step)

    scene.usable(bad, 3)
    assert bad.goaways == []


def test_too_many_acknowledgements(scene: Scene) -> None:
    """
    SETTINGS ACK for nothing is ignored, or breaks the connection: RFC 9113 does not say.
    """
    bad = begun(scene)
    bad.send(SETTINGS_ACK)

    if bad.goaways:
        scene.connection_error(bad, PROTOCOL)
    else:
        scene.usable(bad, 3)


def test_short_lists_only(scene: Scene) -> None:
    """
    A client that takes no field at all is answered, or its stream is reset: the connection stays (section 6.5.2).
    """
    bad = scene.misbehave((MAX_HEADER_LIST_SIZE, 0))
    bad.send(get(1), ping())

    assert bad.pongs and not bad.goaways
    assert bad.answers[1].complete or 1 in bad.resets


@pytest.mark.parametrize("size", [0, 8, 100])
def test_goaway_from_the_client(scene: Scene, size: int) -> None:
    """
    A client that goes away is still answered, and then the connection ends.
    """
    bad = begun(scene)
    bad.send(goaway(0, Code.NO_ERROR, bytes(size)))
    bad.send(data(1, b"!", end=True))

    assert bad.answer(1) == (200, b"half!")
    for _ in range(20):
        scene.rig.advance(0.5)
        bad.go_on()
    assert bad.transport.closed
