"""
A loop, a reactor and listeners in one of the variants, and the peers the contract tests talk through.

Rules.

* Every wait names a condition and has a deadline: `until`. Where nothing may happen, `polls` makes the loop
  look at its descriptors several times over, so that what could be delivered has been.
* The served side is a `Recorder`. Its own calls into the transport are marked, so that a callback which
  arrives from within one of them is known as re-entrant.
* `close` ends all that a test has opened and then asks: did each connection hear `connectionLost` once, is
  any task, socket or logged error left over.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import socket
import struct
import sys
import termios
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

KIB = 1024
MIB = 1024 * KIB

TWISTED = "twisted"
NATIVE = ("native-asyncio", "native-uvloop")
VARIANTS = (TWISTED, *NATIVE)

# Over TLS, see tls_rig: Twisted's own is the oracle again.
TWISTED_TLS = "twisted-tls"
TLS_NATIVE = ("tls-asyncio", "tls-uvloop")
OUR_TLS = ("tls-over-twisted", *TLS_NATIVE)
TLS_VARIANTS = (TWISTED_TLS, *OUR_TLS)


class Oops(Exception):
    """
    Raised on purpose by an application under test.
    """


class Recorder(Protocol):
    """
    The served side of one connection: keeps all that it was told, in order.

    on_made, on_read, on_lost: called with the recorder, where an application would act.
    reentered: (call, callback) for each callback that came from within one of our own calls.
    """

    on_made: ClassVar[Callable[[Recorder], None] | None] = None
    on_read: ClassVar[Callable[[Recorder], None] | None] = None
    on_lost: ClassVar[Callable[[Recorder], None] | None] = None

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.events: list[str] = []
        self.reasons: list[Failure] = []
        self.reentered: list[tuple[str, str]] = []
        self.replaced = False
        self._calls: list[str] = []

    @property
    def received(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def made(self) -> bool:
        return "made" in self.events

    @property
    def lost(self) -> bool:
        return bool(self.reasons)

    @property
    def open(self) -> bool:
        return self.made and not self.reasons and not self.replaced

    @contextmanager
    def calling(self, name: str) -> Iterator[None]:
        """
        Mark the calls in this block: no callback may come from within them.
        """
        self._calls.append(name)
        try:
            yield
        finally:
            self._calls.pop()

    def note(self, event: str) -> None:
        self.events.append(event)
        if self._calls:
            self.reentered.append((self._calls[-1], event))

    def write(self, payload: bytes) -> None:
        with self.calling("write"):
            self.transport.write(payload)

    def lose(self) -> None:
        with self.calling("loseConnection"):
            self.transport.loseConnection()

    def abort(self) -> None:
        with self.calling("abortConnection"):
            self.transport.abortConnection()

    def pause(self) -> None:
        with self.calling("pauseProducing"):
            self.transport.pauseProducing()

    def resume(self) -> None:
        with self.calling("resumeProducing"):
            self.transport.resumeProducing()

    def connectionMade(self) -> None:
        self.note("made")
        if self.on_made is not None:
            type(self).on_made(self)

    def dataReceived(self, data: bytes) -> None:
        assert type(data) is bytes
        self.note("read")
        self.chunks.append(data)
        if self.on_read is not None:
            type(self).on_read(self)

    def connectionLost(self, reason: Failure) -> None:
        self.note("lost")
        self.reasons.append(reason)
        if self.on_lost is not None:
            type(self).on_lost(self)


@implementer(IHalfCloseableProtocol)
class HalfCloseRecorder(Recorder):
    """
    A recorder that is told of each direction's end by itself.
    """

    def readConnectionLost(self) -> None:
        self.note("read lost")

    def writeConnectionLost(self) -> None:
        self.note("write lost")


def recorder(on_made: Any = None, on_read: Any = None, on_lost: Any = None, kind: type = Recorder) -> type:
    """
    A recorder class whose application is made of these functions, each given the recorder.
    """
    return type(kind.__name__, (kind,), {"on_made": on_made, "on_read": on_read, "on_lost": on_lost})


def echo(server: Recorder) -> None:
    """
    An application that sends each read back; for on_read.
    """
    server.write(server.chunks[-1])


class RecorderFactory(Factory):
    """
    Builds recorders, and notes the addresses it was given and the starts and stops.
    """

    def __init__(self, protocol: type = Recorder) -> None:
        self.protocol = protocol
        self.built: list[Any] = []
        self.addresses: list[Any] = []
        self.life: list[str] = []

    def startFactory(self) -> None:
        self.life.append("start")

    def stopFactory(self) -> None:
        self.life.append("stop")

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        protocol = self.protocol()
        protocol.factory = self
        self.built.append(protocol)
        return protocol


@implementer(IPushProducer)
class PushProducer:
    """
    A push producer that only keeps what it was told.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.on_resume: Callable[[], None] | None = None

    @property
    def paused(self) -> bool:
        told = [call for call in self.calls if call != "stop"]
        return told[-1:] == ["pause"]

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        if self.on_resume is not None:
            self.on_resume()

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IPullProducer)
class PullProducer:
    """
    A pull producer that writes one piece each time it is asked, then unregisters.

    deepest: how many of its own resumeProducing were ever on the stack at once.
    """

    def __init__(self, transport: Any, pieces: list[bytes], on_end: Callable[[], None] | None = None) -> None:
        self.transport = transport
        self.pieces = pieces
        self.on_end = on_end
        self.asked = 0
        self.stopped = 0
        self.deepest = 0
        self._depth = 0

    def resumeProducing(self) -> None:
        self._depth += 1
        self.asked += 1
        self.deepest = max(self.deepest, self._depth)
        if self.pieces:
            self.transport.write(self.pieces.pop(0))
        else:
            self.transport.unregisterProducer()
            if self.on_end is not None:
                self.on_end()
        self._depth -= 1

    def stopProducing(self) -> None:
        self.stopped += 1


