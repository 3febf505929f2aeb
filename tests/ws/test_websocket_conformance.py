"""
The WebSocket half of the conformance suite, over HTTP/1.1.
"""

# ruff: noqa: E402

from typing import Any

import pytest

pytest.register_assert_rewrite("txasgi.testing.conform")

from txasgi.asgi.task import Application
from txasgi.testing.conform.websocket import WebSocketConformance
from txasgi.testing.conform.websocket_peer import WebSocketPeer
from txasgi.testing.h1_websocket_peer import H1WebSocketPeer
from txasgi.testing.rig import Rig
from txasgi.ws import engine


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    engine.load()


class TestOverHttp1(WebSocketConformance):
    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, WebSocketPeer]:
        rig = Rig(application, **gate_options)
        return rig, H1WebSocketPeer(rig)
