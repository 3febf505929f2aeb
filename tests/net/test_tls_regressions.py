"""
Faults of the TLS transport that once were: each test is of a bug that has been fixed, or is said to be there still.

All of them but those with a rig are in memory, with a clock. What is `stalled` has a transport below that has more than
it can write, as it has below a peer that does not read.
"""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from tests.net.odd_certificates import VERSION_3, VERSION_6, altered
from tests.net.rig import (
    KIB,
    OUR_TLS,
    HalfCloseRecorder,
    PullProducer,
    PushProducer,
    Recorder,
    RecorderFactory,
    echo,
    recorder,
)
from tests.net.test_tls_transport import INTERNAL_ERROR, PIECES, established, finished, one_read
from tests.net.test_transport_contract import LARGE
from tests.net.tls_rig import (
    ClientRecords,
    MemoryPair,
    TLSRig,
    TLSSession,
    client_context,
    memory_pairs,
    server_options,
)
from tests.serve.certificates import authority, client_certificate, server_certificate
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock

from txasgi.net import contexts, tls_records
from txasgi.net.certificates import Directory, Pairs
from txasgi.net.contexts import ServerContexts, TLSSettings
from txasgi.net.tls import TLSFactory
from txasgi.net.tls_endings import CLOSE_S, STALL_S
from txasgi.net.tls_input import ANSWERS, HANDSHAKE_S

# The random of a HelloRetryRequest (RFC 8446 section 4.1.3).
HELLO_RETRY = hashlib.sha256(b"HelloRetryRequest").digest()
FATAL_ALERT_IN_PLAIN_TEXT = b"\x15\x03\x03\x00\x02" + INTERNAL_ERROR
NO_RECORD_OF_OURS = b"\x17\x03\x03\x00\x20" + b"x" * 32


@pytest.fixture(params=OUR_TLS)
def variant(request: pytest.FixtureRequest) -> str:
    """
    Which listeners a rig has.
    """
    return request.param


@pytest.fixture
def no_collector() -> Iterator[None]:
    """
    What is freed in this test is freed without the garbage collector.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.fixture
def connect(clock: Clock, certificate: bytes) -> Iterator[Callable[..., MemoryPair]]:
    """
    Makes connections in memory; at the end each must have had no more than one end, been quiet, and left no timer.
    """
    with memory_pairs(clock) as pairs:

        def make(
            protocol: type = Recorder, session: Any = None, context_factory: Any = None, lean: bool = True
        ) -> MemoryPair:
            factory = RecorderFactory(protocol)
            tls_factory = TLSFactory(context_factory or server_options(certificate), factory, clock)
            if not lean:
                tls_factory.buffer = None
            pairs.append(MemoryPair(tls_factory, factory, clock, session or TLSSession(), None))
            return pairs[-1]

        yield make


def stall(pair: MemoryPair) -> None:
    pair.wire.producer.pauseProducing()


def flow(pair: MemoryPair) -> None:
    pair.wire.producer.resumeProducing()


def pauses(server: Recorder) -> None:
    """
    For on_read: each read is the last one until the test resumes.
    """
    server.pause()


# Contexts that are reloaded


def sites(folder: Path, *names: str) -> ServerContexts:
    """
    A directory with a certificate for each name; that of the first one is the default.
    """
    issuer = authority("somebody")
    for place, name in enumerate(names):
        (folder / f"{place}.pem").write_bytes(server_certificate(name, issuer).both_pem)
    return ServerContexts("tls:x", Directory(str(folder), None), TLSSettings())


def test_reload_between_two_hellos(connect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A client that has to send its hello again (RFC 8446 section 4.1.4) gets the site's certificate that was in use at
    its first one, though certificates are reloaded between the two.
    """
    monkeypatch.setattr(contexts, "GROUPS", (b"P-384",))
    served = sites(tmp_path, "default.test", "localhost")
    (certified,) = served.certified.by_name["localhost"]
    default = weakref.ref(served.serverConnectionForTLS(None).get_context())
    pair = connect(context_factory=served)
    pair.deliver(pair.client.start())
    pair.turn()
    retry = pair.wire.take()
    assert HELLO_RETRY in retry
    again = pair.client.feed(retry)
    sites(tmp_path, "default.test", "localhost")
    assert served.reload()
    gc.collect()
    # OpenSSL goes back to it, and calls its callbacks. Without it, the next line is a crash.
    assert default() is not None
    pair.deliver(again)
    pair.pump()
    assert pair.client.established
    assert not pair.wire.closing
    shown = pair.client.tls.getpeercert(binary_form=True)
    assert shown == pair.server.transport.getHandle().get_certificate(as_cryptography=True).public_bytes(Encoding.DER)
    assert shown == certified.own.public_bytes(Encoding.DER)


