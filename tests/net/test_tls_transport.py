"""
What a TLS transport does beyond the transport contract: handshakes, close_notify, alerts, records, over and in memory.

Tests with a rig run over sockets. Those with `connect` run in memory, with a clock, and also over Twisted's own TLS
where that does the same.
"""

from __future__ import annotations

import gc
import ssl
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from OpenSSL import SSL
from tests.net.rig import (
    KIB,
    OUR_TLS,
    TLS_VARIANTS,
    HalfCloseRecorder,
    Oops,
    PullProducer,
    PushProducer,
    Recorder,
    RecorderFactory,
    Served,
    echo,
    recorder,
)
from tests.net.test_transport_contract import LARGE
from tests.net.tls_rig import (
    ClientRecords,
    MemoryPair,
    MemoryWire,
    TLSClient,
    TLSInTLSSession,
    TLSRig,
    TLSSession,
    client_context,
    memory_pairs,
    server_options,
    unsent_by,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHandshakeListener,
    INegotiated,
    IOpenSSLContextFactory,
    IOpenSSLServerConnectionCreator,
    IProtocolNegotiationFactory,
    ISSLTransport,
)
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    DefaultOpenSSLContextFactory,
    PrivateCertificate,
    TLSVersion,
    trustRootFromCertificates,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

ours_only = pytest.mark.parametrize("variant", OUR_TLS, indirect=True)
ours_in_memory = pytest.mark.parametrize("library", ["txasgi"], indirect=True)

