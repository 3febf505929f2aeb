"""
The reading half of an HTTP/1.x connection: llhttp's callbacks.

What llhttp finds goes to `_receiving`: the exchange that is open, a `Queued` request that came before its turn, or
nobody, between messages and behind an early answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserInvalidMethodError,
    HttpParserUpgrade,
    HttpRequestParser,
)

from txasgi.deadlines import Deadlines
from txasgi.errors import BadRequest, HeadTooLarge, PeerError, VersionNotSupported
from txasgi.fields import comma_list
from txasgi.seam import Exchange, Field, Head, Link
from txasgi.wire import h1_rules
from txasgi.wire.h1_output import DRAIN_BYTES, H1Output
from txasgi.wire.h1_rules import NOTED

# Body bytes that may wait for the application before reading pauses; Uvicorn's and asyncio's mark.
UNREAD_BYTES = 65536
# Fed to the parser at once, so that what it makes of one read stays small.
PIECE_BYTES = 65536

# What a tunnel is, when there is one.
ASKED, OPEN = 1, 2

_SLASH = 0x2F
# As many fields as no limit below makes sense for.
_FIELDS_UNCOUNTED = 100
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")}


class Other(Protocol):
    """
    The way to HTTP/2, for a connection that began as HTTP/1.1.
    """

    def take_over(self, old: Any, received: bytes) -> Any:
        """
        By ALPN, or by the client's preface, with which *received* begins. Returns the new protocol.
        """

    def upgrade(self, old: Any, head: Head, settings: bytes, received: bytes) -> bool:
        """
        By Upgrade: h2c. settings: the payload of HTTP2-Settings. Returns False if they are not usable.
        """


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
    other: who takes a connection that turns out to speak HTTP/2; None when nobody does.
    http1: requests are served, and not only handed over to HTTP/2.
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
    other: Other | None = None
    http1: bool = True


class Queued:
    """
    A request that came before its turn.
    """

    __slots__ = ("chunks", "ended", "head", "keep_alive")

    def __init__(self, head: Head, keep_alive: bool) -> None:
        self.head = head
        self.keep_alive = keep_alive
        self.chunks: list[bytes] = []
        self.ended = head.complete


class H1Input(H1Output):
    """
    From bytes to requests. `H1Connection` is the rest.
    """

    __slots__ = (
        "_begun",
        "_closing",
        "_dropped",
        "_fresh",
        "_h2c",
        "_head_fed",
        "_headers",
        "_heir",
        "_link",
        "_noted",
        "_options",
        "_parser",
        "_piece",
        "_plain",
        "_plain_is_1_1",
        "_queue",
        "_receiving",
        "_resync",
        "_target",
        "_tunnel",
        "_unread",
        "deadline",
    )

    def __init__(self, options: H1Options) -> None:
        H1Output.__init__(self, options.call_soon)
        self._options = options
        self._link: Link | None = None
        self._parser: Any = HttpRequestParser(self)
        # The head that is being parsed.
        self._target = b""
        self._headers: list[Field] = []
        self._noted: dict[bytes, bytes] = {}
        # What was noted of a head that passed all rules: one that has the same need not be examined again.
        self._plain: dict[bytes, bytes] | None = None
        self._plain_is_1_1 = False
        # Bytes of it in reads before this one; whether a message ended in this one.
        self._head_fed = 0
        self._fresh = True
        # This read; the first bytes of the head that came in reads before.
        self._piece: bytes | memoryview = b""
        self._begun = b""
        # The request that is being received, and those that came before their turn.
        self._receiving: Exchange | Queued | None = None
        self._queue: deque[Queued] | None = None
        # Body bytes that the exchange did not take yet; those that nobody will take.
        self._unread = 0
        self._dropped = 0
        # The head to give to a new parser when this one stops for an upgrade that we don't make.
        self._resync: bytes | None = None
        # 0, ASKED, or OPEN.
        self._tunnel = 0
        # A request that asks for HTTP/2, and the payload of its HTTP2-Settings; who has taken over.
        self._h2c: tuple[Head, bytes] | None = None
        self._heir: Any = None
        # Nothing is read any more.
        self._closing = False
        self.deadline: float | None = None

    def _begin(self, head: Head, keep_alive: bool) -> None:
        raise NotImplementedError

    def _enqueue(self, head: Head, keep_alive: bool) -> None:
        raise NotImplementedError

    def _partial(self, data: bytes | memoryview) -> None:
        raise NotImplementedError

    def _refuse(self, error: PeerError) -> None:
        raise NotImplementedError

    def _idle(self) -> None:
        raise NotImplementedError

    def _linger(self) -> None:
        raise NotImplementedError

    def _pause_reading(self) -> None:
        raise NotImplementedError

    def _tunnel_data(self, data: bytes) -> None:
        raise NotImplementedError

    def _discard(self) -> None:
        raise NotImplementedError

    def _known_link(self) -> Link:
        raise NotImplementedError

    def _may_be_h2(self) -> bool:
        raise NotImplementedError

    def _hand_over(self, received: bytes) -> None:
        raise NotImplementedError

    def dataReceived(self, data: bytes | memoryview) -> None:
        """
        Bytes from the client.
        """
        if self._tunnel or self._closing or len(data) > PIECE_BYTES:
            exchange = self._exchange
            if self._tunnel == OPEN and exchange is not None and data.__class__ is bytes:
                # The hot path of WebSockets.
                self._unread += len(data)
                exchange.data(data)
                if self._unread > UNREAD_BYTES:
                    self._pause_reading()
            else:
                self._receive_unusual(data)
            return
        self._fresh = False
        self._piece = data
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            rest = upgrade.args[0]
        except HttpParserError as error:
            if str(error).startswith("Data after"):
                # Behind a request that said it was the last one.
                self._closing = True
            elif str(error).startswith("Pause on PRI") and self._link is None and self._may_be_h2():
                # The whole preface of HTTP/2, and nothing before it (RFC 9113 section 3.4); it is shorter than what is
                # kept of a head.
                self._hand_over(self._begun + bytes(data))
            else:
                self._refuse(self._fault(error))
            return
        else:
            if not self._fresh and not self._closing:
                self._partial(data)
            elif self._target:
                # The next head has begun somewhere in this read: measure it when it is complete.
                self._head_fed = 1
            return
        # Outside of the except clause: what is raised while another exception is handled loses its own context.
        self._upgrade(bytes(data[rest:]))

    def _receive_unusual(self, data: bytes | memoryview) -> None:
        """
        For a tunnel, for nobody any more, or more than the parser gets at once.
        """
        if self._closing:
            self._discard()
        elif self._tunnel:
            self._tunnel_data(bytes(data))
        else:
            view = memoryview(data)
            for start in range(0, len(data), PIECE_BYTES):
                if self._tunnel:
                    self._tunnel_data(bytes(view[start:]))
                    break
                self.dataReceived(view[start : start + PIECE_BYTES])
                if self._heir is not None:
                    self._heir.dataReceived(bytes(view[start + PIECE_BYTES :]))
                    break

    def _fault(self, error: HttpParserError) -> PeerError:
        cause = error.__context__
        if isinstance(error, HttpParserCallbackError) and cause is not None:
            if isinstance(cause, PeerError):
                return cause
            raise cause  # Ours: let it out.
        if isinstance(error, HttpParserInvalidMethodError) and not self._fresh:
            return h1_rules.unknown_method(self._begun + bytes(self._piece[:80]))
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
        if self._receiving is not None or not self._ended:
            # A trailer: validated by llhttp, and dropped, as ASGI has no place for it (RFC 9110 section 6.5.1).
            return
        name = name.lower()
        value = value.rstrip()
        if name in NOTED:
            if name in self._noted and name != b"connection":
                self._noted[h1_rules.REPEATED] = name
            self._noted[name] = value
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """
        llhttp: the head is complete. Open its exchange, or queue it.
        """
        parser, target, headers = self._parser, self._target, self._headers
        method = _METHODS.get(parser.get_method())
        if (
            self._noted == self._plain
            and not self._head_fed
            and method is not None
            and target[0] == _SLASH
            and b"#" not in target
            and len(headers) < _FIELDS_UNCOUNTED
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            # Asking for the version costs as much as parsing; without Connection, only 1.1 is kept alive.
            and (self._plain_is_1_1 or parser.get_http_version() == "1.1")
        ):
            # Like the one before, as far as the rules go.
            assert self._link is not None
            head = Head(method, target, headers, "1.1", self._link)
            keep_alive = True
        elif self._resync is not None:
            self._forget_head()
            return
        else:
            head, keep_alive = self._examined()
            if self._h2c is not None:
                self._forget_head()
                return
        self._target = b""
        self._headers = []
        self._noted = {}
        if self._exchange is None and not self._queue:
            self.deadline = None
            self._begin(head, keep_alive)
        else:
            self._enqueue(head, keep_alive)

    def _examined(self) -> tuple[Head, bool]:
        """
        The head, and whether it lets the connection stay, after all rules were applied. Raises PeerError.
        """
        parser, noted, target, headers = self._parser, self._noted, self._target, self._headers
        method: bytes = parser.get_method()
        version: str = parser.get_http_version()
        keep_alive: bool = parser.should_keep_alive()
        h1_rules.examine(method, version, noted)
        if len(target) > h1_rules.TARGET_BYTES or target[0] != _SLASH or b"#" in target or method == b"CONNECT":
            target, authority = h1_rules.origin_form(method, target)
            if authority is not None:
                # RFC 9112 section 3.2.2: the target's authority counts, not Host.
                headers = [(name, authority if name == b"host" else value) for name, value in headers]
        options = self._options
        # Feeding in pieces bounds a head to twice the limit; exactly is only measured when it can matter.
        if self._head_fed or len(headers) > options.head_fields or len(self._piece) > options.head_bytes:
            self._measure(headers, target)
        head = Head(_METHODS.get(method) or method.decode(), target, headers, version, self._known_link())
        head.complete = b"content-length" not in noted and b"transfer-encoding" not in noted
        head.expects_continue = b"expect" in noted and version == "1.1"
        if parser.should_upgrade():
            self._note_upgrade(head, method, noted)
        if not options.http1 and self._h2c is None:
            raise VersionNotSupported("HTTP/1.1, where only HTTP/2 is spoken (http)")
        self._head_fed = 0
        self._begun = b""
        exact = options.head_bytes < PIECE_BYTES or options.head_fields < _FIELDS_UNCOUNTED
        if head.complete and version == "1.1" and keep_alive and b"expect" not in noted and not exact:
            self._plain = noted
            self._plain_is_1_1 = b"connection" not in noted
        return head, keep_alive

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
        elif b"h2c" in offered and not has_body and head.version == "1.1" and self._may_be_h2():
            settings = h1_rules.h2_settings(head.headers)
            if settings is not None:
                self._h2c = head, settings
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
        elif self._h2c is not None:
            self._switch(rest)
            return
        elif self._tunnel:
            if rest:
                self._tunnel_data(rest)
            return
        if rest:
            self.dataReceived(rest)

    def _switch(self, rest: bytes) -> None:
        """
        To HTTP/2, or on in HTTP/1.1 if the client's settings cannot be used.
        """
        assert self._h2c is not None
        head, settings = self._h2c
        self._h2c = None
        other = self._options.other
        if other is None or not other.upgrade(self, head, settings, rest):
            self._begin(head, True)
            self.on_message_complete()
            if rest:
                self.dataReceived(rest)

    def on_body(self, chunk: bytes) -> None:
        """
        llhttp: body bytes.
        """
        receiving = self._receiving
        self._head_fed = 0
        if isinstance(receiving, Queued):
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
        if self._resync is not None or self._tunnel or self._h2c is not None:
            return
        self._fresh = True
        self._head_fed = 0
        receiving, self._receiving = self._receiving, None
        if isinstance(receiving, Queued):
            receiving.ended = True
            return
        self._ended = True
        if receiving is not None:
            receiving.end()
        elif self._exchange is None and not self._closing:
            # The rest of a body behind an early answer.
            self._idle()
