"""
The lifespan of an application: startup before the first listener, shutdown after the last connection (lifespan 2.0).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from txasgi.asgi.task import Application, Message
from txasgi.errors import ApplicationError, LifespanError

_log = logging.getLogger("txasgi.error")

MODES = ("auto", "on", "off")


class Lifespan:
    """
    One application's lifespan.

    mode: "auto" goes on without when the application does not know lifespan, "on" takes that for a failure, "off" never
    asks.
    state: what startup put into scope["state"]; None as long as, or when, there is no lifespan.
    """

    def __init__(self, application: Application, loop: asyncio.AbstractEventLoop, mode: str = "auto") -> None:
        self._application = application
        self._loop = loop
        self._mode = mode
        self.state: dict[str, Any] | None = None
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[str | None] | None = None
        self._stopped: asyncio.Future[str | None] | None = None

    async def startup(self) -> None:
        """
        Send lifespan.startup and wait for the answer. Raises LifespanError when it fails.
        """
        if self._mode == "off":
            return
        self._started = self._loop.create_future()
        self._stopped = self._loop.create_future()
        state: dict[str, Any] = {}
        self._events.put_nowait({"type": "lifespan.startup"})
        self._task = self._loop.create_task(self._run(state))
        failure = await self._started
        if failure is None:
            if not self._task.done():
                self.state = state
            return
        raise LifespanError(f"the application's startup failed{': ' if failure else ''}{failure}")

    async def shutdown(self) -> None:
        """
        Send lifespan.shutdown and wait for the answer; a failure is logged.
        """
        started = self._started is not None and self._started.done()
        if self._task is None or self._task.done() or self._stopped is None or not started:
            return
        self._events.put_nowait({"type": "lifespan.shutdown"})
        failure = await self._stopped
        if failure is not None:
            _log.error("the application's shutdown failed: %s", failure)
        # Its task may have more to do behind shutdown.complete.
        await asyncio.wait([self._task])

    def cancel(self) -> None:
        """
        Do not wait for it any longer.
        """
        if self._task is not None:
            self._task.cancel()

    async def _run(self, state: dict[str, Any]) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        assert self._started is not None and self._stopped is not None
        try:
            await self._application(scope, self._receive, self._send)
        except Exception as error:  # An application may raise anything.
            if self._started.done():
                _log.error("the application's lifespan raised", exc_info=error)
            elif self._mode == "on":
                _log.error("the application's lifespan raised", exc_info=error)
                self._started.set_result(str(error) or type(error).__name__)
            else:
                # It does not know lifespan: the specification has it raise.
                _log.debug("no lifespan: the application raised %r", error)
                self._started.set_result(None)
        finally:
            if not self._started.done():
                self._started.set_result("it returned without an answer" if self._mode == "on" else None)
            if not self._stopped.done():
                self._stopped.set_result(None)

    async def _receive(self) -> Message:
        return await self._events.get()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        assert self._started is not None and self._stopped is not None
        if kind == "lifespan.startup.complete" and not self._started.done():
            self._started.set_result(None)
        elif kind == "lifespan.startup.failed" and not self._started.done():
            self._started.set_result(str(message.get("message", "")))
        elif kind == "lifespan.shutdown.complete" and not self._stopped.done():
            self._stopped.set_result(None)
        elif kind == "lifespan.shutdown.failed" and not self._stopped.done():
            self._stopped.set_result(str(message.get("message", "")))
        else:
            raise ApplicationError(f"{kind!r} is no lifespan message, or comes out of turn")
