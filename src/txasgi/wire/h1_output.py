"""
The writing half of an HTTP/1.x connection: the Stream of the request that is being answered.

A small answer is one write: `start` keeps the head back until `data` or `flush`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from txasgi.seam import Exchange, Field, Head
from txasgi.wire import h1_bytes

# Joining head and body copies the body; above this two writes are cheaper.
_JOIN_BYTES = 65536


class H1Output:
    """
    What the exchange calls. `H1Connection` is the rest.
    """

    transport: Any
    # The request that is being answered, and by whom; None between answers.
    _exchange: Exchange | None
    _head: Head
    # Whether the request is received to its end.
    _ended: bool
    # Whether the connection may be used again after this answer.
    _keep_alive: bool
    _started: bool
    _chunked: bool
    _held: bytes | None

    def _answered(self) -> None:
        """
        The answer is complete.
        """
        raise NotImplementedError

    def inform(self, status: int, headers: Sequence[Field]) -> None:
        """
        A 1xx answer, unless the final one has begun or the client is too old for it (RFC 9110 section 15.2).
        """
        if (not self._started or self._held is not None) and self._head.version == "1.1":
            if status == 100:
                self._head.expects_continue = False
            self.transport.write(h1_bytes.head(status, headers, b""))

    def start(self, status: int, headers: Sequence[Field], length: int | None) -> None:
        """
        Begin the answer; held back until `data` or `flush`.
        """
        self._started = True
        framing = b""
        head = self._head
        old = head.version == "1.0"
        if head.expects_continue and not self._ended:
            # The client was not told to go on; whether its body still comes nobody knows.
            self._keep_alive = False
        if length is None:
            if old:
                self._keep_alive = False
            else:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
        if not self._keep_alive:
            # RFC 9110 section 7.8: whoever sends Upgrade, as a 426 does, says so in Connection.
            framing += b"connection: close, upgrade\r\n" if status == 426 else b"connection: close\r\n"
        elif old:
            framing += b"connection: keep-alive\r\n"
        self._held = h1_bytes.head(status, headers, framing)

    def flush(self) -> None:
        """
        Send what start() held back.
        """
        held, self._held = self._held, None
        if held is not None:
            self.transport.write(held)

    def data(self, chunk: bytes, end: bool) -> None:
        """
        Body bytes, or the end of the tunnel.
        """
        if self._chunked:
            if chunk:
                chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
            if end:
                chunk += b"0\r\n\r\n"
        held = self._held
        if held is not None:
            self._held = None
            if len(chunk) > _JOIN_BYTES:
                self.transport.write(held)
            else:
                chunk = held + chunk
        if chunk:
            self.transport.write(chunk)
        if end:
            self._answered()

    def trailers(self, headers: Sequence[Field]) -> None:
        """
        Trailer fields, which need chunked coding (RFC 9112 section 7.1.2); ends the answer.
        """
        if not self._chunked:
            self.data(b"", True)
            return
        self.flush()
        self.transport.write(h1_bytes.last_chunk(headers))
        self._answered()


Write = Callable[[bytes], None]
