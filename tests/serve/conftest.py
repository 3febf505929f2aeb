"""
Folders for sockets, and certificates.
"""

from __future__ import annotations

import datetime as dt
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    An empty directory with a short path: that of a UNIX socket may have 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        yield Path(name)


class Certificates(NamedTuple):
    """
    Names of PEM files, and a client's context that knows the root alone.

    key, leaf: the server's, for localhost; encrypted: the same key with a password; other_key: another.
    fullchain: leaf and intermediate; chain: the intermediate. both: key and full chain in one file.
    root: what a client has to know. by_name: a directory for tls:.
    """

    key: Path
    encrypted: Path
    other_key: Path
    leaf: Path
    chain: Path
    fullchain: Path
    both: Path
    root: Path
    by_name: Path
    trust: ssl.SSLContext


Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _sign(name: str, issuer: Signed | None, *, authority: bool) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    issuer_key = issuer[1] if issuer else key
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
    )
    if authority:
        # From Python 3.13 on clients insist on it (RFC 5280 section 4.2.1.3).
        usages = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        usage = x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usages)
        builder = builder.add_extension(usage, critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(issuer_key, SHA256()), key


def _key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """
    A root, an intermediate authority, and a server's certificate.
    """
    folder = tmp_path_factory.mktemp("pem")
    root = _sign("a root", None, authority=True)
    middle = _sign("an intermediate", root, authority=True)
    leaf, key = _sign("localhost", middle, authority=False)
    other, other_key = _sign("other.test", middle, authority=False)
    chain_pem = middle[0].public_bytes(Encoding.PEM)
    leaf_pem = leaf.public_bytes(Encoding.PEM)
    (folder / "by-name").mkdir()
    files = {
        "key.pem": _key_pem(key),
        "encrypted.pem": _key_pem(key, b"secret"),
        "other-key.pem": _key_pem(other_key),
        "leaf.pem": leaf_pem,
        "chain.pem": chain_pem,
        "fullchain.pem": leaf_pem + chain_pem,
        "both.pem": leaf_pem + chain_pem + _key_pem(key),
        "root.pem": root[0].public_bytes(Encoding.PEM),
        "by-name/localhost.pem": _key_pem(key) + leaf_pem + chain_pem,
        "by-name/other.test.pem": _key_pem(other_key) + other.public_bytes(Encoding.PEM) + chain_pem,
    }
    for name, pem in files.items():
        (folder / name).write_bytes(pem)
    trust = ssl.create_default_context(cafile=str(folder / "root.pem"))
    named = [folder / name for name in list(files)[:8]]
    return Certificates(*named, by_name=folder / "by-name", trust=trust)


def ssl_endpoint(key: Path, certificate: Path | None = None, more: str = "") -> str:
    """
    TLS on a port of the system's choice.
    """
    return f"ssl:0:interface=127.0.0.1:privateKey={key}" + (f":certKey={certificate}" if certificate else "") + more