# A record that is a handshake message of no known type, and bytes that are no TLS at all: random, HTTP, SSL 2.
NO_CLIENT_HELLO = bytes.fromhex("1603010005") + bytes.fromhex("ff00000100")
NO_TLS = [bytes(range(64, 128)) * 4, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x80\x2e\x01\x00\x02" + b"\0" * 60]
FATAL = 2
CLOSE_NOTIFY = bytes([1, 0])
INTERNAL_ERROR = bytes([FATAL, 80])


@implementer(IHandshakeListener)
class HandshakeRecorder(Recorder):
    """
    A recorder that is told of the end of the handshake.
    """

    on_handshake: Callable[[Any], None] | None = None

    def handshakeCompleted(self) -> None:
        self.note("handshake")
        if self.on_handshake is not None:
            type(self).on_handshake(self)


def handshake_recorder(on_handshake: Any = None, **places: Any) -> type:
    kind = recorder(kind=HandshakeRecorder, **places)
    kind.on_handshake = on_handshake
    return kind


@implementer(IProtocolNegotiationFactory)
class Offering(RecorderFactory):
    """
    A factory that speaks h2 and, less gladly, http/1.1.
    """

    def acceptableProtocols(self) -> list[bytes]:
        return [b"h2", b"http/1.1"]


@pytest.fixture(params=TLS_VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """
    Which TLS the test runs on.
    """
    return request.param


@pytest.fixture(params=["txasgi", "twisted"])
def library(request: pytest.FixtureRequest) -> str:
    """
    Whose TLS it is, in memory.
    """
    return request.param


@pytest.fixture
def connect(library: str, clock: Clock, certificate: bytes) -> Iterator[Callable[..., MemoryPair]]:
    """
    Makes connections in memory; at the end each must have had no more than one end, and been quiet.
    """
    with memory_pairs(clock) as pairs:

        def make(protocol: type = Recorder, session: Any = None, wire: Any = None) -> MemoryPair:
            factory = RecorderFactory(protocol)
            context_factory = server_options(certificate)
            if library == "twisted":
                tls_factory = TLSMemoryBIOFactory(context_factory, False, factory, clock)
            else:
                from txasgi.net.tls import TLSFactory

                tls_factory = TLSFactory(context_factory, factory, clock)
            pair = MemoryPair(tls_factory, factory, clock, session or TLSSession(), wire)
            pairs.append(pair)
            return pair

        yield make


def finished(pair: MemoryPair) -> bytes:
    """
    Carry the handshake as far as the client's last flight, and return that.
    """
    pair.deliver(pair.client.start())
    pair.turn()
    last = pair.client.feed(pair.wire.take())
    assert pair.client.established
    return last


def established(connect: Any, key_log: str, protocol: Any = Recorder) -> tuple[MemoryPair, ClientRecords]:
    """
    A connection after its handshake, and the maker of its next records.
    """
    pair = connect(protocol, TLSSession(client_context(keylog_filename=key_log)))
    pair.handshake()
    return pair, ClientRecords.of(pair.client, key_log)


# The handshake


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
def test_byte_by_byte(connect: Any, version: ssl.TLSVersion) -> None:
    """
    Handshake, data and close_notify may come byte by byte.
    """
    session = TLSSession(client_context(minimum_version=version, maximum_version=version))
    pair = connect(recorder(on_read=echo), session)
    pair.handshake(step=1)
    assert pair.client.established
    pair.deliver(pair.client.encrypt(b"hello"), step=1)
    pair.pump()
    assert pair.client.take() == b"hello"
    assert pair.server.received == b"hello"
    pair.deliver(pair.client.finish(), step=1)
    pair.pump()
    assert pair.server.events == ["made", "read", "lost"]
    assert pair.server.reasons[0].check(ConnectionDone)


def test_connection_is_made_at_once(connect: Any) -> None:
    """
    connectionMade comes with the TCP connection, before any byte of the handshake.
    """
    pair = connect()
    assert pair.server.events == ["made"]
    assert pair.wire.take() == b""


@pytest.mark.parametrize("sent", ["nothing", "half of ClientHello", "all but the last flight"])
@ours_in_memory
def test_handshake_deadline(connect: Any, clock: Clock, sent: str) -> None:
    """
    A handshake that is not over after 10 s ends the connection, and no earlier.
    """
    pair = connect()
    if sent == "half of ClientHello":
        pair.deliver(pair.client.start()[:100])
    elif sent == "all but the last flight":
        finished(pair)
    clock.advance(9.9)
    pair.turn()
    assert not pair.wire.closing
    clock.advance(0.1)
    pair.turn()
    assert pair.wire.closing
    pair.pump()
    assert pair.server.events == ["made", "lost"]
    assert not pair.server.reasons[0].check(ConnectionDone)


@ours_in_memory
def test_handshake_deadline_is_for_all_of_it(connect: Any, clock: Clock) -> None:
    """
    Bytes that trickle in do not put the handshake's deadline off.
    """
    pair = connect()
    hello = pair.client.start()
    for second in range(10):
        assert not pair.wire.closing
        pair.deliver(hello[second : second + 1])
        clock.advance(1)
    pair.turn()
    assert pair.wire.closing


def test_no_deadline_after_the_handshake(connect: Any, clock: Clock) -> None:
    """
    Once the handshake is over an idle connection lives on.
    """
    pair = connect()
    pair.handshake()
    clock.advance(1000)
    pair.pump()
    assert pair.server.events == ["made"]
    assert not pair.wire.closing


@ours_in_memory
def test_handshake_deadline_with_output(connect: Any, clock: Clock) -> None:
    """
    Output and loseConnection that wait for a handshake do not outlive its deadline.
    """

    def greet(server: Recorder) -> None:
        server.write(b"hello")
        server.lose()

    pair = connect(recorder(on_made=greet))
    pair.turn()
    assert not pair.wire.closing
    clock.advance(10)
    pair.pump()
    assert pair.server.events == ["made", "lost"]


def test_writes_wait_for_the_handshake(connect: Any) -> None:
    """
    What was written before the end of the handshake is sent after it, in order.
    """

    def greet(server: Recorder) -> None:
        server.write(b"one,")
        server.transport.writeSequence([b"two,", b"three,"])

    pair = connect(recorder(on_made=greet))
    pair.server.write(b"four,")
    last = finished(pair)
    pair.server.write(b"five,")
    assert pair.client.take() == b""
    pair.deliver(last)
    pair.server.write(b"six")
    pair.pump()
    assert pair.client.take() == b"one,two,three,four,five,six"


def test_handshake_completed(connect: Any) -> None:
    """
    handshakeCompleted is called once, before the data that came in the same read as the handshake's end.
    """
    pair = connect(HandshakeRecorder)
    last = finished(pair)
    assert pair.server.events == ["made"]
    pair.deliver(last + pair.client.encrypt(b"early"))
    pair.pump()
    pair.deliver(pair.client.encrypt(b"later"))
    pair.pump()
    assert pair.server.events == ["made", "handshake", "read", "read"]
    assert pair.server.received == b"earlylater"


def test_write_in_handshake_completed(connect: Any) -> None:
    """
    What handshakeCompleted writes comes after what was written before.
    """
    made = handshake_recorder(lambda server: server.write(b"second"), on_made=lambda server: server.write(b"first,"))
    pair = connect(made)
    pair.handshake()
    pair.pump()
    assert pair.client.take() == b"first,second"


@pytest.mark.parametrize("end", ["lose", "abort"])
@ours_in_memory
def test_end_in_handshake_completed(connect: Any, end: str) -> None:
    """
    A protocol that ends the connection in handshakeCompleted is given no data, and the client gets its greeting.
    """

    def leave(server: Recorder) -> None:
        server.write(b"bye")
        getattr(server, end)()

    pair = connect(handshake_recorder(leave))
    last = finished(pair)
    pair.deliver(last + pair.client.encrypt(b"early"))
    pair.pump()
    pair.deliver(pair.client.finish())
    pair.pump()
    assert pair.server.events == ["made", "handshake", "lost"]
    if end == "lose":
        assert pair.client.take() == b"bye"
        assert pair.client.ended == "end"
    else:
        assert pair.client.ended is None
        assert pair.server.reasons[0].check(ConnectionAborted)


@ours_in_memory
def test_pause_in_handshake_completed(connect: Any) -> None:
    """
    A protocol that pauses in handshakeCompleted is given the data of that read after it has resumed.
    """
    pair = connect(handshake_recorder(lambda server: server.pause()))
    last = finished(pair)
    pair.deliver(last + pair.client.encrypt(b"early"))
    pair.pump()
    assert pair.server.events == ["made", "handshake"]
    pair.server.resume()
    pair.pump()
    assert pair.server.received == b"early"


@ours_only
async def test_fault_in_handshake_completed(rig: TLSRig) -> None:
    """
    An exception in handshakeCompleted is logged once and ends that connection, with it as the reason.
    """

    def fail(server: Recorder) -> None:
        if server is served.factory.built[0]:
            raise Oops("in handshakeCompleted")

    served = rig.serve(handshake_recorder(fail, on_read=echo))
    client, server = await served.pair()
    await client.outcome()
    await rig.until(lambda: server.lost)
    assert len(rig.flush(Oops)) == 1
    assert server.reasons[0].check(Oops)
    client, _ = await served.pair()
    await client.send(b"next")
    assert await client.receive(4) == b"next"


# Handshakes that fail


def test_no_client_hello(connect: Any) -> None:
    """
    A record that is no ClientHello is answered by a fatal alert and the end, and the protocol hears OpenSSL's reason.
    """
    pair = connect(recorder(on_made=lambda server: server.write(b"secret")))
    pair.deliver(NO_CLIENT_HELLO)
    pair.turn()
    alert = pair.wire.take()
    assert (0x15, 3, FATAL) == (alert[0], alert[1], alert[5])
    assert len(alert) == 7
    pair.eof()
    pair.pump()
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(SSL.Error)


@pytest.mark.parametrize("garbage", NO_TLS, ids=["random", "http", "ssl2"])
def test_no_tls(connect: Any, garbage: bytes) -> None:
    """
    Bytes that are no TLS end the connection with OpenSSL's reason; nothing but an alert is sent.
    """
    pair = connect(recorder(on_made=lambda server: server.write(b"secret")))
    pair.deliver(garbage)
    pair.turn()
    # OpenSSL has no alert for a peer that will not understand it.
    assert pair.wire.take()[:1] in (b"", b"\x15")
    pair.eof()
    pair.pump()
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(SSL.Error)


@pytest.mark.parametrize("step", [0, 1])
def test_client_that_stays_after_an_alert(connect: Any, clock: Clock, step: int) -> None:
    """
    A client that does not close after the alert, whatever it still sends, is closed after 10 s at most, once.
    """
    pair = connect()
    pair.deliver(NO_CLIENT_HELLO)
    for _ in range(100):
        clock.advance(0.1)
        if step:
            pair.deliver(NO_CLIENT_HELLO)
    pair.pump()
    assert pair.wire.closing
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(SSL.Error)


@pytest.mark.parametrize("more", [0, 300 * KIB])
async def test_alert_is_readable(rig: TLSRig, more: int) -> None:
    """
    A client whose handshake fails can read the alert, also when it has sent more, and nothing is logged.
    """
    served = rig.serve()
    rig.loud.clear()
    client = await served.connect()
    try:
        await rig.loop.sock_sendall(client.sock, NO_CLIENT_HELLO + b"x" * more)
    except (BrokenPipeError, ConnectionResetError):
        assert more
    server = await served.accepted()
    alert = await rig.loop.sock_recv(client.sock, 100)
    assert (0x15, FATAL) == (alert[0], alert[5])
    # The server may wait for our end, or not.
    with suppress(OSError):
        client.cut()
    end = await client.tcp_end()
    if not more:
        assert end == "end"
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "lost"]
    assert server.reasons[0].check(SSL.Error)
    assert rig.loud == []


async def test_no_version_in_common(rig: TLSRig, certificate: bytes) -> None:
    """
    A client of an older version than the context takes reads the alert protocol_version.
    """
    own = PrivateCertificate.loadPEM(certificate)
    options = CertificateOptions(
        privateKey=own.privateKey.original, certificate=own.original, raiseMinimumTo=TLSVersion.TLSv1_3
    )
    served = rig.serve_tls(context_factory=options)
    client = await served.connect(session=TLSSession(client_context(maximum_version=ssl.TLSVersion.TLSv1_2)))
    assert await client.outcome() == (0, "TLSV1_ALERT_PROTOCOL_VERSION")
    client.close()
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "lost"]
    assert server.reasons[0].check(SSL.Error)


