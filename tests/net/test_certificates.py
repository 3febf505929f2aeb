"""
Certificates from files to contexts: what is taken, what is refused and how that is said, and what stays in use.

Each test is of a bug that has been fixed, or is said to be there still.
"""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from tests.net.odd_certificates import (
    EC_PUBLIC_KEY,
    ECDSA_WITH_SHA256,
    UNKNOWN_KEY,
    UNKNOWN_SIGNATURE,
    VERSION_3,
    VERSION_6,
    altered,
    for_pss_alone,
)
from tests.net.test_contexts import NAME
from tests.serve.certificates import Signed, authority, revocation_list, server_certificate, write
from twisted.internet.task import Clock

from txasgi.errors import EndpointError
from txasgi.net import certificates
from txasgi.net.certificates import Certified, Directory, Pairs
from txasgi.net.contexts import TICKET_KEY_S, WATCH_S, ServerContexts, TLSSettings
from txasgi.net.endpoints import parse, shown

ROOT = authority("a root")
MIDDLE = authority("an intermediate", ROOT)
SITE = server_certificate("localhost", MIDDLE)
# A dNSName of "localhost" (RFC 5280 section 4.2.1.6), then one that is no ASCII, and an x400Address.
DNS_NAME = b"\x82\x09localhost"
NO_ASCII, X400_ADDRESS = b"\x82\x09local\xffost", b"\xa3\x09localhost"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """
    What is logged from here on.
    """
    caplog.set_level(logging.INFO, "txasgi")
    return caplog


def pair(folder: Path, key: bytes, *chain: bytes) -> Pairs:
    """
    A key file and a certificate file, as privateKey= and certKey= name them.
    """
    return Pairs([(str(write(folder / "key.pem", key)), str(write(folder / "cert.pem", *chain)))], None, (), None)


def directory(folder: Path) -> ServerContexts:
    return ServerContexts("tls:x", Directory(str(folder), None), TLSSettings())


def serials(found: Certified, name: str) -> list[int]:
    return [one.own.serial_number for one in found.by_name[name]]


def default_context(served: ServerContexts) -> Any:
    return served.serverConnectionForTLS(None).get_context()


# Chains


def cross_signed(one: Signed, issuer: Signed) -> Signed:
    """
    Another certificate for the same name and key.
    """
    own = one.certificate
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject,
        subject_name=own.subject,
        public_key=one.key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=own.not_valid_before_utc,
        not_valid_after=own.not_valid_after_utc,
        extensions=[extension for extension in own.extensions if extension.oid != x509.AuthorityKeyIdentifier.oid],
    )
    return Signed(builder.sign(issuer.key, SHA256()), one.key, issuer)


def spelled(name: str, encoding: Any) -> x509.Name:
    """
    A name whose text is encoded in one of the ways there are.
    """
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, encoding)])


def issued_in_two_encodings() -> Signed:
    """
    A certificate whose issuer's name is a UTF8String, where the issuer itself has it as a PrintableString.
    """

    def named(one: Signed, issuer_key: Any, subject: x509.Name, issuer: x509.Name) -> x509.Certificate:
        own = one.certificate
        builder = x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=subject,
            public_key=one.key.public_key(),
            serial_number=own.serial_number,
            not_valid_before=own.not_valid_before_utc,
            not_valid_after=own.not_valid_after_utc,
            extensions=list(own.extensions),
        )
        return builder.sign(issuer_key, SHA256())

    printable, utf8 = (spelled("an intermediate", kind) for kind in (_ASN1Type.PrintableString, _ASN1Type.UTF8String))
    middle = Signed(named(MIDDLE, ROOT.key, printable, ROOT.certificate.subject), MIDDLE.key, ROOT)
    return Signed(named(SITE, MIDDLE.key, SITE.certificate.subject, utf8), SITE.key, middle)


OTHER_ROOT = authority("another root")
CROSS = cross_signed(MIDDLE, OTHER_ROOT)
ODD = issued_in_two_encodings()


@pytest.mark.parametrize(
    "chain",
    [
        [SITE, MIDDLE],
        [SITE, MIDDLE, ROOT],
        [SITE, MIDDLE, CROSS],
        [SITE, CROSS, MIDDLE],
        [SITE, MIDDLE, ROOT, cross_signed(ROOT, OTHER_ROOT)],
        [SITE, SITE, MIDDLE],
        ODD.chain,
    ],
    ids=["plain", "root", "cross-signed", "cross-signed first", "cross-signed root", "leaf twice", "two encodings"],
)
def test_chain_that_is_accepted(tmp_path: Path, chain: list[Signed]) -> None:
    """
    A chain is sent as it is in the file when each certificate has issued one before it, in whichever way.
    """
    served = ServerContexts(NAME, pair(tmp_path, SITE.key_pem, *(one.pem for one in chain)), TLSSettings())
    (one,) = served.certified.default
    assert one.chain == [each.certificate for each in chain]


