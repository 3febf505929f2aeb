"""
Every argument of ssl:, and what holds without any.
"""

from __future__ import annotations

import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from tests.serve.certificates import Authorities, Signed, ocsp_response, write
from tests.serve.conftest import ssl_endpoint
from tests.serve.handshakes import (
    Running,
    alert_in,
    ask_over,
    chain_serials,
    s_client,
    served_certificate,
    served_chain,
    served_serial,
    serving_all,
    shake,
    stapled_serial,
    tls_client,
)
from tests.serve.processes import ask, serving

# Mozilla's intermediate list, without DHE.
CIPHERS_1_2 = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
}
CIPHERS_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}

ECDSA_ALONE = ("-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384")
RSA_ALONE = ("-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256:rsa_pss_rsae_sha512:RSA+SHA256")


@dataclass(frozen=True, slots=True)
class Pair:
    """
    A server's certificate for each kind of key.
    """

    ec: Signed
    rsa: Signed


@pytest.fixture(scope="module")
def pair(authorities: Authorities) -> Pair:
    return Pair(authorities.server(), authorities.server(kind="rsa"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities, pair: Pair) -> Iterator[Running]:
    """
    One process for all that an endpoint may have.
    """
    folder = tmp_path_factory.mktemp("endpoints")
    ec, rsa = pair.ec, pair.rsa
    ec_key = write(folder / "ec.key", ec.key_pem)
    ec_pem = write(folder / "ec.pem", ec.fullchain_pem)
    ec_leaf = write(folder / "ec-leaf.pem", ec.pem)
    ec_chain = write(folder / "ec-chain.pem", ec.intermediates_pem)
    ec_both = write(folder / "ec-both.pem", ec.both_pem)
    chain_first = write(folder / "chain-first.pem", ec.fullchain_pem, ec.key_pem)
    rsa_key = write(folder / "rsa.key", rsa.key_pem)
    rsa_pem = write(folder / "rsa.pem", rsa.fullchain_pem)
    rsa_both = write(folder / "rsa-both.pem", rsa.both_pem)
    pkcs8 = write(folder / "pkcs8.key", ec.encrypted_key_pem("open sesame"))
    old_key = write(folder / "old.key", rsa.encrypted_key_pem("open sesame", PrivateFormat.TraditionalOpenSSL))
    password = write(folder / "password", b"open sesame\nand a second line\n")
    response = write(folder / "ec.ocsp", ocsp_response(ec))

    plain = ssl_endpoint(ec_key, ec_pem)
    both_kinds = ssl_endpoint(ec_key, ec_pem, f":privateKey={rsa_key}:certKey={rsa_pem}")
    endpoints = {
        "plain": plain,
        "one file": ssl_endpoint(ec_both),
        "one file, chain first": ssl_endpoint(chain_first),
        "extraCertChain": ssl_endpoint(ec_key, ec_leaf, f":extraCertChain={ec_chain}"),
        "pair": both_kinds,
        "pair, RSA first": ssl_endpoint(rsa_key, rsa_pem, f":privateKey={ec_key}:certKey={ec_pem}"),
        "pair of single files": ssl_endpoint(rsa_both, rsa_both, f":privateKey={ec_both}:certKey={ec_both}"),
        "pair, extraCertChain": ssl_endpoint(
            ec_key, ec_leaf, f":privateKey={rsa_key}:certKey={rsa_pem}:extraCertChain={ec_chain}"
        ),
        "password, env": ssl_endpoint(pkcs8, ec_pem, r":keyPassword=env\:SESAME"),
        "password, pass": ssl_endpoint(pkcs8, ec_pem, r":keyPassword=pass\:open sesame"),
        "password, file": ssl_endpoint(pkcs8, ec_pem, f":keyPasswordFile={password}"),
        "password, old form": ssl_endpoint(old_key, rsa_pem, r":keyPassword=pass\:open sesame"),
        "minVersion=TLSv1.2": f"{plain}:minVersion=TLSv1.2",
        "minVersion=TLSv1.3": f"{plain}:minVersion=TLSv1.3",
        "ciphers": both_kinds + r":ciphers=ECDHE-RSA-AES256-GCM-SHA384\:ECDHE-ECDSA-CHACHA20-POLY1305",
        "ciphersuites": plain + r":ciphersuites=TLS_CHACHA20_POLY1305_SHA256\:TLS_AES_128_GCM_SHA256",
        "sessionTickets=yes": f"{plain}:sessionTickets=yes",
        "sessionTickets=no": f"{plain}:sessionTickets=no",
        "ocsp": f"{both_kinds}:ocsp={response}",
        "alpn": f"{plain}:alpn=http/1.1",
        "selfSigned": "ssl:0:interface=127.0.0.1:selfSigned=yes",
        "port=, backlog, reusePort": f"ssl:port=0:interface=127.0.0.1:backlog=5:reusePort=yes:privateKey={ec_both}",
    }
    with serving_all(folder, endpoints, "served:app", env={"SESAME": "open sesame"}) as running:
        yield running


# Certificates and keys


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "one file",
        "one file, chain first",
        "extraCertChain",
        "password, env",
        "password, pass",
        "password, file",
        "port=, backlog, reusePort",
    ],
)
def test_full_chain(name: str, server: Running, authorities: Authorities, pair: Pair) -> None:
    """
    However it is given, the certificate is sent with its chain, and a client that knows the root alone is served.
    """
    assert chain_serials(pair.ec) == served_chain(server.at[name])
    scope = ask(server.at[name], trust=tls_client(authorities.root_file)).scope
    assert (scope["scheme"], scope["http_version"]) == ("https", "1.1")