async def test_client_refuses_the_certificate(rig: TLSRig) -> None:
    """
    A client that does not trust the certificate ends the handshake by an alert, which is the protocol's reason.
    """
    served = rig.serve(recorder(on_made=lambda server: server.write(b"secret")))
    rig.loud.clear()
    client = await served.connect(session=TLSSession(ssl.create_default_context()))
    await client.ready()
    assert client.session.ended == "CERTIFICATE_VERIFY_FAILED"
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "lost"]
    assert server.reasons[0].check(SSL.Error)
    assert "alert" in str(server.reasons[0].value)
    assert rig.loud == []


@pytest.mark.parametrize("sent", ["nothing", "half of ClientHello", "ClientHello"])
@pytest.mark.parametrize("end", ["cut", "close", "reset"])
async def test_loss_in_the_handshake(rig: TLSRig, sent: str, end: str) -> None:
    """
    A client that goes away within the handshake gives ConnectionLost, whatever was written, and nothing is logged.
    """
    served = rig.serve(recorder(on_made=lambda server: server.write(b"secret")))
    rig.loud.clear()
    client = await served.connect()
    server = await served.accepted()
    hello = client.session.start()
    size = {"nothing": 0, "half of ClientHello": 100, "ClientHello": len(hello)}[sent]
    await rig.loop.sock_sendall(client.sock, hello[:size])
    if size == len(hello):
        await rig.until(lambda: client.unread_bytes)
    getattr(client, end)()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "lost"]
    assert server.reasons[0].check(ConnectionLost)
    assert rig.loud == []


@ours_in_memory
def test_close_notify_in_the_handshake(connect: Any) -> None:
    """
    A client that sends close_notify after its ClientHello ends the connection, once.
    """
    pair = connect(HalfCloseRecorder)
    pair.deliver(pair.client.start())
    pair.turn()
    pair.deliver(bytes.fromhex("1503030002") + CLOSE_NOTIFY)
    pair.turn()
    assert pair.wire.closing
    pair.pump()
    assert pair.server.events == ["made", "lost"]


# Ends before the handshake


@pytest.mark.parametrize("sent", [0, 100])
def test_lose_before_the_handshake(connect: Any, sent: int) -> None:
    """
    loseConnection with nothing written and the handshake not over closes at once.
    """
    pair = connect()
    pair.deliver(pair.client.start()[:sent])
    pair.server.lose()
    assert not pair.server.lost
    pair.turn()
    assert pair.wire.closing
    pair.pump()
    assert pair.server.events == ["made", "lost"]


async def test_lose_in_connection_made_with_nothing_written(rig: TLSRig) -> None:
    """
    A protocol that loses the connection in connectionMade makes a client wait for nothing.
    """
    served = rig.serve(recorder(on_made=lambda server: server.lose()))
    client = await served.connect()
    size, end = await client.outcome()
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    assert size == 0
    assert end in ("cut", "reset")
    assert server.events == ["made", "lost"]


async def test_lose_in_connection_made_with_much_written(rig: TLSRig) -> None:
    """
    What was written in connectionMade, much too, arrives whole before the close_notify of loseConnection.
    """

    def greet(server: Recorder) -> None:
        server.write(LARGE)
        server.lose()

    client, server = await rig.serve(recorder(on_made=greet)).pair()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


@ours_in_memory
def test_lose_write_before_the_handshake(connect: Any) -> None:
    """
    loseWriteConnection before the end of the handshake sends what was written and close_notify after it.
    """

    def greet(server: Recorder) -> None:
        server.write(b"all")
        server.transport.loseWriteConnection()

    pair = connect(recorder(kind=HalfCloseRecorder, on_made=greet))
    pair.handshake()
    assert pair.client.take() == b"all"
    assert pair.client.ended == "end"
    pair.deliver(pair.client.encrypt(b"still there"))
    pair.pump()
    assert pair.server.received == b"still there"
    assert pair.server.events == ["made", "write lost", "read"]


# Records


def test_records_in_one_read(connect: Any) -> None:
    """
    All records of one read are delivered, in order.
    """
    pair = connect()
    pair.handshake()
    pieces = [b"%d," % number * 1000 for number in range(40)]
    pair.deliver(b"".join(pair.client.encrypt(piece) for piece in pieces))
    pair.pump()
    assert b"".join(pieces) == pair.server.received


@pytest.mark.parametrize("at", [1, 4, 5, 6, 21, -1])
def test_record_split_over_reads(connect: Any, at: int) -> None:
    """
    A record split over two reads is delivered once, when it is whole.
    """
    pair = connect()
    pair.handshake()
    first, second = pair.client.encrypt(b"first"), pair.client.encrypt(b"second")
    pair.deliver(first + second[:at])
    pair.pump()
    assert pair.server.received == b"first"
    pair.deliver(second[at:])
    pair.pump()
    assert pair.server.received == b"firstsecond"


def test_empty_records(connect: Any, key_log: str) -> None:
    """
    Records of no bytes are not delivered, and not taken for the end.
    """
    pair, records = established(connect, key_log)
    pair.deliver(records.record(23, b"") + records.record(23, b"", padding_bytes=100))
    pair.deliver(records.record(23, b"next"))
    pair.pump()
    assert pair.server.chunks == [b"next"]


def test_padded_record(connect: Any, key_log: str) -> None:
    """
    A record's padding is not delivered.
    """
    pair, records = established(connect, key_log)
    pair.deliver(records.record(23, b"padded", padding_bytes=1000))
    pair.pump()
    assert pair.server.chunks == [b"padded"]


def test_longest_record(connect: Any, key_log: str) -> None:
    """
    A record of 16 KiB is taken, and a longer one is answered by the alert record_overflow.
    """
    pair, records = established(connect, key_log)
    pair.deliver(records.record(23, LARGE[: 16 * KIB]))
    pair.pump()
    assert LARGE[: 16 * KIB] == pair.server.received
    pair.deliver(records.record(23, LARGE[: 17 * KIB]))
    pair.pump()
    pair.eof()
    pair.pump()
    assert pair.client.ended == "TLSV1_ALERT_RECORD_OVERFLOW"
    assert LARGE[: 16 * KIB] == pair.server.received
    assert pair.server.lost


def test_damaged_record(connect: Any) -> None:
    """
    A record that does not decrypt is answered by the alert bad_record_mac, and the connection ends uncleanly.
    """
    pair = connect(HalfCloseRecorder)
    pair.handshake()
    good, bad = pair.client.encrypt(b"good"), bytearray(pair.client.encrypt(b"bad"))
    bad[10] ^= 1
    pair.deliver(good + bad)
    pair.pump()
    pair.eof()
    pair.pump()
    assert pair.client.ended == "SSLV3_ALERT_BAD_RECORD_MAC"
    assert pair.server.events == ["made", "read", "lost"]
    assert pair.server.received == b"good"
    assert not pair.server.reasons[0].check(ConnectionDone)


