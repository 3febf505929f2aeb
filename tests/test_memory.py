"""
Serving leaves nothing behind: not in the process's memory, and not for the garbage collector.
"""

from __future__ import annotations

import contextlib
import gc
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from txasgi.net.certificates import SelfSigned
from txasgi.net.contexts import ServerContexts, TLSSettings
from txasgi.net.tls import TLSFactory
from txasgi.testing.rig import Rig
from txasgi.testing.transports import MemoryTransport
from txasgi.ws import engine

APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Hello, world!"})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
    else:
        raise RuntimeError
"""

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# Masked with zeros: a binary message of five bytes, a close frame with 1000.
ECHOED = b"\x82\x85\0\0\0\0hello"
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"


class ServerProcess:
    """
    `serve` with the application above.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "leaks.py").write_text(APPLICATION)
        command = [
            sys.executable,
            "-m",
            "txasgi",
            "--no-access-log",
            "--port",
            "0",
            "--app-dir",
            str(folder),
            "leaks:app",
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.port = 0
        for line in self.process.stderr:
            found = re.search(r"listening on http://127.0.0.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                break

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def resident_bytes(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    running = ServerProcess(tmp_path)
    yield running
    running.process.terminate()
    _, log = running.process.communicate(timeout=30)
    assert "Traceback" not in log
    assert running.process.returncode == 0


def receive_until(connection: socket.socket, mark: bytes, count: int) -> None:
    """
    Read until the mark came so many times.
    """
    tail = b""
    while count:
        read = connection.recv(1 << 20)
        assert read, "closed"
        data = tail + read
        count -= data.count(mark)
        tail = data[len(data) - len(mark) + 1 :] if not data.endswith(mark) else b""


def request_many(server: ServerProcess, count: int) -> None:
    group = 50
    with server.connect() as connection:
        for _ in range(count // group):
            connection.sendall(GET * group)
            receive_until(connection, b"Hello, world!", group)


def open_and_close(server: ServerProcess, count: int) -> None:
    for _ in range(count):
        with server.connect() as connection:
            connection.sendall(HANDSHAKE + ECHOED + CLOSE)
            receive_until(connection, b"\x03\xe8", 1)


@pytest.mark.slow
def test_requests(server: ServerProcess) -> None:
    """
    100,000 requests leave the memory of the process flat.
    """
    request_many(server, 20_000)
    before = server.resident_bytes()
    request_many(server, 100_000)

    assert server.resident_bytes() - before < 2 << 20


@pytest.mark.slow
def test_websockets(server: ServerProcess) -> None:
    """
    10,000 WebSocket connections, opened and closed, leave the memory of the process flat.
    """
    open_and_close(server, 3_000)
    before = server.resident_bytes()
    open_and_close(server, 10_000)

    assert server.resident_bytes() - before < 3 << 20


# Within this process: what reference counting frees, the garbage collector need not look for.


async def application(scope: Any, receive: Any, send: Any) -> None:
    """
    Answers by path.
    """
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    if scope["path"] == "/fault":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"part", "more_body": True})
    await send({"type": "http.response.body", "body": body or b"ok"})


def unreachable(act: Any, count: int) -> int:
    """
    How many objects the garbage collector finds after so many times; the first times fill caches.
    """
    for _ in range(5):
        act()
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            act()
        return gc.collect()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET,
        b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"GET /fault HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["get", "stream", "post", "chunked", "fault"],
)
def test_no_cycle_per_request(request_bytes: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """
    A request leaves no reference cycle.
    """
    caplog.set_level("CRITICAL", "txasgi.error")
    rig = Rig(application, report=None)
    transport = rig.connect()

    def once() -> None:
        transport.receive(request_bytes)
        rig.settle()
        assert transport.take().startswith(b"HTTP/1.1 ")

    found = unreachable(once, 50)
    rig.close()
    assert found == 0


def test_no_cycle_per_connection() -> None:
    """
    A connection that ends, be it idle or in a request, leaves no reference cycle.
    """
    rig = Rig(application, report=None)

    def once() -> None:
        for data in (b"", GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe"):
            transport = rig.connect()
            transport.receive(data)
            rig.settle()
            transport.lose()
            rig.advance(15)

    found = unreachable(once, 20)
    rig.close()
    assert found == 0


def tls_client() -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """
    A client that trusts everybody, and what it reads and writes.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    read, written = ssl.MemoryBIO(), ssl.MemoryBIO()
    return context.wrap_bio(read, written), read, written


@pytest.mark.parametrize("ending", ["silent", "garbage", "half", "answered", "closed", "aborted"])
def test_no_cycle_per_tls_connection(ending: str) -> None:
    """
    A connection over TLS leaves no reference cycle, whatever it was in the middle of when it ended.
    """
    rig = Rig(application, report=None)
    contexts = ServerContexts("a", SelfSigned(), TLSSettings())
    factory = TLSFactory(contexts, rig.front, rig.clock)

    def once() -> None:
        transport = MemoryTransport()
        protocol = factory.buildProtocol(transport.getPeer())
        transport.connect(protocol)
        if ending == "garbage":
            transport.receive(b"no TLS")
        elif ending != "silent":
            converse(transport)
        if ending == "aborted":
            protocol.abortConnection()
        elif not transport.closed:
            transport.lose()
        rig.advance(15)

    def converse(transport: MemoryTransport) -> None:
        client, read, written = tls_client()
        for step in range(1 if ending == "half" else 2):
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            if step == 1:
                client.write(GET)
            transport.receive(written.read())
            rig.settle()
            read.write(transport.take())
        if ending != "half":
            assert client.read(1000).startswith(b"HTTP/1.1 200")
        if ending == "closed":
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()
            transport.receive(written.read())

    found = unreachable(once, 20)
    rig.close()
    assert found == 0


def test_no_cycle_per_websocket() -> None:
    """
    A WebSocket that is closed leaves no reference cycle.
    """
    engine.load()
    rig = Rig(application, report=None)

    def once() -> None:
        transport = MemoryTransport()
        rig.connect(transport)
        transport.receive(HANDSHAKE + ECHOED)
        rig.settle()
        transport.receive(CLOSE)
        rig.settle()
        assert transport.take().endswith(b"\x03\xe8")
        transport.lose()
        rig.advance(35)

    found = unreachable(once, 20)
    rig.close()
    assert found == 0


def tracked(act: Any, count: int) -> int:
    """
    How many more objects there are for the garbage collector after so many times than after the first ones.
    """
    for _ in range(20):
        act()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(count):
        act()
    gc.collect()
    return len(gc.get_objects()) - before


def test_nothing_grows(caplog: pytest.LogCaptureFixture) -> None:
    """
    Requests of every kind, on a connection that stays and on new ones, leave no object that is still referred to.
    """
    caplog.set_level("CRITICAL", "txasgi.error")
    engine.load()
    rig = Rig(application, {"keep_alive_s": 1e6}, report=None)
    kept = rig.connect()
    requests = [
        GET,
        b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /fault HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        GET * 3,
        b"nonsense\r\n\r\n",
        HANDSHAKE + ECHOED + CLOSE,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
    ]

    def once() -> None:
        for data in requests:
            if data in requests[:5]:
                kept.receive(data)
                rig.settle()
                kept.take()
            transport = rig.connect()
            transport.receive(data)
            rig.settle()
            transport.lose()
        rig.advance(40)
        # The rig's own notes.
        rig.refusals.clear()

    grown = tracked(once, 30)
    assert not kept.disconnecting
    rig.close()
    # Less than one for each round.
    assert grown < 30


def test_client_that_leaves_with_its_request() -> None:
    """
    A task whose client leaves in the turn in which it asked, with no grace, is not forgotten: it has run, and ended.
    """
    rig = Rig(application, report=None, disconnect_grace_s=0)
    transport = rig.connect()
    transport.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
    transport.lose()
    rig.settle()
    assert rig.gate.tasks == set()
    rig.close()
