"""
Client certificates: who is let in, what the refused are told, and what the application learns.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.serve.certificates import Authorities, Signed, client_certificate, revocation_list, write
from tests.serve.conftest import ssl_endpoint
from tests.serve.handshakes import (
    Running,
    WebSocket,
    alert_of,
    ask_over,
    client_file,
    s_client,
    same_certificate,
    served_certificate,
    serving_all,
    shake,
    tls_client,
)
from tests.serve.processes import LOCAL, ask
from websockets.sync.client import connect

VERSIONS = ["TLSv1.2", "TLSv1.3"]
# The IANA registry "TLS Cipher Suites", by OpenSSL's names.
SUITES = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
}


@dataclass(frozen=True, slots=True)
class Clients:
    """
    Client certificates by what they are there for, their files, and those of the server.
    """

    folder: Path
    made: dict[str, Signed]
    ec: Signed
    rsa: Signed

    def file(self, what: str) -> Path:
        return self.folder / f"{what}.pem"

    def context(self, what: str, version: str = "", ciphers: str = "") -> ssl.SSLContext:
        """
        A client with this certificate; "nobody" has none.
        """
        certificate = None if what == "nobody" else self.file(what)
        return tls_client(self.folder / "root.pem", version=version, ciphers=ciphers, certificate=certificate)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities) -> Clients:
    folder = tmp_path_factory.mktemp("clients")
    root, intermediate = authorities.client_root, authorities.client_intermediate
    made = {
        "alice": client_certificate("alice", root),
        "zoe": client_certificate("Zoë, of the 2nd floor", root, organization='Example + Sons, "Inc."'),
        "chained": client_certificate("chained", intermediate, organization="Example"),
        "stranger": client_certificate("stranger", authorities.stranger),
        "itself": client_certificate("itself", None),
        "expired": client_certificate("expired", root, begins=-30, ends=-1),
        "future": client_certificate("future", root, begins=1, ends=30),
        "for servers": client_certificate("for servers", root, purpose=ExtendedKeyUsageOID.SERVER_AUTH),
        "revoked": client_certificate("revoked", root),
        "revoked chained": client_certificate("revoked chained", intermediate),
    }
    for what, one in made.items():
        client_file(folder, what, one)
    # Sends its intermediate and, as some do, the root.
    write(folder / "whole.pem", made["chained"].both_pem, root.pem)
    write(folder / "root.pem", authorities.root.pem)
    return Clients(folder, made, authorities.server(), authorities.server(kind="rsa"))


@pytest.fixture(scope="module")
def endpoints(clients: Clients, authorities: Authorities) -> dict[str, str]:
    folder = clients.folder
    ec = write(folder / "ec.pem", clients.ec.both_pem)
    rsa = write(folder / "rsa.pem", clients.rsa.both_pem)
    lists = write(
        folder / "lists.pem",
        revocation_list(authorities.client_root, clients.made["revoked"]),
        revocation_list(authorities.client_intermediate, clients.made["revoked chained"]),
    )
    pair = ssl_endpoint(ec, ec, f":privateKey={rsa}:certKey={rsa}")
    known = f"{pair}:clientCA={authorities.client_root_file}"
    return {
        "none": pair,
        "none, clientCA": f"{known}:clientVerify=none",
        "required by default": known,
        "required": f"{known}:clientVerify=required",
        "optional": f"{known}:clientVerify=optional",
        "required, crl": f"{known}:crl={lists}",
        "optional, crl": f"{known}:clientVerify=optional:crl={lists}",
        "suite": f"{pair}:ciphersuites=TLS_CHACHA20_POLY1305_SHA256",
        "plain": LOCAL,
        "unix": "unix:a.sock",
    }


@pytest.fixture(scope="module")
def server(clients: Clients, endpoints: dict[str, str]) -> Iterator[Running]:
    """
    One process for all kinds of verification.
    """
    with serving_all(clients.folder, endpoints, "scopes:app") as running:
        yield running


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory, clients: Clients, endpoints: dict[str, str]) -> Iterator[Running]:
    """
    The same with --tls-extension.
    """
    with serving_all(tmp_path_factory.mktemp("telling"), endpoints, "--tls-extension", "scopes:app") as running:
        yield running


# Who is let in

REQUIRING = ["required", "required by default", "required, crl"]
LET_IN = ["alice", "zoe", "chained", "whole"]
# The alert is that of RFC 8446 section 6.2.
REFUSED = {
    "stranger": "unknown ca",
    "itself": "unknown ca",
    "expired": "certificate expired",
    "future": "bad certificate",
    "for servers": "unsupported certificate",
}
REVOKED = ["revoked", "revoked chained"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", LET_IN)
def test_required_and_given(what: str, version: str, server: Running, clients: Clients) -> None:
    """
    A client whose certificate verifies is served, and the application is told its name.
    """
    for at in REQUIRING:
        with shake(server.at[at], clients.context(what, version)) as sock:
            told = ask_over(sock).scope["extensions"]["tls"]
            assert told["client_cert_error"] is None
            assert same_certificate(told["client_cert_chain"][0], clients.made["chained" if what == "whole" else what])


@pytest.mark.parametrize("at", REQUIRING)
def test_required_and_not_given(at: str, server: Running, clients: Clients) -> None:
    """
    A client without a certificate is refused, and reads why.
    """
    assert "certificate required" == alert_of(server.at[at], clients.context("nobody", "TLSv1.3"))
    assert "handshake failure" == alert_of(server.at[at], clients.context("nobody", "TLSv1.2"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("what", "alert"), REFUSED.items())
def test_required_and_refused(what: str, alert: str, version: str, server: Running, clients: Clients) -> None:
    """
    A client whose certificate does not verify is refused, and reads why.
    """
    for at in REQUIRING:
        assert alert == alert_of(server.at[at], clients.context(what, version))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", REVOKED)
def test_revoked(what: str, version: str, server: Running, clients: Clients) -> None:
    """
    A client whose certificate is revoked by one of the lists of crl= is refused; without crl= nobody knows of it.
    """
    assert "certificate revoked" == alert_of(server.at["required, crl"], clients.context(what, version))
    with shake(server.at["required"], clients.context(what, version)) as sock:
        assert ask_over(sock).status == 200


@pytest.mark.parametrize("say", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"POST" * 16384], ids=["0", "27", "64k"])
def test_refused_client_reads_the_alert(say: bytes, server: Running, clients: Clients) -> None:
    """
    The alert is there to be read each time, also by a client that has sent much already.
    """
    context = clients.context("stranger", "TLSv1.3")
    for _ in range(20):
        assert "unknown ca" == alert_of(server.at["required"], context, say=say)


@pytest.mark.parametrize("version", VERSIONS)
def test_optional(version: str, server: Running, clients: Clients) -> None:
    """
    Where certificates are optional everybody is let in, and the application is told what is wrong with one.
    """
    for what in ("nobody", *LET_IN, *REFUSED, *REVOKED):
        for at in ("optional", "optional, crl"):
            with shake(server.at[at], clients.context(what, version)) as sock:
                told = ask_over(sock).scope["extensions"]["tls"]
            error = told["client_cert_error"]
            if what in REFUSED or (what in REVOKED and at == "optional, crl"):
                assert isinstance(error, str) and error != ""
            else:
                assert error is None
            if what == "nobody":
                assert (told["client_cert_chain"], told["client_cert_name"]) == ([], None)
            elif error is None:
                assert told["client_cert_name"] is not None
            # One that does not verify is told all the same: the application decides.
            if what != "nobody":
                one = clients.made["chained" if what == "whole" else what]
                assert same_certificate(told["client_cert_chain"][0], one)


@pytest.mark.parametrize("at", ["none", "none, clientCA"])
def test_not_asked_for(at: str, server: Running, clients: Clients) -> None:
    """
    Without verification no client is asked for a certificate.
    """
    for version in ("-tls1_2", "-tls1_3"):
        text = s_client(server.at[at], version)
        assert "No client certificate CA names sent" in text
        assert "Client Certificate Types" not in text and "Requested Signature Algorithms" not in text
    for what in ("nobody", "stranger", "expired"):
        assert ask(server.at[at], trust=clients.context(what)).status == 200


@pytest.mark.parametrize(("at", "version"), [("required", "-tls1_3"), ("optional", "-tls1_3"), ("optional", "-tls1_2")])
def test_authorities_are_named(at: str, version: str, server: Running) -> None:
    """
    A client that is asked for a certificate is told which authorities count.
    """
    text = s_client(server.at[at], version)
    assert "Acceptable client certificate CA names\nCN = a root for clients" in text


# Sessions


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("at", "what"),
    [("required", "alice"), ("required", "chained"), ("required, crl", "alice"), ("optional", "alice")]
    + [("optional", what) for what in ("nobody", "stranger", "expired")],
)
def test_session(at: str, what: str, version: str, server: Running, clients: Clients) -> None:
    """
    A client that comes again with its session is who it was, whether the session is resumed or not.
    """
    context = clients.context(what, version)
    with shake(server.at[at], context) as first:
        before = ask_over(first).scope["extensions"]["tls"]
        session = first.session
    with shake(server.at[at], context, session=session) as second:
        after = ask_over(second).scope["extensions"]["tls"]
    for key in ("client_cert_name", "client_cert_error", "server_cert", "tls_version", "cipher_suite"):
        assert before[key] == after[key]
    assert before["client_cert_chain"][:1] == after["client_cert_chain"][:1]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("at", ["none", "none, clientCA", "optional"])
def test_session_is_no_way_in(at: str, version: str, server: Running, clients: Clients) -> None:
    """
    A session of an endpoint that lets everybody in does not let anybody into one that does not.
    """
    context = clients.context("nobody", version)
    with shake(server.at[at], context) as first:
        assert ask_over(first).status == 200
        session = first.session
    with pytest.raises(ssl.SSLError, match=r"(?i)alert (certificate required|handshake failure)"):
        with shake(server.at["required"], context, session=session) as second:
            ask_over(second)


# What the application is told

KEYS = {
    "server_cert",
    "client_cert_chain",
    "client_cert_name",
    "client_cert_error",
    "tls_version",
    "cipher_suite",
}


def scopes(location: str, context: ssl.SSLContext | None) -> Iterator[tuple[dict[str, Any], ssl.SSLSocket]]:
    """
    The scope of a request and that of a WebSocket, each with its connection.
    """
    with shake(location, context) as sock:
        yield ask_over(sock).scope, sock
    with shake(location, context) as sock:
        yield json.loads(WebSocket(sock).receive()), sock


def check(told: dict[str, Any], sock: ssl.SSLSocket, server_certificate: Signed) -> None:
    """
    Assert what is so of every connection.
    """
    assert set(told) == KEYS
    assert same_certificate(told["server_cert"], server_certificate)
    cipher = sock.cipher()
    assert cipher is not None
    assert {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}[str(sock.version())] == told["tls_version"]
    assert SUITES[cipher[0]] == told["cipher_suite"]


@pytest.mark.parametrize("ciphers", ["", *[name for name in SUITES if name.startswith("ECDHE")]])
@pytest.mark.parametrize("at", ["optional", "required"])
def test_extension(at: str, ciphers: str, server: Running, clients: Clients) -> None:
    """
    The tls extension tells the server's certificate, version and cipher suite of requests and WebSockets.
    """
    context = clients.context("alice", "TLSv1.2" if ciphers else "TLSv1.3", ciphers)
    for scope, sock in scopes(server.at[at], context):
        told = scope["extensions"]["tls"]
        encoded = sock.getpeercert(binary_form=True)
        ours = clients.rsa if "-RSA-" in ciphers else clients.ec
        if ciphers:
            check(told, sock, ours)
        else:
            # The server may choose.
            theirs = served_certificate(server.at[at], clients.context("alice", "TLSv1.3"))
            assert theirs in (clients.ec.certificate, clients.rsa.certificate)
            check(told, sock, clients.ec if theirs == clients.ec.certificate else clients.rsa)
        assert encoded is not None
        assert ssl.DER_cert_to_PEM_cert(encoded).split() == told["server_cert"].split()
        assert told["client_cert_name"] == "CN=alice"
        assert told["client_cert_error"] is None
        (only,) = told["client_cert_chain"]
        assert same_certificate(only, clients.made["alice"])


@pytest.mark.parametrize("version", VERSIONS)
def test_chain_as_it_was_sent(version: str, server: Running, clients: Clients, authorities: Authorities) -> None:
    """
    The chain is what the client sent, its own certificate first, be the root with it or not.
    """
    chained, root = clients.made["chained"], authorities.client_root
    for what, chain in (("chained", chained.chain), ("whole", [*chained.chain, root])):
        for scope, _ in scopes(server.at["required"], clients.context(what, version)):
            told = scope["extensions"]["tls"]["client_cert_chain"]
            assert len(chain) == len(told)
            for pem, one in zip(told, chain, strict=True):
                assert same_certificate(pem, one)


def test_name(server: Running, clients: Clients) -> None:
    """
    The name is that of RFC 4514: last part first, with what has a meaning there escaped.
    """
    for scope, _ in scopes(server.at["required"], clients.context("zoe")):
        name = scope["extensions"]["tls"]["client_cert_name"]
        assert name == r"CN=Zoë\, of the 2nd floor,O=Example \+ Sons\, \"Inc.\""
    for scope, _ in scopes(server.at["required"], clients.context("chained")):
        assert scope["extensions"]["tls"]["client_cert_name"] == "CN=chained,O=Example"


@pytest.mark.parametrize("at", ["none", "none, clientCA", "suite", "plain", "unix"])
def test_no_extension(at: str, server: Running, clients: Clients) -> None:
    """
    Without verification, and on plain connections, there is no tls extension.
    """
    if at in ("plain", "unix"):
        location = server.at[at].replace("unix:", f"unix:{clients.folder}/")
        assert "tls" not in ask(location).scope["extensions"]
        if at == "plain":
            with connect(server.at[at].replace("http", "ws"), proxy=None) as websocket:
                assert "tls" not in json.loads(websocket.recv())["extensions"]
    else:
        for scope, _ in scopes(server.at[at], clients.context("alice")):
            assert "tls" not in scope["extensions"]


@pytest.mark.parametrize("at", ["none", "none, clientCA", "suite"])
@pytest.mark.parametrize("what", ["nobody", "alice"])
def test_extension_that_is_asked_for(at: str, what: str, telling: Running, clients: Clients) -> None:
    """
    With --tls-extension it is there on every TLS connection, without a client where none was asked for.
    """
    for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"):
        for scope, sock in scopes(telling.at[at], clients.context(what, "TLSv1.2", cipher)):
            told = scope["extensions"]["tls"]
            check(told, sock, clients.rsa if "-RSA-" in cipher else clients.ec)
            assert told["client_cert_chain"] == []
            assert told["client_cert_name"] is None
            assert told["client_cert_error"] is None


def test_suite_of_version_3(telling: Running, clients: Clients) -> None:
    """
    The cipher suite is the one of this connection.
    """
    for scope, _ in scopes(telling.at["suite"], clients.context("nobody", "TLSv1.3")):
        told = scope["extensions"]["tls"]
        assert (told["tls_version"], told["cipher_suite"]) == (0x0304, 0x1303)


def test_extension_on_plain_connections(telling: Running) -> None:
    """
    With --tls-extension it is still absent where there is no TLS.
    """
    assert "tls" not in ask(telling.at["plain"]).scope["extensions"]
    with connect(telling.at["plain"].replace("http", "ws"), proxy=None) as websocket:
        assert "tls" not in json.loads(websocket.recv())["extensions"]


def test_extension_with_client_certificates(telling: Running, clients: Clients) -> None:
    """
    With --tls-extension client certificates are told of as without.
    """
    for scope, _ in scopes(telling.at["optional"], clients.context("alice")):
        assert scope["extensions"]["tls"]["client_cert_name"] == "CN=alice"
    assert "unknown ca" == alert_of(telling.at["required"], clients.context("stranger"))