PIECES = [bytes([number]) * 16 * KIB for number in range(40)]


def one_read(pair: MemoryPair) -> bytes:
    """
    The records of PIECES: more than any transport delivers at once.
    """
    return b"".join(pair.client.encrypt(piece) for piece in PIECES)


@ours_in_memory
def test_pause_between_records(connect: Any) -> None:
    """
    Paused within dataReceived, nothing more of the same read is delivered until resumeProducing, then all in order.
    """
    pair = connect(recorder(on_read=lambda server: server.pause()))
    pair.handshake()
    pair.deliver(one_read(pair) + pair.client.finish())
    count = 0
    while len(pair.server.received) < len(b"".join(PIECES)):
        count += 1
        pair.turn()
        assert len(pair.server.chunks) == count
        assert not pair.server.lost
        pair.server.resume()
        assert len(pair.server.chunks) == count
        pair.turn()
    assert count > 1
    assert b"".join(PIECES) == pair.server.received
    pair.server.resume()
    pair.pump()
    assert pair.server.events == ["made", *["read"] * (count + 1), "lost"]
    assert pair.server.reasons[0].check(ConnectionDone)


@pytest.mark.parametrize("end", ["lose", "abort"])
@ours_in_memory
def test_end_between_records(connect: Any, end: str) -> None:
    """
    Ended within dataReceived, nothing more of the same read is delivered, not even by resumeProducing.
    """

    def leave(server: Recorder) -> None:
        server.pause()
        getattr(server, end)()
        server.resume()

    pair = connect(recorder(on_read=leave))
    pair.handshake()
    pair.deliver(one_read(pair))
    pair.pump()
    pair.deliver(pair.client.finish())
    pair.pump()
    assert pair.server.events == ["made", "read", "lost"]
    assert len(pair.server.received) < len(b"".join(PIECES))


@ours_in_memory
def test_close_notify_while_paused(connect: Any) -> None:
    """
    A close_notify that comes behind records which are held by a pause is told after them.
    """
    pair = connect(recorder(kind=HalfCloseRecorder, on_read=lambda server: server.pause()))
    pair.handshake()
    pair.deliver(one_read(pair) + pair.client.finish())
    pair.turn()
    for _ in PIECES:
        assert "read lost" not in pair.server.events or b"".join(PIECES) == pair.server.received
        pair.server.resume()
        pair.pump()
    assert b"".join(PIECES) == pair.server.received
    assert pair.server.events[-2:] == ["read", "read lost"]


STEPS = st.one_of(
    st.tuples(st.just("client writes"), st.integers(1, 50_000)),
    st.tuples(st.just("we write"), st.integers(0, 50_000)),
    st.tuples(st.just("a read"), st.integers(1, 40_000)),
    st.tuples(st.sampled_from(["pause", "resume", "turn"]), st.just(0)),
)


