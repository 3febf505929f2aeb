"""
Frames in any order, right ones and wrong ones, as many in one read as it happens.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.wire.h1_client import quiet
from tests.wire.h2_frames import (
    DATA,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    Code,
    asked,
    continuation,
    data,
    frame,
    get,
    goaway,
    headers,
    ping,
    post,
    priority_update,
    rst_stream,
    window_update,
)
from tests.wire.h2_frames import settings as settings_frame
from tests.wire.h2_scene import Scene

CONNECT = [(b":protocol", b"websocket"), (b"sec-websocket-version", b"13")]
PATHS = (b"/", b"/hang", b"/stubborn", b"/early", b"/big/1", b"/big/30")

# What a client may do, by what it does it with: a path and a stream.
Part = Callable[[bytes, int], bytes]
RIGHT: list[Part] = [
    lambda path, stream: get(stream, path),
    lambda path, stream: post(stream, path),
    lambda path, stream: headers(stream, asked(b"HEAD", path)),
    lambda path, stream: headers(stream, asked(b"POST", path, (b"expect", b"100-continue")), end=False),
    lambda path, stream: data(stream, b"some"),
    lambda path, stream: data(stream, b"x" * 9000),
    lambda path, stream: data(stream, b"", end=True),
    lambda path, stream: headers(stream, [(b"trailer", b"field")]),
    lambda path, stream: rst_stream(stream),
    lambda path, stream: rst_stream(stream, Code.NO_ERROR),
    lambda path, stream: window_update(stream, 5000),
    lambda path, stream: window_update(0, 5000),
    lambda path, stream: settings_frame((INITIAL_WINDOW_SIZE, 0)),
    lambda path, stream: settings_frame((INITIAL_WINDOW_SIZE, 1000)),
    lambda path, stream: settings_frame((INITIAL_WINDOW_SIZE, LARGEST_WINDOW)),
    lambda path, stream: ping(),
    lambda path, stream: priority_update(stream),
]
TOO_MUCH: list[Part] = [
    lambda path, stream: headers(stream, asked(b"GET", path, *[(b"cookie", b"y")] * 220)),
    lambda path, stream: headers(stream, asked(b"POST", path, (b"x", b"y" * 66_000)), end=False),
    lambda path, stream: headers(stream, asked(b"POST", path, (b"content-length", b"2")), end=False),
    lambda path, stream: headers(stream, [(b":method", b"CONNECT"), *asked(b"", b"/hang")[1:], *CONNECT], end=False),
    lambda path, stream: headers(stream, asked(b"get", path, (b"connection", b"close"))),
    lambda path, stream: headers(stream, [(b":status", b"200")]),
    lambda path, stream: headers(stream, [(b"Upper", b"case")], end=False),
    lambda path, stream: window_update(stream, LARGEST_WINDOW),
    lambda path, stream: window_update(stream, 0),
    lambda path, stream: goaway(stream),
]
# Wrong for the whole connection, so not too often.
WRONG: list[Part] = [
    lambda path, stream: frame(DATA, 0, 0, b"x"),
    lambda path, stream: frame(HEADERS, 0, stream, b"\xff\xff\xff"),
    lambda path, stream: window_update(0, LARGEST_WINDOW),
    lambda path, stream: window_update(0, 0),
    lambda path, stream: settings_frame((INITIAL_WINDOW_SIZE, 2**31)),
    lambda path, stream: ping(bytes(7)),
    lambda path, stream: continuation(stream),
    lambda path, stream: rst_stream(stream + 100),
    lambda path, stream: b"\xff" * 9,
]

PARTS = st.builds(
    lambda make, path, stream: make(path, stream),
    st.one_of(*[st.sampled_from(RIGHT)] * 6, *[st.sampled_from(TOO_MUCH)] * 2, st.sampled_from(WRONG)),
    st.sampled_from(PATHS),
    st.sampled_from((1, 3, 5, 7, 9, 11)),
)
# One read, how many bytes of it at once, and how long the client waits behind it.
READS = st.tuples(
    st.lists(PARTS, min_size=1, max_size=5),
    st.sampled_from((65536, 65536, 65536, 7)),
    st.sampled_from((0, 0, 0, 0.5, 6, 61)),
)


@given(st.lists(READS, min_size=1, max_size=8), st.booleans(), st.booleans())
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_comes(
    frozen: None,
    caplog: pytest.LogCaptureFixture,
    reads: list[tuple[list[bytes], int, float]],
    reads_nothing: bool,
    drains: bool,
) -> None:
    """
    Nothing is raised, nothing is logged, the neighbour notices nothing, and nothing is left behind.
    """
    scene = Scene()
    try:
        bad = scene.misbehave()
        bad.transport.clogged = reads_nothing
        for number, (parts, step, waits_s) in enumerate(reads):
            if bad.closing or bad.transport.closed:
                break
            if drains and number == 3:
                scene.drained = True
                scene.rig.front.drain(lambda: None)
            bad.send(*parts, step=step)
            if waits_s:
                scene.rig.advance(waits_s)
        if not scene.drained:
            scene.meanwhile()
        scene.end()
    finally:
        scene.rig.close()
    assert quiet(caplog)
