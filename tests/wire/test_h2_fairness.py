"""
Who is first on an HTTP/2 connection (RFC 9218).
"""

from __future__ import annotations

from collections import Counter

import pytest
from tests.wire.h2_frames import (
    DATA,
    DEFAULT_WINDOW,
    FRAME_BYTES,
    KIB,
    LARGEST_WINDOW,
    MIB,
    PING,
    Code,
    data,
    get,
    ping,
    post,
    priority_update,
)
from tests.wire.h2_pieces import (
    PIECE_BYTES,
    Pieces,
    Reader,
    whole,
)

from txasgi.testing.rig import Rig


class TestFairness:
    """
    Who is first (RFC 9218 section 10).
    """

    def order(self, client: Reader, step: int = FRAME_BYTES) -> list[int]:
        """
        The streams of DATA, as the connection's window is opened step by step.
        """
        seen = len(client.frames)
        for _ in range(1000):
            before = client.got[0]
            client.send(client.allow(0, step))
            if client.got[0] == before:
                break
        return [one.stream for one in client.frames[seen:] if one.kind == DATA and one.payload]

    def ready(self, rig: Rig, *priorities: bytes) -> Reader:
        """
        A client whose streams 3, 5, ... with these priorities have 4 pieces each to come; nothing may go yet.
        """
        client = Reader(rig, LARGEST_WINDOW)
        # It uses up the connection's window.
        client.send(get(1, b"/big/4"), client.allow(0, 1))
        assert client.answer(1) == (200, whole("/big/4"))
        for number, value in enumerate(priorities):
            client.send(get(2 * number + 3, b"/big/4/%d" % number, *([(b"priority", value)] if value else [])))
        assert client.got[0] == DEFAULT_WINDOW + 1
        return client

    def test_urgency(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        The more urgent is sent before the less urgent, whoever asked first.
        """
        _, rig = pieces
        client = self.ready(rig, b"u=7", b"u=0", b"", b"u=1")

        order = self.order(client)
        assert list(dict.fromkeys(order)) == [5, 9, 7, 3]
        assert order == sorted(order, key=[5, 9, 7, 3].index)

    def test_one_after_the_other(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        Of the same urgency, what is not incremental is sent in the order of the requests.
        """
        _, rig = pieces
        client = self.ready(rig, b"u=3", b"", b"u=3, i=?0")

        order = self.order(client)
        assert order == sorted(order)

    def test_incremental(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        Incremental answers share what there is.
        """
        _, rig = pieces
        client = self.ready(rig, b"i", b"u=3, i", b"i=?1")

        order = self.order(client)
        assert set(order[:6]) == {3, 5, 7}
        assert max(Counter(order[:6]).values()) <= 3

    def test_changed(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        PRIORITY_UPDATE changes the order, and comes before a request as well as behind it.
        """
        _, rig = pieces
        client = self.ready(rig, b"u=2", b"u=5", b"u=5")
        client.send(priority_update(7, b"u=1"), priority_update(9, b"u=0"), get(9, b"/big/4/9"))

        order = self.order(client)
        assert list(dict.fromkeys(order)) == [9, 7, 3, 5]

    def test_the_most_urgent_is_shut(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        A stream that has no window holds up nobody, however urgent it is.
        """
        _, rig = pieces
        client = Reader(rig, 0)
        client.send(client.allow(0, MIB))
        client.send(get(1, b"/big/10/1", (b"priority", b"u=0")), get(3, b"/big/10/3", (b"priority", b"u=7, i")))
        client.send(client.allow(3, MIB))

        assert client.answer(3) == (200, whole("/big/10/3"))
        assert client.got[1] == 0

    @pytest.mark.parametrize("value", [b"u=9", b"u=-1", b"u=x", b"???", b"", b"u=0;a=b, i;x", b"u=" + b"1" * 1000])
    def test_nonsense(self, pieces: tuple[Pieces, Rig], value: bytes) -> None:
        """
        A priority that means nothing is as good as none (RFC 9218 section 4); PRIORITY_UPDATE with what cannot be
        parsed may end the connection (section 7).
        """
        _, rig = pieces
        client = Reader(rig)
        client.send(get(1, b"/", (b"priority", value)))
        assert client.answer(1) == (200, b"")
        client.send(priority_update(3, value), post(3), priority_update(3, value), data(3, end=True))

        if client.goaways:
            assert (client.goaways[-1].code, value) == (Code.PROTOCOL_ERROR, b"???")
        else:
            assert client.answer(3) == (200, b"")

    def test_ping_is_not_queued_behind_data(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        PING is answered before what applications still have to send, however much that is.
        """
        _, rig = pieces
        client = Reader(rig, LARGEST_WINDOW)
        client.send(client.allow(0, LARGEST_WINDOW - DEFAULT_WINDOW))
        client.transport.clogged = True
        client.send(*(get(stream, b"/big/16/%d" % stream) for stream in range(1, 101, 2)))
        client.send(ping())
        client.transport.unclog()
        client.go_on()

        place = next(number for number, one in enumerate(client.frames) if one.kind == PING)
        assert sum(len(one.payload) for one in client.frames[:place]) < 512 * KIB
        assert client.got[0] == 50 * 16 * PIECE_BYTES

    def test_all_move(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        Of a hundred equal and incremental answers none is finished when another has not begun.
        """
        _, rig = pieces
        client = Reader(rig, LARGEST_WINDOW)
        streams = range(1, 201, 2)
        client.send(*(get(stream, b"/big/8/%d" % stream, (b"priority", b"i")) for stream in streams))
        while not any(client.answers[stream].complete for stream in streams):
            client.send(client.allow(0, 10 * FRAME_BYTES))

        assert all(client.got[stream] for stream in streams)
