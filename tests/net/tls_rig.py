"""
The rig of the transport contract over TLS, and clients that speak it.

* `TLSSession` is the client's end of a connection in memory: the standard library's TLS, so that both ends are never
  the same code. Ciphertext goes in, and what is to be sent back comes out.
* `TLSClient` is a session over rig's plain client, with the same interface. Where TCP has FIN, TLS has close_notify:
  `finish` sends it, `until_end` waits for it, `rest` answers it too, as clients do that have no more to say.
* `TLSRig` serves TLS wherever rig serves plain connections. At the end it looks for timers that were left, too.
* `MemoryWire` is the transport below for tests in memory, `MemoryPair` a connection over it.
"""

from __future__ import annotations

import array
import fcntl
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from tests.net.rig import KIB, TWISTED_TLS, Client, Recorder, RecorderFactory, Rig
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IHalfCloseableProtocol, ITCPTransport
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

# The most plaintext of a record, and what a TLS 1.3 record adds: header 5, content type 1, tag 16 (RFC 8446 5.1, 5.2).
RECORD_BYTES = 16 * KIB
RECORD_OVERHEAD_BYTES = 22

# linux/sockios.h: bytes that were not yet sent. What was sent has arrived, on loopback.
SIOCOUTQNSD = 0x894B

_HALF_CLOSE = "Twisted's TLS has no half-close"
_PROTOCOL = "Twisted's TLS has its protocol as wrappedProtocol, and keeps it"
_ABORT = "Twisted's TLS gives ConnectionLost for abortConnection"
_AFTER_LOSE = "Twisted's TLS delivers after loseConnection"
_PULL = "Twisted's TLS makes pull producers push producers that are asked in each turn"

# What the oracle does not do, by test.
TWISTED_TLS_LACKS = {
    "test_abort_after_lose": _ABORT,
    "test_abort_drops_output": _ABORT,
    "test_abort_in_callback": _ABORT,
    "test_abort_unix": _ABORT,
    "test_abort_when_idle": _ABORT,
    "test_abort_while_losing": _ABORT,
    "test_answer_in_read_connection_lost": _HALF_CLOSE,
    "test_attributes_of_a_fresh_connection": "Twisted's TLS has the attribute TLS of the transport below",
    "test_connection_creator_that_fails": "Twisted's TLS fails again in connectionLost, which is logged",
    "test_calls_after_the_end": "Twisted's TLS raises AttributeError from abortConnection after the end",
    "test_end_without_half_close_with_output_pending": "Twisted's TLS waits for its output for ever",
    "test_fault_in_data_received": "Twisted's TLS gives ConnectionLost for a fault in dataReceived",
    "test_fault_in_read_connection_lost": _HALF_CLOSE,
    "test_half_close_by_peer": _HALF_CLOSE,
    "test_half_close_by_peer_with_output_pending": _HALF_CLOSE,
    "test_half_close_by_us": _HALF_CLOSE,
    "test_half_close_by_us_when_idle": _HALF_CLOSE,
    "test_lose_after_half_close_by_us": _HALF_CLOSE,
    "test_lose_resumes_paused_push_producer": "Twisted's TLS drops what a producer writes after loseConnection",
    "test_lose_right_after_half_close_by_us": _HALF_CLOSE,
    "test_lose_stops_reading": _AFTER_LOSE,
    "test_lose_stops_reading_while_flushing": _AFTER_LOSE,
    "test_lose_twice": "Twisted's TLS gives ConnectionLost for stopProducing, which goes to the transport below",
    "test_lose_while_paused": "Twisted's TLS does not hear the client's close_notify while paused",
    "test_other_protocol": _PROTOCOL,
    "test_other_protocol_in_data_received": _PROTOCOL,
    "test_other_protocol_with_half_close": _PROTOCOL,
    "test_pause_in_data_received": "Twisted's TLS delivers all records of a read although paused in the first",
    "test_peer_closes": "Twisted's TLS gives ConnectionLost when its answer to close_notify fails",
    "test_pull_producer": _PULL,
    "test_pull_producer_that_writes_nothing": _PULL,
    "test_reset_after_half_close": _HALF_CLOSE,
    "test_second_producer_is_refused": "Twisted's TLS has its own producer as the attribute",
    "test_stop_producing_loses": "Twisted's TLS sends stopProducing to the transport below",
    "test_write_takes_only_bytes_when_closed": "Twisted's TLS ignores all after the end",
}


