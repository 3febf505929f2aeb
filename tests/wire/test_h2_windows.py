"""
How much of a body a client may send ahead.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from txasgi.testing.rig import Rig

KIB = 1024
MIB = 1024 * KIB
ASKED = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")]


async def takes_all(scope: Any, receive: Any, send: Any) -> None:
    """
    Reads the body as fast as it comes.
    """
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def takes_nothing(scope: Any, receive: Any, send: Any) -> None:
    """
    Waits for something else, until it is cancelled.
    """
    await asyncio.get_running_loop().create_future()


def widest(application: Any, size: int, **h2: Any) -> int:
    """
    The largest window that a client is given while it uploads so many bytes, or as many as it may.
    """
    rig = Rig(application, report=None, h2=h2)
    transport = rig.connect()
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    found = 0

    def exchange() -> None:
        transport.receive(client.data_to_send())
        rig.settle()
        if answer := transport.take():
            client.receive_data(answer)

    exchange()
    client.send_headers(1, ASKED)
    sent = 0
    while sent < size:
        exchange()
        window = client.local_flow_control_window(1)
        found = max(found, window)
        if not window:
            break
        while sent < size and (room := min(client.local_flow_control_window(1), 16 * KIB, size - sent)):
            client.send_data(1, bytes(room))
            sent += room
    transport.lose()
    rig.advance(15)
    rig.close()
    return found


@pytest.mark.parametrize(("limit", "expected"), [(256 * KIB, 256 * KIB), (MIB, MIB)])
def test_window_grows_with_the_application(limit: int, expected: int) -> None:
    """
    The window of an upload that is taken as it comes doubles up to its limit; halves of it are given back at once.
    """
    found = widest(takes_all, 8 * MIB, largest_window_bytes=limit)
    assert expected // 2 <= found <= expected


def test_window_of_one_that_waits() -> None:
    """
    An application that takes nothing is sent no more than the first window.
    """
    assert widest(takes_nothing, 8 * MIB, largest_window_bytes=MIB) == 256 * KIB
