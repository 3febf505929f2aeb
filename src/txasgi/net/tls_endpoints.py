"""
The endpoint strings that speak TLS: `ssl:` with files, `tls:` with a directory. Imported when one is used, as
OpenSSL and cryptography take 30 ms.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.hashes import SHA256

from txasgi.errors import EndpointError
from txasgi.net.certificates import Directory, Pairs, SelfSigned, read
from txasgi.net.contexts import VERIFICATIONS, VERSIONS, ServerContexts, Source, TLSSettings
from txasgi.net.endpoints import Listen, number, truth
from txasgi.net.listen import TWISTED_BACKLOG, NativeListeners

_log = logging.getLogger("txasgi")


def ssl(
    reactor: NativeListeners,
    shown: str,
    port: str,
    privateKey: tuple[str, ...] = (),
    certKey: tuple[str, ...] = (),
    extraCertChain: str = "",
    keyPassword: str = "",
    keyPasswordFile: str = "",
    minVersion: str = "TLSv1.2",
    ciphers: str = "",
    ciphersuites: str = "",
    clientCA: str = "",
    clientVerify: str = "",
    crl: str = "",
    sessionTickets: str = "yes",
    ocsp: tuple[str, ...] = (),
    alpn: str = "",
    selfSigned: str = "no",
    interface: str = "",
    backlog: str = str(TWISTED_BACKLOG),
    reusePort: str = "no",
) -> Listen:
    """
    Certificates from files; privateKey, certKey and ocsp may be given more than once.
    """
    settings = _settings(minVersion, ciphers, ciphersuites, clientCA, clientVerify, crl, sessionTickets, alpn)
    source: Source
    if truth("selfSigned", selfSigned):
        if privateKey or certKey or extraCertChain or ocsp:
            raise EndpointError("selfSigned=yes makes key and certificate itself; leave out the files")
        source = SelfSigned()
    else:
        pairs = _pairs(privateKey or ("server.pem",), certKey)
        source = Pairs(pairs, extraCertChain or None, ocsp, _password(keyPassword, keyPasswordFile))
    return _listen(reactor, shown, source, settings, port, interface, backlog, reusePort)


def tls(
    reactor: NativeListeners,
    shown: str,
    path: str,
    port: str = "443",
    keyPassword: str = "",
    keyPasswordFile: str = "",
    minVersion: str = "TLSv1.2",
    ciphers: str = "",
    ciphersuites: str = "",
    clientCA: str = "",
    clientVerify: str = "",
    crl: str = "",
    sessionTickets: str = "yes",
    alpn: str = "",
    interface: str = "::",
    backlog: str = str(TWISTED_BACKLOG),
    reusePort: str = "no",
) -> Listen:
    """
    Certificates from a directory, picked by server name.
    """
    settings = _settings(minVersion, ciphers, ciphersuites, clientCA, clientVerify, crl, sessionTickets, alpn)
    source = Directory(path, _password(keyPassword, keyPasswordFile))
    return _listen(reactor, shown, source, settings, port, interface, backlog, reusePort)


PREFIXES: dict[str, Callable[..., Listen]] = {"ssl": ssl, "tls": tls}


def _listen(
    reactor: NativeListeners,
    shown: str,
    source: Source,
    settings: TLSSettings,
    port: str,
    interface: str,
    backlog: str,
    reusePort: str,
) -> Listen:
    port_number = number("the port", port, 0, 65535)
    length = number("backlog", backlog, 1, 2**31 - 1)
    reuse = truth("reusePort", reusePort)
    contexts = ServerContexts(shown, source, settings)
    if isinstance(source, SelfSigned):
        fingerprint = contexts.certified.default[0].own.fingerprint(SHA256()).hex(":").upper()
        _log.warning(
            "%s: a self-signed certificate made for this run, for development only; SHA-256 %s", shown, fingerprint
        )
    reactor.tls_contexts.append(contexts)
    return lambda factory: reactor.listenSSL(port_number, factory, contexts, length, interface, reuse_port=reuse)


def _pairs(keys: Sequence[str], certs: Sequence[str]) -> list[tuple[str, str]]:
    if not certs:
        return [(key, key) for key in keys]
    if len(certs) != len(keys):
        raise EndpointError(f"there are {len(keys)} privateKey= and {len(certs)} certKey=; give them in pairs")
    return list(zip(keys, (cert or key for key, cert in zip(keys, certs, strict=True)), strict=True))


def _settings(
    minVersion: str,
    ciphers: str,
    ciphersuites: str,
    clientCA: str,
    clientVerify: str,
    crl: str,
    sessionTickets: str,
    alpn: str,
) -> TLSSettings:
    if minVersion not in VERSIONS:
        raise EndpointError(f"minVersion must be {' or '.join(VERSIONS)}, not {minVersion!r}")
    verify = clientVerify or ("required" if clientCA else "none")
    if verify not in VERIFICATIONS:
        raise EndpointError(f"clientVerify must be one of {', '.join(VERIFICATIONS)}, not {verify!r}")
    if verify != "none" and not clientCA:
        raise EndpointError(f"clientVerify={verify} needs clientCA=FILE, the authorities of the clients")
    if crl and verify == "none":
        raise EndpointError("crl= needs clientCA=FILE and clientVerify=required or optional")
    protocols = tuple(name.strip().encode() for name in alpn.split(",")) if alpn else ()
    # RFC 7301 section 3.1
    if not all(0 < len(name) < 256 for name in protocols):
        raise EndpointError(f"alpn must be names separated by commas, not {alpn!r}")
    return TLSSettings(
        min_version=minVersion,
        ciphers=ciphers,
        ciphersuites=ciphersuites,
        client_ca=clientCA,
        client_verify=verify,
        crl=crl,
        session_tickets=truth("sessionTickets", sessionTickets),
        alpn=protocols,
    )


def _password(word: str, path: str) -> bytes | None:
    """
    The password of private keys: env:NAME or pass:TEXT, as openssl's -passin has it, or the first line of a file.
    """
    if word and path:
        raise EndpointError("keyPassword= and keyPasswordFile= exclude each other")
    if path:
        return read(path, "keyPasswordFile").partition(b"\n")[0].rstrip(b"\r")
    if not word:
        return None
    kind, colon, rest = word.partition(":")
    if kind == "pass" and colon:
        return rest.encode()
    if kind != "env" or not rest:
        raise EndpointError("keyPassword must be env\\:NAME, the name of an environment variable, or pass\\:TEXT")
    if rest not in os.environ:
        raise EndpointError(f"keyPassword: the environment variable {rest} is not set")
    return os.environb[os.fsencode(rest)] if os.supports_bytes_environ else os.environ[rest].encode()
