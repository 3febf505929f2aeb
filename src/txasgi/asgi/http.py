"""
An HTTP request, from its head to the end of its answer, as the application sees it.

Rules:

* Nothing goes to the stream before it is known to be valid. The start message is kept until the first body message,
  or until the loop has turned once, so a small answer is one write, and an early failure can still be a 500.
* A wrong message raises at the `await send()` that brought it.
* An answer that cannot be completed is never ended as if it were: the stream is reset.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from txasgi.asgi.task import Message, from_disconnect, wait, wake
from txasgi.errors import ApplicationError, ClientDisconnected
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
from txasgi.seam import Field, Head, Outcome, Stream

if TYPE_CHECKING:
    from txasgi.asgi.gate import Gate

# What an answer goes through, in this order, but that any may be followed by LOST.
NEW, HELD, BODY, TRAILERS, DONE, LOST = range(6)

# Read and sent at once for pathsend.
_FILE_BYTES = 262144


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


class HttpExchange(Answer):
    """
    One HTTP request: what the wire drives and what the application awaits.
    """

    __slots__ = (
        "_began",
        "_chunks",
        "_ended",
        "_grace",
        "_receivers",
        "_senders",
        "_stalled",
        "_told",
        "task",
    )

    def __init__(self, gate: Gate, head: Head, stream: Stream) -> None:
        # Answer.__init__, without the call.
        self.gate = gate
        self.head = head
        self.stream = stream
        self.phase = NEW
        self.status = self.size = self.left = 0
        self.length = None
        self.bodiless = self.trailing = False
        self.headers = []
        self._chunks: list[bytes] = []
        self._ended = head.complete
        # Whether the end of the body was told; None once a disconnect was.
        self._told: bool | None = False
        # Made when somebody waits.
        self._receivers: list[asyncio.Future[None]] | None = None
        self._senders: list[asyncio.Future[None]] | None = None
        self._stalled = False
        self._grace: Any = None
        self._began = gate.stopwatch() if gate.report is not None else 0.0
        self.task: Any = None

    # Exchange: from the wire

    def data(self, chunk: bytes) -> None:
        """
        Body bytes.
        """
        self._chunks.append(chunk)
        if self._receivers:
            wake(self._receivers)

    def end(self, trailers: Iterable[Field] = ()) -> None:
        """
        The body is complete.
        """
        self._ended = True
        if self._receivers:
            wake(self._receivers)

    def lost(self, why: str) -> None:
        """
        The client is gone before the answer was complete: tell all who wait, and end the task in a while.
        """
        self.phase = LOST
        self.stream = None
        self._chunks.clear()
        self._wake_all()
        if self.task is not None and not self.task.done():
            self._grace = self.gate.after_disconnect(self.task)
        self._report(why)

    def drain(self) -> None:
        """
        The server is going away; an answer may be finished, so there is nothing to do.
        """

    def pauseProducing(self) -> None:
        """
        The client does not read fast enough.
        """
        self._stalled = True

    def resumeProducing(self) -> None:
        """
        It caught up.
        """
        self._stalled = False
        self._wake_all()

    # What the application awaits

    async def receive(self) -> Message:
        """
        The next part of the body, or http.disconnect once the client left or the answer is complete.
        """
        while True:
            if self.phase >= DONE:
                return await self._disconnect()
            if self._chunks or (self._ended and not self._told):
                return self._take_body()
            if self.head.expects_continue:
                self.head.expects_continue = False
                self.stream.inform(100, ())
            if self._receivers is None:
                self._receivers = []
            await wait(self.gate.loop, self._receivers)

    def _wake_all(self) -> None:
        """
        Whoever waits looks again.
        """
        for waiting in (self._receivers, self._senders):
            if waiting:
                wake(waiting)

    def _take_body(self) -> Message:
        chunks = self._chunks
        # join() of one bytes object is that object.
        body = b"".join(chunks)
        if body:
            chunks.clear()
            self.stream.consumed(len(body))
        self._told = self._ended
        return {"type": "http.request", "body": body, "more_body": not self._ended}

    async def _disconnect(self) -> Message:
        if self._told is None:
            # Asked again: an application that does so in a loop must not keep everybody else from running.
            await asyncio.sleep(0)
        self._told = None
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """
        A message of the answer. Waits while the client is behind.

        Raises ClientDisconnected when the client is gone, ApplicationError for what ASGI does not allow here.
        """
        if self.phase == LOST:
            raise ClientDisconnected("the client is gone")
        kind = message.get("type")
        if kind == "http.response.body":
            self.body(message)
        elif kind == "http.response.start":
            self.start(message)
        elif kind == "http.response.pathsend":
            await self._send_path(message.get("path", ""))
        elif kind == "http.response.trailers":
            self.trailers(message)
        elif kind == "http.response.early_hint":
            self._hint(message)
        else:
            raise ApplicationError(f"{kind!r} is no message of an HTTP answer")
        if self._stalled:
            await self._caught_up()

    async def _caught_up(self) -> None:
        while self._stalled and self.phase < DONE:
            if self._senders is None:
                self._senders = []
            await wait(self.gate.loop, self._senders)
        if self.phase == LOST:
            raise ClientDisconnected("the client is gone")

    def _hint(self, message: Message) -> None:
        """
        103 Early Hints (RFC 8297), before or after the start, as long as nothing of the answer is sent.
        """
        if self.phase <= HELD:
            links = message.get("links", ())
            if not isinstance(links, Iterable) or isinstance(links, (str, bytes)):
                raise ApplicationError(f"links must be a list of bytes, not {links!r}")
            self.stream.inform(103, checked([(b"link", link) for link in links]))

    async def _send_path(self, path: object) -> None:
        """
        The content of a file as the whole body, read in a thread: a disk may be slow.
        """
        if self.phase not in (HELD, BODY) or self.size:
            raise ApplicationError("http.response.pathsend before the start, or after the body")
        if not isinstance(path, (str, bytes, os.PathLike)):
            raise ApplicationError(f"path must be a path, not {path!r}")
        in_thread = self.gate.loop.run_in_executor
        opening = in_thread(None, _open_file, path)
        try:
            file, size = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_file)
            raise
        try:
            if self.length is None:
                self.length = self.left = size
                if self.phase == HELD:
                    self.headers.append((b"content-length", b"%d" % size))
            elif size != self.length:
                raise ApplicationError(f"content-length is {self.length}, the file has {size} bytes")
            offset = 0
            while True:
                count = 0 if self.bodiless else min(_FILE_BYTES, size - offset)
                chunk = await in_thread(None, os.pread, file, count, offset)
                if self.phase == LOST:
                    raise ClientDisconnected("the client is gone")
                offset += len(chunk)
                # A file that became shorter meanwhile breaks the answer off: body() says so.
                more = bool(chunk) and offset < size
                self.body({"type": "http.response.pathsend", "body": chunk, "more_body": more})
                if not more:
                    break
                await self._caught_up()
        finally:
            os.close(file)

    # Endings

    def complete(self, why: str) -> None:
        """
        The answer is sent, or broken off: whoever waits for the disconnect hears of it.
        """
        self.phase = DONE
        self.stream = None
        self._stalled = False
        if self._receivers is not None or self._senders is not None:
            self._wake_all()
        if self.gate.report is not None:
            self._report(why)

    def _report(self, why: str) -> None:
        gate = self.gate
        if gate.report is not None:
            seconds = gate.stopwatch() - self._began
            gate.report(Outcome("http", self.head, self.status, self.size, seconds, why))

    def _task_ended(self) -> None:
        self.gate.tasks.discard(self.task)
        self.task = None
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def returned(self) -> None:
        """
        The application returned; it should have answered.
        """
        # _task_ended, without the call.
        self.gate.tasks.discard(self.task)
        self.task = None
        if self._grace is not None:
            self._grace.cancel()
        if self.phase < DONE:
            self.gate.fault(self.head, "the application returned without completing its answer")
            self.broken("application failed")

    def failed(self, error: BaseException) -> None:
        """
        The application raised: logged once, and a 500 if there is still something to say.
        """
        self._task_ended()
        if self.phase == LOST and (isinstance(error, asyncio.CancelledError) or from_disconnect(error)):
            self.gate.consequence(self.head, error)
            return
        if not isinstance(error, asyncio.CancelledError):
            self.gate.fault(self.head, "the application raised", error)
        elif self.phase >= DONE:
            return
        else:
            self.gate.fault(self.head, "the application was cancelled before its answer was complete")
        if self.phase < DONE:
            self.broken("application failed")


def _takes_trailers(head: Head) -> bool:
    codings = comma_list(value for name, value in head.headers if name == b"te")
    return b"trailers" in [coding.lower() for coding in codings]


def _as_bytes(body: object) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise ApplicationError(f"body must be bytes, not {type(body).__name__}")


def _open_file(path: str | bytes | os.PathLike[str]) -> tuple[int, int]:
    """
    Descriptor and size of a regular file. Raises OSError.
    """
    # A pipe without a writer would hold up the thread for ever.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return file, status.st_size


def _close_file(opening: asyncio.Future[tuple[int, int]]) -> None:
    """
    Whoever wanted the file was cancelled before it was open.
    """
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result()[0])
