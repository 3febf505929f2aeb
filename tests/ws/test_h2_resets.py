"""
WebSockets over HTTP/2 whose streams are reset by the same read that brings frames, or while much is under way.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.wire.h2_frames import Client, asked, data, get, headers, ping, rst_stream

from txasgi.testing.rig import Rig, Script
from txasgi.ws import engine

CONNECT = [
    (b":method", b"CONNECT"),
    *asked()[1:],
    (b":protocol", b"websocket"),
    (b"sec-websocket-version", b"13"),
]
# RFC 6455 section 5.2: masked by zeros, so that the payloads can be read here.
PING = b"\x89\x80\0\0\0\0"
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
TEXT = b"\x81\x82\0\0\0\0hi"
# Reserved bits that nobody agreed on: a fault, which is answered by a close frame.
FAULT = b"\xf1\x80\0\0\0\0"


@pytest.fixture
def script() -> Iterator[Script]:
    engine.load()
    found = Script()
    rig = Rig(found, server=None, date=False)
    yield found
    faults = list(rig.errors)
    rig.close()
    assert faults == []


@pytest.mark.parametrize("accepted", [True, False], ids=["open", "not accepted"])
@pytest.mark.parametrize(
    "frame", [PING, CLOSE, TEXT, FAULT, PING + CLOSE], ids=["ping", "close", "text", "fault", "both"]
)
def test_frame_and_reset_in_one_read(script: Script, frame: bytes, accepted: bool) -> None:
    """
    What would be answered on a stream that is reset meanwhile is not, and the connection serves on.
    """
    client = Client(script.rig)
    client.send(headers(1, CONNECT, end=False))
    call = script.call
    assert call.receive() == {"type": "websocket.connect"}
    if accepted:
        call.send({"type": "websocket.accept"})
        client.go_on()
        assert client.answers[1].status == 200
    client.send(data(1, frame) + rst_stream(1))

    messages = [call.receive()]
    if messages[0]["type"] == "websocket.receive":
        messages.append(call.receive())
    assert messages[-1]["type"] == "websocket.disconnect"
    call.finish()
    client.send(get(3), ping())
    assert client.pongs == [b"a ping.."]
    assert not client.goaways and 3 not in client.resets