@given(steps=st.lists(STEPS, max_size=40), pause_in_reads=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@ours_in_memory
def test_any_order(connect: Any, steps: list[tuple[str, int]], pause_in_reads: bool) -> None:
    """
    Whatever the reads, writes, pauses and resumes, all arrives in order, and nothing while paused.
    """
    paused = False

    def read(server: Recorder) -> None:
        nonlocal paused
        assert not paused
        if pause_in_reads:
            server.pause()
            paused = True

    pair = connect(recorder(on_read=read))
    pair.handshake()
    sent, written, on_the_way = bytearray(), bytearray(), bytearray()
    for step, size in steps:
        if step == "client writes":
            sent += LARGE[len(sent) : len(sent) + size]
            on_the_way += pair.client.encrypt(bytes(sent[-size:]))
        elif step == "we write":
            piece = LARGE[len(written) : len(written) + size]
            written += piece
            pair.server.write(piece)
        elif step == "a read":
            pair.deliver(bytes(on_the_way[:size]))
            del on_the_way[:size]
        elif step == "turn":
            pair.turn()
        else:
            paused = step == "pause"
            getattr(pair.server, step)()
    pair.deliver(bytes(on_the_way))
    for _ in range(len(steps) + len(sent) // KIB + 1):
        paused = False
        pair.server.resume()
        pair.pump()
    assert bytes(sent) == pair.server.received
    assert bytes(written) == pair.client.take()


def test_pause_reaches_the_transport_below(connect: Any) -> None:
    """
    A paused connection does not read, and reads when resumed.
    """
    pair = connect()
    pair.handshake()
    pair.server.pause()
    pair.deliver(pair.client.encrypt(b"one"))
    pair.deliver(pair.client.encrypt(b"two"))
    pair.turn()
    assert pair.wire.producerState == "paused"
    assert pair.server.chunks == []
    pair.server.resume()
    pair.pump()
    assert pair.wire.producerState == "producing"
    assert pair.server.received == b"onetwo"


@ours_in_memory
def test_what_is_held_is_taken_before_more_is_read(connect: Any) -> None:
    """
    A protocol that pauses and resumes with each piece, as one with a slow application does, gets what is here before
    the transport below reads on; otherwise a fast client would pile up its upload here.
    """
    pair = connect(recorder(on_read=lambda server: server.pause()))
    pair.handshake()
    upload = b"x" * (256 * KIB)
    pair.deliver(pair.client.encrypt(upload))
    pair.wire.calls.clear()
    while len(pair.server.received) < len(upload):
        assert "resume" not in pair.wire.calls
        before = len(pair.server.received)
        pair.server.resume()
        pair.turn()
        assert len(pair.server.received) > before
    pair.server.resume()
    pair.turn()
    assert pair.wire.producerState == "producing"


async def test_paused_upload_waits(rig: TLSRig) -> None:
    """
    While we are paused the client can send no more than the kernel takes.
    """
    client, server = await rig.serve().pair()
    server.pause()
    upload = rig.loop.create_task(client.send(LARGE))
    await rig.polls(50)
    assert not upload.done()
    assert server.chunks == []
    server.resume()
    await upload
    await rig.until(lambda: sum(map(len, server.chunks)) == len(LARGE))
    assert server.received == LARGE


@ours_only
async def test_pause_does_not_hold_up_the_handshake(rig: TLSRig) -> None:
    """
    A protocol that pauses in connectionMade still has its greeting sent.
    """

    def greet(server: Recorder) -> None:
        server.pause()
        server.write(b"hello")

    served = rig.serve(recorder(on_made=greet))
    client, server = await served.pair()
    assert await client.receive(5) == b"hello"
    await client.send(b"one")
    await rig.until(lambda: unsent_by(client) == 0)
    await rig.polls()
    assert server.chunks == []
    server.resume()
    await rig.until(lambda: server.received == b"one")


# Producers while the handshake runs


@ours_in_memory
def test_push_producer_before_the_handshake(connect: Any) -> None:
    """
    A push producer that has written more than 64 KiB is paused until the end of the handshake.
    """
    producer = PushProducer()

    def produce(server: Recorder) -> None:
        server.transport.registerProducer(producer, True)
        server.write(LARGE[: 100 * KIB])

    pair = connect(recorder(on_made=produce))
    last = finished(pair)
    pair.turn()
    assert producer.calls == ["pause"]
    pair.deliver(last)
    pair.pump()
    assert producer.calls == ["pause", "resume"]
    assert pair.client.take() == LARGE[: 100 * KIB]
    pair.server.transport.unregisterProducer()


@ours_in_memory
def test_pull_producer_before_the_handshake(connect: Any) -> None:
    """
    A pull producer is asked once, and again after the handshake, when its first piece is sent.
    """
    pieces = [LARGE[at : at + 1000] for at in range(0, 10_000, 1000)]
    producers: list[PullProducer] = []

    def produce(server: Recorder) -> None:
        producers.append(PullProducer(server.transport, list(pieces), on_end=server.lose))
        server.transport.registerProducer(producers[0], False)

    pair = connect(recorder(on_made=produce))
    last = finished(pair)
    pair.turn()
    assert producers[0].asked == 1
    pair.deliver(last)
    while pair.client.ended is None:
        before = producers[0].asked
        pair.pump()
        assert producers[0].asked > before
    assert pair.client.take() == b"".join(pieces)
    assert producers[0].asked == 11
    assert producers[0].deepest == 1


@pytest.mark.parametrize("streaming", [True, False], ids=["push", "pull"])
async def test_producer_with_a_client_that_is_late(rig: TLSRig, streaming: bool) -> None:
    """
    A producer registered in connectionMade is held while the client makes no handshake, and sends all afterwards.
    """
    sent = 0
    push = PushProducer()

    def produce(server: Recorder) -> None:
        nonlocal sent
        while not push.paused and sent < len(LARGE):
            server.transport.write(LARGE[sent : sent + 100 * KIB])
            sent += 100 * KIB
        if sent >= len(LARGE):
            server.transport.unregisterProducer()
            server.transport.loseConnection()

    def begin(server: Recorder) -> None:
        nonlocal sent
        if streaming:
            push.on_resume = lambda: produce(server)
            server.transport.registerProducer(push, True)
            produce(server)
        else:
            pieces = [LARGE[at : at + 100 * KIB] for at in range(0, len(LARGE), 100 * KIB)]
            pull.append(PullProducer(server.transport, pieces, on_end=server.lose))
            server.transport.registerProducer(pull[0], False)

    pull: list[PullProducer] = []
    served = rig.serve(recorder(on_made=begin))
    client = await served.connect()
    server = await served.accepted()
    await rig.polls()
    assert (sent // (100 * KIB) if streaming else pull[0].asked) <= 2
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


@pytest.mark.parametrize("streaming", [True, False], ids=["push", "pull"])
@ours_in_memory
def test_producer_of_a_handshake_that_fails(connect: Any, streaming: bool) -> None:
    """
    A producer whose connection ends within the handshake is stopped once.
    """
    producer = PushProducer()
    pair = connect(recorder(on_made=lambda server: server.transport.registerProducer(producer, streaming)))
    pair.deliver(NO_CLIENT_HELLO)
    pair.pump()
    pair.eof()
    pair.pump()
    assert pair.server.lost
    assert producer.calls == (["stop"] if streaming else ["resume", "stop"])


# The end of TLS


@ours_in_memory
def test_lose_on_the_wire(connect: Any) -> None:
    """
    loseConnection sends what was written, then close_notify, then half-closes; the client's answer closes.
    """
    pair = connect()
    pair.handshake()
    pair.wire.calls.clear()
    pair.server.write(b"all")
    pair.server.lose()
    pair.pump()
    assert pair.client.take() == b"all"
    assert pair.client.ended == "end"
    assert pair.wire.calls[-1:] == ["lose write"]
    assert not pair.server.lost
    pair.deliver(pair.client.finish())
    pair.pump()
    assert pair.wire.calls[-1] == "lose"
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(ConnectionDone)


@pytest.mark.parametrize("answered", [True, False])
@ours_in_memory
def test_lose_without_half_close_below(connect: Any, clock: Clock, answered: bool) -> None:
    """
    loseConnection over a transport that knows no half-close sends close_notify too, and ends as it does elsewhere.
    """
    pair = connect(wire=MemoryWire())
    pair.handshake()
    pair.server.write(b"all")
    pair.server.lose()
    pair.pump()
    assert pair.client.take() == b"all"
    assert pair.client.ended == "end"
    if answered:
        pair.deliver(pair.client.finish())
    else:
        clock.advance(10)
    pair.pump()
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(ConnectionDone)


@ours_in_memory
def test_half_close_without_half_close_below(connect: Any) -> None:
    """
    Over a transport that knows no half-close TLS still has its own, both ways.
    """
    pair = connect(HalfCloseRecorder, wire=MemoryWire())
    pair.handshake()
    pair.server.write(b"all")
    pair.server.transport.loseWriteConnection()
    pair.pump()
    assert pair.client.take() == b"all"
    assert pair.client.ended == "end"
    pair.deliver(pair.client.encrypt(b"still there"))
    pair.deliver(pair.client.finish())
    pair.pump()
    assert pair.server.received == b"still there"
    assert pair.server.events[:4] == ["made", "write lost", "read", "read lost"]


@ours_in_memory
def test_eof_answers_lose(connect: Any) -> None:
    """
    After loseConnection the client's EOF, without close_notify, is a clean end too.
    """
    pair = connect()
    pair.handshake()
    pair.server.lose()
    pair.pump()
    pair.eof()
    pair.pump()
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(ConnectionDone)


@pytest.mark.parametrize("busy", [False, True], ids=["silent", "talking"])
@ours_in_memory
def test_close_notify_that_never_comes(connect: Any, clock: Clock, busy: bool) -> None:
    """
    A client that does not answer loseConnection is closed after 10 s, however much it sends: ConnectionDone.
    """
    pair = connect()
    pair.handshake()
    pair.server.lose()
    pair.pump()
    for _ in range(99):
        clock.advance(0.1)
        if busy:
            pair.deliver(pair.client.encrypt(b"still here"))
        assert not pair.wire.closing
    clock.advance(0.2)
    pair.turn()
    assert pair.wire.closing
    pair.pump()
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(ConnectionDone)


@ours_only
async def test_slow_reader_is_not_cut_off(rig: TLSRig) -> None:
    """
    The 10 s are for the client's close_notify, not for the output that loseConnection has to send before.
    """
    clock = Clock()
    client, server = await rig.serve_tls(clock=clock).pair()
    server.write(LARGE)
    server.lose()
    for _ in range(5):
        await rig.polls(2)
        clock.advance(9)
    assert LARGE[:1000] == await client.receive(1000)
    assert not server.lost
    assert LARGE[1000:] == await client.rest()
    await rig.until(lambda: clock.advance(0) or server.lost)
    assert server.reasons[0].check(ConnectionDone)
    assert clock.getDelayedCalls() == []


@ours_only
async def test_data_after_our_close_notify(rig: TLSRig) -> None:
    """
    What a client sends after our close_notify is discarded, more than the kernel takes too, and the end is clean.
    """
    client, server = await rig.serve().pair()
    server.lose()
    assert await client.until_end() == b""
    await client.send(LARGE)
    assert not server.lost
    client.finish()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "lost"]
    assert server.reasons[0].check(ConnectionDone)
    assert await client.tcp_end() == "end"


@pytest.mark.parametrize("kind", [Recorder, HalfCloseRecorder])
async def test_eof_without_close_notify(rig: TLSRig, kind: type) -> None:
    """
    The end of TCP without close_notify gives ConnectionLost, after all that came before, half-closeable or not.
    """
    client, server = await rig.serve(recorder(kind=kind)).pair()
    await client.send(b"cut o")
    client.cut()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "read", "lost"]
    assert server.received == b"cut o"
    assert server.reasons[0].check(ConnectionLost)


@ours_only
async def test_half_close_with_end_of_tcp(rig: TLSRig) -> None:
    """
    A client that sends FIN behind its close_notify still gets all that a half-closeable protocol writes.
    """
    client, server = await rig.serve(HalfCloseRecorder).pair()
    await client.send(b"question")
    client.finish()
    client.cut()
    await rig.until(lambda: "read lost" in server.events)
    await rig.polls()
    assert server.events == ["made", "read", "read lost"]
    server.write(LARGE)
    server.lose()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


@ours_in_memory
def test_loss_after_close_notify(connect: Any) -> None:
    """
    A client that was heard to end cleanly has ended cleanly, also when our answer to it meets a reset.
    """
    pair = connect()
    pair.handshake()
    pair.deliver(pair.client.encrypt(b"all") + pair.client.finish())
    pair.end(ConnectionLost())
    assert pair.server.events == ["made", "read", "lost"]
    assert pair.server.reasons[0].check(ConnectionDone)


@pytest.mark.parametrize("kind", [Recorder, HalfCloseRecorder])
@ours_in_memory
def test_data_after_close_notify(connect: Any, key_log: str, kind: type) -> None:
    """
    What comes after the client's close_notify is ignored. RFC 8446 6.1.
    """
    pair, records = established(connect, key_log, kind)
    pair.deliver(records.record(23, b"all") + records.record(21, CLOSE_NOTIFY) + records.record(23, b"late"))
    pair.pump()
    pair.deliver(records.record(23, b"later"))
    pair.pump()
    assert pair.server.chunks == [b"all"]
    if kind is HalfCloseRecorder:
        assert pair.server.events == ["made", "read", "read lost"]
        pair.server.write(b"answer")
        pair.server.lose()
        pair.pump()
        assert pair.client.take() == b"answer"
    assert pair.client.ended == "end"
    assert pair.server.lost
    assert pair.server.reasons[0].check(ConnectionDone)


async def test_close_notify_is_answered(rig: TLSRig) -> None:
    """
    A client's close_notify is answered by ours, and then the TCP connection ends cleanly.
    """
    client, server = await rig.serve().pair()
    client.finish()
    assert await client.until_end() == b""
    assert await client.tcp_end() == "end"
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


@ours_in_memory
def test_abort_on_the_wire(connect: Any) -> None:
    """
    abortConnection writes nothing any more and aborts the transport below.
    """
    pair = connect()
    pair.handshake()
    pair.server.abort()
    pair.turn()
    assert pair.wire.take() == b""
    assert pair.wire.calls[-1] == "abort"
    pair.pump()
    assert pair.client.ended is None
    assert pair.server.reasons[0].check(ConnectionAborted)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda version: version.name)
