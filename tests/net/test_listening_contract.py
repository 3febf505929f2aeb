"""
The contract of listening, as Twisted's own reactor keeps it, and Twisted's own code on top of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from traceback import walk_tb
from typing import Any, Self

import pytest
from tests.net.rig import KIB, MIB, NATIVE, VARIANTS, Oops, Recorder, RecorderFactory, Rig, echo, recorder
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    UnsupportedAddressFamily,
)
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolNegotiationFactory,
    IReactorSocket,
    IReactorSSL,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    ISSLTransport,
)
from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import PrivateCertificate
from twisted.protocols.basic import LineReceiver
from twisted.protocols.policies import TimeoutMixin, WrappingFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer

native_only = pytest.mark.parametrize("variant", NATIVE, indirect=True)
each_family = pytest.mark.parametrize("family", ["tcp", "tcp6", "unix"])

LARGE = bytes(range(251)) * (2 * MIB // 251)


async def refused(rig: Rig, address: Any) -> bool:
    """
    Whether nobody listens there.
    """
    try:
        await rig.connect(address)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


async def serves(rig: Rig, address: Any) -> bool:
    """
    Whether a new connection to this echo server is served.
    """
    client = await rig.connect(address)
    await client.send(b"hello")
    return await client.receive(5) == b"hello"


def connect_at_once(address: Any, count: int) -> None:
    """
    Connect many clients without turning the loop; raises TimeoutError when the kernel makes one wait.
    """
    with ExitStack() as clients:
        for _ in range(count):
            clients.enter_context(socket.create_connection(address, 0.5))


def is_there(path: str) -> bool:
    return os.path.lexists(path)


# Addresses and options of a port


def test_host_before_the_loop_runs(rig: Rig) -> None:
    """
    getHost gives the address and the port number that was chosen, before the loop runs.
    """
    host = rig.serve().port.getHost()
    assert host == IPv4Address("TCP", "127.0.0.1", host.port)
    assert host.port > 0


def test_host_of_tcp6(rig: Rig) -> None:
    """
    getHost of an IPv6 listener is an IPv6Address.
    """
    host = rig.serve(interface="::1").port.getHost()
    assert host == IPv6Address("TCP", "::1", host.port)
    assert host.port > 0


def test_host_without_interface(rig: Rig) -> None:
    """
    Without an interface the listener is on all IPv4 addresses.
    """
    factory = RecorderFactory()
    host = rig.add(rig.listeners.listenTCP(0, factory), factory).port.getHost()
    assert host == IPv4Address("TCP", "0.0.0.0", host.port)


@pytest.mark.parametrize("encode", [str, os.fsencode], ids=["str", "bytes"])
async def test_host_of_unix(rig: Rig, encode: Callable[[str], Any]) -> None:
    """
    getHost of a UNIX listener is the UNIXAddress of its path, given as str or as bytes.
    """
    path = rig.new_path()
    served = rig.serve_unix(recorder(on_read=echo), encode(path))
    assert served.port.getHost() == UNIXAddress(path)
    assert await serves(rig, path)


async def test_abstract_unix_socket(rig: Rig) -> None:
    """
    A UNIX address that begins with NUL is in the abstract namespace and leaves no file.
    """
    name = f"\0txasgi-{os.getpid()}-{rig.variant}"
    served = rig.serve_unix(recorder(on_read=echo), name)
    assert served.port.getHost() == UNIXAddress(name)
    assert await serves(rig, name)
    await rig.stop(served.port)
    assert await refused(rig, name)


@each_family
def test_port_is_a_listening_port(rig: Rig, family: str) -> None:
    """
    What listening returns is an IListeningPort that knows its factory.
    """
    served = rig.serve_family(family)
    assert IListeningPort.providedBy(served.port)
    assert served.port.factory is served.factory


@pytest.mark.parametrize("name", ["_realPortNumber", "_type", "backlog", "factory", "interface", "port", "socket"])
def test_port_has_attribute(rig: Rig, name: str) -> None:
    """
    A TCP port has the attributes that no interface names and that programs read all the same.
    """
    assert hasattr(rig.serve().port, name)


def test_port_numbers(rig: Rig) -> None:
    """
    _realPortNumber is the number that is listened on, and backlog what was asked for.
    """
    factory = RecorderFactory()
    served = rig.add(rig.listeners.listenTCP(0, factory, 7, "127.0.0.1"), factory)
    assert served.port._realPortNumber == served.port.getHost().port
    assert served.port.backlog == 7


def test_fileno_of_port(rig: Rig) -> None:
    """
    fileno of a port is its listening socket's.
    """
    served = rig.serve()
    with socket.socket(fileno=os.dup(served.port.fileno())) as same:
        assert same.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        assert same.getsockname() == served.address


async def test_clients_wait_for_the_loop(rig: Rig) -> None:
    """
    Clients that connect before the loop turns are served when it does.
    """
    served = rig.serve(recorder(on_read=echo))
    early = []
    for _ in range(5):  # connected by the kernel alone: the loop does not turn here
        early.append(socket.create_connection(served.address))
        early[-1].sendall(b"early")
    for sock in early:
        with sock:
            assert await rig.in_thread(sock.recv, 5) == b"early"


@native_only
async def test_backlog_by_default(rig: Rig) -> None:
    """
    By default hundreds of clients can connect at once before the first is accepted.
    """
    served = rig.serve()
    connect_at_once(served.address, 500)
    # asyncio complains of a connection whose port stops between accept() and the task that goes on from there.
    await rig.until(lambda: len(served.factory.built) == 500)


@native_only
async def test_backlog_of_endpoint(rig: Rig) -> None:
    """
    An endpoint that asks for no backlog gets the listeners' own one, not Twisted's 50.
    """
    factory = RecorderFactory()
    endpoint = serverFromString(rig.listeners, "tcp:0:interface=127.0.0.1")
    served = rig.add(await rig.wait_for(endpoint.listen(factory)), factory)
    connect_at_once(served.address, 500)
    # asyncio leaks a connection whose port stops between accept() and the task that goes on from there.
    await rig.until(lambda: len(factory.built) == 500)


@native_only
async def test_reuse_port(rig: Rig) -> None:
    """
    With reuse_port two ports listen on one number; without it the second cannot.
    """
    first, second = RecorderFactory(recorder(on_read=echo)), RecorderFactory(recorder(on_read=echo))
    listeners = rig.wrap(reuse_port=True)
    served = rig.add(listeners.listenTCP(0, first, interface="127.0.0.1"), first)
    number = served.address[1]
    with pytest.raises(CannotListenError):
        rig.listeners.listenTCP(number, second, interface="127.0.0.1")
    rig.add(rig.wrap(reuse_port=True).listenTCP(number, second, interface="127.0.0.1"), second)
    for _ in range(20):
        assert await serves(rig, served.address)
    assert len(first.built) + len(second.built) == 20


@native_only
async def test_loop_can_be_given(rig: Rig) -> None:
    """
    NativeListeners takes the loop as an argument, too.
    """
    factory = RecorderFactory(recorder(on_read=echo))
    served = rig.add(rig.wrap(loop=rig.loop).listenTCP(0, factory, interface="127.0.0.1"), factory)
    assert await serves(rig, served.address)


# What is not listening goes to the reactor


@pytest.mark.parametrize(
    "interface",
    [IReactorTCP, IReactorUNIX, IReactorSSL, IReactorSocket, IReactorTime],
    ids=lambda interface: interface.__name__,
)
def test_provides_the_reactor(rig: Rig, interface: Any) -> None:
    """
    The listeners declare what the reactor declares.
    """
    assert interface.providedBy(rig.listeners)


async def test_clock_of_the_reactor(rig: Rig) -> None:
    """
    callLater and getDelayedCalls are the reactor's.
    """
    fired: list[str] = []
    call = rig.listeners.callLater(0, fired.append, "fired")
    assert rig.reactor.getDelayedCalls() == [call]
    assert rig.listeners.getDelayedCalls() == [call]
    await rig.until(lambda: fired)
    with pytest.raises(AttributeError):
        _ = rig.listeners.no_such_attribute


async def test_connects_by_the_reactor(rig: Rig) -> None:
    """
    connectTCP of the listeners connects to a port of theirs.
    """
    served = rig.serve(recorder(on_read=echo))
    client = Recorder()

    class Connect(ClientFactory):
        def buildProtocol(self, addr: Any) -> Any:
            return client

    rig.listeners.connectTCP("127.0.0.1", served.address[1], Connect())
    await rig.until(lambda: client.made)
    client.write(b"hello")
    await rig.until(lambda: client.received == b"hello")
    client.lose()
    await rig.until(lambda: client.lost)


# What cannot be listened on


def test_port_in_use(rig: Rig) -> None:
    """
    A TCP port that is in use raises CannotListenError at once, and the factory is not started.
    """
    served = rig.serve()
    factory = RecorderFactory()
    with pytest.raises(CannotListenError) as raised:
        rig.listeners.listenTCP(served.address[1], factory, interface="127.0.0.1")
    assert raised.value.port == served.address[1]
    assert raised.value.interface == "127.0.0.1"
    assert isinstance(raised.value.socketError, OSError)
    assert factory.life == []


@pytest.mark.parametrize("interface", ["192.0.2.1", "2001:db8::1"])
def test_interface_of_others(rig: Rig, interface: str) -> None:
    """
    An address that is not this machine's raises CannotListenError at once.
    """
    with pytest.raises(CannotListenError):
        rig.listeners.listenTCP(0, RecorderFactory(), interface=interface)


@pytest.mark.parametrize("lock", [0, 1])
async def test_unix_path_in_use(rig: Rig, lock: int) -> None:
    """
    A UNIX path that is listened on raises CannotListenError, and its server goes on.
    """
    path = rig.new_path()
    rig.serve_unix(recorder(on_read=echo), path, wantPID=lock)
    with pytest.raises(CannotListenError):
        rig.listeners.listenUNIX(path, RecorderFactory(), wantPID=lock)
    assert await serves(rig, path)


@pytest.mark.parametrize("lock", [0, 1])
def test_unix_path_is_a_file(rig: Rig, lock: int) -> None:
    """
    A file that is no socket is not replaced: CannotListenError.
    """
    path = rig.new_path()
    with open(path, "wb") as file:
        file.write(b"precious")
    with pytest.raises(CannotListenError):
        rig.listeners.listenUNIX(path, RecorderFactory(), wantPID=lock)
    with open(path, "rb") as file:
        assert file.read() == b"precious"


def test_unix_path_without_folder(rig: Rig) -> None:
    """
    A UNIX path in a folder that does not exist raises CannotListenError.
    """
    with pytest.raises(CannotListenError):
        rig.listeners.listenUNIX(rig.new_path() + "/no/such.sock", RecorderFactory())


# The socket file


@pytest.mark.parametrize(("options", "expected"), [({}, 0o666), ({"mode": 0o600}, 0o600), ({"mode": 0o660}, 0o660)])
def test_unix_mode(rig: Rig, options: dict[str, int], expected: int) -> None:
    """
    The socket file has the mode that was asked for, 666 by default, whatever the umask.
    """
    before = os.umask(0o077)
    try:
        path = rig.serve_unix(**options).address
        assert stat.S_IMODE(os.stat(path).st_mode) == expected
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)


async def test_unix_file_is_removed(rig: Rig) -> None:
    """
    stopListening removes the socket file; a connection that is open goes on.
    """
    served = rig.serve_unix(recorder(on_read=echo))
    path = served.address
    client, _ = await served.pair()
    await rig.stop(served.port)
    assert not is_there(path)
    await client.send(b"on")
    assert await client.receive(2) == b"on"


# Stopping and starting


@each_family
async def test_stop_listening(rig: Rig, family: str) -> None:
    """
    When stopListening's Deferred fires new clients are refused; open connections go on.
    """
    served = rig.serve_family(family, recorder(on_read=echo))
    address = served.address
    client, server = await served.pair()
    stopped = served.port.stopListening()
    await rig.wait_for(stopped)
    assert await refused(rig, address)
    await client.send(b"on")
    assert await client.receive(2) == b"on"
    assert not server.lost


@each_family
async def test_stop_before_the_loop_runs(rig: Rig, family: str) -> None:
    """
    A port may be stopped before the loop has turned once since it was made.
    """
    served = rig.serve_family(family)
    address = served.address
    await rig.stop(served.port)
    assert await refused(rig, address)
    assert served.factory.life == ["start", "stop"]


async def test_stop_twice(rig: Rig) -> None:
    """
    Stopping a port that is stopped does no harm.
    """
    served = rig.serve()
    await rig.stop(served.port)
    await rig.stop(served.port)
    assert served.factory.life == ["start", "stop"]


async def test_port_is_free_after_stop(rig: Rig) -> None:
    """
    When stopListening's Deferred fires another can listen there, with connections of the first still open.
    """
    served = rig.serve()
    address = served.address
    await served.pair()
    await rig.stop(served.port)
    rig.serve(recorder(on_read=echo), number=address[1])
    assert await serves(rig, address)


@each_family
async def test_start_again(rig: Rig, family: str) -> None:
    """
    startListening after stopListening listens again, on the same address.
    """
    first = rig.serve_family(family)
    address = first.address
    await rig.stop(first.port)
    if family == "unix":
        served = rig.serve_unix(recorder(on_read=echo), address, mode=0o640)
    else:
        served = rig.serve(recorder(on_read=echo), address[0], address[1])
    await rig.stop(served.port)
    assert await refused(rig, address)
    served.port.startListening()
    assert served.address == address
    assert await serves(rig, address)
    if family == "unix":
        assert stat.S_IMODE(os.stat(address).st_mode) == 0o640
    assert served.factory.life == ["start", "stop", "start"]


async def test_start_again_in_use(rig: Rig) -> None:
    """
    startListening raises CannotListenError when the port was taken meanwhile.
    """
    first = rig.serve()
    number = first.address[1]
    await rig.stop(first.port)
    again = rig.serve(number=number)
    await rig.stop(again.port)
    rig.serve(number=number)
    with pytest.raises(CannotListenError):
        again.port.startListening()


async def test_factory_of_two_ports(rig: Rig) -> None:
    """
    A factory of two ports is started once, and stopped when the last of them has stopped.
    """
    factory = RecorderFactory()
    first, second = rig.serve(factory), rig.serve_unix(factory)
    assert factory.life == ["start"]
    assert factory.numPorts == 2
    await rig.stop(first.port)
    assert factory.life == ["start"]
    await rig.stop(second.port)
    assert factory.life == ["start", "stop"]
    assert factory.numPorts == 0


# Building protocols


async def test_factory_refuses(rig: Rig) -> None:
    """
    When buildProtocol returns None the connection is closed, and the next one is served.
    """

    class Choosy(RecorderFactory):
        def buildProtocol(self, addr: Any) -> Any:
            if not self.addresses:
                self.addresses.append(addr)
                return None
            return super().buildProtocol(addr)

    served = rig.serve(Choosy(recorder(on_read=echo)))
    client = await served.connect()
    assert (await client.outcome())[0] == 0
    assert await serves(rig, served.address)


async def test_factory_fails(rig: Rig) -> None:
    """
    An exception in buildProtocol is logged, and the next connection is served.
    """

    class Faulty(RecorderFactory):
        def buildProtocol(self, addr: Any) -> Any:
            if not self.addresses:
                self.addresses.append(addr)
                raise Oops("in buildProtocol")
            return super().buildProtocol(addr)

    served = rig.serve(Faulty(recorder(on_read=echo)))
    client = await served.connect()
    assert await serves(rig, served.address)
    (failure,) = rig.flush(Oops)
    if rig.native:
        assert (await client.outcome())[0] == 0
        return
    # Twisted forgets that socket, and the logged failure keeps it in a frame: end it, or a later test finds it.
    for frame, _ in walk_tb(failure.getTracebackObject()):
        if isinstance(frame.f_locals.get("skt"), socket.socket):
            frame.f_locals["skt"].close()


async def test_protocol_that_writes_in_build(rig: Rig) -> None:
    """
    A protocol has no transport while it is built, and has one in connectionMade.
    """
    seen: list[Any] = []

    class Early(Recorder):
        def __init__(self) -> None:
            super().__init__()
            seen.append(self.transport)

        def connectionMade(self) -> None:
            seen.append(self.transport)
            super().connectionMade()

    _, server = await rig.serve(Early).pair()
    assert seen == [None, server.transport]


# Adopted sockets


def listening_socket(rig: Rig, family: str) -> socket.socket:
    kind = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6, "unix": socket.AF_UNIX}[family]
    sock = socket.socket(kind, socket.SOCK_STREAM)
    sock.bind({"tcp": ("127.0.0.1", 0), "tcp6": ("::1", 0), "unix": rig.new_path()}[family])
    sock.listen(10)
    sock.setblocking(False)
    return sock


def adopt(rig: Rig, sock: socket.socket, protocol: Any = Recorder) -> Any:
    factory = RecorderFactory(protocol)
    return rig.add(rig.listeners.adoptStreamPort(sock.fileno(), sock.family, factory), factory)


@each_family
async def test_adopt(rig: Rig, family: str) -> None:
    """
    An adopted socket is served on, with its own address, after the caller has closed its descriptor.
    """
    with listening_socket(rig, family) as sock:
        served = adopt(rig, sock, recorder(on_read=echo))
        name = sock.getsockname()
    expected = {
        "tcp": lambda: IPv4Address("TCP", *name),
        "tcp6": lambda: IPv6Address("TCP", *name[:2]),
        "unix": lambda: UNIXAddress(name),
    }[family]()
    assert served.port.getHost() == expected
    assert IListeningPort.providedBy(served.port)
    assert served.factory.life == ["start"]
    _, server = await served.pair()
    assert server.transport.getHost() == expected
    assert await serves(rig, served.address)
    address = served.address
    await rig.stop(served.port)
    assert await refused(rig, address)
    assert served.factory.life == ["start", "stop"]


@pytest.mark.parametrize("family", ["tcp", "tcp6"])
async def test_adopted_socket_is_shared(rig: Rig, family: str) -> None:
    """
    Stopping an adopted port leaves the socket listening for whoever else holds it.
    """
    with listening_socket(rig, family) as sock:
        served = adopt(rig, sock)
        await served.pair()
        await rig.stop(served.port)
        await rig.connect(sock.getsockname()[:2])
        accepted, _ = await rig.loop.sock_accept(sock)
        accepted.close()


async def test_adopt_twice(rig: Rig) -> None:
    """
    One socket adopted twice serves by both ports, and by the other one when one is stopped.
    """
    with listening_socket(rig, "tcp") as sock:
        first = adopt(rig, sock, recorder(on_read=echo))
        second = adopt(rig, sock, recorder(on_read=echo))
    address = first.address
    assert await serves(rig, address)
    await rig.stop(first.port)
    assert await serves(rig, address)
    await rig.stop(second.port)
    assert await refused(rig, address)


def test_adopt_unknown_family(rig: Rig) -> None:
    """
    An address family that is not IPv4, IPv6 or UNIX raises UnsupportedAddressFamily.
    """
    factory = RecorderFactory()
    with listening_socket(rig, "tcp") as sock, pytest.raises(UnsupportedAddressFamily):
        rig.add(rig.listeners.adoptStreamPort(sock.fileno(), socket.AF_PACKET, factory), factory)


# Descriptors run out

EXHAUSTED = """
import asyncio, json, logging, os, resource, socket, sys, time
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogPublisher

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

