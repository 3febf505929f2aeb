"""
HTTP/1.1 answers as bytes; pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from txasgi.seam import Field


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        # RFC 9112 section 4: the reason phrase may be empty, the space before it may not be left out.
        return b""


# Without the CRLF: each field line begins with it.
_STATUS_LINES = {status: b"HTTP/1.1 %d %b" % (status, _reason(status)) for status in range(100, 1000)}


def head(status: int, headers: Iterable[Field], framing: bytes, body: bytes = b"") -> bytes:
    """
    Status line and fields, up to and with the empty line.

    framing: lines that the connection adds, each with its CRLF.
    body: what follows in the same write.
    The version is 1.1 in answers to 1.0 as well: it is ours, not the client's (RFC 9110 section 2.5).
    """
    parts = [_STATUS_LINES[status]]
    for name, value in headers:
        parts += (b"\r\n", name, b": ", value)
    parts += (b"\r\n", framing, b"\r\n", body)
    return b"".join(parts)


def last_chunk(trailers: Iterable[Field]) -> bytes:
    """
    The end of a chunked body (RFC 9112 section 7.1).
    """
    return b"".join([b"0\r\n", *[b"%b: %b\r\n" % field for field in trailers], b"\r\n"])


def refusal(status: int, fields: Iterable[Field], to_head: bool) -> bytes:
    """
    A whole answer to a request that is refused: static text, nothing of the request in it; the connection closes.

    to_head: the method is HEAD, whose answer has no body.
    """
    text = b"%d %b\n" % (status, _reason(status))
    headers = [
        *fields,
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
    ]
    return head(status, headers, b"connection: close\r\n", b"" if to_head else text)
