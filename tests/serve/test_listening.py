"""
Where the command listens: every kind of endpoint, alone and together, in real processes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import Certificates, ssl_endpoint
from tests.serve.handshakes import WebSocket
from tests.serve.processes import (
    APPS,
    DEADLINE_S,
    LOCAL,
    SERVE,
    Process,
    address_of,
    ask,
    dial,
    ended,
    read_answer,
    refused,
    request,
    serving,
    started,
    until,
)


def has_ipv6() -> bool:
    """
    Whether this machine has the loopback address of IPv6.
    """
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


# Kinds of endpoints


@needs_ipv6
def test_four_at_once(folder: Path, certificates: Certificates) -> None:
    """
    Listeners of every kind share one application; each is printed as a person would use it, and each answers.
    """
    tls = ssl_endpoint(certificates.key, certificates.fullchain)
    arguments = ("-e", LOCAL, "-e", r"tcp6:0:interface=\:\:1", "-e", f"unix:{folder}/a.sock", "-e", tls)
    with serving(folder, *arguments, "served:app") as process:
        tcp, tcp6, unix, https = process.listening(4)
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", tcp)
        assert re.fullmatch(r"http://\[::1\]:\d+", tcp6)
        assert unix == f"unix:{folder}/a.sock"
        assert re.fullmatch(r"https://127\.0\.0\.1:\d+", https)
        for location, host in ((tcp, "127.0.0.1"), (tcp6, "::1"), (https, "127.0.0.1")):
            scope = ask(location, trust=certificates.trust).scope
            assert scope["server"] == [host, address_of(location)[1]]
            assert scope["client"][0] == host
            assert scope["scheme"] == location.partition(":")[0]
        scope = ask(unix).scope
        assert (scope["server"], scope["client"], scope["scheme"]) == ([f"{folder}/a.sock", None], None, "http")
        assert process.stop() == 0
        assert [location for location in (tcp, tcp6, unix) if not refused(location)] == []
        assert [line for line in process.err if "app: st" in line] == ["app: startup"]
        assert list(folder.iterdir()) == []


def test_websocket_over_tls_and_unix(folder: Path, certificates: Certificates) -> None:
    """
    A WebSocket is served on every listener.
    """
    tls = ssl_endpoint(certificates.key, certificates.fullchain)
    with serving(folder, "-e", tls, "-e", "unix:a.sock", "served:app") as process:
        https, _ = process.listening(2)
        for location in (https, f"unix:{folder}/a.sock"):
            with dial(location, certificates.trust) as sock:
                websocket = WebSocket(sock)
                websocket.send("hello")
                assert websocket.receive() == "hello"


@pytest.mark.parametrize(
    ("arguments", "location"),
    [
        (["--host", "127.0.0.1", "--port", "0"], r"http://127\.0\.0\.1:\d+"),
        (["--bind", "0.0.0.0", "-p", "0"], r"http://0\.0\.0\.0:\d+"),
        pytest.param(["-b", "::1", "-p", "0"], r"http://\[::1\]:\d+", marks=needs_ipv6),
        pytest.param(["-e", "tcp6:0"], r"http://\[::\]:\d+", marks=needs_ipv6),
        (["-e", "tcp:port=0:interface=localhost:backlog=5"], r"http://127\.0\.0\.1:\d+"),
        (["--uds", "a:b=c.sock"], r"unix:a:b=c\.sock"),
        (["-e", "haproxy:unix:a.sock"], r"unix:a\.sock"),
    ],
)
def test_spelling(arguments: list[str], location: str, folder: Path) -> None:
    """
    Each way to say where to listen leads there.
    """
    with serving(folder, *arguments, "served:app") as process:
        assert re.fullmatch(location, process.location)
        if not process.location.startswith("unix:"):
            assert ask(process.location).status == 200
        else:
            path = folder / process.location.removeprefix("unix:")
            assert stat.S_ISSOCK(path.stat().st_mode)


@needs_ipv6
def test_dual_stack(folder: Path) -> None:
    """
    tcp6 on all addresses takes IPv4 clients too, and reports them as what they are.
    """
    with serving(folder, "-e", "tcp6:0", "served:app") as process:
        port = address_of(process.location)[1]
        assert ask(f"http://127.0.0.1:{port}").scope["client"][0] == "127.0.0.1"
        assert ask(f"http://[::1]:{port}").scope["client"][0] == "::1"


def test_uds_and_port(folder: Path) -> None:
    """
    A UNIX socket and a port can be given together.
    """
    with serving(folder, "--uds", "a.sock", "--port", "0", "served:app") as process:
        unix, tcp = process.listening(2)
        assert unix == "unix:a.sock"
        assert ask(f"unix:{folder}/a.sock").status == ask(tcp).status == 200


# UNIX sockets


@pytest.mark.parametrize(("option", "mode"), [("", 0o666), (":mode=660", 0o660), (":mode=600", 0o600)])
def test_unix_mode(option: str, mode: int, folder: Path) -> None:
    """
    The socket file has the mode that was asked for, whatever the umask is.
    """
    with serving(folder, "-e", f"unix:a.sock{option}", "served:app") as process:
        assert process.location == "unix:a.sock"
        assert stat.S_IMODE((folder / "a.sock").stat().st_mode) == mode


def test_stale_socket_is_replaced(folder: Path) -> None:
    """
    A socket file that a killed server left is replaced.
    """
    with serving(folder, "-e", "unix:a.sock", "served:app") as killed:
        assert killed.location
        killed.popen.kill()
        assert killed.wait() == -9
    assert (folder / "a.sock").is_socket()
    with serving(folder, "-e", "unix:a.sock", "served:app") as process:
        assert process.location
        assert ask(f"unix:{folder}/a.sock").status == 200
    assert list(folder.iterdir()) == []


def test_live_socket_is_left_alone(folder: Path) -> None:
    """
    A socket where somebody listens is in use; that server goes on.
    """
    with serving(folder, "-e", "unix:a.sock", "served:app") as process:
        assert process.location
        found = ended(folder, "-e", "unix:a.sock", "shapes:app")
        assert (found.status, found.complaint) == (1, "endpoint 'unix:a.sock': cannot listen: Address already in use")
        assert ask(f"unix:{folder}/a.sock").status == 200


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_no_socket_is_left_alone(kind: str, folder: Path) -> None:
    """
    What is no socket is not removed to make place for one.
    """
    path = folder / "precious"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("kept")
        if kind == "link":
            (folder / "target").write_text("kept")
            path.unlink()
            path.symlink_to("target")
    found = ended(folder, "--uds", "precious", "shapes:app")
    assert (found.status, found.complaint) == (1, "endpoint 'unix:precious': cannot listen: Address already in use")
    assert path.is_dir() if kind == "folder" else path.read_text() == "kept"
    assert path.is_symlink() == (kind == "link")


# Inherited sockets


@pytest.fixture
def tcp_socket() -> Iterator[socket.socket]:
    """
    A socket that listens, as whoever starts the server would make it.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def unix_socket(folder: Path) -> Iterator[socket.socket]:
    """
    The same, a UNIX socket.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{folder}/inherited.sock")
        sock.listen()
        yield sock


def test_inherited_tcp_socket(folder: Path, tcp_socket: socket.socket) -> None:
    """
    --fd serves on an inherited socket, and leaves it open for whoever else has it.
    """
    descriptor = tcp_socket.fileno()
    with serving(folder, "--fd", str(descriptor), "served:app", pass_fds=[descriptor]) as process:
        assert process.location == f"http://127.0.0.1:{tcp_socket.getsockname()[1]}"
        assert ask(process.location).scope["client"][0] == "127.0.0.1"
        assert process.stop() == 0
        assert tcp_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def test_inherited_unix_socket(folder: Path, unix_socket: socket.socket) -> None:
    """
    The family of an inherited socket is found out; its file is not ours to remove.
    """
    descriptor = unix_socket.fileno()
    with serving(folder, "-e", f"fd:{descriptor}", "served:app", pass_fds=[descriptor]) as process:
        assert process.location == f"unix:{folder}/inherited.sock"
        assert ask(process.location).scope["server"] == [f"{folder}/inherited.sock", None]
    assert (folder / "inherited.sock").is_socket()


def test_inherited_socket_that_does_not_listen(folder: Path) -> None:
    """
    A connection, or a socket that is only bound, is refused.
    """
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        descriptor = sock.fileno()
        found = ended(folder, "--fd", str(descriptor), "shapes:app", pass_fds=[descriptor])
    assert (found.status, found.complaint) == (
        1,
        f"endpoint 'fd:{descriptor}': descriptor {descriptor} is a socket that does not listen",
    )


# What systemd does before it becomes the server: the sockets from descriptor 3 on, the server's pid in LISTEN_PID.
ACTIVATE = """
import os, sys
names, *passed = sys.argv[1].split(",")
for place, descriptor in enumerate(map(int, passed)):
    os.dup2(descriptor, 100 + place)
