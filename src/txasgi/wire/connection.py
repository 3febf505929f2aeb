"""
What the connections of both wires have in common.
"""

from __future__ import annotations

from typing import Any


class WireConnection:
    """
    A protocol of Twisted's, and the push producer of its transport.
    """

    __slots__ = ()

    transport: Any

    def connectionMade(self) -> None:
        """
        Part of IProtocol; makeConnection does it.
        """

    def logPrefix(self) -> str:
        """
        For Twisted's log.
        """
        return "txasgi"

    def stopProducing(self) -> None:
        """
        The transport is gone; connectionLost tells.
        """

    def abort(self) -> None:
        """
        Close at once, whatever is still to be written.
        """
        self.transport.unregisterProducer()
        # Not every transport of a wrapping protocol has it.
        abort = getattr(self.transport, "abortConnection", None)
        (abort or self.transport.loseConnection)()
