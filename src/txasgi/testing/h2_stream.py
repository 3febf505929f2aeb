"""
A stream of an HTTP/2 connection from the client's side: what of its request was not sent, what of its answer was read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from txasgi.seam import Field
from txasgi.testing.conform.http_peer import Answer

# Answers that have no body whatever their content-length says (RFC 9113 section 8.1.1).
_EMPTY = {204, 304}


class ClientStream:
    """
    One request, and what has been read of its answer.

    reads: False for one whose window is never given back, while that of the connection is.

    promised: fields of the PUSH_PROMISE, pseudo fields included, where the server began it.
    pushed: what it promised on this one.
    code: of the RST_STREAM that the server sent, if it did.
    given_up: this side reset it.
    received: body bytes so far.
    """

    def __init__(self, number: int, method: bytes, reads: bool) -> None:
        self.number = number
        self.reads = reads
        self.answer = Answer()
        self.promised: list[Field] = []
        self.pushed: list[ClientStream] = []
        self.code: int | None = None
        self.given_up = False
        self.received = 0
        self.unacknowledged = 0
        self._method = method
        self._parts: list[bytes] = []
        # Of each sending: what is left, and how much of it a read has at most.
        self._queue: deque[tuple[memoryview, int]] = deque()
        self._ending: Sequence[Field] | None = None
        self._ended = False

    @property
    def was_reset(self) -> bool:
        """
        By either side.
        """
        return self.given_up or self.code is not None

    @property
    def over(self) -> bool:
        """
        The server has ended its half, or either side reset it.
        """
        return self.answer.complete or self.was_reset

    @property
    def untaken(self) -> int:
        """
        Bytes that the windows do not let go.
        """
        return sum(len(view) for view, _ in self._queue)

    def body(self) -> bytes:
        """
        Of the answer, as far as it was read.
        """
        self._parts = [b"".join(self._parts)]
        return self._parts[0]

    def take(self) -> bytes:
        """
        What came since the last time; taken.
        """
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken

    def queue(self, data: bytes, read_bytes: int, end: bool, trailers: Sequence[Field]) -> None:
        """
        Send this, at most *read_bytes* a read; end says that nothing but trailers comes behind it. Ignored after that.
        """
        if self._ended:
            return
        if data:
            self._queue.append((memoryview(data), read_bytes))
        if end:
            self._ending, self._ended = trailers, True

    def drop(self) -> None:
        """
        Forget what was not sent.
        """
        self._queue.clear()
        self._ending = None

    def send(self, h2: H2Connection) -> bool:
        """
        Send a read's worth, as far as the windows go. False if nothing can be sent.
        """
        left = self._queue[0][1] if self._queue else 0
        sent = False
        while self._queue:
            view, read_bytes = self._queue[0]
            size = min(len(view), left, h2.local_flow_control_window(self.number), h2.max_outbound_frame_size)
            if size == 0:
                return sent
            if size == len(view):
                self._queue.popleft()
            else:
                self._queue[0] = view[size:], read_bytes
            last = not self._queue and self._ending is not None and not self._ending
            h2.send_data(self.number, bytes(view[:size]), end_stream=last)
            if last:
                self._ending = None
            left -= size
            sent = True
        if self._ending is not None:
            if self._ending:
                h2.send_headers(self.number, self._ending, end_stream=True)
            else:
                h2.end_stream(self.number)
            self._ending = None
            sent = True
        return sent

    def heard(self, event: Event) -> None:
        """
        Read a part of the answer.
        """
        answer = self.answer
        if isinstance(event, InformationalResponseReceived):
            status, fields = _split(event.headers)
            answer.informational.append((status, fields))
        elif isinstance(event, ResponseReceived):
            answer.status, answer.headers = _split(event.headers)
        elif isinstance(event, DataReceived):
            self._parts.append(event.data)
            self.received += len(event.data)
        elif isinstance(event, TrailersReceived):
            answer.trailers = plain(event.headers)
        elif isinstance(event, StreamEnded):
            answer.complete = True
            self._check_length()
        elif isinstance(event, StreamReset):
            assert event.remote_reset, f"stream {self.number}: the server broke a rule, {event.error_code!r}"
            self.code = int(event.error_code)
            answer.reset = not (answer.complete and self.code == ErrorCodes.NO_ERROR)
            self.drop()

    def _check_length(self) -> None:
        # h2 forgets content-length when trailers come.
        lengths = self.answer.values(b"content-length")
        if lengths and self._method != b"HEAD" and self.answer.status not in _EMPTY:
            assert [b"%d" % self.received] == lengths, "the body has another length than content-length says"


def plain(headers: Iterable[tuple[bytes | str, bytes | str]]) -> list[Field]:
    """
    Fields as h2 gives them, without its types.
    """
    fields: list[Field] = []
    for name, value in headers:
        assert isinstance(name, bytes) and isinstance(value, bytes)
        fields.append((bytes(name), bytes(value)))
    return fields


def _split(headers: Iterable[tuple[bytes | str, bytes | str]]) -> tuple[int, list[Field]]:
    """
    The status, and the fields without it.
    """
    fields = plain(headers)
    (status,) = [value for name, value in fields if name == b":status"]
    return int(status), [field for field in fields if not field[0].startswith(b":")]
