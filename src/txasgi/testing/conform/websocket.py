"""
What every wire that carries WebSocket must do, written once: a subclass per wire says how a client gets to the server.

    class TestOverHttp1(WebSocketConformance):
        def make(self, application, **gate_options):
            rig = Rig(application, **gate_options)
            return rig, H1WebSocketPeer(rig)

pytest collects the subclass. The client is a `WebSocketPeer`; frames are made by the tests, byte by byte, so that
wrong ones can be made too, and read by the peer with a library that is not ours.

Where RFC 6455 or ASGI leave a choice, each of the choices passes.
"""

from __future__ import annotations

from txasgi.testing.conform.websocket_closing import ClosingConformance
from txasgi.testing.conform.websocket_deflate import DeflateConformance
from txasgi.testing.conform.websocket_denial import DenialConformance
from txasgi.testing.conform.websocket_endings import EndingConformance
from txasgi.testing.conform.websocket_flow import FlowConformance
from txasgi.testing.conform.websocket_handshake import HandshakeConformance
from txasgi.testing.conform.websocket_limits import LimitConformance
from txasgi.testing.conform.websocket_messages import MessageConformance
from txasgi.testing.conform.websocket_ping import PingConformance
from txasgi.testing.conform.websocket_violations import ViolationConformance


class WebSocketConformance(
    HandshakeConformance,
    DenialConformance,
    MessageConformance,
    ClosingConformance,
    EndingConformance,
    ViolationConformance,
    LimitConformance,
    PingConformance,
    FlowConformance,
    DeflateConformance,
):
    """
    All of it. Subclass it and say `make`, and `http_version` and `opened_status` where they are not those of HTTP/1.1.
    """
