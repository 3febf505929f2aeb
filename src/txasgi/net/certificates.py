"""
Certificates of a server: PEM files to keys with their chains, checked. Knows no OpenSSL and no connection.

Whatever is wrong is an EndpointError whose text names the file. Nothing asks for a password on the terminal.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, PublicKeyAlgorithmOID

from txasgi.errors import EndpointError

# Let's Encrypt's clients renew 30 days before the end, so at 7 something is wrong.
WARNING = dt.timedelta(days=7)

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_BEGIN = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")
# The longest chain in use has 4; a loop of issuers must end somewhere.
_CHAIN_LENGTH = 10


@dataclass(slots=True)
class Credential:
    """
    A private key and its certificate.

    chain: the certificate itself, then those that lead towards a root, as they are sent.
    origin: the file of the certificate, for messages.
    staple: an OCSP response in DER, or None; staple_until: when it is not to be used any more.
    """

    key: Any
    chain: list[x509.Certificate]
    origin: str
    staple: bytes | None = None
    staple_until: dt.datetime | None = None

    @property
    def own(self) -> x509.Certificate:
        """
        The server's certificate.
        """
        return self.chain[0]

    @property
    def names(self) -> list[str]:
        """
        The DNS names it is for, in lower case; the common name where there is no subject alternative name.
        """
        try:
            names = self.own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            common = self.own.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            return [str(one.value).lower() for one in common]
        except Exception as error:  # What cryptography raises for odd names; there is no list.
            raise EndpointError(f"{self.origin}: the names of the certificate cannot be read: {error}") from None
        return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


@dataclass(slots=True)
class Certified:
    """
    What a server shows.

    default: the credentials for a client that names no server, or none that we know; one of each kind of key.
    by_name: those for a name, or "*.example.com". orphans: names for which there is a certificate without its key.
    """

    default: list[Credential]
    by_name: dict[str, list[Credential]] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)

    def all(self) -> Iterator[Credential]:
        """
        Each once.
        """
        seen: set[int] = set()
        for group in (self.default, *self.by_name.values()):
            for credential in group:
                if id(credential) not in seen:
                    seen.add(id(credential))
                    yield credential


def read(path: str, what: str) -> bytes:
    """
    The contents of a file. Raises EndpointError.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise EndpointError(f"{what} {path}: {error.strerror}") from None
    except ValueError as error:  # A NUL in the name.
        raise EndpointError(f"{what} {path!r}: {error}") from None


def private_key(pem: bytes, path: str, password: bytes | None) -> Any:
    """
    The private key in a PEM text.
    """
    try:
        return load_pem_private_key(pem, password)
    except TypeError:
        if password is not None:
            # A password for a key that has none: one password may serve several keys.
            return private_key(pem, path, None)
        raise EndpointError(
            f"privateKey {path} is encrypted; give keyPassword=env\\:NAME or keyPasswordFile=FILE"
        ) from None
    except ValueError as error:
        if password is not None and b"ENCRYPTED" in pem:
            raise EndpointError(f"privateKey {path}: the password is wrong") from None
        raise EndpointError(f"privateKey {path} holds no PEM private key that can be read") from error
    except Exception as error:  # UnsupportedAlgorithm and what else cryptography may raise for an odd key.
        raise EndpointError(f"privateKey {path}: {error}") from None


