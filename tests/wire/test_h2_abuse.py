"""
HTTP/2 in bad faith: floods, bombs, resets, and clients that let nothing go.

What each is named after is in the advisories of other servers: CVE-2019-9512 (PING), 9513 (PRIORITY), 9514 (resets
that are provoked), 9515 (SETTINGS), 9517 (windows), 9518 (empty frames), CVE-2016-6581 (HPACK), CVE-2023-44487 (rapid
reset), CVE-2024-27316 (CONTINUATION), CVE-2025-8671 (made you reset), RUSTSEC-2026-0258 (empty DATA).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from tests.wire.h2_frames import (
    HEADERS,
    INITIAL_WINDOW_SIZE,
    KIB,
    MAX_CONCURRENT_STREAMS,
    MIB,
    PREFACE,
    PRIORITY,
    SETTINGS,
    SETTINGS_ACK,
    STREAMS,
    Client,
    Code,
    asked,
    block,
    continuation,
    data,
    frame,
    get,
    headers,
    literal,
    ping,
    post,
    priority,
    priority_update,
    rst_stream,
    settings,
    window_update,
)
from tests.wire.h2_mistakes import GET_BLOCK
from tests.wire.h2_scene import TOO_MUCH, UNREAD_BYTES, Scene, resident_bytes


def flood(scene: Scene, bad: Client, parts: Callable[[int], bytes], count: int, slices: int = 5) -> int:
    """
    Send so many parts, each made of its number, unless the connection ends; the neighbour is answered meanwhile.

    Returns how many were sent.
    """
    sent = 0
    size = count // slices
    for _ in range(slices):
        bad.send(*(parts(number) for number in range(sent, sent + size)))
        sent += size
        scene.meanwhile()
        if bad.closing:
            break
        assert len(bad.frames) < 100_000
    return sent


class TestResets:
    """
    Streams that are begun to be broken off.
    """

    @pytest.mark.parametrize("path", [b"/", b"/hang", b"/stubborn", b"/big/1000"])
    def test_rapid_reset(self, scene: Scene, path: bytes) -> None:
        """
        5,000 requests that are reset at once end the connection, and no more applications run than streams may be.
        """
        bad = scene.misbehave()
        flood(scene, bad, lambda number: get(2 * number + 1, path) + rst_stream(2 * number + 1), 5000, 10)

        scene.connection_error(bad, TOO_MUCH)
        scene.check_tasks()

    def test_rapid_reset_in_one_flight(self, scene: Scene) -> None:
        """
        The same from a client that sends all of it before it reads a byte.
        """
        bad = scene.misbehave(begin=False, acks=False)
        bad.send(PREFACE + settings(), *(get(n, b"/hang") + rst_stream(n) for n in range(1, 10_001, 2)), step=MIB)

        scene.connection_error(bad, TOO_MUCH)
        scene.meanwhile()

    def test_resets_of_uploads(self, scene: Scene) -> None:
        """
        The same with requests whose bodies have begun.
        """
        bad = scene.misbehave()
        flood(scene, bad, lambda n: post(2 * n + 1) + data(2 * n + 1, b"x") + rst_stream(2 * n + 1), 5000, 10)

        scene.connection_error(bad, TOO_MUCH)

    def test_now_and_then(self, scene: Scene) -> None:
        """
        A client may change its mind 500 times.
        """
        bad = scene.misbehave()
        flood(scene, bad, lambda number: get(2 * number + 1) + rst_stream(2 * number + 1), 500)

        scene.usable(bad, 2001)

    def test_cancelled_applications_count(self, scene: Scene) -> None:
        """
        A stream that was reset keeps its place as long as its application runs, even one that was cancelled.
        """
        bad = scene.misbehave()
        first, second = range(3, 201, 2), range(201, 399, 2)
        # One that stays open, so that the connection does.
        bad.send(post(1), *(get(stream, b"/stubborn") for stream in first))
        bad.send(*(rst_stream(stream) for stream in first))
        scene.rig.advance(12)
        bad.send(*(get(stream, b"/stubborn") for stream in second))

        assert scene.app.running == STREAMS
        assert set(second) == set(bad.resets)
        assert {Code(bad.resets[stream]) for stream in second} == {Code.REFUSED_STREAM}
        scene.meanwhile()
        scene.app.released.set()
        scene.rig.settle()
        scene.usable(bad, 401)

    @pytest.mark.parametrize(
        "provoke",
        [
            lambda stream: window_update(stream, 0),
            lambda stream: window_update(stream, 2**31 - 1),
            lambda stream: data(stream, b"too long"),
            lambda stream: headers(stream, [(b"x", b"y")], end=False),
            lambda stream: headers(stream, [(b"X", b"y")]),
            lambda stream: frame(PRIORITY, 0, stream, bytes(4)),
            lambda stream: frame(PRIORITY, 0, stream, stream.to_bytes(4) + b"\x10"),
            lambda stream: data(stream, b"?", end=True) + data(stream, b"x"),
        ],
        ids=[
            "window 0",
            "window",
            "length",
            "trailers",
            "upper case",
            "short PRIORITY",
            "PRIORITY of itself",
            "closed",
        ],
    )
    def test_made_you_reset(self, scene: Scene, provoke: Callable[[int], bytes]) -> None:
        """
        A client that makes the server reset its streams has no more applications run than streams may be, and is
        sent away.
        """
        bad = scene.misbehave()

        def parts(number: int) -> bytes:
            stream = 2 * number + 1
            return post(stream, b"/hang", (b"content-length", b"1")) + provoke(stream)

        flood(scene, bad, parts, 5000, 10)

        scene.check_tasks()
        assert bad.closing or set(bad.resets.values()) >= {Code.REFUSED_STREAM}, bad.told
        if bad.goaways:
            scene.closes_in_time(bad)

    def test_refused_and_retried(self, scene: Scene) -> None:
        """
        Requests beyond the limit, sent again and again, cost no application.
        """
        bad = scene.misbehave(acks=False)
        flood(scene, bad, lambda number: get(2 * number + 1, b"/hang"), 5000, 10)

        assert scene.app.running <= STREAMS
        assert bad.closing or len(bad.resets) == 4900


class TestStreams:
    """
    More streams than MAX_CONCURRENT_STREAMS (RFC 9113 section 5.1.2).
    """

    def test_first_flight(self, scene: Scene) -> None:
        """
        A client that cannot know the limit yet is refused what is too much, and answered the rest.
        """
        bad = scene.misbehave(begin=False, acks=False)
        streams = range(1, 301, 2)
        bad.send(PREFACE + settings(), *(post(stream) for stream in streams), step=MIB)
        assert bad.sets_of_server[MAX_CONCURRENT_STREAMS] == STREAMS
        bad.send(*(data(stream, b"x", end=True) for stream in streams[:STREAMS]))

        assert {bad.answer(stream) for stream in streams[:STREAMS]} == {(200, b"x")}
        assert {stream: bad.resets[stream] for stream in streams[STREAMS:]} == dict.fromkeys(
            streams[STREAMS:], Code.REFUSED_STREAM
        )
        assert bad.goaways == []
        scene.usable(bad, 1001)

    def test_who_knows_the_limit(self, scene: Scene) -> None:
        """
        A client that has acknowledged the limit and passes it is refused.
        """
        bad = scene.misbehave()
        bad.send(*(get(stream, b"/hang") for stream in range(1, 201, 2)))
        assert bad.resets == {}
        bad.send(get(201, b"/hang"))

        scene.stream_error(bad, 201, {Code.REFUSED_STREAM, Code.PROTOCOL_ERROR}, connection=True)
        assert scene.app.running <= STREAMS
        scene.meanwhile()

    def test_place_after_place(self, scene: Scene) -> None:
        """
        The place of an answered request is free again, 1,000 times over.
        """
        bad = scene.misbehave()
        for first in range(1, 2001, 200):
            bad.send(*(get(stream) for stream in range(first, first + 200, 2)))
        assert {bad.answer(stream) for stream in range(1, 2001, 2)} == {(200, b"")}
        assert bad.resets == {}


class TestFloods:
    """
    Frames that cost the client nothing.
    """

    @pytest.mark.parametrize("size", [0, 1, KIB])
    def test_continuation(self, scene: Scene, size: int) -> None:
        """
        A header block that does not end, ends the connection after a few frames.
        """
        bad = scene.misbehave()
        bad.send(frame(HEADERS, 0, 1, GET_BLOCK))
        part = literal(b"x", bytes(b"y" * max(0, size - 10))) if size > 1 else b"\x82"[:size]
        sent = flood(scene, bad, lambda _number: continuation(1, part), 1000, 100)

        assert sent <= 20
        scene.connection_error(bad, TOO_MUCH | {Code.COMPRESSION_ERROR})
        assert scene.app.begun == []

    def test_few_continuations(self, scene: Scene) -> None:
        """
        A header block in eight parts is as good as one in one.
        """
        bad = scene.misbehave()
        encoded = block(asked(b"GET", b"/", (b"x", b"y" * 900)))
        bad.send(headers(1, encoded, size=len(encoded) // 8 + 1))
        encoded = block(asked(b"GET", b"/", *((b"x", b"y" * 10_000) for _ in range(5))))
        bad.send(headers(3, encoded))

        assert bad.answer(1) == bad.answer(3) == (200, b"")

    @pytest.mark.parametrize(
        "part",
        [settings(), settings((INITIAL_WINDOW_SIZE, 1000)), ping()],
        ids=["SETTINGS", "SETTINGS with a value", "PING"],
    )
    @pytest.mark.parametrize("reads", [True, False], ids=["read", "not read"])
    def test_to_be_acknowledged(self, scene: Scene, part: bytes, reads: bool) -> None:
        """
        What wants an answer is answered, or the connection ends; little is kept for a client that does not read.
        """
        bad = scene.misbehave(clogged=not reads)
        sent = flood(scene, bad, lambda _number: part, 50_000, 10)

        assert bad.unread < UNREAD_BYTES
        if reads and not bad.closing:
            kind = part[3]
            acknowledged = [one for one in bad.taken(kind) if one.flags & 1]
            # The first SETTINGS, too.
            assert len(acknowledged) == sent + (kind == SETTINGS)
        elif reads:
            scene.connection_error(bad, TOO_MUCH)
        else:
            scene.rig.advance(70)
            bad.transport.finish()
            assert bad.transport.closed or bad.transport.aborted

    def test_pings_that_are_read(self, scene: Scene) -> None:
        """
        A client that pings often and reads the answers stays.
        """
        bad = scene.misbehave()
        for number in range(2000):
            bad.send(ping(number.to_bytes(8)))
        assert bad.pongs == [number.to_bytes(8) for number in range(2000)]
        scene.usable(bad, 1)

    @pytest.mark.parametrize(
        "part",
        [ping(ack=True), SETTINGS_ACK, frame(0xBB), frame(0xBB, 0, 1, bytes(100)), window_update(0, 1), priority(1)],
        ids=["PING ACK", "SETTINGS ACK", "unknown", "unknown of a stream", "WINDOW_UPDATE", "PRIORITY"],
    )
    def test_not_to_be_acknowledged(self, scene: Scene, part: bytes) -> None:
        """
        What wants no answer gets none, and costs nothing; or the connection ends.
        """
        bad = scene.misbehave()
        bad.send(post(1))
        before = len(bad.frames)
        flood(scene, bad, lambda _number: part, 50_000, 5)

        if bad.goaways:
            scene.connection_error(bad, TOO_MUCH)
        else:
            assert bad.frames[before:] == []
            bad.send(data(1, b"x", end=True))
            assert bad.answer(1) == (200, b"x")

    @pytest.mark.parametrize("part", [priority, priority_update], ids=["PRIORITY", "PRIORITY_UPDATE"])
    def test_priorities_of_idle_streams(self, scene: Scene, part: Callable[[int], bytes]) -> None:
        """
        Priorities of 100,000 streams that nobody opened are not kept.
        """
        bad = scene.misbehave()
        before = resident_bytes()
        flood(scene, bad, lambda number: part(2 * number + 1), 100_000, 5)

        # The frames themselves, as this test makes them, are a part of it.
        assert resident_bytes() - before < 8 * MIB
        if bad.goaways:
            scene.connection_error(bad, TOO_MUCH)
        else:
            scene.usable(bad, 300_001)

    @pytest.mark.parametrize("pad", [None, 0], ids=["empty", "padded"])
    def test_empty_data(self, scene: Scene, pad: int | None) -> None:
        """
        Empty DATA without an end, thousands of times, ends the stream or the connection.
        """
        bad = scene.misbehave()
        bad.send(post(1))
        if pad is None:
            flood(scene, bad, lambda _number: data(1), 20_000, 10)
        else:
            # The byte that says that there is no padding counts for the windows.
            flood(scene, bad, lambda _number: data(1, pad=0), 20_000, 10)

        scene.stream_error(bad, 1, TOO_MUCH | {Code.FLOW_CONTROL_ERROR}, connection=True)
        assert scene.app.whole == [path for path in scene.app.whole if path != "/"]

    def test_some_empty_data(self, scene: Scene) -> None:
        """
        Some empty DATA in a body is no abuse.
        """
        bad = scene.misbehave()
        bad.send(post(1), *(data(1) + data(1, b"x") for _ in range(50)), data(1, end=True))

        assert bad.answer(1) == (200, b"x" * 50)

    def test_empty_header_blocks(self, scene: Scene) -> None:
        """
        HEADERS without any field are no request, however many come.
        """
        bad = scene.misbehave()
        flood(scene, bad, lambda number: headers(2 * number + 1, b""), 5000)

        assert scene.app.begun == []
        scene.meanwhile()

    def test_tiny_data(self, scene: Scene) -> None:
        """
        A body in frames of one byte reaches the application in few messages.
        """
        bad = scene.misbehave()
        messages: list[int] = []

        async def count(scope, receive, send):  # type: ignore[no-untyped-def]
            more = True
            while more:
                message = await receive()
                messages.append(len(message["body"]))
                more = message["more_body"]

        inner, scene.rig.gate.application = scene.rig.gate.application, count
        bad.send(post(1), *(data(1, b"x") for _ in range(50_000)), data(1, end=True))
        scene.rig.gate.application = inner

        assert sum(messages) == 50_000
        assert len(messages) < 200

    def test_tiny_data_for_nobody(self, scene: Scene) -> None:
        """
        A body in frames of two bytes costs not many times its size while its application does not take it.
        """
        bad = scene.misbehave()
        streams = range(1, 9, 2)
        bad.send(*(post(stream, b"/hang") for stream in streams))
        size = bad.credit(1) // 2
        before = resident_bytes()
        for stream in streams:
            bad.send(data(stream, b"xy") * size)

        assert resident_bytes() - before < 8 * len(streams) * 2 * size
        assert not bad.goaways and not bad.resets

    def test_tunnel_that_is_not_open(self, scene: Scene) -> None:
        """
        What comes byte by byte for a WebSocket that is not accepted yet is not copied again and again.
        """
        bad = scene.misbehave()
        fields = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]
        bad.send(headers(1, [(b":method", b"CONNECT"), *asked(b"GET", b"/hang")[1:], *fields], end=False))
        parts = data(1, b"x") * bad.credit(1)
        began = time.process_time()
        bad.send(parts)

        assert scene.app.begun == ["/hang"]
        # 0.3 s as measured; each byte copied with all before it, it would be 4.
        assert time.process_time() - began < 2
