"""
HTTP/1.1 on llhttp's callbacks.

Rules:

* One request is answered at a time; those that were sent ahead of it (pipelining) wait their turn, parsed but not opened,
  with reading paused.
* The connection is the Stream of the request that is being answered. An exchange lets go of it when its answer is
  complete, so it can serve the next one.
* Back pressure in: bytes handed to the exchange are counted until `consumed`; above UNREAD_BYTES reading pauses.
* Back pressure out: the connection is the transport's push producer and passes the word on.
* The answer decides whether the connection can be used again; `_answered` is the only place that goes on from there.

Theory of operation. `_receiving` is where the parser's body callbacks go: the open exchange, a `_Queued` request,
or None between messages; `_exchange` is who answers. After an early answer `_exchange` is None while the rest of the body
is still coming: a little of it is thrown away, much of it ends the connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)
from twisted.internet.interfaces import IHalfCloseableDescriptor, IProtocol, IPushProducer, ISSLTransport
from zope.interface import implementer

from txasgi.deadlines import Deadlines
from txasgi.errors import BadRequest, HeadTimeout, HeadTooLarge, PeerError
from txasgi.fields import comma_list
from txasgi.seam import Exchange, Field, Head, Link, Open
from txasgi.wire import h1_bytes, h1_rules
from txasgi.wire.h1_output import H1Output
from txasgi.wire.h1_rules import NOTED
from txasgi.wire.links import link_of

# Body bytes that may wait for the application before reading pauses; Uvicorn's and asyncio's mark.
UNREAD_BYTES = 65536
# Fed to the parser at once, so that what it makes of one read stays small.
_PIECE_BYTES = 65536
# Behind an early answer, thrown away to keep the connection; more than that and a new connection is cheaper.
DRAIN_BYTES = 65536
# How long a closing connection reads on, so that the client gets to read the answer: a close with unread input resets.
# nginx's lingering_timeout is 5 s.
LINGER_S = 2.0


@dataclass(slots=True)
class H1Options:
    """
    What a connection is told; one for a server.

    keep_alive_s: idle time after an answer before the connection is closed.
    head_s: time for a whole request head.
    head_bytes, head_fields: the largest head, in bytes and in fields.
    fields: the fields that every answer carries (date, server), kept up to date by their owner.
    call_soon: the event loop's.
    refused: told of each request that was refused before it reached the application.
    """

    deadlines: Deadlines
    call_soon: Callable[..., Any]
    keep_alive_s: float = 5.0
    head_s: float = 30.0
    # nginx 32 KiB (4 x 8), Node 16, Tomcat 8, h11 16. A Kerberos ticket alone can pass 16.
    head_bytes: int = 65536
    # Apache 100, gunicorn 100, Twisted 500; browsers send about 20, proxies double that.
    head_fields: int = 200
    fields: Sequence[Field] = field(default_factory=list)
    refused: Callable[[Link, PeerError], object] = lambda _link, _error: None


class _Queued:
    """
    A request that came before its turn.
    """

    __slots__ = ("chunks", "ended", "head", "keep_alive")

    def __init__(self, head: Head, keep_alive: bool) -> None:
        self.head = head
        self.keep_alive = keep_alive
        self.chunks: list[bytes] = []
        self.ended = False


@implementer(IProtocol, IPushProducer)
class H1Connection(H1Output):
    """
    One HTTP/1.x connection.

    opened, closed: called with the connection when it is made and when it is lost.
    """

    factory: Any = None

    def __init__(
        self,
        open: Open,
        options: H1Options,
        opened: Callable[[Any], object],
        closed: Callable[[Any], object],
    ) -> None:
        self._open = open
        self._options = options
        self._deadlines = options.deadlines
        self._now = options.deadlines.now
        self._opened = opened
        self._closed = closed
        self.deadline: float | None = None
        self.due: int | None = None
        # The head that is being parsed.
        self._target = b""
        self._headers: list[Field] = []
        self._noted: dict[bytes, bytes] = {}
        self._repeated = False
        self._host: bytes | None = None
        self._head_fed = 0
        self._fresh = True
        # The request that is being received.
        self._receiving: Exchange | _Queued | None = None
        self._unread = 0
        self._dropped = 0
        self._queue: deque[_Queued] | None = None
        self._resync: bytes | None = None
        # The request that is being answered: H1Output tells what these are.
        self._exchange: Exchange | None = None
        self._keep_alive = True
        self._held: bytes | None = None
        self._started = False
        self._chunked = False
        self._ended = True
        # The connection.
        self._tunnel = 0
        self._early = b""
        self._reading = True
        self._stalled = False
        self._draining = False
        self._closing = False
        self._refusal: PeerError | None = None

    # IProtocol

    def makeConnection(self, transport: Any) -> None:
        """
        Connected.
        """
        self.transport = transport
        self._link = link_of(transport, ISSLTransport.providedBy(transport))
        self._parser = HttpRequestParser(self)
        transport.registerProducer(self, True)
        self._set_deadline(self._options.head_s)
        self._opened(self)

    def connectionMade(self) -> None:
        """
        Part of IProtocol; makeConnection does it.
        """

    def logPrefix(self) -> str:
        """
        For Twisted's log.
        """
        return "txasgi"

    def dataReceived(self, data: bytes | memoryview) -> None:
        """
        Bytes from the client.
        """
        if self._tunnel or self._closing or len(data) > _PIECE_BYTES:
            self._receive_unusual(data)
            return
        self._fresh = False
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            self._upgrade(bytes(data[upgrade.args[0] :]))
        except HttpParserError as error:
            self._refuse(self._fault(error, data))
        else:
            if self._receiving is None and not self._fresh and not self._closing:
                self._partial_head(len(data))

    def _receive_unusual(self, data: bytes | memoryview) -> None:
        """
        For a tunnel, for nobody any more, or more than the parser gets at once.
        """
        if self._tunnel:
            self._tunnel_data(bytes(data))
        elif not self._closing:
            view = memoryview(data)
            for start in range(0, len(data), _PIECE_BYTES):
                if self._tunnel:
                    self._tunnel_data(bytes(view[start:]))
                    break
                self.dataReceived(view[start : start + _PIECE_BYTES])

    def connectionLost(self, reason: Any) -> None:
        """
        Over.
        """
        self._closing = True
        self.deadline = None
        self._queue = None
        self._receiving = None
        self._held = None
        self._end_exchange("client left")
        self._parser = None
        self._closed(self)

    def _end_exchange(self, why: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(why)

    # Parsing

    def _partial_head(self, size: int) -> None:
        """
        A head has begun and is not complete. Its deadline runs from its first byte; more bytes don't move it.
        """
        if not self._head_fed and self._exchange is None:
            self._set_deadline(self._options.head_s)
        self._head_fed += size
        if self._head_fed > self._options.head_bytes:
            self._refuse(HeadTooLarge(f"request head of over {self._options.head_bytes} bytes"))

    def _fault(self, error: HttpParserError, data: bytes | memoryview) -> PeerError:
        cause = error.__context__
        if isinstance(error, HttpParserCallbackError) and cause is not None:
            if isinstance(cause, PeerError):
                return cause
            raise cause  # Ours: let it out.
        if isinstance(error, HttpParserInvalidMethodError) and self._receiving is None:
            return h1_rules.unknown_method(bytes(data[:80]))
        return BadRequest(str(error))

    def on_url(self, url: bytes) -> None:
        """
        llhttp: a piece of the target.
        """
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """
        llhttp: a field, or a trailer field. Only white space after the value is left on.
        """
        name = name.lower()
        value = value.rstrip()
        if name in NOTED:
            if name in self._noted and name != b"connection":
                self._repeated = True
            self._noted[name] = value
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """
        llhttp: the head is complete. Open its exchange, or queue it.
        """
        if self._resync is not None:
            self._forget_head()
            return
        parser, noted, target, headers = self._parser, self._noted, self._target, self._headers
        method: bytes = parser.get_method()
        keep_alive: bool = parser.should_keep_alive()
        # Asking for the version costs as much as parsing: without Connection, only 1.1 is kept alive.
        version = "1.1" if keep_alive and b"connection" not in noted else parser.get_http_version()
        known = _METHODS.get(method)
        if len(noted) > 1 or version != "1.1" or self._repeated or b"host" not in noted or known is None:
            h1_rules.examine(method, version, noted, self._repeated)
        if noted.get(b"host") != self._host:
            self._host = noted.get(b"host")
            h1_rules.check_host(self._host or b"")
        if target[0] != _SLASH or b"#" in target or len(target) > h1_rules.TARGET_BYTES or known is None:
            target = h1_rules.origin_form(method, target)
        # Feeding in pieces bounds a head to twice the limit; exactly is only measured when it can matter.
        if self._head_fed or len(headers) > self._options.head_fields:
            self._measure(headers, target)
        head = Head(known or method.decode(), target, headers, version, self._link)
        if b"expect" in noted and version == "1.1":
            head.expects_continue = True
        if parser.should_upgrade():
            self._note_upgrade(head, method, noted)
        self._target = b""
        self._headers = []
        self._noted = {}
        self._head_fed = 0
        if self._exchange is not None or self._queue:
            self._enqueue(head, keep_alive)
        else:
            self.deadline = None
            self._begin(head, keep_alive)

    def _measure(self, headers: list[Field], target: bytes) -> None:
        options = self._options
        if len(headers) > options.head_fields:
            raise HeadTooLarge(f"request head of {len(headers)} fields, limit {options.head_fields}")
        size = len(target) + sum(len(name) + len(value) + 4 for name, value in headers)
        if size > options.head_bytes:
            raise HeadTooLarge(f"request head of {size} bytes, limit {options.head_bytes}")

    def _forget_head(self) -> None:
        self._target = b""
        self._headers = []
        self._noted = {}
        self._repeated = False
        self._head_fed = 0

    def _note_upgrade(self, head: Head, method: bytes, noted: dict[bytes, bytes]) -> None:
        """
        llhttp will stop behind this head, as the client asked for another protocol (RFC 9110 section 7.8).
        """
        offered = comma_list([value.lower() for name, value in head.headers if name == b"upgrade"])
        has_body = b"transfer-encoding" in noted or noted.get(b"content-length", b"0").strip(b"0") != b""
        if b"websocket" in offered and method == b"GET" and head.version == "1.1":
            if has_body:
                raise BadRequest("a WebSocket handshake with a body")
            head.protocol = b"websocket"
        elif has_body:
            # We don't upgrade, so a body follows, which llhttp would not parse: give it to a new parser.
            name = b"transfer-encoding" if b"transfer-encoding" in noted else b"content-length"
            self._resync = b"POST / HTTP/1.1\r\nhost: a\r\n%b: %b\r\n\r\n" % (name, noted[name])

    def _upgrade(self, rest: bytes) -> None:
        framing = self._resync
        if framing is not None:
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(framing)
            self._resync = None
        elif self._tunnel:
            if rest:
                self._tunnel_data(rest)
            return
        if rest:
            self.dataReceived(rest)

    def on_body(self, chunk: bytes) -> None:
        """
        llhttp: body bytes.
        """
        receiving = self._receiving
        if isinstance(receiving, _Queued):
            receiving.chunks.append(chunk)
        elif receiving is not None:
            self._unread += len(chunk)
            receiving.data(chunk)
            if self._unread > UNREAD_BYTES:
                self._pause_reading()
        else:
            self._dropped += len(chunk)
            if self._dropped > DRAIN_BYTES and not self._closing:
                self._linger()

    def on_message_complete(self) -> None:
        """
        llhttp: the body is complete. Fields since the head are trailers.
        """
        if self._resync is not None or self._tunnel:
            return
        self._fresh = True
        if self._headers:
            # Trailers: validated by llhttp, and dropped, as ASGI has no place for them (RFC 9110 section 6.5.1).
            self._headers, self._noted, self._repeated = [], {}, False
        receiving, self._receiving = self._receiving, None
        if isinstance(receiving, _Queued):
            receiving.ended = True
            return
        self._ended = True
        if receiving is not None:
            receiving.end()
        elif not self._closing:
            # The rest of a body behind an early answer.
            self._idle()

    # One request after the other

    def _begin(self, head: Head, keep_alive: bool) -> None:
        self._head = head
        self._keep_alive = keep_alive
        self._started = self._chunked = self._ended = False
        self._dropped = 0
        if head.protocol is not None:
            self._tunnel = 1
            self._keep_alive = False
        exchange = self._open(head, self)
        self._exchange = self._receiving = exchange
        if self._stalled:
            exchange.pauseProducing()

    def _enqueue(self, head: Head, keep_alive: bool) -> None:
        if self._queue is None:
            self._queue = deque()
        queued = _Queued(head, keep_alive)
        if head.protocol is not None:
            self._tunnel = 1
        self._queue.append(queued)
        self._receiving = queued
        self._pause_reading()

    def _answered(self) -> None:
        """
        The answer is complete: what now?
        """
        self._exchange = None
        if not self._ended:
            self._receiving = None
        if self._unread:
            self._unread = 0
            if not self._queue:
                self._resume_reading()
        if not self._keep_alive:
            if self._ended:
                self._close()
            else:
                # More may come: the rest of a body, frames behind a close frame.
                self._linger()
        elif self._queue:
            # Not from within the application's call that ended the answer.
            self._options.call_soon(self._next)
        elif self._ended:
            self._idle()
        # Else: on_message_complete goes on when the rest of the body is through.

    def _idle(self) -> None:
        if self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif self._draining:
            self._close()
        else:
            if not self._reading:
                self._resume_reading()
            # _set_deadline, without the call.
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
        if queued.ended:
            self._ended = True
            exchange.end()
        if not self._queue and self._unread <= UNREAD_BYTES:
            self._resume_reading()

    # Refusing

    def _refuse(self, error: PeerError) -> None:
        """
        The client broke a rule: nothing it sends from here on is read.
        """
        if self._closing or (self._exchange is not None and not self._keep_alive and self._receiving is None):
            # Already over, or bytes behind a request that said it was the last one.
            self._closing = True
            return
        self._closing = True
        self._keep_alive = False
        self._options.refused(self._link, error)
        receiving = self._receiving
        if receiving is not None and receiving is self._exchange:
            # In the middle of a body. The application hears that the client is gone.
            started = self._started and self._held is None
            self._held = None
            self._end_exchange("bad request")
            if started:
                self.transport.unregisterProducer()
                self.transport.abortConnection()
                return
        if isinstance(receiving, _Queued) and self._queue:
            self._queue.pop()
        self._receiving = None
        if self._exchange is None and not self._queue:
            self._answer_refusal(error)
        else:
            self._refusal = error
            self._keep_alive = True  # Of the exchange before it, so that `_answered` gets to the refusal.

    def _answer_refusal(self, error: PeerError) -> None:
        self._refusal = None
        self.transport.write(h1_bytes.refusal(error.status, self._options.fields))
        self._linger()

    # Closing and deadlines

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self._now() + seconds
        self._deadlines.watch(self)

    def expired(self) -> None:
        """
        A deadline has passed: idle, a head that does not end, or a client that does not close.
        """
        if self._closing:
            self._abort()
        elif self._head_fed or self._target:
            self._refuse(HeadTimeout(f"no whole request head within {self._options.head_s:g} s"))
        else:
            self._close()

    def _close(self) -> None:
        self._closing = True
        self.deadline = None
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _abort(self) -> None:
        self.transport.unregisterProducer()
        abort = getattr(self.transport, "abortConnection", None)
        (abort or self.transport.loseConnection)()

    def _linger(self) -> None:
        """
        Close, but read on for a while: the client may still be sending, and a reset would take the answer from it.
        """
        transport = self.transport
        self._closing = True
        # TLS has no half close: close_notify ends both ways.
        if self._link.scheme == "http" and IHalfCloseableDescriptor.providedBy(transport):
            transport.unregisterProducer()
            transport.loseWriteConnection()
            self._resume_reading()
            self._set_deadline(LINGER_S)
        else:
            self._close()

    def drain(self) -> None:
        """
        The server is going away: finish what was begun, then close.
        """
        self._draining = True
        self._keep_alive = False
        if self._exchange is not None:
            self._exchange.drain()
        elif self._queue is None and self._ended and not self._closing:
            self._close()

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
        self._tunnel = 2
        early, self._early = self._early, b""
        if self._exchange is not None:
            self._resume_reading()
            if early:
                self._tunnel_data(early)

    def _tunnel_data(self, data: bytes) -> None:
        if self._tunnel == 2:
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
        self._held = None
        self._closing = True
        self._abort()

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

    def stopProducing(self) -> None:
        """
        The transport is gone; connectionLost tells.
        """


_SLASH = 0x2F
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")}
