"""
What a server process writes while it serves: access lines, the application's faults, Twisted's warnings.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.serve.processes import (
    APPS,
    DEADLINE_S,
    LOCAL,
    SERVE,
    Process,
    ask,
    dial,
    environment,
    refused,
    request,
    reset,
    serving,
    started,
    until,
)
from websockets.sync.client import connect

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}"
CLIENT = r"127\.0\.0\.1:\d+"


@pytest.fixture
def process(folder: Path) -> Iterator[Process]:
    """
    A server with the default options.
    """
    with serving(folder, "-e", LOCAL, "served:app", complains=True) as running:
        yield running


def wait_for_socket(folder: Path) -> None:
    """
    Wait for a server that does not say where it listens.
    """
    until(lambda: listens(folder), "the socket")


def listens(folder: Path) -> bool:
    return not refused(f"unix:{folder}/a.sock")


def access_lines(process: Process) -> list[str]:
    """
    What is on standard output when the process has ended.
    """
    assert process.stop() == 0
    return list(process.out)


@contextmanager
def terminal(command: list[str], folder: Path) -> Iterator[tuple[int, int]]:
    """
    A process on a terminal of its own: its pid, and the descriptor of the terminal's other end.
    """
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(command[0], command, environment())
    try:
        yield pid, descriptor
    finally:
        # Ended or not: it has had its last word.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(descriptor)


def read_until(descriptor: int, mark: bytes, text: bytes = b"") -> bytes:
    """
    The text, and what follows it on the terminal until the mark is in it.
    """
    while mark not in text:
        ready, _, _ = select.select([descriptor], [], [], DEADLINE_S)
        assert ready, text
        text += os.read(descriptor, 65536)
    return text


# The access log


def test_request(process: Process) -> None:
    """
    A request's line has time, client, request line, status, size and duration; it goes to standard output.
    """
    with dial(process.location) as sock:
        client = "{}:{}".format(*sock.getsockname())
        sock.sendall(request("/x?y=1", "Connection: close"))
        while sock.recv(1000):
            pass
    (line,) = access_lines(process)
    assert re.fullmatch(rf'{TIME} {re.escape(client)} "GET /x\?y=1 HTTP/1\.1" 200 \d+ bytes \d+\.\d ms', line)
    assert [line for line in process.err if "GET /x" in line and "app:" not in line] == []


def test_size_and_version(process: Process) -> None:
    """
    The size is that of the body; HTTP/1.0 is called by its name.
    """
    body = ask(process.location).body
    with dial(process.location) as sock:
        sock.sendall(b"POST /body HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
        while sock.recv(1000):
            pass
    first, second = access_lines(process)
    assert f'"GET / HTTP/1.1" 200 {len(body)} bytes' in first
    assert '"POST /body HTTP/1.0" 200 5 bytes' in second


def test_application_fails(process: Process) -> None:
    """
    A fault of the application is logged once, with its traceback, on standard error; its access line says so.
    """
    assert ask(process.location, "/raise?x").status == 500
    (line,) = access_lines(process)
    assert re.search(r'"GET /raise\?x HTTP/1\.1" 500 \d+ bytes \d+\.\d ms \(application failed\)$', line)
    (at,) = [number for number, text in enumerate(process.err) if "Traceback" in text]
    lines = list(process.err)
    assert re.fullmatch(rf"{TIME} ERROR    the application raised: GET /raise\?x", lines[at - 1])
    assert [text for text in lines if text == "LookupError: on purpose"] != []


def test_client_leaves(folder: Path) -> None:
    """
    A request without an answer has a dash for its status, and a word on why.
    """
    with serving(folder, "-e", LOCAL, "--disconnect-grace", "0", "served:app") as process:
        sock = dial(process.location)
        sock.sendall(request("/hang"))
        process.wait_for("app: GET /hang")
        reset(sock)
        line = process.wait_for_access("/hang")
    assert re.search(r'"GET /hang HTTP/1\.1" - 0 bytes \d+\.\d ms \(client left\)$', line)


def test_refused_request(process: Process) -> None:
    """
    A request that never reached the application has its status and the reason.
    """
    with dial(process.location) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")
    line = process.wait_for_access(" 400 ")
    assert re.fullmatch(rf'{TIME} {CLIENT} "[^"]*" 400 .*\(.+\)', line)


def test_websocket(process: Process) -> None:
    """
    A WebSocket has a line when it opens and one when it closes, with its close code and reason.
    """
    with connect(process.location.replace("http", "ws") + "/ws?y=1", proxy=None) as websocket:
        opened = process.wait_for_access("WebSocket")
        websocket.send("hello")
        assert websocket.recv() == "hello"
        websocket.close(4001, "enough")
    assert re.fullmatch(rf'{TIME} {CLIENT} "WebSocket /ws\?y=1" open', opened)
    _, closed = access_lines(process)
    assert re.fullmatch(rf'{TIME} {CLIENT} "WebSocket /ws\?y=1" closed 4001 5 bytes \d+ ms \(enough\)', closed)


@pytest.mark.parametrize("target", ["/\x1b[31m", "/\x00", "/\r", "/\x7f", "/\x9b31m", "/\x85"])
def test_nothing_that_drives_a_terminal(target: str, process: Process) -> None:
    """
    Whatever a client sends, a line of the log is one line of printable characters.
    """
    with dial(process.location) as sock:
        sock.sendall(request(target, "X: \x9b31m"))
        assert sock.recv(1000).startswith(b"HTTP/1.1 ")
    lines = access_lines(process)
    assert len(lines) == 1
    assert re.search(r"[\x00-\x1f\x7f-\x9f]", lines[0]) is None


def test_quotes_do_not_end_the_request(process: Process) -> None:
    """
    A quote in the target is escaped, so that a line cannot be forged.
    """
    assert ask(process.location, '/"200\\').status == 200
    assert '"GET /\\x22200\\x5c HTTP/1.1" 200 ' in access_lines(process)[0]


def test_unix_client_has_no_address(folder: Path) -> None:
    """
    A client on a UNIX socket is shown as a dash.
    """
    with serving(folder, "--uds", "a.sock", "served:app") as process:
        assert process.location
        assert ask(f"unix:{folder}/a.sock").status == 200
        assert re.search(r' - "GET / HTTP/1\.1" 200 ', access_lines(process)[0])


@pytest.mark.parametrize("option", [["--no-access-log"], ["--log-level", "warning"]])
def test_no_access_log(option: list[str], folder: Path) -> None:
    """
    Without the access log standard output stays empty.
    """
    with serving(folder, "--uds", "a.sock", *option, "served:app") as process:
        wait_for_socket(folder)
        location = f"unix:{folder}/a.sock"
        assert ask(location).status == 200
        assert ask(location, "/\xe9").status == 400
        assert access_lines(process) == []


# Colours


def test_no_colours_without_a_terminal(process: Process) -> None:
    """
    What goes into a file or a pipe has no escape sequences.
    """
    assert ask(process.location).status == 200
    assert access_lines(process) != []
    assert "\x1b" not in process.out.text() + process.err.text()


def test_colours_on_a_terminal(folder: Path) -> None:
    """
    On a terminal the lines are coloured, by level and by status.
    """
    command = [*SERVE, "-e", LOCAL, "--app-dir", str(APPS), "served:app"]
    with terminal(command, folder) as (pid, descriptor):
        text = read_until(descriptor, b"listening on ")
        text = read_until(descriptor, b"\x1b[0m\r\n", text)
        location = re.search(rb"http://[0-9.:]+", text)
        assert location is not None
        assert ask(location[0].decode()).status == 200
        assert ask(location[0].decode(), "/raise").status == 500
        os.kill(pid, signal.SIGTERM)
        text = read_until(descriptor, b"app: shutdown", text)
        text = read_until(descriptor, b" 500 ", text)
    assert re.search(rb"\x1b\[32m[^\n]* INFO [^\n]*listening on [^\n]*\x1b\[0m\r\n", text)
    assert re.search(rb'\x1b\[32m[^\n]*"GET / HTTP/1.1" 200 [^\n]*\x1b\[0m\r\n', text)
    assert re.search(rb'\x1b\[31m[^\n]*"GET /raise HTTP/1.1" 500 ', text)
    assert re.search(rb"\x1b\[31m[^\n]* ERROR [^\n]*\x1b\[0m\r\nTraceback", text)


# Levels


def test_levels(folder: Path) -> None:
    """
    --log-level says which lines are written: what the server does from info on, details with debug.
    """
    for level, informed, detailed in (("debug", True, True), ("info", True, False), ("warning", False, False)):
        with serving(folder, "--uds", "a.sock", "--log-level", level, "served:app") as process:
            wait_for_socket(folder)
            assert ask(f"unix:{folder}/a.sock", "/warn").status == 200
            assert process.stop() == 0
            text = process.err.text()
            assert ("listening on" in text, "stopping" in text, "a detail" in text) == (informed, informed, detailed)


@pytest.mark.parametrize(("level", "shown"), [("debug", True), ("warning", True), ("error", False)])
def test_twisted_log(level: str, shown: bool, folder: Path) -> None:
    """
    What Twisted logs is seen from warning upwards, unless --log-level asks for less.
    """
    with serving(folder, "--uds", "a.sock", "--log-level", level, "served:app") as process:
        wait_for_socket(folder)
        assert ask(f"unix:{folder}/a.sock", "/warn").status == 200
        assert process.stop() == 0
        warned = [line for line in process.err if "Twisted warns" in line]
        assert len(warned) == shown
        if shown:
            assert re.fullmatch(rf"{TIME} WARNING  Twisted warns", warned[0])
        assert "Twisted informs" not in process.err.text()


def test_error_level_keeps_faults(folder: Path) -> None:
    """
    The application's faults are seen at the level of errors, and nothing else is.
    """
    with serving(folder, "--uds", "a.sock", "--log-level", "error", "served:app", complains=True) as process:
        wait_for_socket(folder)
        assert ask(f"unix:{folder}/a.sock", "/raise").status == 500
        assert process.stop() == 0
        levels = [found[1] for line in process.err if (found := re.match(rf"{TIME} (\w+)", line))]
        assert levels == ["ERROR"]


# Surroundings that are not as they should be


def test_output_that_nobody_reads(folder: Path) -> None:
    """
    When the reader of standard output goes away, as in `serve | head`, requests are still answered.
    """
    read, write = os.pipe()
    into_pipe = (
        "import os, sys; os.dup2(int(sys.argv[1]), 1); os.close(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = [
        sys.executable,
        "-c",
        into_pipe,
        str(write),
        *SERVE,
        "--uds",
        "a.sock",
        "--app-dir",
        str(APPS),
        "served:app",
    ]
    with started(command, folder, pass_fds=[write]) as process:
        assert process.location
        os.close(write)
        os.close(read)
        for _ in range(3):
            assert ask(f"unix:{folder}/a.sock").status == 200
        assert process.stop() == 0
        process.check()


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_output_that_is_closed(closed: str, folder: Path) -> None:
    """
    A server that was started without standard output or error serves all the same.
    """
    command = f"exec {shlex.join(SERVE)} --uds a.sock --app-dir {shlex.quote(str(APPS))} shapes:app {closed}"
    with started(["sh", "-c", command], folder) as process:
        until(lambda: process.popen.poll() is not None or listens(folder), "the socket")
        assert ask(f"unix:{folder}/a.sock").status == 200
        assert process.stop() == 0
        process.check()
