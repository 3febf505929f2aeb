"""
Running an application for one request, and waiting in its receive() and send().
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from txasgi.errors import ClientDisconnected

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Served(Protocol):
    """
    An exchange, as its task sees it.
    """

    async def receive(self) -> Message:
        """
        What the application awaits.
        """

    async def send(self, message: Message) -> None:
        """
        What the application awaits.
        """

    def returned(self) -> None:
        """
        The application returned.
        """

    def failed(self, error: BaseException) -> None:
        """
        The application raised, or was cancelled.
        """


async def run(application: Application, scope: MutableMapping[str, Any], exchange: Served) -> None:
    """
    Run the application; its fate is told to the exchange.
    """
    try:
        await application(scope, exchange.receive, exchange.send)
    except asyncio.CancelledError as error:
        exchange.failed(error)
        raise
    except Exception as error:  # An application may raise anything; it is logged there, once.
        exchange.failed(error)
    else:
        exchange.returned()


async def wait(loop: asyncio.AbstractEventLoop, waiting: list[asyncio.Future[None]]) -> None:
    """
    Wait until `wake(waiting)`. Several tasks may wait on one list; each has a future of its own, as a task that is
    cancelled takes the future that it waits for along.
    """
    future = loop.create_future()
    waiting.append(future)
    try:
        await future
    except asyncio.CancelledError:
        if future in waiting:
            waiting.remove(future)
        raise


def wake(waiting: list[asyncio.Future[None]]) -> None:
    """
    End the waiting of all.
    """
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


def from_disconnect(error: BaseException | None) -> bool:
    """
    Whether an exception is ClientDisconnected, or was raised because of it and nothing else.

    Starlette raises an exception of its own from it, task groups wrap it in an ExceptionGroup.
    """
    if isinstance(error, ClientDisconnected):
        return True
    if isinstance(error, BaseExceptionGroup):
        return all(from_disconnect(inner) for inner in error.exceptions)
    return error is not None and from_disconnect(error.__cause__ or error.__context__)
