"""
HTTP/2 connections and streams that end: clients that let nothing go, idleness, our GOAWAY, a drain.
"""

from __future__ import annotations

import pytest
from tests.wire.h2_frames import (
    ACK,
    END_HEADERS,
    FRAME_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MIB,
    PING,
    PREFACE,
    RST_STREAM,
    Client,
    Code,
    data,
    frame,
    get,
    goaway,
    headers,
    literal,
    ping,
    post,
    rst_stream,
    settings,
    window_update,
)
from tests.wire.h2_mistakes import GET_BLOCK
from tests.wire.h2_scene import UNREAD_BYTES, Scene, open_wide, resident_bytes


class TestStalls:
    """
    Clients that let an answer, or the end, not go.
    """

    @pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
    @pytest.mark.parametrize("whose", ["stream", "connection"])
    def test_window_of_zero(self, scene: Scene, whose: str, busy: bool) -> None:
        """
        Answers that a client's window holds up for a minute are broken off, whatever else it asks meanwhile.
        """
        bad = scene.misbehave((INITIAL_WINDOW_SIZE, 0 if whose == "stream" else 2**31 - 1))
        streams = range(1, 41, 2)
        bad.send(*(get(stream, b"/big/100") for stream in streams))
        for number in range(10):
            if busy:
                bad.send(get(2 * number + 41, b"/"))
                assert bad.answer(2 * number + 41) == (200, b"")
            scene.rig.advance(5)
        bad.go_on()
        assert scene.app.running == 20
        assert bad.resets == {}
        scene.rig.advance(13)
        bad.go_on()

        if not bad.closing:
            assert bad.resets == dict.fromkeys(streams, Code.CANCEL)
        scene.rig.advance(12)
        assert scene.app.running == 0
        scene.meanwhile()

    @pytest.mark.parametrize("size", [1, 4])
    def test_small_answer_behind_a_window(self, scene: Scene, size: int) -> None:
        """
        An answer that waits for a window keeps its connection for a minute, even if the application is done with it;
        not for ever.
        """
        bad = scene.misbehave((INITIAL_WINDOW_SIZE, 0))
        bad.send(get(1, b"/big/%d" % size), get(3, b"/big/%d" % size))
        scene.rig.advance(40)
        assert not bad.closing
        bad.send(window_update(1, MIB), window_update(0, MIB))
        assert len(bad.answer(1)[1]) == size * FRAME_BYTES
        scene.rig.advance(25)
        bad.go_on()

        assert bad.resets == {3: Code.CANCEL} or bad.closing

    def test_slow_and_steady(self, scene: Scene) -> None:
        """
        A client that takes a little every now and then is not broken off.
        """
        bad = scene.misbehave((INITIAL_WINDOW_SIZE, 0))
        bad.send(get(1, b"/big/10"), window_update(0, MIB))
        for _ in range(10):
            scene.rig.advance(30)
            bad.send(window_update(1, FRAME_BYTES))

        assert len(bad.answer(1)[1]) == 10 * FRAME_BYTES

    def test_window_that_stays_shut(self, scene: Scene) -> None:
        """
        A client that is busy with everything but its window does not keep an answer for ever.
        """
        bad = scene.misbehave((INITIAL_WINDOW_SIZE, 0))
        bad.send(get(1, b"/big/100"))
        for _ in range(150):
            bad.send(settings((INITIAL_WINDOW_SIZE, 0)), ping(), window_update(0, 1))
            scene.rig.advance(0.5)

        assert bad.closing or bad.resets == {1: Code.CANCEL}

    @pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
    def test_reads_nothing(self, scene: Scene, busy: bool) -> None:
        """
        A client that opens all windows and reads nothing makes the server hold little, and is dropped after a while.
        """
        bad = scene.misbehave((INITIAL_WINDOW_SIZE, 2**31 - 1), clogged=True)
        bad.send(open_wide(), *(get(stream, b"/big/1000") for stream in range(1, 161, 2)))

        assert bad.unread < UNREAD_BYTES
        assert sum(scene.app.handed.values()) < 80 * 5 * FRAME_BYTES + 2 * UNREAD_BYTES
        scene.meanwhile()
        for number in range(16):
            if busy and not bad.closing:
                bad.send(get(2 * number + 161, b"/"), ping())
            scene.rig.advance(5)
        assert bad.transport.aborted or bad.transport.closed
        assert bad.unread < UNREAD_BYTES

    @pytest.mark.parametrize(
        "part",
        [frame(HEADERS, 0, 1, GET_BLOCK), frame(HEADERS, END_HEADERS, 1, length=100), get(1)[:-1], b"\0"],
        ids=["no END_HEADERS", "a header of a frame", "all but a byte", "a byte"],
    )
    def test_half_a_head(self, scene: Scene, part: bytes) -> None:
        """
        A head that does not become whole does not keep its connection.
        """
        bad = scene.misbehave()
        bad.send(part)
        for _ in range(70):
            scene.rig.advance(0.5)
            bad.go_on()

        assert bad.transport.closed
        assert scene.app.begun == []

    def test_idle(self, scene: Scene) -> None:
        """
        Without a stream the connection ends after timeout_keep_alive, however many PING come.
        """
        bad = scene.misbehave()
        bad.send(get(1))
        for _ in range(20):
            bad.send(ping(), settings(), window_update(0, 1))
            scene.rig.advance(0.5)
            bad.go_on()

        assert bad.transport.closed
        assert [one.code for one in bad.goaways][-1:] == [Code.NO_ERROR]

    def test_silent(self, scene: Scene) -> None:
        """
        A client that never opens a stream does not stay.
        """
        bad = scene.misbehave()
        for _ in range(70):
            scene.rig.advance(0.5)
            bad.go_on()

        assert bad.transport.closed