@pytest.mark.parametrize(
    ("place", "chain"),
    [
        (1, [SITE, ROOT]),
        (1, [SITE, ROOT, MIDDLE]),
        (1, [SITE, OTHER_ROOT]),
        (2, [SITE, MIDDLE, OTHER_ROOT]),
        (1, [SITE, authority("an intermediate", ROOT)]),
        (1, [SITE, server_certificate("other.test", MIDDLE), MIDDLE]),
    ],
    ids=["a gap", "the wrong way round", "another's root", "another's root above", "only the name", "two leaves"],
)
def test_chain_in_disorder(tmp_path: Path, place: int, chain: list[Signed]) -> None:
    """
    A chain that clients could not follow is refused, and the place is said.
    """
    with pytest.raises(EndpointError, match=rf"cert\.pem: certificate {place} is not issued by"):
        pair(tmp_path, SITE.key_pem, *(one.pem for one in chain)).load()


def test_chain_from_a_directory(tmp_path: Path) -> None:
    """
    In a directory, of an intermediate and its cross-signed copy one is sent, above the certificate.
    """
    write(tmp_path / "a.pem", SITE.key_pem, SITE.pem, SITE.pem, MIDDLE.pem, CROSS.pem, ROOT.pem)
    (one,) = Directory(str(tmp_path), None).load().default
    assert one.own == SITE.certificate
    assert len(one.chain) == 2 and one.chain[1] in (MIDDLE.certificate, CROSS.certificate)


def test_chain_in_two_encodings_from_a_directory(tmp_path: Path) -> None:
    """
    In a directory too, an issuer whose name is encoded otherwise is found and sent.
    """
    write(tmp_path / "a.pem", ODD.both_pem)
    (one,) = Directory(str(tmp_path), None).load().default
    assert one.chain == [each.certificate for each in ODD.chain]


# Files


def test_rsassa_pss(tmp_path: Path) -> None:
    """
    A key for RSASSA-PSS alone, which OpenSSL would take and not use, is refused in words.
    """
    source = pair(tmp_path, *for_pss_alone(server_certificate("localhost", ROOT, "rsa")))
    with pytest.raises(EndpointError, match=r"cert\.pem: a key for RSASSA-PSS alone cannot be used"):
        source.load()


def test_rsassa_pss_in_a_directory(tmp_path: Path) -> None:
    """
    The same in a directory.
    """
    write(tmp_path / "a.pem", *for_pss_alone(server_certificate("localhost", ROOT, "rsa")))
    with pytest.raises(EndpointError, match=r"a\.pem: .*RSASSA-PSS"):
        directory(tmp_path)


def test_old_label(tmp_path: Path) -> None:
    """
    In a directory, "X509 CERTIFICATE" is a certificate too (RFC 7468 section 5.1).
    """
    old = SITE.fullchain_pem.replace(b"BEGIN CERT", b"BEGIN X509 CERT").replace(b"END CERT", b"END X509 CERT")
    write(tmp_path / "a" / "fullchain.pem", old)
    write(tmp_path / "a" / "privkey.pem", SITE.key_pem)
    found = Directory(str(tmp_path), None).load()
    assert serials(found, "localhost") == [SITE.serial]
    assert len(found.default[0].chain) == 2


@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("make", [Pairs, Directory])
def test_file_that_is_cut(tmp_path: Path, left: float, make: type) -> None:
    """
    A file that ends in the middle of its second certificate is not taken for a chain of one.
    """
    source: Any = pair(tmp_path, SITE.key_pem, SITE.pem, MIDDLE.pem[: int(len(MIDDLE.pem) * left)])
    if make is Directory:
        source = Directory(str(tmp_path), None)
    with pytest.raises(EndpointError, match=r"cert\.pem is cut off"):
        source.load()


# Directories