async def test_versions(rig: TLSRig, version: ssl.TLSVersion) -> None:
    """
    Large uploads and downloads and the clean end are the same in TLS 1.2 and 1.3.
    """
    context = client_context(minimum_version=version, maximum_version=version)

    def answer(server: Recorder) -> None:
        if sum(map(len, server.chunks)) == len(LARGE):
            server.write(server.received)
            server.lose()

    client, server = await rig.serve(recorder(on_read=answer)).pair(session=TLSSession(context))
    await client.send(LARGE)
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert version.name == client.session.tls.version().replace(".", "_")
    assert server.reasons[0].check(ConnectionDone)


# Later handshakes


class OpenSSLSession:
    """
    A TLS 1.2 client's end in memory by pyOpenSSL, for what the standard library cannot do. See TLSSession.
    """

    def __init__(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        self.connection = SSL.Connection(context, None)
        self.connection.set_connect_state()
        self.plaintext = b""
        self.faults: list[SSL.Error] = []
        self.established = False
        self.ended: str | None = None

    def start(self) -> bytes:
        return self._turn()

    def feed(self, ciphertext: bytes) -> bytes:
        self.connection.bio_write(ciphertext)
        return self._turn()

    def _turn(self) -> bytes:
        try:
            if not self.established:
                self.connection.do_handshake()
                self.established = True
            while True:
                self.plaintext += self.connection.recv(64 * KIB)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = "end"
        except SSL.Error as fault:
            self.faults.append(fault)
        return self._written()

    def _written(self) -> bytes:
        try:
            return self.connection.bio_read(256 * KIB)
        except SSL.WantReadError:
            return b""

    def encrypt(self, payload: bytes) -> bytes:
        self.connection.send(payload)
        return self._written()

    def renegotiate(self) -> bytes:
        """
        A second ClientHello.
        """
        self.connection.renegotiate()
        with suppress(SSL.WantReadError):
            self.connection.do_handshake()
        return self._written()


@pytest.mark.parametrize("with_data", [False, True])
def test_renegotiation_is_refused(connect: Any, with_data: bool) -> None:
    """
    A TLS 1.2 client that renegotiates gets an alert and no second handshake; what it sent before is delivered.
    """
    pair = connect(HandshakeRecorder, OpenSSLSession())
    pair.handshake()
    before = pair.client.encrypt(b"before") if with_data else b""
    pair.deliver(before + pair.client.renegotiate())
    pair.turn()
    alert = pair.wire.take()
    assert alert[:1] == b"\x15"
    pair.deliver(pair.client.feed(alert))
    pair.pump()
    (fault,) = pair.client.faults
    assert "no renegotiation" in str(fault)
    assert pair.server.events.count("handshake") == 1
    assert (b"before" if with_data else b"") == pair.server.received


@pytest.mark.parametrize("requested", [False, True])
@pytest.mark.parametrize("step", [0, 1])
def test_key_update(connect: Any, key_log: str, requested: bool, step: int) -> None:
    """
    A TLS 1.3 client may update its keys, and ask for ours to be updated, between its data.
    """
    pair, records = established(connect, key_log, recorder(on_read=echo))
    pair.deliver(records.record(23, b"one,"), step)
    pair.deliver(records.key_update(requested) + records.record(23, b"two,") + records.key_update(requested), step)
    pair.pump()
    pair.deliver(records.record(23, b"three"), step)
    pair.pump()
    assert pair.server.received == b"one,two,three"
    assert pair.client.take() == b"one,two,three"
    pair.deliver(records.record(21, CLOSE_NOTIFY))
    pair.pump()
    assert pair.server.reasons[0].check(ConnectionDone)


@ours_in_memory
def test_key_update_while_paused(connect: Any, key_log: str) -> None:
    """
    A KeyUpdate between records that a pause holds back does no harm to them.
    """
    pair, records = established(connect, key_log, recorder(on_read=lambda server: server.pause()))
    before = b"".join(records.record(23, piece) for piece in PIECES)
    update = records.key_update(True)
    pair.deliver(before + update + b"".join(records.record(23, piece) for piece in PIECES))
    pair.pump()
    whole = b"".join(PIECES)
    assert len(pair.server.received) < len(whole)
    pair.server.write(b"before")
    for _ in PIECES + PIECES:
        pair.server.resume()
        pair.pump()
    assert whole + whole == pair.server.received
    pair.server.write(b", after")
    pair.pump()
    assert pair.client.take() == b"before, after"


@ours_in_memory
def test_key_update_after_lose_write(connect: Any, key_log: str) -> None:
    """
    A KeyUpdate that asks for ours is no fault after our close_notify, when none can be sent.
    """
    pair, records = established(connect, key_log, HalfCloseRecorder)
    pair.server.transport.loseWriteConnection()
    pair.pump()
    assert pair.client.ended == "end"
    pair.deliver(records.key_update(True) + records.record(23, b"still there"))
    pair.pump()
    assert pair.server.received == b"still there"
    assert not pair.server.lost


def test_handshake_message_after_the_handshake(connect: Any, key_log: str) -> None:
    """
    A ClientHello within TLS 1.3 is answered by the alert unexpected_message, and the connection ends uncleanly.
    """
    pair, records = established(connect, key_log)
    pair.deliver(records.record(22, TLSSession().start()[5:]))
    pair.pump()
    pair.eof()
    pair.pump()
    assert pair.client.ended == "SSLV3_ALERT_UNEXPECTED_MESSAGE"
    assert pair.server.events == ["made", "lost"]
    assert not pair.server.reasons[0].check(ConnectionDone)


def test_fatal_alert(connect: Any, key_log: str) -> None:
    """
    A client's fatal alert ends the connection, not cleanly, after what came before.
    """
    pair, records = established(connect, key_log, HalfCloseRecorder)
    pair.deliver(records.record(23, b"data") + records.record(21, INTERNAL_ERROR))
    pair.pump()
    assert pair.server.events == ["made", "read", "lost"]
    assert not pair.server.reasons[0].check(ConnectionDone)


# TLS in TLS


def serve_tls_in_tls(rig: TLSRig, protocol: type = Recorder) -> Served:
    factory = RecorderFactory(protocol)
    return rig.add(rig.listen_tcp(0, rig.tls_factory(factory), "127.0.0.1"), factory)


async def test_tls_in_tls(rig: TLSRig) -> None:
    """
    TLS above TLS carries large payloads both ways, and its loseConnection ends both cleanly.
    """

    def answer(server: Recorder) -> None:
        if sum(map(len, server.chunks)) == len(LARGE):
            server.write(LARGE)
            server.lose()

    client, server = await serve_tls_in_tls(rig, recorder(on_read=answer)).pair(session=TLSInTLSSession())
    await client.send(LARGE)
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    while not client.session.outer.ended:
        await client.turn()
    assert client.session.outer.ended == "end"
    assert server.received == LARGE
    assert server.reasons[0].check(ConnectionDone)


async def test_push_producer_in_tls_in_tls(rig: TLSRig) -> None:
    """
    A push producer is paused and resumed through two layers of TLS.
    """
    client, server = await serve_tls_in_tls(rig).pair(session=TLSInTLSSession())
    producer = PushProducer()
    server.transport.registerProducer(producer, True)
    server.write(LARGE)
    await rig.until(lambda: producer.paused)
    await rig.polls()
    assert producer.calls == ["pause"]
    assert await client.receive(len(LARGE)) == LARGE
    await rig.until(lambda: producer.calls == ["pause", "resume"])
    server.transport.unregisterProducer()
    client.close()
    await rig.until(lambda: server.lost)


@ours_only
async def test_abort_in_tls_in_tls(rig: TLSRig) -> None:
    """
    abortConnection of the inner TLS resets the TCP connection.
    """
    client, server = await serve_tls_in_tls(rig).pair(session=TLSInTLSSession())
    server.abort()
    assert await client.outcome() == (0, "reset")
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionAborted)