for place in range(len(passed)):
    os.dup2(100 + place, 3 + place)
os.environ |= {"LISTEN_FDS": str(len(passed)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": names}
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(names: str, sockets: list[socket.socket], *arguments: str) -> list[str]:
    passed = ",".join([names, *(str(sock.fileno()) for sock in sockets)])
    return [sys.executable, "-c", ACTIVATE, passed, *SERVE, *arguments, "tests.serve.apps.served:app"]


@pytest.mark.parametrize(
    "endpoint",
    ["systemd:index=1", "systemd:name=web", "systemd:domain=INET:index=1", "systemd:domain=INET:name=web"],
)
def test_socket_activation(endpoint: str, folder: Path, tcp_socket: socket.socket, unix_socket: socket.socket) -> None:
    """
    A socket that systemd opened is found by its place and by its name; Twisted's domain= is taken but not needed.
    """
    sockets = [unix_socket, tcp_socket]
    command = activated("control:web", sockets, "-e", endpoint)
    with started(command, folder, pass_fds=[sock.fileno() for sock in sockets]) as process:
        assert process.location == f"http://127.0.0.1:{tcp_socket.getsockname()[1]}"
        assert ask(process.location).status == 200
        assert process.stop() == 0
        process.check()


def test_all_that_systemd_passed(folder: Path, tcp_socket: socket.socket, unix_socket: socket.socket) -> None:
    """
    Several activated sockets can be served at once, of either family.
    """
    sockets = [unix_socket, tcp_socket]
    command = activated("control:web", sockets, "-e", "systemd:name=web", "-e", "systemd:name=control")
    with started(command, folder, pass_fds=[sock.fileno() for sock in sockets]) as process:
        for location in process.listening(2):
            assert ask(location).status == 200
        assert process.stop() == 0
        process.check()
    assert (folder / "inherited.sock").is_socket()


def test_name_that_systemd_did_not_pass(folder: Path, tcp_socket: socket.socket) -> None:
    """
    A name that is not among those passed is refused, with those that are.
    """
    command = activated("web", [tcp_socket], "-e", "systemd:name=wbe")
    with started(command, folder, pass_fds=[tcp_socket.fileno()]) as process:
        assert process.wait() == 1
        (said,) = process.err
        assert "'wbe'" in said and "web" in said.partition("'wbe'")[2]


# The PROXY protocol


@pytest.fixture
def behind_proxy(folder: Path) -> Iterator[Process]:
    """
    A server that expects the PROXY protocol.
    """
    with serving(folder, "-e", f"haproxy:{LOCAL}", "served:app") as process:
        yield process


def test_proxy_v1(behind_proxy: Process) -> None:
    """
    The client of the scope is the one that the PROXY line names.
    """
    with dial(behind_proxy.location) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n" + request())
        scope = read_answer(sock).scope
        assert scope["client"] == ["192.0.2.1", 40000]
        assert scope["server"] == ["192.0.2.2", 443]
        sock.sendall(request("/again"))
        assert read_answer(sock).scope["client"] == ["192.0.2.1", 40000]
    assert behind_proxy.wait_for_access("192.0.2.1:40000")


def test_proxy_v2(behind_proxy: Process) -> None:
    """
    Likewise for the binary version.
    """
    addresses = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + (40000).to_bytes(2, "big") + (443).to_bytes(2, "big")
    with dial(behind_proxy.location) as sock:
        sock.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + addresses + request())
        assert read_answer(sock).scope["client"] == ["192.0.2.1", 40000]


def test_proxy_line_is_missing(behind_proxy: Process) -> None:
    """
    A client that does not speak the PROXY protocol is not served, and does not disturb others.
    """
    with dial(behind_proxy.location) as sock:
        sock.sendall(request())
        assert sock.recv(100) == b""
    with dial(behind_proxy.location) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n" + request())
        assert read_answer(sock).status == 200


# Odd surroundings


@pytest.mark.parametrize("name", [b"\xff.sock", b"\xc3\xa9.sock", b"a b%20.sock"])
def test_odd_socket_names(name: bytes, folder: Path) -> None:
    """
    A UNIX socket may have any name that the file system takes.
    """
    with serving(folder, "--uds", os.fsdecode(name), "served:app") as process:
        assert process.location.startswith("unix:")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE_S)
            sock.connect(os.fsencode(folder) + b"/" + name)
            sock.sendall(request())
            assert read_answer(sock).status == 200


