"""
tls: a directory of certificates, picked by the name that the client asks for.
"""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.serve.certificates import Authorities, Signed, client_certificate, ocsp_response, write
from tests.serve.handshakes import (
    Running,
    alert_of,
    ask_over,
    chain_serials,
    client_file,
    resident_bytes,
    s_client,
    served_chain,
    served_serial,
    serving_all,
    shake,
    stapled_serial,
    tls_client,
)
from tests.serve.processes import ask, ended, serving, until
from tests.serve.test_listening import needs_ipv6

HERE = ":0:interface=127.0.0.1"


@dataclass(frozen=True, slots=True)
class Site:
    """
    A directory, the certificates in it by what they are there for, and the authorities.
    """

    folder: Path
    made: dict[str, Signed]
    authorities: Authorities

    def serial(self, what: str) -> int:
        return self.made[what].serial


def letsencrypt(folder: Path, name: str, one: Signed, number: int = 1) -> None:
    """
    What certbot does when it has a certificate: files in archive/, and symbolic links to them in live/.
    """
    parts = {
        "privkey": one.key_pem,
        "cert": one.pem,
        "chain": one.intermediates_pem,
        "fullchain": one.fullchain_pem,
    }
    live = folder / "live" / name
    live.mkdir(parents=True, exist_ok=True)
    write(folder / "live" / "README", b"This directory contains your keys and certificates.\n")
    for part, pem in parts.items():
        write(folder / "archive" / name / f"{part}{number}.pem", pem)
        link = live / f"{part}.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../archive/{name}/{part}{number}.pem")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities) -> Site:
    """
    All layouts in one directory.
    """
    folder = tmp_path_factory.mktemp("site")
    made = {
        "first": authorities.server("first.test"),
        "default": authorities.server("default.test"),
        "several": authorities.server("one.test", "two.test", "*.three.test"),
        "wildcard": authorities.server("*.wild.test"),
        "exact": authorities.server("exact.wild.test"),
        "split": authorities.server("split.test"),
        "letsencrypt": authorities.server("le.test", "www.le.test"),
        "ec": authorities.server("pair.test"),
        "rsa": authorities.server("pair.test", kind="rsa"),
        "long": authorities.server("a" * 63 + ".test"),
    }
    inside = folder / "inside"
    write(inside / "a" / "first.pem", made["first"].both_pem)
    write(inside / "zz" / "deep" / "DeFault.PEM", made["default"].fullchain_pem)
    write(inside / "zz" / "key of default.pem", made["default"].key_pem)
    write(inside / "several.pem", made["several"].fullchain_pem, made["several"].key_pem)
    write(inside / "wild.pem", made["wildcard"].both_pem)
    write(inside / "wild-exact.pem", made["exact"].both_pem)
    write(inside / "certificates" / "split.pem", made["split"].fullchain_pem)
    write(inside / "keys" / "private" / "x.pem", made["split"].key_pem)
    write(inside / "ec.pem", made["ec"].both_pem)
    write(inside / "rsa" / "rsa.pem", made["rsa"].fullchain_pem)
    write(inside / "rsa" / "rsa-key.pem", made["rsa"].key_pem)
    write(inside / "long.pem", made["long"].both_pem)
    write(inside / "stapled" / "rsa.ocsp", ocsp_response(made["rsa"]))
    write(inside / "split.ocsp", ocsp_response(made["split"]))
    letsencrypt(inside, "le.test", made["letsencrypt"])
    # What lies about too, and is for nobody.
    write(inside / "root.pem", authorities.root.pem)
    write(inside / "orphans" / "key.pem", authorities.server("orphan.test").key_pem)
    write(inside / "orphans" / "certificate.pem", authorities.server("orphan.test").fullchain_pem)
    write(inside / "other.txt", b"not PEM at all\n")
    (folder / "link").symlink_to("inside")
    return Site(folder, made, authorities)


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[Running]:
    """
    One process for the directory with everything, one without a default, and one with options.
    """
    folder = site.folder
    clients = site.authorities.client_root_file
    write(folder / "no-default" / "b.pem", site.made["wildcard"].both_pem)
    write(folder / "no-default" / "a" / "z.pem", site.made["first"].both_pem)
    write(folder / "no-default" / "c.pem", site.made["exact"].both_pem)
    endpoints = {
        "inside": f"tls:{folder}/inside{HERE}",
        "link": f"tls:{folder}/link:port=0:interface=127.0.0.1",
        "no default": f"tls:{folder}/no-default{HERE}",
        "minVersion": f"tls:{folder}/inside{HERE}:minVersion=TLSv1.3:sessionTickets=no:alpn=http/1.1:backlog=5",
        "ciphers": f"tls:{folder}/inside{HERE}:ciphers=ECDHE-ECDSA-AES256-GCM-SHA384",
        "clientCA": f"tls:{folder}/inside{HERE}:clientCA={clients}",
    }
    with serving_all(folder, endpoints, "served:app") as running:
        yield running