# What a TLS transport tells


@pytest.mark.parametrize("interface", [ISSLTransport, INegotiated], ids=lambda interface: interface.__name__)
@ours_only
async def test_tls_interfaces(rig: TLSRig, interface: Any) -> None:
    """
    The transport declares what makes it a TLS one.
    """
    _, server = await rig.serve().pair()
    assert interface.providedBy(server.transport)
    assert server.transport.TLS is True


async def test_tls_handle(rig: TLSRig) -> None:
    """
    getHandle is OpenSSL's connection, of the handshake that was made.
    """
    client, server = await rig.serve().pair()
    handle = server.transport.getHandle()
    assert isinstance(handle, SSL.Connection)
    assert client.session.tls.version() == handle.get_protocol_version_name()


@pytest.mark.parametrize("name", ["socket", "client", "hostname", "sessionno", "reactor", "server"])
async def test_attributes_come_from_below(rig: TLSRig, name: str) -> None:
    """
    The attributes that no interface names are those of the transport below.
    """
    below: list[Any] = []

    factory = RecorderFactory()
    tls = rig.tls_factory(factory)
    build = tls.buildProtocol

    def noted(addr: Any) -> Any:
        protocol = build(addr)
        make = protocol.makeConnection

        def made(transport: Any) -> None:
            below.append(transport)
            make(transport)

        protocol.makeConnection = made
        return protocol

    tls.buildProtocol = noted
    served = rig.add(rig.listeners.listenTCP(0, tls, interface="127.0.0.1"), factory)
    _, server = await served.pair()
    assert getattr(below[0], name) == getattr(server.transport, name)
    assert below[0].fileno() == server.transport.fileno()


@pytest.mark.parametrize(
    ("offered", "agreed"),
    [(["http/1.1", "h2"], b"h2"), (["other", "http/1.1"], b"http/1.1"), ([], None)],
)
async def test_negotiated_protocol(rig: TLSRig, offered: list[str], agreed: bytes | None) -> None:
    """
    A factory that offers protocols agrees with the client by ALPN on the first of its own that the client knows.
    """
    context = client_context()
    if offered:
        context.set_alpn_protocols(offered)
    seen: list[Any] = []
    note = handshake_recorder(lambda server: seen.append(server.transport.negotiatedProtocol))
    client, server = await rig.serve(Offering(note)).pair(session=TLSSession(context))
    await rig.until(lambda: seen)
    assert [agreed] == seen
    assert agreed == server.transport.negotiatedProtocol
    assert (agreed.decode() if agreed else None) == client.session.tls.selected_alpn_protocol()


