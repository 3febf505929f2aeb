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

from txasgi.asgi.answer import BODY, DONE, HELD, LOST, NEW, Answer
from txasgi.asgi.task import Message, from_disconnect, wait, wake
from txasgi.errors import ApplicationError, ClientDisconnected
from txasgi.fields import checked
from txasgi.seam import Field, Head, Outcome, Stream

if TYPE_CHECKING:
    from txasgi.asgi.gate import Gate

# Parts of a body that wait for the application are joined below the one size, up to the other.
_TINY_BYTES = 256
_JOINED_BYTES = 4096
# Read and sent at once for pathsend.
_FILE_BYTES = 262144


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

    @property
    def running(self) -> bool:
        """
        The application's task has not ended.
        """
        return self.task is not None and not self.task.done()

    def data(self, chunk: bytes) -> None:
        """
        Body bytes.
        """
        chunks = self._chunks
        if chunks and len(chunk) < _TINY_BYTES and len(chunks[-1]) < _JOINED_BYTES:
            # As an object of its own, a byte takes 40.
            chunks[-1] += chunk
        else:
            chunks.append(chunk)
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
        elif kind == "http.response.push" and self.head.pushes:
            self._push(message)
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

    def _push(self, message: Message) -> None:
        """
        A promise of another answer; before the end of this one, as it belongs to it (RFC 9113 section 8.4.1).
        """
        path = message.get("path")
        if not isinstance(path, str) or not path.startswith("/") or not path.isascii() or not path.isprintable():
            raise ApplicationError(f"path must be a text that begins with /, percent-encoded, not {path!r}")
        if " " in path or "#" in path:
            raise ApplicationError(f"path must be percent-encoded, and have no fragment: {path!r}")
        fields = checked(message.get("headers", ()))
        if self.phase < DONE:
            self.stream.push(path.encode(), fields)

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