def test_abstract_socket(folder: Path) -> None:
    """
    An abstract UNIX socket can be inherited; its name is written so that it can be read.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(b"\0" + os.fsencode(folder))
        sock.listen()
        descriptor = sock.fileno()
        with serving(folder, "--fd", str(descriptor), "served:app", pass_fds=[descriptor]) as process:
            assert process.location.isprintable()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE_S)
                client.connect(b"\0" + os.fsencode(folder))
                client.sendall(request())
                assert read_answer(client).status == 200


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_descriptors_run_out(loop: str, folder: Path) -> None:
    """
    When there are no descriptors left for new connections, those that are open are served, and new ones later.
    """

    def served(location: str) -> bool:
        try:
            return ask(location).status == 200
        except ConnectionError:
            return False

    few = f"ulimit -n 64; exec {shlex.join(SERVE)} --loop {loop} -e {LOCAL} --app-dir {APPS} served:app"
    with started(["sh", "-c", few], folder) as process:
        location = process.location
        with dial(location) as first, contextlib.ExitStack() as others:
            first.sendall(request())
            assert read_answer(first).status == 200
            for _ in range(100):
                others.enter_context(dial(location))
            first.sendall(request())
            assert read_answer(first).status == 200
        until(lambda: served(location), "an answer")
        assert process.stop() == 0


def test_descriptors_are_not_leaked(folder: Path) -> None:
    """
    A process that the application starts does not get the listening sockets, so that the port is free again.
    """
    (folder / "starter.py").write_text(
        "import subprocess, sys\nfrom tests.serve.apps.shapes import answer\n\n"
        "async def app(scope, receive, send):\n"
        "    code = 'import os; print(*sorted(os.listdir(\"/proc/self/fd\")))'\n"
        "    found = subprocess.run([sys.executable, '-c', code], close_fds=False, capture_output=True, text=True)\n"
        "    await answer(found.stdout, scope, receive, send)\n"
    )
    with serving(folder, "-e", LOCAL, "-e", "unix:a.sock", "--app-dir", str(folder), "starter:app") as process:
        location, _ = process.listening(2)
        descriptors = set(map(int, ask(location).body.split()))
        # Standard input, output and error, and the directory that is being listed.
        assert len(descriptors - {0, 1, 2}) == 1
