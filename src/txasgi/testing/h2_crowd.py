"""
Other streams on a connection, that never come to an end: what they do must not matter to the streams under test.
"""

from __future__ import annotations

import asyncio
from typing import Any

from txasgi.asgi.task import Receive, Send
from txasgi.testing.h2_client import H2Client
from txasgi.testing.h2_stream import ClientStream
from txasgi.testing.rig import response_body, response_start

UNREAD, UNTAKEN = 20, 5

# RFC 9113 section 6.9.2: the window of a stream, as long as no SETTINGS say otherwise.
_WINDOW = 65535

_UPLOAD = bytes(4 * 1024 * 1024)


async def beside(scope: Any, _receive: Receive, send: Send) -> None:
    """
    The application of the crowd, for `Rig`: answers without end, or takes nothing of its request's body.
    """
    await send(response_start())
    while scope["method"] == "GET":
        await send(response_body(bytes(16384), more=True))
    await asyncio.Event().wait()


def crowd(client: H2Client) -> list[ClientStream]:
    """
    Open streams whose answers are never read, and others whose applications never take their bodies.
    """
    unread = [client.open(_head(b"GET"), end=True, reads=False) for _ in range(UNREAD)]
    untaken = [client.open(_head(b"POST"), end=False) for _ in range(UNTAKEN)]
    for stream in untaken:
        client.send(stream, _UPLOAD)
    assert [(stream.answer.status, stream.received) for stream in unread] == [(200, _WINDOW)] * UNREAD
    assert all(0 < stream.untaken < len(_UPLOAD) for stream in untaken)
    return unread + untaken


def _head(method: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", method),
        (b":scheme", b"http"),
        (b":authority", b"conform.test"),
        (b":path", b"/beside"),
    ]
