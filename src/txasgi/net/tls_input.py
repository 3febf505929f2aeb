"""
The half of a TLS connection that faces the peer: handshake and decryption. `txasgi.net.tls` has the rules.
"""

from __future__ import annotations

import logging
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener
from twisted.logger import Logger
from twisted.python.failure import Failure

from txasgi.net.tls_endings import HANDSHAKING, OPEN, OVER, TLSEndings
from txasgi.net.tls_records import ENDED, FEED_BYTES, MORE, WANTING, Records, records_for

_log = logging.getLogger("txasgi")
_twisted_log = Logger()

# For the whole handshake, from the first byte on the wire or its absence; Hypercorn's is 60, Go's and HAProxy's 10.
HANDSHAKE_S = 10.0
# Reads in a row that bring nothing but what asks for an answer; Go allows 16 such records.
ANSWERS = 16
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


class TLSInput(TLSEndings):
    """
    From ciphertext to the protocol.
    """

    def write(self, data: bytes) -> None:
        raise NotImplementedError

    def flow(self) -> None:
        raise NotImplementedError

    def stall(self) -> None:
        raise NotImplementedError

    def abortConnection(self) -> None:
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
            self._answers = 0
        if not plain or len(data) - len(plain) > _ONE_RECORD_BYTES:
            self._answer(records, plain)
        if records.state != WANTING:
            self._advance()

    def _receive(self, data: bytes) -> None:
        self._held = bytes(self._held) + data if self._held else memoryview(data)
        self._advance()

    def _resume_below(self) -> None:
        if not self._paused and not self._held_back and self._phase == OPEN:
            self.transport.resumeProducing()

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
                if self._eof and self._phase != OVER:
                    self._at_eof()
                self._resume_below()
                return

    def _decrypt(self, records: Records, piece: bytes | memoryview) -> None:
        try:
            plain = records.decrypt(piece)
        except SSL.Error as error:
            self._fail(error)
            return
        self._answer(records, plain)
        if plain and self._phase == OPEN and not self.disconnecting:
            self._answers = 0
            self._protocol.dataReceived(plain)

    def _answer(self, records: Records, plain: bytes) -> None:
        """
        Messages of the handshake protocol may ask for an answer. A peer that does nothing else, or that does not read
        our answers, could have us keep any number of them.
        """
        sealed = records.take()
        if not sealed:
            return
        self.transport.write(sealed)
        if self._stalled and not self._held_back and self._phase == OPEN:
            self._held_back = True
            self.transport.pauseProducing()
        if not plain:
            self._answers += 1
            if self._answers > ANSWERS:
                self._reason = Failure(ConnectionLost("the peer asks for nothing but new keys"))
                self.abortConnection()

    def readConnectionLost(self, reason: Failure | None = None) -> None:
        """
        The peer's EOF. Without close_notify before it, what came may not be all (RFC 8446 section 6.1).
        """
        records = self._records
        more = self._held or (
            records is not None and (records.state == MORE or (records.state == ENDED and not self._ended))
        )
        if self._phase == OPEN and (more or self._eof):
            # Its end is behind what the protocol has not taken yet. Told again whenever the transport below reads on.
            if not self._eof:
                self._eof = True
                self._later(self._read_on)
        else:
            self._at_eof()

    def _at_eof(self) -> None:
        self._eof = False
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
        Make the connection of OpenSSL; not before it is needed, as it takes 17 KiB.
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
        if (full or self._told_pause) and not self._stalled:
            self.flow()
        self._maybe_close()

    def _too_slow(self) -> None:
        self._timer = None
        _log.debug("TLS handshake of %s not complete after %g s", self.transport.getPeer(), HANDSHAKE_S)
        if self._reason is None:
            self._reason = Failure(ConnectionLost("TLS handshake timed out"))
        self._phase = OVER
        self._abort()


def _may_be_http(begin: bytes) -> bool:
    """
    Whether these first bytes are the beginning of an HTTP request in plain text.
    """
    return any(begin.startswith(method[: len(begin)]) for method in _METHODS)