def test_replaced_contexts_are_freed(tmp_path: Path, no_collector: None) -> None:
    """
    Contexts that were replaced, with their private keys, are gone at once, and not when the garbage collector comes.
    """
    served = sites(tmp_path, "default.test", "localhost")
    default = weakref.ref(served.serverConnectionForTLS(None).get_context())
    assert served.reload()
    assert default() is None


def test_contexts_live_as_long_as_a_connection(connect: Any, tmp_path: Path, no_collector: None) -> None:
    """
    Contexts that were replaced are freed with the last connection that was made by them, without garbage.
    """
    served = sites(tmp_path, "default.test", "localhost")
    default = weakref.ref(served.serverConnectionForTLS(None).get_context())
    pair = connect(context_factory=served)
    pair.handshake()
    picked = weakref.ref(pair.server.transport.getHandle().get_context())
    assert picked() is not default()
    assert served.reload()
    assert default() is not None and picked() is not None
    pair.end(ConnectionDone())
    assert default() is None and picked() is None


# The end of TCP behind data that the protocol has not taken


def take_all(pair: MemoryPair) -> None:
    """
    Resume until all of PIECES is received.
    """
    whole = b"".join(PIECES)
    while len(pair.server.received) < len(whole):
        assert not pair.server.lost
        before = len(pair.server.chunks)
        pair.server.resume()
        pair.turn()
        assert len(pair.server.chunks) > before
    assert whole == pair.server.received


@pytest.mark.parametrize("resumed", [True, False], ids=["resumed", "paused"])
def test_eof_behind_held_data(connect: Any, resumed: bool) -> None:
    """
    EOF while data and a close_notify are held back by a pause is told after all of it, and is a clean end.
    """
    pair = connect(recorder(on_read=pauses))
    pair.handshake()
    pair.deliver(one_read(pair) + pair.client.finish())
    if resumed:
        pair.server.resume()
    pair.eof()
    take_all(pair)
    pair.server.resume()
    pair.pump()
    assert pair.server.events[-1] == "lost"
    assert pair.server.reasons[0].check(ConnectionDone)


def test_cut_behind_held_data(connect: Any) -> None:
    """
    EOF without a close_notify while data is held back by a pause is told after all of it too.
    """
    pair = connect(recorder(on_read=lambda server: server.pause() if len(server.chunks) == 1 else None))
    pair.handshake()
    pair.deliver(one_read(pair))
    pair.eof()
    take_all(pair)
    pair.pump()
    assert pair.server.events[-1] == "lost"
    assert pair.server.reasons[0].check(ConnectionLost)


def test_cut_behind_held_data_that_ends_in_a_pause(connect: Any) -> None:
    """
    The same when the last of the data is a reason to pause, as the first was.
    """
    pair = connect(recorder(on_read=pauses))
    pair.handshake()
    pair.deliver(one_read(pair))
    pair.eof()
    take_all(pair)
    pair.server.resume()
    pair.pump()
    assert pair.server.events[-1] == "lost"
    assert pair.server.reasons[0].check(ConnectionLost)


