"""
How a server process ends: what it finishes, what it cuts off, and how long it takes.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from pathlib import Path

import pytest
from tests.serve.conftest import Certificates, ssl_endpoint
from tests.serve.processes import (
    DEADLINE_S,
    LOCAL,
    Process,
    address_of,
    ask,
    dial,
    half_sent,
    read_answer,
    refused,
    request,
    reset,
    serving,
    until,
)
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SIGNALS = [signal.SIGINT, signal.SIGTERM]
# Longer than any test may take: where it matters that nothing waits for it.
HOUR = ("--timeout-graceful-shutdown", "1h")
SOON = ("--timeout-graceful-shutdown", "0.5")


def hanging(process: Process, target: str) -> socket.socket:
    """
    A request that is being served and never answered.
    """
    sock = dial(process.location)
    sock.sendall(request(target))
    process.wait_for(f"app: GET {target}")
    return sock


def told(process: Process) -> list[str]:
    """
    What the application said, without what it says of single requests.
    """
    return [line for line in process.err if line in ("app: startup", "app: shutdown")]


def place(process: Process, text: str) -> int:
    """
    Where in the log a line with this text is; it must be there once.
    """
    (found,) = [number for number, line in enumerate(process.err) if text in line]
    return found


# What is finished


@pytest.mark.parametrize("which", SIGNALS)
def test_idle(which: signal.Signals, folder: Path) -> None:
    """
    A server with nothing to do ends at once, with 0, when its application has shut down.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "served:app") as process:
        assert process.location
        assert process.stop(which) == 0
        assert told(process) == ["app: startup", "app: shutdown"]
        assert place(process, "INFO     stopping: ") < place(process, "app: shutdown")


@pytest.mark.parametrize("which", SIGNALS)
def test_request_is_finished(which: signal.Signals, folder: Path) -> None:
    """
    A request that was begun is answered, new connections are refused, and then the application is shut down.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "served:app") as process:
        with half_sent(process.location) as sock:
            process.wait_for("app: POST /body")
            process.send_signal(which)
            until(lambda: refused(process.location), "the end of the listener")
            sock.sendall(b"!")
            answer = read_answer(sock)
            assert (answer.status, answer.body, answer.values("connection")) == (200, b"?!", ["close"])
            assert sock.recv(1) == b""
        assert process.wait() == 0
        assert place(process, "app: answered /body") < place(process, "app: shutdown")
        assert [line for line in process.err if "WARNING" in line] == []


def test_connection_between_requests(folder: Path) -> None:
    """
    A connection that waits for its next request, or has only begun one, is closed at once.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "--timeout-keep-alive", "1h", "served:app") as process:
        used, unused, begun = (dial(process.location) for _ in range(3))
        with used, unused, begun:
            used.sendall(request())
            assert read_answer(used).status == 200
            begun.sendall(b"GET / HT")
            process.send_signal(signal.SIGTERM)
            assert used.recv(1) == unused.recv(1) == b""
            # A head that has only begun is no request; whether it is told so first is not for here.
            with contextlib.suppress(ConnectionResetError):
                while begun.recv(1000):
                    pass
        assert process.wait() == 0


def test_pipelined_request(folder: Path) -> None:
    """
    The answer in progress is the last one on its connection, whatever was sent behind its request.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "served:app") as process, half_sent(process.location) as sock:
        process.wait_for("app: POST /body")
        with dial(process.location) as idle:
            process.send_signal(signal.SIGTERM)
            # Once an idle connection is closed, the others know as well.
            assert idle.recv(1) == b""
        sock.sendall(b"!" + request("/next"))
        answer = read_answer(sock)
        assert (answer.body, answer.values("connection")) == (b"?!", ["close"])
        sock.close()
        assert process.wait() == 0
        assert "app: GET /next" not in process.err


def test_websocket_is_closed(folder: Path) -> None:
    """
    WebSockets are closed with 1012, and their applications are told.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "served:app") as process:
        with connect(process.location.replace("http", "ws"), proxy=None) as websocket:
            websocket.send("hello")
            assert websocket.recv(DEADLINE_S) == "hello"
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(DEADLINE_S)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
        assert process.wait() == 0
        assert place(process, "app: websocket ended") < place(process, "app: shutdown")


def test_websocket_client_that_does_not_answer(folder: Path) -> None:
    """
    A client that does not answer the close frame is cut off in time.
    """
    with serving(folder, "-e", LOCAL, *SOON, "served:app") as process, dial(process.location) as sock:
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
        sock.sendall(request("/", "Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13"))
        sock.sendall(b"\x81\x82\0\0\0\0hi")
        came = b""
        while not came.endswith(b"\x81\x02hi"):
            came += sock.recv(1000)
        assert process.stop() == 0
        assert told(process) == ["app: startup", "app: shutdown"]


