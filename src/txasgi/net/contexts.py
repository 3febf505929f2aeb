"""
OpenSSL contexts for a listener, and the changing of them while it listens.

A context that has made a connection cannot be changed any more, so new certificates are new contexts: they are made
and checked beside those in use, and take their place in one assignment. Connections that are open keep theirs.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IProtocolNegotiationFactory
from zope.interface import implementer

from txasgi.errors import EndpointError
from txasgi.net.certificates import Certified, Credential, certificates, concerns, expired, read

_log = logging.getLogger("txasgi")

# Mozilla's "intermediate" list of 2023 (guidelines 5.7) without its three of finite-field Diffie-Hellman, which only
# clients of before 2013 need, and which let a client make the server work (CVE-2002-20001).
CIPHERS = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signature in ("ECDSA", "RSA")
)
# Of TLS 1.3, in Mozilla's order.
CIPHERSUITES = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# SSL_OP_PRIORITIZE_CHACHA, which pyOpenSSL does not name: a client that would rather have ChaCha20, because it has no
# instructions for AES, gets it; all others get our order.
_PRIORITIZE_CHACHA = 1 << 21
# Mozilla's, and in front of them the one that a quantum computer does not break; which an OpenSSL before
# 3.5 does not know. OpenSSL's own list has finite fields, see above.
GROUPS = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
VERSIONS = {"TLSv1.2": SSL.TLS1_2_VERSION, "TLSv1.3": SSL.TLS1_3_VERSION}
VERIFICATIONS = ("none", "optional", "required")

# How often files are looked at. A look is one stat() a file.
WATCH_S = 10.0
# How long the key lives that session tickets are encrypted with: who steals it can read what was sent meanwhile by
# clients of TLS 1.2. Go: a day, Cloudflare: an hour. It is the context's own, so a new key is a new context.
TICKET_KEY_S = 12 * 3600.0
_DAY_S = 86400.0


class Source(Protocol):
    """
    Where certificates come from; see txasgi.net.certificates.
    """

    def files(self) -> Iterable[str]:
        """
        What to look at for changes.
        """

    def load(self) -> Certified:
        """
        Read and check them. Raises EndpointError.
        """


@dataclass(slots=True)
class TLSSettings:
    """
    What an endpoint string says beside certificates.

    min_version: of VERSIONS. ciphers, ciphersuites: OpenSSL's lists for TLS 1.2 and 1.3, "" for the default.
    client_ca: a PEM file of the authorities of clients; client_verify: of VERIFICATIONS; crl: a PEM file.
    alpn: what may be agreed on; () for what the factory speaks.
    """

    min_version: str = "TLSv1.2"
    ciphers: str = ""
    ciphersuites: str = ""
    client_ca: str = ""
    client_verify: str = "none"
    crl: str = ""
    session_tickets: bool = True
    alpn: tuple[bytes, ...] = ()

    def files(self) -> list[str]:
        """
        What to look at for changes.
        """
        return [path for path in (self.client_ca, self.crl) if path]


class NoCommonProtocol(SSL.Error):
    """
    The client offers by ALPN only what we don't speak (RFC 7301 section 3.2).
    """


@dataclass(slots=True, weakref_slot=True)
class _Set:
    """
    The contexts in use.
    """

    default: SSL.Context
    by_name: dict[str, SSL.Context]

    def find(self, name: str) -> SSL.Context:
        """
        The one for a server name (RFC 6066 section 3): exact, then with a wildcard for its first label.
        """
        name = name.lower().rstrip(".")
        found = self.by_name.get(name)
        first, dot, rest = name.partition(".")
        if found is None and first and dot:
            found = self.by_name.get("*." + rest)
        return found if found is not None else self.default


@implementer(IOpenSSLServerConnectionCreator)
class ServerContexts:
    """
    A context factory for an endpoint. Raises EndpointError when made, if anything is wrong.

    name: the endpoint string, for the log. now: the time of day, as an aware datetime in UTC.
    """

    def __init__(self, name: str, source: Source, settings: TLSSettings, now: Any = None) -> None:
        self.name = name
        self._source = source
        self._settings = settings
        self._now = now if now is not None else lambda: dt.datetime.now(dt.UTC)
        self._clock: Any = None
        self._call: Any = None
        # First, so that what changes meanwhile is noticed.
        self._seen = self._look()
        self.certified, self._set = self._make()
        self._built = self._warned = self._now()
        self._warn()

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """
        IOpenSSLServerConnectionCreator.
        """
        current = self._set
        connection = SSL.Connection(current.default, None)
        # OpenSSL goes back to the context it began with when a client sends its hello again (RFC 8446 section 4.1.4),
        # although pyOpenSSL forgets that one once the server name has picked another: all of them live as long.
        connection.contexts = current  # type: ignore[attr-defined]
        return connection

    # Reload

    def reload(self) -> bool:
        """
        Take the files as they are now, or keep what is in use if anything is wrong with them. Says which in the log.
        """
        self._seen = self._look()
        try:
            certified, new = self._make()
            now = self._now()
            # In a directory, one that is over must not keep the others from being renewed.
            for one in () if certified.by_name else certified.default:
                reason = expired(one, now)
                if reason is not None:
                    raise EndpointError(reason)
            for name in self.certified.by_name:
                if name not in certified.by_name and name in certified.orphans:
                    raise EndpointError(f"the key of the certificate for {name} is not there")
        except EndpointError as error:
            _log.error("certificates of %s not reloaded: %s", self.name, error)
            return False
        self.certified, self._set = certified, new
        self._built = self._warned = now
        _log.info("certificates reloaded for %s", self.name)
        self._warn()
        return True

    def _make(self) -> tuple[Certified, _Set]:
        with _named_errors():
            certified = self._source.load()
            return certified, self._build(certified)

    def start_watching(self, clock: Any) -> None:
        """
        Look at the files every WATCH_S from now on. clock: an IReactorTime.
        """
        self._clock = clock
        self._call = clock.callLater(WATCH_S, self._watch)

    def stop_watching(self) -> None:
        """
        Nobody listens any more.
        """
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _watch(self) -> None:
        self._call = self._clock.callLater(WATCH_S, self._watch)
        now = self._now()
        if self._look() != self._seen:
            self.reload()
        elif (now - self._built).total_seconds() > TICKET_KEY_S:
            self._renew_ticket_key()
        if (now - self._warned).total_seconds() > _DAY_S:
            self._warned = now
            self._warn()

    def _renew_ticket_key(self) -> None:
        self._built = self._now()
        try:
            with _named_errors():
                self._set = self._build(self.certified)
        except EndpointError as error:
            # A file of the settings is broken, which was said when it changed.
            _log.error("%s: the key of session tickets is not renewed: %s", self.name, error)

    def _look(self) -> list[tuple[Any, ...]]:
        seen: list[tuple[Any, ...]] = []
        for path in (*self._source.files(), *self._settings.files()):
            try:
                found = os.stat(path)
            except OSError as error:
                seen.append((path, error.errno))
            else:
                seen.append((path, found.st_mtime_ns, found.st_ino, found.st_size))
        return seen

    def _warn(self) -> None:
        for concern in concerns(self.certified, self._now()):
            _log.warning("%s: %s", self.name, concern)

    # Building

    def _build(self, certified: Certified) -> _Set:
        clients = _Clients(self._settings)
        made: dict[tuple[int, ...], SSL.Context] = {}

        def context(group: Sequence[Credential]) -> SSL.Context:
            key = tuple(map(id, group))
            if key not in made:
                made[key] = self._context(group, clients)
            return made[key]

        new = _Set(context(certified.default), {name: context(group) for name, group in certified.by_name.items()})
        # Weak, as the set has the context that has this: keys would stay in memory until the garbage collector comes.
        known = weakref.ref(new)

        def pick(connection: SSL.Connection) -> None:
            # No exception may leave this: it would be printed, and nobody could catch it.
            name, contexts = connection.get_servername(), known()
            if name is not None and contexts is not None:
                found = contexts.find(name.decode("ascii", "replace"))
                if found is not connection.get_context():
                    connection.set_context(found)

        if new.by_name:
            new.default.set_tlsext_servername_callback(pick)
        return new

    def _context(self, group: Sequence[Credential], clients: _Clients) -> SSL.Context:
        settings = self._settings
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(VERSIONS[settings.min_version])
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | _PRIORITIZE_CHACHA)
        # Measured: 29 KiB less for a connection that waits for its next request.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # Tickets are kept by the clients; sessions kept here would be memory that grows with them.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"txasgi")
        context.set_timeout(int(TICKET_KEY_S))
        # A resumed session is not verified again, so the fault of an optional certificate would be forgotten.
        if not settings.session_tickets or settings.client_verify == "optional":
            context.set_options(SSL.OP_NO_TICKET)
        _set_ciphers(context, settings)
        _set_groups(context)
        # The first one last: it is what OpenSSL tells of a resumed session, for which none was chosen.
        for one in reversed(group):
            _use(context, one)
        if settings.client_verify != "none":
            clients.ask(context)
        context.set_alpn_select_callback(self._agree)
        if any(one.staple for one in group):
            context.set_ocsp_server_callback(self._staple, {one.own.serial_number: one for one in group})
        return context

    def _staple(self, connection: SSL.Connection, by_serial: Any) -> bytes:
        certificate = connection.get_certificate(as_cryptography=True)
        one = by_serial.get(certificate.serial_number) if certificate is not None else None
        if one is None or one.staple is None or (one.staple_until is not None and one.staple_until < self._now()):
            return b""
        staple: bytes = one.staple
        return staple

    def _agree(self, connection: SSL.Connection, offered: list[bytes]) -> Any:
        """
        ALPN: the first of ours that the client offers.
        """
        factory = connection.get_app_data().factory.wrappedFactory
        speaks = IProtocolNegotiationFactory(factory, None)
        spoken = tuple(speaks.acceptableProtocols()) if speaks is not None else ()
        ours = tuple(one for one in self._settings.alpn if not spoken or one in spoken) or spoken
        if not ours:
            return SSL.NO_OVERLAPPING_PROTOCOLS
        for one in ours:
            if one in offered:
                return one
        raise NoCommonProtocol([("SSL routines", "", f"no application protocol in common with {offered!r}")])


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except EndpointError:
        raise
    except Exception as error:  # What cryptography and OpenSSL raise for odd certificates is not documented.
        raise EndpointError(f"{type(error).__name__}: {error}") from error


class _Clients:
    """
    The authorities of client certificates and what they revoked, read once for all contexts of a set.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self._settings = settings
        self._authorities: list[x509.Certificate] = []
        self._revoked: list[x509.CertificateRevocationList] = []
        if settings.client_ca:
            self._authorities = certificates(read(settings.client_ca, "clientCA"), settings.client_ca, "clientCA")
        if settings.crl:
            self._revoked = _revocation_lists(settings.crl)

    def ask(self, context: SSL.Context) -> None:
        """
        Have the context ask clients for a certificate.
        """
        store = context.get_cert_store()
        assert store is not None
        for authority in self._authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))
            # Clients choose a certificate by the names of the authorities that are asked for.
            context.add_client_ca(authority)
        for revoked in self._revoked:
            store.add_crl(revoked)
        if self._revoked:
            flags = crypto.X509StoreFlags.CRL_CHECK
            issuers = {revoked.issuer for revoked in self._revoked}
            if all(authority.subject in issuers for authority in self._authorities):
                # Of the authorities between, too; asks for a list of each.
                flags |= crypto.X509StoreFlags.CRL_CHECK_ALL
            store.set_flags(flags)
        if self._settings.client_verify == "required":
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _refuse)
        else:
            context.set_verify(SSL.VERIFY_PEER, _note)


