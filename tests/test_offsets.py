"""
A client that is killed at any byte leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.net.conftest import certificate
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.logger import LogLevel, globalLogPublisher

from txasgi.asgi.gate import Gate
from txasgi.deadlines import Deadlines
from txasgi.net.certificates import Pairs
from txasgi.net.contexts import ServerContexts, TLSSettings
from txasgi.net.listen import NativeListeners
from txasgi.net.reactor import new_loop
from txasgi.wire.front import Front
from txasgi.wire.h1_input import H1Options
from txasgi.ws import engine

__all__ = ["certificate"]

REQUESTS = {
    "get": b"GET /path?query HTTP/1.1\r\nHost: a\r\n\r\n",
    "closing": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "chunked": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\nX: y\r\n\r\n"
    ),
    "pipelined": b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "websocket": (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        b"\x81\x85\0\0\0\0hello\x01\x82\0\0\0\0ab\x80\x81\0\0\0\0c\x89\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8"
    ),
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    """
    Reads everything, answers in parts, and waits between them, so that a client can leave anywhere.
    """
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-field", b"value")]})
    for part in (b"one", b"two", b"three"):
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


class Served:
    """
    The application on a real socket, in this process.
    """

    def __init__(self, kind: str) -> None:
        self.loop = new_loop(kind)
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        globalLogPublisher.addObserver(self._observe)
        self.reactor = AsyncioSelectorReactor(self.loop)
        self.deadlines = Deadlines(self.loop.time, self.loop.call_later)
        # Cancelled at once: what is left then is left for ever.
        self.gate = Gate(application, self.loop, self.deadlines, disconnect_grace_s=0)
        self.front = Front(self.gate.open, H1Options(self.deadlines, self.loop.call_soon, fields=self.gate.fields))
        self.port = NativeListeners(self.reactor, loop=self.loop).listenTCP(0, self.front, interface="127.0.0.1")
        self.address = ("127.0.0.1", self.port.getHost().port)
        self.tls_port: Any = None

    def _observe(self, event: dict[str, Any]) -> None:
        # What a transport catches goes to Twisted's log.
        if event.get("log_level", LogLevel.info) >= LogLevel.warn:
            self.complaints.append(event)

    def listen_with_tls(self, certificate: bytes, folder: Path) -> None:
        """
        Serve on a port that speaks TLS as well; `address` is that one from now on.
        """
        (folder / "both.pem").write_bytes(certificate)
        both = str(folder / "both.pem")
        context = ServerContexts("both.pem", Pairs([(both, both)], None, (), None), TLSSettings())
        listeners = NativeListeners(self.reactor, loop=self.loop)
        self.tls_port = listeners.listenSSL(0, self.front, context, interface="127.0.0.1")
        self.address = ("127.0.0.1", self.tls_port.getHost().port)

    async def talk_tls(self, name: str, cut: int, *, hello: bool, reset: bool) -> bool:
        """
        Send so many bytes of the first flight, or of what follows the handshake, and leave. Whether that was all.
        """
        client = socket.socket()
        client.setblocking(False)
        await self.loop.sock_connect(client, self.address)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        read, written = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(read, written)
        flight = b""
        while not flight:
            try:
                tls.do_handshake()
                tls.write(REQUESTS[name])
                flight = written.read()
            except ssl.SSLWantReadError:
                if hello:
                    flight = written.read()
                else:
                    await self.loop.sock_sendall(client, written.read())
                    read.write(await self.loop.sock_recv(client, 65536))
        await self.loop.sock_sendall(client, flight[:cut])
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        return cut >= len(flight)

    def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        self.loop.run_until_complete(asyncio.wait_for(wait(), 10))

    def nothing_left(self) -> bool:
        waiting = [bucket for bucket in self.deadlines._buckets.values() if bucket]
        return not self.front.connections and not self.gate.tasks and not waiting

    async def talk(self, data: bytes, read: int, *, reset: bool) -> int:
        """
        Send data, read so many bytes of the answer, and leave. Returns how many came.
        """
        client = socket.socket()
        client.setblocking(False)
        await self.loop.sock_connect(client, self.address)
        if data:
            await self.loop.sock_sendall(client, data)
        came = 0
        while came < read:
            chunk = await self.loop.sock_recv(client, read - came)
            if not chunk:
                break
            came += len(chunk)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        return came

    def close(self) -> None:
        self.port.stopListening()
        if self.tls_port is not None:
            self.tls_port.stopListening()
        globalLogPublisher.removeObserver(self._observe)
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.reactor.disconnectAll()
        self.loop.close()


@pytest.fixture(params=["uvloop", "asyncio"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    engine.load()
    running = Served(request.param)
    yield running
    running.close()


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("name", REQUESTS)
def test_every_byte_of_a_request(served: Served, name: str, reset: bool, caplog: pytest.LogCaptureFixture) -> None:
    """
    A client that leaves after any byte of its request leaves no task, no connection, no timer and no line in the log.
    """
    request = REQUESTS[name]
    with caplog.at_level(logging.WARNING):
        for end in range(len(request) + 1):
            served.loop.run_until_complete(served.talk(request[:end], 0, reset=reset))
            served.until(served.nothing_left)

    assert served.complaints == []
    assert caplog.messages == []


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize("name", ["closing", "websocket"])
def test_every_byte_of_an_answer(served: Served, name: str, reset: bool, caplog: pytest.LogCaptureFixture) -> None:
    """
    A client that leaves after any byte of the answer leaves no task, no connection, no timer and no line in the log.
    """
    with caplog.at_level(logging.WARNING):
        read = came = 0
        # Until there is no more: the server closes behind its answer.
        while came == read:
            read += 1
            came = served.loop.run_until_complete(served.talk(REQUESTS[name], read, reset=reset))
            served.until(served.nothing_left)

    assert read > 100
    assert served.complaints == []
    assert caplog.messages == []


@pytest.mark.slow
@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
@pytest.mark.parametrize(("name", "hello"), [("get", True), ("get", False), ("chunked", False), ("websocket", False)])
def test_every_byte_over_tls(
    served: Served,
    name: str,
    hello: bool,
    reset: bool,
    certificate: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    A client that leaves after any byte of its ClientHello, or of what follows the handshake, leaves nothing either.
    """
    served.listen_with_tls(certificate, tmp_path)
    with caplog.at_level(logging.WARNING):
        cut, complete = 0, False
        while not complete:
            complete = served.loop.run_until_complete(served.talk_tls(name, cut, hello=hello, reset=reset))
            served.until(served.nothing_left)
            cut += 1

    assert cut > 100
    assert served.complaints == []
    assert caplog.messages == []