def test_client_that_leaves_meanwhile(folder: Path) -> None:
    """
    A request whose client leaves while the server stops holds up nothing.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "--disconnect-grace", "0", "served:app") as process:
        sock = hanging(process, "/hang")
        process.send_signal(signal.SIGTERM)
        process.wait_for("stopping")
        reset(sock)
        assert process.wait() == 0
        assert place(process, "app: cancelled /hang") < place(process, "app: shutdown")


def test_idle_tls_connection(folder: Path, certificates: Certificates) -> None:
    """
    A TLS connection between two requests is closed at once; its client answers with a close_notify of its own.
    """
    endpoint = ssl_endpoint(certificates.both)
    with serving(folder, "-e", endpoint, *HOUR, "--timeout-keep-alive", "1h", "served:app") as process:
        with dial(process.location, certificates.trust) as sock:
            sock.sendall(request())
            assert read_answer(sock).status == 200
            process.send_signal(signal.SIGTERM)
            assert sock.recv(1) == b""
            assert isinstance(sock, ssl.SSLSocket)
            sock.unwrap().close()
        assert process.wait() == 0


@pytest.mark.parametrize("first", [b"", request()], ids=["silent", "plain"])
def test_tls_connection_without_a_handshake(first: bytes, folder: Path, certificates: Certificates) -> None:
    """
    A connection on which TLS was not, or cannot be, agreed upon holds up nothing.
    """
    endpoint = ssl_endpoint(certificates.both)
    with serving(folder, "-e", endpoint, *HOUR, "served:app") as process:
        sock = socket.create_connection(address_of(process.location), DEADLINE_S)
        sock.sendall(first)
        # Accepted in order: once this one is served, the one before is there.
        assert ask(process.location, trust=certificates.trust).status == 200
        assert process.stop() == 0
        sock.close()


# What is cut off


@pytest.mark.parametrize(
    ("target", "cancelled"),
    [
        pytest.param("/hang", True, id="hang"),
        # What does not let itself be cancelled gets some seconds.
        pytest.param("/stubborn", True, id="deaf", marks=pytest.mark.slow),
        pytest.param("/thread", False, id="thread", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("second", [False, True], ids=["timeout", "twice"])
def test_hanging_request_is_cut_off(target: str, cancelled: bool, second: bool, folder: Path) -> None:
    """
    A request that hangs is cut off after the timeout, or when a second signal comes, whatever hangs; the log says so.
    """
    with serving(folder, "-e", LOCAL, *(HOUR if second else SOON), "served:app") as process:
        with hanging(process, target) as sock:
            process.send_signal(signal.SIGINT)
            process.wait_for("stopping: waiting")
            if second:
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
            assert process.wait() == 0
        warned = [line for line in process.err if " WARNING " in line]
        if second:
            assert warned[0].endswith("stopping at once")
        else:
            assert warned[0].endswith("1 connections and 1 requests did not finish in time; they are cut off")
            assert told(process) == ["app: startup", "app: shutdown"]
        assert (f"app: cancelled {target}" in process.err) == cancelled
        assert process.wait_for_access(f'"GET {target} HTTP/1.1" - 0 bytes')


@pytest.mark.slow
def test_third_signal(folder: Path) -> None:
    """
    Signals beyond the second do no harm.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "served:app") as process, hanging(process, "/stubborn"):
        process.send_signal(signal.SIGINT)
        process.wait_for("stopping: waiting")
        process.send_signal(signal.SIGTERM)
        process.wait_for("stopping at once")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert len([line for line in process.err if "stopping" in line]) == 2


def test_answer_that_nobody_reads(folder: Path) -> None:
    """
    A client that does not read its answer is cut off after the timeout.
    """
    (folder / "large.py").write_text(
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': bytes(1 << 25)})\n"
    )
    with serving(folder, "-e", LOCAL, *SOON, "--app-dir", str(folder), "large:app") as process:
        with dial(process.location) as sock:
            sock.sendall(request())
            assert sock.recv(1) == b"H"
            assert process.stop() == 0
        assert process.wait_for("1 connections and ")


def test_no_time_at_all(folder: Path) -> None:
    """
    With a timeout of 0 requests are cut off at once; the application's shutdown is still run.
    """
    with serving(folder, "-e", LOCAL, "--timeout-graceful-shutdown", "0", "served:app") as process:
        with hanging(process, "/hang"):
            assert process.stop() == 0
        assert told(process) == ["app: startup", "app: shutdown"]


