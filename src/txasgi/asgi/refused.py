"""
The answer to an opening handshake that is wrong (RFC 6455 section 4.2.1, 4.4).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from txasgi.errors import HandshakeRefused, WebSocketVersionNotSupported
from txasgi.seam import Field, Head, Outcome, Stream

if TYPE_CHECKING:
    from txasgi.asgi.gate import Gate


class Refused:
    """
    An exchange for a handshake that is wrong: answers, and the application never hears of it.
    """

    def __init__(self, gate: Gate, head: Head, stream: Stream, error: HandshakeRefused) -> None:
        self.running = False
        self._gate = gate
        self._head = head
        self._stream: Stream | None = stream
        self._error = error
        # Not from within open(): the wire does not have this exchange yet.
        gate.loop.call_soon(self._answer)

    def _answer(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        status = self._error.status
        text = f"{self._error}\n".encode()
        fields: list[Field] = [
            *self._gate.fields,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
        ]
        if isinstance(self._error, WebSocketVersionNotSupported):
            fields.append((b"sec-websocket-version", b"13"))
            if self._head.version == "1.1":
                # RFC 9110 section 15.5.22.
                fields.append((b"upgrade", b"websocket"))
        stream.start(status, fields, len(text))
        stream.data(text, True)
        if self._gate.report is not None:
            self._gate.report(Outcome("http", self._head, status, len(text), 0.0, "bad handshake"))

    def data(self, chunk: bytes) -> None:
        """
        Ignored.
        """

    def end(self, trailers: Iterable[Field] = ()) -> None:
        """
        Ignored.
        """

    def lost(self, why: str) -> None:
        """
        The peer is gone.
        """
        self._stream = None

    def drain(self) -> None:
        """
        It ends soon anyway.
        """

    def pauseProducing(self) -> None:
        """
        The answer is small.
        """

    def resumeProducing(self) -> None:
        """
        The answer is small.
        """
