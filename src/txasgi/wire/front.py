"""
The factory: makes a connection's protocol, and knows every open connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolFactory, IProtocolNegotiationFactory
from zope.interface import implementer

from txasgi.errors import BadRequest
from txasgi.seam import Head, Open
from txasgi.wire.h1 import H1Connection
from txasgi.wire.h1_input import H1Options
from txasgi.wire.h2 import H2Connection
from txasgi.wire.h2_output import H2Options

# For a browser's eyes.
_USE_HTTPS = b"This port speaks TLS: use https:// in place of http://.\n"


@implementer(IProtocolFactory, IProtocolNegotiationFactory)
class Front:
    """
    What listeners are given. One for all of them, so that draining is asked of one object.

    h1, h2: the options of each wire; without those of HTTP/2 it is not spoken. http1: whether HTTP/1.1 is.
    """

    noisy = False
    protocol = None
    numPorts = 0
    # Sent by a port that speaks TLS to a client that doesn't; one who types http:// sees what is wrong.
    plain_reply = (
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        % len(_USE_HTTPS)
    ) + _USE_HTTPS

    def __init__(self, open: Open, h1: H1Options, h2: H2Options | None = None, *, http1: bool = True) -> None:
        self._open = open
        self._h1 = h1
        self._h2 = h2
        self._http1 = http1
        self.connections: set[Any] = set()
        self._empty: Callable[[], object] | None = None
        self._draining = False
        h1.other = self if h2 is not None else None
        h1.http1 = http1

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
        For ALPN (RFC 7301), what we would rather speak first.
        """
        return [b"h2"] * (self._h2 is not None) + [b"http/1.1"] * self._http1

    def buildProtocol(self, addr: IAddress) -> H1Connection:
        """
        A protocol for a new connection. It hands over one that turns out to speak HTTP/2.
        """
        return H1Connection(self._open, self._h1, self._opened, self._closed)

    def _new_h2(self) -> H2Connection:
        assert self._h2 is not None
        return H2Connection(self._open, self._h2, self._opened, self._closed)

    # What H1Connection knows of HTTP/2

    def take_over(self, old: H1Connection, received: bytes) -> H2Connection:
        """
        HTTP/2 was agreed on by ALPN, or the client begins with its preface.
        """
        new = self._new_h2()
        _replace(old, new)
        self.connections.discard(old)
        new.take_over(old.transport, received)
        return new

    def upgrade(self, old: H1Connection, head: Head, settings: bytes, received: bytes) -> bool:
        """
        The client asked for h2c, and its request is *head*; 101 was not sent yet. False if its settings are none.
        """
        new = self._new_h2()
        try:
            new.prepare_upgrade(head, settings)
        except BadRequest:
            return False
        old.retire()
        _replace(old, new)
        self.connections.discard(old)
        old.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: h2c\r\n\r\n")
        new.upgrade(old.transport, head, received)
        return True

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
            connection.abort()


def _replace(old: Any, new: Any) -> None:
    """
    Put one protocol into another's place on its transport. A wrapping protocol's transport calls it otherwise.
    """
    transport: Any = old.transport
    for name in ("wrappedProtocol", "protocol"):
        if getattr(transport, name, None) is old:
            setattr(transport, name, new)
            return
    raise TypeError(f"{type(transport).__name__} does not let its protocol be replaced")