def _revocation_lists(path: str) -> list[x509.CertificateRevocationList]:
    begin = b"-----BEGIN X509 CRL-----"
    parts = read(path, "crl").split(begin)[1:]
    try:
        found = [x509.load_pem_x509_crl(begin + part) for part in parts]
    except ValueError:
        found = []
    if not found:
        raise EndpointError(f"crl {path} holds no PEM certificate revocation list that can be read")
    return found


def _refuse(connection: Any, certificate: Any, error: int, depth: int, verified: int) -> bool:
    return bool(verified)


_FAULTS = {
    number: name.removeprefix("ERR_").replace("_", " ").lower()
    for name, number in vars(SSL.X509VerificationCodes).items()
    if name.startswith("ERR_")
}


def _note(connection: Any, certificate: Any, error: int, depth: int, verified: int) -> bool:
    """
    Let the client in, and note the first thing that is wrong with its certificate.
    """
    tls = connection.get_app_data()
    if not verified and getattr(tls, "client_cert_error", None) is None:
        tls.client_cert_error = f"{_FAULTS.get(error, 'verification failed')} (code {error}, depth {depth})"
    return True


def _set_ciphers(context: SSL.Context, settings: TLSSettings) -> None:
    try:
        context.set_cipher_list((settings.ciphers or CIPHERS).encode())
    except (SSL.Error, UnicodeEncodeError):
        raise EndpointError(f"ciphers={settings.ciphers} names no cipher that OpenSSL knows") from None
    try:
        context.set_tls13_ciphersuites((settings.ciphersuites or CIPHERSUITES).encode())
    except (SSL.Error, UnicodeEncodeError):
        raise EndpointError(
            f"ciphersuites={settings.ciphersuites} has a cipher suite of TLS 1.3 that OpenSSL does not know"
        ) from None


