"""
TLS over any ITransport, worn as an ITransport: what `ssl:` and `tls:` endpoints, and `listenSSL` for every context
factory that Twisted knows, put between a transport and a protocol.

Rules:

* Below it is a protocol (`dataReceived`, `connectionLost`), above it a transport. The contract above is that of
  `txasgi.net.native`, and where TLS has its own, that of Twisted's TLS: the protocol is connected when the connection
  is; what it writes during the handshake is sent behind it; `handshakeCompleted` comes before the first bytes.
* Nothing waits for ever. The handshake has a deadline, and so has a close that the peer does not answer.
* The peer's faults end in an alert that the peer gets to read: the socket is closed for writing, then what still
  comes is thrown away for a moment, as closing it with unread input would reset the connection.
* What is received is decrypted only as far as the protocol takes it: while it pauses, ciphertext of one read is held.

The phases, and what leads from one to the next:

    HANDSHAKING --complete--> OPEN --loseConnection, close_notify--> CLOSING --close_notify, EOF, timer--> OVER
         |                      |                                       ^
         +----- a fault --------+--------- a fault, plain text ---------+
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from OpenSSL import SSL
from twisted.internet import interfaces
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txasgi.net.tls_endings import CLOSING, HANDSHAKING, HIGH_WATER_BYTES, OPEN, OVER, STALL_S
from txasgi.net.tls_input import TLSInput
from txasgi.net.tls_records import FEED_BYTES, WANTING, Records, new_buffer


@implementer(
    interfaces.IProtocol,
    interfaces.IHalfCloseableProtocol,
    interfaces.ISSLTransport,
    interfaces.INegotiated,
    interfaces.IConsumer,
    interfaces.IPushProducer,
    interfaces.ISystemHandle,
    interfaces.IHalfCloseableDescriptor,
    interfaces.ILoggingContext,
)
class TLSTransport(TLSInput):
    """
    One connection. `transport` is what is below it; what is not said here is asked of that.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.transport, name)

    # ITransport: what the protocol above calls

    @property
    def protocol(self) -> Any:
        """
        Who gets the bytes. May be replaced at any time.
        """
        return self._protocol

    @protocol.setter
    def protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    # Twisted's name for it, on its TLS.
    wrappedProtocol = protocol

    def write(self, data: bytes) -> None:
        """
        Encrypt and send; during the handshake keep it for later.
        """
        if self._phase == OPEN and not self._half_closed and len(data) <= FEED_BYTES:
            records = self._records
            assert records is not None
            try:
                sealed = records.encrypt(data)
            except SSL.Error as error:
                self._fail(error)
                return
            self.transport.write(sealed)
        elif not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        elif self._phase == HANDSHAKING and not self._half_closed and (not self.disconnecting or self.producer):
            self._early.append(data)
            self._early_bytes += len(data)
            if self._full():
                self._pause_producer()
        elif self._phase == OPEN and not self._half_closed:
            self._write_large(data)
        if self.producer is not None and not self.streamingProducer:
            self._later(self._pull)

    def _write_large(self, data: bytes) -> None:
        records = self._records
        assert records is not None
        view = memoryview(data)
        try:
            sealed = [records.encrypt(bytes(view[at : at + FEED_BYTES])) for at in range(0, len(data), FEED_BYTES)]
        except SSL.Error as error:
            self._fail(error)
            return
        self.transport.writeSequence(sealed)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """
        Write them all.
        """
        self.write(b"".join(iovec))

    def loseConnection(self, _connDone: object = None) -> None:
        """
        Write what is waiting, send close_notify, and close. As in Twisted's transports, a pull producer, and a push
        producer that is paused, may first bring what they have.
        """
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = True
        if self._phase == HANDSHAKING:
            if not self._early and self.producer is None:
                self._reason = Failure(ConnectionDone())
                self._finish()
        elif self.producer is None:
            self._close()
        else:
            if self._stalled:
                self._set_timer(STALL_S, self._abort)
            self._later(self._maybe_close)

    def _maybe_close(self) -> None:
        """
        Close if that was asked for, and no producer has more to bring.
        """
        if (
            self.disconnecting
            and self._phase == OPEN
            and (self.producer is None or (self.streamingProducer and not self._stalled))
        ):
            self._close()

    def abortConnection(self) -> None:
        """
        Close now, drop what is waiting, and don't tell the peer that this is the end.
        """
        if self.connected:
            self.disconnecting = True
            self._phase = OVER
            if self._reason is None:
                self._reason = Failure(ConnectionAborted())
            self._abort()

    def failVerification(self, reason: Failure) -> None:
        """
        Abort, with this as the reason that the protocol is told; for Twisted's context factories.
        """
        self._reason = reason
        self.abortConnection()

    def loseWriteConnection(self) -> None:
        """
        Send what is waiting and close_notify; reading goes on, if the peer sends any more (RFC 8446 section 6.1).
        """
        if self.disconnecting or not self.connected or self._half_closed:
            return
        if self._phase == OPEN and self._records is not None:
            self._close_write_side(self._records)
        else:
            self._half_closed = True

    def _close_write_side(self, records: Records) -> None:
        self._half_closed = True
        self._seal(records)
        if self._ended:
            self._finish()
        else:
            self._end_writing()

    def getPeer(self) -> Any:
        """
        The client's address.
        """
        return self.transport.getPeer()

    def getHost(self) -> Any:
        """
        Our address.
        """
        return self.transport.getHost()

    def getHandle(self) -> Any:
        """
        The OpenSSL.SSL.Connection.
        """
        if self._connection is None and self._phase != OVER:
            self._connect()
        return self._connection

    def getPeerCertificate(self) -> Any:
        """
        The client's certificate, an OpenSSL.crypto.X509, or None.
        """
        return self._connection.get_peer_certificate() if self._connection is not None else None

    @property
    def negotiatedProtocol(self) -> bytes | None:
        """
        What ALPN agreed on (RFC 7301), None for nothing.
        """
        return (self._connection.get_alpn_proto_negotiated() or None) if self._connection is not None else None

    def tls_extension(self) -> dict[str, Any] | None:
        """
        What the ASGI extension `tls` says of this connection; None when nobody wants to know.
        """
        if self._connection is None or not self.factory.describes(self._connection):
            return None
        from txasgi.net.tls_extension import describe

        return describe(self._connection)

    def logPrefix(self) -> str:
        """
        Who this is, for Twisted's log.
        """
        prefix = f"{type(self._protocol).__name__} (TLS)"
        # Twisted asks its protocols before they are connected.
        return f"{prefix},{self.transport.getPeer()}" if self.transport is not None else prefix

    @property
    def logstr(self) -> str:
        """
        The same as an attribute, which some protocols read.
        """
        return self.logPrefix()

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """
        From now on tell *producer* when to produce. Raises RuntimeError if there is one already.
        """
        if self.producer is not None:
            raise RuntimeError(f"cannot register producer {producer}: producer {self.producer} was never unregistered")
        if not self.connected or self._phase in (CLOSING, OVER):
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        if not streaming:
            producer.resumeProducing()
        elif self._full():
            self._pause_producer()

    def _full(self) -> bool:
        if self._phase == HANDSHAKING:
            # A pull producer is asked when nothing waits.
            return self._early_bytes > (HIGH_WATER_BYTES if self.streamingProducer else 0)
        return self._stalled

    def unregisterProducer(self) -> None:
        """
        The producer is done.
        """
        self.producer = None
        self._told_pause = False
        self._maybe_close()

    def _pull(self) -> None:
        if self.producer is not None and not self.streamingProducer and not self._full():
            self.producer.resumeProducing()

    def stall(self) -> None:
        """
        The transport below has more than it could write.
        """
        self._stalled = True
        self._pause_producer()

    def _pause_producer(self) -> None:
        if self.producer is not None and self.streamingProducer:
            self._told_pause = True
            self.producer.pauseProducing()

    def flow(self) -> None:
        """
        Everything is written.
        """
        self._stalled = False
        if self._held_back:
            self._held_back = False
            if not self._held:
                self._resume_below()
        if self._end_wanted:
            self._end_writing()
        if self.producer is not None and self._phase == OPEN:
            self._told_pause = False
            self.producer.resumeProducing()
        self._maybe_close()

    # IPushProducer

    def pauseProducing(self) -> None:
        """
        Read no more for now.
        """
        if not self._paused and self.connected and self._phase in (HANDSHAKING, OPEN) and not self.disconnecting:
            self._paused = True
            if self._phase == OPEN:
                self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Read on, first what is already here.
        """
        if self._paused:
            self._paused = False
            if self._held or self._eof or (self._records is not None and self._records.state != WANTING):
                # The transport below reads on when this is used up, or it would pile up here.
                self._later(self._read_on)
            else:
                self._resume_below()

    def stopProducing(self) -> None:
        """
        Close.
        """
        self.loseConnection()


@implementer(interfaces.IProtocolFactory, interfaces.ILoggingContext)
class TLSFactory:
    """
    Puts TLS below the protocols of another factory.

    contextFactory: an IOpenSSLServerConnectionCreator, an IOpenSSLContextFactory, or what has its `getContext`.
    clock: an IReactorTime.
    extension: describe every connection to ASGI applications, not only those where client certificates are asked for.

    The wrapped factory may have a `plain_reply`: bytes for a client that speaks plain text where TLS is expected.
    """

    noisy = False
    protocol = None
    numPorts = 0

    def __init__(self, contextFactory: Any, wrappedFactory: Any, clock: Any, *, extension: bool = False) -> None:
        self.wrappedFactory = wrappedFactory
        self.clock = clock
        self.buffer = new_buffer()
        self.plain_reply: bytes | None = getattr(wrappedFactory, "plain_reply", None)
        self._context_factory = contextFactory
        self._extension = extension
        self._create: Callable[[Any], SSL.Connection]
        if interfaces.IOpenSSLServerConnectionCreator.providedBy(contextFactory):
            self._create = contextFactory.serverConnectionForTLS
        elif callable(getattr(contextFactory, "getContext", None)):
            self._create = self._from_context
        else:
            raise TypeError(f"{contextFactory!r} makes no TLS contexts")

    def _from_context(self, _tls: TLSTransport) -> SSL.Connection:
        return SSL.Connection(self._context_factory.getContext(), None)

    def connection_for(self, tls: TLSTransport) -> SSL.Connection:
        """
        A connection that waits for a client's first message. Its app data is the transport, as context factories
        of Twisted expect.
        """
        connection = self._create(tls)
        # Of TLS 1.2; refused by OpenSSL unless allowed, but the context may be anybody's.
        connection.set_options(SSL.OP_NO_RENEGOTIATION)
        connection.set_accept_state()
        connection.set_app_data(tls)
        return connection

    def describes(self, connection: SSL.Connection) -> bool:
        """
        Whether ASGI applications are told about this connection.
        """
        return self._extension or connection.get_verify_mode() != SSL.VERIFY_NONE

    def buildProtocol(self, addr: Any) -> TLSTransport | None:
        """
        A protocol for a new connection, or None if the wrapped factory wants none.
        """
        protocol = self.wrappedFactory.buildProtocol(addr)
        return TLSTransport(self, protocol) if protocol is not None else None

    def doStart(self) -> None:
        """
        A port begins to listen.
        """
        self.numPorts += 1
        self.wrappedFactory.doStart()
        if self.numPorts == 1:
            watch = getattr(self._context_factory, "start_watching", None)
            if watch is not None:
                watch(self.clock)

    def doStop(self) -> None:
        """
        A port listens no more.
        """
        self.numPorts -= 1
        self.wrappedFactory.doStop()
        if self.numPorts == 0:
            stop = getattr(self._context_factory, "stop_watching", None)
            if stop is not None:
                stop()

    def logPrefix(self) -> str:
        """
        For Twisted's log.
        """
        return f"{type(self.wrappedFactory).__name__} (TLS)"
