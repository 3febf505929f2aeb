"""
The writing half of an HTTP/2 connection: what is queued in libnghttp2, when it is written, and who waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ngh2 import Configuration, Connection, Role, Setting, StreamUnavailableError

from txasgi.deadlines import Deadlines
from txasgi.errors import CANCEL, NO_ERROR, PeerError
from txasgi.seam import Field, Link
from txasgi.wire.connection import WireConnection
from txasgi.wire.h2_stream import MAY_BE_CLOSED, QUEUED_BYTES, H2Stream

# Taken out of libnghttp2 for one write; more in the next turn, if the transport is not full by then.
_WRITE_BYTES = 262144


@dataclass(slots=True)
class H2Options:
    """
    What a connection is told; one for a server.

    keep_alive_s: time without any stream before the connection is closed. head_s: time for the client's preface.
    stall_s: time that a client may let an answer wait without taking a byte of it.
    fields: the fields that every answer carries, kept up to date by their owner.
    largest_window_bytes: see below.
    max_concurrent_streams, initial_window_bytes, max_frame_bytes, header_list_bytes, header_table_bytes: our SETTINGS
    (RFC 9113 section 6.5.2). connection_window_bytes: for all streams together. head_fields: fields in a request.
    """

    deadlines: Deadlines
    call_soon: Callable[..., Any]
    keep_alive_s: float = 5.0
    head_s: float = 30.0
    stall_s: float = 60.0
    # nginx 128, Hypercorn 100, Go 250; RFC 9113 section 6.5.2 advises 100 at least.
    max_concurrent_streams: int = 100
    initial_window_bytes: int = 262144
    # What a stream's window grows to while its application takes what comes; measured: with it a single upload over
    # TLS is no slower than over HTTP/1.1.
    largest_window_bytes: int = 4194304
    # The window of every stream at once: nobody waits for an application that does not read.
    connection_window_bytes: int = 100 * 262144
    # The least there may be; larger frames only hold up other streams.
    max_frame_bytes: int = 16384
    header_list_bytes: int = 65536
    header_table_bytes: int = 4096
    head_fields: int = 200
    fields: Sequence[Field] = field(default_factory=list)
    refused: Callable[[Link, PeerError], object] = lambda _link, _error: None

    def settings(self) -> dict[int, int]:
        """
        For our first SETTINGS.
        """
        return {
            Setting.MAX_CONCURRENT_STREAMS: self.max_concurrent_streams,
            Setting.INITIAL_WINDOW_SIZE: self.initial_window_bytes,
            Setting.MAX_FRAME_SIZE: self.max_frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self.header_list_bytes,
            Setting.HEADER_TABLE_SIZE: self.header_table_bytes,
            # RFC 8441; RFC 9218.
            Setting.ENABLE_CONNECT_PROTOCOL: 1,
            Setting.NO_RFC7540_PRIORITIES: 1,
        }

    def configuration(self) -> Configuration:
        """
        For libnghttp2. One more than may be, so that what is too much is seen, and answered with 431.
        """
        return Configuration(
            auto_window_update=False,
            max_inbound_header_list_size=self.header_list_bytes + 16384,
            max_inbound_header_count=self.head_fields + 50,
        )


class H2Output(WireConnection):
    """
    From streams to the transport. `H2Connection` is the rest.

    h2: libnghttp2's connection. streams: those whose answers are not complete, by number.
    """

    def __init__(self, options: H2Options) -> None:
        self.options = options
        self.transport: Any = None
        self.h2 = Connection(Role.SERVER, options.configuration())
        self.streams: dict[int, H2Stream] = {}
        self.deadline: float | None = None
        self.due: int | None = None
        self._deadlines = options.deadlines
        self._now = options.deadlines.now
        # Streams whose exchanges wait for their own queue. Answers that were completed in this turn; those of them that
        # are not all sent, with what waits and since when nothing of it was taken; of these, requests without an end.
        self._waiting: set[H2Stream] = set()
        self._fresh: list[int] = []
        self._unsent: dict[int, tuple[int, float]] = {}
        self._early: set[int] = set()
        # Exchanges whose client left and whose application still runs.
        self._leaving: list[Any] = []
        self._flushing = False
        self._stalled = False
        self._stalled_at = 0.0
        # No stream is open, and `deadline` is when to close for it.
        self._idle = True
        self._draining = False
        self._notice: Any = None
        self._closing = False

    def _tell(self, events: Sequence[Any]) -> None:
        raise NotImplementedError

    def _end(self, code: int) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def push(self, stream: H2Stream, target: bytes, headers: Sequence[Field]) -> None:
        """
        PUSH_PROMISE.
        """
        raise NotImplementedError

    # From streams

    def answered(self, stream: H2Stream) -> None:
        """
        Its answer is complete: libnghttp2 sends what is queued of it.
        """
        self.streams.pop(stream.id, None)
        if stream.paused:
            self._waiting.discard(stream)
        if not stream.ended:
            self._early.add(stream.id)
        self._fresh.append(stream.id)
        # flush_soon, without the call.
        if not self._flushing:
            self._flushing = True
            self.options.call_soon(self._flush)

    def break_off(self, stream: H2Stream, code: int) -> None:
        """
        Reset a stream whose answer cannot be completed.
        """
        self.streams.pop(stream.id, None)
        self._waiting.discard(stream)
        self.h2.reset_stream(stream.id, code)
        self.flush_soon()

    def give_back(self, n: int, stream_id: int) -> None:
        """
        Let the client send n bytes more, on this stream and on the connection.
        """
        if self._closing:
            return
        self.h2.acknowledge_received_data(n, stream_id)
        if self.h2.want_write:
            self.flush_soon()

    def widen(self, stream_id: int, window_bytes: int) -> None:
        """
        Let more of a body be under way, within the connection's window.
        """
        if not self._closing and stream_id in self.streams:
            with MAY_BE_CLOSED:
                self.h2.set_local_window_size(window_bytes, stream_id=stream_id)

    def look_at_queue(self, stream: H2Stream) -> None:
        """
        It may be too long for more.
        """
        stream.queued = self.h2.queued_body_size(stream.id)
        if stream.queued > QUEUED_BYTES:
            stream.pause(self._now())
            self._waiting.add(stream)

    def flush_soon(self) -> None:
        """
        Write when the loop has turned.
        """
        if not self._flushing:
            self._flushing = True
            self.options.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._closing:
            return
        h2, may_write = self.h2, not self._stalled
        if may_write:
            data = h2.data_to_send(_WRITE_BYTES)
            if data:
                self.transport.write(data)
                if len(data) >= _WRITE_BYTES:
                    self.flush_soon()
        if not h2.want_read and not h2.want_write:
            # GOAWAY is out, and libnghttp2 takes nothing more.
            self._close()
            return
        if may_write:
            if self._fresh or self._waiting or self._unsent:
                self._progress()
            if self.streams:
                # A fault that libnghttp2 found in a stream is told when its RST_STREAM is out.
                self._tell(h2.events())
        if not self.streams or self._waiting or self._unsent:
            self._rest()

    def _progress(self) -> None:
        """
        Some of what was queued may be written: whose turn is it?
        """
        h2, now = self.h2, self._now()
        if self._fresh:
            if self._early or h2.queued_body_size():
                for stream_id in self._fresh:
                    self._unsent[stream_id] = (1 << 62, now)
            self._fresh.clear()
        for stream in list(self._waiting):
            queued = h2.queued_body_size(stream.id)
            if queued < stream.queued:
                stream.queued = queued
                stream.progress = now
            if queued <= QUEUED_BYTES // 2 and not self._stalled:
                self._waiting.discard(stream)
                stream.resume()
        for stream_id, (before, _) in list(self._unsent.items()):
            queued = h2.queued_body_size(stream_id)
            if queued == 0 and stream_id not in self._early:
                del self._unsent[stream_id]
            elif queued == 0 and self._has_window(stream_id):
                # RFC 9113 section 8.1: the client need not send the rest of its body.
                del self._unsent[stream_id]
                self._early.discard(stream_id)
                self.h2.reset_stream(stream_id, NO_ERROR)
                self.flush_soon()
            elif queued < before:
                self._unsent[stream_id] = (queued, now)

    def _has_window(self, stream_id: int) -> bool:
        """
        libnghttp2 keeps back an empty DATA frame with END_STREAM, too, where there is no window.
        """
        h2 = self.h2
        try:
            return h2.remote_window_size > 0 and h2.stream_remote_window_size(stream_id) > 0
        except StreamUnavailableError:
            # Closed by the client meanwhile, which the events have not told yet: nothing is left to be reset.
            self._early.discard(stream_id)
            return False

    # Deadlines

    def _rest(self) -> None:
        """
        The turn is over: what is there to wait for?
        """
        if self._closing or self._stalled:
            return
        if self.streams or self._unsent:
            if self.deadline is None:
                self._deadlines.within(self, self.options.stall_s)
        elif self._draining and self._notice is None:
            self._end(NO_ERROR)
        elif not self._idle:
            self._idle = True
            # Deadlines.within, without the calls.
            self.deadline = deadline = self._now() + self.options.keep_alive_s
            if self.due is None or deadline + 1 < self.due:
                self._deadlines.watch(self)

    def expired(self) -> None:
        """
        A deadline has passed: the first request, idleness, a client that takes nothing, one that does not close.
        """
        now, stall_s = self._now(), self.options.stall_s
        if self._closing:
            self.abort()
        elif self._stalled:
            if now - self._stalled_at >= stall_s:
                self.abort()
            else:
                self._deadlines.within(self, self._stalled_at + stall_s - now)
        elif self._idle:
            self._end(NO_ERROR)
        else:
            self._end_stalls(now)

    def _end_stalls(self, now: float) -> None:
        """
        Break off the answers of which the client has taken nothing for too long.
        """
        stall_s = self.options.stall_s
        for stream in [one for one in self._waiting if now - one.progress >= stall_s]:
            self._waiting.discard(stream)
            self.streams.pop(stream.id, None)
            self.h2.reset_stream(stream.id, CANCEL)
            self._lose(stream, "client does not read")
        for stream_id in [one for one, (_, since) in self._unsent.items() if now - since >= stall_s]:
            del self._unsent[stream_id]
            self._early.discard(stream_id)
            self.h2.reset_stream(stream_id, CANCEL if self.h2.queued_body_size(stream_id) else NO_ERROR)
        since = [stream.progress for stream in self._waiting] + [since for _, since in self._unsent.values()]
        if since:
            self._deadlines.within(self, min(since) + stall_s - now)
        self.flush_soon()

    def _lose(self, stream: H2Stream, why: str) -> None:
        """
        Tell the exchange, and remember it as long as its application still runs.
        """
        exchange, stream.exchange = stream.exchange, None
        exchange.lost(why)
        if exchange.running:
            self._leaving.append(exchange)

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full: everybody waits.
        """
        self._stalled = True
        self._stalled_at = now = self._now()
        for stream in self.streams.values():
            stream.pause(now)
        self._deadlines.within(self, self.options.stall_s)

    def resumeProducing(self) -> None:
        """
        It is empty.
        """
        self._stalled = False
        self._idle = False
        self.deadline = None
        for stream in list(self.streams.values()):
            if stream.paused and stream not in self._waiting:
                stream.resume()
        self._flush()