def test_key_encrypted_in_the_old_form(server: Running, authorities: Authorities, pair: Pair) -> None:
    """
    A key that is encrypted as OpenSSL did it before PKCS #8 is read too.
    """
    assert chain_serials(pair.rsa) == served_chain(server.at["password, old form"])
    assert ask(server.at["password, old form"], trust=tls_client(authorities.root_file)).status == 200


PAIRS = ["pair", "pair, RSA first", "pair of single files", "pair, extraCertChain", "ocsp"]


@pytest.mark.parametrize("name", PAIRS)
def test_pair(name: str, server: Running, pair: Pair) -> None:
    """
    Of two certificates a client gets the one that it can verify, with the chain that belongs to it.
    """
    for arguments, one in (
        (ECDSA_ALONE, pair.ec),
        (RSA_ALONE, pair.rsa),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), pair.ec),
        (("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"), pair.rsa),
    ):
        assert chain_serials(one) == served_chain(server.at[name], *arguments)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_pair_for_a_client_that_can_use_both(
    name: str, version: str, server: Running, authorities: Authorities, pair: Pair
) -> None:
    """
    A client that can verify both gets one of them, and trusts it.
    """
    context = tls_client(authorities.root_file, version=version)
    assert served_serial(server.at[name], context) in (pair.ec.serial, pair.rsa.serial)
    assert ask(server.at[name], trust=context).status == 200


def test_self_signed(server: Running) -> None:
    """
    selfSigned=yes serves a certificate for localhost and both loopback addresses, which is its own authority.
    """
    location = server.at["selfSigned"]
    certificate = served_certificate(location)
    assert certificate.subject == certificate.issuer
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert ["localhost"] == names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    assert {"127.0.0.1", "::1"} == {str(address) for address in addresses}
    # Whoever decides to trust it need not turn off any check.
    trust = ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
    for name in ("localhost", "127.0.0.1", "::1"):
        with shake(location, trust, name) as sock:
            assert ask_over(sock).status == 200


# Versions and ciphers


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", ["plain", "minVersion=TLSv1.2"])
def test_versions(version: str, name: str, server: Running) -> None:
    """
    TLS 1.2 and 1.3 are spoken.
    """
    with shake(server.at[name], tls_client(version=version)) as sock:
        assert version == sock.version()
        assert sock.compression() is None
        assert ask_over(sock).status == 200