def new_loop(variant: str) -> asyncio.AbstractEventLoop:
    if variant.endswith("-uvloop"):
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


def open_sockets() -> int:
    """
    How many sockets this process holds while the loop runs.
    """
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return count


def queued_bytes(descriptor: int, request: int) -> int:
    return struct.unpack("i", fcntl.ioctl(descriptor, request, b"\0" * 4))[0]


class Client:
    """
    A plain socket, driven from the test's loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop = loop
        self.sock = sock
        self.read_bytes = 0

    @property
    def name(self) -> Any:
        return self.sock.getsockname()

    @property
    def unread_bytes(self) -> int:
        """
        What the kernel holds for us.
        """
        return queued_bytes(self.sock.fileno(), termios.FIONREAD)

    async def ready(self) -> None:
        """
        Wait until both sides can speak.
        """

    async def send(self, payload: bytes) -> None:
        await self.loop.sock_sendall(self.sock, payload)

    async def receive(self, size: int) -> bytes:
        """
        Exactly *size* bytes, or fewer when the peer has ended before.
        """
        whole = bytearray()
        while len(whole) < size:
            piece = await self.loop.sock_recv(self.sock, min(size - len(whole), 256 * KIB))
            if not piece:
                break
            whole += piece
        return bytes(whole)

    async def rest(self) -> bytes:
        """
        All bytes up to the end of the stream; raises ConnectionResetError when there is no clean end.

        Over TLS the end is answered; until_end is the same without the answer.
        """
        return await self.until_end()

    async def until_end(self) -> bytes:
        whole = bytearray()
        while piece := await self.loop.sock_recv(self.sock, 256 * KIB):
            whole += piece
        return bytes(whole)

    async def outcome(self) -> tuple[int, str]:
        """
        How many bytes still came, and whether it was the "end" or a "reset" that followed.
        """
        size = 0
        try:
            while piece := await self.loop.sock_recv(self.sock, 256 * KIB):
                size += len(piece)
        except (ConnectionResetError, BrokenPipeError):
            return size, "reset"
        return size, "end"

    def take(self) -> None:
        """
        Read what is there, at once, and count it.
        """
        try:
            while piece := self.sock.recv(256 * KIB):
                self.read_bytes += len(piece)
        except BlockingIOError:
            pass

    def finish(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Served:
    """
    A listening port and the factory below it.
    """

    def __init__(self, rig: Rig, port: Any, factory: Any) -> None:
        self.rig = rig
        self.port = port
        self.factory = factory

    @property
    def address(self) -> Any:
        """
        Where a socket connects to.
        """
        host = self.port.getHost()
        if hasattr(host, "name"):
            return host.name
        return (host.host, host.port)

    async def connect(self, **options: Any) -> Client:
        return await self.rig.connect(self.address, **options)

    async def accepted(self, number: int = 0) -> Any:
        """
        The protocol of connection *number*, once it is made.
        """
        built = self.factory.built
        await self.rig.until(lambda: len(built) > number and built[number].made)
        return built[number]

    async def pair(self, **options: Any) -> tuple[Client, Any]:
        """
        One more connection: the client and the protocol that serves it.
        """
        number = len(self.factory.built)
        client = await self.connect(**options)
        server = await self.accepted(number)
        await client.ready()
        return client, server


class Rig:
    """
    The thing under test: `listeners`, over a reactor and a loop of its own.

    ours: whether the transports are txasgi's. native: whether the listeners are. tls: whether the ports speak TLS.
    """

    tls = False

    def __init__(self, variant: str, paths: Callable[[], str]) -> None:
        self.variant = variant
        self.native = variant in (*NATIVE, *TLS_NATIVE)
        self.ours = self.native or variant in OUR_TLS
        self.new_path = paths
        self.failures: list[Failure] = []
        self.loop_complaints: list[dict[str, Any]] = []
        self._ports: list[Any] = []
        self._clients: list[Client] = []
        self._factories: list[Any] = []
        self._reactor_before = "twisted.internet.reactor" in sys.modules
        self.loop = new_loop(variant)
        self.loop.set_exception_handler(lambda _, context: self._complained(context))
        self.reactor = AsyncioSelectorReactor(self.loop)
        self._sockets_before = self.run(self._count_sockets())
        globalLogPublisher.addObserver(self._observe)
        try:
            self.listeners = self.wrap()
        except BaseException:
            self.close()
            raise

    def wrap(self, **options: Any) -> Any:
        """
        The object whose listenTCP and others are under test; options only where it is native.
        """
        if not self.native:
            return self.reactor
        from txasgi.net.listen import NativeListeners

        return NativeListeners(self.reactor, **options)

    def _observe(self, event: dict[str, Any]) -> None:
        # Events of the old twisted.python.log carry theirs as "failure".
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            self.failures.append(failure)

    def flush(self, kind: type[BaseException]) -> list[Failure]:
        """
        The logged failures of this kind, which the test has expected; they are no fault then.
        """
        found = [failure for failure in self.failures if failure.check(kind)]
        self.failures = [failure for failure in self.failures if not failure.check(kind)]
        return found

    # Time

    def run(self, coroutine: Awaitable[Any], deadline_s: float = 10) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, deadline_s))

    async def until(self, condition: Callable[[], Any], deadline_s: float = 3, what: str = "this") -> None:
        """
        Wait for the condition; fail after the deadline.
        """
        end = self.loop.time() + deadline_s
        while not condition():
            assert self.loop.time() < end, f"waited {deadline_s} s in vain for {what}"
            await asyncio.sleep(0.001)

    async def polls(self, count: int = 10) -> None:
        """
        Make the loop look at its descriptors *count* times.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.setblocking(False)
            for _ in range(count):
                # Sent only once we wait for it, or the read would be done without asking the loop.
                self.loop.call_soon(ours.send, b".")
                await self.loop.sock_recv(theirs, 1)

    async def wait_for(self, deferred: Any) -> Any:
        return await maybeDeferred(lambda: deferred).asFuture(self.loop)

    async def in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self.loop.run_in_executor(None, function, *args)

    # Listening and connecting

    def add(self, port: Any, factory: Any) -> Served:
        """
        Take a port that the test has made into our care.
        """
        self._ports.append(port)
        if factory not in self._factories:
            self._factories.append(factory)
        return Served(self, port, factory)

    def serve(self, protocol: Any = Recorder, interface: str = "127.0.0.1", number: int = 0) -> Served:
        """
        Listen on TCP. protocol: a protocol class, or a factory.
        """
        factory = RecorderFactory(protocol) if isinstance(protocol, type) else protocol
        return self.add(self.listen_tcp(number, factory, interface), factory)

    def listen_tcp(self, number: int, factory: Any, interface: str) -> Any:
        return self.listeners.listenTCP(number, factory, interface=interface)

    def listen_unix(self, path: str, factory: Any, **options: Any) -> Any:
        return self.listeners.listenUNIX(path, factory, **options)

    def new_client(self, sock: socket.socket) -> Client:
        return Client(self.loop, sock)

    def serve_unix(self, protocol: Any = Recorder, path: Any = None, **options: Any) -> Served:
        factory = RecorderFactory(protocol) if isinstance(protocol, type) else protocol
        return self.add(self.listen_unix(path or self.new_path(), factory, **options), factory)

    def serve_family(self, family: str, protocol: Any = Recorder) -> Served:
        if family == "unix":
            return self.serve_unix(protocol)
        return self.serve(protocol, {"tcp": "127.0.0.1", "tcp6": "::1"}[family])

    async def connect(self, address: Any, receive_buffer_bytes: int = 0, bind: Any = None, **options: Any) -> Any:
        """
        options: for new_client.
        """
        if not isinstance(address, tuple):
            family = socket.AF_UNIX
        else:
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        client = self.new_client(sock, **options)
        self._clients.append(client)
        sock.setblocking(False)
        if receive_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        if bind is not None:
            sock.bind(bind)
        await self.loop.sock_connect(sock, address)
        return client

    async def stop(self, port: Any) -> None:
        await self.wait_for(port.stopListening())

    # What the kernel holds

    def unread_bytes(self, server: Recorder) -> int:
        """
        What has come for the served side and was not read by it.
        """
        return queued_bytes(server.transport.fileno(), termios.FIONREAD)

    def unsent_bytes(self, server: Recorder) -> int:
        """
        What the kernel has taken from the served side and the peer has not acknowledged.
        """
        return queued_bytes(server.transport.fileno(), termios.TIOCOUTQ)

    def wire_bytes(self, size: int) -> int:
        """
        As how many bytes a payload of *size* passes the kernel, at least.
        """
        return size

    async def arrived(self, client: Client, server: Recorder, size: int) -> None:
        """
        Wait until what the client has sent, *size* bytes, is there for the served side, which does not read.
        """
        await self.until(lambda: self.unread_bytes(server) == size)

    # The end

    async def _end_all(self) -> None:
        for client in self._clients:
            client.close()
        for port in self._ports:
            await self.stop(port)
        for one in self._recorders:
            if one.open:
                one.transport.abortConnection()
        await self.until(lambda: not any(one.open for one in self._recorders), what="that all connections end")

    async def _count_sockets(self) -> int:
        return open_sockets()

    async def _see_nothing_left(self) -> None:
        await self.until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, what="that no task is left")
        await self.until(lambda: open_sockets() <= self._sockets_before, what="that all sockets are closed")

    @property
    def _recorders(self) -> list[Recorder]:
        built = [one for factory in self._factories for one in getattr(factory, "built", ())]
        return [one for one in built if isinstance(one, Recorder)]

    def _complained(self, context: dict[str, Any]) -> None:
        """
        A fault in dataReceived is logged by the loop itself below native transports.
        """
        error = context.get("exception")
        if self.native and isinstance(error, Oops):
            self.failures.append(Failure(error))
        else:
            self.loop_complaints.append(context)

    def close(self) -> None:
        """
        End everything, then check what must hold after every test.
        """
        try:
            self.run(self._end_all())
            self.loop.run_until_complete(self._see_nothing_left())
        finally:
            for call in self.reactor.getDelayedCalls():
                call.cancel()
            for selectable in self.reactor.removeAll():
                selectable.connectionLost(Failure(ConnectionLost()))
            self.reactor.removeReader(self.reactor.waker)
            self.reactor.waker.connectionLost(Failure(ConnectionLost()))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            # Recorded, not raised: uvloop never comes back from a warning that is an error here.
            with warnings.catch_warnings(record=True) as unclosed:
                warnings.simplefilter("always", ResourceWarning)
                self.loop.close()
            globalLogPublisher.removeObserver(self._observe)
            if not self.native:
                # What Twisted leaves to the garbage collector is not to be found during the next test.
                gc.collect(1)
        for one in self._recorders:
            if one.made and not one.replaced:
                assert len(one.reasons) == 1, f"not one end: {one.events}"
                assert one.events[-1] == "lost", f"told after the end: {one.events}"
            assert not one.reentered, f"from within our call: {one.reentered}"
        assert not unclosed, f"unclosed: {[str(warning.message) for warning in unclosed]}"
        assert not self.failures, f"logged: {self.failures}"
        assert not self.loop_complaints, f"left to the loop to log: {self.loop_complaints}"
        installed = "twisted.internet.reactor" in sys.modules
        assert installed == self._reactor_before, "a reactor was installed"