async def test_no_protocol_in_common(rig: TLSRig) -> None:
    """
    A client that offers only protocols which the factory does not speak is refused with an alert. RFC 7301 3.2.
    """
    context = client_context()
    context.set_alpn_protocols(["other"])
    served = rig.serve(Offering(HandshakeRecorder))
    client = await served.connect(session=TLSSession(context))
    size, alert = await client.outcome()
    assert size == 0
    # With CertificateOptions OpenSSL has not the better word of the two.
    assert alert in ("TLSV1_ALERT_NO_APPLICATION_PROTOCOL", "TLSV1_ALERT_INTERNAL_ERROR")
    client.close()
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "lost"]
    assert server.reasons[0].check(SSL.Error)


async def test_negotiated_protocol_before_the_handshake(rig: TLSRig) -> None:
    """
    Before the handshake is over negotiatedProtocol is None.
    """
    seen: list[Any] = []
    note = recorder(on_made=lambda server: seen.append(server.transport.negotiatedProtocol))
    await rig.serve(Offering(note)).pair()
    assert seen == [None]


@pytest.fixture
def pem(certificate: bytes, tmp_path: Path) -> Path:
    """
    The file of key and certificate.
    """
    path = tmp_path / "certificate.pem"
    path.write_bytes(certificate)
    return path


@pytest.fixture
def demanding(certificate: bytes) -> CertificateOptions:
    """
    A context factory that demands the client's certificate.
    """
    own = PrivateCertificate.loadPEM(certificate)
    return CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        trustRoot=trustRootFromCertificates([Certificate.loadPEM(certificate)]),
    )


async def test_peer_certificate(rig: TLSRig, pem: Path, certificate: bytes, demanding: Any) -> None:
    """
    getPeerCertificate is the client's certificate, from handshakeCompleted on.
    """
    context = client_context()
    context.load_cert_chain(pem)
    seen: list[Any] = []
    note = handshake_recorder(lambda server: seen.append(server.transport.getPeerCertificate()))
    _, server = await rig.serve_tls(note, demanding).pair(session=TLSSession(context))
    expected = Certificate.loadPEM(certificate).digest()
    assert [expected] == [Certificate(one).digest() for one in seen]
    assert expected == Certificate.peerFromTransport(server.transport).digest()


async def test_no_peer_certificate(rig: TLSRig) -> None:
    """
    getPeerCertificate of a client without one is None.
    """
    _, server = await rig.serve().pair()
    assert server.transport.getPeerCertificate() is None


async def test_peer_certificate_is_demanded(rig: TLSRig, demanding: Any) -> None:
    """
    A client without the certificate that the context demands reads an alert, and the protocol gets no data of it.
    """
    served = rig.serve_tls(HandshakeRecorder, demanding)
    client = await served.connect()
    assert await client.outcome() == (0, "TLSV13_ALERT_CERTIFICATE_REQUIRED")
    client.close()
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "lost"]
    assert server.reasons[0].check(SSL.Error)


# Context factories of others


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """
    Makes the connections itself, and keeps who asked.
    """

    def __init__(self, context: SSL.Context) -> None:
        self.context = context
        self.asked: list[Any] = []

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        self.asked.append(protocol)
        return SSL.Connection(self.context, None)


@implementer(IOpenSSLContextFactory)
class ByName:
    """
    Chooses the context by the name that the client asks for, as packages for SNI do.
    """

    def __init__(self, context: SSL.Context) -> None:
        self.asked: list[bytes | None] = []
        self._chosen = context
        self._first = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._first.set_tlsext_servername_callback(self._choose)

    def _choose(self, connection: SSL.Connection) -> None:
        self.asked.append(connection.get_servername())
        connection.set_context(self._chosen)

    def getContext(self) -> SSL.Context:
        return self._first


async def exchange(rig: TLSRig, context_factory: Any) -> Any:
    """
    Echo over the context factory; returns the served side.
    """
    served = rig.serve_tls(Offering(recorder(on_read=echo)), context_factory)
    client, server = await served.pair()
    await client.send(b"hello")
    assert await client.receive(5) == b"hello"
    return server


async def test_certificate_options(rig: TLSRig, certificate: bytes) -> None:
    """
    CertificateOptions of a key and a certificate serve.
    """
    own = PrivateCertificate.loadPEM(certificate)
    await exchange(rig, CertificateOptions(privateKey=own.privateKey.original, certificate=own.original))


async def test_default_context_factory(rig: TLSRig, pem: Path) -> None:
    """
    Twisted's DefaultOpenSSLContextFactory, which knows getContext alone, serves.
    """
    await exchange(rig, DefaultOpenSSLContextFactory(str(pem), str(pem)))


async def test_connection_creator(rig: TLSRig) -> None:
    """
    An IOpenSSLServerConnectionCreator is asked for each connection, by the TLS protocol whose app data it gets.
    """
    creator = Creator(rig.context_factory.getContext())
    server = await exchange(rig, creator)
    (asked,) = creator.asked
    assert asked is server.transport.getHandle().get_app_data()
    assert server.factory is asked.factory.wrappedFactory


async def test_context_by_name(rig: TLSRig) -> None:
    """
    A context factory may change the context within the handshake, by the client's server_name.
    """
    by_name = ByName(rig.context_factory.getContext())
    await exchange(rig, by_name)
    assert by_name.asked == [b"localhost"]


async def test_connection_creator_that_fails(rig: TLSRig) -> None:
    """
    A creator that raises ends its connection, is logged, and leaves the port serving.
    """

    class Failing(Creator):
        def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
            if not self.asked:
                self.asked.append(protocol)
                raise Oops("no certificate today")
            return super().serverConnectionForTLS(protocol)

    served = rig.serve_tls(recorder(on_read=echo), Failing(rig.context_factory.getContext()))
    client = await served.connect()
    assert (await client.outcome())[1] in ("cut", "reset")
    assert len(rig.flush(Oops)) == 1
    client = await served.connect()
    await client.send(b"next")
    assert await client.receive(4) == b"next"


# What is left


@ours_only
async def test_handshakes_that_stop_leave_nothing(rig: TLSRig) -> None:
    """
    Of 200 connections that stop within the handshake nothing is left after their deadline.
    """
    clock = Clock()
    served = rig.serve_tls(clock=clock)
    count = 200
    hello = TLSSession().start()
    clients: list[TLSClient] = []
    for number in range(count):
        client = await served.connect()
        await rig.loop.sock_sendall(client.sock, hello[: number % 3 * 200])
        clients.append(client)
    built = served.factory.built
    await rig.until(lambda: len(built) == count)
    await rig.polls()
    clock.advance(9.9)
    await rig.polls()
    assert not any(one.lost for one in built)
    clock.advance(0.1)
    await rig.until(lambda: clock.advance(0) or all(one.lost for one in built))
    assert clock.getDelayedCalls() == []
    left = weakref.WeakSet(one.transport for one in built) | weakref.WeakSet(built)
    assert len(left) == 2 * count
    assert all(len(one.reasons) == 1 for one in built)
    for client in clients:
        client.close()
    built.clear()
    served.factory.addresses.clear()
    await rig.polls()
    gc.collect()
    assert len(left) == 0
