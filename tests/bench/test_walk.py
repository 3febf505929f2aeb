"""
How many Python functions a request walks through. It counts, so it cannot flake.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from types import FrameType
from typing import Any

from txasgi.testing.rig import Rig

# Uvicorn 21, Daphne 161, Hypercorn 236 (h11 alone 180).
BUDGET = 45

_STANDARD_LIBRARY = os.path.dirname(os.__file__)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


class NullTransport:
    """
    A transport that does no work of its own.
    """

    written = 0

    def write(self, data: bytes) -> None:
        self.written += 1

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def walked(request: bytes) -> Counter[str]:
    rig = Rig(hello, report=None)
    transport = NullTransport()
    connection = rig.front.buildProtocol(None)  # type: ignore[arg-type]
    connection.makeConnection(transport)

    def once() -> None:
        connection.dataReceived(request)
        for _ in range(3):
            rig.loop.call_soon(rig.loop.stop)
            rig.loop.run_forever()

    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        ours = "site-packages" in code.co_filename or not code.co_filename.startswith(_STANDARD_LIBRARY)
        if event == "call" and ours and code.co_filename != __file__ and not code.co_filename.startswith("<"):
            calls[f"{os.path.basename(code.co_filename)}:{code.co_name}"] += 1

    once()
    before = transport.written
    sys.setprofile(count)
    try:
        once()
    finally:
        sys.setprofile(None)
    assert transport.written == before + 1, "one write for a small answer"
    rig.close()
    return calls


def test_keep_alive_get() -> None:
    """
    A keep-alive GET makes at most 45 Python calls outside the standard library.
    """
    calls = walked(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n")

    assert sum(calls.values()) <= BUDGET, calls


def test_each_header_is_one_call() -> None:
    """
    A header more is a Python call more, not two.
    """
    plain = walked(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n")
    more = walked(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n" + b"X-Header: value\r\n" * 10 + b"\r\n")

    assert sum(more.values()) - sum(plain.values()) == 10
