"""
What libnghttp2 lets through and we refuse, and from its header lists to heads; pure functions.

libnghttp2 already answers with a stream error what RFC 9113 section 8 calls malformed: pseudo fields that are missing,
unknown or out of place, names in upper case, fields of the connection, control characters, a body that is not as long
as content-length says.
"""

from __future__ import annotations

from collections.abc import Sequence

from txasgi.errors import BadRequest, NotImplementedByUs
from txasgi.seam import Field, Head, Link
from txasgi.wire import h1_rules

_COLON = 0x3A
# Fields that the wire looks at.
_NOTED = frozenset((b"host", b"cookie", b"expect", b"content-length"))
# RFC 9113 section 8.2.2.
OF_THE_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT")}


def head_of(fields: Sequence[Field], link: Link, complete: bool) -> Head:
    """
    The head that a field section says. Raises PeerError for one that is to be answered with an error.

    complete: END_STREAM came with it.
    """
    method = target = b""
    authority: bytes | None = None
    protocol: bytes | None = None
    place = 0
    for name, value in fields:
        if name[0] != _COLON:
            break
        place += 1
        if name == b":method":
            method = value
        elif name == b":path":
            target = value
        elif name == b":authority":
            authority = value
        elif name == b":protocol":
            protocol = value
    headers: list[Field] = list(fields[place:])
    noted = [field for field in headers if field[0] in _NOTED]
    expects_continue = False
    if noted:
        authority, headers, expects_continue = _examine(noted, authority, headers)
    if authority is not None:
        h1_rules.check_host(authority)
        # RFC 9113 section 8.3.1: what a request in HTTP/1.1 would have.
        headers.insert(0, (b"host", authority))
    if method == b"CONNECT":
        if protocol != b"websocket":
            raise NotImplementedByUs("CONNECT: this is no proxy, and WebSocket is the only protocol")
    elif b"#" in target or not (target.startswith(b"/") or (target == b"*" and method == b"OPTIONS")):
        raise BadRequest("malformed path")
    if method in h1_rules.FOREIGN_METHODS:
        raise NotImplementedByUs(f"method {method.decode()}")
    name_of_method = _METHODS.get(method) or method.decode()
    return Head(name_of_method, target, headers, "2", link, protocol, expects_continue, complete)


def _examine(
    noted: list[Field], authority: bytes | None, headers: list[Field]
) -> tuple[bytes | None, list[Field], bool]:
    """
    Host, cookies, Expect: returns the authority, the fields without host, and whether 100 is waited for.
    """
    hosts = [value for name, value in noted if name == b"host"]
    if hosts:
        if len(hosts) > 1 or (authority is not None and hosts[0] != authority):
            raise BadRequest("Host is not what :authority says")
        authority = hosts[0]
        headers = [field for field in headers if field[0] != b"host"]
    cookies = [value for name, value in noted if name == b"cookie"]
    if len(cookies) > 1:
        # RFC 9113 section 8.2.3.
        headers = [field for field in headers if field[0] != b"cookie"]
        headers.append((b"cookie", b"; ".join(cookies)))
    expectations = [value for name, value in noted if name == b"expect"]
    if expectations and [value.lower() for value in expectations] != [b"100-continue"]:
        raise h1_rules.ExpectationFailed("an expectation other than 100-continue")
    return authority, headers, bool(expectations)


def is_forbidden(version: int, cipher: str) -> bool:
    """
    Whether HTTP/2 must not be spoken with this TLS (RFC 9113 section 9.2.1, 9.2.2, appendix A).

    version: as in the protocol, 0x0303 for TLS 1.2. cipher: OpenSSL's name.
    """
    if version >= 0x0304:
        return False
    ephemeral = cipher.startswith(("ECDHE-", "DHE-"))
    authenticated = any(mode in cipher for mode in ("GCM", "CCM", "CHACHA20"))
    return version < 0x0303 or not (ephemeral and authenticated)
