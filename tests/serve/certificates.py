"""
Authorities, certificates, revocation lists and OCSP responses, made as they are asked for.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

# Of each certificate whose end no test looks at: beyond the week from which on a server warns.
DAYS = 90


@dataclass(frozen=True, slots=True)
class Signed:
    """
    A certificate, its key and its issuer. An authority that has signed itself has no issuer.
    """

    certificate: x509.Certificate
    key: Key
    issuer: Signed | None

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def chain(self) -> list[Signed]:
        """
        As a server sends it: its own certificate first, and none that has signed itself but that one.
        """
        above = self.issuer.chain if self.issuer is not None and self.issuer.issuer is not None else []
        return [self, *above]

    @property
    def fullchain_pem(self) -> bytes:
        return b"".join(one.pem for one in self.chain)

    @property
    def intermediates_pem(self) -> bytes:
        return b"".join(one.pem for one in self.chain[1:])

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def both_pem(self) -> bytes:
        """
        Key and chain for one file.
        """
        return self.key_pem + self.fullchain_pem

    def encrypted_key_pem(self, password: str, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
        """
        form: PKCS8 ("ENCRYPTED PRIVATE KEY") or TraditionalOpenSSL ("Proc-Type: 4,ENCRYPTED").
        """
        return self.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(password.encode()))


def new_key(kind: str = "ec") -> Key:
    """
    kind: ec (P-256) or rsa (2048 bits).
    """
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def distinguished_name(common_name: str, organization: str = "") -> x509.Name:
    first = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*first, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, key: Key, issuer: Signed | None, begins: float, ends: float
) -> x509.CertificateBuilder:
    """
    What every certificate has. begins, ends: in days from now.
    """
    now = dt.datetime.now(dt.UTC)
    signer = issuer.key if issuer else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + dt.timedelta(days=begins))
        .not_valid_after(now + dt.timedelta(days=ends))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _usage(*usages: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in usages for name in names})


def authority(name: str, issuer: Signed | None = None, kind: str = "ec") -> Signed:
    """
    A root, or the intermediate authority of an issuer.
    """
    key = new_key(kind)
    builder = (
        _builder(distinguished_name(name), key, issuer, -1, 10 * DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        # From Python 3.13 on clients insist on it (RFC 5280 section 4.2.1.3).
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return Signed(builder.sign(issuer.key if issuer else key, SHA256()), key, issuer)


def _leaf(builder: x509.CertificateBuilder, key: Key, issuer: Signed | None, purpose: x509.ObjectIdentifier) -> Signed:
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    return Signed(builder.sign(issuer.key if issuer else key, SHA256()), key, issuer)


def server_certificate(
    names: str | Sequence[str],
    issuer: Signed,
    kind: str = "ec",
    *,
    begins: float = -1,
    ends: float = DAYS,
    key: Key | None = None,
) -> Signed:
    """
    For one DNS name or several. begins, ends: in days from now.
    """
    names = [names] if isinstance(names, str) else list(names)
    key = key or new_key(kind)
    # A common name has at most 64 characters.
    builder = _builder(distinguished_name(names[0][:64]), key, issuer, begins, ends)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    return _leaf(builder.add_extension(alternatives, critical=False), key, issuer, ExtendedKeyUsageOID.SERVER_AUTH)


def client_certificate(
    name: str,
    issuer: Signed | None,
    *,
    organization: str = "",
    begins: float = -1,
    ends: float = DAYS,
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> Signed:
    """
    For a person; without an issuer it has signed itself. begins, ends: in days from now.
    """
    key = new_key()
    builder = _builder(distinguished_name(name, organization), key, issuer, begins, ends)
    return _leaf(builder, key, issuer, purpose)


def revocation_list(issuer: Signed, *revoked: Signed) -> bytes:
    """
    The authority's CRL, in PEM.
    """
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(now - dt.timedelta(days=1))
        .next_update(now + dt.timedelta(days=DAYS))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(now - dt.timedelta(hours=1)).build())
    return builder.sign(issuer.key, SHA256()).public_bytes(Encoding.PEM)


def ocsp_response(one: Signed) -> bytes:
    """
    What the issuer's responder says of a certificate, in DER: good.
    """
    assert one.issuer is not None
    now = dt.datetime.now(dt.UTC)
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=one.certificate,
        issuer=one.issuer.certificate,
        algorithm=SHA1(),
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=now - dt.timedelta(hours=1),
        next_update=now + dt.timedelta(days=7),
        revocation_time=None,
        revocation_reason=None,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, one.issuer.certificate)
    return builder.sign(one.issuer.key, SHA256()).public_bytes(Encoding.DER)


def write(path: Path, *parts: bytes) -> Path:
    """
    Put a file in place in one step, with its directories; what was there is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(b"".join(parts))
    os.replace(fresh, path)
    return path


@dataclass(frozen=True, slots=True)
class Authorities:
    """
    root: what clients know; intermediate: issues for ECDSA keys, rsa_intermediate for RSA keys.
    client_root, client_intermediate: issue client certificates. stranger: a root that nobody knows.
    root_file, client_root_file: PEM.
    """

    root: Signed
    intermediate: Signed
    rsa_intermediate: Signed
    client_root: Signed
    client_intermediate: Signed
    stranger: Signed
    root_file: Path
    client_root_file: Path

    def server(self, *names: str, kind: str = "ec", begins: float = -1, ends: float = DAYS) -> Signed:
        """
        A server's certificate with a whole chain; for localhost, unless there are names.
        """
        issuer = self.rsa_intermediate if kind == "rsa" else self.intermediate
        return server_certificate(names or ["localhost"], issuer, kind, begins=begins, ends=ends)


def new_authorities(folder: Path) -> Authorities:
    root = authority("a root")
    client_root = authority("a root for clients")
    return Authorities(
        root=root,
        intermediate=authority("an intermediate", root),
        rsa_intermediate=authority("an intermediate with RSA", root, "rsa"),
        client_root=client_root,
        client_intermediate=authority("an intermediate for clients", client_root),
        stranger=authority("a stranger"),
        root_file=write(folder / "root.pem", root.pem),
        client_root_file=write(folder / "client-root.pem", client_root.pem),
    )
