"""
Listening natively: a reactor's listenTCP, listenUNIX, listenSSL and adoptStreamPort on the event loop's own servers.

Endpoints touch nothing but the reactor they were parsed with. So `NativeListeners(reactor)`, which forwards everything
to the real reactor but makes these four itself, turns every endpoint native, those of other packages included, without
replacing the reactor that is installed.

The socket is made, bound and listened on synchronously, as Twisted's contract demands (a taken port raises at once, the
address is known at once); the loop's server that accepts from it comes to life with the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError, UnsupportedAddressFamily
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IReactorSocket,
    IReactorTCP,
    IReactorUNIX,
)
from twisted.logger import Logger
from zope.interface import directlyProvides, implementer, providedBy

from txasgi.net.native import NativeTransport, twisted_address

_log = Logger()

# nginx 511, asyncio 100, Uvicorn and Gunicorn 2048. The kernel caps it at net.core.somaxconn (4096 on Linux), and
# Twisted's 50 drops connections under load.
BACKLOG = 2048
TWISTED_BACKLOG = 50


class SocketTable:
    """
    Every listening socket of the process, by where it listens.

    A process can hand them to another as inherited file descriptors, and that one listens where the first did, whatever
    endpoint strings the sockets came from: a socket that is in the table under the same key is taken, not bound again.
    """

    def __init__(self) -> None:
        self._sockets: dict[str, socket.socket] = {}

    def take(self, key: str) -> socket.socket | None:
        """
        A duplicate of the inherited socket for this key, or None.
        """
        sock = self._sockets.get(key)
        return sock.dup() if sock is not None else None

    def keep(self, key: str, sock: socket.socket) -> None:
        """
        Remember a socket that listens; the table holds a duplicate of its own.
        """
        if key not in self._sockets:
            self._sockets[key] = sock.dup()

    def drop(self, key: str) -> None:
        """
        Nobody listens there any more.
        """
        sock = self._sockets.pop(key, None)
        if sock is not None:
            sock.close()

    def export(self) -> dict[str, int]:
        """
        The descriptors, made inheritable, by key: what to give to a new process.
        """
        for sock in self._sockets.values():
            sock.set_inheritable(True)
        return {key: sock.fileno() for key, sock in self._sockets.items()}

    def adopt(self, descriptors: dict[str, int]) -> None:
        """
        Take over what another process exported.
        """
        for key, descriptor in descriptors.items():
            sock = socket.socket(fileno=descriptor)
            sock.set_inheritable(False)
            self._sockets[key] = sock

    def close(self) -> None:
        """
        Close all of them.
        """
        for key in list(self._sockets):
            self.drop(key)


@implementer(IListeningPort)
class NativePort:
    """
    A listening port on the loop's own server.

    bind: makes the listening socket; raises CannotListenError. Called at each startListening.
    """

    connected = False
    disconnecting = False
    socket: Any = None

    def __init__(
        self,
        bind: Callable[[], Any],
        factory: Any,
        loop: asyncio.AbstractEventLoop,
        backlog: int = BACKLOG,
        released: Callable[[], object] | None = None,
    ) -> None:
        self.factory = factory
        self.backlog = backlog
        self._bind = bind
        self._loop = loop
        self._released = released
        self._server: asyncio.AbstractServer | None = None
        self._starting: asyncio.Task[Any] | None = None

    def startListening(self) -> None:
        """
        Bind, listen and accept. Raises CannotListenError.
        """
        sock = self._bind()
        sock.setblocking(False)
        self.socket = sock
        self._host = twisted_address(sock.family, sock.getsockname())
        self.factory.doStart()
        self.connected = True
        self._starting = self._loop.create_task(self._serve(sock))

    async def _serve(self, sock: Any) -> None:
        # The loop's server closes the socket that it is given, and uvloop not at once: it gets a duplicate.
        server_socket = sock.dup()
        backlog = self.backlog
        if isinstance(self._loop, asyncio.BaseEventLoop):
            # asyncio accepts up to `backlog` connections in a row; when descriptors run out it complains as often.
            backlog = 1
        try:
            if sock.family == socket.AF_UNIX:
                # From 3.13 on asyncio and uvloop would remove the file: ours to do, or nobody's if it was inherited.
                options: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
                self._server = await self._loop.create_unix_server(
                    self._made, sock=server_socket, backlog=backlog, **options
                )
            else:
                self._server = await self._loop.create_server(self._made, sock=server_socket, backlog=backlog)
            # The loop has called listen() with its own idea.
            sock.listen(self.backlog)
        except BaseException:
            server_socket.close()
            raise
        finally:
            self._starting = None

    def _made(self) -> NativeTransport:
        return NativeTransport(self)

    def accepted(self, peer: IAddress) -> IProtocol | None:
        """
        The factory's protocol for a peer.
        """
        if not self.connected:
            return None
        protocol: IProtocol | None = self.factory.buildProtocol(peer)
        return protocol

    def stopListening(self) -> Deferred[None]:
        """
        Accept no more. The Deferred fires when the address is free again; open connections go on.
        """
        if not self.connected:
            return succeed(None)
        self.connected = False
        if self._starting is not None:
            self._starting.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        if self._released is not None:
            self._released()
        self.factory.doStop()
        done: Deferred[None] = Deferred()
        # uvloop closes a handle in the next turn of the loop.
        self._loop.call_soon(self._loop.call_soon, done.callback, None)
        return done

    def loseConnection(self, connDone: object = None) -> Deferred[None]:
        """
        The old name of stopListening.
        """
        return self.stopListening()

    def getHost(self) -> IAddress:
        """
        Where this listens.
        """
        return self._host

    def getHandle(self) -> Any:
        """
        The listening socket.
        """
        return self.socket

    def fileno(self) -> int:
        """
        Its descriptor; -1 when closed.
        """
        return self.socket.fileno() if self.socket is not None else -1

    @property
    def port(self) -> int:
        """
        The port number; an attribute of Twisted's ports.
        """
        return int(getattr(self._host, "port", 0))

    _realPortNumber = port

    @property
    def interface(self) -> str:
        """
        The address it was bound to; likewise.
        """
        return str(getattr(self._host, "host", ""))

    @property
    def _type(self) -> str:
        return str(getattr(self._host, "type", "UNIX"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {type(self.factory).__name__} on {getattr(self, '_host', None)}>"


@implementer(IReactorTCP, IReactorUNIX, IReactorSocket)
class NativeListeners:
    """
    The reactor that endpoints are parsed with: the real one but for listening.

    reactor: an AsyncioSelectorReactor.
    loop: the event loop below it; found out when not given.
    backlog: used where Twisted's default of 50 is asked for, which is what endpoints do unless told.
    reuse_port: set SO_REUSEPORT on TCP sockets, so that several processes may listen on the same port.
    tls_extension: describe TLS connections to ASGI applications, also where no client certificates are asked for.
    table: where listening sockets come from and are kept.

    tls_contexts: the context factories of the endpoints that were parsed with this, for whoever reloads certificates.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        backlog: int = BACKLOG,
        reuse_port: bool = False,
        tls_extension: bool = False,
        table: SocketTable | None = None,
    ) -> None:
        self._reactor = reactor
        # The reactor keeps its loop to itself; nothing public tells it.
        self.loop = loop if loop is not None else reactor._asyncioEventloop
        # Whatever else the reactor is, this is too.
        directlyProvides(self, providedBy(reactor))
        self.backlog = backlog
        self.reuse_port = reuse_port
        self.tls_extension = tls_extension
        self.tls_contexts: list[Any] = []
        self.table = table if table is not None else SocketTable()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def _listen(
        self,
        key: str,
        bind: Callable[[], socket.socket],
        factory: Any,
        backlog: int,
        released: Callable[[], object] | None = None,
    ) -> NativePort:
        if backlog == TWISTED_BACKLOG:
            backlog = self.backlog

        def bound() -> socket.socket:
            sock = self.table.take(key)
            if sock is None:
                sock = bind()
                sock.listen(backlog)
            return sock

        port = NativePort(bound, factory, self.loop, backlog, released)
        port.startListening()
        return port

    def listenTCP(
        self,
        port: int,
        factory: Any,
        backlog: int = TWISTED_BACKLOG,
        interface: str = "",
        *,
        reuse_port: bool = False,
    ) -> NativePort:
        """
        Listen on a TCP port; *interface* may be an IPv6 address. Raises CannotListenError.
        """
        family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        reuse = reuse_port or self.reuse_port

        def bind() -> socket.socket:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if reuse:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.bind((interface, port))
            except (OSError, OverflowError) as error:
                sock.close()
                raise CannotListenError(interface, port, error) from error
            return sock

        return self._listen(f"tcp:{interface}:{port}", bind, factory, backlog)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = TWISTED_BACKLOG,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> NativePort:
        """
        Listen on a UNIX socket. A socket file that nobody listens on any more is replaced. Raises CannotListenError.

        wantPID is Twisted's lock file, which asks the same question; the answer here comes from the socket itself.
        """

        bound_as = None

        def bind() -> socket.socket:
            nonlocal bound_as
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # The file has its mode from the first moment on: a chmod afterwards would leave a gap.
            umask = os.umask(0o777 & ~mode)
            try:
                _remove_stale(address)
                sock.bind(address)
            except OSError as error:
                sock.close()
                raise CannotListenError(None, address, error) from error
            finally:
                os.umask(umask)
            bound_as = _identity(address)
            return sock

        def remove() -> None:
            # Another process may have taken the place meanwhile.
            if bound_as is not None and _identity(address) == bound_as:
                os.unlink(address)

        return self._listen(f"unix:{os.path.abspath(address)}", bind, factory, backlog, remove)

    def listenSSL(
        self,
        port: int,
        factory: Any,
        contextFactory: Any,
        backlog: int = TWISTED_BACKLOG,
        interface: str = "",
        *,
        reuse_port: bool = False,
    ) -> NativePort:
        """
        Listen on a TCP port and speak TLS there, with the contexts of any context factory that Twisted knows.
        """
        from txasgi.net.tls import TLSFactory

        tls = TLSFactory(contextFactory, factory, self._reactor, extension=self.tls_extension)
        return self.listenTCP(port, tls, backlog, interface, reuse_port=reuse_port)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> NativePort:
        """
        Listen on a socket that was bound and listens already. The caller keeps its descriptor.
        """

        if addressFamily not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise UnsupportedAddressFamily(addressFamily)

        def bind() -> socket.socket:
            duplicate = os.dup(fileDescriptor)
            try:
                return socket.socket(fileno=duplicate)
            except OSError:
                os.close(duplicate)
                raise

        port = NativePort(bind, factory, self.loop)
        port.startListening()
        return port


def _identity(path: str) -> tuple[int, int] | None:
    """
    Which file this is; None for none, and for an abstract socket (a name that begins with NUL), which has no file.
    """
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _remove_stale(path: str) -> None:
    """
    Remove the socket file of a server that is gone. A file of another kind, or a socket that answers, stays:
    bind() says that the address is in use.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except (OSError, ValueError):
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(probe):
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                os.unlink(path)
