"""
The half of a TLS connection that faces the peer: handshake, decryption, endings. `txasgi.net.tls` has the rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IHalfCloseableProtocol, IHandshakeListener
from twisted.logger import Logger
from twisted.python.failure import Failure

from txasgi.net.tls_records import ENDED, FEED_BYTES, MORE, WANTING, Records, records_for

_log = logging.getLogger("txasgi")
_twisted_log = Logger()

# For the whole handshake, from the first byte on the wire or its absence; Hypercorn's is 60, Go's and HAProxy's 10.
HANDSHAKE_S = 10.0
# For the peer's close_notify or EOF after ours; nginx reads on for 5 to 30 s before it closes.
CLOSE_S = 10.0
# For the peer to read an alert.
ALERT_S = 2.0
# What a protocol may write during the handshake before its producer is paused: Twisted's mark for every buffer.
HIGH_WATER_BYTES = 2**16

HANDSHAKING, OPEN, CLOSING, OVER = range(4)


class _Outflow:
    """
    The push producer that the transport below sees.
    """

    __slots__ = ("_tls",)

    def __init__(self, tls: TLSInput) -> None:
        self._tls = tls

    def pauseProducing(self) -> None:
        self._tls.stall()

    def resumeProducing(self) -> None:
        self._tls.flow()

    def stopProducing(self) -> None:
        """
        The transport is gone; connectionLost tells.
        """


class TLSInput:
    """
    From ciphertext to the protocol. `TLSTransport` is the rest.

    factory: the TLSFactory. protocol: who gets the plaintext.
    """

    TLS = True
    connected = 0
    disconnected = 0
    disconnecting = False
    producer: Any = None
    streamingProducer = False
    transport: Any = None

    def __init__(self, factory: Any, protocol: Any) -> None:
        self.factory = factory
        self._protocol = protocol
        self._clock = factory.clock
        self._phase = HANDSHAKING
        self._connection: Any = None
        self._records: Records | None = None
        self._reason: Failure | None = None
        self._timer: Any = None
        # Written during the handshake.
        self._early: list[bytes] = []
        self._early_bytes = 0
        # Received and not decrypted yet.
        self._held: bytes | memoryview = b""
        self._paused = False
        # The transport below has said pause.
        self._stalled = False
        # The peer has sent close_notify; we have, or will once the handshake is over.
        self._ended = False
        self._half_closed = False
        # Nothing that comes can be decrypted any more.
        self._broken = False

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def flow(self) -> None:
        raise NotImplementedError

    def stall(self) -> None:
        raise NotImplementedError

    def _maybe_close(self) -> None:
        raise NotImplementedError

    def _close_write_side(self, records: Records) -> None:
        raise NotImplementedError

    # IProtocol: what the transport below calls

    def makeConnection(self, transport: Any) -> None:
        """
        Connected; the handshake begins with the peer's first bytes.
        """
        self.transport = transport
        self.connected = 1
        self._set_timer(HANDSHAKE_S, self._too_slow)
        transport.registerProducer(_Outflow(self), True)
        self._protocol.makeConnection(self)

    def connectionMade(self) -> None:
        """
        Part of IProtocol; makeConnection does it.
        """

    def dataReceived(self, data: bytes) -> None:
        """
        Ciphertext.
        """
        records = self._records
        if self._phase != OPEN or records is None or self._paused or self._held or len(data) > FEED_BYTES:
            self._receive(data)
            return
        try:
            plain = records.decrypt(data)
        except SSL.Error as error:
            self._fail(error)
            return
        if plain:
            self._protocol.dataReceived(plain)
        else:
            self._flush(records)
        if records.state != WANTING:
            self._advance()

    def _receive(self, data: bytes) -> None:
        self._held = bytes(self._held) + data if self._held else memoryview(data)
        self._advance()

    def _read_on(self) -> None:
        """
        `_advance` from the loop, where nobody else would end the connection for a fault of the protocol.
        """
        try:
            self._advance()
        except Exception:
            reason = Failure()
            _twisted_log.failure("dataReceived failed for {peer}", reason, peer=self.transport.getPeer())
            self._reason = reason
            self._phase = OVER
            self._abort()

    def _advance(self) -> None:
        """
        Go on with what was received, until it is used up or the protocol pauses; that does not hold up the handshake.
        """
        while not self._paused or self._phase == HANDSHAKING:
            records = self._records
            if self._phase == OVER or self._broken:
                self._held = b""
                return
            piece, self._held = self._held[:FEED_BYTES], self._held[FEED_BYTES:]
            if self._phase == HANDSHAKING:
                if not piece:
                    return
                self._go_on_with_handshake(piece)
            elif records is not None and (piece or records.state == MORE):
                self._decrypt(records, piece)
            else:
                if records is not None and records.state == ENDED and not self._ended:
                    self._peer_ended()
                return

    def _decrypt(self, records: Records, piece: bytes | memoryview) -> None:
        try:
            plain = records.decrypt(piece)
        except SSL.Error as error:
            self._fail(error)
            return
        if not plain:
            # A message of the handshake protocol may ask for an answer (KeyUpdate, RFC 8446 section 4.6.3; the
            # refusal of a renegotiation).
            self._flush(records)
        elif self._phase == OPEN and not self.disconnecting:
            self._protocol.dataReceived(plain)

    def readConnectionLost(self, reason: Failure | None = None) -> None:
        """
        The peer's EOF. Without close_notify before it, what came may not be all (RFC 8446 section 6.1).
        """
        if self._ended and self._phase == OPEN:
            # It still reads, as far as we know.
            return
        if self._phase in (HANDSHAKING, OPEN):
            self._reason = Failure(ConnectionLost("the peer closed without close_notify"))
        self._finish()

    def writeConnectionLost(self, reason: Failure | None = None) -> None:
        """
        What we wrote is sent, and our side closed.
        """
        if self._phase == OPEN and self._half_closed and IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    def connectionLost(self, reason: Failure) -> None:
        """
        Over.
        """
        self._cancel_timer()
        if self._reason is not None:
            reason = self._reason
        elif self._phase in (HANDSHAKING, OPEN) and not self._ended and reason.check(ConnectionDone):
            reason = Failure(ConnectionLost("the peer closed without close_notify"))
        self._phase = OVER
        self.connected = 0
        self.disconnected = 1
        self.disconnecting = True
        self._reason = None
        self._held = b""
        self._early.clear()
        if self._connection is not None:
            # It knows us, and we it.
            self._connection.set_app_data(None)
            self._connection = self._records = None
        protocol, self._protocol = self._protocol, None
        producer, self.producer = self.producer, None
        try:
            if producer is not None:
                producer.stopProducing()
        finally:
            protocol.connectionLost(reason)

    # The handshake

    def _go_on_with_handshake(self, piece: bytes | memoryview) -> None:
        records = self._records
        if records is None:
            reply = self.factory.plain_reply
            # A request in plain text begins with a method; a record of the handshake with 22.
            if reply is not None and 0x41 <= piece[0] <= 0x5A:
                self._reason = Failure(SSL.Error([("SSL routines", "", "http request")]))
                self._give_up("it speaks plain text", reply)
                return
            records = self._connect()
        try:
            complete = records.handshake(piece)
        except SSL.Error as error:
            self._fail(error)
            return
        self._flush(records)
        if complete:
            self._established(records)

    def _connect(self) -> Records:
        """
        Make the connection of OpenSSL; not before it is needed, as it takes 20 KiB.
        """
        if self._records is None:
            self._connection = self.factory.connection_for(self)
            self._records = records_for(self._connection, self.factory.buffer)
        return self._records

    def _established(self, records: Records) -> None:
        self._cancel_timer()
        self._phase = OPEN
        records.state = MORE
        early, self._early = self._early, []
        full = self._early_bytes > HIGH_WATER_BYTES
        half_closed, self._half_closed = self._half_closed, False
        for data in early:
            self.write(data)
        if IHandshakeListener.providedBy(self._protocol):
            self._protocol.handshakeCompleted()
        if self._phase != OPEN:
            return
        if half_closed:
            self._close_write_side(records)
        if self._paused:
            self.transport.pauseProducing()
        if full and not self._stalled:
            self.flow()
        self._maybe_close()

    def _too_slow(self) -> None:
        self._timer = None
        _log.debug("TLS handshake of %s not complete after %g s", self.transport.getPeer(), HANDSHAKE_S)
        self._reason = Failure(ConnectionLost("TLS handshake timed out"))
        self._phase = OVER
        self._abort()

    # Endings

    def _peer_ended(self) -> None:
        """
        The peer has sent close_notify: it will send no more.
        """
        self._ended = True
        if self._phase == OPEN and IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
            if self._half_closed and self._phase == OPEN:
                self._finish()
        elif self._phase == OPEN:
            self._close()
        else:
            self._finish()

    def _close(self) -> None:
        """
        Send close_notify, then wait for the peer's.
        """
        self.disconnecting = True
        self._phase = CLOSING
        records = self._records
        if records is not None and not self._half_closed:
            self._seal(records)
        if self._ended:
            self._finish()
        else:
            self._linger(CLOSE_S)

    def _seal(self, records: Records) -> None:
        try:
            records.close()
        except SSL.Error:
            # Broken by the peer meanwhile; there is nothing to say to it any more.
            return
        self._flush(records)

    def _flush(self, records: Records) -> None:
        sealed = records.take()
        if sealed:
            self.transport.write(sealed)

    def _fail(self, error: SSL.Error) -> None:
        """
        The peer's fault; OpenSSL has made the alert, unless it was the peer that sent one.
        """
        records = self._records
        assert records is not None
        if self._reason is None:
            self._reason = Failure(error)
        alert = records.take()
        self._give_up(_told(error), alert)

    def _give_up(self, why: str, last_words: bytes) -> None:
        what = "TLS handshake" if self._phase == HANDSHAKING else "TLS"
        _log.debug("%s of %s failed: %s", what, self.transport.getPeer(), why)
        self.disconnecting = True
        self._broken = True
        self._held = b""
        self._phase = CLOSING
        self._early.clear()
        if last_words:
            self.transport.write(last_words)
            self._linger(ALERT_S)
        else:
            self._finish()

    def _linger(self, seconds: float) -> None:
        """
        Our side is closed. Read on, so that the peer gets to read what we sent, and until it closes too.
        """
        self._paused = False
        can_half_close = IHalfCloseableDescriptor.providedBy(self.transport)
        if not self._half_closed and can_half_close:
            self.transport.loseWriteConnection()
        self._linger_s = seconds
        if not self._stalled:
            self._set_timer(seconds, self._cut_off)
        self.transport.resumeProducing()
        if self._held or (self._records is not None and self._records.state == MORE):
            self._later(self._read_on)

    def _finish(self) -> None:
        """
        Nothing is expected any more: close what is below when all is written.
        """
        self._phase = OVER
        self.disconnecting = True
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _cut_off(self) -> None:
        """
        The peer did not answer our close_notify.
        """
        self._timer = None
        self._phase = OVER
        if self._reason is None:
            self._reason = Failure(ConnectionDone())
        self._abort()

    def _abort(self) -> None:
        abort = getattr(self.transport, "abortConnection", None)
        if abort is None:
            self.transport.unregisterProducer()
            abort = self.transport.loseConnection
        abort()

    def _set_timer(self, seconds: float, call: Callable[[], object]) -> None:
        self._cancel_timer()
        self._timer = self._clock.callLater(seconds, call)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _later(self, call: Callable[[], object]) -> None:
        """
        In the next turn of the loop, unless the connection is over by then.
        """
        self._clock.callLater(0, lambda: call() if self.connected else None)


def _told(error: SSL.Error) -> str:
    """
    What OpenSSL says, in words.
    """
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list) and queue:
        return "; ".join(str(entry[-1]) for entry in queue)
    return str(error) or type(error).__name__
