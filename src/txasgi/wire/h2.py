"""
HTTP/2 on libnghttp2, which does framing, HPACK, flow control, scheduling and most of the checking (`ngh2`).

Rules:

* The windows are given back only as applications take what came (`consumed`): one that does not read stops itself, and
  nobody else.
* What is ready in one turn of the loop is one write: `flush_soon`. As long as the transport is full nothing is taken
  out of libnghttp2, and every exchange waits; one whose own queue is long waits alone.
* A stream is in `streams` from its request to the end of its answer; after that libnghttp2 alone knows it.
* Every end of the connection by our side is a GOAWAY, flushed, and then the transport is closed for writing.

Theory of operation. libnghttp2 ends a connection itself after most faults: it queues GOAWAY and wants nothing more to
read. After some (floods, a bad preface) it cannot be used any more and ngh2 raises; then the GOAWAY is made here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ngh2 import (
    DataReceived,
    DenialOfServiceError,
    NGH2Error,
    PingAcknowledged,
    RequestReceived,
    Setting,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)
from twisted.internet.interfaces import IHalfCloseableDescriptor, IProtocol, IPushProducer, ISSLTransport
from zope.interface import implementer

from txasgi.errors import (
    ENHANCE_YOUR_CALM,
    INADEQUATE_SECURITY,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    BadRequest,
    HeadTooLarge,
    PeerError,
)
from txasgi.seam import Field, Head, Link, Open
from txasgi.wire import h2_rules
from txasgi.wire.h2_output import H2Options, H2Output
from txasgi.wire.h2_stream import MAY_BE_CLOSED, H2Stream
from txasgi.wire.links import link_of

# How long a closing connection reads on, as in HTTP/1.1.
_LINGER_S = 2.0
# Between the two GOAWAYs, if the client does not answer a PING before.
_NOTICE_S = 1.0
# Empty DATA frames without END_STREAM cost the client nine bytes and us a call (CVE-2019-9518); nghttp2's programs
# and Envoy stop at 1 to 100 in a row.
_EMPTY_FRAMES = 100


@implementer(IProtocol, IPushProducer)
class H2Connection(H2Output):
    """
    One HTTP/2 connection.

    opened, closed: called with the connection when it is made and when it is lost.
    """

    def __init__(
        self,
        open: Open,
        options: H2Options,
        opened: Callable[[Any], object],
        closed: Callable[[Any], object],
    ) -> None:
        H2Output.__init__(self, options)
        self.factory: Any = None
        self._open = open
        self._opened = opened
        self._closed = closed
        self._link: Link | None = None
        self._last_id = 0
        self._empty_frames = 0
        # Until the client's SETTINGS say so (RFC 9113 section 6.5.2: allowed if nothing is said).
        self._pushes = False

    # IProtocol

    def makeConnection(self, transport: Any) -> None:
        """
        Connected.
        """
        self.transport = transport
        transport.registerProducer(self, True)
        self._opened(self)
        self._begin()

    def take_over(self, transport: Any, received: bytes) -> None:
        """
        Go on with a connection that has begun as HTTP/1.1; *received* is what has come for us.
        """
        self._take(transport)
        self._begin()
        if received:
            self.dataReceived(received)

    def prepare_upgrade(self, head: Head, settings: bytes) -> None:
        """
        Before `upgrade`: take the client's settings. Raises BadRequest for such that are none.
        """
        try:
            self.h2.initiate_upgrade(
                settings, local_settings=self.options.settings(), head_request=head.method == "HEAD"
            )
        except (NGH2Error, ValueError) as error:
            raise BadRequest("malformed HTTP2-Settings") from error

    def upgrade(self, transport: Any, head: Head, received: bytes) -> None:
        """
        Go on behind 101 (RFC 7540 section 3.2): *head* is stream 1.
        """
        self._take(transport)
        self._widen()
        head.version = "2"
        head.complete = True
        # Of the connection (RFC 9113 section 8.2.2).
        head.headers = [one for one in head.headers if one[0] not in (b"connection", b"upgrade", b"http2-settings")]
        self._link = head.link
        self._last_id = 1
        self._request(1, head)
        self.flush_soon()
        if received:
            self.dataReceived(received)

    def _take(self, transport: Any) -> None:
        self.transport = transport
        transport.unregisterProducer()
        transport.registerProducer(self, True)
        self._opened(self)

    def _begin(self) -> None:
        self.h2.initiate_connection(self.options.settings())
        self._widen()
        self._deadlines.within(self, self.options.head_s)
        self.flush_soon()

    def _widen(self) -> None:
        if self.options.connection_window_bytes > 65535:
            self.h2.set_local_window_size(self.options.connection_window_bytes)

    def connectionLost(self, reason: Any) -> None:
        """
        Over.
        """
        self._closing = True
        self._deadlines.forget(self)
        if self._notice is not None:
            self._notice.cancel()
        self._lose_all("client left")
        self._waiting.clear()
        self._unsent.clear()
        self._leaving.clear()
        self._closed(self)

    def dataReceived(self, data: bytes) -> None:
        """
        Frames.
        """
        if self._closing:
            return
        h2 = self.h2
        try:
            h2.receive_data(data)
        except NGH2Error as error:
            # What came in front of it is not told: nothing could be answered.
            self._broken(error)
            return
        self._tell(h2.events())
        if h2.want_write:
            self.flush_soon()
        elif not h2.want_read:
            self._flush()

    def _tell(self, events: Sequence[Any]) -> None:
        for event in events:
            if self._closing:
                return
            told = _EVENTS.get(event.__class__)
            if told is not None:
                told(self, event)

    # Events

    def _request_received(self, event: Any) -> None:
        if self._link is None and not self._first():
            return
        assert self._link is not None
        stream_id: int = event.stream_id
        self._last_id = stream_id
        fields = event.headers
        try:
            if len(fields) > self.options.head_fields:
                raise HeadTooLarge(f"request head of {len(fields)} fields, limit {self.options.head_fields}")
            size = sum([len(name) + len(value) + 32 for name, value in fields])
            if size > self.options.header_list_bytes:
                raise HeadTooLarge(f"request head of {size} bytes, limit {self.options.header_list_bytes}")
            head = h2_rules.head_of(fields, self._link, event.end_stream)
            head.pushes = self._pushes
        except PeerError as error:
            self._refuse(event, error)
            return
        self._request(stream_id, head)

    def _first(self) -> bool:
        """
        The first request: what is below is known by now.
        """
        self._link = link_of(self.transport, ISSLTransport.providedBy(self.transport))
        handle = getattr(self.transport, "getHandle", None)
        connection: Any = handle() if handle is not None and self._link.scheme == "https" else None
        name = getattr(connection, "get_cipher_name", None)
        if name is not None and h2_rules.is_forbidden(connection.get_protocol_version(), name() or ""):
            self._end(INADEQUATE_SECURITY)
            return False
        return True

    def _request(self, stream_id: int, head: Head) -> None:
        if self._leaving:
            self._leaving = [exchange for exchange in self._leaving if exchange.running]
        if len(self.streams) + len(self._leaving) >= self.options.max_concurrent_streams:
            # Beside those that libnghttp2 refuses: applications still work for clients that reset their streams.
            self.h2.reset_stream(stream_id, REFUSED_STREAM)
            self.flush_soon()
            return
        if self._idle:
            self._idle = False
            self.deadline = None
        stream = H2Stream(self, stream_id, head)
        self.streams[stream_id] = stream
        stream.exchange = self._open(head, stream)
        if self._stalled:
            stream.pause(self._now())
        if self._draining:
            stream.exchange.drain()

    def _refuse(self, event: Any, error: PeerError) -> None:
        """
        Malformed: a stream error (RFC 9113 section 8.1.1). Otherwise an answer.
        """
        assert self._link is not None
        self.options.refused(self._link, error)
        stream_id = event.stream_id
        if isinstance(error, BadRequest):
            self.h2.reset_stream(stream_id, error.h2_code)
        else:
            text = b"%d\n" % error.status
            to_head = (b":method", b"HEAD") in event.headers
            answer = [
                (b":status", b"%d" % error.status),
                *self.options.fields,
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(text)),
            ]
            with MAY_BE_CLOSED:
                self.h2.send_response(stream_id, answer, end_stream=to_head)
                if not to_head:
                    self.h2.send_data(stream_id, text, end_stream=True)
                self._fresh.append(stream_id)
                if not event.end_stream:
                    self._early.add(stream_id)
        self.flush_soon()

    def _data_received(self, event: Any) -> None:
        data: bytes = event.data
        stream = self.streams.get(event.stream_id)
        if data:
            self._empty_frames = 0
            if stream is not None:
                stream.receive(data)
            else:
                # Behind an early answer.
                self.give_back(len(data), event.stream_id)
        elif not event.end_stream:
            self._empty_frames += 1
            if self._empty_frames > _EMPTY_FRAMES:
                self._end(ENHANCE_YOUR_CALM)
                return
        if event.end_stream:
            self._ended(event.stream_id)

    def _trailers_received(self, event: Any) -> None:
        # Checked by libnghttp2, and dropped, as ASGI has no place for them (RFC 9110 section 6.5.1).
        self._ended(event.stream_id)

    def _ended(self, stream_id: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            # Its answer was early, but is not all sent: a plain one after all.
            self._early.discard(stream_id)
        elif not stream.ended:
            stream.ended = True
            stream.exchange.end()

    def _stream_gone(self, event: Any) -> None:
        """
        Reset by the client, or broken by a fault of its own.
        """
        stream = self.streams.pop(event.stream_id, None)
        if self._early:
            self._early.discard(event.stream_id)
        if self._unsent:
            self._unsent.pop(event.stream_id, None)
        if stream is not None:
            self._waiting.discard(stream)
            self._lose(stream, "client left")
            self.flush_soon()

    def _settings_received(self, event: Any) -> None:
        self._pushes = self.h2.remote_settings.get(Setting.ENABLE_PUSH, 1) == 1

    def _ping_acknowledged(self, event: Any) -> None:
        if self._notice is not None:
            self._last_goaway()

    # From streams

    def push(self, stream: H2Stream, target: bytes, headers: Sequence[Field]) -> None:
        """
        Promise an answer, and have the application give it (RFC 9113 section 8.4).
        """
        assert self._link is not None
        authority = [field for field in stream.head.headers if field[0] == b"host"]
        fields = [field for field in headers if field[0] not in h2_rules.OF_THE_CONNECTION]
        pseudo = [
            (b":method", b"GET"),
            (b":scheme", self._link.scheme.encode()),
            (b":authority", authority[0][1] if authority else b""),
            (b":path", target),
        ]
        try:
            promised = self.h2.send_push_promise(stream.id, [*pseudo, *fields])
        except NGH2Error:
            # The client takes none any more, or has gone.
            return
        self._request(promised, Head("GET", target, [*authority, *fields], "2", self._link))
        self.flush_soon()

    # Endings

    def drain(self) -> None:
        """
        The server is going away (RFC 9113 section 6.8): say so, then, when the client has heard it, which stream is
        the last.
        """
        if self._draining or self._closing:
            return
        self._draining = True
        for stream in list(self.streams.values()):
            stream.exchange.drain()
        try:
            self.h2.send_shutdown_notice()
            self.h2.ping(b"draining")
        except NGH2Error:
            return
        self._notice = self._deadlines.after(_NOTICE_S, self._last_goaway)
        self.flush_soon()

    def _last_goaway(self) -> None:
        notice, self._notice = self._notice, None
        if notice is not None:
            notice.cancel()
        if self._closing:
            return
        # The client may have said the same meanwhile, and libnghttp2 is about to end then.
        with contextlib.suppress(NGH2Error):
            self.h2.send_goaway(NO_ERROR, last_stream_id=self._last_id)
        self.flush_soon()

    def _broken(self, error: NGH2Error) -> None:
        """
        libnghttp2 cannot go on: GOAWAY by hand.
        """
        code = ENHANCE_YOUR_CALM if isinstance(error, DenialOfServiceError) else PROTOCOL_ERROR
        if not self._stalled:
            payload = self._last_id.to_bytes(4, "big") + code.to_bytes(4, "big")
            self.transport.write(len(payload).to_bytes(3, "big") + b"\x07\x00\x00\x00\x00\x00" + payload)
        self._close()

    def _end(self, code: int) -> None:
        """
        GOAWAY, and close.
        """
        if self._closing:
            return
        try:
            self.h2.terminate_connection(code, last_stream_id=self._last_id)
            data = b"" if self._stalled else self.h2.data_to_send()
        except NGH2Error:
            data = b""
        if data:
            self.transport.write(data)
        self._close()

    def _close(self) -> None:
        """
        Nothing goes out any more. Read on for a moment, as a close with unread input would take the GOAWAY back.
        """
        if self._closing:
            return
        self._closing = True
        if self._notice is not None:
            self._notice.cancel()
        self._lose_all("connection closed")
        transport = self.transport
        transport.unregisterProducer()
        can_half_close = IHalfCloseableDescriptor.providedBy(transport)
        self._deadlines.within(self, _LINGER_S)
        if can_half_close and not ISSLTransport.providedBy(transport):
            transport.loseWriteConnection()
        else:
            transport.loseConnection()

    def _lose_all(self, why: str) -> None:
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            exchange, stream.exchange = stream.exchange, None
            exchange.lost(why)


_EVENTS: dict[type, Callable[[H2Connection, Any], None]] = {
    RequestReceived: H2Connection._request_received,
    DataReceived: H2Connection._data_received,
    TrailersReceived: H2Connection._trailers_received,
    StreamReset: H2Connection._stream_gone,
    StreamClosed: H2Connection._stream_gone,
    SettingsReceived: H2Connection._settings_received,
    PingAcknowledged: H2Connection._ping_acknowledged,
}
