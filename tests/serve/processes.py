"""
Server processes as an operator starts them, and clients for each kind of listener.

Rules. Every wait is for a line, an answer or an end, and has a deadline. A process is ended by its own object, and
what it has said is then searched for what no server may say: tracebacks, warnings, what the interpreter could not
raise.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.frameworks.running import Lines

import txasgi

ROOT = Path(__file__).parents[2]
APPS = Path(__file__).parent / "apps"
SERVE = (sys.executable, "-m", "txasgi")
LOCAL = "tcp:0:interface=127.0.0.1"
# Bounds a wait that a right server ends at once. Long, because the machine may be busy.
DEADLINE_S = 15.0

# Of the process itself, or of Python about it; an application's own traceback is asked for by name.
COMPLAINTS = re.compile(
    r"Traceback|Warning|Exception ignored|never (?:retrieved|awaited)|was destroyed|Unhandled|Fatal"
)
# All, but for those of the way in which Twisted uses pyOpenSSL.
WARNINGS = "default,ignore::DeprecationWarning:twisted.internet._sslverify,ignore::DeprecationWarning:OpenSSL.SSL"
LISTENING = re.compile(r" INFO +listening on (.+)$")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Ours, without options, and with the package under test and the checkout's plugin on the path.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("TXASGI_", "LISTEN_"))}
    path = [str(Path(txasgi.__file__).parents[1]), str(ROOT)]
    return {
        **inherited,
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": WARNINGS,
        **(extra or {}),
    }


class Process:
    """
    A process and what it says.

    command: all of it; `serve` and `started` make the common ones.
    out, err: its lines.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.popen = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            pass_fds=pass_fds,
        )
        assert self.popen.stdout is not None and self.popen.stderr is not None
        self.out = Lines(self.popen.stdout)
        self.err = Lines(self.popen.stderr)

    @property
    def locations(self) -> list[str]:
        """
        Where it has said that it listens.
        """
        return [found[1] for line in self.err if (found := LISTENING.search(line))]

    def wait_for(self, text: str) -> str:
        """
        The first line on standard error that has this text in it.
        """
        return self.err.first(lambda line: text in line, f"line with {text!r}", DEADLINE_S)

    def wait_for_access(self, text: str) -> str:
        """
        The first line on standard output that has this text in it.
        """
        return self.out.first(lambda line: text in line, f"access line with {text!r}", DEADLINE_S)

    def listening(self, count: int = 1) -> list[str]:
        """
        Wait until it listens at so many places, and return them.
        """
        self.err.first(lambda _line: len(self.locations) >= count, f"{count} listeners", DEADLINE_S)
        return self.locations

    @property
    def location(self) -> str:
        """
        The only place where it listens.
        """
        (only,) = self.listening()
        return only

    def send_signal(self, which: signal.Signals) -> None:
        self.popen.send_signal(which)

    def wait(self, within_s: float = DEADLINE_S) -> int:
        """
        The exit status, with everything read that it wrote.
        """
        try:
            status = self.popen.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {within_s} s:\n{self.err.text(last=20)}") from None
        self.out.wait_for_end()
        self.err.wait_for_end()
        return status

    def stop(self, which: signal.Signals = signal.SIGTERM) -> int:
        """
        Ask it to end, and return its exit status.
        """
        self.send_signal(which)
        return self.wait()

    def check(self) -> None:
        """
        Fail if it has said what a server must not say.
        """
        for lines in (self.err, self.out):
            for line in lines:
                assert not COMPLAINTS.search(line), lines.text(last=20)


@contextmanager
def started(
    command: Sequence[str],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Process]:
    """
    A process that is gone, one way or another, at the end of the with statement.
    """
    process = Process(command, folder, env, pass_fds)
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
            process.wait()


@contextmanager
def serving(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    complains: bool = False,
) -> Iterator[Process]:
    """
    The command `serve` with the applications of these tests; ended with SIGTERM and checked, unless it has ended.

    complains: the test itself looks at tracebacks and warnings.
    """
    command = [*SERVE, "--app-dir", str(APPS), *arguments]
    with started(command, folder, env=env, pass_fds=pass_fds) as process:
        yield process
        if process.popen.poll() is None:
            status = process.stop()
            assert status == 0, f"ended with {status}:\n{process.err.text(last=20)}"
        if not complains:
            process.check()


class Ended(NamedTuple):
    """
    What a process left behind.
    """

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """
        The one line on standard error, without "serve: ".
        """
        assert self.err.startswith("serve: ") and self.err.endswith("\n") and self.err.count("\n") == 1, self.err
        assert self.out == ""
        return self.err[7:-1]


def ended(
    folder: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Ended:
    """
    Run `serve` with the applications of these tests until it ends by itself.
    """
    command = [*SERVE, "--app-dir", str(APPS), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        pass_fds=pass_fds,
        timeout=2 * DEADLINE_S,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


# Clients


def until(condition: Callable[[], Any], what: str) -> Any:
    """
    Ask again and again until the condition holds; what it gave.
    """
    deadline = time.monotonic() + DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        time.sleep(0.005)
    return found


def dial(location: str, trust: ssl.SSLContext | None = None, name: str = "localhost") -> socket.socket:
    """
    A connection to where a server said that it listens.
    """
    if location.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE_S)
        sock.connect(location[5:])
        return sock
    sock = socket.create_connection(address_of(location), DEADLINE_S)
    if location.startswith("https:"):
        assert trust is not None
        return trust.wrap_socket(sock, server_hostname=name)
    return sock


def address_of(location: str) -> tuple[str, int]:
    """
    Host and port of a URL; the loopback address for one that listens on all.
    """
    host, _, port = location.partition("://")[2].rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def refused(location: str) -> bool:
    """
    Whether nobody listens there.
    """
    try:
        dial(location).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


class Answer(NamedTuple):
    """
    An answer, read whole.
    """

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        """
        The values of the fields with this name.
        """
        return [value for given, value in self.fields if given.lower() == name.lower()]

    @property
    def scope(self) -> dict[str, Any]:
        """
        The scope that the application was called with.
        """
        assert self.status == 200
        found: dict[str, Any] = json.loads(self.body)
        return found


def read_answer(sock: socket.socket, method: str = "GET") -> Answer:
    """
    Read the answer to a request that was sent.
    """
    response = http.client.HTTPResponse(sock, method=method)
    response.begin()
    return Answer(response.status, response.getheaders(), response.read())


def request(target: str = "/", *fields: str, method: str = "GET") -> bytes:
    """
    The bytes of a request without a body.
    """
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: peer.test", *fields, "", ""]).encode("latin-1")


def ask(location: str, target: str = "/", *fields: str, trust: ssl.SSLContext | None = None) -> Answer:
    """
    One GET on a connection of its own.
    """
    with dial(location, trust) as sock:
        sock.sendall(request(target, *fields, "Connection: close"))
        answer = read_answer(sock)
        assert sock.recv(1) == b""
        return answer


def half_sent(location: str) -> socket.socket:
    """
    A request whose last byte is still to come: b"!".
    """
    sock = dial(location)
    sock.sendall(request("/body", "Content-Length: 2", method="POST") + b"?")
    return sock


def reset(sock: socket.socket) -> None:
    """
    Close a TCP connection with RST.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
