"""
The conformance suite over HTTP/1.1.
"""

from __future__ import annotations

from typing import Any

from txasgi.asgi.task import Application
from txasgi.testing.conform.http import HttpConformance
from txasgi.testing.h1_peer import H1Peer
from txasgi.testing.rig import Rig


class TestH1Conformance(HttpConformance):
    """
    HTTP/1.1, heard by h11.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H1Peer]:
        """
        One connection.
        """
        rig = Rig(application, **gate_options)
        return rig, H1Peer(rig)


class TestH1ConformanceByteByByte(HttpConformance):
    """
    The same from a client whose first 300 bytes of everything come one by one.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H1Peer]:
        """
        One connection.
        """
        rig = Rig(application, **gate_options)
        return rig, H1Peer(rig, trickle=300)
