"""
The factory: makes a connection's protocol, and knows every open connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolFactory, IProtocolNegotiationFactory
from zope.interface import implementer

from txasgi.seam import Open
from txasgi.wire.h1 import H1Connection
from txasgi.wire.h1_input import H1Options

# For a browser's eyes.
_USE_HTTPS = b"This port speaks TLS: use https:// in place of http://.\n"


@implementer(IProtocolFactory, IProtocolNegotiationFactory)
class Front:
    """
    What listeners are given. One for all of them, so that draining is asked of one object.
    """

    noisy = False
    protocol = None
    numPorts = 0
    # Sent by a port that speaks TLS to a client that doesn't; one who types http:// sees what is wrong.
    plain_reply = (
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        % len(_USE_HTTPS)
    ) + _USE_HTTPS

    def __init__(self, open: Open, options: H1Options) -> None:
        self._open = open
        self._options = options
        self.connections: set[Any] = set()
        self._empty: Callable[[], object] | None = None
        self._draining = False

    def doStart(self) -> None:
        """
        A port begins to listen.
        """
        self.numPorts += 1

    def doStop(self) -> None:
        """
        A port listens no more.
        """
        self.numPorts -= 1

    def acceptableProtocols(self) -> list[bytes]:
        """
        For ALPN (RFC 7301).
        """
        return [b"http/1.1"]

    def buildProtocol(self, addr: IAddress) -> H1Connection:
        """
        A protocol for a new connection.
        """
        return H1Connection(self._open, self._options, self._opened, self._closed)

    def _opened(self, connection: Any) -> None:
        self.connections.add(connection)
        if self._draining:
            connection.drain()

    def _closed(self, connection: Any) -> None:
        self.connections.discard(connection)
        if self._empty is not None and not self.connections:
            empty, self._empty = self._empty, None
            empty()

    def drain(self, empty: Callable[[], object]) -> None:
        """
        Ask every connection to end when it has answered; *empty* is called once none is left.
        """
        self._draining = True
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            self._empty = empty
        else:
            empty()

    def abort(self) -> None:
        """
        Close every connection at once.
        """
        for connection in list(self.connections):
            connection.transport.unregisterProducer()
            abort = getattr(connection.transport, "abortConnection", None)
            (abort or connection.transport.loseConnection)()