# Names


@pytest.mark.parametrize("at", ["inside", "link"])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("first.test", "first"),
        ("default.test", "default"),
        ("one.test", "several"),
        ("two.test", "several"),
        ("x.three.test", "several"),
        ("a.wild.test", "wildcard"),
        ("exact.wild.test", "exact"),
        ("split.test", "split"),
        ("le.test", "letsencrypt"),
        ("www.le.test", "letsencrypt"),
        ("a" * 63 + ".test", "long"),
    ],
)
def test_name(name: str, what: str, at: str, server: Running, site: Site) -> None:
    """
    Wherever its files lie, a certificate is served with its chain to a client that asks for a name of it.
    """
    assert chain_serials(site.made[what]) == served_chain(server.at[at], "-servername", name)
    with shake(server.at[at], tls_client(site.authorities.root_file), name) as sock:
        assert ask_over(sock).scope["scheme"] == "https"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("FIRST.test", "first"),
        ("Two.Test", "several"),
        ("A.WILD.TEST", "wildcard"),
        ("eXact.wIld.tesT", "exact"),
    ],
)
def test_case_of_a_name(name: str, what: str, server: Running, site: Site) -> None:
    """
    The case of a name does not matter.
    """
    assert chain_serials(site.made[what]) == served_chain(server.at["inside"], "-servername", name)


@pytest.mark.parametrize(
    "name",
    [
        "unknown.test",
        "wild.test",
        "a.b.wild.test",
        ".wild.test",
        "a.exact.wild.test",
        "three.test",
        "first.test.more",
        "orphan.test",
        "*.wild.other",
        "localhost",
        "../a/first",
        "x" * 250,
    ],
)
def test_unknown_name(name: str, server: Running, site: Site) -> None:
    """
    A client that asks for any other name gets the certificate of default.pem, and is served.
    """
    assert chain_serials(site.made["default"]) == served_chain(server.at["inside"], "-servername", name)


def test_no_name(server: Running, site: Site) -> None:
    """
    A client without SNI gets the certificate of default.pem.
    """
    assert chain_serials(site.made["default"]) == served_chain(server.at["inside"], "-noservername")


def test_no_default(server: Running, site: Site) -> None:
    """
    Without a default.pem the first certificate by path takes its place.
    """
    first = site.serial("first")
    assert first == served_serial(server.at["no default"], name=None)
    assert first == served_serial(server.at["no default"], name="unknown.test")
    assert site.serial("wildcard") == served_serial(server.at["no default"], name="b.wild.test")


def test_many_unknown_names(server: Running, site: Site) -> None:
    """
    Names that nobody knows, one after the other, are not logged and leave the known ones as they were.
    """
    context = tls_client()
    before = len(list(server.process.err))
    for number in range(200):
        assert site.serial("default") == served_serial(server.at["inside"], context, f"n{number}.unknown.test")
    assert site.serial("exact") == served_serial(server.at["inside"], context, "exact.wild.test")
    assert [] == [line for line in list(server.process.err)[before:] if not line.startswith("app: ")]


