"""
The opening handshake: checks, accept fields, subprotocol, permessage-deflate (RFC 6455 section 4, 7692, 8441).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from txasgi.errors import ApplicationError, HandshakeRefused, WebSocketVersionNotSupported
from txasgi.fields import comma_list, is_token
from txasgi.seam import Field, Head

# RFC 6455 section 9.1: token, then ;token or ;token=value, where a value may be quoted.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER = rb"[ \t]*;[ \t]*(" + _TOKEN + rb")(?:[ \t]*=[ \t]*(" + _TOKEN + rb'|"(?:[\t !#-\[\]-~]|\\[\t -~])*"))?'
_parameters = re.compile(_PARAMETER).findall
_extension = re.compile(rb"[ \t,]*(" + _TOKEN + rb")((?:" + _PARAMETER + rb")*)[ \t]*(?:,[ \t,]*|\Z)").match

Extension = tuple[bytes, list[tuple[bytes, bytes]]]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# What we compress with: 2 ** 12 bytes of window and memLevel 5 take 32 KiB a connection where zlib's defaults take 268,
# for a few percent of size. The values of the websockets library.
SERVER_WINDOW_BITS = 12
CLIENT_WINDOW_BITS = 12


@dataclass(frozen=True, slots=True)
class Deflate:
    """
    permessage-deflate as agreed (RFC 7692 section 7.1).

    answer: the element for Sec-WebSocket-Extensions.
    """

    answer: bytes
    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_window_bits: int
    client_window_bits: int


@dataclass(frozen=True, slots=True)
class HandshakeRequest:
    """
    What a client asked for.

    key: None over HTTP/2, which needs none (RFC 8441 section 5).
    extensions: (name, parameters), these as (name, value), b"" where there is no value.
    """

    key: bytes | None
    subprotocols: list[bytes]
    extensions: list[Extension]


def examine(head: Head) -> HandshakeRequest:
    """
    Check a request for a WebSocket. Raises HandshakeRefused.
    """
    fields: dict[bytes, list[bytes]] = {}
    for name, value in head.headers:
        if name.startswith(b"sec-websocket-"):
            fields.setdefault(name, []).append(value)
    if fields.get(b"sec-websocket-version") != [b"13"]:
        raise WebSocketVersionNotSupported("Sec-WebSocket-Version must be 13")
    key = None
    if head.version == "1.1":
        key = _checked_key(fields.get(b"sec-websocket-key", []))
    subprotocols = comma_list(fields.get(b"sec-websocket-protocol", ()))
    if not all(map(is_token, subprotocols)):
        raise HandshakeRefused("malformed Sec-WebSocket-Protocol")
    extensions = [one for value in fields.get(b"sec-websocket-extensions", ()) for one in _parse_extensions(value)]
    return HandshakeRequest(key, subprotocols, extensions)


def _parse_extensions(value: bytes) -> Iterator[Extension]:
    at = 0
    while at < len(value):
        match = _extension(value, at)
        if match is None:
            raise HandshakeRefused("malformed Sec-WebSocket-Extensions")
        yield match[1].lower(), [(name.lower(), text.strip(b'"')) for name, text in _parameters(match[2])]
        at = match.end()


def _checked_key(values: list[bytes]) -> bytes:
    if len(values) == 1 and len(values[0]) == 24:
        try:
            if len(base64.b64decode(values[0], validate=True)) == 16:
                return values[0]
        except binascii.Error:
            pass
    raise HandshakeRefused("Sec-WebSocket-Key must be 16 bytes in base64, once")


def accept_fields(request: HandshakeRequest, subprotocol: str | None, deflate: Deflate | None) -> list[Field]:
    """
    The fields that accept a handshake. Raises ApplicationError for a subprotocol that was not offered.
    """
    fields: list[Field] = []
    if request.key is not None:
        digest = hashlib.sha1(request.key + _GUID, usedforsecurity=False).digest()
        fields += [(b"upgrade", b"websocket"), (b"sec-websocket-accept", base64.b64encode(digest))]
    if subprotocol is not None:
        if not isinstance(subprotocol, str):
            raise ApplicationError(f"subprotocol must be a str, not {type(subprotocol).__name__}")
        chosen = subprotocol.encode("ascii", "replace")
        if chosen not in request.subprotocols:
            # RFC 6455 section 4.1: the client would have to fail the connection.
            raise ApplicationError(f"subprotocol {subprotocol!r} was not offered by the client")
        fields.append((b"sec-websocket-protocol", chosen))
    if deflate is not None:
        fields.append((b"sec-websocket-extensions", deflate.answer))
    return fields


def agree_deflate(extensions: list[Extension]) -> Deflate | None:
    """
    The first offer of permessage-deflate that can be met, or None.
    """
    for name, parameters in extensions:
        if name == b"permessage-deflate":
            agreed = _agree(parameters)
            if agreed is not None:
                return agreed
    return None


def _agree(parameters: list[tuple[bytes, bytes]]) -> Deflate | None:
    given = dict(parameters)
    if len(given) < len(parameters):
        return None
    server_reset = b"server_no_context_takeover" in given
    client_reset = b"client_no_context_takeover" in given
    if given.pop(b"server_no_context_takeover", None) or given.pop(b"client_no_context_takeover", None):
        return None  # They take no value (RFC 7692 section 7.1.1).
    server_bits = client_bits = 15
    answer = [b"permessage-deflate"]
    if b"server_max_window_bits" in given:
        bits = _window_bits(given.pop(b"server_max_window_bits"))
        # zlib cannot make a raw stream with a window of 2 ** 8.
        if bits is None or bits < 9:
            return None
        server_bits = bits
    server_bits = min(server_bits, SERVER_WINDOW_BITS)
    answer.append(b"server_max_window_bits=%d" % server_bits)
    if b"client_max_window_bits" in given:
        wanted = given.pop(b"client_max_window_bits")
        asked = _window_bits(wanted) if wanted else 15
        if asked is None:
            return None
        # A window of 2 ** 8 the client may use; zlib inflates it with one of 2 ** 9.
        client_bits = max(min(asked, CLIENT_WINDOW_BITS), 9)
        answer.append(b"client_max_window_bits=%d" % min(asked, CLIENT_WINDOW_BITS))
    if given:
        return None
    if server_reset:
        answer.append(b"server_no_context_takeover")
    if client_reset:
        answer.append(b"client_no_context_takeover")
    return Deflate(b"; ".join(answer), server_reset, client_reset, server_bits, client_bits)


def _window_bits(text: bytes) -> int | None:
    if text.isdigit() and len(text) <= 2 and text[:1] != b"0" and 8 <= int(text) <= 15:
        return int(text)
    return None
