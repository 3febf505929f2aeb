"""
The WebSocket half of the conformance suite, over HTTP/2.
"""

from __future__ import annotations

from typing import Any

import pytest

from txasgi.asgi.task import Application
from txasgi.testing.conform.websocket import WebSocketConformance
from txasgi.testing.h2_crowd import beside
from txasgi.testing.h2_websocket_peer import H2WebSocketPeer
from txasgi.testing.rig import Rig
from txasgi.ws import engine


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    engine.load()


class _OverHttp2(WebSocketConformance):
    http_version = "2"
    opened_status = 200


class TestOverHttp2(_OverHttp2):
    """
    Extended CONNECT; who leaves resets the stream.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H2WebSocketPeer]:
        """
        One connection.
        """
        rig = Rig(application, **gate_options)
        return rig, H2WebSocketPeer(rig)


class TestOverHttp2ByWindows(_OverHttp2):
    """
    The same from a client that stops a server by its windows alone, and leaves by END_STREAM.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H2WebSocketPeer]:
        """
        One connection.
        """
        rig = Rig(application, **gate_options)
        return rig, H2WebSocketPeer(rig, leaving="end", hold="windows")


class TestOverHttp2InACrowd(_OverHttp2):
    """
    The same beside streams of the same connection that stand still; who leaves takes the connection along.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H2WebSocketPeer]:
        """
        One connection.
        """
        rig = Rig(application, beside=beside, **gate_options)
        return rig, H2WebSocketPeer(rig, leaving="loss", crowded=True)