def test_eof_behind_held_data_again(connect: Any) -> None:
    """
    Transports tell EOF once more after each resume, Twisted's own too, which changes nothing.
    """
    pair = connect(recorder(on_read=pauses))
    pair.handshake()
    pair.deliver(one_read(pair) + pair.client.finish())
    pair.eof()
    pair.server.resume()
    pair.turn()
    pair.eof()
    take_all(pair)
    pair.server.resume()
    pair.pump()
    assert pair.server.reasons[0].check(ConnectionDone)


def test_eof_behind_held_data_with_half_close(connect: Any) -> None:
    """
    EOF and close_notify behind data that a pause holds back end reading alone: the answer can still be written.
    """
    pair = connect(recorder(kind=HalfCloseRecorder, on_read=pauses))
    pair.handshake()
    pair.deliver(one_read(pair) + pair.client.finish())
    pair.eof()
    take_all(pair)
    pair.server.resume()
    pair.pump()
    assert pair.server.events[-2:] == ["read", "read lost"]
    pair.server.write(b"answer")
    pair.server.lose()
    pair.pump()
    assert pair.client.take() == b"answer"
    assert pair.client.ended == "end"


@pytest.mark.parametrize("kind", [Recorder, HalfCloseRecorder])
def test_eof_behind_held_close_notify(connect: Any, kind: type) -> None:
    """
    EOF while nothing but a close_notify is held back by a pause is a clean end too, and with half-close that of
    reading alone.
    """
    pair = connect(recorder(kind=kind, on_read=pauses))
    pair.handshake()
    pair.deliver(pair.client.encrypt(b"all") + pair.client.finish())
    pair.server.resume()
    pair.eof()
    pair.pump()
    if kind is Recorder:
        assert pair.server.events == ["made", "read", "lost"]
        assert pair.server.reasons[0].check(ConnectionDone)
    else:
        assert pair.server.events == ["made", "read", "read lost"]


# Whether EOF is told again meanwhile depends on how much one read brings.
async def test_slow_protocol_gets_all_before_the_end(rig: TLSRig) -> None:
    """
    A protocol that pauses at each read gets all that a client sends before it closes TLS and TCP.
    """

    def later(server: Recorder) -> None:
        server.pause()
        rig.reactor.callLater(0, server.resume)

    client, server = await rig.serve(recorder(on_read=later)).pair()
    await client.send(LARGE[: 400 * KIB])
    client.finish()
    client.cut()
    await rig.until(lambda: server.lost)
    assert LARGE[: 400 * KIB] == server.received
    assert server.reasons[0].check(ConnectionDone)


# Ends below a peer that does not read


def test_fault_while_stalled(connect: Any) -> None:
    """
    A fault of a peer that does not read either ends the connection at once, with the fault as its reason.
    """
    pair = connect()
    pair.handshake()
    pair.server.write(LARGE[: 200 * KIB])
    stall(pair)
    pair.deliver(NO_RECORD_OF_OURS)
    assert pair.wire.calls[-1] == "abort"
    pair.turn()
    pair.end(ConnectionAborted())
    assert pair.server.events == ["made", "lost"]
    assert pair.server.reasons[0].check(SSL.Error)


@pytest.mark.parametrize("half_closed", [False, True], ids=["", "half-closed"])
def test_lose_while_stalled(connect: Any, clock: Clock, half_closed: bool) -> None:
    """
    A peer that takes nothing of what loseConnection has left to send is cut off after STALL_S.
    """
    pair = connect(HalfCloseRecorder)
    pair.handshake()
    pair.server.write(LARGE[: 200 * KIB])
    stall(pair)
    if half_closed:
        pair.server.transport.loseWriteConnection()
    pair.server.lose()
    clock.advance(STALL_S - 1)
    assert not pair.wire.closing
    clock.advance(1)
    assert pair.wire.calls[-1] == "abort"
    pair.pump()
    assert pair.server.lost


