"""
Header names and values, both directions (RFC 9110 section 5).

What the application sends is checked here before anything reaches a wire: a line break in a value would split the
answer in two (CVE-2020-7695 and its kin).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from txasgi.errors import ApplicationError
from txasgi.seam import Field

# RFC 9110 section 5.6.2
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch

# Control characters but HTAB (section 5.5).
has_control = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search

# What to do with a name that the application sends, learnt once per spelling.
PLAIN, CONTENT_LENGTH, DATE, SERVER, FRAMING, MISSPELT = range(6)

# Fields that belong to the connection: the wire's to set (RFC 9110 section 7.6.1, RFC 9113 section 8.2.2).
_FRAMING_NAMES = (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")

name_kinds: dict[bytes, int] = {
    b"content-length": CONTENT_LENGTH,
    b"date": DATE,
    b"server": SERVER,
    **dict.fromkeys(_FRAMING_NAMES, FRAMING),
}
# Values that were found clean; most answers have the same few.
clean_values: set[bytes] = set()
# Applications use few names; one that makes them up must not make this grow.
_NAMES_KEPT = 1024
_VALUE_KEPT_BYTES = 64


def learn_name(name: object) -> int:
    """
    The kind of a name not seen before; raises ApplicationError if it is not a token.

    MISSPELT: right but for upper case, which ASGI forbids and everybody sends.
    """
    if not isinstance(name, bytes):
        raise ApplicationError(f"header names are bytes, not {type(name).__name__}: {name!r}")
    if _TOKEN(name) is None:
        raise ApplicationError(f"{name!r} is not a header name (RFC 9110 section 5.1)")
    lower = name.lower()
    kind = MISSPELT if lower != name else PLAIN
    if len(name_kinds) < _NAMES_KEPT:
        name_kinds[name] = kind
    return kind


def learn_value(name: bytes, value: object) -> bytes:
    """
    clean_value, remembered for short values as long as there is room.
    """
    clean = clean_value(name, value)
    if len(clean) <= _VALUE_KEPT_BYTES and len(clean_values) < _NAMES_KEPT:
        clean_values.add(clean)
    return clean


def clean_value(name: bytes, value: object) -> bytes:
    """
    The value without white space around it; raises ApplicationError if it cannot be a field value.
    """
    if not isinstance(value, bytes):
        raise ApplicationError(f"the value of header {name!r} is bytes, not {type(value).__name__}: {value!r}")
    value = value.strip(b" \t")
    if has_control(value) is not None:
        raise ApplicationError(f"the value of header {name!r} has a control character: {value!r}")
    return value


def checked(headers: Iterable[tuple[object, object]]) -> list[Field]:
    """
    Fields from the application, names in lower case, fields of the connection removed.

    For heads that are not on the hot path: trailers, early hints, handshakes. Raises ApplicationError.
    """
    good = []
    try:
        pairs = [(name, value) for name, value in headers]
    except (TypeError, ValueError) as error:
        raise ApplicationError("headers must be pairs of bytes") from error
    for name, value in pairs:
        if not isinstance(name, bytes):
            learn_name(name)
        assert isinstance(name, bytes)
        kind = name_kinds.get(name)
        if kind is None:
            learn_name(name)
        name = name.lower()
        if name_kinds.get(name) != FRAMING:
            good.append((name, clean_value(name, value)))
    return good


def comma_list(values: Iterable[bytes]) -> list[bytes]:
    """
    The elements of a list field, from all its lines, empty ones left out (RFC 9110 section 5.6.1).
    """
    return [element for value in values for part in value.split(b",") if (element := part.strip(b" \t"))]


def is_token(value: bytes) -> bool:
    """
    Whether the value is a token (RFC 9110 section 5.6.2).
    """
    return _TOKEN(value) is not None
