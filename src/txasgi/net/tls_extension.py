"""
The ASGI extension `tls`, version 0.2: what an application may know of its connection's encryption.
"""

from __future__ import annotations

import functools
from typing import Any

from OpenSSL import SSL, crypto


@functools.cache
def _cipher_numbers() -> dict[str, int]:
    """
    IANA's numbers of cipher suites, by OpenSSL's names. The standard library tells them, pyOpenSSL doesn't.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    # The two bytes of the protocol; those above say that it is TLS.
    return {cipher["name"]: cipher["id"] & 0xFFFF for cipher in context.get_ciphers()}


def _pem(certificate: crypto.X509) -> str:
    """
    As the peer sent it; OpenSSL takes certificates that cryptography refuses.
    """
    return crypto.dump_certificate(crypto.FILETYPE_PEM, certificate).decode()


def describe(connection: SSL.Connection) -> dict[str, Any]:
    """
    The extension for a connection whose handshake is complete.
    """
    server = connection.get_certificate()
    peer = connection.get_peer_certificate()
    chain = [_pem(certificate) for certificate in connection.get_peer_cert_chain() or ()]
    fault = getattr(connection.get_app_data(), "client_cert_error", None)
    name = None
    if peer is not None:
        own = _pem(peer)
        if own not in chain:
            # OpenSSL leaves a client's own certificate out of its chain when it serves; so much is its interface.
            chain.insert(0, own)
        try:
            name = peer.to_cryptography().subject.rfc4514_string()
        except Exception:  # Anybody may have made it, and what cryptography raises for one is not documented.
            fault = fault or "the certificate cannot be read"
    cipher = connection.get_cipher_name()
    return {
        "server_cert": _pem(server) if server is not None else None,
        "client_cert_chain": chain,
        "client_cert_name": name,
        "client_cert_error": fault,
        "tls_version": connection.get_protocol_version(),
        "cipher_suite": _cipher_numbers().get(cipher) if cipher is not None else None,
    }
