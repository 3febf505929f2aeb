"""
How a TLS connection ends, and what all of it knows. `txasgi.net.tls` has the rules.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableDescriptor, IHalfCloseableProtocol
from twisted.python.failure import Failure

from txasgi.net.tls_records import MORE, Records

_log = logging.getLogger("txasgi")

# For the peer's close_notify or EOF after ours; nginx reads on for 5 to 30 s before it closes.
CLOSE_S = 10.0
# For the peer to read an alert.
ALERT_S = 2.0
# For one that reads nothing of what is still to be written before the end. Generous: it may be slow, and 64 KiB and
# what the kernel holds in front of them are waiting.
STALL_S = 300.0
# What a protocol may write during the handshake before its producer is paused: Twisted's mark for every buffer.
HIGH_WATER_BYTES = 2**16

HANDSHAKING, OPEN, CLOSING, OVER = range(4)


class TLSEndings:
    """
    The state of a connection, and its endings. `TLSInput` and `TLSTransport` are the rest.

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
        # EOF came while there was still something to be taken by the protocol.
        self._eof = False
        # Reads in a row that only asked for answers; reading is paused because an answer waits, too.
        self._answers = 0
        self._held_back = False
        # The protocol's push producer was told to pause.
        self._told_pause = False
        self._linger_s = CLOSE_S

    def writeConnectionLost(self, reason: Failure | None = None) -> None:
        raise NotImplementedError

    def _read_on(self) -> None:
        raise NotImplementedError

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
        if self._stalled:
            # It does not read anyway.
            self._phase = OVER
            self._abort()
            return
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
            if self._phase == CLOSING:
                self._set_timer(STALL_S, self._abort)
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
        if self._timer is None:
            self._set_timer(STALL_S, self._abort)
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


def _told(error: SSL.Error) -> str:
    """
    What OpenSSL says, in words.
    """
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list) and queue:
        return "; ".join(str(entry[-1]) for entry in queue)
    return str(error) or type(error).__name__