def test_lose_while_stalled_for_a_time(connect: Any, clock: Clock) -> None:
    """
    A peer that reads on in time gets everything, and from then on it has CLOSE_S for its close_notify.
    """
    pair = connect()
    pair.handshake()
    pair.server.write(LARGE[: 200 * KIB])
    stall(pair)
    pair.server.lose()
    clock.advance(STALL_S - 1)
    flow(pair)
    assert pair.wire.calls[-1] == "lose write"
    clock.advance(CLOSE_S - 1)
    assert not pair.wire.closing
    clock.advance(1)
    assert pair.wire.calls[-1] == "lose"
    pair.pump()
    assert LARGE[: 200 * KIB] == pair.client.take()
    assert pair.client.ended == "end"
    assert pair.server.reasons[0].check(ConnectionDone)


def test_lose_while_stalled_with_a_producer(connect: Any, clock: Clock) -> None:
    """
    A push producer that is paused below a peer that does not read does not put off the end for ever.
    """
    pair = connect()
    pair.handshake()
    pair.server.transport.registerProducer(PushProducer(), True)
    stall(pair)
    pair.server.lose()
    for _ in range(3):
        clock.advance(STALL_S)
    assert pair.wire.closing


@pytest.mark.parametrize("first", ["we", "the peer"])
def test_last_bytes_that_are_never_taken(connect: Any, clock: Clock, first: str) -> None:
    """
    A close whose last bytes stay with the transport below, too few to stall it, is an abort after STALL_S.
    """
    pair = connect()
    pair.handshake()
    pair.server.write(b"few")
    if first == "we":
        pair.server.lose()
        clock.advance(CLOSE_S)
    else:
        pair.deliver(pair.client.finish())
    assert pair.wire.calls[-1] == "lose"
    clock.advance(STALL_S - 1)
    assert "abort" not in pair.wire.calls
    clock.advance(1)
    assert pair.wire.calls[-1] == "abort"
    pair.end(ConnectionAborted())
    # What the peer was to be told was told, as far as we can know.
    assert pair.server.reasons[0].check(ConnectionDone)


async def test_client_that_never_reads(rig: TLSRig) -> None:
    """
    A connection whose client reads nothing is gone STALL_S after the CLOSE_S of loseConnection, at the latest.
    """
    clock = Clock()
    _, server = await rig.serve_tls(clock=clock).pair()
    for _ in range(300):
        server.write(LARGE[: 16 * KIB])
    server.lose()
    await rig.polls()
    for seconds in (CLOSE_S, STALL_S, 0):
        clock.advance(seconds)
        await rig.polls()
    await rig.until(lambda: server.lost)
    assert clock.getDelayedCalls() == []


# Key updates


def key_updates(records: ClientRecords, count: int) -> list[bytes]:
    """
    Reads that ask for new keys. OpenSSL answers each when it is made to read the next.
    """
    return [records.key_update(True) for _ in range(count)]


def test_key_updates_in_a_row(connect: Any, key_log: str) -> None:
    """
    A peer that only asks for new keys is answered ANSWERS times, then cut off.
    """
    pair, records = established(connect, key_log)
    for update in key_updates(records, ANSWERS + 1):
        pair.deliver(update)
    assert not pair.wire.closing
    pair.deliver(records.key_update(True))
    assert pair.wire.calls[-1] == "abort"
    pair.pump()
    assert pair.server.reasons[0].check(ConnectionLost)


def test_key_updates_between_data(connect: Any, key_log: str) -> None:
    """
    Key updates that data comes between are answered for as long as it does.
    """
    pair, records = established(connect, key_log, recorder(on_read=echo))
    for _ in range(3 * ANSWERS):
        pair.deliver(records.key_update(True))
        pair.deliver(records.key_update(True))
        pair.deliver(records.record(23, b"."))
    pair.pump()
    assert pair.server.received == pair.client.take() == b"." * 3 * ANSWERS
    assert not pair.server.lost


