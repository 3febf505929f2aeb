"""
A WebSocket, as the application sees it.

Rules:

* The handshake is checked before the application runs (`txasgi.ws.handshake`); it decides with accept, close (403) or a
  denial response.
* The receive queue is finite, in messages and in bytes. While it is full nothing more is read, and what was read stays
  unparsed in the engine.
* The end is told once as websocket.disconnect, with the peer's code, 1006 when it just left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from txasgi.asgi.answer import DONE, LOST, Answer
from txasgi.asgi.task import Message, from_disconnect, wait, wake
from txasgi.errors import ApplicationError, ClientDisconnected
from txasgi.fields import checked
from txasgi.seam import Field, Head, Outcome, Stream
from txasgi.ws import engine
from txasgi.ws.handshake import HandshakeRequest, accept_fields, agree_deflate

if TYPE_CHECKING:
    from txasgi.asgi.gate import Gate

# What a WebSocket goes through. DENYING is a denial response.
CONNECTING, OPEN, DENYING, CLOSING, CLOSED = range(5)

# Bytes the application may have to take, beside the number of messages; a single message may be larger.
_QUEUE_BYTES = 262144
# Give the peer credit for what was taken in pieces of this size, not for each frame.
_CREDIT_BYTES = 16384
# For the peer's close frame after ours; websockets 10 s.
_CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class WebSocketOptions:
    """
    max_size: largest message in bytes.
    max_queue: messages that wait for the application before reading pauses.
    ping_interval_s, ping_timeout_s: 0 is never.
    deflate: agree to permessage-deflate.
    """

    max_size: int = 16 * 1024 * 1024
    max_queue: int = 32
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    deflate: bool = True


class WebSocketExchange:
    """
    One WebSocket: what the wire drives, what the application awaits, what the engine tells.
    """

    def __init__(self, gate: Gate, head: Head, stream: Stream, request: HandshakeRequest) -> None:
        self.gate = gate
        self.head = head
        self.task: Any = None
        self._stream: Any = stream
        self._request = request
        self._options = gate.websocket
        self._phase = CONNECTING
        self._events: deque[Message] = deque([{"type": "websocket.connect"}])
        self._queued_bytes = 0
        self._disconnect: dict[str, Any] | None = None
        self._told = False
        # The application ended it, so that what it sends afterwards is its own fault.
        self._ended_by_us = False
        self._engine: Any = None
        self._denial: Answer | None = None
        self._receivers: list[asyncio.Future[None]] = []
        self._senders: list[asyncio.Future[None]] = []
        self._stalled = False
        self._owed = 0
        self._sent = 0
        self._began = gate.stopwatch()
        self._grace: Any = None
        self._draining = False
        # A Waiter for pings and for the peer's close frame.
        self.deadline: float | None = None
        self.due: int | None = None
        self._pinged: bytes | None = None
        self._pinged_at = 0.0
        # Round-trip time of the last ping, in seconds.
        self.round_trip_s: float | None = None

    # Exchange: from the wire

    @property
    def running(self) -> bool:
        """
        The application's task has not ended.
        """
        return self.task is not None and not self.task.done()

    def data(self, chunk: bytes) -> None:
        """
        Bytes from the tunnel.
        """
        self._owed += len(chunk)
        self._engine.receive(chunk)
        if self._owed >= _CREDIT_BYTES and not self._engine.paused:
            self._give_credit()

    def _give_credit(self) -> None:
        owed, self._owed = self._owed, 0
        if self._stream is not None and owed:
            self._stream.consumed(owed)

    def end(self, trailers: Iterable[Field] = ()) -> None:
        """
        The peer closed its side without a close frame.
        """
        if self._phase in (OPEN, CLOSING):
            self._over(1006, "")
        elif self._phase == CONNECTING:
            # It will send no frame, whatever the application decides.
            self._break("client left")

    def lost(self, why: str) -> None:
        """
        The peer is gone.
        """
        self._stream = None
        if self._denial is not None:
            self._denial.phase = LOST
        self._end_with(1006, "")

    def drain(self) -> None:
        """
        The server is going away: close with 1012 (Service Restart), and refuse what is not open yet.
        """
        self._draining = True
        if self._phase == OPEN:
            self._close(1012, "")

    def pauseProducing(self) -> None:
        """
        The peer does not read fast enough: senders wait, and we read nothing that asks for an answer.
        """
        self._stalled = True
        if self._engine is not None:
            self._engine.paused = True

    def resumeProducing(self) -> None:
        """
        The peer caught up.
        """
        self._stalled = False
        wake(self._senders)
        self._read_on()

    # Listener: from the engine

    def message(self, payload: str | bytes) -> None:
        """
        A message for the application.
        """
        if self._phase != OPEN:
            return
        if payload.__class__ is str:
            self._events.append({"type": "websocket.receive", "text": payload})
        else:
            self._events.append({"type": "websocket.receive", "bytes": payload})
        self._queued_bytes += len(payload)
        if self._receivers:
            wake(self._receivers)
        if len(self._events) >= self._options.max_queue or self._queued_bytes >= _QUEUE_BYTES:
            self._engine.paused = True

    def pong(self, payload: bytes) -> None:
        """
        A pong; ours if it has the payload of our ping.
        """
        if payload == self._pinged:
            self._pinged = None
            self.round_trip_s = self.gate.stopwatch() - self._pinged_at
            self._wait_for(self._options.ping_interval_s)

    def closed(self, code: int, reason: str) -> None:
        """
        The closing handshake is complete, or the peer broke a rule.
        """
        self._over(code, reason)

    # Endings

    def _over(self, code: int, reason: str) -> None:
        """
        Close the tunnel, in order.
        """
        stream, self._stream = self._stream, None
        self._end_with(code, reason)
        if stream is not None:
            stream.data(b"", True)

    def _end_with(self, code: int, reason: str) -> None:
        """
        Nothing goes either way any more; the application is told, and its task ended in a while.
        """
        was, self._phase = self._phase, CLOSED
        self.gate.deadlines.forget(self)
        if self._engine is not None:
            self._engine.stop()
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
        wake(self._receivers)
        wake(self._senders)
        # As with a complete answer: what an application does after its own close goes on.
        if self.task is not None and self._grace is None and not self._ended_by_us:
            self._grace = self.gate.after_disconnect(self.task)
        if was in (OPEN, CLOSING):
            self._report("close", code, reason)
        elif was != CLOSED:
            self._report("http", 0, "client left")

    def _report(self, kind: str, status: int, why: str) -> None:
        if self.gate.report is not None:
            seconds = self.gate.stopwatch() - self._began
            self.gate.report(Outcome(kind, self.head, status, self._sent, seconds, why))

    def _close(self, code: int, reason: str) -> None:
        self._phase = CLOSING
        self._pinged = None
        self._engine.close(code, reason)
        self._wait_for(_CLOSE_S)
        wake(self._senders)
        # The peer's close frame may be behind messages that nobody will take any more.
        self._read_on()

    # Waiter

    def _wait_for(self, seconds: float) -> None:
        if seconds > 0:
            self.gate.deadlines.within(self, seconds)
        else:
            self.deadline = None

    def expired(self) -> None:
        """
        Time for a ping, or over the time for a pong or for the peer's close frame.
        """
        if self._phase == CLOSING:
            self._break("no close frame from the client in time")
        elif self._phase == OPEN:
            if self._pinged is None or (self._engine.paused and not self._stalled):
                # While the application is behind we don't read, and its pong may well have come.
                self._pinged_at = self.gate.stopwatch()
                self._pinged = self._engine.ping()
                self._wait_for(self._options.ping_timeout_s or self._options.ping_interval_s)
            elif self._options.ping_timeout_s:
                self._engine.close(1011, "keepalive ping timeout")
                self._break("keepalive ping timeout")
            else:
                self._pinged = None
                self._wait_for(self._options.ping_interval_s)

    def _break(self, why: str) -> None:
        stream, self._stream = self._stream, None
        self._end_with(1006, why)
        if stream is not None:
            stream.reset(why)

    # What the application awaits

    async def receive(self) -> Message:
        """
        The next event.
        """
        while True:
            if self._events:
                return self._take()
            if self._disconnect is not None:
                if self._told:
                    # Asked again: an application that does so in a loop must not keep all others from running.
                    await asyncio.sleep(0)
                self._told = True
                return self._disconnect.copy()
            await wait(self.gate.loop, self._receivers)

    def _take(self) -> Message:
        event = self._events.popleft()
        payload = event.get("text") or event.get("bytes")
        if payload:
            self._queued_bytes -= len(payload)
        if self._engine is not None and self._engine.paused:
            self._read_on()
        return event

    def _read_on(self) -> None:
        open_for_more = self._phase == CLOSING or (
            len(self._events) <= self._options.max_queue // 2 and self._queued_bytes <= _QUEUE_BYTES // 2
        )
        if self._engine is not None and self._engine.paused and not self._stalled and open_for_more:
            self._engine.resume()
            if not self._engine.paused:
                self._give_credit()

    async def send(self, message: Message) -> None:
        """
        A message to the client. Waits while the client is behind.

        Raises ClientDisconnected when the client is gone, ApplicationError for what ASGI does not allow here.
        """
        kind = message.get("type")
        if self._phase == OPEN:
            if kind == "websocket.send":
                self._send(message)
                while self._stalled and self._phase == OPEN:
                    await wait(self.gate.loop, self._senders)
                    if self._phase == CLOSED:
                        raise ClientDisconnected("the client is gone")
            elif kind == "websocket.close":
                code, reason = _close_of(message)
                self._ended_by_us = True
                self._close(code, reason)
            else:
                raise ApplicationError(f"{kind!r} is no message of an open WebSocket")
        elif self._phase == CONNECTING:
            await self._decide(kind, message)
        elif self._phase == DENYING:
            await self._deny(kind, message)
        elif self._ended_by_us:
            raise ApplicationError(f"{kind!r} after the end of the WebSocket")
        else:
            raise ClientDisconnected("the client is gone")

    def _send(self, message: Message) -> None:
        text, data = message.get("text"), message.get("bytes")
        if text is not None and data is None and isinstance(text, str):
            self._sent += self._engine.send(text)
        elif data is not None and text is None and isinstance(data, (bytes, bytearray, memoryview)):
            self._sent += self._engine.send(bytes(data))
        else:
            raise ApplicationError("websocket.send takes either text, a str, or bytes")

    async def _decide(self, kind: object, message: Message) -> None:
        if kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.close":
            self._phase = DENYING
            self._denial = Denial(self)
            self._denial.start({"type": kind, "status": 403, "headers": [(b"content-type", b"text/plain")]})
            self._denial.body({"type": kind, "body": b"Forbidden\n"})
        elif kind == "websocket.http.response.start":
            self._denial = Denial(self)
            self._denial.start(message)
            self._phase = DENYING
        else:
            raise ApplicationError(f"{kind!r} before the WebSocket is accepted")

    async def _accept(self, message: Message) -> None:
        deflate = agree_deflate(self._request.extensions) if self._options.deflate else None
        fields = accept_fields(self._request, message.get("subprotocol"), deflate)
        own = {b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol"}
        extra = checked(message.get("headers", ()))
        for name, _ in extra:
            if name in own:
                raise ApplicationError(f"{name.decode()} is set by the server")
        if not engine.loaded():
            await self.gate.loop.run_in_executor(None, engine.load)
        if self._stream is None:
            raise ClientDisconnected("the client is gone")
        if self._phase != CONNECTING:
            raise ApplicationError("websocket.accept was sent already")
        given = {name for name, _ in extra}
        default = [field for field in self.gate.fields if field[0] not in given]
        write = self._stream.tunnel([*fields, *extra, *default])
        options = engine.EngineOptions(self._options.max_size)
        self._engine = engine.Engine(write, self, options, deflate)
        self._phase = OPEN
        self._report("open", 200 if self.head.version == "2" else 101, "")
        self._wait_for(self._options.ping_interval_s)
        if self._draining:
            self._close(1012, "")

    async def _deny(self, kind: object, message: Message) -> None:
        denial = self._denial
        assert denial is not None
        if kind != "websocket.http.response.body":
            raise ApplicationError(f"{kind!r} while the WebSocket is denied")
        denial.body(message)
        while self._stalled and self._phase == DENYING:
            await wait(self.gate.loop, self._senders)

    def denied(self, answer: Answer, why: str) -> None:
        """
        The denial response is complete, or broken off.
        """
        self._stream = None
        self._phase = CLOSED
        self._ended_by_us = True
        self._disconnect = {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        wake(self._receivers)
        self._sent = answer.size
        self._report("http", answer.status, why)

    # The task

    def _task_ended(self) -> None:
        self.gate.tasks.discard(self.task)
        self.task = None
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def returned(self) -> None:
        """
        The application returned. An open WebSocket is closed with 1000, an undecided one denied.
        """
        self._task_ended()
        if self._phase == OPEN:
            self._close(1000, "")
        elif self._phase in (CONNECTING, DENYING):
            self.gate.fault(self.head, "the application returned without accepting or closing the WebSocket")
            self._answer_500()

    def failed(self, error: BaseException) -> None:
        """
        The application raised: logged once; the client gets 1011, or 500 if it was not accepted.
        """
        self._task_ended()
        cancelled = isinstance(error, asyncio.CancelledError)
        if self._phase in (CLOSING, CLOSED) and (cancelled or from_disconnect(error)):
            self.gate.consequence(self.head, error)
            return
        if not cancelled:
            self.gate.fault(self.head, "the application raised", error)
        if self._phase == OPEN:
            self._close(1012 if cancelled else 1011, "")
        elif self._phase in (CONNECTING, DENYING):
            self._answer_500()

    def _answer_500(self) -> None:
        if self._denial is None:
            self._denial = Denial(self)
            self._phase = DENYING
        if self._denial.phase < DONE:
            self._denial.broken("application failed")


class Denial(Answer):
    """
    The HTTP answer to a WebSocket that the application does not want.
    """

    __slots__ = ("_exchange",)

    def __init__(self, exchange: WebSocketExchange) -> None:
        Answer.__init__(self, exchange.gate, exchange.head, exchange._stream)
        self._exchange = exchange

    def complete(self, why: str) -> None:
        """
        Sent, or broken off.
        """
        Answer.complete(self, why)
        self._exchange.denied(self, why)


def _close_of(message: Message) -> tuple[int, str]:
    """
    Code and reason of websocket.close. Raises ApplicationError for a code that may not be sent (RFC 6455 section 7.4).
    """
    code = message.get("code", 1000)
    reason = message.get("reason") or ""
    if code is None:
        code = 1000
    if not isinstance(code, int) or not (
        (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code <= 4999
    ):
        raise ApplicationError(f"{code!r} is no close code that may be sent (RFC 6455 section 7.4)")
    if not isinstance(reason, str):
        raise ApplicationError(f"reason must be a str, not {type(reason).__name__}")
    return code, reason