def agreed(location: str, context: ssl.SSLContext) -> str | None:
    """
    The cipher that the server agrees to; None when it refuses with an alert.
    """
    try:
        with shake(location, context) as sock:
            cipher = sock.cipher()
            assert cipher is not None
            return cipher[0]
    except ssl.SSLError as error:
        alert_in(error)
        return None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("plain", "TLSv1"),
        ("plain", "TLSv1.1"),
        ("minVersion=TLSv1.2", "TLSv1.1"),
        ("minVersion=TLSv1.3", "TLSv1.2"),
        ("selfSigned", "TLSv1.1"),
    ],
)
def test_version_that_is_too_low(name: str, version: str, server: Running) -> None:
    """
    A client that speaks nothing as new as the lowest version is told so.
    """
    context = tls_client(version=version, ciphers="ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
        shake(server.at[name], context)


def test_version_3_alone(server: Running) -> None:
    """
    With minVersion=TLSv1.3 that is what every client gets.
    """
    with shake(server.at["minVersion=TLSv1.3"]) as sock:
        assert sock.version() == "TLSv1.3"
        assert ask_over(sock).status == 200


def ciphers_of_this_openssl() -> list[str]:
    """
    Those of TLS 1.2 and below that a client here could offer.
    """
    command = ["openssl", "ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip().split(":")


def accepted_ciphers(location: str) -> set[str]:
    """
    Those of TLS 1.2 that the server agrees to, offered one at a time.
    """
    accepted = set()
    for cipher in ciphers_of_this_openssl():
        context = tls_client(version="TLSv1.2", ciphers=f"{cipher}:@SECLEVEL=0")
        found = agreed(location, context)
        assert found in (cipher, None)
        if found:
            accepted.add(cipher)
    return accepted


def test_default_ciphers(server: Running) -> None:
    """
    Of all ciphers for TLS 1.2 the server agrees only to those with forward secrecy and authenticated encryption.
    """
    assert len(ciphers_of_this_openssl()) > 50
    assert accepted_ciphers(server.at["pair"]) == CIPHERS_1_2


def test_ciphers(server: Running) -> None:
    """
    ciphers= says which are agreed to in TLS 1.2, and leaves TLS 1.3 alone.
    """
    accepted = accepted_ciphers(server.at["ciphers"])
    assert {"ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"} == accepted
    with shake(server.at["ciphers"], tls_client(version="TLSv1.3")) as sock:
        assert ask_over(sock).status == 200


def agreed_suite(location: str, suites: str) -> str | None:
    """
    What the server agrees to in TLS 1.3, of these ciphersuites; None when it refuses.
    """
    text = s_client(location, "-tls1_3", "-ciphersuites", suites)
    found = re.search(r"New, TLSv1\.3, Cipher is (TLS_\w+)", text)
    if found:
        return found[1]
    assert "alert handshake failure" in text, text
    return None


def test_default_ciphersuites(server: Running) -> None:
    """
    In TLS 1.3 the three that every client has are agreed to, and no other.
    """
    for suite in CIPHERS_1_3:
        assert suite == agreed_suite(server.at["plain"], suite)
    assert agreed_suite(server.at["plain"], "TLS_AES_128_CCM_SHA256:TLS_AES_128_CCM_8_SHA256") is None


def test_ciphersuites(server: Running) -> None:
    """
    ciphersuites= says which are agreed to in TLS 1.3, and leaves TLS 1.2 alone.
    """
    location = server.at["ciphersuites"]
    for suite in ("TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"):
        assert suite == agreed_suite(location, suite)
    assert agreed_suite(location, "TLS_AES_256_GCM_SHA384") is None
    with shake(location, tls_client(version="TLSv1.2")) as sock:
        assert ask_over(sock).status == 200


def test_no_renegotiation(server: Running) -> None:
    """
    A client of TLS 1.2 that wants to shake hands again is refused, and others are served.
    """
    text = s_client(server.at["plain"], "-tls1_2", say=b"R\n")
    again = text.partition("RENEGOTIATING\n")[2]
    assert re.search(r"no renegotiation|alert|unexpected eof", again), text
    assert "verify return" not in again
    assert ask(server.at["plain"], trust=tls_client()).status == 200


# ALPN


@pytest.mark.parametrize("name", ["plain", "alpn", "selfSigned"])
@pytest.mark.parametrize("offered", [["http/1.1"], ["h3", "http/1.1"], ["spdy/1", "h3", "http/1.1", "http/0.9"]])
def test_alpn(name: str, offered: list[str], server: Running) -> None:
    """
    Of what a client offers by ALPN, http/1.1 is agreed on.
    """
    with shake(server.at[name], tls_client(alpn=offered)) as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"
        assert ask_over(sock).status == 200


@pytest.mark.parametrize("name", ["plain", "alpn"])
def test_no_alpn(name: str, server: Running) -> None:
    """
    A client without ALPN is served.
    """
    with shake(server.at[name], tls_client()) as sock:
        assert sock.selected_alpn_protocol() is None
        assert ask_over(sock).status == 200


# Sessions


def resumes(location: str, context: ssl.SSLContext) -> tuple[bool, bool]:
    """
    Whether a client gets a ticket for its session, and whether its second connection goes on with that session.
    """
    with shake(location, context) as first:
        # The tickets of TLS 1.3 come after the handshake.
        assert ask_over(first).status == 200
        session = first.session
        assert not first.session_reused
    assert session is not None
    with shake(location, context, session=session) as second:
        assert ask_over(second).status == 200
        return session.has_ticket, bool(second.session_reused)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", ["plain", "pair", "sessionTickets=yes", "selfSigned"])
def test_session_is_resumed(name: str, version: str, server: Running, authorities: Authorities) -> None:
    """
    A client that comes again goes on with its session.
    """
    trust = None if name == "selfSigned" else authorities.root_file
    assert (True, True) == resumes(server.at[name], tls_client(trust, version=version))


def test_no_session_tickets(server: Running) -> None:
    """
    With sessionTickets=no no session is resumed, and in TLS 1.2 no ticket is given.
    """
    assert (False, False) == resumes(server.at["sessionTickets=no"], tls_client(version="TLSv1.2"))
    # In TLS 1.3 OpenSSL gives tickets that are of no use.
    assert not resumes(server.at["sessionTickets=no"], tls_client(version="TLSv1.3"))[1]


def test_no_session_cache(server: Running) -> None:
    """
    The server remembers no sessions: a client that takes no tickets begins anew.
    """
    # In TLS 1.3 a client cannot say that it wants none.
    context = tls_client(version="TLSv1.2")
    context.options |= ssl.OP_NO_TICKET
    assert (False, False) == resumes(server.at["plain"], context)


def test_ticket_of_another_endpoint(server: Running) -> None:
    """
    A ticket that one endpoint gave is nothing to another, and no reason to refuse the client.
    """
    for version in ("TLSv1.2", "TLSv1.3"):
        context = tls_client(version=version)
        with shake(server.at["plain"], context) as first:
            assert ask_over(first).status == 200
            session = first.session
        with shake(server.at["alpn"], context, session=session) as second:
            assert ask_over(second).status == 200
            assert not second.session_reused


# Stapling


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_stapled_response(version: str, server: Running, pair: Pair) -> None:
    """
    ocsp= is stapled for clients that ask, with the certificate that it is for and with no other.
    """
    kinds = {"ECDSA": pair.ec.serial, "RSA": None}
    for kind, serial in kinds.items():
        if version == "-tls1_2":
            arguments = (version, "-cipher", f"ECDHE-{kind}-AES128-GCM-SHA256")
        else:
            arguments = ECDSA_ALONE if kind == "ECDSA" else RSA_ALONE
        assert serial == stapled_serial(server.at["ocsp"], *arguments)


def test_nothing_is_stapled(server: Running) -> None:
    """
    Without ocsp= a client that asks for a response gets none, and is served.
    """
    assert stapled_serial(server.at["plain"]) is None


# Sockets


def test_other_interface(folder: Path, authorities: Authorities) -> None:
    """
    interface= is the address to listen on.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    with serving(folder, "-e", f"ssl:0:privateKey={both}:interface=127.0.0.7", "served:app") as process:
        assert process.location.startswith("https://127.0.0.7:")
        assert ask(process.location, trust=tls_client(authorities.root_file)).status == 200


@pytest.mark.slow
def test_reuse_port(folder: Path, authorities: Authorities) -> None:
    """
    With reusePort=yes two servers listen on one port.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    more = f":interface=127.0.0.1:privateKey={both}:reusePort=yes"
    with serving(folder, "-e", f"ssl:0{more}", "served:app") as first:
        port = first.location.rpartition(":")[2]
        with serving(folder, "-e", f"ssl:{port}{more}", "served:app") as second:
            assert second.location == first.location
