"""
An asyncio or uvloop transport worn as a Twisted transport.

Twisted's own TCP transport never writes at once: it waits for the socket to be writable, which costs three more system
calls a request than the transports of asyncio and uvloop. Here a Twisted protocol gets the interface it expects, and
the calls that matter go straight through:

* `write` is an attribute of the instance: the asyncio transport's own bound method.
* `data_received`, which the asyncio transport looks up, is the Twisted protocol's bound `dataReceived`.
  uvloop looks it up once, in `set_protocol`, hence `_wear`.

What the two worlds disagree on is done here: Twisted pauses a push producer above 64 KiB and resumes it when all is
written; a pull producer is asked whenever the buffer is empty; loseConnection lets a producer finish; connectionLost
comes exactly once, never from within a call, with ConnectionDone, ConnectionLost or ConnectionAborted.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet import address, interfaces
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger()

# Twisted's FileDescriptor.bufferSize.
HIGH_WATER_BYTES = 2**16


# SO_LINGER on, for 0 seconds: closing sends RST. The peer sees that what it got is not all.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

_session_numbers = itertools.count()


def _ignore(data: object) -> None:
    """
    What `write` and `data_received` are when the time for them is over.
    """
    if not isinstance(data, bytes):
        raise TypeError(f"data must be bytes, not {type(data).__name__}")


class Accepting(Protocol):
    """
    The port that a connection came in by.
    """

    def accepted(self, peer: IAddress) -> IProtocol | None:
        """
        The protocol for a peer, or None to refuse it.
        """


def twisted_address(family: int, name: Any) -> IAddress:
    """
    A socket's name as Twisted's address for its family.

    An IPv4 client of a dual-stack listener, ::ffff:a.b.c.d, is reported as what it is: a.b.c.d.
    """
    if family == socket.AF_INET:
        return address.IPv4Address("TCP", name[0], name[1])
    if family == socket.AF_INET6:
        if name[0].startswith("::ffff:") and "." in name[0]:
            return address.IPv4Address("TCP", name[0][7:], name[1])
        return address.IPv6Address("TCP", *name)
    return address.UNIXAddress(name or None)


@implementer(
    interfaces.ITCPTransport,
    interfaces.IConsumer,
    interfaces.IPushProducer,
    interfaces.ISystemHandle,
    interfaces.IHalfCloseableDescriptor,
    interfaces.ILoggingContext,
)
class NativeTransport(asyncio.Protocol):
    """
    One accepted connection: an asyncio protocol below, an ITransport above.

    port: who makes the Twisted protocol.
    """

    data_received: Callable[[bytes], None]  # type: ignore[assignment]  # an attribute, not a method: see above
    write: Callable[[bytes], None]

    TLS = False
    connected = 0
    disconnected = 0
    disconnecting = False
    producer: Any = None
    streamingProducer = False
    reactor: Any = None

    def __init__(self, port: Accepting) -> None:
        self.server = port
        self._protocol: Any = None
        self._reason: Failure | None = None
        self._reading = True
        self._writable = True
        self._half_closing = False
        self._resuming = False
        self.write = _ignore
        self.data_received = _ignore

    # From asyncio.

    def connection_made(self, transport: Any) -> None:
        """
        Accepted: make the protocol and connect it.
        """
        self._transport: Any = transport
        self.socket = transport.get_extra_info("socket")
        family, name = self.socket.family, transport.get_extra_info("peername")
        if name is None and family != socket.AF_UNIX:
            # Reset by the peer before we came to accept it.
            transport.abort()
            return
        self._peer = twisted_address(family, name)
        try:
            protocol = self.server.accepted(self._peer)
        except Exception:  # The factory's code: its fault ends this connection, not the listener.
            _log.failure("buildProtocol failed for {peer}", peer=self._peer)
            protocol = None
        if protocol is None:
            transport.abort()
            return
        if family != socket.AF_UNIX:
            # uvloop has set it; asyncio does so only for sockets that it made itself.
            self.setTcpNoDelay(True)
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=0)
        self.connected = 1
        self.write = transport.write
        self._protocol = protocol
        try:
            protocol.makeConnection(self)
        except Exception:  # As Twisted's transports do: a fault in a protocol ends its connection.
            _log.failure("connectionMade failed for {peer}", peer=self._peer)
            self.abortConnection()
            return
        if self._reading:
            self._wear()
        else:
            # uvloop begins to read after this, whatever was paused in connectionMade, and one read gets through.
            self._early = b""
            self.data_received = self._keep
            transport.set_protocol(self)
            asyncio.get_running_loop().call_soon(self._pause_again)

    def _keep(self, data: bytes) -> None:
        self._early += data

    def _pause_again(self) -> None:
        if self._transport.is_closing():
            return
        if self._reading:
            self._wear()
            if self._early:
                self._protocol.dataReceived(self._early)
        else:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """
        The peer will send no more. Returns True to keep our side open.
        """
        if not IHalfCloseableProtocol.providedBy(self._protocol):
            # asyncio writes what is waiting, then closes.
            return False
        try:
            self._protocol.readConnectionLost()
        except Exception:
            reason = Failure()
            _log.failure("readConnectionLost failed for {peer}", reason, peer=self._peer)
            self._abort(reason)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """
        Over. asyncio calls this from the loop, once, never from within another call.
        """
        self.connected = 0
        self.disconnected = 1
        self.write = self.data_received = _ignore
        protocol, self._protocol = self._protocol, None
        if self._reason is not None:
            reason = self._reason
        elif exc is None:
            reason = Failure(ConnectionDone())
        elif isinstance(exc, OSError):
            reason = Failure(ConnectionLost(str(exc)))
        else:
            # A bug in dataReceived, which the loop has logged.
            reason = Failure(exc)
        producer, self.producer = self.producer, None
        try:
            if producer is not None:
                producer.stopProducing()
            if protocol is not None:
                protocol.connectionLost(reason)
        except Exception:
            _log.failure("connectionLost failed for {peer}", peer=self._peer)

    def pause_writing(self) -> None:
        """
        More than HIGH_WATER_BYTES are waiting to be written.
        """
        self._writable = False
        if self.producer is not None and self.streamingProducer:
            self.producer.pauseProducing()

    def resume_writing(self) -> None:
        """
        Everything is written.
        """
        self._writable = True
        self._resuming = True
        try:
            if self.producer is not None:
                self.producer.resumeProducing()
            elif self._half_closing:
                self._half_closed()
            self._maybe_close()
        finally:
            self._resuming = False

    # ITransport

    @property
    def protocol(self) -> Any:
        """
        Who gets the bytes. May be replaced at any time.
        """
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        self._protocol = protocol
        if self.connected:
            self._wear()

    def _wear(self) -> None:
        if self._protocol is not None and not self.disconnecting:
            self.data_received = self._protocol.dataReceived
            self._transport.set_protocol(self)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        Write them all.
        """
        pieces = list(iovec)
        # Not asyncio's: it joins them, or, from 3.12 on, forgets to say that its buffer is full (CVE-2024-12254).
        ours = not isinstance(self._transport, asyncio.Transport) and self.write == self._transport.write
        if ours and all(piece.__class__ is bytes for piece in pieces):
            self._transport.writelines(pieces)
        else:
            self.write(b"".join(pieces))

    def loseConnection(self, _connDone: object = None) -> None:
        """
        Write what is waiting, then close. As in Twisted's transports, a pull producer, and a push producer that is
        paused, may first bring what they have.
        """
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = True
        self._discard_input()
        if self.producer is None:
            self._close()
        else:
            # What it writes before it hears of this is still sent.
            asyncio.get_running_loop().call_soon(self._maybe_close)

    def _maybe_close(self) -> None:
        """
        Close if that was asked for, and no producer has more to bring.
        """
        if (
            self.disconnecting
            and self.connected
            and (self.producer is None or (self.streamingProducer and self._writable))
        ):
            self._close()

    def abortConnection(self) -> None:
        """
        Close now, drop what is waiting.
        """
        if self.connected:
            self._abort(Failure(ConnectionAborted()))

    def _abort(self, reason: Failure) -> None:
        self.disconnecting = True
        self._reason = reason
        self.write = _ignore
        self._discard_input()
        if self.socket.fileno() >= 0:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._end(self._transport.abort)

    def loseWriteConnection(self) -> None:
        """
        Write what is waiting, then send FIN; reading goes on.
        """
        if self.disconnecting or not self.connected or self._half_closing:
            return
        self._half_closing = True
        self.write = _ignore
        self._transport.write_eof()
        if self._transport.get_write_buffer_size() == 0:
            asyncio.get_running_loop().call_soon(self._half_closed)
        else:
            self._transport.set_write_buffer_limits(high=0)

    def _half_closed(self) -> None:
        self._half_closing = False
        if IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    def _discard_input(self) -> None:
        self.data_received = _ignore
        self._transport.set_protocol(self)
        if not self._transport.is_closing():
            self.pauseProducing()

    def _close(self) -> None:
        self.write = _ignore
        self._end(self._transport.close)

    def _end(self, end: Callable[[], object]) -> None:
        # asyncio, when it has called resume_writing, looks whether it is closing, and would end the connection twice.
        if self._resuming:
            asyncio.get_running_loop().call_soon(end)
        else:
            end()

    def readConnectionLost(self, reason: Failure) -> None:
        """
        IHalfCloseableDescriptor; Twisted's reactor would call it, asyncio calls eof_received.
        """
        self.eof_received()

    def writeConnectionLost(self, reason: Failure) -> None:
        """
        IHalfCloseableDescriptor, likewise.
        """
        self._half_closed()

    def getPeer(self) -> Any:
        """
        The client's address.
        """
        return self._peer

    def getHost(self) -> Any:
        """
        Our address.
        """
        return twisted_address(self.socket.family, self._transport.get_extra_info("sockname"))

    def getHandle(self) -> Any:
        """
        The socket.
        """
        return self.socket

    def fileno(self) -> int:
        """
        The socket's descriptor; -1 when closed.
        """
        return int(self.socket.fileno())

    def logPrefix(self) -> str:
        """
        Who this is, for Twisted's log.
        """
        return f"{type(self._protocol).__name__},{self._peer}"

    @property
    def logstr(self) -> str:
        """
        The same as an attribute, which some protocols read.
        """
        return self.logPrefix()

    @property
    def client(self) -> Any:
        """
        The peer's name as the socket has it.
        """
        return self._transport.get_extra_info("peername")

    @property
    def hostname(self) -> str:
        """
        The peer's host.
        """
        return str(getattr(self._peer, "host", ""))

    @property
    def sessionno(self) -> int:
        """
        A number for the connection, given when it is first asked for.
        """
        number: int = self.__dict__.setdefault("_sessionno", next(_session_numbers))
        return number

    # ITCPTransport

    def getTcpNoDelay(self) -> bool:
        """
        Whether TCP_NODELAY is on. It is, unless switched off: asyncio and uvloop set it.
        """
        return bool(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        Switch TCP_NODELAY.
        """
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, bool(enabled))

    def getTcpKeepAlive(self) -> bool:
        """
        Whether SO_KEEPALIVE is on.
        """
        return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """
        Switch SO_KEEPALIVE.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, bool(enabled))

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        From now on tell *producer* when to produce. Raises RuntimeError if there is one already.
        """
        if self.producer is not None:
            raise RuntimeError(f"cannot register producer {producer}: producer {self.producer} was never unregistered")
        if not self.connected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        if not streaming:
            # Tell us as soon as not everything could be written at once.
            self._transport.set_write_buffer_limits(high=0)
            self.write = self._write_pulled
            producer.resumeProducing()
        elif not self._writable:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """
        The producer is done.
        """
        producer, self.producer = self.producer, None
        if producer is not None and self.connected and not self.streamingProducer:
            self._transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=0)
            self.write = self._transport.write
        self._maybe_close()

    def _write_pulled(self, data: bytes) -> None:
        """
        `write` while a pull producer is registered: when it is through, ask for more.
        """
        self._transport.write(data)
        if self._writable:
            asyncio.get_running_loop().call_soon(self._pull)

    def _pull(self) -> None:
        if self.producer is not None and not self.streamingProducer and self._writable and self.connected:
            self.producer.resumeProducing()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Read no more for now.
        """
        if self._reading and not self.disconnected:
            self._reading = False
            self._transport.pause_reading()

    def resumeProducing(self) -> None:
        """
        Read on.
        """
        if not self._reading and self.connected and not self.disconnecting:
            self._reading = True
            self._transport.resume_reading()
            if self.data_received == self._keep:
                asyncio.get_running_loop().call_soon(self._pause_again)

    def stopProducing(self) -> None:
        """
        Close.
        """
        self.loseConnection()
