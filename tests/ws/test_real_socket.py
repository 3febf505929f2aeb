"""
A server process on a loopback socket, with the websockets library as client.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

DEADLINE_S = 20

APPLICATION = """
import json


async def app(scope, receive, send):
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    path = scope["path"]
    if path == "/no":
        await send({"type": "websocket.close"})
        return
    if path == "/denied":
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"because")]})
        await send({"type": "websocket.http.response.body", "body": b"not you"})
        return
    offered = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": offered[-1] if offered else None})
    if path == "/scope":
        told = {key: scope[key] for key in ("type", "scheme", "http_version", "path", "subprotocols")}
        told["query_string"] = scope["query_string"].decode()
        await send({"type": "websocket.send", "text": json.dumps(told)})
    if path == "/fault":
        raise ValueError("deliberate")
    if path == "/close":
        await send({"type": "websocket.close", "code": 4321, "reason": "zoë"})
        return
    if path == "/flood":
        for number in range(2000):
            await send({"type": "websocket.send", "bytes": number.to_bytes(2, "big") * 4096})
        return
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            print("disconnect", message["code"], message.get("reason"), flush=True)
            return
        await send({**message, "type": "websocket.send"})
"""


class Server:
    """
    The process, where it listens, and what it printed.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "socket_app.py").write_text(APPLICATION)
        self.output = folder / "stdout"
        command = [sys.executable, "-m", "txasgi", "-e", "tcp:0:interface=127.0.0.1", "--app-dir", str(folder)]
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "socket_app:app"],
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self.log: list[str] = []
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self._listening.wait(DEADLINE_S), "".join(self.log)
        assert self.port, "".join(self.log)

    port = 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                self._listening.set()
        self._listening.set()

    def connect(self, path: str = "/", **options: object) -> ClientConnection:
        settings = {"open_timeout": DEADLINE_S, "close_timeout": DEADLINE_S, "proxy": None, "max_size": None}
        return connect(f"ws://127.0.0.1:{self.port}{path}", **{**settings, **options})

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(DEADLINE_S)
        self._thread.join(DEADLINE_S)
        return status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("socket"))
    try:
        yield server
        server.stop()
        faults = [line for line in server.log if line.startswith("Traceback")]
        # Of test_fault, and no other.
        assert len(faults) <= 1, "".join(server.log)
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_echo(server: Server, compression: str | None) -> None:
    """
    Messages of every size come back as they were sent.
    """
    with server.connect(compression=compression) as websocket:
        assert bool(websocket.protocol.extensions) == (compression is not None)
        for message in ("", "zoë €", b"", b"\x00\xff", "x" * 126, b"y" * 65536, os.urandom(1 << 20), "€" * 1_000_000):
            websocket.send(message)
            assert message == websocket.recv(DEADLINE_S)


def test_largest_message(server: Server) -> None:
    """
    A message of 16 MiB passes.
    """
    with server.connect(compression=None) as websocket:
        websocket.send(bytes(16 << 20))
        assert bytes(16 << 20) == websocket.recv(DEADLINE_S)


def test_too_large_message(server: Server) -> None:
    """
    A message of one byte more is closed with 1009, and the client gets to hear of it, though it is still sending.
    """
    for _ in range(5):
        with server.connect(compression=None) as websocket:
            # The server answers to the header of the frame: sending the rest of it may fail, or not.
            with suppress(ConnectionClosed):
                websocket.send(bytes((16 << 20) + 1))
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(DEADLINE_S)

        assert closed.value.rcvd is not None and 1009 == closed.value.rcvd.code


def test_scope(server: Server) -> None:
    """
    The application sees what was asked for, and the client gets the subprotocol that it chose.
    """
    with server.connect("/scope?a=b", subprotocols=["one", "two"]) as websocket:
        assert "two" == websocket.subprotocol
        assert websocket.recv(DEADLINE_S) == (
            '{"type": "websocket", "scheme": "ws", "http_version": "1.1", "path": "/scope", '
            '"subprotocols": ["one", "two"], "query_string": "a=b"}'
        )


@pytest.mark.parametrize(("path", "status", "body"), [("/no", 403, None), ("/denied", 401, b"not you")])
def test_denied(server: Server, path: str, status: int, body: bytes | None) -> None:
    """
    A client that is denied gets the status, and the response if there is one.
    """
    with pytest.raises(InvalidStatus) as refused, server.connect(path):
        pass

    answer = refused.value.response
    assert status == answer.status_code
    if body is not None:
        assert (body, "because") == (answer.body, answer.headers["x-why"])


def test_fragments_and_pings(server: Server) -> None:
    """
    A message in fragments comes back whole, and pings are answered.
    """
    with server.connect() as websocket:
        assert websocket.ping("there?").wait(DEADLINE_S)
        websocket.send(iter(["fr", "ag", "ment€", ""]))
        assert "fragment€" == websocket.recv(DEADLINE_S)


@pytest.mark.parametrize(("path", "code", "reason"), [("/close", 4321, "zoë"), ("/fault", 1011, None)])
def test_closed_by_the_application(server: Server, path: str, code: int, reason: str | None) -> None:
    """
    The application's close, or its fault, comes to the client as a close code.
    """
    with server.connect(path) as websocket, pytest.raises(ConnectionClosed) as closed:
        websocket.recv(DEADLINE_S)

    assert closed.value.rcvd is not None and code == closed.value.rcvd.code
    assert reason in (None, closed.value.rcvd.reason)
    # The server ended the closing handshake and the connection: nothing had to time out.
    assert closed.value.rcvd_then_sent


def test_closed_by_the_client(server: Server) -> None:
    """
    The client's close reaches the application, and the server is the first to close the socket.
    """
    with server.connect("/scope") as websocket:
        websocket.recv(DEADLINE_S)
        websocket.close(4444, "so long")

    assert (4444, "so long") == (websocket.close_code, websocket.close_reason)
    # Another client is served after the one before has been dealt with.
    with server.connect() as websocket:
        websocket.send("a")
        websocket.recv(DEADLINE_S)
    assert "disconnect 4444 so long" in server.output.read_text()


def test_slow_client(server: Server) -> None:
    """
    A client that reads late gets everything, in its order.
    """
    with server.connect("/flood", compression=None, max_queue=1) as websocket:
        received = [int.from_bytes(message[:2], "big") for message in websocket]

    assert list(range(2000)) == received


def test_many_clients(server: Server) -> None:
    """
    Forty clients at once each get their own messages.
    """

    def talk(number: int) -> bool:
        with server.connect() as websocket:
            for turn in range(20):
                websocket.send(f"{number}/{turn}")
                if websocket.recv(DEADLINE_S) != f"{number}/{turn}":
                    return False
        return True

    with ThreadPoolExecutor(40) as pool:
        assert all(pool.map(talk, range(40)))


def test_stop(tmp_path: Path) -> None:
    """
    A server that is told to stop closes its WebSockets with 1012 and ends.
    """
    server = Server(tmp_path)
    try:
        with server.connect() as websocket:
            websocket.send("a")
            websocket.recv(DEADLINE_S)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(DEADLINE_S)
        assert closed.value.rcvd is not None and 1012 == closed.value.rcvd.code
        server.process.wait(DEADLINE_S)
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
    assert not [line for line in server.log if line.startswith("Traceback")], "".join(server.log)
