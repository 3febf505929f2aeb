"""
One stream of HTTP/2: what the exchange is lent, on top of libnghttp2's queue for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ngh2 import StreamProtocolError

from txasgi.errors import CANCEL, INTERNAL_ERROR
from txasgi.seam import Field, Head

if TYPE_CHECKING:
    from txasgi.wire.h2_output import H2Output

# Queued for one stream before its exchange is paused; asyncio's and HTTP/1.1's mark.
QUEUED_BYTES = 65536

# libnghttp2 knows of a stream's end before its events have told us: what is said on one that the client has reset in
# the same read goes nowhere. Before the answer has begun that is a StreamUnavailableError, behind it a body that is not
# open.
MAY_BE_CLOSED = contextlib.suppress(StreamProtocolError)

_STATUS: dict[int, Field] = {status: (b":status", b"%d" % status) for status in range(100, 1000)}


class H2Stream:
    """
    The wire's half of one request.

    id: the stream's number. head: its request. exchange: the application's half, None once the answer is complete.
    ended: the request has come to its end.
    paused: the exchange was told to wait, because `queued` is above QUEUED_BYTES or the connection does not write.
    progress: when bytes of it were last taken by the connection, in the clock's seconds.
    """

    __slots__ = (
        "_connection",
        "_early",
        "_held",
        "_taken",
        "_tunnel",
        "_window",
        "ended",
        "exchange",
        "head",
        "id",
        "paused",
        "progress",
        "queued",
    )

    def __init__(self, connection: H2Output, id: int, head: Head) -> None:
        self._connection = connection
        self.id = id
        self.head = head
        self.exchange: Any = None
        self.ended = head.complete
        self.paused = False
        self.progress = 0.0
        # As far as we know: what was sent since libnghttp2 was asked, and what it said then.
        self.queued = 0
        # Bytes of the body that the application took, and the stream's window.
        self._taken = 0
        self._window = connection.options.initial_window_bytes
        # The head of an answer, kept until there is body.
        self._held: list[Field] | None = None
        # For a tunnel: whether it is open, and what came before it was.
        self._tunnel = False
        self._early = b""

    # Stream

    def inform(self, status: int, headers: Sequence[Field]) -> None:
        """
        HEADERS with an informational status.
        """
        connection = self._connection
        with MAY_BE_CLOSED:
            connection.h2.send_informational_response(self.id, [_STATUS[status], *headers])
        connection.flush_soon()

    def push(self, target: bytes, headers: Sequence[Field]) -> None:
        """
        PUSH_PROMISE.
        """
        self._connection.push(self, target, headers)

    def start(self, status: int, headers: Sequence[Field], length: int | None) -> None:
        """
        Keep it, so that an answer without a body ends with its HEADERS.
        """
        self._held = [_STATUS[status], *headers]

    def answer(self, status: int, headers: Sequence[Field], body: bytes) -> None:
        """
        HEADERS, and DATA if there is any.
        """
        connection = self._connection
        h2 = connection.h2
        try:
            if body:
                h2.send_response(self.id, [_STATUS[status], *headers])
                h2.send_data(self.id, body, end_stream=True)
            else:
                h2.send_response(self.id, [_STATUS[status], *headers], end_stream=True)
        except StreamProtocolError:
            # MAY_BE_CLOSED, without its calls.
            pass
        self.exchange = None
        connection.answered(self)

    def flush(self) -> None:
        """
        HEADERS without knowing what follows.
        """
        held, self._held = self._held, None
        if held is not None:
            with MAY_BE_CLOSED:
                self._connection.h2.send_response(self.id, held)
            self._connection.flush_soon()

    def data(self, chunk: bytes, end: bool) -> None:
        """
        DATA.
        """
        connection = self._connection
        with MAY_BE_CLOSED:
            self._send(chunk, end)
        if end:
            self.exchange = None
            connection.answered(self)
            return
        connection.flush_soon()
        self.queued += len(chunk)
        if self.queued > QUEUED_BYTES:
            connection.look_at_queue(self)

    def _send(self, chunk: bytes, end: bool) -> None:
        h2 = self._connection.h2
        held, self._held = self._held, None
        if held is not None:
            h2.send_response(self.id, held, end_stream=end and not chunk)
            if chunk:
                h2.send_data(self.id, chunk, end_stream=end)
        elif chunk:
            h2.send_data(self.id, chunk, end_stream=end)
        elif end:
            h2.end_stream(self.id)

    def trailers(self, headers: Sequence[Field]) -> None:
        """
        HEADERS that end the stream.
        """
        self.flush()
        connection = self._connection
        with MAY_BE_CLOSED:
            if headers:
                connection.h2.send_trailers(self.id, list(headers))
            else:
                connection.h2.end_stream(self.id)
        self.exchange = None
        connection.answered(self)

    def tunnel(self, headers: Sequence[Field]) -> Callable[[bytes], None]:
        """
        200 to an extended CONNECT (RFC 8441 section 5).
        """
        connection = self._connection
        with MAY_BE_CLOSED:
            connection.h2.send_response(self.id, [_STATUS[200], *headers])
        connection.flush_soon()
        connection.options.call_soon(self._open_tunnel)
        return self._write

    def _write(self, data: bytes) -> None:
        if self.exchange is not None:
            self.data(data, False)

    def _open_tunnel(self) -> None:
        self._tunnel = True
        early, self._early = self._early, b""
        if self.exchange is not None and early:
            self.exchange.data(early)

    def consumed(self, n: int) -> None:
        """
        The application took n bytes of the body: give them back to the windows.
        """
        self._connection.give_back(n, self.id)
        self._taken += n
        largest = self._connection.options.largest_window_bytes
        if self._taken > 2 * self._window and self._window < largest:
            self._window = min(2 * self._window, largest)
            self._connection.widen(self.id, self._window)

    def reset(self, why: str) -> None:
        """
        RST_STREAM: what was sent is not all.
        """
        self.exchange = None
        self._connection.break_off(self, CANCEL if self.head.protocol is not None else INTERNAL_ERROR)

    # From the connection

    def receive(self, data: bytes) -> None:
        """
        Bytes of the body, or for the tunnel.
        """
        if self.head.protocol is not None and not self._tunnel:
            # Bounded by the stream's window, as nothing of it is given back.
            self._early += data
        else:
            self.exchange.data(data)

    def pause(self, now: float) -> None:
        """
        The exchange shall wait.
        """
        if not self.paused:
            self.paused = True
            self.progress = now
            if self.exchange is not None:
                self.exchange.pauseProducing()

    def resume(self) -> None:
        """
        It may go on.
        """
        self.paused = False
        if self.exchange is not None:
            self.exchange.resumeProducing()
