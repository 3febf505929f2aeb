"""
The conformance suite over HTTP/2.
"""

from __future__ import annotations

from typing import Any

from txasgi.asgi.task import Application
from txasgi.testing.conform.http import HttpConformance
from txasgi.testing.h2_crowd import beside
from txasgi.testing.h2_peer import H2Peer
from txasgi.testing.rig import Rig


class TestH2Conformance(HttpConformance):
    """
    HTTP/2, spoken by the package h2.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H2Peer]:
        """
        One connection.
        """
        rig = Rig(application, **gate_options)
        return rig, H2Peer(rig)


class TestH2ConformanceByteByByte(HttpConformance):
    """
    The same from a client whose first 300 bytes of everything come one by one.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H2Peer]:
        """
        One connection.
        """
        rig = Rig(application, **gate_options)
        return rig, H2Peer(rig, trickle=300)


class TestH2ConformanceByWindows(HttpConformance):
    """
    The same from a client that reads its socket always, and stops a server by its windows alone; it takes pushes.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H2Peer]:
        """
        One connection.
        """
        rig = Rig(application, **gate_options)
        return rig, H2Peer(rig, hold="windows", pushes=True)


class TestH2ConformanceInACrowd(HttpConformance):
    """
    The same beside streams of the same connection that stand still.
    """

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, H2Peer]:
        """
        One connection.
        """
        rig = Rig(application, beside=beside, **gate_options)
        return rig, H2Peer(rig, crowded=True)
