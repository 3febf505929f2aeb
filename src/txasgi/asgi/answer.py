"""
An answer: from an application's messages to a stream. HTTP's own, and the denial of a WebSocket.

Nothing goes to the stream before it is known to be valid, and what cannot be completed is never ended as if it were.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from txasgi.asgi.task import Message
from txasgi.errors import ApplicationError
from txasgi.fields import (
    CONTENT_LENGTH,
    DATE,
    FRAMING,
    MISSPELT,
    SERVER,
    checked,
    clean_values,
    comma_list,
    learn_name,
    learn_value,
    name_kinds,
)
from txasgi.seam import Field, Head, Stream

if TYPE_CHECKING:
    from txasgi.asgi.gate import Gate

# What an answer goes through, in this order, but that any may be followed by LOST.
NEW, HELD, BODY, TRAILERS, DONE, LOST = range(6)


class Answer:
    """
    The answer's half of an exchange: from messages to a stream. Also the denial of a WebSocket.
    """

    __slots__ = (
        "bodiless",
        "gate",
        "head",
        "headers",
        "left",
        "length",
        "phase",
        "size",
        "status",
        "stream",
        "trailing",
    )

    def __init__(self, gate: Gate, head: Head, stream: Stream) -> None:
        self.gate = gate
        self.head = head
        self.stream: Any = stream
        self.phase = NEW
        self.status = 0
        self.size = 0
        # What content-length promised, and how much of it is still to come.
        self.length: int | None = None
        self.left = 0
        self.bodiless = False
        self.trailing = False
        self.headers: list[Field] = []

    def start(self, message: Message) -> None:
        """
        http.response.start: check it and keep it.
        """
        if self.phase != NEW:
            raise ApplicationError(f"{message['type']} was sent already")
        status = message.get("status")
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise ApplicationError(f"status must be an int from 200 to 999, not {status!r}")
        try:
            self._take_headers(message.get("headers", ()), status)
        except (TypeError, ValueError) as error:
            raise ApplicationError(f"headers must be pairs of bytes, not {message['headers']!r}") from error
        self.status = int(status)
        self.trailing = bool(message.get("trailers", False))
        self.bodiless = self.head.method == "HEAD" or status == 304 or status == 204
        self.phase = HELD
        held = self.gate.held
        if not held:
            self.gate.flush_soon()
        held.append(self)

    def _take_headers(self, given: Iterable[tuple[Any, Any]], status: int) -> None:
        headers: list[Field] = []
        length: int | None = None
        seen = 0
        for name, value in given:
            kind = name_kinds.get(name)
            if kind is None:
                kind = learn_name(name)
            if value not in clean_values:
                value = learn_value(name, value)
            if kind:
                if kind == MISSPELT:
                    name = name.lower()
                    kind = name_kinds.get(name, 0)
                if kind == FRAMING:
                    continue
                if kind == CONTENT_LENGTH:
                    if status == 204:
                        continue
                    if not value.isdigit() or len(value) > 19 or length is not None:
                        raise ApplicationError(f"content-length must be one decimal number, not {value!r}")
                    length = int(value)
                seen |= 1 << kind
            headers.append((name, value))
        if length is not None:
            self.length = self.left = length
        gate = self.gate
        if not seen & (1 << DATE | 1 << SERVER):
            headers += gate.fields
        else:
            if gate.date_field and not seen & 1 << DATE:
                headers.append(gate.date_field)
            if gate.server_field and not seen & 1 << SERVER:
                headers.append(gate.server_field)
            headers += gate.extra_fields
        self.headers = headers

    def flush(self) -> None:
        """
        The loop has turned and no body came: send the start message alone.
        """
        if self.phase == HELD:
            self._begin()
            self.stream.flush()

    def _begin(self) -> None:
        """
        Hand the start to the stream, before all of the body is known.
        """
        self.phase = BODY
        headers, self.headers = self.headers, []
        self.stream.start(self.status, headers, 0 if self.bodiless else self.length)

    def _answer(self, body: bytes, length: int) -> None:
        """
        Hand all of it to the stream. length: of the body, which is not sent in an answer to HEAD.
        """
        headers = self.headers
        # RFC 9110 section 8.6: a 204 has no content-length, and a 304 that of what it does not send.
        if self.length is None and self.status != 204 and (length or self.status != 304):
            headers.append((b"content-length", b"%d" % length))
        self.stream.answer(self.status, headers, body)

    def body(self, message: Message) -> None:
        """
        http.response.body. Raises ApplicationError when it is more, or less, than content-length said.
        """
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        if chunk.__class__ is not bytes:
            chunk = _as_bytes(chunk)
        phase = self.phase
        if phase != HELD and phase != BODY:
            raise ApplicationError(f"{message['type']} before the start, or after the end")
        size = len(chunk)
        if self.length is not None and not self.bodiless:
            self._account(size, more)
        if self.bodiless:
            chunk = b""
        else:
            self.size += size
        end = not more and not self.trailing
        if phase == BODY:
            self.stream.data(chunk, end)
        elif end:
            self._answer(chunk, size)
        else:
            self._begin()
            self.stream.data(chunk, False)
        if end:
            self.complete("")
        elif not more:
            self.phase = TRAILERS

    def _account(self, size: int, more: bool) -> None:
        left = self.left - size
        if left < 0:
            raise ApplicationError(f"the body is longer than content-length, by {-left} bytes at least")
        if left and not more:
            if self.phase == BODY:
                self.broken("application failed")
            raise ApplicationError(f"the body is shorter than content-length, by {left} bytes")
        self.left = left

    def broken(self, why: str) -> None:
        """
        The answer cannot be completed: a 500 if nothing of it was sent, else a reset.
        """
        if self.phase <= HELD:
            self.error(500)
        else:
            self.stream.reset(why)
            self.complete(why)

    def error(self, status: int) -> None:
        """
        Answer with an error of our own, in place of what the application may have begun.
        """
        text = b"Internal Server Error\n" if status == 500 else b"%d\n" % status
        self.phase, self.length, self.trailing = NEW, None, False
        self._take_headers([(b"content-type", b"text/plain; charset=utf-8")], status)
        self.status = status
        self.bodiless = self.head.method == "HEAD"
        body = b"" if self.bodiless else text
        self.size = len(body)
        self._answer(body, len(text))
        self.complete("application failed")

    def trailers(self, message: Message) -> None:
        """
        http.response.trailers; they are sent when no more are to come.
        """
        if self.phase != TRAILERS:
            raise ApplicationError("http.response.trailers before the body's end, or the start had no trailers=True")
        self.headers += checked(message.get("headers", ()))
        if not message.get("more_trailers", False):
            # RFC 9110 section 6.5.1: not to a client that has not said that it takes them.
            if _takes_trailers(self.head):
                self.stream.trailers(self.headers)
            else:
                self.stream.data(b"", True)
            self.complete("")

    def complete(self, why: str) -> None:
        """
        Let go of the stream. why: "" or what went wrong.
        """
        self.phase = DONE
        self.stream = None
        self.headers = []


def _takes_trailers(head: Head) -> bool:
    codings = comma_list(value for name, value in head.headers if name == b"te")
    return b"trailers" in [coding.lower() for coding in codings]


def _as_bytes(body: object) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise ApplicationError(f"body must be bytes, not {type(body).__name__}")
