"""
A Twisted transport in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet import interfaces
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(
    interfaces.ITCPTransport,
    interfaces.IConsumer,
    interfaces.IPushProducer,
    interfaces.IHalfCloseableDescriptor,
)
class MemoryTransport:
    """
    What a protocol writes is kept in `written`; what it asks for is recorded.

    reading: False while the protocol paused it; `receive` must not be called then.
    clogged: while True the peer reads nothing: writes beyond 64 KiB pause the producer until `unclog`.
    """

    TLS = False
    disconnecting = False

    def __init__(self, host: IAddress | None = None, peer: IAddress | None = None) -> None:
        self.host = host or IPv4Address("TCP", "127.0.0.1", 8000)
        self.peer = peer or IPv4Address("TCP", "192.0.2.7", 54321)
        self.protocol: Any = None
        self.producer: Any = None
        self.written = bytearray()
        self.clogged = False
        self.reading = True
        self.half_closed = False
        self.closed = False
        self.aborted = False
        self._unsent = bytearray()
        self._paused = False

    def connect(self, protocol: Any) -> None:
        """
        Connect a protocol.
        """
        self.protocol = protocol
        protocol.makeConnection(self)

    # What the peer does

    def receive(self, data: bytes) -> None:
        """
        The peer sends bytes.
        """
        assert self.reading, "the protocol paused reading"
        if not self.closed and not self.disconnecting:
            self.protocol.dataReceived(data)

    def take(self) -> bytes:
        """
        What was written since the last time; taken.
        """
        taken = bytes(self.written)
        self.written.clear()
        return taken

    def unclog(self) -> None:
        """
        The peer reads everything.
        """
        self.clogged = False
        self.written += self._unsent
        self._unsent.clear()
        if self._paused:
            self._paused = False
            if self.producer is not None:
                self.producer.resumeProducing()
        self._maybe_close()

    def lose(self, reason: BaseException | None = None) -> None:
        """
        The peer is gone.
        """
        if not self.closed:
            self.closed = True
            self.producer = None
            protocol, self.protocol = self.protocol, None
            protocol.connectionLost(Failure(reason or ConnectionDone()))

    # ITransport and ITCPTransport

    def write(self, data: bytes) -> None:
        """
        Keep it, unless closed.
        """
        assert isinstance(data, bytes)
        if self.closed or self.half_closed or (self.disconnecting and self.producer is None):
            return
        if not self.clogged:
            self.written += data
            return
        self._unsent += data
        if len(self._unsent) > 65536 and not self._paused:
            self._paused = True
            if self.producer is not None:
                self.producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        Write them all.
        """
        self.write(b"".join(iovec))

    def loseConnection(self) -> None:
        """
        Closed when all is written and the producer is gone; `finish` tells the protocol.
        """
        self.disconnecting = True
        self._maybe_close()

    def _maybe_close(self) -> None:
        if self.disconnecting and self.producer is None and not self._unsent:
            self.reading = False

    def abortConnection(self) -> None:
        """
        Closed at once; `finish` tells the protocol.
        """
        self.disconnecting = self.aborted = True
        self.reading = False
        self._unsent.clear()

    def finish(self) -> None:
        """
        The reactor's part of loseConnection and abortConnection: tell the protocol, if it asked for the end.
        """
        if self.disconnecting and not self._unsent:
            self.lose(ConnectionAborted() if self.aborted else ConnectionDone())

    def loseWriteConnection(self) -> None:
        """
        No more writes.
        """
        self.half_closed = True

    def readConnectionLost(self, reason: Failure) -> None:
        """
        IHalfCloseableDescriptor; not used.
        """

    def writeConnectionLost(self, reason: Failure) -> None:
        """
        IHalfCloseableDescriptor; not used.
        """

    def getPeer(self) -> Any:
        """
        The client.
        """
        return self.peer

    def getHost(self) -> Any:
        """
        The server.
        """
        return self.host

    def getTcpNoDelay(self) -> bool:
        """
        As native transports have it.
        """
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Ignored.
        """

    def getTcpKeepAlive(self) -> bool:
        """
        As native transports have it.
        """
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Ignored.
        """

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        Keep it.
        """
        assert self.producer is None
        self.producer = producer

    def unregisterProducer(self) -> None:
        """
        Let it go.
        """
        self.producer = None
        self._maybe_close()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        The protocol wants no more bytes.
        """
        self.reading = False

    def resumeProducing(self) -> None:
        """
        The protocol reads on.
        """
        self.reading = not self.disconnecting

    def stopProducing(self) -> None:
        """
        loseConnection.
        """
        self.loseConnection()