# An application that hangs


@pytest.mark.parametrize("which", SIGNALS)
@pytest.mark.parametrize("lifespan", ["auto", "on"])
def test_startup_that_hangs(lifespan: str, which: signal.Signals, folder: Path) -> None:
    """
    A signal ends an application that does not come up, and nothing was listened on.
    """
    arguments = ("-e", "unix:a.sock", "--lifespan", lifespan, *HOUR)
    with serving(folder, *arguments, "served:slow_to_start") as process:
        process.wait_for("app: starting")
        assert process.stop(which) == 0
        assert "app: cancelled startup" in process.err
        assert process.locations == []
        assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_shutdown_that_hangs(folder: Path) -> None:
    """
    An application that does not go down is left after the timeout, and the log says so.
    """
    with serving(folder, "-e", LOCAL, *SOON, "served:slow_to_stop") as process:
        assert process.location
        assert process.stop() == 0
        assert "app: cancelled shutdown" in process.err
        assert process.wait_for("WARNING  the application's shutdown did not finish in time")


def test_shutdown_that_hangs_and_a_second_signal(folder: Path) -> None:
    """
    A second signal does not wait for an application that does not go down.
    """
    with serving(folder, "-e", LOCAL, *HOUR, "served:slow_to_stop") as process:
        assert process.location
        process.send_signal(signal.SIGINT)
        process.wait_for("app: stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert "app: cancelled shutdown" in process.err


def test_shutdown_that_fails(folder: Path) -> None:
    """
    A shutdown that fails is logged with the application's message, and the process ends all the same.
    """
    (folder / "sad.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.shutdown.failed', 'message': 'could not save'})\n"
    )
    with serving(folder, "-e", LOCAL, "--app-dir", str(folder), "sad:app") as process:
        assert process.location
        assert process.stop() == 0
        assert process.wait_for("could not save")


def test_tasks_of_the_application(folder: Path) -> None:
    """
    Tasks that the application has started on its own are cancelled at the end, generators are closed.
    """
    (folder / "busy.py").write_text(
        "import asyncio\nfrom tests.serve.apps.served import hang, say\n"
        "async def numbers():\n"
        "    try:\n"
        "        yield 1\n"
        "    finally:\n"
        "        say('generator closed')\n"
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    app.task = asyncio.create_task(hang({'path': 'background'}, receive, send))\n"
        "    app.numbers = numbers()\n"
        "    await anext(app.numbers)\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.shutdown.complete'})\n"
    )
    with serving(folder, "-e", LOCAL, "--app-dir", str(folder), "busy:app") as process:
        assert process.location
        assert process.stop() == 0
        assert "app: cancelled background" in process.err
        assert "app: generator closed" in process.err


# An application that stops the reactor


def test_application_stops_the_reactor(folder: Path) -> None:
    """
    An application that stops Twisted's reactor ends the server, and it ends in good order.
    """
    (folder / "stopper.py").write_text(
        "from tests.serve.apps.served import app as inner, reply\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        return await inner(scope, receive, send)\n"
        "    from twisted.internet import reactor\n"
        "    await reply(send, b'stopped')\n"
        "    reactor.callLater(0, reactor.stop)\n"
    )
    with serving(folder, "-e", "unix:a.sock", "--app-dir", str(folder), "stopper:app") as process:
        assert process.location
        with dial(f"unix:{folder}/a.sock") as sock:
            sock.sendall(request())
            assert read_answer(sock).status == 200
        assert process.wait() == 0
        assert told(process) == ["app: startup", "app: shutdown"]
        assert not (folder / "a.sock").exists()


# Before and after


def test_interrupted_while_it_is_imported(folder: Path) -> None:
    """
    Ctrl-C while the application's module is being imported ends the command without a traceback.
    """
    (folder / "lengthy.py").write_text(
        "import threading\nfrom tests.serve.apps.served import say\nsay('importing')\nthreading.Event().wait()\n"
    )
    with serving(folder, "--uds", "a.sock", "--app-dir", str(folder), "lengthy:app") as process:
        process.wait_for("app: importing")
        assert process.stop(signal.SIGINT) == 130
        assert not (folder / "a.sock").exists()


def test_port_is_free_at_once(folder: Path) -> None:
    """
    A port can be listened on again as soon as the process has ended, whatever became of its connections.
    """
    with serving(folder, "--port", "0", *SOON, "served:app") as process, hanging(process, "/hang"):
        location = process.location
        assert ask(location).status == 200
        assert process.stop() == 0
        with serving(folder, "--port", str(address_of(location)[1]), "served:app") as second:
            assert second.location == location
            assert ask(location).status == 200