def test_key_updates_while_stalled(connect: Any, key_log: str) -> None:
    """
    A peer that asks for new keys and does not read the answers is read from no more until it does.
    """
    pair, records = established(connect, key_log)
    stall(pair)
    pair.wire.calls.clear()
    pair.deliver(records.record(23, b"before"))
    for update in key_updates(records, 3 * ANSWERS):
        pair.deliver(update)
    assert pair.wire.calls == ["pause"]
    # One answer: 5 of the message, 22 of its record.
    assert len(pair.wire.value()) == 27
    pair.deliver(records.record(23, b", after"))
    assert pair.server.received == b"before"
    flow(pair)
    assert pair.wire.calls == ["pause", "resume"]


def test_data_behind_a_key_update_while_stalled(connect: Any, key_log: str) -> None:
    """
    What comes behind an answer that waits is delivered once the peer reads again.
    """
    pair, records = established(connect, key_log)
    stall(pair)
    for read in (*key_updates(records, 2), records.record(23, b"after")):
        pair.deliver(read)
    assert pair.server.received == b""
    flow(pair)
    pair.pump()
    assert pair.server.received == b"after"


@pytest.mark.parametrize("first", ["flow", "resume"])
def test_key_update_while_stalled_and_paused(connect: Any, key_log: str, first: str) -> None:
    """
    Reading that both the protocol and a waiting answer hold up goes on when both let it.
    """
    pair, records = established(connect, key_log)
    stall(pair)
    for update in key_updates(records, 2):
        pair.deliver(update)
    pair.server.pause()
    steps: list[Callable[[], None]] = [lambda: flow(pair), pair.server.resume]
    if first == "resume":
        steps.reverse()
    steps[0]()
    assert pair.wire.producerState == "paused"
    steps[1]()
    assert pair.wire.producerState == "producing"


# Certificates of clients


@pytest.mark.parametrize("known", [True, False], ids=["of an authority", "self-signed"])
def test_client_certificate_that_cannot_be_read(connect: Any, tmp_path: Path, known: bool) -> None:
    """
    An optional certificate that OpenSSL takes and cryptography refuses is told of with an error and no name, and its
    client is served.
    """
    somebody = authority("clients")
    own = client_certificate("alice", somebody if known else None)
    files = {"ca.pem": somebody.pem, "server.pem": server_certificate("localhost", authority("servers")).both_pem}
    shown = altered(own, VERSION_3, VERSION_6)
    files["client.pem"] = own.key_pem + shown
    for name, contents in files.items():
        (tmp_path / name).write_bytes(contents)
    settings = TLSSettings(client_ca=str(tmp_path / "ca.pem"), client_verify="optional")
    pem = str(tmp_path / "server.pem")
    context = client_context()
    context.load_cert_chain(tmp_path / "client.pem")
    served = ServerContexts("ssl:x", Pairs([(pem, pem)], None, (), None), settings)
    pair = connect(recorder(on_read=echo), TLSSession(context), context_factory=served)
    pair.handshake()
    pair.deliver(pair.client.encrypt(b"hello"))
    pair.pump()
    assert pair.client.take() == b"hello"
    told = pair.server.transport.tls_extension()
    assert told["client_cert_name"] is None
    assert ("cannot be read" if known else "(code ") in told["client_cert_error"]
    (sent,) = told["client_cert_chain"]
    assert PEM_cert_to_DER_cert(sent) == PEM_cert_to_DER_cert(shown.decode())


# Garbage


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "public"])
@pytest.mark.parametrize("good", [True, False], ids=["good and bad", "bad"])
def test_fault_leaves_no_garbage(connect: Any, no_collector: None, lean: bool, good: bool) -> None:
    """
    A connection that a bad record has ended, behind a good one of the same read too, is freed without the collector.
    """
    pair = connect(lean=lean)
    pair.handshake()
    left = weakref.ref(pair.server.transport.getHandle())
    pair.deliver((pair.client.encrypt(b"good") if good else b"") + NO_RECORD_OF_OURS)
    pair.turn()
    pair.end(ConnectionLost())
    assert pair.server.received == (b"good" if good else b"")
    # The protocol's own: with the error's traceback.
    assert pair.server.reasons[0].check(SSL.Error)
    pair.server.reasons[0] = None
    assert left() is None