def certificates(pem: bytes, path: str, what: str) -> list[x509.Certificate]:
    """
    The certificates in a PEM text, in its order; at least one.
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise EndpointError(f"{what} {path} holds no PEM certificate that can be read") from None
    except Exception as error:  # InvalidVersion and what else cryptography raises; there is no list.
        raise EndpointError(f"{what} {path}: {error}") from None
    if len(found) != len(_BEGIN.findall(pem)):
        # Somebody is still writing it.
        raise EndpointError(f"{what} {path} is cut off: the last certificate has no end")
    return found


def credential(key_path: str, certificate_path: str, extra_path: str | None, password: bytes | None) -> Credential:
    """
    The key and the chain in two files, checked to belong together. The chain may be the file's, and another's behind.
    """
    key = private_key(read(key_path, "privateKey"), key_path, password)
    chain = certificates(read(certificate_path, "certKey"), certificate_path, "certKey")
    if extra_path:
        chain += certificates(read(extra_path, "extraCertChain"), extra_path, "extraCertChain")
    refuse_pss(chain[0], certificate_path)
    if chain[0].public_key() != key.public_key():
        raise EndpointError(f"privateKey {key_path} does not belong to the first certificate in {certificate_path}")
    check_order(chain, certificate_path)
    return Credential(key, chain, certificate_path)


def refuse_pss(certificate: x509.Certificate, path: str) -> None:
    """
    pyOpenSSL makes an ordinary RSA key of one that is for RSASSA-PSS alone, which then does not fit its certificate.
    """
    if certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise EndpointError(f"certKey {path}: a key for RSASSA-PSS alone cannot be used; use an RSA key")


def check_order(chain: Sequence[x509.Certificate], path: str) -> None:
    """
    Each certificate has issued one before it (RFC 8446 section 4.4.2): the next above, or another way to it.
    """
    for place, issuer in enumerate(chain[1:], 1):
        if not any(is_issued_by(issued, issuer) or issued == issuer for issued in chain[:place]):
            raise EndpointError(f"certKey {path}: certificate {place} is not issued by the one that follows it")


def is_issued_by(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    """
    Whether the one signed the other.
    """
    try:
        issued.verify_directly_issued_by(issuer)
    except (TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    except ValueError:
        # The same name may be encoded in two ways, which clients compare as text, and cryptography as bytes.
        return _key_identifiers_agree(issued, issuer)
    return True


def _key_identifiers_agree(issued: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        above = issued.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, ValueError):
        return False
    same_name = issued.issuer.rfc4514_string() == issuer.subject.rfc4514_string()
    return above is not None and above == own and same_name


def add_staple(credentials: Iterable[Credential], path: str) -> None:
    """
    Give an OCSP response (RFC 6960) to the certificate it is for.
    """
    der = read(path, "ocsp")
    try:
        response = ocsp.load_der_ocsp_response(der)
        serial = response.serial_number
    except ValueError:
        raise EndpointError(f"ocsp {path} is no successful OCSP response in DER") from None
    for one in credentials:
        if one.own.serial_number == serial:
            one.staple = der
            one.staple_until = response.next_update_utc
            return
    raise EndpointError(f"ocsp {path} is for another certificate: its serial number is {serial:x}")


def expired(one: Credential, now: dt.datetime) -> str | None:
    """
    Why a certificate cannot be used at this time, or None.
    """
    if one.own.not_valid_after_utc < now:
        return f"{one.origin}: the certificate expired on {one.own.not_valid_after_utc:%Y-%m-%d}"
    if one.own.not_valid_before_utc > now:
        return f"{one.origin}: the certificate is not valid before {one.own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return None


def concerns(certified: Certified, now: dt.datetime) -> list[str]:
    """
    What the operator should know: certificates that are over, or will be in less than seven days; stale staples.
    """
    found = []
    for one in certified.all():
        left = one.own.not_valid_after_utc - now
        reason = expired(one, now)
        if reason is not None:
            found.append(reason)
        elif left < WARNING:
            when = f"{left.days} days" if left.days > 1 else f"{left.total_seconds() / 3600:.0f} hours"
            found.append(f"{one.origin}: the certificate expires in {when}, less than 7 days")
        if one.staple_until is not None and one.staple_until < now:
            found.append(f"{one.origin}: the OCSP response was good until {one.staple_until:%Y-%m-%d}; not stapled")
    return found


# Sources: where certificates come from


class Pairs:
    """
    Pairs of a key file and a certificate file, ECDSA and RSA side by side.

    extra: a file with more of the first pair's chain, or None. staples: files with OCSP responses.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        extra: str | None,
        staples: Sequence[str],
        password: bytes | None,
    ) -> None:
        self._pairs = pairs
        self._extra = extra
        self._staples = staples
        self._password = password

    def files(self) -> Iterable[str]:
        """
        What to look at for changes.
        """
        extra = [self._extra] if self._extra else []
        return [*(path for pair in self._pairs for path in pair), *extra, *self._staples]

    def load(self) -> Certified:
        """
        Read and check all of it.
        """
        found = [
            credential(key, certificate, self._extra if place == 0 else None, self._password)
            for place, (key, certificate) in enumerate(self._pairs)
        ]
        kinds = [type(one.key) for one in found]
        if len(set(kinds)) != len(kinds):
            raise EndpointError(
                f"{found[0].origin} and {found[-1].origin} have the same kind of key; one of them is enough"
            )
        for path in self._staples:
            add_staple(found, path)
        return Certified(found)


