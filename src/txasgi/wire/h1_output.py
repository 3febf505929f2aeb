"""
The writing half of an HTTP/1.x connection: the Stream of the request that is being answered.

A small answer is one write: `start` keeps the head back until `data` or `flush`. The pieces of a larger one that come
in the same turn of the loop are written together, as each write is a system call, uvloop's too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from txasgi.seam import Exchange, Field
from txasgi.wire import h1_bytes

# Behind an early answer, thrown away to keep the connection.
DRAIN_BYTES = 65536
# Joining head and body copies the body; above this two writes are cheaper.
_JOIN_BYTES = 65536


class H1Output:
    """
    What the exchange calls. `H1Connection` is the rest.
    """

    # More than thirty attributes in a dict would cost each access; slots do not.
    __slots__ = (
        "_chunked",
        "_ended",
        "_exchange",
        "_head",
        "_held",
        "_keep_alive",
        "_out",
        "_out_bytes",
        "_soon",
        "_started",
        "transport",
    )

    def __init__(self, call_soon: Callable[..., Any]) -> None:
        self.transport: Any = None
        self._soon = call_soon
        # What is to be written at the end of this turn of the loop.
        self._out: list[bytes] | None = None
        self._out_bytes = 0
        # The request that is being answered, and by whom; None between answers.
        self._exchange: Exchange | None = None
        self._head: Any = None
        # Whether the request is received to its end.
        self._ended = True
        # Whether the connection may be used again after this answer.
        self._keep_alive = True
        self._started = False
        self._chunked = False
        self._held: bytes | None = None

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
        if not self._ended and (head.expects_continue or self._announced() > DRAIN_BYTES):
            # The client was not told to go on, and whether its body still comes nobody knows; or so much of it comes
            # that to read it, only to throw it away, costs more than a new connection.
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

    def answer(self, status: int, headers: Sequence[Field], body: bytes) -> None:
        """
        A whole answer.
        """
        if self._keep_alive and self._head.version == "1.1" and len(body) <= _JOIN_BYTES and self._ended:
            self._started = True
            self.transport.write(h1_bytes.head(status, headers, b"", body))
            self._answered()
        else:
            if not self._ended and self._announced() < 0:
                # How much more comes is not known.
                self._keep_alive = False
            self.start(status, headers, len(body))
            self.data(body, True)

    def _announced(self) -> int:
        """
        The length of the request's body, -1 when it is chunked.
        """
        return next((int(value) for name, value in self._head.headers if name == b"content-length"), -1)

    def push(self, target: bytes, headers: Sequence[Field]) -> None:
        """
        HTTP/1.1 has none: no head says that this may be called.
        """
        raise NotImplementedError

    def flush(self) -> None:
        """
        Send what start() held back.
        """
        held, self._held = self._held, None
        if held is not None:
            self._write(held)

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
                self._write(held)
            else:
                chunk = held + chunk
        if end:
            if chunk:
                self._write(chunk)
            else:
                self._write_out()
            self._answered()
        elif chunk:
            self._put(chunk)

    def _put(self, chunk: bytes) -> None:
        """
        Write it with what else comes in this turn of the loop.
        """
        if self._out is None:
            self._out = [chunk]
            self._out_bytes = len(chunk)
            self._soon(self._write_out)
        else:
            self._out.append(chunk)
            self._out_bytes += len(chunk)
        if self._out_bytes > _JOIN_BYTES:
            self._write_out()

    def _write(self, data: bytes) -> None:
        """
        Write it behind what waits.
        """
        if self._out is not None:
            self._out.append(data)
            self._write_out()
        else:
            self.transport.write(data)

    def _write_out(self) -> None:
        out, self._out = self._out, None
        if out is not None:
            self.transport.write(b"".join(out))

    def trailers(self, headers: Sequence[Field]) -> None:
        """
        Trailer fields, which need chunked coding (RFC 9112 section 7.1.2); ends the answer.
        """
        if not self._chunked:
            self.data(b"", True)
            return
        self.flush()
        self._write(h1_bytes.last_chunk(headers))
        self._answered()