def client_context(**attributes: Any) -> ssl.SSLContext:
    """
    A client's context that takes every certificate. attributes: of SSLContext.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in attributes.items():
        setattr(context, name, value)
    return context


@lru_cache
def server_options(certificate: bytes) -> Any:
    """
    Twisted's context factory for a PEM of key and certificate.
    """
    return PrivateCertificate.loadPEM(certificate).options()


class TLSSession:
    """
    A client's end of TLS, in memory.

    plaintext: what was received and not taken yet.
    ended: None while it goes on; "end" after close_notify, "cut" when the bytes ended without one, "reset" when the
        client below says so, otherwise the reason in OpenSSL's words, such as SSLV3_ALERT_HANDSHAKE_FAILURE.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = (context or client_context()).wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self.plaintext = bytearray()
        self.ended: str | None = None
        self.established = False
        self.finished = False

    @property
    def settled(self) -> bool:
        """
        Whether the server's end of the handshake is over too: in TLS 1.3 its tickets tell.
        """
        return self.established and (self.tls.version() != "TLSv1.3" or bool(self.tls.session.has_ticket))

    def start(self) -> bytes:
        """
        The ClientHello.
        """
        return self._turn()

    def feed(self, ciphertext: bytes) -> bytes:
        """
        Take what the server sent, b"" for its end; returns what is to be sent back.
        """
        if ciphertext:
            self._incoming.write(ciphertext)
        else:
            self._incoming.write_eof()
        return self._turn()

    def _turn(self) -> bytes:
        try:
            if not self.established:
                self.tls.do_handshake()
                self.established = True
            while piece := self.tls.read(256 * KIB):
                self.plaintext += piece
            self.ended = self.ended or "end"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = self.ended or "end"
        except ssl.SSLEOFError:
            self.ended = self.ended or "cut"
        except ssl.SSLError as error:
            self.ended = self.ended or str(error.reason)
        return self._outgoing.read()

    def encrypt(self, payload: bytes) -> bytes:
        """
        The records of a payload.
        """
        rest = memoryview(payload)
        while rest:
            rest = rest[self.tls.write(rest) :]
        return self._outgoing.read()

    def finish(self) -> bytes:
        """
        A close_notify, once; reading goes on.
        """
        if self.finished or not self.established:
            return b""
        self.finished = True
        # It also looks for the peer's.
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._outgoing.read()

    def take(self, size: int | None = None) -> bytes:
        """
        Remove what was received, or the first *size* bytes of it.
        """
        taken = bytes(self.plaintext[:size])
        del self.plaintext[:size]
        return taken

    def check_end(self) -> None:
        """
        Raise unless the end, if it came, was a clean one.
        """
        if self.ended == "reset":
            raise ConnectionResetError
        if self.ended not in (None, "end"):
            raise ssl.SSLError(f"ended by {self.ended}")


