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

# RFC 8446 section 5.1 and 6: the content type of a handshake's record; a fatal alert, not encrypted.
_HANDSHAKE_RECORD = 22
_UNEXPECTED_MESSAGE = b"\x15\x03\x03\x00\x02\x02\x0a"
# What encryption adds to a record: 22 bytes with TLS 1.3, 29 with 1.2. If a read had more around its plaintext, there
# was another record, which may ask for an answer (KeyUpdate, RFC 8446 section 4.6.3; or a renegotiation, refused).
_ONE_RECORD_BYTES = 29
_METHODS = [name + b" " for name in b"GET HEAD POST PUT DELETE OPTIONS PATCH CONNECT TRACE PRI".split()]


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
    # A close that the peer does not answer needs no deadline of the protocol's.
    ends_by_itself = True
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
        # The peer has sent something that looks like TLS.
        self._begun = False
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
        # The transport below is to be closed for writing once it is not stalled any more.
        self._end_wanted = False
        # It has us as its producer.
        self._registered = False
        # Nothing that comes can be decrypted any more.
        self._broken = False
        self._linger_s = CLOSE_S

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def flow(self) -> None:
        raise NotImplementedError

    def stall(self) -> None:
        raise NotImplementedError

    def _maybe_close(self) -> None:
        raise NotImplementedError

    def _full(self) -> bool:
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
        self._registered = True
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
        if (
            self._phase != OPEN
            or records is None
            or self._paused
            or self.disconnecting
            or self._held
            or len(data) > FEED_BYTES
        ):
            self._receive(data)
            return
        try:
            plain = records.decrypt(data)
        except SSL.Error as error:
            self._fail(error)
            return
        if plain:
            self._protocol.dataReceived(plain)
        if len(data) - len(plain) > _ONE_RECORD_BYTES:
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
        self._flush(records)
        if plain and self._phase == OPEN and not self.disconnecting:
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
        if self._phase == OPEN and IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    def connectionLost(self, reason: Failure) -> None:
        """
        Over.
        """
        self._cancel_timer()
        if self._reason is not None:
            reason = self._reason
        elif self._ended and self._phase != OPEN:
            # Whether it waited for our close_notify, or has left meanwhile.
            reason = Failure(ConnectionDone())
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
        if records is None or not self._begun:
            # OpenSSL has no alert for what is no record at all.
            if self.factory.plain_reply is not None and _may_be_http(bytes(piece[:8])):
                self._refuse("http request", self.factory.plain_reply)
                return
            if piece[0] != _HANDSHAKE_RECORD:
                self._refuse("no record of TLS", _UNEXPECTED_MESSAGE)
                return
            self._begun = True
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
        full = self._full()
        self._phase = OPEN
        records.state = MORE
        early, self._early = self._early, []
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
        why = _told(error)
        # Its own close_notify or alert: it has gone, and knows why.
        left = isinstance(error, SSL.ZeroReturnError) or " alert " in why
        self._give_up(why, records.take(), left)

    def _refuse(self, why: str, reply: bytes) -> None:
        self._reason = Failure(SSL.Error([("SSL routines", "", why)]))
        self._give_up(why, reply)

    def _give_up(self, why: str, last_words: bytes, left: bool = False) -> None:
        what = "TLS handshake" if self._phase == HANDSHAKING else "TLS"
        _log.debug("%s of %s failed: %s", what, self.transport.getPeer(), why)
        self.disconnecting = True
        self._broken = True
        self._held = b""
        self._phase = CLOSING
        self._early.clear()
        if last_words:
            self.transport.write(last_words)
        if left:
            self._finish()
        else:
            self._linger(ALERT_S)

    def _linger(self, seconds: float) -> None:
        """
        Our side is closed. Read on, so that the peer gets to read what we sent, and until it closes too.
        """
        self._paused = False
        self._linger_s = seconds
        self.transport.resumeProducing()
        self._end_writing()
        if self._held or (self._records is not None and self._records.state == MORE):
            self._later(self._read_on)

    def _end_writing(self) -> None:
        """
        Close the transport below for writing, if it can do that.
        """
        self._end_wanted = self._stalled
        if self._stalled:
            # `flow` comes back here.
            return
        if self._phase == CLOSING:
            self._set_timer(self._linger_s, self._cut_off)
        if not self._registered:
            # Done already, before the protocol lost the rest of the connection too.
            return
        # As long as there is a producer, Twisted's transports don't.
        self._unregister()
        can_half_close = IHalfCloseableDescriptor.providedBy(self.transport)
        if can_half_close:
            self.transport.loseWriteConnection()
        else:
            self._later(self.writeConnectionLost)

    def _unregister(self) -> None:
        if self._registered:
            self._registered = False
            self.transport.unregisterProducer()

    def _finish(self) -> None:
        """
        Nothing is expected any more: close what is below when all is written.
        """
        self._phase = OVER
        self.disconnecting = True
        self._unregister()
        self.transport.loseConnection()

    def _cut_off(self) -> None:
        """
        The peer did not close. What the kernel still has for it is sent all the same, as nothing is aborted here.
        """
        self._timer = None
        if self._reason is None:
            self._reason = Failure(ConnectionDone())
        self._finish()

    def _abort(self) -> None:
        self._unregister()
        abort = getattr(self.transport, "abortConnection", None)
        (abort or self.transport.loseConnection)()

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


def _may_be_http(begin: bytes) -> bool:
    """
    Whether these first bytes are the beginning of an HTTP request in plain text.
    """
    return any(begin.startswith(method[: len(begin)]) for method in _METHODS)


def _told(error: SSL.Error) -> str:
    """
    What OpenSSL says, in words.
    """
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list) and queue:
        return "; ".join(str(entry[-1]) for entry in queue)
    return str(error) or type(error).__name__
