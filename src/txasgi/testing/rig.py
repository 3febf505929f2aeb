"""
A server without sockets, whose clock is moved by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from twisted.internet.task import Clock

from txasgi.asgi.gate import Gate
from txasgi.asgi.task import Application, Message, Receive, Send
from txasgi.deadlines import Deadlines
from txasgi.errors import PeerError
from txasgi.seam import Exchange, Head, Link, Outcome, Stream
from txasgi.testing.transports import MemoryTransport
from txasgi.wire.front import Front
from txasgi.wire.h1_input import H1Options
from txasgi.wire.h2_output import H2Options


class Rig:
    """
    An application behind a Front, with transports in memory.

    application: an ASGI application, or a `Script`.
    options: keyword arguments for the Gate (`txasgi.asgi.gate`).
    h1, h2: fields of H1Options and H2Options to set. Windows of HTTP/2 streams do not grow unless that is said.
    beside: another application, for targets below /beside; its tasks and outcomes are not counted.

    outcomes, refusals: what was reported.
    errors: what the loop's exception handler got; a test should find it empty.
    awake: clients that have something to do in the next turn of the loop.
    """

    def __init__(
        self,
        application: Application,
        h1: dict[str, Any] | None = None,
        h2: dict[str, Any] | None = None,
        beside: Application | None = None,
        **options: Any,
    ) -> None:
        self.loop = asyncio.new_event_loop()
        self.errors: list[dict[str, Any]] = []
        self.awake: set[object] = set()
        self.loop.set_exception_handler(lambda _loop, context: self.errors.append(context))
        self.clock = Clock()
        # A real clock is never near zero.
        self.clock.advance(1000.0)
        self.deadlines = Deadlines(self.clock.seconds, self.clock.callLater, lambda: 784111777.0)
        self.deadlines.start()
        self.outcomes: list[Outcome] = []
        self.refusals: list[PeerError] = []
        options.setdefault("report", self.outcomes.append)
        if isinstance(application, Script):
            application.rig = self
        self.gate = Gate(application, self.loop, self.deadlines, **options)
        self.h1 = H1Options(
            self.deadlines, self.loop.call_soon, fields=self.gate.fields, refused=self._refused, **(h1 or {})
        )
        self.h2 = H2Options(
            self.deadlines,
            self.loop.call_soon,
            fields=self.gate.fields,
            refused=self._refused,
            **{"largest_window_bytes": 262144, **(h2 or {})},
        )
        self._beside = Gate(beside, self.loop, self.deadlines) if beside is not None else None
        self.front = Front(self.gate.open if beside is None else self._open, self.h1, self.h2)

    def _open(self, head: Head, stream: Stream) -> Exchange:
        assert self._beside is not None
        return (self._beside if head.target.startswith(b"/beside") else self.gate).open(head, stream)

    def _refused(self, _link: Link, error: PeerError) -> None:
        self.refusals.append(error)

    def connect(self, transport: MemoryTransport | None = None) -> MemoryTransport:
        """
        A new connection.
        """
        transport = transport or MemoryTransport()
        transport.connect(self.front.buildProtocol(transport.peer))
        return transport

    def settle(self) -> None:
        """
        Run the loop until nothing is left that is ready to run, and no client is awake. Real time plays no part.
        """
        quiet = 0
        while quiet < 20:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
            quiet = 0 if self.awake else quiet + 1

    def settle_threads(self, done: Callable[[], bool]) -> None:
        """
        Run the loop until *done*; for what waits for a thread (files, the first WebSocket).
        """

        async def poll() -> None:
            while not done():
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(asyncio.wait_for(poll(), 10))

    def advance(self, seconds: float) -> None:
        """
        Let time pass, a tick at a time.
        """
        while seconds > 0:
            step = min(seconds, 0.5)
            self.clock.advance(step)
            seconds -= step
            self.settle()

    def close(self) -> None:
        """
        End what still runs.
        """
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


class Call:
    """
    One run of a scripted application: the test receives and sends in its place.

    scope: what it was called with.
    cancelled, ended: what became of its task.
    """

    def __init__(self, script: Script, scope: Any, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.cancelled = False
        self.ended = False
        self._script = script
        self._receive = receive
        self._send = send
        self._work: set[asyncio.Task[Any]] = set()
        self._end: asyncio.Future[None] = script.rig.loop.create_future()

    async def run(self) -> None:
        """
        The application: waits until the test ends it.
        """
        try:
            await self._end
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended = True
            for task in self._work:
                task.cancel()

    def _start(self, work: Any) -> asyncio.Task[Any]:
        rig = self._script.rig
        task = rig.loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        rig.settle()
        return task

    def receiving(self) -> asyncio.Task[Message]:
        """
        await receive(), which may wait.
        """
        return self._start(self._receive())

    def receive(self) -> Message:
        """
        receive() that has an answer at once.
        """
        task = self.receiving()
        assert task.done(), "receive() waits"
        return task.result()

    def sending(self, message: Message) -> asyncio.Task[None]:
        """
        await send(message), which may wait.
        """
        return self._start(self._send(message))

    def send(self, *messages: Message) -> None:
        """
        send() each; none of them waits. Raises what send() raises.
        """
        for message in messages:
            task = self.sending(message)
            assert task.done(), "send() waits"
            task.result()

    def finish(self) -> None:
        """
        The application returns.
        """
        if not self._end.done():
            self._end.set_result(None)
        self._script.rig.settle()

    def fail(self, error: BaseException) -> None:
        """
        The application raises.
        """
        if not self._end.done():
            self._end.set_exception(error)
        self._script.rig.settle()


class Script:
    """
    An application that does what a test says, call by call.

    calls: in the order in which they came.
    """

    rig: Rig

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        call = Call(self, scope, receive, send)
        self.calls.append(call)
        await call.run()

    @property
    def call(self) -> Call:
        """
        The last one.
        """
        return self.calls[-1]


def response_start(status: int = 200, headers: Iterable[tuple[bytes, bytes]] = (), **more: Any) -> Message:
    """
    http.response.start
    """
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def response_body(body: bytes = b"", more: bool = False) -> Message:
    """
    http.response.body
    """
    return {"type": "http.response.body", "body": body, "more_body": more}