@pytest.mark.slow
def test_unknown_names_are_not_remembered(server: Running) -> None:
    """
    3,000 names that nobody knows leave the memory of the process flat.
    """
    context = tls_client()

    def ask_for(count: int, what: str) -> int:
        for number in range(count):
            served_serial(server.at["inside"], context, f"{what}{number}.{'x' * 60}.{'x' * 60}.test")
        return resident_bytes(server.process)

    before = ask_for(1000, "a")
    assert ask_for(3000, "b") - before < 2 << 20


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("name", ["first.test", "default.test", "pair.test"])
def test_session_is_resumed(name: str, version: str, server: Running, site: Site) -> None:
    """
    A client that comes again for the same name goes on with its session.
    """
    context = tls_client(site.authorities.root_file, version=version)
    with shake(server.at["inside"], context, name) as first:
        assert ask_over(first).status == 200
        session = first.session
    with shake(server.at["inside"], context, name, session) as second:
        assert ask_over(second).status == 200
        assert second.session_reused


def test_alpn(server: Running) -> None:
    """
    ALPN works for every certificate.
    """
    for name in ("first.test", "unknown.test", None):
        with shake(server.at["inside"], tls_client(alpn=["h3", "http/1.1"]), name) as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"


# Pairs and stapling

ECDSA_ALONE = ("-servername", "pair.test", "-sigalgs", "ecdsa_secp256r1_sha256")
RSA_ALONE = ("-servername", "pair.test", "-sigalgs", "rsa_pss_rsae_sha256:RSA+SHA256")


def test_pair(server: Running, site: Site) -> None:
    """
    Of two certificates for one name a client gets the one that it can verify, with its own chain.
    """
    for version in ("-tls1_2", "-tls1_3"):
        assert chain_serials(site.made["ec"]) == served_chain(server.at["inside"], version, *ECDSA_ALONE)
        assert chain_serials(site.made["rsa"]) == served_chain(server.at["inside"], version, *RSA_ALONE)


def test_stapled_response(server: Running, site: Site) -> None:
    """
    A file *.ocsp is stapled with the certificate that it is for, wherever it lies.
    """
    assert site.serial("rsa") == stapled_serial(server.at["inside"], *RSA_ALONE)
    assert stapled_serial(server.at["inside"], *ECDSA_ALONE) is None
    assert site.serial("split") == stapled_serial(server.at["inside"], "-servername", "split.test")
    assert stapled_serial(server.at["inside"], "-servername", "first.test") is None


# Options


def test_min_version_and_no_tickets(server: Running) -> None:
    """
    minVersion=, sessionTickets= and alpn= are for every certificate of the directory.
    """
    location = server.at["minVersion"]
    for name in ("first.test", "unknown.test", None):
        with pytest.raises(ssl.SSLError, match=r"(?i)alert protocol version"):
            shake(location, tls_client(version="TLSv1.2"), name)
        context = tls_client(alpn=["http/1.1"])
        with shake(location, context, name) as sock:
            assert (sock.version(), sock.selected_alpn_protocol()) == ("TLSv1.3", "http/1.1")
            assert ask_over(sock).status == 200
            session = sock.session
        with shake(location, context, name, session) as sock:
            assert ask_over(sock).status == 200
            assert not sock.session_reused


