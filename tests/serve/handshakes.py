"""
TLS clients: what they offer, what they get, and what they are told when they are refused.
"""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.serve.certificates import Signed, write
from tests.serve.processes import DEADLINE_S, Answer, Process, address_of, read_answer, request, serving
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


def tls_client(
    trust: Path | None = None,
    *,
    version: str = "",
    ciphers: str = "",
    alpn: Sequence[str] = (),
    certificate: Path | None = None,
) -> ssl.SSLContext:
    """
    A client's context.

    trust: a PEM file of authorities; without it every server is believed.
    version: the only one that it speaks. ciphers: those of TLS 1.2. certificate: its own, key and chain in one file.
    """
    context = ssl.create_default_context(cafile=str(trust) if trust else None)
    if trust is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if version:
        # The highest first: a range must never be empty.
        context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED
        context.minimum_version = VERSIONS[version]
        context.maximum_version = VERSIONS[version]
    if ciphers:
        context.set_ciphers(ciphers)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if certificate:
        context.load_cert_chain(certificate)
    return context


def shake(
    location: str,
    context: ssl.SSLContext | None = None,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    """
    A connection after its handshake.

    name: what it asks for by SNI; None asks for nothing.
    """
    sock = socket.create_connection(address_of(location), DEADLINE_S)
    try:
        return (context or tls_client()).wrap_socket(sock, server_hostname=name, session=session)
    except BaseException:
        sock.close()
        raise


def ask_over(sock: socket.socket, target: str = "/") -> Answer:
    """
    One GET; the connection stays.
    """
    sock.sendall(request(target))
    return read_answer(sock)


class WebSocket:
    """
    A WebSocket client on one thread. With two, as that of websockets has, Python's SSLSocket now and then breaks when
    it reads the tickets of TLS 1.3 while it writes.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._protocol = ClientProtocol(parse_uri("ws://localhost/"))
        self._protocol.send_request(self._protocol.connect())
        self._flush()
        self._events: list[object] = []
        answer = self._next()
        assert isinstance(answer, Response) and answer.status_code == 101, answer

    def _flush(self) -> None:
        for part in self._protocol.data_to_send():
            self._sock.sendall(part)

    def _next(self) -> object:
        while not self._events:
            read = self._sock.recv(65536)
            assert read, "closed"
            self._protocol.receive_data(read)
            self._events += self._protocol.events_received()
        return self._events.pop(0)

    def send(self, text: str) -> None:
        self._protocol.send_text(text.encode())
        self._flush()

    def receive(self) -> str:
        """
        The next message, which must be a text in one frame.
        """
        frame = self._next()
        assert isinstance(frame, Frame) and frame.opcode is Opcode.TEXT and frame.fin, frame
        return bytes(frame.data).decode()


def served_certificate(
    location: str, context: ssl.SSLContext | None = None, name: str | None = "localhost"
) -> x509.Certificate:
    """
    The server's own certificate, as a client sees it that believes everything.
    """
    with shake(location, context, name) as sock:
        encoded = sock.getpeercert(binary_form=True)
        assert encoded is not None
        return x509.load_der_x509_certificate(encoded)


def served_serial(location: str, context: ssl.SSLContext | None = None, name: str | None = "localhost") -> int:
    return served_certificate(location, context, name).serial_number


def s_client(location: str, *arguments: str, say: bytes = b"") -> str:
    """
    What `openssl s_client` writes, on both streams, when it connects there and says these bytes.
    """
    host, port = address_of(location)
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", *arguments],
        input=say,
        capture_output=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )
    return (done.stdout + done.stderr).decode("latin-1")


def served_chain(location: str, *arguments: str) -> list[int]:
    """
    The serial numbers of all certificates that the server sends, in its order.
    """
    text = s_client(location, "-showcerts", *arguments)
    found = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", text, re.DOTALL)
    return [x509.load_pem_x509_certificate(pem.encode()).serial_number for pem in found]


def chain_serials(one: Signed) -> list[int]:
    """
    The serial numbers of its chain, its own first.
    """
    return [signed.serial for signed in one.chain]


def stapled_serial(location: str, *arguments: str) -> int | None:
    """
    The serial number that the stapled OCSP response is about; None without one.
    """
    text = s_client(location, "-status", *arguments)
    if "OCSP response: no response sent" in text:
        return None
    assert "OCSP Response Status: successful" in text, text
    assert "Cert Status: good" in text, text
    found = re.search(r"OCSP Response Data:.*?Serial Number: ([0-9A-F]+)", text, re.DOTALL)
    assert found is not None, text
    return int(found[1], 16)


def alert_of(location: str, context: ssl.SSLContext, name: str = "localhost", *, say: bytes | None = None) -> str:
    """
    The alert that a client reads which is refused, in words: "unknown ca". A reset is raised as what it is.

    say: what it sends as soon as its own part of the handshake is done, which in TLS 1.3 is before it is refused.
    """
    try:
        with shake(location, context, name) as sock:
            sock.sendall(request() if say is None else say)
            answered = sock.recv(65536)
    except ssl.SSLError as error:
        return alert_in(error)
    raise AssertionError(f"not refused, but answered with {answered!r}")


def alert_in(error: ssl.SSLError) -> str:
    """
    The alert that an error tells of, in words.
    """
    found = re.search(r"alert ([a-z ]+)", str(error).partition("] ")[2])
    assert found is not None, f"refused without an alert: {error}"
    return found[1].strip()


def client_file(folder: Path, name: str, one: Signed) -> Path:
    """
    Key and chain of a client certificate in one file.
    """
    return write(folder / f"{name}.pem", one.both_pem)


def same_certificate(pem: str, one: Signed) -> bool:
    """
    Whether a text is exactly this certificate in PEM.
    """
    (found,) = x509.load_pem_x509_certificates(pem.encode())
    return found.public_bytes(Encoding.PEM).decode().split() == pem.split() and found == one.certificate


def open_files(process: Process) -> int:
    """
    How many descriptors the server has.
    """
    return len(list(Path(f"/proc/{process.popen.pid}/fd").iterdir()))


def resident_bytes(process: Process) -> int:
    """
    What the server takes of memory.
    """
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process.popen.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


class Running:
    """
    A server with several endpoints.

    at: location by the name of the endpoint.
    """

    def __init__(self, process: Process, names: Sequence[str]) -> None:
        self.process = process
        self.at = dict(zip(names, process.listening(len(names)), strict=True))


@contextmanager
def serving_all(
    folder: Path, endpoints: Mapping[str, str], *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """
    One server process with all these endpoints; arguments: options and the application.
    """
    spelled = [argument for endpoint in endpoints.values() for argument in ("-e", endpoint)]
    with serving(folder, *spelled, *arguments, env=env) as process:
        yield Running(process, list(endpoints))