class Directory:
    """
    Every *.pem below a directory; keys and certificates find each other by public key, wherever they lie.

    That fits one file a site, `privkey.pem` beside `fullchain.pem`, and what ACME clients write. OCSP responses are
    *.ocsp.
    """

    def __init__(self, path: str, password: bytes | None) -> None:
        self._path = path
        self._password = password

    def files(self) -> Iterable[str]:
        """
        What to look at for changes, in order.
        """
        return sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        # Let's Encrypt's `live` has symbolic links to files.
        for folder, _, names in os.walk(self._path):
            for name in names:
                if name.lower().endswith((".pem", ".ocsp")):
                    yield os.path.join(folder, name)

    def load(self) -> Certified:
        """
        Read and check all of it.
        """
        if not os.path.isdir(self._path):
            raise EndpointError(f"{self._path} is not a directory of PEM files")
        keys: dict[bytes, Any] = {}
        chains: list[tuple[str, list[x509.Certificate]]] = []
        staples = []
        for path in self.files():
            if path.lower().endswith(".ocsp"):
                staples.append(path)
                continue
            pem = read(path, "PEM file")
            for block in _BLOCK.finditer(pem):
                if block[1].endswith(b"PRIVATE KEY"):
                    key = private_key(block[0], path, self._password)
                    keys[_public(key.public_key())] = key
            if _BEGIN.search(pem):
                chains.append((path, certificates(pem, path, "PEM file")))
        found, orphans = _matched(keys, chains)
        if not found:
            raise EndpointError(f"{self._path} holds no private key together with its certificate in any *.pem")
        for path in staples:
            add_staple(found, path)
        certified = _named(found, dt.datetime.now(dt.UTC))
        certified.orphans = orphans
        return certified


def _public(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _matched(
    keys: dict[bytes, Any], chains: Sequence[tuple[str, list[x509.Certificate]]]
) -> tuple[list[Credential], set[str]]:
    """
    The certificates whose keys are there, each once, with the longest chain that can be made; and the names of servers'
    certificates whose keys are not.
    """
    # Each once, though every site has a copy of its authority's certificate.
    issuers: dict[str, dict[x509.Certificate, None]] = {}
    for _, chain in chains:
        for certificate in chain:
            issuers.setdefault(_text(certificate.subject), {})[certificate] = None
    found: dict[x509.Certificate, Credential] = {}
    orphans: set[str] = set()
    for path, chain in chains:
        for place, certificate in enumerate(chain):
            if certificate in found:
                continue
            try:
                key = keys.get(_public(certificate.public_key()))
            except (ValueError, UnsupportedAlgorithm):
                # An authority's, with a key of a kind that we could not serve with anyway.
                continue
            if key is not None:
                refuse_pss(certificate, path)
                found[certificate] = Credential(key, _chain(certificate, issuers), path)
            elif place == 0:
                with contextlib.suppress(EndpointError):
                    orphans.update(Credential(None, [certificate], path).names)
    return list(found.values()), orphans


def _chain(own: x509.Certificate, issuers: dict[str, dict[x509.Certificate, None]]) -> list[x509.Certificate]:
    """
    The certificate and those above it, as far as they are there, without the root, which every client must have itself.
    """
    chain = [own]
    while len(chain) < _CHAIN_LENGTH and chain[-1].subject != chain[-1].issuer:
        above = [
            issuer
            for issuer in issuers.get(_text(chain[-1].issuer), ())
            if issuer.subject != issuer.issuer and issuer not in chain and is_issued_by(chain[-1], issuer)
        ]
        if not above:
            break
        # After a renewal of the authority there may be two; the one that lasts longer.
        chain.append(max(above, key=lambda issuer: issuer.not_valid_after_utc))
    return chain


def _text(name: x509.Name) -> str:
    """
    A name as clients compare it: however it is encoded.
    """
    return name.rfc4514_string()


def _named(found: Sequence[Credential], now: dt.datetime) -> Certified:
    """
    The credentials by name; where two have the same kind of key the one that is valid, and the longest, is taken.
    """
    by_name: dict[str, dict[type, Credential]] = {}
    for one in found:
        for name in one.names:
            kinds = by_name.setdefault(name, {})
            kind = type(one.key)
            if kind not in kinds or _merit(one, now) > _merit(kinds[kind], now):
                kinds[kind] = one
    named = {name: list(kinds.values()) for name, kinds in by_name.items()}
    first = next((one for one in found if os.path.basename(one.origin).lower() == "default.pem"), found[0])
    # For its name there may be a newer one.
    default = named[first.names[0]] if first.names else [first]
    return Certified(default, named)


def _merit(one: Credential, now: dt.datetime) -> tuple[bool, dt.datetime]:
    return expired(one, now) is None, one.own.not_valid_after_utc


class SelfSigned:
    """
    A certificate for this machine's own names, made in memory: for development.
    """

    def files(self) -> Iterable[str]:
        """
        None.
        """
        return ()

    def load(self) -> Certified:
        """
        Make it.
        """
        import ipaddress

        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.hashes import SHA256

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = dt.datetime.now(dt.UTC)
        hosts = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::1"))]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            # A clock may be a little behind; nobody runs a development server for a month.
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(key, SHA256())
        )
        return Certified([Credential(key, [certificate], "self-signed")])
