"""
The contract of a served connection's transport, as Twisted's own keep it: over those and over ours, plain and TLS.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest
from tests.net.rig import (
    KIB,
    MIB,
    NATIVE,
    OUR_TLS,
    TLS_NATIVE,
    TLS_VARIANTS,
    VARIANTS,
    Client,
    HalfCloseRecorder,
    Oops,
    PullProducer,
    PushProducer,
    Recorder,
    Rig,
    echo,
    recorder,
)
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    ILoggingContext,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
    ITransport,
)
from twisted.protocols.basic import LineReceiver

native_only = pytest.mark.parametrize("variant", [*NATIVE, *TLS_NATIVE], indirect=True)
ours_only = pytest.mark.parametrize("variant", [*NATIVE, *OUR_TLS], indirect=True)
each_family = pytest.mark.parametrize("family", ["tcp", "tcp6", "unix"])
tcp_and_unix = pytest.mark.parametrize("family", ["tcp", "unix"])

# More than any kernel buffers for one connection, and not a multiple of anything.
LARGE = bytes(range(251)) * (12 * MIB // 251)


@pytest.fixture(params=(*VARIANTS, *TLS_VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    """
    Which transports the test runs on.
    """
    return request.param


def stuck(server: Recorder) -> None:
    """
    Write more than the kernel takes, so that output stays pending until the client reads.
    """
    server.write(LARGE)


# Addresses


async def test_tcp_addresses(rig: Rig) -> None:
    """
    Over IPv4, getHost and getPeer are the IPv4Address of each end.
    """
    served = rig.serve()
    client, server = await served.pair()
    assert IPv4Address("TCP", *served.address) == server.transport.getHost()
    assert IPv4Address("TCP", *client.name) == server.transport.getPeer()
    assert served.port.getHost() == server.transport.getHost()


async def test_tcp6_addresses(rig: Rig) -> None:
    """
    Over IPv6, getHost and getPeer are the IPv6Address of each end.
    """
    served = rig.serve(interface="::1")
    client, server = await served.pair()
    assert IPv6Address("TCP", "::1", served.address[1]) == server.transport.getHost()
    assert IPv6Address("TCP", "::1", client.name[1]) == server.transport.getPeer()


async def test_unix_addresses(rig: Rig) -> None:
    """
    Over a UNIX socket, getHost is the UNIXAddress of the path and getPeer a UNIXAddress without a name.
    """
    path = rig.new_path()
    _, server = await rig.serve_unix(path=path).pair()
    assert UNIXAddress(path) == server.transport.getHost()
    peer = server.transport.getPeer()
    assert isinstance(peer, UNIXAddress)
    assert not peer.name


async def test_unix_named_peer(rig: Rig) -> None:
    """
    A UNIX client that has bound its socket is reported with its path.
    """
    path = rig.new_path()
    served = rig.serve_unix()
    _, server = await served.pair(bind=path)
    assert UNIXAddress(path) == server.transport.getPeer()
    assert [UNIXAddress(path)] == served.factory.addresses


@each_family
async def test_factory_is_given_the_peer(rig: Rig, family: str) -> None:
    """
    buildProtocol is called with the address that getPeer returns.
    """
    served = rig.serve_family(family)
    _, server = await served.pair()
    (given,) = served.factory.addresses
    assert type(server.transport.getPeer()) is type(given)
    if family != "unix":
        assert server.transport.getPeer() == given


@native_only
async def test_mapped_peer_is_ipv4(rig: Rig) -> None:
    """
    An IPv4 client of a dual-stack listener is reported by its IPv4 address.
    """
    served = rig.serve(interface="::")
    client = await rig.connect(("127.0.0.1", served.address[1]))
    server = await served.accepted()
    expected = IPv4Address("TCP", *client.name)
    assert expected == server.transport.getPeer()
    assert [expected] == served.factory.addresses


async def test_dual_stack(rig: Rig) -> None:
    """
    A listener on :: serves IPv4 and IPv6 clients.
    """
    served = rig.serve(recorder(on_read=echo), "::")
    for host in ("127.0.0.1", "::1"):
        client = await rig.connect((host, served.address[1]))
        await client.send(b"hello")
        assert await client.receive(5) == b"hello"


async def test_peer_is_known_after_the_end(rig: Rig) -> None:
    """
    getPeer still answers after connectionLost.
    """
    client, server = await rig.serve().pair()
    name = client.name
    client.close()
    await rig.until(lambda: server.lost)
    assert IPv4Address("TCP", *name) == server.transport.getPeer()


# What a transport is


@pytest.mark.parametrize(
    "interface",
    [
        ITransport,
        ITCPTransport,
        IConsumer,
        IPushProducer,
        IHalfCloseableDescriptor,
        ISystemHandle,
        ILoggingContext,
    ],
    ids=lambda interface: interface.__name__,
)
@tcp_and_unix
async def test_provides(rig: Rig, family: str, interface: Any) -> None:
    """
    The transport declares the interfaces that Twisted's own declares.
    """
    _, server = await rig.serve_family(family).pair()
    assert interface.providedBy(server.transport)


@pytest.mark.parametrize(
    "name",
    [
        *("TLS", "client", "connected", "disconnected", "disconnecting", "fileno", "hostname", "logstr"),
        *("producer", "protocol", "reactor", "server", "sessionno", "socket", "streamingProducer"),
    ],
)
async def test_has_attribute(rig: Rig, name: str) -> None:
    """
    The transport has the attributes that no interface names and that programs read all the same.
    """
    _, server = await rig.serve().pair()
    if name == "streamingProducer":  # Twisted has it from the first producer on
        server.transport.registerProducer(PushProducer(), True)
    assert hasattr(server.transport, name)


async def test_attributes_of_a_fresh_connection(rig: Rig) -> None:
    """
    A fresh transport is connected, not disconnecting, without producer, and knows protocol, peer and if it is TLS.
    """
    client, server = await rig.serve().pair()
    transport = server.transport
    assert transport.connected
    assert not transport.disconnected
    assert not transport.disconnecting
    assert rig.tls == bool(transport.TLS)
    assert transport.producer is None
    assert transport.protocol is server
    assert transport.hostname == "127.0.0.1"
    assert client.name == tuple(transport.client)


async def test_attributes_after_the_end(rig: Rig) -> None:
    """
    When connectionLost is called the transport is already disconnected, and stays so.
    """
    seen = []
    served = rig.serve(recorder(on_lost=lambda s: seen.append((s.transport.connected, s.transport.disconnected))))
    client, server = await served.pair()
    client.close()
    await rig.until(lambda: server.lost)
    seen.append((server.transport.connected, server.transport.disconnected))
    assert [(bool(a), bool(b)) for a, b in seen] == [(False, True), (False, True)]


@each_family
async def test_handle_is_the_socket(rig: Rig, family: str) -> None:
    """
    getHandle is socket-like: its fileno is that of the connection, and so is the transport's own.
    """
    client, server = await rig.serve_family(family).pair()
    # Over TLS getHandle is OpenSSL's connection, which has no descriptor.
    handle = server.transport.socket if rig.tls else server.transport.getHandle()
    assert handle.fileno() == server.transport.fileno()
    with socket.socket(fileno=socket.dup(handle.fileno())) as same:
        if family == "unix":
            assert client.sock.getpeername() == same.getsockname()
        else:
            assert client.name == same.getpeername()


async def test_log_prefix(rig: Rig) -> None:
    """
    logPrefix and logstr are text that names the protocol and the peer's host.
    """
    _, server = await rig.serve().pair()
    for text in (server.transport.logPrefix(), server.transport.logstr):
        assert isinstance(text, str)
        assert "Recorder" in text
    assert "127.0.0.1" in server.transport.logstr
    if not rig.tls:  # TLS is the protocol of a transport too, which puts the peer's host behind this
        assert "127.0.0.1" in server.transport.logPrefix()


@pytest.mark.parametrize("interface", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("option", ["TcpNoDelay", "TcpKeepAlive"])
async def test_tcp_options(rig: Rig, option: str, interface: str) -> None:
    """
    TCP_NODELAY and SO_KEEPALIVE can be set, and read as a bool.
    """
    _, server = await rig.serve(interface=interface).pair()
    level_and_name = {
        "TcpNoDelay": (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        "TcpKeepAlive": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    }[option]
    read = getattr(server.transport, f"get{option}")
    for wanted in (True, False, True):
        getattr(server.transport, f"set{option}")(wanted)
        assert read() is wanted
        with socket.socket(fileno=socket.dup(server.transport.fileno())) as same:
            assert wanted == bool(same.getsockopt(*level_and_name))


@native_only
async def test_no_delay_by_default(rig: Rig) -> None:
    """
    A native connection has TCP_NODELAY from the start.
    """
    _, server = await rig.serve().pair()
    assert server.transport.getTcpNoDelay() is True


# Reading and writing


@each_family
async def test_echo(rig: Rig, family: str) -> None:
    """
    Bytes reach dataReceived, and what it writes reaches the client.
    """
    client, server = await rig.serve_family(family, recorder(on_read=echo)).pair()
    for payload in (b"a", b"bc", bytes(range(256))):
        await client.send(payload)
        assert payload == await client.receive(len(payload))
    assert b"abc" + bytes(range(256)) == server.received


@tcp_and_unix
async def test_writes_keep_their_order(rig: Rig, family: str) -> None:
    """
    Many write and writeSequence calls arrive in the order in which they were made.
    """
    client, server = await rig.serve_family(family).pair()
    pieces = [b"%d," % number * (number % 7) for number in range(3000)]
    for at in range(0, 3000, 3):
        server.write(pieces[at])
        server.transport.writeSequence(pieces[at + 1 : at + 3])
    server.lose()
    assert b"".join(pieces) == await client.rest()


async def test_write_of_nothing(rig: Rig) -> None:
    """
    write(b"") and writeSequence([]) send nothing and do no harm.
    """
    client, server = await rig.serve().pair()
    server.write(b"")
    server.transport.writeSequence([])
    server.transport.writeSequence([b"", b""])
    server.write(b"end")
    server.lose()
    assert await client.rest() == b"end"


@pytest.mark.parametrize("wrong", ["text", None, 5, ["list"]], ids=repr)
async def test_write_takes_only_bytes(rig: Rig, wrong: Any) -> None:
    """
    write and writeSequence of anything but bytes raise TypeError, and the connection goes on.
    """
    client, server = await rig.serve().pair()
    if wrong is None and rig.native and not rig.tls:
        # uvloop takes None for nothing; to refuse it would cost a call for each write.
        wrong = "text"
    with pytest.raises(TypeError):
        server.transport.write(wrong)
    with pytest.raises(TypeError):
        server.transport.writeSequence([b"never sent", wrong])
    server.write(b"end")
    server.lose()
    assert await client.rest() == b"end"


async def test_write_takes_only_bytes_when_closed(rig: Rig) -> None:
    """
    write of text raises TypeError on a closed transport too.
    """
    client, server = await rig.serve().pair()
    client.close()
    await rig.until(lambda: server.lost)
    with pytest.raises(TypeError):
        server.transport.write("text")
    with pytest.raises(TypeError):
        server.transport.writeSequence(["text"])


@tcp_and_unix
async def test_large_write_to_slow_reader(rig: Rig, family: str) -> None:
    """
    A write larger than all buffers arrives whole at a slow reader, and the connection goes on.
    """
    client, server = await rig.serve_family(family).pair()
    stuck(server)
    server.write(b"tail")
    await rig.polls()
    assert LARGE[:100] == await client.receive(100)
    await rig.polls()
    assert LARGE[100:] + b"tail" == await client.receive(len(LARGE) - 100 + 4)
    await client.send(b"more")
    await rig.until(lambda: server.received == b"more")


async def test_large_read(rig: Rig) -> None:
    """
    A large upload reaches dataReceived whole and in order.
    """
    client, server = await rig.serve().pair()
    await client.send(LARGE)
    await rig.until(lambda: sum(map(len, server.chunks)) == len(LARGE))
    assert server.received == LARGE


async def test_many_connections(rig: Rig) -> None:
    """
    A hundred connections at once are each served for themselves.
    """
    served = rig.serve(recorder(on_read=echo))
    clients = [await served.connect() for _ in range(100)]
    for number, client in enumerate(clients):
        await client.send(b"%03d" % number)
    for number, client in enumerate(clients):
        assert b"%03d" % number == await client.receive(3)


@pytest.mark.parametrize("end", ["client closes", "client resets", "we lose", "we abort"])
async def test_calls_after_the_end(rig: Rig, end: str) -> None:
    """
    After connectionLost every call into the transport is ignored, from within that callback too.
    """

    def call_all(server: Recorder) -> None:
        server.write(b"late")
        server.transport.writeSequence([b"late", b"r"])
        server.pause()
        server.resume()
        server.lose()
        server.abort()
        server.transport.stopProducing()
        server.transport.unregisterProducer()

    client, server = await rig.serve(recorder(on_lost=call_all)).pair()
    {
        "client closes": client.close,
        "client resets": client.reset,
        "we lose": server.lose,
        "we abort": server.abort,
    }[end]()
    if end == "we lose":
        await client.rest()
    await rig.until(lambda: server.lost)
    call_all(server)
    await rig.polls()
    assert server.events == ["made", "lost"]


async def test_write_to_reset_connection(rig: Rig) -> None:
    """
    Writing on while the peer has reset raises nothing, and connectionLost comes once, not from within write.
    """
    client, server = await rig.serve().pair()
    client.reset()
    for _ in range(20):
        server.write(b"x" * 100 * KIB)
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionLost)


# The end: loseConnection


@tcp_and_unix
async def test_lose_flushes(rig: Rig, family: str) -> None:
    """
    loseConnection first sends all that was written, to a slow reader too, then closes cleanly.
    """
    client, server = await rig.serve_family(family).pair()
    stuck(server)
    server.lose()
    await rig.polls()
    assert server.transport.disconnecting
    assert not server.lost
    assert LARGE[:10] == await client.receive(10)
    await rig.polls()
    assert not server.lost
    assert LARGE[10:] == await client.rest()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


@each_family
async def test_lose_when_idle(rig: Rig, family: str) -> None:
    """
    loseConnection of an idle connection closes it: ConnectionDone later, never within the call.
    """
    client, server = await rig.serve_family(family).pair()
    server.lose()
    assert not server.lost
    assert await client.rest() == b""
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_lose_twice(rig: Rig) -> None:
    """
    Further loseConnection calls change nothing.
    """
    client, server = await rig.serve().pair()
    server.write(b"once")
    server.lose()
    server.lose()
    server.transport.stopProducing()
    assert await client.rest() == b"once"
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


@tcp_and_unix
async def test_lose_in_connection_made(rig: Rig, family: str) -> None:
    """
    A protocol may write and lose the connection within connectionMade.
    """

    def greet(server: Recorder) -> None:
        server.write(b"busy")
        server.lose()

    served = rig.serve_family(family, recorder(on_made=greet))
    client, server = await served.pair()
    assert await client.rest() == b"busy"
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_lose_in_data_received(rig: Rig) -> None:
    """
    A protocol may answer and lose the connection within dataReceived.
    """

    def answer(server: Recorder) -> None:
        server.write(LARGE)
        server.lose()

    client, server = await rig.serve(recorder(on_read=answer)).pair()
    await client.send(b"go")
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


@tcp_and_unix
async def test_lose_stops_reading(rig: Rig, family: str) -> None:
    """
    After loseConnection nothing more is delivered while the connection lives, not even by resumeProducing.
    """
    client, server = await rig.serve_family(family).pair()
    server.transport.registerProducer(PushProducer(), False)
    server.lose()
    await client.send(b"late")
    await rig.arrived(client, server, 4)
    await rig.polls()
    server.resume()
    await rig.polls()
    assert server.chunks == []
    if not rig.tls:  # there it may be read, to find the client's close_notify
        assert rig.unread_bytes(server) == 4
    server.transport.unregisterProducer()
    await client.outcome()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_lose_stops_reading_while_flushing(rig: Rig) -> None:
    """
    After loseConnection nothing more is delivered while pending output is still on its way.
    """
    client, server = await rig.serve().pair()
    stuck(server)
    server.lose()
    await client.send(b"late")
    await rig.arrived(client, server, 4)
    await rig.polls()
    assert server.chunks == []
    assert not server.lost


async def test_write_after_lose(rig: Rig) -> None:
    """
    What was written before loseConnection arrives whole, whatever is written after it.
    """
    client, server = await rig.serve().pair()
    stuck(server)
    server.lose()
    server.write(b"after")
    server.transport.writeSequence([b"af", b"ter"])
    await rig.polls()
    received = await client.rest()
    assert received[: len(LARGE)] == LARGE
    assert received[len(LARGE) :] in (b"", b"afterafter")


@ours_only
@pytest.mark.parametrize("before", [b"", b"before", LARGE], ids=len)
async def test_write_after_lose_is_ignored(rig: Rig, before: bytes) -> None:
    """
    Without a producer, what is written after loseConnection is not sent.
    """
    client, server = await rig.serve().pair()
    server.write(before)
    server.lose()
    server.write(b"after")
    server.transport.writeSequence([b"af", b"ter"])
    assert before == await client.rest()


async def test_line_receiver_stops_at_lose(rig: Rig) -> None:
    """
    A LineReceiver that loses the connection in its first line is not given the second one of the same read.
    """

    class OneLine(LineReceiver, Recorder):
        def __init__(self) -> None:
            Recorder.__init__(self)
            self.lines: list[bytes] = []

        def lineReceived(self, line: bytes) -> None:
            self.lines.append(line)
            self.lose()

    client, server = await rig.serve(OneLine).pair()
    await client.send(b"first\r\nsecond\r\nthird\r\n")
    assert await client.outcome() == (0, "end")
    await rig.until(lambda: server.lost)
    assert server.lines == [b"first"]


async def test_stop_producing_loses(rig: Rig) -> None:
    """
    stopProducing of the transport flushes and loses the connection.
    """
    client, server = await rig.serve().pair()
    server.write(LARGE)
    with server.calling("stopProducing"):
        server.transport.stopProducing()
    assert server.transport.disconnecting
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


# The end: abortConnection


async def test_abort_drops_output(rig: Rig) -> None:
    """
    abortConnection drops what is pending, resets the peer, and gives ConnectionAborted after it has returned.
    """
    client, server = await rig.serve().pair()
    stuck(server)
    server.abort()
    assert not server.lost
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionAborted)
    size, end = await client.outcome()
    assert size < len(LARGE)
    assert end == "reset"


async def test_abort_when_idle(rig: Rig) -> None:
    """
    abortConnection of an idle connection resets it too: no peer may take it for a clean end.
    """
    client, server = await rig.serve().pair()
    server.abort()
    assert not server.lost
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionAborted)
    assert await client.outcome() == (0, "reset")


async def test_abort_unix(rig: Rig) -> None:
    """
    abortConnection over a UNIX socket drops what is pending and gives ConnectionAborted.
    """
    client, server = await rig.serve_unix().pair()
    stuck(server)
    server.abort()
    assert not server.lost
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionAborted)
    size, _ = await client.outcome()
    assert size < len(LARGE)


@pytest.mark.parametrize("pending", [b"", LARGE], ids=len)
async def test_abort_after_lose(rig: Rig, pending: bytes) -> None:
    """
    abortConnection after loseConnection ends a connection whose output is still pending.
    """
    _, server = await rig.serve().pair()
    server.write(pending)
    server.lose()
    server.abort()
    server.abort()
    server.lose()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionAborted)


async def test_abort_while_losing(rig: Rig) -> None:
    """
    abortConnection ends, some turns later, a loseConnection that a client holds up by not reading.
    """
    client, server = await rig.serve().pair()
    stuck(server)
    server.lose()
    await rig.polls()
    assert not server.lost
    server.abort()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionAborted)
    assert (await client.outcome())[0] < len(LARGE)


@pytest.mark.parametrize("place", ["on_made", "on_read"])
async def test_abort_in_callback(rig: Rig, place: str) -> None:
    """
    abortConnection within connectionMade or dataReceived gives ConnectionAborted once that has returned.
    """
    order: list[Any] = []

    def abort(server: Recorder) -> None:
        order.append("called")
        server.abort()
        order.append("returned")

    made = recorder(**{place: abort}, on_lost=lambda server: order.append("lost"))
    client, server = await rig.serve(made).pair()
    if place == "on_read":
        await client.send(b"go")
    await rig.until(lambda: server.lost)
    assert order == ["called", "returned", "lost"]
    assert server.reasons[0].check(ConnectionAborted)


async def test_abort_stops_reading(rig: Rig) -> None:
    """
    Nothing is delivered after abortConnection, not even what had come before it.
    """
    client, server = await rig.serve().pair()
    server.pause()
    await client.send(b"late")
    await rig.arrived(client, server, 4)
    server.abort()
    server.resume()
    await rig.until(lambda: server.lost)
    await rig.polls()
    assert server.events == ["made", "lost"]


# The end: by the peer, by a fault


@each_family
async def test_peer_closes(rig: Rig, family: str) -> None:
    """
    A clean close by the peer gives connectionLost(ConnectionDone), after all it has sent.
    """
    client, server = await rig.serve_family(family).pair()
    await client.send(b"last words")
    client.close()
    await rig.until(lambda: server.lost)
    assert server.received == b"last words"
    assert server.reasons[0].check(ConnectionDone)


async def test_peer_resets(rig: Rig) -> None:
    """
    A reset by the peer gives connectionLost(ConnectionLost).
    """
    client, server = await rig.serve().pair()
    client.reset()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionLost)


@pytest.mark.parametrize("losing", [False, True], ids=["open", "losing"])
async def test_peer_resets_with_output_pending(rig: Rig, losing: bool) -> None:
    """
    A reset by the peer gives ConnectionLost while output is pending, and after loseConnection.
    """
    client, server = await rig.serve().pair()
    stuck(server)
    if losing:
        server.lose()
    await rig.polls()
    client.reset()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionLost)


async def test_peer_resets_before_accept(rig: Rig) -> None:
    """
    A client gone before it was accepted leaves the port serving, and its protocol, if made, hears the end.
    """
    served = rig.serve(recorder(on_made=lambda server: peers.append(server.transport.getPeer()), on_read=echo))
    peers: list[Any] = []
    # Connected by the kernel alone: the loop does not turn here.
    with socket.socket() as sock:
        sock.connect(served.address)
        Client(rig.loop, sock).reset()
    client = await served.connect()
    await client.send(b"next")
    assert await client.receive(4) == b"next"
    await rig.until(lambda: sum(one.open for one in served.factory.built) == 1)
    assert all(isinstance(peer, IPv4Address) for peer in peers)


async def test_fault_in_data_received(rig: Rig) -> None:
    """
    An exception in dataReceived is logged and closes that connection, with it as the reason; others go on.
    """

    def fail(server: Recorder) -> None:
        if server.received == b"bad":
            raise Oops("in dataReceived")

    served = rig.serve(recorder(on_read=fail))
    other, unhurt = await served.pair()
    client, server = await served.pair()
    await client.send(b"bad")
    await client.outcome()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(Oops)
    assert len(rig.flush(Oops)) == 1
    await other.send(b"good")
    await rig.until(lambda: unhurt.received == b"good")
    assert not unhurt.lost


async def test_fault_after_abort(rig: Rig) -> None:
    """
    An exception in dataReceived after abortConnection is logged, and connectionLost comes once.
    """

    def fail(server: Recorder) -> None:
        server.abort()
        raise Oops("after abort")

    client, server = await rig.serve(recorder(on_read=fail)).pair()
    await client.send(b"bad")
    await rig.until(lambda: server.lost)
    await rig.polls()
    assert len(rig.flush(Oops)) == 1
    assert server.events == ["made", "read", "lost"]


@pytest.mark.parametrize("place", ["on_made", "on_lost"])
async def test_fault_in_connection_callbacks(rig: Rig, place: str) -> None:
    """
    An exception in connectionMade or connectionLost is logged and does not stop the port.
    """

    def fail(server: Recorder) -> None:
        if server is served.factory.built[0]:
            raise Oops(place)

    served = rig.serve(recorder(**{place: fail}, on_read=echo))
    client, server = await served.pair()
    client.close()
    await rig.until(lambda: server.lost)
    await rig.until(lambda: rig.failures)
    assert len(rig.flush(Oops)) == 1
    client = await served.connect()
    await client.send(b"next")
    assert await client.receive(4) == b"next"


# Reading paused and resumed


@tcp_and_unix
async def test_no_read_while_paused(rig: Rig, family: str) -> None:
    """
    pauseProducing stops dataReceived until resumeProducing; each may be called twice.
    """
    client, server = await rig.serve_family(family).pair()
    server.pause()
    server.pause()
    await client.send(b"one")
    await rig.arrived(client, server, 3)
    await rig.polls()
    assert server.chunks == []
    server.resume()
    server.resume()
    await rig.until(lambda: server.received == b"one")
    await client.send(b"two")
    await rig.until(lambda: server.received == b"onetwo")


async def test_pause_in_connection_made(rig: Rig) -> None:
    """
    pauseProducing within connectionMade holds the very first read back.
    """
    served = rig.serve(recorder(on_made=lambda server: server.pause()))
    client = await served.connect()
    server = await served.accepted()
    # Over TLS the handshake may have to wait for the resume.
    sending = rig.loop.create_task(client.send(b"one"))
    await rig.polls()
    await rig.arrived(client, server, 3)
    await rig.polls()
    assert server.chunks == []
    server.resume()
    await rig.until(lambda: server.received == b"one")
    await sending


async def test_pause_in_data_received(rig: Rig) -> None:
    """
    pauseProducing within dataReceived makes that read the last one until resumeProducing.
    """
    client, server = await rig.serve(recorder(on_read=lambda server: server.pause())).pair()
    size = 4 * MIB
    upload = rig.loop.create_task(client.send(LARGE[:size]))
    turns = 0
    while len(server.received) < size:
        turns += 1
        await rig.until(lambda turns=turns: len(server.chunks) == turns)
        await rig.polls(3)
        assert turns == len(server.chunks)
        server.resume()
    await upload
    assert LARGE[:size] == server.received


async def test_pause_and_resume_in_data_received(rig: Rig) -> None:
    """
    Pausing and resuming within dataReceived loses nothing and does not re-enter it.
    """

    def pause_and_resume(server: Recorder) -> None:
        server.pause()
        server.resume()

    client, server = await rig.serve(recorder(on_read=pause_and_resume)).pair()
    await client.send(LARGE)
    await rig.until(lambda: sum(map(len, server.chunks)) == len(LARGE))
    assert server.received == LARGE


async def test_close_while_paused(rig: Rig) -> None:
    """
    What the peer sent before its close while we were paused is delivered by resumeProducing, then the end.
    """
    client, server = await rig.serve().pair()
    server.pause()
    await client.send(b"last words")
    await rig.arrived(client, server, 10)
    client.close()
    await rig.polls()
    assert server.events == ["made"]
    server.resume()
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "read", "lost"]
    assert server.received == b"last words"
    assert server.reasons[0].check(ConnectionDone)


async def test_lose_while_paused(rig: Rig) -> None:
    """
    loseConnection of a paused connection flushes and closes it.
    """
    client, server = await rig.serve().pair()
    server.pause()
    server.write(LARGE)
    server.lose()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_writing_while_paused(rig: Rig) -> None:
    """
    Pausing the reads does not hold up the writes.
    """
    client, server = await rig.serve().pair()
    server.pause()
    server.write(LARGE)
    assert await client.receive(len(LARGE)) == LARGE


# The protocol of a transport


async def test_other_protocol(rig: Rig) -> None:
    """
    Another protocol assigned to transport.protocol gets the later reads and the end; the first gets no more.
    """
    client, server = await rig.serve().pair()
    await client.send(b"first")
    await rig.until(lambda: server.received == b"first")
    other = Recorder()
    other.transport = server.transport
    server.transport.protocol = other
    assert server.transport.protocol is other
    server.replaced = True
    await client.send(b"second")
    await rig.until(lambda: other.received == b"second")
    client.close()
    await rig.until(lambda: other.lost)
    assert server.events == ["made", "read"]
    assert other.events == ["read", "lost"]
    assert other.reasons[0].check(ConnectionDone)


async def test_other_protocol_in_data_received(rig: Rig) -> None:
    """
    A protocol may hand over within dataReceived: the next read is the other's.
    """
    other = Recorder()

    def hand_over(server: Recorder) -> None:
        server.transport.protocol = other
        other.makeConnection(server.transport)
        server.replaced = True
        server.write(b"upgraded")

    client, server = await rig.serve(recorder(on_read=hand_over)).pair()
    await client.send(b"upgrade")
    assert await client.receive(8) == b"upgraded"
    await client.send(b"new words")
    await rig.until(lambda: other.received == b"new words")
    other.lose()
    assert await client.rest() == b""
    await rig.until(lambda: other.lost)
    assert server.events == ["made", "read"]


async def test_other_protocol_with_half_close(rig: Rig) -> None:
    """
    Whether half-close is wanted is asked of the protocol that is assigned when it happens.
    """
    client, server = await rig.serve().pair()
    other = HalfCloseRecorder()
    other.transport = server.transport
    server.transport.protocol = other
    server.replaced = True
    client.finish()
    await rig.until(lambda: other.events)
    assert other.events == ["read lost"]
    other.write(b"answer")
    other.lose()
    assert await client.rest() == b"answer"
    await rig.until(lambda: other.lost)


async def test_replaced_data_received(rig: Rig) -> None:
    """
    A dataReceived that a protocol assigns to itself within connectionMade is the one that gets the reads.
    """
    seen: list[bytes] = []

    def redirect(server: Recorder) -> None:
        server.dataReceived = seen.append

    client, _ = await rig.serve(recorder(on_made=redirect)).pair()
    await client.send(b"here")
    await rig.until(lambda: seen)
    assert seen == [b"here"]


# Push producers


async def test_push_producer_is_paused(rig: Rig) -> None:
    """
    While the client does not read, a push producer is paused once 64 KiB wait in this process.
    """
    client, server = await rig.serve().pair(receive_buffer_bytes=32 * KIB)
    producer = PushProducer()
    server.transport.registerProducer(producer, True)
    piece = LARGE[: 16 * KIB]
    written, steady, taken = 0, 0, -1
    while steady < 10:
        while not producer.paused:
            server.write(piece)
            written += rig.wire_bytes(len(piece))
            assert written < 64 * MIB, "never paused"
            await rig.polls(1)
        await rig.polls(1)
        before, taken = taken, client.unread_bytes + rig.unsent_bytes(server)
        steady = steady + 1 if producer.paused and before == taken else 0
    # Nothing moves any more, so what the kernel has not taken is held by the transport.
    assert written - taken <= 64 * KIB + rig.wire_bytes(len(piece))
    server.transport.unregisterProducer()


async def test_push_producer_is_resumed_when_drained(rig: Rig) -> None:
    """
    A paused push producer is resumed when the kernel has taken all that was written, not before.
    """
    client, server = await rig.serve().pair(receive_buffer_bytes=32 * KIB)
    producer = PushProducer()
    held: list[int] = []

    def measure() -> None:
        taken = client.read_bytes + client.unread_bytes + rig.unsent_bytes(server)
        held.append(rig.wire_bytes(len(LARGE)) - taken)

    producer.on_resume = measure
    server.transport.registerProducer(producer, True)
    server.write(LARGE)
    await rig.until(lambda: producer.paused)
    await rig.polls()
    assert "resume" not in producer.calls

    def read_until_resumed() -> bool:
        client.take()
        return bool(held)

    await rig.until(read_until_resumed)
    assert held[0] <= 0
    assert producer.calls[-1] == "resume"
    assert producer.calls.count("resume") == 1
    server.transport.unregisterProducer()


async def test_push_producer_again_and_again(rig: Rig) -> None:
    """
    A push producer that writes when resumed and stops when paused sends everything, in order, and alternates.
    """
    client, server = await rig.serve().pair(receive_buffer_bytes=32 * KIB)
    producer = PushProducer()
    sent = 0

    def produce() -> None:
        nonlocal sent
        while not producer.paused and sent < len(LARGE):
            server.transport.write(LARGE[sent : sent + 200 * KIB])
            sent += 200 * KIB
        if sent >= len(LARGE):
            server.transport.unregisterProducer()
            server.transport.loseConnection()

    producer.on_resume = produce
    server.transport.registerProducer(producer, True)
    produce()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)
    assert len(producer.calls) >= 2
    alternating = ["pause", "resume"] * len(producer.calls)
    assert producer.calls == alternating[: len(producer.calls)]


async def test_push_producer_is_not_paused_for_little(rig: Rig) -> None:
    """
    Writing what is 64 KiB on the wire neither pauses nor resumes a push producer.
    """
    client, server = await rig.serve().pair()
    producer = PushProducer()
    server.transport.registerProducer(producer, True)
    size = 2 * 64 * KIB - rig.wire_bytes(64 * KIB)
    server.write(b"x" * size)
    assert size == len(await client.receive(size))
    await rig.polls()
    assert producer.calls == []
    server.transport.unregisterProducer()


async def test_second_producer_is_refused(rig: Rig) -> None:
    """
    registerProducer raises RuntimeError while a producer is registered, and works after unregisterProducer.
    """
    _, server = await rig.serve().pair()
    first, second = PushProducer(), PushProducer()
    server.transport.registerProducer(first, True)
    assert server.transport.producer is first
    for streaming in (True, False):
        with pytest.raises(RuntimeError):
            server.transport.registerProducer(second, streaming)
    server.transport.unregisterProducer()
    assert server.transport.producer is None
    server.transport.registerProducer(second, True)
    assert first.calls == []
    assert second.calls == []


async def test_unregister_without_producer(rig: Rig) -> None:
    """
    unregisterProducer is harmless when none is registered.
    """
    client, server = await rig.serve().pair()
    server.transport.unregisterProducer()
    server.write(b"goes on")
    assert await client.receive(7) == b"goes on"


@pytest.mark.parametrize("streaming", [True, False], ids=["push", "pull"])
async def test_producer_for_lost_connection(rig: Rig, streaming: bool) -> None:
    """
    registerProducer on a disconnected transport calls stopProducing, and nothing else, at once.
    """
    client, server = await rig.serve().pair()
    client.close()
    await rig.until(lambda: server.lost)
    producer = PushProducer()
    server.transport.registerProducer(producer, streaming)
    assert producer.calls == ["stop"]
    assert server.transport.producer is None


@pytest.mark.parametrize("end", ["client closes", "client resets", "we abort"])
async def test_producer_is_stopped(rig: Rig, end: str) -> None:
    """
    When the connection is lost its producer's stopProducing is called once, and connectionLost after it.
    """
    producer = PushProducer()
    calls_before: list[list[str]] = []
    served = rig.serve(recorder(on_lost=lambda server: calls_before.append(list(producer.calls))))
    client, server = await served.pair()
    server.transport.registerProducer(producer, True)
    {"client closes": client.close, "client resets": client.reset, "we abort": server.abort}[end]()
    await rig.until(lambda: server.lost)
    assert calls_before == [["stop"]]
    assert producer.calls == ["stop"]
    assert server.transport.producer is None


async def test_lose_resumes_paused_push_producer(rig: Rig) -> None:
    """
    After loseConnection a paused push producer is resumed, and may write its last before it unregisters.
    """
    client, server = await rig.serve().pair()
    producer = PushProducer()

    def finish() -> None:
        server.transport.write(b"last")
        server.transport.unregisterProducer()

    producer.on_resume = finish
    server.transport.registerProducer(producer, True)
    server.write(LARGE)
    await rig.until(lambda: producer.paused)
    server.lose()
    assert await client.rest() == LARGE + b"last"
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)
    assert "stop" not in producer.calls


async def test_unregister_then_flush(rig: Rig) -> None:
    """
    A connection being lost whose producer unregisters with output pending still sends that output.
    """
    client, server = await rig.serve().pair()
    server.transport.registerProducer(PushProducer(), True)
    server.lose()
    server.write(LARGE)
    with server.calling("unregisterProducer"):
        server.transport.unregisterProducer()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


# Pull producers


@tcp_and_unix
async def test_pull_producer(rig: Rig, family: str) -> None:
    """
    A pull producer is asked at once and again and again, never within itself, until it unregisters.
    """
    client, server = await rig.serve_family(family).pair()
    pieces = [b"%d," % number for number in range(3000)]
    whole = b"".join(pieces)
    producer = PullProducer(server.transport, pieces, on_end=server.lose)
    server.transport.registerProducer(producer, False)
    assert producer.asked == 1
    assert whole == await client.rest()
    await rig.until(lambda: server.lost)
    assert producer.asked == 3001
    assert producer.deepest == 1
    assert producer.stopped == 0


async def test_pull_producer_in_connection_made(rig: Rig) -> None:
    """
    A pull producer may be registered within connectionMade.
    """
    server_pieces = [LARGE[at : at + MIB] for at in range(0, len(LARGE), MIB)]

    def produce(server: Recorder) -> None:
        producer = PullProducer(server.transport, server_pieces, on_end=server.lose)
        server.transport.registerProducer(producer, False)

    client, server = await rig.serve(recorder(on_made=produce)).pair()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_pull_producer_waits_for_reader(rig: Rig) -> None:
    """
    A pull producer is not asked for more than the kernel takes, while the client does not read.
    """
    client, server = await rig.serve().pair(receive_buffer_bytes=32 * KIB)
    size = 256 * KIB
    pieces = [LARGE[:size]] * 256
    producer = PullProducer(server.transport, pieces, on_end=server.lose)
    server.transport.registerProducer(producer, False)
    steady, asked = 0, 0
    while steady < 10:
        await rig.polls(2)
        before, asked = asked, producer.asked
        steady = steady + 1 if before == asked else 0
    taken = client.unread_bytes + rig.unsent_bytes(server)
    assert asked * rig.wire_bytes(size) - taken <= rig.wire_bytes(size)
    assert asked < 100
    assert 256 * size == len(await client.rest())
    await rig.until(lambda: server.lost)


async def test_pull_producer_that_writes_nothing(rig: Rig) -> None:
    """
    A pull producer that writes nothing when asked is asked again only after it has written.
    """
    client, server = await rig.serve().pair()
    producer = PushProducer()
    server.transport.registerProducer(producer, False)
    assert producer.calls == ["resume"]
    await rig.polls()
    assert producer.calls == ["resume"]
    server.write(b"late")
    assert await client.receive(4) == b"late"
    await rig.until(lambda: len(producer.calls) == 2)
    await rig.polls()
    assert producer.calls == ["resume", "resume"]
    server.transport.unregisterProducer()


async def test_lose_waits_for_pull_producer(rig: Rig) -> None:
    """
    loseConnection lets a pull producer go on to its end.
    """
    client, server = await rig.serve().pair()
    pieces = [LARGE[at : at + MIB] for at in range(0, len(LARGE), MIB)]
    producer = PullProducer(server.transport, pieces)
    server.transport.registerProducer(producer, False)
    server.lose()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)
    assert producer.stopped == 0


async def test_pull_producer_is_stopped(rig: Rig) -> None:
    """
    A pull producer whose client goes away is stopped once and not asked again.
    """
    client, server = await rig.serve().pair()
    producer = PullProducer(server.transport, [LARGE[:MIB]] * 100)
    server.transport.registerProducer(producer, False)
    await client.receive(5 * MIB)
    client.reset()
    await rig.until(lambda: server.lost)
    asked = producer.asked
    await rig.polls()
    assert producer.stopped == 1
    assert asked == producer.asked


# Half-close


@each_family
async def test_half_close_by_peer(rig: Rig, family: str) -> None:
    """
    A half-closeable protocol hears readConnectionLost after the peer's last bytes, and can still write.
    """
    client, server = await rig.serve_family(family, recorder(kind=HalfCloseRecorder)).pair()
    await client.send(b"question")
    client.finish()
    await rig.until(lambda: "read lost" in server.events)
    assert server.received == b"question"
    await rig.polls()
    assert server.events == ["made", "read", "read lost"]
    server.write(LARGE)
    server.lose()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "read", "read lost", "lost"]
    assert server.reasons[0].check(ConnectionDone)


async def test_half_close_by_peer_with_output_pending(rig: Rig) -> None:
    """
    The peer's half-close drops nothing of what a half-closeable protocol has written before.
    """
    client, server = await rig.serve(recorder(kind=HalfCloseRecorder)).pair()
    stuck(server)
    client.finish()
    await rig.until(lambda: "read lost" in server.events)
    assert await client.receive(len(LARGE)) == LARGE
    server.lose()
    assert await client.rest() == b""


async def test_answer_in_read_connection_lost(rig: Rig) -> None:
    """
    A protocol may answer and lose the connection within readConnectionLost.
    """

    class Answer(HalfCloseRecorder):
        def readConnectionLost(self) -> None:
            super().readConnectionLost()
            self.write(LARGE)
            self.lose()

    client, server = await rig.serve(Answer).pair()
    client.finish()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "read lost", "lost"]
    assert server.reasons[0].check(ConnectionDone)


async def test_reset_after_half_close(rig: Rig) -> None:
    """
    After readConnectionLost a write to a peer that is gone altogether ends the connection.
    """
    client, server = await rig.serve(recorder(kind=HalfCloseRecorder)).pair()
    client.finish()
    await rig.until(lambda: "read lost" in server.events)
    client.close()
    stuck(server)
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionLost)


async def test_fault_in_read_connection_lost(rig: Rig) -> None:
    """
    An exception in readConnectionLost is logged and closes the connection, with it as the reason.
    """

    class Faulty(HalfCloseRecorder):
        def readConnectionLost(self) -> None:
            raise Oops("in readConnectionLost")

    client, server = await rig.serve(Faulty).pair()
    client.finish()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(Oops)
    assert len(rig.flush(Oops)) == 1


@tcp_and_unix
async def test_end_without_half_close(rig: Rig, family: str) -> None:
    """
    Without IHalfCloseableProtocol the peer's half-close is the end of the connection: ConnectionDone.
    """
    client, server = await rig.serve_family(family).pair()
    client.finish()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)
    assert await client.rest() == b""


async def test_end_without_half_close_with_output_pending(rig: Rig) -> None:
    """
    Without IHalfCloseableProtocol the peer's end gives connectionLost; with ours what was written arrives first.
    """
    client, server = await rig.serve().pair()
    stuck(server)
    await rig.polls()
    client.finish()
    if rig.ours:
        assert LARGE[:100] == await client.receive(100)
        await client.rest()
    await rig.until(lambda: server.lost, 2)
    assert server.reasons[0].check(ConnectionDone)


@each_family
@pytest.mark.parametrize("kind", [Recorder, HalfCloseRecorder])
async def test_half_close_by_us(rig: Rig, family: str, kind: type) -> None:
    """
    loseWriteConnection sends the end after all output and tells a half-closeable protocol; reading goes on.
    """
    client, server = await rig.serve_family(family, recorder(kind=kind)).pair()
    server.write(LARGE)
    with server.calling("loseWriteConnection"):
        server.transport.loseWriteConnection()
    await rig.polls()
    assert server.events == ["made"]
    assert await client.until_end() == LARGE
    await client.send(b"still there")
    await rig.until(lambda: server.received == b"still there")
    half = ["write lost"] if kind is HalfCloseRecorder else []
    assert ["made", *half, "read"] == server.events
    server.write(b"too late")
    await rig.polls()
    assert not server.lost
    client.close()
    if kind is HalfCloseRecorder:
        await rig.until(lambda: "read lost" in server.events)
        server.transport.loseConnection()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_half_close_by_us_when_idle(rig: Rig) -> None:
    """
    loseWriteConnection with nothing pending sends the end, and a second call changes nothing.
    """
    client, server = await rig.serve(recorder(kind=HalfCloseRecorder)).pair()
    with server.calling("loseWriteConnection"):
        server.transport.loseWriteConnection()
        server.transport.loseWriteConnection()
    assert await client.until_end() == b""
    await rig.until(lambda: "write lost" in server.events)
    await rig.polls()
    assert server.events == ["made", "write lost"]


async def test_lose_after_half_close_by_us(rig: Rig) -> None:
    """
    loseConnection after loseWriteConnection ends the connection with ConnectionDone.
    """
    client, server = await rig.serve(recorder(kind=HalfCloseRecorder)).pair()
    server.write(b"all")
    server.transport.loseWriteConnection()
    assert await client.until_end() == b"all"
    await rig.until(lambda: "write lost" in server.events)
    # Twisted calls connectionLost within this call, so it is not marked as one that must not.
    server.transport.loseConnection()
    assert await client.rest() == b""
    await rig.until(lambda: server.lost)
    assert server.events == ["made", "write lost", "lost"]
    assert server.reasons[0].check(ConnectionDone)


async def test_lose_right_after_half_close_by_us(rig: Rig) -> None:
    """
    loseWriteConnection and loseConnection in one turn, with output pending, still send that output.
    """
    client, server = await rig.serve().pair()
    stuck(server)
    with server.calling("loseWriteConnection"):
        server.transport.loseWriteConnection()
    server.lose()
    assert await client.rest() == LARGE
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)