class TestBehindGoaway:
    """
    Our GOAWAY was sent.
    """

    @pytest.mark.parametrize(
        "part",
        [get(5, b"/behind"), post(5, b"/behind") + data(5, b"x"), ping(), data(1, b"x"), b"\xff" * 100, bytes(9)],
        ids=["GET", "POST", "PING", "DATA", "ones", "empty DATA"],
    )
    def test_nothing_counts(self, scene: Scene, part: bytes) -> None:
        """
        Whatever follows is thrown away, and does not keep the connection open.
        """
        bad = scene.misbehave()
        bad.send(post(1), ping(bytes(7)))
        assert [one.code for one in bad.goaways] == [Code.FRAME_SIZE_ERROR]
        for _ in range(12):
            if bad.transport.reading and not bad.transport.closed:
                bad.transport.receive(part * 10)
            scene.rig.advance(0.25)
            bad.go_on()

        assert bad.transport.closed
        assert scene.app.begun == ["/"]
        assert len(bad.goaways) == 1
        assert not bad.taken(PING) and not bad.taken(RST_STREAM, 5)

    def test_not_read(self, scene: Scene) -> None:
        """
        A client that does not read its GOAWAY cannot keep the connection either.
        """
        bad = scene.misbehave()
        bad.transport.clogged = True
        bad.send(get(1, b"/big/100"), ping(bytes(7)))
        scene.rig.advance(3)
        bad.go_on()

        assert bad.transport.aborted or bad.transport.closed