class Note(logging.Handler):
    def emit(self, record):
        logged.append(record.getMessage())

logged = []
logging.getLogger().addHandler(Note())
globalLogPublisher.addObserver(lambda event: logged.append(str(event.get("log_format"))))

variant = sys.argv[1]
if variant == "native-uvloop":
    import uvloop
    loop = uvloop.new_event_loop()
else:
    loop = asyncio.SelectorEventLoop()
listeners = reactor = AsyncioSelectorReactor(loop)
if variant != "twisted":
    from txasgi.net.listen import NativeListeners
    listeners = NativeListeners(reactor)
port = listeners.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
address = ("127.0.0.1", port.getHost().port)

async def turn(seconds):
    done = loop.create_future()
    loop.call_later(seconds, done.set_result, None)
    await done

async def talk(client):
    client.setblocking(False)
    try:
        await loop.sock_sendall(client, b"hello")
        return (await asyncio.wait_for(loop.sock_recv(client, 5), 5)) == b"hello"
    except (ConnectionError, TimeoutError, asyncio.TimeoutError):
        return False

async def connect():
    client = socket.create_connection(address, 5)
    return client, await talk(client)

async def main():
    open_before, echoed = await connect()
    answer = {"before": echoed}
    waiting = [socket.socket() for _ in range(3)]
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True:
            held.append(os.dup(2))
    except OSError:
        pass
    count = len(logged)
    for client in waiting:
        client.connect(address)
    end = loop.time() + 1
    while len(logged) == count and loop.time() < end:
        await turn(0.01)
    cpu, start = time.process_time(), loop.time()
    await turn(0.3)
    answer["busy"] = (time.process_time() - cpu) / (loop.time() - start)
    answer["logged"] = logged[count:]
    answer["open"] = await talk(open_before)
    for descriptor in held:
        os.close(descriptor)
    late, answer["late"] = await connect()
    later, answer["later"] = await connect()
    return answer

