"""
HTTP/2's windows: what an answer may send, what a request may send, and how often is written.
"""

from __future__ import annotations

import pytest
from tests.wire.h2_frames import (
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    KIB,
    LARGEST_WINDOW,
    MIB,
    RST_STREAM,
    WINDOW_UPDATE,
    Client,
    Code,
    data,
    get,
    headers,
    ping,
    post,
    rst_stream,
    settings,
    window_update,
)
from tests.wire.h2_pieces import (
    PIECE_BYTES,
    QUEUED_BYTES,
    STREAM_BYTES,
    CountingTransport,
    Pieces,
    Reader,
    turns,
    whole,
)

from txasgi.testing.rig import Rig, Script, response_body, response_start


class TestAnswers:
    """
    Bodies of answers, and the client's windows.
    """

    def test_nothing_goes(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        100 applications that send 2 MiB each to a window of zero wait, with less than 10 MiB held in all; those that
        the client then lets go are answered, and the others still wait.
        """
        app, rig = pieces
        client = Reader(rig, 0)
        paths = {stream: f"/big/128/{stream}" for stream in range(1, 201, 2)}
        client.send(client.allow(0, LARGEST_WINDOW - DEFAULT_WINDOW))
        client.send(*(get(stream, path.encode()) for stream, path in paths.items()))

        assert [client.answers[stream].status for stream in paths] == [200] * 100
        assert client.got[0] == 0
        assert sum(app.handed.values()) < 10 * MIB
        assert min(app.accepted.values()) > 0
        first = list(paths)[:5]
        client.send(*(client.allow(stream, LARGEST_WINDOW) for stream in first))
        for stream in first:
            assert client.answer(stream) == (200, whole(paths[stream]))
        assert sum(app.handed[path] for stream, path in paths.items() if stream not in first) < 10 * MIB

    def test_little_by_little(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        What the windows let through goes out, to the byte, and no more is asked of the application than has room.
        """
        app, rig = pieces
        client = Reader(rig, 0)
        path = "/big/20"
        client.send(get(1, path.encode()), client.allow(0, MIB))
        total = 20 * PIECE_BYTES
        for size in (1, 2, 100, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES, 100_000, MIB):
            client.send(client.allow(1, size))
            assert client.got[1] == min(total, client.allowed[1])
            assert app.handed[path] <= min(total, client.got[1] + QUEUED_BYTES)

        assert client.answer(1) == (200, whole(path))

    def test_byte_by_byte(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        A client that opens its window by one byte gets one byte.
        """
        _, rig = pieces
        client = Reader(rig, 0)
        client.send(get(1, b"/big/1"))
        for count in range(1, 500):
            client.send(client.allow(1, 1))
            assert client.got[1] == count

    def test_window_below_zero(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        A smaller INITIAL_WINDOW_SIZE makes windows negative; nothing goes until they are positive again
        (section 6.9.2).
        """
        _, rig = pieces
        client = Reader(rig, 50_000)
        client.send(get(1, b"/big/20"), client.allow(0, MIB))
        assert client.got[1] == 50_000
        client.initial = 10_000
        client.send(settings((INITIAL_WINDOW_SIZE, 10_000)))
        client.send(client.allow(1, 40_000))
        assert client.got[1] == 50_000
        client.send(client.allow(1, 1))
        assert client.got[1] == 50_001
        client.initial = MIB
        client.send(settings((INITIAL_WINDOW_SIZE, MIB)))

        assert client.answer(1) == (200, whole("/big/20"))

    def test_window_of_the_connection(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        All streams together get what the connection's window lets through.
        """
        app, rig = pieces
        client = Reader(rig, LARGEST_WINDOW)
        streams = range(1, 21, 2)
        client.send(*(get(stream, b"/big/64/%d" % stream) for stream in streams))
        assert client.got[0] == DEFAULT_WINDOW
        assert sum(app.handed.values()) < DEFAULT_WINDOW + 10 * QUEUED_BYTES
        for _ in range(103):
            client.send(client.allow(0, 100 * KIB))

        for stream in streams:
            assert client.answer(stream) == (200, whole(f"/big/64/{stream}"))

    def test_client_that_reads_nothing(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        A connection whose client does not read makes all its applications wait; they go on when it does.
        """
        app, rig = pieces
        client = Reader(rig, LARGEST_WINDOW)
        client.send(client.allow(0, LARGEST_WINDOW - DEFAULT_WINDOW))
        client.transport.clogged = True
        streams = range(1, 21, 2)
        client.send(*(get(stream, b"/big/64/%d" % stream) for stream in streams))

        assert client.unread < MIB
        assert sum(app.handed.values()) < client.unread + 10 * QUEUED_BYTES
        client.transport.unclog()
        client.go_on()
        for stream in streams:
            assert client.answer(stream) == (200, whole(f"/big/64/{stream}"))

    def test_head_passes_without_window(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        An answer without a body needs no window, not even that of the connection.
        """
        _, rig = pieces
        client = Reader(rig, 0)
        client.send(get(1, b"/big/64"), client.allow(1, MIB), get(3), headers(5, b"\x82\x86\x84\x01\x01a"))

        assert client.got[0] == DEFAULT_WINDOW
        assert client.answer(3) == client.answer(5) == (200, b"")


class TestWrites:
    """
    How often the transport is written to.
    """

    def test_one_for_all_that_is_ready(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        The answers to all requests of one read are one write.
        """
        _, rig = pieces
        transport = CountingTransport()
        client = Client(rig, transport=transport)
        transport.writes.clear()
        client.send(*(get(stream) for stream in range(1, 101, 2)))

        assert [client.answer(stream) for stream in range(1, 101, 2)] == [(200, b"")] * 50
        assert len(transport.writes) == 1

    @pytest.mark.parametrize("body", [b"", b"hello"])
    def test_one_for_a_small_answer(self, pieces: tuple[Pieces, Rig], body: bytes) -> None:
        """
        A small whole answer is HEADERS and DATA, or HEADERS alone, in one write.
        """
        _, rig = pieces
        transport = CountingTransport()
        client = Client(rig, transport=transport)
        client.send(post(1), data(1, body))
        transport.writes.clear()
        seen = len(client.frames)
        client.send(data(1, end=True))

        assert client.answer(1) == (200, body)
        assert len(transport.writes) == 1
        answered = [one for one in client.frames[seen:] if one.kind in (HEADERS, DATA)]
        assert [one.kind for one in answered] in ([HEADERS, DATA], [HEADERS])
        assert answered[-1].flags & END_STREAM

    @pytest.mark.parametrize("count", [2, 20])
    def test_one_a_turn(self, pieces: tuple[Pieces, Rig], count: int) -> None:
        """
        However many applications send, a turn of the loop brings one write; more only of what is too much for one.
        """
        _, rig = pieces
        transport = CountingTransport()
        client = Reader(rig, LARGEST_WINDOW, transport=transport)
        client.send(client.allow(0, LARGEST_WINDOW - DEFAULT_WINDOW))
        transport.writes.clear()
        streams = range(1, 2 * count, 2)
        transport.receive(b"".join(get(stream, b"/big/32/%d" % stream) for stream in streams))
        for _ in turns(rig, 200):
            assert all(size >= 128 * KIB for size in transport.writes[:-1])
            transport.writes.clear()
            client.read()

        assert all(client.answers[stream].complete for stream in streams)

    def test_frames_are_full(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        A large body is not cut into more frames than it needs, give or take those at the ends of pieces.
        """
        _, rig = pieces
        client = Reader(rig, LARGEST_WINDOW)
        client.send(client.allow(0, LARGEST_WINDOW - DEFAULT_WINDOW), get(1, b"/big/64"))

        assert client.answer(1) == (200, whole("/big/64"))
        assert len(client.taken(DATA, 1)) <= 64 + 2


class TestUploads:
    """
    Bodies of requests, and the server's windows.
    """

    def test_not_taken_not_given_back(self, script: Script) -> None:
        """
        The window of a stream is given back as its application takes bytes, and not before.
        """
        client = Client(script.rig)
        client.send(post(1))
        (call,) = script.calls
        sent = 0
        while size := client.upload(1, bytes(MIB)):
            sent += size
            assert sent <= STREAM_BYTES
        assert client.taken(WINDOW_UPDATE, 1) == []
        taken = 0
        while taken < sent:
            taken += len(call.receive()["body"])
            client.go_on()
            # What may be sent and was not taken is never more than one window.
            assert client.sets_of_server[INITIAL_WINDOW_SIZE] + client.given.get(1, 0) - taken <= STREAM_BYTES
        assert taken == sent
        assert client.credit(1) >= client.sets_of_server[INITIAL_WINDOW_SIZE] // 2

    def test_large_upload(self, script: Script) -> None:
        """
        An upload of many windows goes on as long as the application takes it, and is never held in full.
        """
        client = Client(script.rig)
        client.send(post(1))
        left = 8 * MIB
        taken = 0
        while left:
            sent = client.upload(1, bytes(min(left, MIB)), end=left <= MIB)
            left -= sent
            assert 8 * MIB - left - taken <= STREAM_BYTES
            message = script.call.receive()
            taken += len(message["body"])
            client.go_on()
            assert sent or message["body"], "nothing moves"
        while message["more_body"]:
            message = script.call.receive()
            taken += len(message["body"])
        assert taken == 8 * MIB

    def test_updates_are_not_many(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        A body in small frames does not bring a WINDOW_UPDATE for each.
        """
        _, rig = pieces
        client = Client(rig)
        client.send(post(1), window_update(0, MIB), window_update(1, MIB))
        for _ in range(1000):
            assert client.upload(1, bytes(1000)) == 1000
        client.send(data(1, end=True))

        assert client.answer(1) == (200, bytes(1_000_000))
        assert len(client.taken(WINDOW_UPDATE, 1)) < 200

    def test_nobody_waits_for_the_deaf(self, pieces: tuple[Pieces, Rig]) -> None:
        """
        An application that does not take its body stops neither other streams nor PING.
        """
        _, rig = pieces
        client = Client(rig)
        client.send(post(1, b"/deaf"))
        held = 0
        while size := client.upload(1, bytes(MIB)):
            held += size
        assert DEFAULT_WINDOW <= held <= STREAM_BYTES
        client.send(ping(), get(3))
        assert client.pongs == [b"a ping.."]
        assert client.answer(3) == (200, b"")
        client.send(post(5), window_update(0, 2 * MIB), window_update(5, 2 * MIB))
        self.upload_all(client, [5], 2 * MIB)
        assert client.answer(5) == (200, bytes(2 * MIB))

    def upload_all(self, client: Client, streams: list[int], size: int) -> None:
        """
        Upload to all of them in turn, as the windows allow.
        """
        left = dict.fromkeys(streams, size)
        while left:
            moved = 0
            for stream in list(left):
                sent = client.upload(stream, bytes(min(left[stream], 64 * KIB)), end=left[stream] <= 64 * KIB)
                moved += sent
                left[stream] -= sent
                if not left[stream]:
                    del left[stream]
            assert moved, f"{client.credit(next(iter(left)))} bytes of credit"

    @pytest.mark.parametrize("connections", [1, 2])
    def test_twenty_deaf_and_a_hundred_unread(self, connections: int) -> None:
        """
        Of 200 streams 100 are never read, and 20 have applications that take nothing: the other 80 are answered in
        full, be they on one connection or on two.
        """
        app = Pieces()
        streams = 200 // connections
        rig = Rig(app, h2={"max_concurrent_streams": streams}, server=None, date=False, report=None)
        for port in range(connections):
            client = Reader(rig, 0, port=port)
            numbers = iter(range(1, 2 * streams, 2))
            unread, deaf, up, down = (
                [next(numbers) for _ in range(count // connections)] for count in (100, 20, 40, 40)
            )
            # The windows of streams that are read, and what they use of the connection's.
            client.send(client.allow(0, LARGEST_WINDOW - DEFAULT_WINDOW))
            client.send(*(get(stream, b"/big/64/%d/%d" % (port, stream)) for stream in unread))
            client.send(*(post(stream, b"/deaf") for stream in deaf))
            for stream in deaf:
                while client.upload(stream, bytes(MIB)):
                    pass
            client.send(*(post(stream) for stream in up))
            self.upload_all(client, list(up), 150 * KIB)
            client.send(*(get(stream, b"/big/10/%d" % stream) for stream in down))
            assert client.got[0] == 0
            client.send(*(client.allow(stream, MIB) for stream in (*up, *down)))
            client.send(ping())

            for stream in up:
                assert client.answer(stream) == (200, bytes(150 * KIB))
            for stream in down:
                assert client.answer(stream) == (200, whole(f"/big/10/{stream}"))
            assert client.pongs == [b"a ping.."]
            assert all(client.answers[stream].status == 200 and client.got[stream] == 0 for stream in unread)
        assert sum(size for path, size in app.handed.items() if path.startswith("/big/64")) <= 100 * QUEUED_BYTES
        assert rig.errors == []
        rig.close()

    @pytest.mark.parametrize("why", ["answered", "reset", "finished", "too long"])
    def test_what_is_thrown_away_is_given_back(self, script: Script, why: str) -> None:
        """
        Bytes that no application will take are given back to the connection.
        """
        client = Client(script.rig)
        sent = 0
        for stream in range(1, 401, 2):
            client.send(post(stream, b"/", *([(b"content-length", b"10")] if why == "too long" else [])))
            call = script.call
            if why == "finished":
                call.send(response_start(), response_body(b"early"))
            sent += client.upload(stream, bytes(60_000))
            if why == "answered":
                call.send(response_start(), response_body(b"early"))
            elif why == "reset":
                client.send(rst_stream(stream))
            call.finish()
            # What is under way when a stream ends still comes.
            sent += client.upload(stream, bytes(min(FRAME_BYTES, max(0, client.credit(stream)))))
            if client.goaways:
                break

        assert client.goaways == []
        assert sent > 8 * MIB
        client.send(post(1001))
        assert client.credit(1001) >= DEFAULT_WINDOW // 2

    @pytest.mark.parametrize("pad", [0, 1, 255])
    def test_padding_is_given_back(self, pieces: tuple[Pieces, Rig], pad: int) -> None:
        """
        Padding counts for the windows (section 6.1), and is given back although no application takes it.
        """
        _, rig = pieces
        client = Client(rig)
        client.send(post(1))
        length = 2 + pad
        count = 3 * MIB // length if pad == 255 else 100_000
        parts = 0
        while parts < count:
            room = min(count - parts, client.credit(1) // length, 200)
            assert room, "the window is used up by padding"
            client.count(1, room * length)
            client.send(*(data(1, b"x", pad=pad) for _ in range(room)))
            parts += room
        client.send(data(1, end=True))
        client.send(window_update(1, MIB), window_update(0, MIB))

        assert client.answer(1) == (200, b"x" * count)

    def test_early_answer(self, script: Script) -> None:
        """
        An answer before the body is complete is followed by RST_STREAM NO_ERROR (section 8.1).
        """
        client = Client(script.rig)
        client.send(post(1), data(1, b"some"))
        script.call.send(response_start(413), response_body(b"no"))
        client.go_on()

        assert client.answer(1) == (413, b"no")
        assert client.resets == {1: Code.NO_ERROR}
        kinds = [one.kind for one in client.frames if one.stream == 1 and one.kind != WINDOW_UPDATE]
        assert kinds == [HEADERS, DATA, RST_STREAM]