class TestDraining:
    """
    The server goes away (RFC 9113 section 6.8).
    """

    def drain(self, scene: Scene) -> list[bool]:
        """
        Ask for it; the list has something in it when all connections are gone.
        """
        scene.drained = True
        empty: list[bool] = []
        scene.rig.front.drain(lambda: empty.append(True))
        for client in (scene.good, *scene.bads):
            client.go_on()
        return empty

    def pong(self, bad: Client) -> bytes:
        """
        The answer to the server's PING.
        """
        return b"".join(ping(one.payload, ack=True) for one in bad.taken(PING) if not one.flags & ACK)

    @pytest.mark.parametrize("answers", [True, False], ids=["PING answered", "silent"])
    def test_in_two_steps(self, scene: Scene, answers: bool) -> None:
        """
        First GOAWAY does not say which stream is the last; what comes until it is said is served to its end, then the
        connection is closed.
        """
        bad = scene.misbehave()
        bad.send(post(1), get(3, b"/hang"))
        self.drain(scene)
        assert [(one.last, one.code) for one in bad.goaways] == [(LARGEST_WINDOW, Code.NO_ERROR)]
        bad.send(post(5), self.pong(bad) if answers else b"")
        if not answers:
            scene.rig.advance(2.5)
            bad.go_on()
        assert [one.last for one in bad.goaways][-1] == 5
        bad.send(get(7, b"/behind"), data(5, b"five", end=True), data(1, b"one", end=True))
        assert (bad.answer(1), bad.answer(5)) == ((200, b"one"), (200, b"five"))
        assert not bad.transport.closed
        bad.send(rst_stream(3))

        scene.closes_in_time(bad)
        assert scene.app.begun == ["/", "/hang", "/"]
        assert bad.resets.get(7, Code.REFUSED_STREAM) == Code.REFUSED_STREAM

    @pytest.mark.parametrize("large", [False, True])
    def test_last_answer_is_whole(self, scene: Scene, large: bool) -> None:
        """
        The last answer arrives before the connection is closed, even if its client lets it go later.
        """
        bad = scene.misbehave((INITIAL_WINDOW_SIZE, 100))
        bad.send(get(1, b"/big/%d" % (20 if large else 1)), post(3))
        self.drain(scene)
        bad.send(self.pong(bad))
        bad.send(data(3, b"ok", end=True))
        assert bad.answer(3) == (200, b"ok")
        scene.rig.advance(10)
        bad.send(open_wide(1))

        assert len(bad.answer(1)[1]) == (20 if large else 1) * FRAME_BYTES
        scene.closes_in_time(bad)

    def test_idle_and_silent_clients(self, scene: Scene) -> None:
        """
        Connections without a stream are closed soon, whether their clients answer or not.
        """
        silent, unread, half = scene.misbehave(), scene.misbehave(), scene.misbehave(begin=False)
        half.send(PREFACE[:10])
        unread.transport.clogged = True
        self.drain(scene)
        scene.rig.advance(5)
        for bad in (silent, unread, half):
            bad.go_on()
            bad.transport.finish()
            assert bad.transport.closed or bad.transport.aborted

    @pytest.mark.parametrize("early", [True, False], ids=["before PING ACK", "behind PING ACK"])
    @pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
    def test_client_goes_as_well(self, scene: Scene, busy: bool, early: bool) -> None:
        """
        A client that answers with GOAWAY is still answered what was begun.
        """
        bad = scene.misbehave()
        bad.send(post(1) if busy else get(1))
        self.drain(scene)
        pong = self.pong(bad)
        bad.send(*((goaway(), pong) if early else (pong, goaway())))
        if busy:
            bad.send(data(1, b"x", end=True))

        assert bad.answer(1) == (200, b"x" if busy else b"")
        scene.closes_in_time(bad)

    @pytest.mark.parametrize("early", [True, False], ids=["before PING ACK", "behind PING ACK"])
    @pytest.mark.parametrize("fault", [ping(bytes(7)), b"\xff" * 9], ids=["a fault", "ones"])
    def test_fault(self, scene: Scene, early: bool, fault: bytes) -> None:
        """
        A client that answers with nonsense is cut off.
        """
        bad = scene.misbehave()
        bad.send(get(1, b"/hang"))
        self.drain(scene)
        pong = self.pong(bad)
        bad.send(*((fault, pong) if early else (pong, fault)))

        scene.closes_in_time(bad)

    def test_who_goes_on_asking(self, scene: Scene) -> None:
        """
        A client that goes on asking holds up nothing.
        """
        bad = scene.misbehave()
        bad.send(post(1))
        self.drain(scene)
        for number in range(20):
            if not bad.closing:
                bad.send(get(2 * number + 3, b"/hang"))
            scene.rig.advance(0.5)
        bad.send(data(1, b"x", end=True))

        assert bad.answer(1) == (200, b"x")
        # What came before the last GOAWAY is served.
        served = [stream for stream in range(3, 43, 2) if stream <= bad.goaways[-1].last]
        assert scene.app.begun.count("/hang") == len(served) <= 5
        refused = {bad.resets.get(stream, Code.REFUSED_STREAM) for stream in range(3, 43, 2) if stream not in served}
        assert refused == {Code.REFUSED_STREAM}


@pytest.mark.slow
def test_memory(scene: Scene) -> None:
    """
    2,000 connections that end by their own fault leave the memory of the process flat.
    """
    faults = [
        post(1) + ping(bytes(7)),
        headers(1, GET_BLOCK + literal(b"x", b"y" * 4000, 0x40) + b"\xbe" * 1000),
        frame(HEADERS, END_HEADERS, 1, b"\x80"),
        frame(HEADERS, 0, 1, GET_BLOCK),
        b"".join(get(stream, b"/big/4") for stream in range(1, 81, 2)),
    ]

    def abuse(count: int) -> None:
        for number in range(count):
            bad = Client(scene.rig, (INITIAL_WINDOW_SIZE, 0), port=2)
            bad.send(faults[number % len(faults)])
            if not bad.transport.closed:
                bad.leave()
        scene.rig.advance(12)
        scene.rig.refusals.clear()

    abuse(500)
    before = resident_bytes()
    abuse(2000)
    assert resident_bytes() - before < 3 * MIB