def _set_groups(context: Any) -> None:
    """
    The groups of the key exchange. pyOpenSSL has no door to this, so where its inside is another, OpenSSL's stay.
    """
    try:
        from OpenSSL._util import lib

        choose, pointer = lib.SSL_CTX_set1_curves_list, context._context
    except (ImportError, AttributeError):
        return
    if not any(choose(pointer, groups) for groups in GROUPS):
        lib.ERR_clear_error()


def _use(context: SSL.Context, one: Credential) -> None:
    """
    Give a context a key and its chain. Only from a file does OpenSSL take a chain for each of several certificates.
    """
    pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in one.chain)
    try:
        with _file_of(pem) as path:
            context.use_certificate_chain_file(path)
        context.use_privatekey(one.key)
        context.check_privatekey()
    except SSL.Error as error:
        queue = error.args[0] if error.args else ()
        reasons = "; ".join(entry[-1] for entry in queue) or "OpenSSL does not take it"
        raise EndpointError(f"{one.origin}: {reasons}") from None
    except TypeError as error:
        raise EndpointError(f"{one.origin}: {error}") from None


@contextlib.contextmanager
def _file_of(contents: bytes) -> Iterator[str]:
    if hasattr(os, "memfd_create"):
        # In memory, as there may be no file system that can be written to.
        descriptor = os.memfd_create("chain.pem")
        try:
            os.write(descriptor, contents)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(contents)
            file.flush()
            yield file.name
