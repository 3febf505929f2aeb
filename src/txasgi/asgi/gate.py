"""
Where a wire meets the application: open(head, stream) makes the scope, picks the exchange and starts its task.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Iterable
from typing import Any

from txasgi.asgi.answer import HELD
from txasgi.asgi.http import HttpExchange
from txasgi.asgi.refused import Refused
from txasgi.asgi.scope import RootPath, http_scope, websocket_scope
from txasgi.asgi.task import Application, run
from txasgi.asgi.websocket import WebSocketExchange, WebSocketOptions
from txasgi.deadlines import Deadlines, Timer
from txasgi.errors import HandshakeRefused
from txasgi.seam import Exchange, Field, Head, Report, Stream
from txasgi.ws.handshake import examine

_log = logging.getLogger("txasgi.error")


class Gate:
    """
    One application behind any number of connections.

    application: an ASGI 3 callable.
    state: what lifespan startup left in its scope; None without lifespan.
    root_path: where the application lives.
    server, date, extra_fields: what every answer carries; server and date are left to the application if it sends them.
    disconnect_grace_s: time for a task whose client left before it is cancelled.
    report: gets the Outcome of each request, or None.

    fields: server, date and extra fields as they are sent now; the same list as long as the gate lives.
    tasks: of applications that run.
    """

    def __init__(
        self,
        application: Application,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        *,
        state: dict[str, Any] | None = None,
        root_path: str = "",
        server: bytes | None = b"txasgi",
        date: bool = True,
        extra_fields: Iterable[Field] = (),
        disconnect_grace_s: float = 10.0,
        websocket: WebSocketOptions | None = None,
        report: Report | None = None,
    ) -> None:
        self.application = application
        self.loop = loop
        self.deadlines = deadlines
        self.now = deadlines.now
        # For durations: uvloop's loop.time() stands still within a turn, and counts in milliseconds.
        self.stopwatch = time.perf_counter
        self.state = state
        self.root = RootPath(root_path)
        self.report = report
        self.websocket = websocket if websocket is not None else WebSocketOptions()
        self.tasks: set[asyncio.Task[None]] = set()
        # The tasks of requests start from what is set now, not from the request or connection that came before.
        self.context = contextvars.copy_context()
        self._disconnect_grace_s = disconnect_grace_s
        self.held: list[Any] = []
        self.server_field = (b"server", server) if server is not None else None
        self.date_field: Field | None = None
        self.extra_fields = list(extra_fields)
        self.fields: list[Field] = []
        self._dated = date
        self.refresh_date()
        deadlines.each_tick(self.refresh_date)

    def refresh_date(self) -> None:
        """
        Write the time of day into the fields of answers.
        """
        self.date_field = (b"date", self.deadlines.date()) if self._dated else None
        self.fields[:] = [f for f in (self.server_field, self.date_field, *self.extra_fields) if f is not None]

    def open(self, head: Head, stream: Stream) -> Exchange:
        """
        What wires are given: begin a request.
        """
        exchange: HttpExchange | WebSocketExchange
        if head.protocol is None:
            exchange = HttpExchange(self, head, stream)
            scope = http_scope(head, self.root, self.state)
        else:
            try:
                request = examine(head)
            except HandshakeRefused as error:
                return Refused(self, head, stream, error)
            exchange = WebSocketExchange(self, head, stream, request)
            scope = websocket_scope(head, self.root, self.state)
        # A context of its own for each, so that what one sets no other sees.
        task = self.loop.create_task(run(self.application, scope, exchange), context=self.context.copy())
        exchange.task = task
        self.tasks.add(task)
        return exchange

    def flush_soon(self) -> None:
        """
        When the loop has turned once, flush the answers in `held` whose body has not come by then.

        One call of the loop serves all that begin an answer in the same turn.
        """
        self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        held, self.held = self.held, []
        for answer in held:
            if answer.phase == HELD:
                answer.flush()

    def after_disconnect(self, task: asyncio.Task[None]) -> Timer | None:
        """
        Cancel this task when the grace is over.
        """
        if self._disconnect_grace_s <= 0:
            # Not before its first step: it would end without ever having run, and nobody would clear up behind it.
            self.loop.call_soon(task.cancel)
            return None
        return self.deadlines.after(self._disconnect_grace_s, task.cancel)

    def fault(self, head: Head, what: str, error: BaseException | None = None) -> None:
        """
        Log a fault of the application, with its traceback if there is one.
        """
        target = head.target.decode("latin-1")
        _log.error("%s: %s %s", what, head.method, target, exc_info=error)

    def consequence(self, head: Head, error: BaseException) -> None:
        """
        What an application raised because its client left is no fault; it can be seen at log level debug.
        """
        _log.debug("the client left: %s %s", head.method, head.target.decode("latin-1"), exc_info=error)
