"""
Clients of a TLS port that speak something else, or slowly, or not at all; and independent ones that do it well.
"""

from __future__ import annotations

import re
import resource
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from tests.serve.certificates import Authorities, write
from tests.serve.conftest import ssl_endpoint
from tests.serve.handshakes import (
    ask_over,
    chain_serials,
    open_files,
    resident_bytes,
    s_client,
    served_chain,
    served_serial,
    serving_all,
    shake,
    tls_client,
)
from tests.serve.processes import (
    DEADLINE_S,
    Answer,
    Process,
    address_of,
    ask,
    read_answer,
    request,
    reset,
    serving,
    until,
)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities) -> Iterator[Process]:
    """
    A server with an ssl: endpoint that logs what it does at the default level, and nothing about bad clients.
    """
    folder = tmp_path_factory.mktemp("peers")
    both = write(folder / "both.pem", authorities.server().both_pem)
    with serving(folder, "-e", ssl_endpoint(both), "served:app") as running:
        yield running
        lines = list(running.err)
    assert [line for line in lines if re.search(" (WARNING|ERROR|CRITICAL) ", line)] == []


def dialled(location: str) -> socket.socket:
    """
    A TCP connection, whatever is spoken there.
    """
    sock = socket.create_connection(address_of(location), DEADLINE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def all_of(sock: socket.socket) -> bytes:
    """
    What comes until the connection is closed in order; a reset is raised.
    """
    found = b""
    while more := sock.recv(65536):
        found += more
    return found


def client_hello(name: str = "localhost") -> bytes:
    """
    The first flight of a client.
    """
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls_client().wrap_bio(coming, going, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return going.read()


# Plain HTTP

PLAIN = {
    "GET": request(),
    "GET of HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "POST": request("/body", "Content-Length: 5", method="POST") + b"hello",
    "OPTIONS": request("*", method="OPTIONS"),
    "PUT": request("/x", "Content-Length: 0", method="PUT"),
    "DELETE": request("/x", method="DELETE"),
    "PATCH": request("/x", "Content-Length: 0", method="PATCH"),
    "CONNECT": request("a:1", method="CONNECT"),
    "WebSocket": request("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
}


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", PLAIN)
def test_plain_http(name: str, slowly: bool, process: Process) -> None:
    """
    A client that speaks plain HTTP is told in HTTP that it must not, and the application hears nothing of it.
    """
    with dialled(process.location) as sock:
        if slowly:
            for byte in PLAIN[name]:
                if select.select([sock], [], [], 0)[0]:
                    break
                sock.sendall(bytes([byte]))
        else:
            sock.sendall(PLAIN[name])
        client = "{}:{}".format(*sock.getsockname())
        answer = read_answer(sock)
        assert answer.status == 400
        assert answer.values("content-type")[0].partition(";")[0] == "text/plain"
        assert answer.values("connection") == ["close"]
        assert re.search(rb"https://|TLS", answer.body)
        assert sock.recv(1) == b""
    assert [] == [line for line in process.out if client in line and " 400 " not in line]


def test_status_line_for_plain_http(process: Process) -> None:
    """
    The answer is HTTP/1.1, and each field of it is well-formed.
    """
    with dialled(process.location) as sock:
        sock.sendall(request())
        head, _, body = all_of(sock).partition(b"\r\n\r\n")
    first, *fields = head.decode("ascii").split("\r\n")
    assert first == "HTTP/1.1 400 Bad Request"
    assert all(re.fullmatch(r"[A-Za-z-]+: \S.*", field) for field in fields)
    given = [field.partition(": ")[2] for field in fields if field.lower().startswith("content-length:")]
    assert [str(len(body))] == given


def test_long_plain_request(process: Process) -> None:
    """
    A client that speaks plain HTTP at length can still read what it is told.
    """
    for _ in range(10):
        with dialled(process.location) as sock:
            sock.sendall(request("/body", "Content-Length: 65536", method="POST") + b"x" * 65536)
            answer: Answer = read_answer(sock)
            assert answer.status == 400


# Garbage

GARBAGE = {
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "SSH": b"SSH-2.0-OpenSSH_9.9\r\n",
    "text": b"hello, is anybody there?\r\n",
    "a record of nothing": b"\x16\x03\x01\x00\x00" + bytes(10),
    "a ClientHello of noise": b"\x16\x03\x01\x00\x40\x01\x00\x00\x3c" + b"\xa5" * 60,
    "a record that is too long": b"\x16\x03\x01\xff\xff" + bytes(100),
    "application data": b"\x17\x03\x03\x00\x10" + bytes(16),
    "SSL 2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(40),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("name", [name for name in GARBAGE if name != "HTTP/2"])
def test_garbage(name: str, process: Process) -> None:
    """
    What is no ClientHello is answered with a fatal alert, and the connection is closed.
    """
    with dialled(process.location) as sock:
        sock.sendall(GARBAGE[name])
        found = all_of(sock)
    assert len(found) == 7
    kind, major, length, level = found[0], found[1], int.from_bytes(found[3:5]), found[5]
    assert (21, 3, 2, 2) == (kind, major, length, level)


def test_preface_of_http_2(process: Process) -> None:
    """
    The preface of HTTP/2 without TLS is refused, one way or the other.
    """
    with dialled(process.location) as sock:
        sock.sendall(GARBAGE["HTTP/2"])
        found = all_of(sock)
    assert found.startswith((b"HTTP/1.1 400 ", b"\x15\x03"))


def test_nobody_is_disturbed(process: Process) -> None:
    """
    What bad clients do is not logged, and others are served.
    """
    before = len(list(process.err))
    for garbage in GARBAGE.values():
        with dialled(process.location) as sock:
            sock.sendall(garbage)
            all_of(sock)
    for part in (client_hello()[:100], client_hello(), b"\x16"):
        with dialled(process.location) as sock:
            sock.sendall(part)
        sock = dialled(process.location)
        sock.sendall(part)
        reset(sock)
    assert ask(process.location, trust=tls_client()).status == 200
    said = list(process.err)[before:]
    assert [] == [line for line in said if not line.startswith("app: ")]


def test_debug_lines(folder: Path, authorities: Authorities) -> None:
    """
    With --log-level debug there is one line for each client that does not know TLS, without a traceback.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    with serving(folder, "-e", ssl_endpoint(both), "--log-level", "debug", "served:app") as process:
        location = process.location
        # Let the lines of the start be over.
        assert ask(location, trust=tls_client()).status == 200
        process.wait_for("app: answered /")
        before = len(list(process.err))

        def told() -> list[str]:
            return list(process.err)[before:]

        garbage = [value for name, value in GARBAGE.items() if name != "HTTP/2"]
        for count, value in enumerate(garbage, 1):
            with dialled(location) as sock:
                sock.sendall(value)
                all_of(sock)
            until(lambda count=count: len(told()) >= count, f"{count} lines")
        assert len(garbage) == len(told())
        assert [] == [line for line in told() if " DEBUG " not in line]


# Slow and silent


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_byte_by_byte(version: str, process: Process, authorities: Authorities) -> None:
    """
    A handshake and a request that come byte by byte are as good as others.
    """
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = tls_client(authorities.root_file, version=version)
    client = context.wrap_bio(coming, going, server_hostname="localhost")
    with dialled(process.location) as sock:

        def send_all() -> None:
            for byte in going.read():
                sock.sendall(bytes([byte]))

        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                send_all()
                coming.write(sock.recv(65536))
        client.write(request())
        answer = b""
        while b"}" not in answer:
            send_all()
            try:
                answer += client.read(65536)
            except ssl.SSLWantReadError:
                coming.write(sock.recv(65536))
    assert answer.startswith(b"HTTP/1.1 200 ")


def closed_after(sock: socket.socket, since: float) -> float:
    """
    Seconds from then until the server has closed the connection, one way or another.
    """
    sock.settimeout(2 * DEADLINE_S)
    with suppress(ConnectionResetError):
        all_of(sock)
    return time.monotonic() - since


@pytest.mark.slow
def test_handshake_that_stops(process: Process) -> None:
    """
    A handshake that does not end is cut off after 10 s, wherever it stops, however slowly it goes on.
    """
    hello = client_hello()
    since = time.monotonic()
    with ExitStack() as stack:
        stopped = {}
        for name, part in {
            "silent": b"",
            "first byte": hello[:1],
            "half a record header": hello[:3],
            "half a ClientHello": hello[: len(hello) // 2],
            "no Finished": hello,
            "half a plain request": b"GE",
        }.items():
            stopped[name] = stack.enter_context(dialled(process.location))
            stopped[name].sendall(part)
        dripping = stack.enter_context(dialled(process.location))
        ended = threading.Event()

        def drip() -> None:
            for byte in hello:
                try:
                    dripping.sendall(bytes([byte]))
                except OSError:
                    return
                if ended.wait(0.5):
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert ask(process.location, trust=tls_client()).status == 200
            took = {name: closed_after(sock, since) for name, sock in [*stopped.items(), ("drip", dripping)]}
        finally:
            ended.set()
            thread.join()
    assert {} == {name: round(s, 1) for name, s in took.items() if not 9 <= s <= 13}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_close_notify_that_is_not_answered(version: str, process: Process) -> None:
    """
    A connection ends also when its client neither answers the server's close_notify nor closes.
    """
    encrypted = shake(process.location, tls_client(version=version))
    encrypted.sendall(request("/", "Connection: close"))
    assert read_answer(encrypted).status == 200
    since = time.monotonic()
    with socket.socket(fileno=encrypted.detach()) as sock:
        assert closed_after(sock, since) < 12
        # Closed for both directions: what the client says now is answered with a reset.
        until(lambda: not open_at(process, sock.getsockname()[1]), "the end of the connection")


def open_at(process: Process, port: int) -> bool:
    """
    Whether the server's kernel still has a connection from this port that is not closed on the server's side.
    """
    server_port = address_of(process.location)[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, ours, theirs, state, *_ = line.split()
        if int(ours.rpartition(":")[2], 16) == server_port and int(theirs.rpartition(":")[2], 16) == port:
            return state == "01"
    return False


@pytest.mark.slow
def test_a_thousand_that_never_finish(folder: Path, authorities: Authorities) -> None:
    """
    1,000 clients that begin a handshake and stop do not keep the next one waiting, and leave no memory behind.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The server inherits it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(4096, hard)), hard))
    both = write(folder / "both.pem", authorities.server().both_pem)
    hello = client_hello()
    with serving(folder, "-e", ssl_endpoint(both), "served:app") as process:
        location = process.location
        assert ask(location, trust=tls_client()).status == 200
        before = open_files(process)

        def another_round() -> int:
            socks = []
            for number in range(1000):
                socks.append(dialled(location))
                socks[-1].sendall(hello[: (0, 100, len(hello))[number % 3]])
            since = time.monotonic()
            assert ask(location, trust=tls_client()).status == 200
            assert time.monotonic() - since < 3
            assert open_files(process) >= before + 1000
            for sock in socks:
                sock.close()
            until(lambda: open_files(process) <= before, "the end of all connections")
            return resident_bytes(process)

        try:
            rounds = [another_round() for _ in range(3)]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # The first 1,000 take 40 MB. The allocator needs some more until it has settled, and each connection's deadline
        # stays in its queue for the 10 s that it would have lasted: 350 bytes.
        assert rounds[1] - rounds[0] < 8 << 20
        assert rounds[2] - rounds[1] < 2 << 20


# Independent clients


def test_curl(process: Process, authorities: Authorities) -> None:
    """
    curl verifies the server and gets its answer.
    """
    port = address_of(process.location)[1]
    for more in ([], ["--tls-max", "1.2"], ["--tlsv1.3"], ["--http2"], ["--data", "x" * 100_000]):
        command = ["curl", "-q", "--silent", "--show-error", "--noproxy", "*", "--cacert", str(authorities.root_file)]
        command += ["--resolve", f"localhost:{port}:127.0.0.1", "--max-time", str(DEADLINE_S), *more]
        url = f"https://localhost:{port}/" + ("body" if "--data" in more else "")
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert (done.stdout == "x" * 100_000) if "--data" in more else ('"scheme": "https"' in done.stdout)


def test_curl_does_not_trust(process: Process) -> None:
    """
    The test above proves something: without the root curl does not trust the server, which takes no notice.
    """
    done = subprocess.run(["curl", "-q", "--silent", "--noproxy", "*", process.location], check=False)
    assert done.returncode == 60
    assert ask(process.location, trust=tls_client()).status == 200


def test_httpx(process: Process, authorities: Authorities) -> None:
    """
    httpx verifies the server and keeps its connection.
    """
    port = address_of(process.location)[1]
    with httpx.Client(verify=tls_client(authorities.root_file), trust_env=False, timeout=DEADLINE_S) as client:
        scopes = [client.get(f"https://localhost:{port}/{number}").json() for number in range(3)]
        assert ["/0", "/1", "/2"] == [scope["path"] for scope in scopes]
        assert len({tuple(scope["client"]) for scope in scopes}) == 1
        large = bytes(range(256)) * 8192
        assert client.post(f"https://localhost:{port}/body", content=large).content == large


def test_s_client(process: Process, authorities: Authorities) -> None:
    """
    openssl s_client verifies the server, agrees on http/1.1 and gets its answer.
    """
    arguments = ("-showcerts", "-servername", "localhost", "-alpn", "http/1.1", "-ign_eof", "-verify_return_error")
    trust = ("-CAfile", str(authorities.root_file), "-verify_hostname", "localhost")
    text = s_client(process.location, *arguments, *trust, say=request("/", "Connection: close"))
    assert "Verify return code: 0 (ok)" in text
    assert "ALPN protocol: http/1.1" in text
    assert "Compression: NONE" in text
    assert "HTTP/1.1 200 OK" in text
    assert '"scheme": "https"' in text


def test_endings(process: Process) -> None:
    """
    A server that closes says so with close_notify: a client can tell an end from a cut.
    """
    for version in ("TLSv1.2", "TLSv1.3"):
        context = tls_client(version=version)
        with socket.create_connection(address_of(process.location), DEADLINE_S) as plain:
            with context.wrap_socket(plain, suppress_ragged_eofs=False) as sock:
                sock.sendall(request("/", "Connection: close"))
                assert read_answer(sock).status == 200
                assert sock.recv(1) == b""


def test_idle_connection_over_tls(folder: Path, authorities: Authorities) -> None:
    """
    --timeout-keep-alive is for connections with TLS as for others.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    arguments = ("-e", ssl_endpoint(both), "--timeout-keep-alive", "0.1", "served:app")
    with serving(folder, *arguments) as process, shake(process.location) as sock:
        assert ask_over(sock).status == 200
        assert sock.recv(1) == b""


def test_several_certificates_in_one_process(folder: Path, authorities: Authorities) -> None:
    """
    Endpoints of one process do not mix up their certificates.
    """
    made = {f"{number}": authorities.server() for number in range(4)}
    files = {name: write(folder / f"{name}.pem", one.both_pem) for name, one in made.items()}
    with serving_all(folder, {name: ssl_endpoint(file) for name, file in files.items()}, "served:app") as running:
        for name, one in made.items():
            assert one.serial == served_serial(running.at[name])
            assert chain_serials(one) == served_chain(running.at[name])
