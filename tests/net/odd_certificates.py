"""
Certificates that no library makes: whole and signed, with something in them that parsers stumble over.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.serve.certificates import Signed

# AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758 section 3.2), and of nothing that anybody knows.
ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
UNKNOWN_SIGNATURE = bytes.fromhex("300a06082a8648ce3d04037f")
# id-ecPublicKey (RFC 5480 section 2.1.1), and an unknown one.
EC_PUBLIC_KEY = bytes.fromhex("06072a8648ce3d0201")
UNKNOWN_KEY = bytes.fromhex("06072a8648ce3d027f")
# AlgorithmIdentifier of id-RSASSA-PSS without parameters (RFC 4055 section 3.1).
RSASSA_PSS = bytes.fromhex("300b06092a864886f70d01010a")
# The version of a certificate (RFC 5280 section 4.1.2.1): 3, and one that there is not.
VERSION_3, VERSION_6 = bytes.fromhex("a003020102"), bytes.fromhex("a003020105")


def der(tag: int, content: bytes) -> bytes:
    """
    One element of DER, of less than 64 KiB.
    """
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + content


def pem(label: str, content: bytes) -> bytes:
    """
    RFC 7468.
    """
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(content) + f"-----END {label}-----\n".encode()


def altered(one: Signed, old: bytes, new: bytes) -> bytes:
    """
    The certificate in PEM with these bytes in place of others, signed anew by its issuer, whose key is for ECDSA.

    Of another length the new ones may be only if they are a whole field of the certificate.
    """
    signer = (one.issuer or one).key
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    signed = one.certificate.tbs_certificate_bytes
    content = signed[2 + (signed[1] & 0x7F) :]
    assert old in content and signed[1] & 0x80
    signed = der(0x30, content.replace(old, new))
    algorithm = ECDSA_WITH_SHA256.replace(old, new)
    signature = der(0x03, b"\0" + signer.sign(signed, ec.ECDSA(SHA256())))
    return pem("CERTIFICATE", der(0x30, signed + algorithm + signature))


def for_pss_alone(one: Signed) -> tuple[bytes, bytes]:
    """
    Key and certificate in PEM, of an RSA key, as one that may sign with RSASSA-PSS alone (RFC 4055 section 3.1).
    """
    assert isinstance(one.key, rsa.RSAPrivateKey)
    private = one.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    key = der(0x30, b"\x02\x01\0" + RSASSA_PSS + der(0x04, private))
    public = one.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    bare = one.key.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return pem("PRIVATE KEY", key), altered(one, public, der(0x30, RSASSA_PSS + der(0x03, b"\0" + bare)))
