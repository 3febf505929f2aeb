"""
What llhttp lets through and we refuse; pure functions on a parsed request head.

llhttp in its strict mode already refuses bare CR and LF, white space around names, folded lines, control characters,
repeated or signed Content-Length, Content-Length beside Transfer-Encoding, and codings after chunked.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping

from txasgi.errors import BadRequest, NotImplementedByUs, PeerError, TargetTooLong, VersionNotSupported
from txasgi.fields import comma_list
from txasgi.seam import Field

# Fields that the wire looks at; whatever else comes is the application's business.
NOTED = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect", b"connection"))
# Noted under this key, which is no field name, when one of them came twice.
REPEATED = b""

# llhttp knows the methods of RTSP as well, and the PRI of the HTTP/2 preface.
FOREIGN_METHODS = frozenset(
    b"PRI SOURCE DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER SET_PARAMETER REDIRECT RECORD FLUSH".split()
)

# RFC 3986 section 3.2.2, as far as characters go: reg-name, IPv4, [IPv6], and the port of RFC 9110 section 7.2.
# RFC 9110 section 4.2.1 has a recipient reject an empty one.
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9\-._~!$&'()*+,;=%]+)(?::[0-9]*)?").fullmatch
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE).fullmatch
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?: |\Z)").match

# Apache 8190, nginx 8192 a line, RFC 9112 section 3 asks for 8000 at least; peers of ours take 64 KiB.
TARGET_BYTES = 65536


def check_host(host: bytes) -> None:
    """
    Raise BadRequest unless this can be a Host field.

    A framework that builds URLs from it would otherwise be led astray by "a/../admin?" or "user@host".
    """
    if not _HOST(host):
        raise BadRequest("malformed Host")


def origin_form(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """
    The target in origin form, or b"*", and the authority if it has one (RFC 9112 section 3.2). Raises PeerError.
    """
    if len(target) > TARGET_BYTES:
        raise TargetTooLong(f"target of {len(target)} bytes, limit {TARGET_BYTES}")
    if method == b"CONNECT":
        raise NotImplementedByUs("CONNECT: this is no proxy")
    if b"#" in target:
        raise BadRequest("fragment in the request target")
    if target.startswith(b"/"):
        return target, None
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest("target * with a method other than OPTIONS")
        return target, None
    absolute = _ABSOLUTE(target)
    if absolute is None:
        raise BadRequest("malformed request target")
    check_host(absolute[1])
    # No path at all means "/".
    path = absolute[2]
    return path if path.startswith(b"/") else b"/" + path, absolute[1]


def examine(method: bytes, version: str, noted: Mapping[bytes, bytes]) -> None:
    """
    Raise PeerError if the head must be refused.

    noted: the fields of NOTED by name.
    """
    if method in FOREIGN_METHODS:
        raise NotImplementedByUs(f"method {method.decode()}")
    if version not in ("1.1", "1.0"):
        raise VersionNotSupported(f"HTTP/{version}")
    if REPEATED in noted:
        raise BadRequest("repeated Host, Content-Length, Transfer-Encoding or Expect")
    host = noted.get(b"host")
    if host is not None:
        check_host(host)
    elif version == "1.1":
        raise BadRequest("no Host")
    coding = noted.get(b"transfer-encoding")
    if coding is not None:
        if version == "1.0":
            # RFC 9112 section 6.1: its sender may not know what it forwards.
            raise BadRequest("Transfer-Encoding in HTTP/1.0")
        if coding.lower() != b"chunked":
            raise NotImplementedByUs("a transfer coding other than chunked")
    expect = noted.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        # RFC 9110 section 10.1.1 has 417 for it.
        raise ExpectationFailed("an expectation other than 100-continue")


class ExpectationFailed(PeerError):
    """
    An expectation that is not known (RFC 9110 section 15.5.18).
    """

    status = 417


def h2_settings(headers: Iterable[Field]) -> bytes | None:
    """
    The payload of HTTP2-Settings, if the request may ask for h2c (RFC 7540 section 3.2.1); else None, and the
    Upgrade is not heard.
    """
    headers = list(headers)
    given = [value for name, value in headers if name == b"http2-settings"]
    options = comma_list(value.lower() for name, value in headers if name == b"connection")
    if len(given) != 1 or b"http2-settings" not in options:
        return None
    try:
        # base64url without padding.
        return base64.b64decode(given[0] + b"=" * (-len(given[0]) % 4), b"-_", validate=True)
    except ValueError:
        return None


def unknown_method(data: bytes) -> PeerError:
    """
    What to answer when llhttp does not know the method. data: the head as far as it is there.

    501 for what looks like one (RFC 9110 section 9.1), 400 for what is not HTTP at all.
    """
    if _METHOD(data):
        return NotImplementedByUs("unknown method")
    return BadRequest("not HTTP")
