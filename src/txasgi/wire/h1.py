"""
HTTP/1.1 on llhttp's callbacks.

Rules:

* One request is answered at a time; those that were sent ahead of it (pipelining) wait their turn, parsed but not
  opened, with reading paused.
* The connection is the Stream of the request that is being answered. An exchange lets go of it when its answer is
  complete, so it can serve the next one.
* Back pressure in: bytes handed to the exchange are counted until `consumed`; above UNREAD_BYTES reading pauses.
* Back pressure out: the connection is the transport's push producer and passes the word on.
* The answer decides whether the connection can be used again; `_answered` is the only place that goes on from there.

Theory of operation. `_receiving` is where the parser's body callbacks go: the open exchange, a `Queued` request,
or None between messages; `_exchange` is who answers. After an early answer `_exchange` is None while the rest of the
body is still coming: a little of it is thrown away, much of it ends the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    ISSLTransport,
)
from zope.interface import implementer

from txasgi.errors import HeadTimeout, HeadTooLarge, PeerError, TargetTooLong
from txasgi.seam import Field, Head, Link, Open
from txasgi.wire import h1_bytes
from txasgi.wire.connection import WireConnection
from txasgi.wire.h1_input import ASKED, OPEN, PIECE_BYTES, UNREAD_BYTES, H1Input, H1Options, Queued
from txasgi.wire.links import link_of

# How long a closing connection reads on, so that the client gets to read the answer: a close with unread input resets.
# nginx: lingering_timeout 5 s without input, lingering_time 30 s in all.
LINGER_S = 2.0
LINGER_ALL_S = 30.0


@implementer(IProtocol, IPushProducer, IHandshakeListener)
class H1Connection(WireConnection, H1Input):
    """
    One HTTP/1.x connection.

    opened, closed: called with the connection when it is made and when it is lost.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_deadlines",
        "_draining",
        "_early",
        "_linger_until",
        "_now",
        "_open",
        "_opened",
        "_reading",
        "_refusal",
        "_secure",
        "_stalled",
        "due",
        "factory",
    )

    def __init__(
        self,
        open: Open,
        options: H1Options,
        opened: Callable[[Any], object],
        closed: Callable[[Any], object],
    ) -> None:
        H1Input.__init__(self, options)
        self.factory: Any = None
        self.due: int | None = None
        self._open = open
        self._deadlines = options.deadlines
        self._now = options.deadlines.now
        self._opened = opened
        self._closed = closed
        # Bytes for a tunnel that is not open yet.
        self._early = b""
        self._reading = True
        # The transport has said pause.
        self._stalled = False
        self._secure = False
        self._draining = False
        self._linger_until = 0.0
        # To be answered when the requests before it are.
        self._refusal: PeerError | None = None

    # IProtocol

    def makeConnection(self, transport: Any) -> None:
        """
        Connected.
        """
        self.transport = transport
        # Behind a proxy the addresses are known once its header is read, which is before the first bytes come here.
        self._link = None
        self._secure = ISSLTransport.providedBy(transport)
        transport.registerProducer(self, True)
        self._deadlines.within(self, self._options.head_s)
        self._opened(self)

    def connectionLost(self, reason: Any) -> None:
        """
        Over.
        """
        self._closing = True
        self._deadlines.forget(self)
        self._queue = None
        self._receiving = None
        self._held = self._out = None
        self._end_exchange("client left")
        self._parser = None
        self._closed(self)

    def _end_exchange(self, why: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(why)

    # One request after the other

    def _begin(self, head: Head, keep_alive: bool) -> None:
        self._head = head
        self._keep_alive = keep_alive
        self._started = self._chunked = False
        # A tunnel has no end that the parser would see.
        self._ended = head.complete and head.protocol is None
        self._dropped = 0
        if head.protocol is not None:
            self._tunnel = ASKED
            self._keep_alive = False
        exchange = self._open(head, self)
        self._exchange = exchange
        # The end of a body that is not there need not be told.
        self._receiving = None if head.complete else exchange
        if self._stalled:
            exchange.pauseProducing()

    def _enqueue(self, head: Head, keep_alive: bool) -> None:
        if self._queue is None:
            self._queue = deque()
        queued = Queued(head, keep_alive)
        if head.protocol is not None:
            self._tunnel = ASKED
        self._queue.append(queued)
        self._receiving = queued
        self._pause_reading()

    def _answered(self) -> None:
        """
        The answer is complete: what now?
        """
        self._exchange = None
        if self._unread:
            self._unread = 0
            if not self._queue:
                self._resume_reading()
        if self._keep_alive and self._ended:
            if self._queue:
                # Not from within the application's call that ended the answer.
                self._options.call_soon(self._next)
            else:
                self._idle()
        elif not self._keep_alive and self._ended and self._reading and not self._queue:
            self._close()
        else:
            self._receiving = None
            if self._keep_alive:
                # on_message_complete goes on when the rest of the body is through.
                self._deadlines.within(self, self._options.keep_alive_s)
            else:
                # More may come: the rest of a body, frames behind a close frame.
                self._linger()

    def _idle(self) -> None:
        if self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif self._draining or self._closing:
            self._close()
        else:
            if not self._reading:
                self._resume_reading()
            # Deadlines.within, without the calls.
            self.deadline = deadline = self._now() + self._options.keep_alive_s
            if self.due is None or deadline + 1 < self.due:
                self._deadlines.watch(self)

    def _next(self) -> None:
        if not self._queue:
            return
        queued = self._queue.popleft()
        receiving = self._receiving
        self._begin(queued.head, queued.keep_alive and not self._draining)
        exchange = self._exchange
        assert exchange is not None
        if receiving is not queued:
            self._receiving = receiving
        for chunk in queued.chunks:
            self._unread += len(chunk)
            exchange.data(chunk)
        if queued.ended and not self._ended and queued.head.protocol is None:
            self._ended = True
            exchange.end()
        if not self._queue and self._unread <= UNREAD_BYTES:
            self._resume_reading()

    # HTTP/2

    def handshakeCompleted(self) -> None:
        """
        IHandshakeListener: what did ALPN agree on?
        """
        if self._options.other is not None and self.transport.negotiatedProtocol == b"h2":
            self._hand_over(b"")

    def _may_be_h2(self) -> bool:
        """
        No request waits for its answer, and it is not for ALPN to decide (RFC 9113 section 3.2).
        """
        return self._options.other is not None and not self._secure and self._exchange is None and not self._queue

    def _hand_over(self, received: bytes) -> None:
        other = self._options.other
        assert other is not None
        self.retire()
        self._heir = other.take_over(self, received)

    def retire(self) -> None:
        """
        Another protocol has the connection from here on.
        """
        self._deadlines.forget(self)
        self._closing = True
        self._parser = None

    # Refusing

    def _refuse(self, error: PeerError) -> None:
        """
        The client broke a rule: nothing it sends from here on is read.
        """
        if self._closing or (self._exchange is not None and not self._keep_alive and self._receiving is None):
            # Already over, or bytes behind a request that said it was the last one.
            self._closing = True
            return
        self._options.refused(self._known_link(), error)
        if self._exchange is None and not self._ended:
            # In a body that nobody wants any more, behind its answer: there is no more to say.
            self._linger()
            return
        self._closing = True
        self._keep_alive = False
        receiving = self._receiving
        if receiving is not None and receiving is self._exchange:
            # In the middle of a body. The application hears that the client is gone.
            started = self._started and self._held is None
            self._held = None
            self._end_exchange("bad request")
            if started:
                self.abort()
                return
        if isinstance(receiving, Queued) and self._queue:
            self._queue.pop()
        self._receiving = None
        if self._exchange is None and not self._queue:
            self._answer_refusal(error)
        else:
            self._refusal = error
            self._keep_alive = True  # Of the exchange before it, so that `_answered` gets to the refusal.

    def _answer_refusal(self, error: PeerError) -> None:
        self._refusal = None
        # As long as there is no target, the parser tells the method of the request before.
        to_head = self._target != b"" and self._parser.get_method() == b"HEAD"
        self.transport.write(h1_bytes.refusal(error.status, self._options.fields, to_head))
        self._linger()

    # Closing and deadlines

    def expired(self) -> None:
        """
        A deadline has passed: idle, a head that does not end, or a client that does not close.
        """
        if self._closing:
            self.abort()
        elif self._head_fed or self._target:
            self._refuse(HeadTimeout(f"no whole request head within {self._options.head_s:g} s"))
        else:
            self._close(LINGER_S)

    def _partial(self, data: bytes | memoryview) -> None:
        """
        A read that ended within a message.

        The deadline of a head runs from its first byte; more bytes don't move it. Within a body, what brings no body
        (chunk sizes and extensions, trailers) may be as long as a head.
        """
        limit = self._options.head_bytes
        if self._receiving is None and self._ended:
            if not self._begun and self._exchange is None:
                self._deadlines.within(self, self._options.head_s)
            if self._head_fed < 80:
                self._begun = (self._begun + bytes(data[:80]))[:80]
            self._head_fed += len(data)
            if self._head_fed > limit:
                if not self._headers and len(self._target) > limit // 2:
                    self._refuse(TargetTooLong(f"target of over {limit} bytes"))
                else:
                    self._refuse(HeadTooLarge(f"request head of over {limit} bytes"))
        else:
            # The read that brought the last piece of body is counted, too.
            self._head_fed += len(data)
            if self._head_fed > limit + PIECE_BYTES:
                self._refuse(HeadTooLarge(f"chunk extensions or trailers of over {limit} bytes"))

    def _close(self, within_s: float = LINGER_ALL_S) -> None:
        self._closing = True
        self.deadline = None
        if self._secure and not self._stalled and not getattr(self.transport, "ends_by_itself", False):
            # Twisted's TLS waits for the client's close_notify, which some never send.
            self._deadlines.within(self, within_s)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _linger(self) -> None:
        """
        Close, but read on for a while: the client may still be sending, and a reset would take the answer from it.
        """
        transport = self.transport
        self._closing = True
        half_close = IHalfCloseableDescriptor.providedBy(self.transport)
        # TLS has no half close: close_notify ends both ways.
        if not self._secure and half_close:
            transport.unregisterProducer()
            transport.loseWriteConnection()
            self._resume_reading()
            self._linger_until = self._now() + LINGER_ALL_S
            self._deadlines.within(self, LINGER_S)
        else:
            self._close()

    def _discard(self) -> None:
        """
        The client still sends while we wait for its end.
        """
        if self.deadline is not None:
            self.deadline = min(self._now() + LINGER_S, self._linger_until)

    def drain(self) -> None:
        """
        The server is going away: finish what was begun, then close.
        """
        self._draining = True
        self._keep_alive = False
        if self._exchange is not None:
            self._exchange.drain()
        elif not self._queue and self._ended and not self._closing:
            self._close()

    def _known_link(self) -> Link:
        if self._link is None:
            self._link = link_of(self.transport, self._secure)
        return self._link

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self.transport.resumeProducing()

    # Stream; `start`, `data` and so on are H1Output's.

    def tunnel(self, headers: Sequence[Field]) -> Callable[[bytes], None]:
        """
        101, and from now on the exchange gets every byte.
        """
        self._started = True
        self.transport.write(h1_bytes.head(101, headers, b"connection: Upgrade\r\n"))
        self._options.call_soon(self._open_tunnel)
        write: Callable[[bytes], None] = self.transport.write
        return write

    def _open_tunnel(self) -> None:
        self._tunnel = OPEN
        early, self._early = self._early, b""
        if self._exchange is not None:
            self._resume_reading()
            if early:
                self._tunnel_data(early)

    def _tunnel_data(self, data: bytes) -> None:
        if self._tunnel == OPEN:
            if self._exchange is not None:
                self._unread += len(data)
                self._exchange.data(data)
                if self._unread > UNREAD_BYTES:
                    self._pause_reading()
        elif not self._closing:
            # Not accepted yet.
            self._early += data
            if len(self._early) > UNREAD_BYTES:
                self._pause_reading()

    def consumed(self, n: int) -> None:
        """
        The application took n bytes; read on when half of what may wait is free.
        """
        self._unread -= n
        if not self._reading and self._unread <= UNREAD_BYTES // 2 and not self._queue:
            self._resume_reading()

    def reset(self, why: str) -> None:
        """
        Break off: without its end, the client sees that the answer is not whole.
        """
        self._exchange = None
        self._held = self._out = None
        self._closing = True
        self.abort()

    # IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """
        The transport's buffer is full.
        """
        self._stalled = True
        if self._exchange is not None:
            self._exchange.pauseProducing()

    def resumeProducing(self) -> None:
        """
        The transport's buffer is empty.
        """
        self._stalled = False
        if self._exchange is not None:
            self._exchange.resumeProducing()
