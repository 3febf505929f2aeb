"""
TLS: chains, keys, names, and clients that do not play along.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path

import pytest
from tests.serve.conftest import Certificates, ssl_endpoint
from tests.serve.processes import DEADLINE_S, ask, dial, ended, read_answer, request, serving


def test_full_chain(folder: Path, certificates: Certificates) -> None:
    """
    With the whole chain in certKey, or with extraCertChain, or all in one file, a client needs to know the root alone.
    """
    endpoints = [
        ssl_endpoint(certificates.key, certificates.fullchain),
        ssl_endpoint(certificates.key, certificates.leaf, f":extraCertChain={certificates.chain}"),
        ssl_endpoint(certificates.both),
    ]
    arguments = [argument for endpoint in endpoints for argument in ("-e", endpoint)]
    with serving(folder, *arguments, "served:app") as process:
        for location in process.listening(3):
            assert ask(location, trust=certificates.trust).scope["scheme"] == "https"


def test_chain_that_is_not_whole(folder: Path, certificates: Certificates) -> None:
    """
    The test above proves something: without the intermediate certificate the client does not trust the server.
    """
    endpoint = ssl_endpoint(certificates.key, certificates.leaf)
    with serving(folder, "-e", endpoint, "served:app") as process:
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(process.location, trust=certificates.trust)
        # A handshake that fails is the client's affair: nothing is logged, others are served.
        knows_more = ssl.create_default_context(cafile=str(certificates.root))
        knows_more.load_verify_locations(certificates.chain)
        assert ask(process.location, trust=knows_more).status == 200


def test_alpn(folder: Path, certificates: Certificates) -> None:
    """
    What the server speaks is agreed on by ALPN.
    """
    context = ssl.create_default_context(cafile=str(certificates.root))
    context.set_alpn_protocols(["h3", "http/1.1"])
    endpoint = ssl_endpoint(certificates.key, certificates.fullchain)
    with serving(folder, "-e", endpoint, "served:app") as process, dial(process.location, context) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        assert sock.selected_alpn_protocol() == "http/1.1"
        sock.sendall(request())
        assert read_answer(sock).status == 200


@pytest.mark.slow
def test_silent_tls_client(folder: Path, certificates: Certificates) -> None:
    """
    An idle connection ends also when the client never answers the server's close_notify.
    """
    endpoint = ssl_endpoint(certificates.key, certificates.fullchain)
    with serving(folder, "-e", endpoint, "--timeout-keep-alive", "0.1", "served:app") as process:
        encrypted = dial(process.location, certificates.trust)
        encrypted.sendall(request())
        assert read_answer(encrypted).status == 200
        # It is told, and after two seconds cut off.
        with socket.socket(fileno=encrypted.detach()) as sock, contextlib.suppress(ConnectionResetError):
            sock.settimeout(DEADLINE_S)
            while sock.recv(1000):
                pass


def test_encrypted_key(folder: Path, certificates: Certificates) -> None:
    """
    A key with a password is refused; nobody is asked for it on a terminal.
    """
    found = ended(folder, "-e", ssl_endpoint(certificates.encrypted, certificates.leaf), "shapes:app")
    assert found.status == 1
    assert f"privateKey {certificates.encrypted} is encrypted" in found.complaint


@pytest.mark.parametrize(
    ("key", "certificate", "said"),
    [
        ("other_key", "leaf", "does not belong"),
        ("key", "chain", "does not belong"),
        ("leaf", "leaf", "no PEM private key"),
        ("key", "key", "no PEM certificate"),
        ("key", "by_name", "Is a directory"),
    ],
)
def test_key_and_certificate_do_not_fit(
    key: str, certificate: str, said: str, folder: Path, certificates: Certificates
) -> None:
    """
    A key and a certificate that do not belong together, or are none, are refused with the names of their files.
    """
    key_file, certificate_file = getattr(certificates, key), getattr(certificates, certificate)
    found = ended(folder, "-e", ssl_endpoint(key_file, certificate_file), "shapes:app")
    assert found.status == 1
    assert said in found.complaint
    assert str(key_file) in found.complaint and str(certificate_file) in found.complaint


def test_certificates_by_name(folder: Path, certificates: Certificates) -> None:
    """
    tls: takes a directory of PEM files, and the client gets the one for the name it asks for.
    """
    endpoint = f"tls:{certificates.by_name}:0:interface=127.0.0.1"
    with serving(folder, "-e", endpoint, "served:app") as process:
        for name in ("localhost", "other.test"):
            with dial(process.location, certificates.trust, name) as sock:
                sock.sendall(request())
                assert read_answer(sock).scope["scheme"] == "https"
