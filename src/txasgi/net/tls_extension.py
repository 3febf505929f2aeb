"""
The ASGI extension `tls`, version 0.2: what an application may know of its connection's encryption.
"""

from __future__ import annotations

import functools
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL


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


def describe(connection: SSL.Connection) -> dict[str, Any]:
    """
    The extension for a connection whose handshake is complete.
    """
    server = connection.get_certificate(as_cryptography=True)
    peer = connection.get_peer_certificate(as_cryptography=True)
    # OpenSSL leaves a client's own certificate out of its chain when it serves; so much is its interface.
    chain = list(connection.get_peer_cert_chain(as_cryptography=True) or ())
    if peer is not None and peer not in chain:
        chain.insert(0, peer)
    cipher = connection.get_cipher_name()
    return {
        "server_cert": server.public_bytes(Encoding.PEM).decode() if server is not None else None,
        "client_cert_chain": [certificate.public_bytes(Encoding.PEM).decode() for certificate in chain],
        "client_cert_name": peer.subject.rfc4514_string() if peer is not None else None,
        "client_cert_error": getattr(connection.get_app_data(), "client_cert_error", None),
        "tls_version": connection.get_protocol_version(),
        "cipher_suite": _cipher_numbers().get(cipher) if cipher is not None else None,
    }