class TLSInTLSSession(TLSSession):
    """
    A client's end of TLS whose bytes are carried by another one's, `outer`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outer = TLSSession()
        self._begun = False

    def start(self) -> bytes:
        return self.outer.start()

    def feed(self, ciphertext: bytes) -> bytes:
        answer = self.outer.feed(ciphertext)
        if self.outer.established and not self._begun:
            self._begun = True
            answer += self.outer.encrypt(super().start())
        if carried := self.outer.take():
            answer += self.outer.encrypt(super().feed(carried))
        if self.outer.ended:
            self.ended = self.ended or ("cut" if self.outer.ended == "end" else self.outer.ended)
        return answer

    def encrypt(self, payload: bytes) -> bytes:
        return self.outer.encrypt(super().encrypt(payload))

    def finish(self) -> bytes:
        last = super().finish()
        return self.outer.encrypt(last) + self.outer.finish() if last else b""


class ClientRecords:
    """
    Makes the records that follow a session's handshake, those too that no library makes. RFC 8446 section 5, 7.

    secret: client_application_traffic_secret_0 of a connection with TLS_AES_256_GCM_SHA384.
    Once it has made one, the session can make none.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._sequence = 0

    @classmethod
    def of(cls, session: TLSSession, key_log: str) -> Self:
        """
        For the one session whose context has written this file.
        """
        cipher, *_ = session.tls.cipher() or ("",)
        assert cipher == "TLS_AES_256_GCM_SHA384"
        with open(key_log) as lines:
            secrets = dict(line.split()[::2] for line in lines if not line.startswith("#"))
        return cls(bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"]))

    def _expand(self, label: bytes, size: int) -> bytes:
        label = b"tls13 " + label
        info = struct.pack("!HB", size, len(label)) + label + b"\0"
        return HKDFExpand(SHA384(), size, info).derive(self._secret)

    def record(self, kind: int, content: bytes, padding_bytes: int = 0) -> bytes:
        """
        One record. kind: 21 alert, 22 handshake, 23 application data.
        """
        inner = content + bytes([kind]) + bytes(padding_bytes)
        header = struct.pack("!BHH", 23, 0x0303, len(inner) + 16)
        start = int.from_bytes(self._expand(b"iv", 12), "big")
        nonce = (start ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return header + AESGCM(self._expand(b"key", 32)).encrypt(nonce, inner, header)

    def key_update(self, requested: bool) -> bytes:
        """
        A KeyUpdate; the records made after it are of the new keys.

        requested: whether the peer is to update its own too.
        """
        whole = self.record(22, bytes([24, 0, 0, 1, requested]))
        self._secret = self._expand(b"traffic upd", 48)
        self._sequence = 0
        return whole


class TLSClient(Client):
    """
    A plain client that speaks TLS; the handshake is made when something is awaited of it.
    """

    def __init__(self, loop: Any, sock: socket.socket, session: TLSSession | None = None) -> None:
        super().__init__(loop, sock)
        self.session = session or TLSSession()
        self._started = False

    async def ready(self) -> None:
        """
        Wait for the end of the handshake on both sides, or of the connection; see session.ended.
        """
        if not self._started:
            self._started = True
            await self._send(self.session.start())
        while not (self.session.settled or self.session.ended):
            await self.turn()

    async def _send(self, ciphertext: bytes) -> None:
        try:
            if ciphertext:
                await self.loop.sock_sendall(self.sock, ciphertext)
        except (ConnectionResetError, BrokenPipeError):
            self.session.ended = self.session.ended or "reset"

    async def turn(self) -> None:
        """
        One read.
        """
        try:
            ciphertext = await self.loop.sock_recv(self.sock, 256 * KIB)
        except (ConnectionResetError, BrokenPipeError):
            self.session.ended = self.session.ended or "reset"
            return
        await self._send(self.session.feed(ciphertext))

    async def send(self, payload: bytes) -> None:
        await self.ready()
        self.session.check_end()
        await self.loop.sock_sendall(self.sock, self.session.encrypt(payload))

    async def receive(self, size: int) -> bytes:
        await self.ready()
        while len(self.session.plaintext) < size and not self.session.ended:
            await self.turn()
        if len(self.session.plaintext) < size:
            self.session.check_end()
        return self.session.take(size)

    async def until_end(self) -> bytes:
        await self.ready()
        while not self.session.ended:
            await self.turn()
        self.session.check_end()
        return self.session.take()

    async def rest(self) -> bytes:
        whole = await self.until_end()
        self.finish()
        return whole

    async def outcome(self) -> tuple[int, str]:
        """
        As of a plain client; without close_notify it is a "cut", or what OpenSSL says.
        """
        try:
            await self.until_end()
        except (ConnectionResetError, ssl.SSLError):
            pass
        else:
            self.finish()
        return len(self.session.take()), str(self.session.ended)

    def take(self) -> None:
        """
        Read what is there, at once, and count it as it is on the wire.
        """
        try:
            while ciphertext := self.sock.recv(256 * KIB):
                self.read_bytes += len(ciphertext)
                self.session.feed(ciphertext)
        except BlockingIOError:
            pass

    async def tcp_end(self) -> str:
        """
        Read on below TLS: "end" or "reset" of the TCP connection.
        """
        try:
            while await self.loop.sock_recv(self.sock, 256 * KIB):
                pass
        except ConnectionResetError:
            return "reset"
        return "end"

    def finish(self) -> None:
        """
        Send close_notify. The TCP connection stays open both ways.
        """
        # A server that was not to wait for it is gone.
        with suppress(ConnectionResetError, BrokenPipeError):
            self.sock.sendall(self.session.finish())

    def cut(self) -> None:
        """
        End our side of the TCP connection, without close_notify.
        """
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self.sock.fileno() >= 0:
            with suppress(OSError):  # its buffer may be full, its peer gone
                self.finish()
        self.sock.close()


def unsent_by(client: Client) -> int:
    """
    What a client's kernel has not sent yet.
    """
    count = array.array("i", [0])
    fcntl.ioctl(client.sock.fileno(), SIOCOUTQNSD, count)
    return count[0]


class TLSRig(Rig):
    """
    A rig whose ports speak TLS. certificate: PEM of key and certificate.
    """

    tls = True

    def __init__(self, variant: str, paths: Callable[[], str], certificate: bytes) -> None:
        self.certificate = certificate
        self.context_factory = server_options(certificate)
        self.loud: list[dict[str, Any]] = []
        super().__init__(variant, paths)

    def tls_factory(self, factory: Any, context_factory: Any = None, clock: Any = None) -> Any:
        """
        The factory that adds TLS, for listenTCP and listenUNIX.
        """
        context_factory = context_factory or self.context_factory
        clock = clock or self.reactor
        if self.variant == TWISTED_TLS:
            return TLSMemoryBIOFactory(context_factory, False, factory, clock)
        from txasgi.net.tls import TLSFactory

        return TLSFactory(context_factory, factory, clock)

    def listen_tcp(self, number: int, factory: Any, interface: str) -> Any:
        if self.native:
            return self.listeners.listenSSL(number, factory, self.context_factory, interface=interface)
        return self.listeners.listenTCP(number, self.tls_factory(factory), interface=interface)

    def listen_unix(self, path: str, factory: Any, **options: Any) -> Any:
        return self.listeners.listenUNIX(path, self.tls_factory(factory), **options)

    def serve_tls(self, protocol: Any = Recorder, context_factory: Any = None, clock: Any = None) -> Any:
        """
        Listen on TCP with another context factory, or with a clock instead of the reactor.

        protocol: a protocol class, or a factory.
        """
        factory = RecorderFactory(protocol) if isinstance(protocol, type) else protocol
        if self.native and clock is None:
            port = self.listeners.listenSSL(0, factory, context_factory or self.context_factory, interface="127.0.0.1")
        else:
            tls = self.tls_factory(factory, context_factory, clock)
            port = self.listeners.listenTCP(0, tls, interface="127.0.0.1")
        return self.add(port, factory)

    def new_client(self, sock: socket.socket, session: TLSSession | None = None) -> TLSClient:
        return TLSClient(self.loop, sock, session)

    def wire_bytes(self, size: int) -> int:
        return size + RECORD_OVERHEAD_BYTES * -(-size // RECORD_BYTES)

    async def arrived(self, client: Client, server: Recorder, size: int) -> None:
        # Who holds it there, the kernel or the transport, is not told.
        if client.sock.family != socket.AF_UNIX:
            await self.until(lambda: unsent_by(client) == 0)

    def _observe(self, event: dict[str, Any]) -> None:
        super()._observe(event)
        if event.get("log_level", LogLevel.info) > LogLevel.debug:
            self.loud.append(event)

    async def _see_nothing_left(self) -> None:
        await super()._see_nothing_left()
        await self.until(lambda: not self.reactor.getDelayedCalls(), what="that no timer is left")


# In memory


class MemoryWire(StringTransport):
    """
    A transport below TLS that keeps what it was told, and knows no half-close.

    calls: "lose", "abort", "pause" and "resume", in order; see HalfCloseWire for "lose write".
    """

    def __init__(self) -> None:
        # As real ones do, it ignores pauses and resumes after the end.
        super().__init__(lenient=True)
        self.calls: list[str] = []

    def loseConnection(self) -> None:
        self.calls.append("lose")
        super().loseConnection()

    def abortConnection(self) -> None:
        self.calls.append("abort")
        self.disconnected = True
        super().loseConnection()

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        super().resumeProducing()

    @property
    def closing(self) -> bool:
        """
        Whether it was told to close altogether.
        """
        return "lose" in self.calls or "abort" in self.calls

    def take(self) -> bytes:
        """
        What was written since the last time.
        """
        written = self.value()
        self.clear()
        return written


@implementer(ITCPTransport, IHalfCloseableDescriptor)
class HalfCloseWire(MemoryWire):
    """
    The same as TCP has it.
    """

    def loseWriteConnection(self) -> None:
        self.calls.append("lose write")


class MemoryPair:
    """
    A connection in memory: a client's session, and a protocol over a TLS factory's transport.

    client: a TLSSession. wire: the MemoryWire. below: the factory's protocol, which gets the wire's bytes.
    """

    def __init__(
        self, tls_factory: Any, factory: RecorderFactory, clock: Any, session: TLSSession, wire: MemoryWire | None
    ) -> None:
        self.clock = clock
        self.client = session
        self.wire = wire or HalfCloseWire()
        self.below = tls_factory.buildProtocol(self.wire.getPeer())
        self.below.makeConnection(self.wire)
        self.server: Any = factory.built[-1]
        self._held: list[bytes] = []
        self._half_closed = False
        self._over = False

    def deliver(self, ciphertext: bytes, step: int = 0) -> None:
        """
        Give bytes to the server, in pieces of *step*: each one read, made once the wire is not paused.
        """
        step = step or len(ciphertext) or 1
        self._held += [ciphertext[at : at + step] for at in range(0, len(ciphertext), step)]
        while self._held and self.wire.producerState == "producing" and not (self.wire.closing or self._over):
            self.below.dataReceived(self._held.pop(0))

    def pump(self, step: int = 0) -> None:
        """
        Carry bytes both ways until none are left; deliver the end if it was asked for.
        """
        self.deliver(b"")
        self.turn()
        while ciphertext := self.wire.take():
            self.deliver(self.client.feed(ciphertext), step)
            self.turn()
        if self.wire.closing:
            self.end(ConnectionAborted() if "abort" in self.wire.calls else ConnectionDone())

    def turn(self) -> None:
        """
        Let what was put off to the next turns of the loop happen.
        """
        for _ in range(5):
            self.clock.advance(0)
            if "lose write" in self.wire.calls and not (self._half_closed or self._over):
                self._half_closed = True
                if IHalfCloseableProtocol.providedBy(self.below):
                    self.below.writeConnectionLost()

    def handshake(self, step: int = 0) -> None:
        self.deliver(self.client.start(), step)
        self.pump(step)

    def eof(self) -> None:
        """
        The client's side of TCP ends.
        """
        if IHalfCloseableProtocol.providedBy(self.below):
            self.below.readConnectionLost()
        else:
            self.end(ConnectionDone())

    def end(self, reason: Exception) -> None:
        """
        The connection below is lost, once.
        """
        if not self._over:
            self._over = True
            self.below.connectionLost(Failure(reason))
            self.turn()


@contextmanager
def memory_pairs(clock: Clock) -> Iterator[list[MemoryPair]]:
    """
    A list for the pairs of a test. At its end each must have had no more than one end, been quiet, and left no timer.
    """
    pairs: list[MemoryPair] = []
    loud: list[dict[str, Any]] = []

    def observe(event: dict[str, Any]) -> None:
        if event.get("log_level", LogLevel.info) > LogLevel.debug:
            loud.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield pairs
        for pair in pairs:
            pair.end(ConnectionLost())
            assert pair.server.events.count("lost") == 1
            assert pair.server.events[-1] == "lost"
            assert pair.server.reentered == []
        assert clock.getDelayedCalls() == []
        assert loud == []
    finally:
        globalLogPublisher.removeObserver(observe)