print(json.dumps(loop.run_until_complete(main())))
"""


@pytest.fixture(scope="module")
def exhausted() -> Iterator[Callable[[str], dict[str, Any]]]:
    """
    What a process of a variant has to tell of the time its descriptors had run out; all of them run at once.
    """
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    running = {
        variant: subprocess.Popen(
            [sys.executable, "-c", EXHAUSTED, variant],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for variant in VARIANTS
    }
    answers: dict[str, dict[str, Any]] = {}

    def answer(variant: str) -> dict[str, Any]:
        if variant not in answers:
            out, err = running[variant].communicate(timeout=20)
            assert running[variant].returncode == 0, err
            answers[variant] = json.loads(out)
        return answers[variant]

    try:
        yield answer
    finally:
        for process in running.values():
            process.kill()
            process.communicate()


def test_port_survives_exhaustion(variant: str, exhausted: Callable[[str], dict[str, Any]]) -> None:
    """
    Clients that come while no descriptor is left do not end the port: once some are free it serves again.
    """
    answer = exhausted(variant)
    assert answer["before"]
    assert answer["late"], answer
    assert answer["later"], answer


def test_connections_survive_exhaustion(variant: str, exhausted: Callable[[str], dict[str, Any]]) -> None:
    """
    A connection that was open before goes on while no descriptor is left.
    """
    assert exhausted(variant)["open"]


def test_exhaustion_is_quiet(variant: str, exhausted: Callable[[str], dict[str, Any]]) -> None:
    """
    While no descriptor is left the port neither spins nor floods the log, but says something.

    uvloop says nothing: libuv accepts such connections with a descriptor that it keeps for that, and closes them.
    """
    answer = exhausted(variant)
    assert answer["busy"] < 0.5
    assert (0 if variant == "native-uvloop" else 1) <= len(answer["logged"]) <= 10


# Endpoint strings


async def test_endpoint_tcp(rig: Rig) -> None:
    """
    A tcp: string makes a port that serves.
    """
    factory = RecorderFactory(recorder(on_read=echo))
    endpoint = serverFromString(rig.listeners, "tcp:0:interface=127.0.0.1")
    served = rig.add(await rig.wait_for(endpoint.listen(factory)), factory)
    assert await serves(rig, served.address)


async def test_endpoint_tcp_in_use(rig: Rig) -> None:
    """
    A tcp: string for a port in use fails with CannotListenError.
    """
    number = rig.serve().address[1]
    endpoint = serverFromString(rig.listeners, f"tcp:{number}:interface=127.0.0.1")
    with pytest.raises(CannotListenError):
        await rig.wait_for(endpoint.listen(RecorderFactory()))


async def test_endpoint_unix(rig: Rig) -> None:
    """
    A unix: string makes a socket file with its mode, and stopListening removes it.
    """
    factory = RecorderFactory(recorder(on_read=echo))
    path = rig.new_path()
    endpoint = serverFromString(rig.listeners, f"unix:{path}:mode=600")
    served = rig.add(await rig.wait_for(endpoint.listen(factory)), factory)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert await serves(rig, path)
    await rig.stop(served.port)
    assert not is_there(path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n", IPv4Address("TCP", "192.0.2.7", 4711)),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 80\r\n", IPv6Address("TCP", "2001:db8::7", 4711)),
    ],
    ids=["TCP4", "TCP6"],
)
async def test_endpoint_haproxy(rig: Rig, line: bytes, expected: Any) -> None:
    """
    With haproxy: the PROXY line's source is the peer, and what follows is delivered.
    """
    factory = RecorderFactory(recorder(on_read=echo))
    endpoint = serverFromString(rig.listeners, "haproxy:tcp:0:interface=127.0.0.1")
    port = await rig.wait_for(endpoint.listen(factory))
    served = rig.add(port, factory)
    client, server = await served.pair()
    await client.send(line[:10])
    await rig.polls()
    await client.send(line[10:] + b"hello")
    assert await client.receive(5) == b"hello"
    assert server.transport.getPeer() == expected
    assert server.received == b"hello"


async def test_endpoint_haproxy_without_line(rig: Rig) -> None:
    """
    With haproxy: a client without a PROXY line is closed, and its bytes are not delivered.
    """
    factory = RecorderFactory()
    endpoint = serverFromString(rig.listeners, "haproxy:tcp:0:interface=127.0.0.1")
    served = rig.add(await rig.wait_for(endpoint.listen(factory)), factory)
    client, server = await served.pair()
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert (await client.outcome())[0] == 0
    await rig.until(lambda: server.lost)
    assert server.chunks == []


# TLS


class TLSClient:
    """
    The standard library's TLS over a blocking socket; its methods run in a thread.
    """

    def __init__(self, rig: Rig, certificate: bytes, address: Any) -> None:
        self._in_thread = rig.in_thread
        self.context = ssl.create_default_context(cadata=certificate[certificate.index(b"-----BEGIN CERT") :].decode())
        self.address = address
        self.sock: Any = None

    async def __aenter__(self) -> Self:
        def connect() -> Any:
            raw = socket.create_connection(self.address, 5)
            try:
                return self.context.wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
            except BaseException:
                raw.close()
                raise

        self.sock = await self._in_thread(connect)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    async def send(self, payload: bytes) -> None:
        await self._in_thread(self.sock.sendall, payload)

    async def receive(self, size: int) -> bytes:
        def read() -> bytes:
            whole = b""
            while len(whole) < size and (piece := self.sock.recv(size - len(whole))):
                whole += piece
            return whole

        return await self._in_thread(read)

    async def rest(self) -> bytes:
        """
        All up to the peer's close_notify, which is answered; without one it raises.
        """

        def read() -> bytes:
            pieces = []
            while piece := self.sock.recv(64 * KIB):
                pieces.append(piece)
            self.sock = self.sock.unwrap()
            return b"".join(pieces)

        return await self._in_thread(read)


def context_factory(certificate: bytes) -> Any:
    return PrivateCertificate.loadPEM(certificate).options()


def serve_tls(rig: Rig, certificate: bytes, protocol: Any = Recorder) -> Any:
    factory = RecorderFactory(protocol) if isinstance(protocol, type) else protocol
    port = rig.listeners.listenSSL(0, factory, context_factory(certificate), interface="127.0.0.1")
    return rig.add(port, factory)


async def test_tls_echo(rig: Rig, certificate: bytes) -> None:
    """
    Over listenSSL bytes go both ways, and the transport knows both addresses and that it is TLS.
    """
    served = serve_tls(rig, certificate, recorder(on_read=echo))
    assert served.port.getHost() == IPv4Address("TCP", *served.address)
    async with TLSClient(rig, certificate, served.address) as client:
        await client.send(b"hello")
        assert await client.receive(5) == b"hello"
        server = await served.accepted()
        assert server.transport.getPeer() == IPv4Address("TCP", *client.sock.getsockname())
        assert server.transport.getHost() == IPv4Address("TCP", *served.address)
        assert ISSLTransport.providedBy(server.transport)
        assert server.transport.getPeerCertificate() is None


async def test_tls_large_read(rig: Rig, certificate: bytes) -> None:
    """
    Over listenSSL a large upload arrives whole.
    """
    served = serve_tls(rig, certificate)
    async with TLSClient(rig, certificate, served.address) as client:
        await client.send(LARGE)
        server = await served.accepted()
        await rig.until(lambda: server.received == LARGE)


async def test_tls_lose_flushes(rig: Rig, certificate: bytes) -> None:
    """
    Over listenSSL loseConnection first sends all that was written, then close_notify.
    """

    def answer(server: Recorder) -> None:
        for at in range(0, len(LARGE), 100 * KIB):
            server.write(LARGE[at : at + 100 * KIB])
        server.lose()

    served = serve_tls(rig, certificate, recorder(on_read=answer))
    async with TLSClient(rig, certificate, served.address) as client:
        await client.send(b"go")
        assert await client.rest() == LARGE
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_tls_abort(rig: Rig, certificate: bytes) -> None:
    """
    Over listenSSL abortConnection ends the connection, and the client sees no clean end.
    """
    served = serve_tls(rig, certificate, recorder(on_read=lambda server: server.abort()))
    async with TLSClient(rig, certificate, served.address) as client:
        await client.send(b"go")
        if rig.native:
            # Twisted's TLS writes its close_notify before it aborts; a transport that writes at once sends it.
            with contextlib.suppress(ssl.SSLError, ConnectionResetError):
                assert await client.receive(1) == b""
        else:
            with pytest.raises((ssl.SSLError, ConnectionResetError)):
                await client.receive(1)
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    # Twisted's TLS says ConnectionLost, where its TCP says ConnectionAborted.
    assert server.reasons[0].check(ConnectionAborted, ConnectionLost)


async def test_tls_without_tls(rig: Rig, certificate: bytes) -> None:
    """
    A client that speaks no TLS is closed, hears none of the application's bytes, and the port goes on.
    """
    served = serve_tls(rig, certificate, recorder(on_made=lambda server: server.write(b"secret"), on_read=echo))
    client = await served.connect()
    await client.send(b"GET / HTTP/1.1\r\n\r\n")
    server = await served.accepted()
    await rig.until(lambda: server.lost)
    assert server.chunks == []
    async with TLSClient(rig, certificate, served.address) as secure:
        assert await secure.receive(6) == b"secret"


async def test_tls_negotiates_a_protocol(rig: Rig, certificate: bytes) -> None:
    """
    Over listenSSL a factory that offers protocols agrees with the client on one by ALPN.
    """

    @implementer(IProtocolNegotiationFactory)
    class Offering(RecorderFactory):
        def acceptableProtocols(self) -> list[bytes]:
            return [b"h2", b"http/1.1"]

    served = serve_tls(rig, certificate, Offering(recorder(on_read=echo)))
    client = TLSClient(rig, certificate, served.address)
    client.context.set_alpn_protocols(["other", "http/1.1"])
    async with client:
        await client.send(b"hello")
        assert await client.receive(5) == b"hello"
        assert client.sock.selected_alpn_protocol() == "http/1.1"
        server = await served.accepted()
        assert server.transport.negotiatedProtocol == b"http/1.1"


@pytest.mark.parametrize("variant", ["twisted"], indirect=True)
async def test_start_tls(rig: Rig, certificate: bytes) -> None:
    """
    startTLS turns an accepted TCP connection into a TLS one.
    """

    def upgrade(server: Recorder) -> None:
        if server.chunks == [b"STARTTLS\n"]:
            server.write(b"go ahead\n")
            server.transport.startTLS(context_factory(certificate))
        else:
            echo(server)

    served = rig.serve(recorder(on_read=upgrade))
    context = TLSClient(rig, certificate, served.address).context

    def talk() -> tuple[bytes, bytes]:
        with socket.create_connection(served.address, 5) as raw:
            raw.sendall(b"STARTTLS\n")
            plain = raw.recv(9)
            with context.wrap_socket(raw, server_hostname="127.0.0.1") as secure:
                secure.sendall(b"hello")
                return plain, secure.recv(5)

    assert await rig.in_thread(talk) == (b"go ahead\n", b"hello")


# twisted.web and twisted.protocols.policies


class Page(Resource):
    """
    Answers GET with a large body, in one write, and POST with the digest of the body.
    """

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return LARGE

    def render_POST(self, request: Any) -> bytes:
        return hashlib.sha256(request.content.read()).hexdigest().encode()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_web_site(rig: Rig, certificate: bytes, scheme: str) -> None:
    """
    twisted.web serves large bodies both ways on one connection, plain and over TLS.
    """
    site = Site(Page(), reactor=rig.listeners)
    served = rig.serve(site) if scheme == "http" else serve_tls(rig, certificate, site)

    def fetch() -> tuple[bytes, bytes, bytes]:
        timeout = {"timeout": 5}
        if scheme == "http":
            connection = http.client.HTTPConnection(*served.address, **timeout)
        else:
            context = TLSClient(rig, certificate, served.address).context
            connection = http.client.HTTPSConnection(*served.address, context=context, **timeout)
        answers = []
        for method, body in (("GET", None), ("POST", LARGE), ("GET", None)):
            connection.request(method, "/", body)
            response = connection.getresponse()
            assert response.status == 200
            answers.append(response.read())
        connection.close()
        return tuple(answers)

    expected = hashlib.sha256(LARGE).hexdigest().encode()
    assert await rig.in_thread(fetch) == (LARGE, expected, LARGE)


async def test_web_site_closes(rig: Rig) -> None:
    """
    twisted.web ends a connection that asked for it after the whole large body.
    """
    site = Site(Page(), reactor=rig.listeners)
    client = await rig.serve(site).connect()
    await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.partition(b"\r\n\r\n")[2] == LARGE


async def test_web_site_pipelines(rig: Rig) -> None:
    """
    twisted.web answers pipelined requests in order while the client reads nothing until all are sent.
    """
    site = Site(Page(), reactor=rig.listeners)
    client = await rig.serve(site).connect()
    await client.send(
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 4 + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    )
    assert (await client.rest()).count(LARGE) == 5


async def test_idle_timeout(rig: Rig) -> None:
    """
    A LineReceiver with TimeoutMixin answers lines, and loses the connection when none comes any more.
    """

    class Impatient(LineReceiver, TimeoutMixin, Recorder):
        callLater = staticmethod(rig.listeners.callLater)

        def connectionMade(self) -> None:
            self.setTimeout(0.1)
            super().connectionMade()

        def lineReceived(self, line: bytes) -> None:
            self.resetTimeout()
            self.sendLine(line.upper())

    client, server = await rig.serve(Impatient).pair()
    await client.send(b"one\r\ntw")
    assert await client.receive(5) == b"ONE\r\n"
    await client.send(b"o\r\n")
    assert await client.rest() == b"TWO\r\n"
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)


async def test_wrapping_factory(rig: Rig) -> None:
    """
    A WrappingFactory's protocols stand between the transport and the protocol, and are forgotten at the end.
    """
    inner = RecorderFactory(recorder(on_read=echo))
    wrapping = WrappingFactory(inner)
    address = rig.serve(wrapping).address
    client = await rig.connect(address)
    await client.send(b"hello")
    assert await client.receive(5) == b"hello"
    (server,) = inner.built
    assert len(wrapping.protocols) == 1
    assert server.transport.getPeer() == IPv4Address("TCP", *client.name)
    client.close()
    await rig.until(lambda: server.lost)
    assert server.reasons[0].check(ConnectionDone)
    await rig.until(lambda: not wrapping.protocols)