def test_ciphers(server: Running) -> None:
    """
    ciphers= is for every certificate of the directory.
    """
    location = server.at["ciphers"]
    for name in ("first.test", "unknown.test", None):
        with shake(location, tls_client(version="TLSv1.2"), name) as sock:
            cipher = sock.cipher()
            assert cipher is not None and cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
        with pytest.raises(ssl.SSLError, match=r"(?i)alert handshake failure"):
            shake(location, tls_client(version="TLSv1.2", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"), name)


def test_client_certificate(server: Running, site: Site, folder: Path) -> None:
    """
    clientCA= is for every certificate of the directory, and the scope tells which certificate was served.
    """
    location = server.at["clientCA"]
    alice = client_file(folder, "alice", client_certificate("alice", site.authorities.client_root))
    for name, what in (("first.test", "first"), ("exact.wild.test", "exact"), ("unknown.test", "default")):
        assert "certificate required" == alert_of(location, tls_client(version="TLSv1.3"), name)
        with shake(location, tls_client(certificate=alice), name) as sock:
            told = ask_over(sock).scope["extensions"]["tls"]
            assert told["client_cert_name"] == "CN=alice"
            assert told["server_cert"].split() == site.made[what].pem.decode().split()


# Renewal


def test_renewed_as_certbot_does_it(folder: Path, authorities: Authorities) -> None:
    """
    On SIGHUP renewed files are read, new names are found, names that are gone are forgotten; connections go on.
    """
    old = authorities.server("le.test")
    gone = authorities.server("gone.test")
    letsencrypt(folder, "le.test", old)
    write(folder / "live" / "zz" / "gone.pem", gone.both_pem)
    with serving(folder, "-e", f"tls:{folder}/live{HERE}", "served:app") as process:
        location = process.location
        assert old.serial == served_serial(location, name="le.test")
        assert gone.serial == served_serial(location, name="gone.test")
        with shake(location, name="gone.test") as kept:
            assert ask_over(kept).status == 200

            renewed, added = authorities.server("le.test"), authorities.server("added.test")
            letsencrypt(folder, "le.test", renewed, 2)
            letsencrypt(folder, "added.test", added)
            (folder / "live" / "zz" / "gone.pem").unlink()
            process.send_signal(signal.SIGHUP)
            process.wait_for("certificates reloaded for")
            until(lambda: served_serial(location, name="le.test") == renewed.serial, "the renewed certificate")
            assert added.serial == served_serial(location, name="added.test")
            # The first by path.
            assert added.serial == served_serial(location, name="gone.test")
            assert added.serial == served_serial(location, name=None)
            trust = tls_client(authorities.root_file)
            with shake(location, trust, "le.test") as sock:
                assert ask_over(sock).status == 200
            assert ask_over(kept).status == 200


def test_directory_that_has_gone_bad(folder: Path, authorities: Authorities) -> None:
    """
    Without a usable pair in the directory the old certificates stay, and the log says why.
    """
    old, other = authorities.server("old.test"), authorities.server("old.test")
    site = folder / "site"
    write(site / "key.pem", old.key_pem)
    write(site / "certificate.pem", old.fullchain_pem)
    with serving(folder, "-e", f"tls:{site}{HERE}", "served:app") as process:
        location = process.location
        # The certificate is renewed, the key is not.
        write(site / "certificate.pem", other.fullchain_pem)
        process.send_signal(signal.SIGHUP)
        line = process.wait_for("not reloaded: ")
        assert " ERROR " in line and f"tls:{site}" in line
        assert old.serial == served_serial(location, name="old.test")

        for path in site.iterdir():
            path.unlink()
        site.rmdir()
        before = len(list(process.err))
        process.send_signal(signal.SIGHUP)
        until(lambda: [line for line in list(process.err)[before:] if "not reloaded: " in line], "a second line")
        assert old.serial == served_serial(location, name="old.test")

        write(site / "key.pem", other.key_pem)
        write(site / "certificate.pem", other.fullchain_pem)
        process.send_signal(signal.SIGHUP)
        process.wait_for("certificates reloaded for")
        until(lambda: served_serial(location, name="old.test") == other.serial, "the renewed certificate")


# Where it listens


@needs_ipv6
def test_all_addresses(folder: Path, authorities: Authorities) -> None:
    """
    Unless told otherwise it listens on all addresses of both protocols.
    """
    write(folder / "site" / "a.pem", authorities.server().both_pem)
    with serving(folder, "-e", "tls:site:0", "served:app") as process:
        assert process.location.startswith("https://[::]:")
        port = process.location.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            answer = ask(f"https://{host}:{port}", trust=tls_client(authorities.root_file))
            assert answer.scope["client"][0] == host.strip("[]")


def test_default_port(folder: Path, authorities: Authorities) -> None:
    """
    The port of https is taken when none is given.
    """
    write(folder / "site" / "a.pem", authorities.server().both_pem)
    endpoint = "tls:site:interface=127.43.43.43"
    # Below 1024 not everybody may listen.
    if os.geteuid() == 0:
        with serving(folder, "-e", endpoint, "served:app") as process:
            assert process.location == "https://127.43.43.43:443"
    else:
        found = ended(folder, "-e", endpoint, "served:app")
        assert found.status == 1 and "Permission denied" in found.err


def test_openssl_verifies_by_name(server: Running, site: Site) -> None:
    """
    A strict client finds the chain of the name that it asks for in order.
    """
    root = str(site.authorities.root_file)
    for name in ("le.test", "split.test", "a.wild.test"):
        text = s_client(
            server.at["inside"], "-servername", name, "-CAfile", root, "-verify_return_error", "-verify_hostname", name
        )
        assert "Verify return code: 0 (ok)" in text, text