def test_much_to_take_at_once(connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However much waits to be sent, taking it is no recursion.
    """
    pair = connect()
    pair.handshake()
    handle = pair.server.transport.getHandle()
    for at in range(0, 64 * KIB, 16 * KIB):
        handle.send(LARGE[at : at + 16 * KIB])
    monkeypatch.setattr(tls_records, "READ_BYTES", 32)
    pair.server.write(b"")
    monkeypatch.undo()
    pair.pump()
    assert LARGE[: 64 * KIB] == pair.client.take()


# Producers


@pytest.mark.parametrize("flows", ["before", "after"])
def test_stall_in_the_handshake(connect: Any, flows: str) -> None:
    """
    A push producer that was paused because the handshake stalled is resumed when that is over and all is written.
    """
    producer = PushProducer()
    pair = connect(recorder(on_made=lambda server: server.transport.registerProducer(producer, True)))
    last = finished(pair)
    stall(pair)
    if flows == "before":
        flow(pair)
    assert producer.calls == ["pause"]
    pair.deliver(last)
    pair.pump()
    if flows == "after":
        assert producer.calls == ["pause"]
        flow(pair)
    assert producer.calls == ["pause", "resume"]
    pair.server.transport.unregisterProducer()


def test_push_producer_and_lose_write_while_stalled(connect: Any) -> None:
    """
    A push producer that was paused by a stall is resumed, though its side was closed meanwhile; and that is closed.
    """
    producer = PushProducer()
    pair = connect(HalfCloseRecorder)
    pair.handshake()
    pair.server.transport.registerProducer(producer, True)
    stall(pair)
    pair.server.transport.loseWriteConnection()
    assert "lose write" not in pair.wire.calls
    flow(pair)
    assert producer.calls == ["pause", "resume"]
    assert pair.wire.calls[-1] == "lose write"
    pair.server.transport.unregisterProducer()


def test_pull_producer_and_lose_write_while_stalled(connect: Any, clock: Clock) -> None:
    """
    A pull producer that has not brought everything when its side is closed is asked until it has, then we close.
    """
    pair = connect(HalfCloseRecorder)
    pair.handshake()
    producer = PullProducer(pair.server.transport, [b"x" * KIB] * 3)
    pair.server.transport.registerProducer(producer, False)
    stall(pair)
    pair.server.transport.loseWriteConnection()
    pair.turn()
    pair.server.lose()
    pair.turn()
    assert not pair.wire.closing
    flow(pair)
    pair.turn()
    assert producer.asked == 4
    assert "lose write" in pair.wire.calls
    clock.advance(CLOSE_S)
    assert pair.wire.calls[-1] == "lose"
    pair.pump()
    assert pair.server.lost


# Reasons


def test_deadline_after_lose(connect: Any, clock: Clock) -> None:
    """
    What loseConnection has ended before the handshake is a clean end, though the deadline has to abort it.
    """
    pair = connect()
    pair.server.lose()
    assert pair.wire.calls[-1] == "lose"
    clock.advance(HANDSHAKE_S)
    assert pair.wire.calls[-1] == "abort"
    pair.end(ConnectionAborted())
    assert pair.server.reasons[0].check(ConnectionDone)


def test_deadline_after_an_alert(connect: Any, clock: Clock) -> None:
    """
    A handshake that the peer's alert has ended ends for that reason, though the deadline has to abort it.
    """
    pair = connect()
    pair.deliver(pair.client.start())
    pair.deliver(FATAL_ALERT_IN_PLAIN_TEXT)
    assert pair.wire.calls[-1] == "lose"
    clock.advance(HANDSHAKE_S)
    assert pair.wire.calls[-1] == "abort"
    pair.end(ConnectionAborted())
    assert pair.server.reasons[0].check(SSL.Error)