@pytest.mark.parametrize("files", [["site.pem"], ["privkey.pem", "cert.pem", "chain.pem", "fullchain.pem"]])
def test_signature_checks_grow_with_the_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]
) -> None:
    """
    The work of loading a directory grows with its sites, and not with their square.
    """
    calls = []
    check = certificates.is_issued_by

    def counted(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
        calls.append(issued)
        return check(issued, issuer)

    monkeypatch.setattr(certificates, "is_issued_by", counted)
    key = ec.generate_private_key(ec.SECP256R1())
    counts = []
    for count in (10, 20):
        for number in range(count):
            one = server_certificate(f"{number}.test", MIDDLE, key=key)
            parts = {"site": one.both_pem, "privkey": one.key_pem, "cert": one.pem, "chain": MIDDLE.pem}
            for name in files:
                write(tmp_path / str(number) / name, parts.get(name.removesuffix(".pem"), one.fullchain_pem))
        calls.clear()
        found = Directory(str(tmp_path), None).load()
        assert len(found.by_name) == count
        assert all(len(one.chain) == 2 for one in found.all())
        counts.append(len(calls))
    # The first 10 are replaced by then, so that there are 10 and 20 certificates.
    assert 0 < counts[1] <= 2 * counts[0] <= 4 * 10


def test_default_that_is_over(tmp_path: Path) -> None:
    """
    The default is the valid certificate for its name, though that of the year before comes first in the directory.
    """
    for year, begins, ends in ((2023, -100, -10), (2024, -1, 90)):
        old = server_certificate("a.test", MIDDLE, begins=begins, ends=ends)
        write(tmp_path / f"a-{year}.pem", old.both_pem)
    write(tmp_path / "b.pem", server_certificate("b.test", MIDDLE).both_pem)
    found = Directory(str(tmp_path), None).load()
    assert found.default == found.by_name["a.test"]
    assert [one.origin for one in found.default] == [str(tmp_path / "a-2024.pem")]


@pytest.mark.parametrize("first", ["privkey.pem", "fullchain.pem"])
def test_half_renewed_site(tmp_path: Path, lines: pytest.LogCaptureFixture, first: str) -> None:
    """
    A site of which only the key or only the certificate is renewed yet stays as it is, and so do the others.
    """

    def parts(one: Signed) -> dict[str, bytes]:
        return {"privkey.pem": one.key_pem, "fullchain.pem": one.fullchain_pem}

    old = {name: server_certificate(f"{name}.test", MIDDLE) for name in ("a", "b")}
    for name, one in old.items():
        for file, contents in parts(one).items():
            write(tmp_path / name / file, contents)
    served = directory(tmp_path)
    before = default_context(served)
    new = server_certificate("b.test", MIDDLE)
    write(tmp_path / "b" / first, parts(new)[first])
    assert not served.reload()
    assert default_context(served) is before
    assert serials(served.certified, "b.test") == [old["b"].serial]
    (line,) = lines.messages
    assert line == "certificates of tls:x not reloaded: the key of the certificate for b.test is not there"
    for file, contents in parts(new).items():
        write(tmp_path / "b" / file, contents)
    assert served.reload()
    assert serials(served.certified, "b.test") == [new.serial]


def test_site_that_is_taken_away(tmp_path: Path) -> None:
    """
    A site whose files are both gone is served no more.
    """
    for name in ("a", "b"):
        write(tmp_path / f"{name}.pem", server_certificate(f"{name}.test", MIDDLE).both_pem)
    served = directory(tmp_path)
    (tmp_path / "b.pem").unlink()
    assert served.reload()
    assert list(served.certified.by_name) == ["a.test"]


# Certificates that are odd


STRANGER = authority("a stranger")
STRAYS = {
    "an unknown key": altered(STRANGER, EC_PUBLIC_KEY, UNKNOWN_KEY),
    "an unknown signature": altered(STRANGER, ECDSA_WITH_SHA256, UNKNOWN_SIGNATURE),
    "a name that is no ASCII": altered(SITE, DNS_NAME, NO_ASCII),
}


@pytest.mark.parametrize("stray", STRAYS.values(), ids=STRAYS)
def test_stray_in_a_directory(tmp_path: Path, lines: pytest.LogCaptureFixture, stray: bytes) -> None:
    """
    A certificate of others that cryptography cannot read does not keep the sites of a directory from being renewed.
    """
    site = write(tmp_path / "site.pem", SITE.both_pem)
    served = directory(tmp_path)
    new = server_certificate("localhost", MIDDLE)
    write(tmp_path / "chain.pem", stray)
    write(site, new.both_pem)
    assert served.reload()
    assert serials(served.certified, "localhost") == [new.serial]
    assert lines.messages == ["certificates reloaded for tls:x"]


@pytest.mark.parametrize("name", [NO_ASCII, X400_ADDRESS], ids=["no ASCII", "of an odd kind"])
def test_own_name_that_cannot_be_read(name: bytes, tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    A site whose alternative names cannot be read is named in one line, at a reload and at the start.
    """
    path = write(tmp_path / "site.pem", SITE.both_pem)
    served = directory(tmp_path)
    before = default_context(served)
    write(path, SITE.key_pem, altered(SITE, DNS_NAME, name), MIDDLE.pem)
    assert not served.reload()
    assert default_context(served) is before
    (line,) = lines.messages
    assert line.startswith(f"certificates of tls:x not reloaded: {path}: the names of the certificate cannot be read")
    with pytest.raises(EndpointError, match=r"site\.pem: the names"):
        directory(tmp_path)


class Failing(Pairs):
    """
    A source of which reading fails in any way, once that is said.
    """

    fault: Exception | None = None

    def load(self) -> Certified:
        if self.fault is not None:
            raise self.fault
        return super().load()


@pytest.mark.parametrize(
    "fault", [UnsupportedAlgorithm("no such key"), ValueError("odd"), KeyError("odd"), OSError(5, "odd")], ids=repr
)
def test_faults_of_any_kind(tmp_path: Path, lines: pytest.LogCaptureFixture, fault: Exception) -> None:
    """
    Whatever is raised while files are read, what is in use stays, one line says so, and the next look comes.
    """
    path = str(write(tmp_path / "both.pem", SITE.both_pem))
    source = Failing([(path, path)], None, (), None)
    clock = Clock()
    served = ServerContexts(NAME, source, TLSSettings())
    served.start_watching(clock)
    before = default_context(served)
    source.fault = fault
    new = server_certificate("localhost", MIDDLE)
    write(Path(path), new.both_pem)
    for _ in range(3):
        clock.advance(WATCH_S)
    assert default_context(served) is before
    (line,) = lines.messages
    assert line.startswith(f"certificates of {NAME} not reloaded: {type(fault).__name__}: ")
    source.fault = None
    assert served.reload()
    assert [one.own.serial_number for one in served.certified.default] == [new.serial]


class WithClients:
    """
    Contexts that ask for client certificates, in the files of a folder, on a clock that the test moves.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = authority("clients")
        path = str(write(folder / "both.pem", SITE.both_pem))
        self.ca = write(folder / "ca.pem", self.authority.pem)
        self.crl = write(folder / "crl.pem", revocation_list(self.authority))
        self.clock = Clock()
        self.began = dt.datetime.now(dt.UTC)
        settings = TLSSettings(client_ca=str(self.ca), client_verify="required", crl=str(self.crl))
        self.contexts = ServerContexts(NAME, Pairs([(path, path)], None, (), None), settings, self.now)
        self.contexts.start_watching(self.clock)

    def now(self) -> dt.datetime:
        return self.began + dt.timedelta(seconds=self.clock.seconds())

    def pass_time(self, seconds: float) -> None:
        """
        In the steps of the timer.
        """
        for _ in range(int(seconds / WATCH_S)):
            self.clock.advance(WATCH_S)


def test_renewal_of_the_ticket_key_with_a_broken_file(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    A ticket key that cannot be renewed, as a revocation list is broken, is one line each time; the rest goes on.
    """
    watched = WithClients(tmp_path)
    before = default_context(watched.contexts)
    watched.crl.write_bytes(b"half a li")
    watched.pass_time(TICKET_KEY_S + 10 * WATCH_S)
    changed, renewal = lines.messages
    assert "not reloaded: crl" in changed
    assert renewal.startswith(f"{NAME}: the key of session tickets is not renewed: crl {watched.crl} ")
    watched.pass_time(TICKET_KEY_S + 10 * WATCH_S)
    assert lines.messages[1:] == [renewal, renewal]
    assert default_context(watched.contexts) is before
    write(watched.crl, revocation_list(watched.authority))
    watched.pass_time(WATCH_S)
    assert default_context(watched.contexts) is not before


def test_renewal_of_the_ticket_key_with_an_odd_authority(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    The same when what is wrong with a file of the settings is found by cryptography only.
    """
    watched = WithClients(tmp_path)
    write(watched.ca, altered(watched.authority, VERSION_3, VERSION_6))
    watched.pass_time(TICKET_KEY_S + 10 * WATCH_S)
    changed, renewal = lines.messages
    assert "not reloaded: " in changed
    assert renewal.startswith(f"{NAME}: the key of session tickets is not renewed: ")


# What is in use


def test_replaced_while_loading(tmp_path: Path) -> None:
    """
    A file that is replaced right after it was read is noticed at the first look.
    """
    new = server_certificate("localhost", MIDDLE)

    class Late(Pairs):
        def load(self) -> Certified:
            found = super().load()
            write(path, new.both_pem)
            return found

    path = write(tmp_path / "both.pem", SITE.both_pem)
    clock = Clock()
    served = ServerContexts(NAME, Late([(str(path), str(path))], None, (), None), TLSSettings())
    served.start_watching(clock)
    assert [one.own.serial_number for one in served.certified.default] == [SITE.serial]
    clock.advance(WATCH_S)
    assert [one.own.serial_number for one in served.certified.default] == [new.serial]


# Passwords in endpoint strings


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        (r"ssl:1:keyPassword=pass\:secret", "ssl:1:keyPassword=***"),
        # What stands behind it goes too: where a password that was not written right ends, nobody knows.
        (r"ssl:1:keyPassword=pass\:secret:certKey=c.pem", "ssl:1:keyPassword=***"),
        (r"ssl:1:keypassword=pass\:secret", "ssl:1:keypassword=***"),
        (r"ssl:1:KEYPASSWORD=secret", "ssl:1:KEYPASSWORD=***"),
        ("ssl:1:keyPassword=secret", "ssl:1:keyPassword=***"),
        ("ssl:1:keyPassword=pass:secret", "ssl:1:keyPassword=***"),
        ("ssl:1:keyPassword=pass:a:secret", "ssl:1:keyPassword=***"),
        (r"ssl:1:keyPassword=pass\:a\:secret", "ssl:1:keyPassword=***"),
        (r"ssl:1:keyPassword=pass\:a\\:secret", "ssl:1:keyPassword=***"),
        (r"ssl:1:keyPassword=pass\:a\:b\=secret", "ssl:1:keyPassword=***"),
        (r"ssl:1:keyPassword=pass\:env\:secret", "ssl:1:keyPassword=***"),
        ("ssl:1:keyPassword=pass\\:a\nsecret", "ssl:1:keyPassword=***"),
        (r"ssl:1:keyPassword\=secret", r"ssl:1:keyPassword\=***"),
        (r"ssl:1:keyPassword =secret", "ssl:1:keyPassword =***"),
        (r"ssl:1:key\Password=pass\:secret", r"ssl:1:key\Password=***"),
        (r"haproxy:ssl:1:keyPassword=pass\:secret", "haproxy:ssl:1:keyPassword=***"),
        (r"tls:/srv/pem:443:keyPassword=pass\:secret", "tls:/srv/pem:443:keyPassword=***"),
        (r"ssl:1:keyPassword=env\:NAME:keyPassword=secret", r"ssl:1:keyPassword=env\:NAME:keyPassword=***"),
        # What is no password.
        (r"ssl:1:keyPassword=env\:NAME", r"ssl:1:keyPassword=env\:NAME"),
        (r"ssl:1:keyPassword=env\:NAME:alpn=h2", r"ssl:1:keyPassword=env\:NAME:alpn=h2"),
        ("ssl:1:keyPasswordFile=word.txt:alpn=h2", "ssl:1:keyPasswordFile=word.txt:alpn=h2"),
        ("tcp:80:interface=127.0.0.1", "tcp:80:interface=127.0.0.1"),
    ],
)
def test_shown(string: str, expected: str) -> None:
    """
    An endpoint string in messages has its passwords replaced, however they are written.
    """
    assert shown(string) == expected


@pytest.mark.parametrize(
    "string",
    [
        pytest.param(r"ssl:1:keyPassword=pass\:secret==", id="as of base64"),
        pytest.param(r"ssl:1:keyPassword=pass\:a\:b=secret", id="= behind a colon that is meant"),
        pytest.param(r"ssl:1:keyPass\word=pass\:secret", id="a backslash within the name"),
        pytest.param(r"ssl:1:k.pem:c.pem::pass\:secret", id="without the name"),
    ],
)
def test_shown_as_it_is_parsed(string: str) -> None:
    """
    What is understood as a password is replaced.
    """
    assert "secret" not in shown(string)


@pytest.mark.parametrize(
    "string", ["ssl:1:keyPassword=pass:secret", "tls:/srv/pem:keyPassword=pass:secret"], ids=["ssl", "tls"]
)
def test_password_with_a_colon_that_has_no_backslash(string: str) -> None:
    """
    The commonest mistake, a colon without its backslash, does not show the password in what is said of it.
    """
    with pytest.raises(EndpointError) as caught:
        parse(None, string)
    assert "secret" not in str(caught.value)
