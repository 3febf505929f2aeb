"""
PEM files: a private key, a certificate and its chain, made into a Twisted context factory.
"""

from __future__ import annotations

from typing import Any

from txasgi.errors import EndpointError


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EndpointError(f"{what} {path}: {error.strerror}") from None


def server_options(private_key: str, certificate: str | None = None, extra_chain: str | None = None) -> Any:
    """
    A CertificateOptions for a key file and a certificate file.

    private_key, certificate, extra_chain: names of PEM files. *certificate* may hold the whole chain, the server's own
    certificate first (fullchain.pem); it is the same file as the key when not given.
    Raises EndpointError, and never asks for a password on the terminal.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from twisted.internet.ssl import CertificateOptions

    certificate = certificate or private_key
    key_pem = _read(private_key, "privateKey")
    chain_pem = _read(certificate, "certKey")
    if extra_chain is not None:
        chain_pem += b"\n" + _read(extra_chain, "extraCertChain")
    try:
        key = load_pem_private_key(key_pem, None)
    except TypeError:
        raise EndpointError(f"privateKey {private_key} is encrypted; give a key without a password") from None
    except ValueError:
        raise EndpointError(f"privateKey {private_key} holds no PEM private key that can be read") from None
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
    except ValueError:
        raise EndpointError(f"certKey {certificate} holds no PEM certificate that can be read") from None
    if chain[0].public_key() != key.public_key():
        raise EndpointError(f"privateKey {private_key} does not belong to the first certificate in {certificate}")
    own, *intermediate = chain
    # cryptography's own objects: pyOpenSSL wants no others any more, which Twisted's annotations do not say.
    made: Any = CertificateOptions
    return made(privateKey=key, certificate=own, extraCertChain=intermediate or None)
