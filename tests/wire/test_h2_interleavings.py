"""
Whatever happens side by side on one connection, in whatever order: bodies arrive as they were sent; nothing is left.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from h2.settings import SettingCodes
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from txasgi.errors import ClientDisconnected
from txasgi.seam import Field
from txasgi.testing.h2_client import H2Client
from txasgi.testing.h2_stream import ClientStream
from txasgi.testing.rig import Call, Rig, Script, response_body, response_start

# RFC 9218 section 7.1
PRIORITY_UPDATE = 0x10

STREAMS = 8
SIZES = (0, 1, 9, 1000, 16384, 16385, 40_000, 70_000, 300_000)
WINDOWS = (0, 1, 1000, 16384, 65535, 200_000)
PRIORITIES = (b"u=0", b"u=7", b"u=3, i", b"i, u=1", b"u=5, x=nonsense", b"")
PATTERN = bytes(range(251)) * (300_000 // 251 + 2)


class HastyRig(Rig):
    """
    A rig that gives the loop but so many turns where it would let everything come to rest.

    turns: None for all that it takes.
    """

    turns: int | None = None

    def settle(self) -> None:
        """
        Run the loop.
        """
        if self.turns is None:
            super().settle()
            return
        for _ in range(self.turns):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()


class Body:
    """
    A body that is made as it is sent; no two parts of it are the same.
    """

    def __init__(self, seed: int) -> None:
        self.sent = bytearray()
        self._seed = seed

    def more(self, size: int) -> bytes:
        """
        The next bytes.
        """
        start = (self._seed * 37 + len(self.sent)) % 251
        piece = PATTERN[start : start + size]
        self.sent += piece
        return piece


class Request:
    """
    One request from both of its ends.

    begun, answered: the application has started, has ended its answer.
    failed: it raised instead.
    """

    def __init__(self, number: int, stream: ClientStream, whole: bool) -> None:
        self.number = number
        self.stream = stream
        self.upload, self.download = Body(number), Body(number + 100)
        self.whole = whole
        self.given_up = self.begun = self.answered = self.failed = False
        self.received = bytearray()
        self.taken = self.gone = False
        self.receiving: asyncio.Task[Any] | None = None
        self.sends: list[asyncio.Task[None]] = []

    def take(self) -> None:
        """
        Look what the receive() that was begun has brought.
        """
        task = self.receiving
        if task is None or not task.done():
            return
        self.receiving = None
        if task.cancelled():
            # With the application that failed.
            return
        message = task.result()
        if message["type"] == "http.disconnect":
            self.gone = True
            return
        assert not self.gone and not self.taken
        self.received += message["body"]
        self.taken = not message["more_body"]

    def check(self) -> None:
        """
        What holds at any time.
        """
        self.take()
        for task in self.sends:
            if task.done() and not task.cancelled() and task.exception() is not None:
                assert isinstance(task.exception(), ClientDisconnected)
                assert self.given_up
        assert self.upload.sent.startswith(self.received)
        assert self.stream.answer.status == 500 or self.download.sent.startswith(self.stream.body())


class World:
    """
    A client, its requests, and the application that answers them.
    """

    def __init__(self, trickle: int) -> None:
        self.script = Script()
        self.rig = HastyRig(self.script)
        self.client = H2Client(self.rig, trickle, hold="windows")
        # Windows are given back by the test alone.
        self.client.clog()
        self.requests: list[Request] = []

    def call(self, request: Request) -> Call | None:
        """
        The application's run, once it was called.
        """
        path = f"/{request.number}"
        return next((call for call in self.script.calls if call.scope["path"] == path), None)

    def do(self, kind: str, which: int, amount: int) -> None:
        """
        One step.
        """
        if kind in ("request", "turns", "ping", "settings", "clog", "unclog", "advance"):
            getattr(self, "do_" + kind)(amount)
        elif self.requests:
            request = self.requests[which % len(self.requests)]
            getattr(self, "do_" + kind)(request, amount)
        for request in self.requests:
            request.check()

    # The network and the time

    def do_turns(self, amount: int) -> None:
        self.rig.turns = (None, 0, 1, 2, 3)[amount % 5]

    def do_advance(self, amount: int) -> None:
        self.rig.clock.advance(amount % 3 * 0.3)
        self.rig.settle()

    def do_clog(self, _amount: int) -> None:
        self.client.transport.clogged = True

    def do_unclog(self, _amount: int) -> None:
        self.client.transport.unclog()
        self.client.settle()

    # The client

    def do_request(self, amount: int) -> None:
        if len(self.requests) == STREAMS or not self.client.alive:
            return
        number, whole = len(self.requests), amount % 3 == 0
        fields: list[Field] = [
            (b":method", b"GET" if whole else b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"a"),
            (b":path", b"/%d" % number),
        ]
        if amount % 2:
            fields.append((b"priority", PRIORITIES[amount % len(PRIORITIES)]))
        self.requests.append(Request(number, self.client.open(fields, end=whole), whole))

    def do_body(self, request: Request, amount: int) -> None:
        if not (request.whole or request.stream.was_reset):
            self.client.send(request.stream, request.upload.more(SIZES[amount % len(SIZES)]))

    def do_end(self, request: Request, amount: int) -> None:
        if not (request.whole or request.stream.was_reset):
            request.whole = True
            self.client.send(request.stream, end=True, trailers=[(b"x-sum", b"1")] if amount % 2 else ())

    def do_reset(self, request: Request, _amount: int) -> None:
        request.given_up = True
        self.client.reset(request.stream)

    def do_window(self, request: Request, amount: int) -> None:
        size = WINDOWS[amount % len(WINDOWS)]
        h2, number = self.client.h2, request.stream.number
        if size and amount % 4 == 0:
            h2.increment_flow_control_window(size)
        elif size and number in h2.streams and not h2.streams[number].closed:
            h2.increment_flow_control_window(size, number)
        self.client.settle()

    def do_settings(self, amount: int) -> None:
        self.client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: WINDOWS[amount % len(WINDOWS)]})
        self.client.settle()

    def do_ping(self, amount: int) -> None:
        self.client.h2.ping(struct.pack("!Q", amount))
        self.client.settle()

    def do_priority(self, request: Request, amount: int) -> None:
        payload = struct.pack("!L", request.stream.number) + PRIORITIES[amount % len(PRIORITIES)]
        self.client.raw(struct.pack("!LBL", len(payload) << 8 | PRIORITY_UPDATE, 0, 0) + payload)

    # The application

    def do_receive(self, request: Request, _amount: int) -> None:
        call = self.call(request)
        if call is not None and not call.ended and request.receiving is None:
            request.receiving = call.receiving()

    def do_send(self, request: Request, amount: int) -> None:
        self.answer(request, SIZES[amount % len(SIZES)], more=True)

    def do_answer(self, request: Request, amount: int) -> None:
        self.answer(request, SIZES[amount % len(SIZES)], more=False)

    def answer(self, request: Request, size: int, more: bool) -> None:
        """
        send(), which waits for the client or not.
        """
        call = self.call(request)
        if (
            call is None
            or call.ended
            or request.failed
            or request.answered
            or sum(not task.done() for task in request.sends) > 2
        ):
            return
        if not request.begun:
            request.begun = True
            request.sends.append(call.sending(response_start(200)))
        request.answered = not more
        request.sends.append(call.sending(response_body(request.download.more(size), more=more)))

    def do_return(self, request: Request, _amount: int) -> None:
        call = self.call(request)
        if call is not None and request.answered and all(task.done() for task in request.sends):
            call.finish()

    def do_fail(self, request: Request, amount: int) -> None:
        call = self.call(request)
        if call is not None and not call.ended and not request.answered and amount % 4 == 0:
            request.failed = True
            call.fail(ValueError("oops"))

    # The end

    def finish(self) -> None:
        """
        Let everything come to its end, whatever state it is in.
        """
        self.rig.turns = None
        self.client.transport.unclog()
        self.client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65535})
        # h2 reckons what to give back when it is told to, not when the settings change.
        self.client.settle()
        self.client.unclog()
        for request in self.requests:
            self.do_end(request, 0)
        for request in self.requests:
            self.finish_one(request)
        self.client.settle()

    def finish_one(self, request: Request) -> None:
        """
        The application takes what is left of the body, and ends its answer.
        """
        call = self.call(request)
        if call is None:
            # Given up before the server has read of it.
            assert request.given_up
            return
        for _ in range(1000):
            if request.taken or request.gone or call.ended:
                break
            self.do_receive(request, 0)
            request.check()
            self.client.settle()
        assert call.ended or request.taken or request.gone
        self.answer(request, 1000, more=False)
        call.finish()
        request.check()

    def check(self) -> None:
        """
        What must have become of it all.
        """
        for request in self.requests:
            request.check()
            answer = self.client.answer(request.stream)
            assert all(task.done() for task in request.sends)
            if request.given_up:
                continue
            if request.failed:
                # Its start may not have had its turn before it failed.
                assert (answer.complete, answer.reset) == ((True, False) if answer.status == 500 else (False, True))
                continue
            assert (answer.status, answer.complete, answer.reset) == (200, True, False)
            assert request.download.sent == answer.body
            if request.taken:
                assert request.upload.sent == request.received

    def close(self, leave: bool) -> None:
        """
        The client goes, or the server closes a connection on which nothing happens: it knows of no stream any more.
        """
        if leave:
            self.client.leave()
        else:
            self.rig.advance(60)
            assert self.client.ended
            assert self.client.goaway is not None
        assert not self.rig.gate.tasks
        assert not self.rig.front.connections
        assert self.rig.errors == []


STEPS = {
    "request": 5,
    "body": 6,
    "end": 3,
    "reset": 1,
    "window": 4,
    "settings": 1,
    "ping": 1,
    "priority": 1,
    "turns": 3,
    "advance": 1,
    "clog": 1,
    "unclog": 2,
    "receive": 6,
    "send": 6,
    "answer": 2,
    "return": 1,
    "fail": 1,
}


def steps() -> Iterator[str]:
    for kind, weight in STEPS.items():
        yield from [kind] * weight


def play(todo: Sequence[tuple[str, int, int]], trickle: int = 0, leave: bool = False) -> None:
    """
    These steps, and what must have become of it.
    """
    world = World(trickle)
    try:
        for kind, which, amount in todo:
            world.do(kind, which, amount)
        world.finish()
        world.check()
        world.close(leave)
    finally:
        world.rig.close()


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(steps())), st.integers(0, STREAMS - 1), st.integers(0, 59)),
        min_size=40,
        max_size=80,
    ),
    st.sampled_from([0, 0, 40]),
    st.booleans(),
)
def test_interleavings(todo: list[tuple[str, int, int]], trickle: int, leave: bool) -> None:
    """
    Each body that is completed arrives, in both directions; who gives up or fails does so alone; nothing is left.
    """
    play(todo, trickle, leave)


def test_empty_end_of_an_early_answer_behind_a_full_window() -> None:
    """
    RST_STREAM NO_ERROR never comes before the END_STREAM of an early answer that waits for the connection's window.
    """
    # RFC 9113 section 8.1: after sending a complete response. SETTINGS and PING want an answer, which is a write.
    for kind in ("settings", "ping"):
        large, empty = SIZES.index(70_000), SIZES.index(0)
        play([("request", 0, 2), ("answer", 0, large), ("request", 0, 2), ("answer", 1, empty), (kind, 0, 4)])


def test_send_goes_on_after_a_clogged_socket_and_a_small_window() -> None:
    """
    A send() that waited for the socket and for the window goes on once the client has read everything.
    """
    large, small, empty = SIZES.index(70_000), SIZES.index(1000), SIZES.index(0)
    play(
        [
            ("settings", 0, WINDOWS.index(16384)),
            ("request", 0, 0),
            ("clog", 0, 0),
            # For the connection.
            ("window", 0, 52),
            ("send", 0, large),
            ("send", 0, empty),
            ("send", 0, small),
            ("settings", 0, WINDOWS.index(200_000)),
        ]
    )


def test_early_answer_to_a_body_that_ends_before_it() -> None:
    """
    An answer that was early, and waits for a window while the body comes to its end, is a plain one after all.
    """
    large = SIZES.index(300_000)
    play([("request", 0, 2), ("answer", 0, large), ("end", 0, 0)])


def test_early_answer_to_a_client_that_gives_up() -> None:
    """
    An early answer whose client resets the stream before it is out is nobody's any more, whatever made it early.
    """
    one, large, small = 1, SIZES.index(300_000), SIZES.index(1000)
    post = ("request", 0, 2)
    # No turn of the loop between the two.
    play([post, ("turns", 0, one), ("answer", 0, small), ("reset", 0, 0)])
    play([post, ("turns", 0, one), ("priority", 0, 0), ("reset", 0, 0), ("fail", 0, 0)])
    # Nor a byte that goes out.
    play([post, post, ("clog", 0, 0), ("send", 0, large), ("answer", 1, small), ("reset", 1, 0)])
