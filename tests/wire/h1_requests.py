"""
HTTP/1.1 requests to be refused, and requests to be served though they are unusual.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.wire.h1_client import AFTER, GET, H2C, IRC, get, post


@dataclass(slots=True)
class Bad:
    """
    A request to be refused.

    in_body: the fault shows only when the application may already have been called.
    """

    name: str
    data: bytes
    statuses: set[int]
    in_body: bool = False


def bad_line(line: bytes, *statuses: int) -> Bad:
    """
    A request line to be refused.
    """
    return Bad(repr(line)[:60], line + b"\r\nHost: a\r\n\r\n", set(statuses) or {400})


def bad_header(line: bytes, *statuses: int) -> Bad:
    """
    A header line to be refused.
    """
    return Bad(repr(line)[:60], get(b"/", line), set(statuses) or {400})


def bad_host(value: bytes) -> Bad:
    """
    A Host to be refused.
    """
    return Bad(f"host {value!r}", b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", {400})


def bad_framing(*lines: bytes, statuses: set[int] | None = None) -> Bad:
    """
    Header lines of a POST to be refused; a body follows that fits none.
    """
    return Bad(repr(b"|".join(lines))[:60], post(*lines, body=b"5\r\nhello\r\n0\r\n\r\n"), statuses or {400})


def bad_chunk(body: bytes, *statuses: int) -> Bad:
    """
    A chunked body to be refused.
    """
    return Bad(
        f"chunk {body!r}"[:60],
        post(b"Transfer-Encoding: chunked", body=body),
        set(statuses) or {400},
        in_body=True,
    )


BAD = [
    # The request line, RFC 9112 section 3.
    bad_line(b"GET / HTTP/1.1 "),
    bad_line(b"GET\t/\tHTTP/1.1", 400, 501),
    bad_line(b" GET / HTTP/1.1", 400, 501),
    bad_line(b"GET /", 400, 505),
    bad_line(b"GET", 400, 501),
    bad_line(b"GET / ", 400, 505),
    bad_line(b"GET /a b HTTP/1.1"),
    bad_line(b"GET / HTTP/1.1 x"),
    bad_line(b"HTTP/1.1 200 OK", 400, 501),
    bad_line(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, 501),
    bad_line(b"\x00GET / HTTP/1.1", 400, 501),
    bad_line(b"\xef\xbb\xbfGET / HTTP/1.1", 400, 501),
    # Its version.
    bad_line(b"GET / HTTP/2.0", 505),
    bad_line(b"GET / HTTP/3.0", 400, 505),
    bad_line(b"GET / HTTP/0.9", 400, 505),
    bad_line(b"GET / HTTP/9.9", 400, 505),
    bad_line(b"GET / HTTP/1"),
    bad_line(b"GET / HTTP/1."),
    bad_line(b"GET / HTTP/11"),
    bad_line(b"GET / HTTP/1.10"),
    bad_line(b"GET / HTTP/01.1"),
    bad_line(b"GET / HTTP/1,1"),
    bad_line(b"GET / HTTP/1.1x"),
    bad_line(b"GET / http/1.1"),
    bad_line(b"GET / HTP/1.1"),
    bad_line(b"GET / HTTP /1.1"),
    bad_line(b"DESCRIBE / RTSP/1.0", 400, 501, 505),
    bad_line(b"SOURCE / ICE/1.0", 400, 501, 505),
    # Its method. A parser that goes byte by byte cannot tell a wrong one from an unknown one.
    bad_line(b"FOO / HTTP/1.1", 400, 501),
    bad_line(b"get / HTTP/1.1", 400, 501),
    bad_line(b"GETT / HTTP/1.1", 400, 501),
    bad_line(b"X" * 1000 + b" / HTTP/1.1", 400, 501),
    bad_line(b"G@T / HTTP/1.1", 400, 501),
    bad_line(b"G\x00T / HTTP/1.1", 400, 501),
    bad_line(b"G\xc3T / HTTP/1.1", 400, 501),
    bad_line(b"GET: / HTTP/1.1", 400, 501),
    bad_line(b"CONNECT a:443 HTTP/1.1", 400, 501),
    bad_line(b"CONNECT / HTTP/1.1", 400, 501),
    # Its target.
    bad_line(b"GET foo HTTP/1.1"),
    bad_line(b"GET * HTTP/1.1"),
    bad_line(b"POST * HTTP/1.1"),
    bad_line(b"OPTIONS *x HTTP/1.1"),
    bad_line(b"GET ?a HTTP/1.1"),
    bad_line(b"GET a:80 HTTP/1.1"),
    bad_line(b"GET http:// HTTP/1.1"),
    bad_line(b"GET http:///a HTTP/1.1"),
    bad_line(b"GET http:a HTTP/1.1"),
    bad_line(b"GET /#a HTTP/1.1"),
    bad_line(b"GET /a?b#c HTTP/1.1"),
    bad_line(b"GET /\x01 HTTP/1.1"),
    bad_line(b"GET /\x7f HTTP/1.1"),
    bad_line(b"GET /\x00 HTTP/1.1"),
    bad_line(b"GET /?\x0b HTTP/1.1"),
    bad_line(b"GET /a\rb HTTP/1.1"),
    bad_line(b"GET /" + b"a" * 70_000 + b" HTTP/1.1", 414, 431),
    bad_line(b"GET /?" + b"a" * 70_000 + b" HTTP/1.1", 414, 431),
    # Line ends, RFC 9112 section 2.2.
    Bad("only LF", b"GET / HTTP/1.1\nHost: a\n\n", {400}),
    Bad("LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", {400}),
    Bad("LF behind a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", {400}),
    Bad("LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", {400}),
    Bad("only CR", b"GET / HTTP/1.1\rHost: a\r\r", {400}),
    Bad("CR CR LF", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", {400}),
    Bad("CR CR LF behind a field", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", {400}),
    # Fields, RFC 9112 section 5.
    bad_header(b"Header : x"),
    bad_header(b"Header\t: x"),
    bad_header(b" Folded: x"),
    bad_header(b"X: a\r\n folded"),
    bad_header(b"X: a\r\n\tfolded"),
    Bad("first line folded", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", {400}),
    Bad("first line blank", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", {400}),
    bad_header(b": x"),
    bad_header(b"no colon"),
    bad_header(b"x"),
    bad_header(b"na me: x"),
    bad_header(b"n\x00: x"),
    bad_header(b"n\x7f: x"),
    bad_header(b"n(: x"),
    bad_header(b"n\xe9: x"),
    bad_header(b"{n}: x"),
    bad_header(b'"n": x'),
    *(
        bad_header(b"X: a" + bytes([code]) + b"b")
        for code in (0, 1, 8, 0x0B, 0x0C, 0x0D, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F, 0x7F)
    ),
    bad_header(b"X: \x00"),
    bad_header(b"X: a\r"),
    # Host, RFC 9112 section 3.2.
    Bad("no host", b"GET / HTTP/1.1\r\n\r\n", {400}),
    Bad("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", {400}),
    Bad("the same host twice", b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", {400}),
    Bad("a bad host in HTTP/1.0", b"GET / HTTP/1.0\r\nHost: a@b\r\n\r\n", {400}),
    Bad("absolute-form without host", b"GET http://a/ HTTP/1.1\r\n\r\n", {400}),
    bad_host(b""),
    bad_host(b"a/../admin?"),
    bad_host(b"a@b"),
    bad_host(b"a b"),
    bad_host(b"a\tb"),
    bad_host(b"a?b"),
    bad_host(b"a#b"),
    bad_host(b"a\\b"),
    bad_host(b"<script>"),
    bad_host(b"[::1"),
    bad_host(b"a:b"),
    bad_host(b"a:80:80"),
    bad_host(b":80"),
    bad_host(b"http://a"),
    # Content-Length, RFC 9112 section 6.3.
    bad_framing(b"Content-Length: +5"),
    bad_framing(b"Content-Length: -5"),
    bad_framing(b"Content-Length: -0"),
    bad_framing(b"Content-Length: 5 5"),
    bad_framing(b"Content-Length: 5, 5"),
    bad_framing(b"Content-Length: 5,5"),
    bad_framing(b"Content-Length: 5,"),
    bad_framing(b"Content-Length: 5;"),
    bad_framing(b"Content-Length: 0x5"),
    bad_framing(b"Content-Length: 5.0"),
    bad_framing(b"Content-Length: 1_0"),
    bad_framing(b"Content-Length: 5a"),
    bad_framing(b"Content-Length: a"),
    bad_framing(b"Content-Length:"),
    bad_framing(b'Content-Length: "5"'),
    bad_framing(b"Content-Length: \xef\xbc\x95"),
    bad_framing(b"Content-Length: \xb2"),
    bad_framing(b"Content-Length: " + b"9" * 5000),
    bad_framing(b"Content-Length: 18446744073709551621"),
    bad_framing(b"Content-Length: 5", b"Content-Length: 5"),
    bad_framing(b"Content-Length: 6", b"Content-Length: 0"),
    bad_framing(b"Content-Length: 5", b"content-length: 6"),
    bad_framing(b"Content-Length : 5"),
    bad_framing(b" Content-Length: 5"),
    # Transfer-Encoding, RFC 9112 section 6.1.
    bad_framing(b"Content-Length: 4", b"Transfer-Encoding: chunked"),
    bad_framing(b"Transfer-Encoding: chunked", b"Content-Length: 4"),
    bad_framing(b"Transfer-Encoding: chunked", b"Content-Length: 0"),
    bad_framing(b"Transfer-Encoding: identity", b"Content-Length: 4", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked, gzip", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: gzip, chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: gzip", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: identity", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: xchunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunkedx", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked, chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked, identity", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked;q=1", statuses={400, 501}),
    bad_framing(b'Transfer-Encoding: "chunked"', statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chun ked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: \x0bchunked"),
    bad_framing(b"Transfer-Encoding:", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", statuses={400, 501}),
    bad_framing(b"Transfer-Encoding : chunked"),
    bad_framing(b"Transfer-Encoding\x00: chunked"),
    Bad(
        "chunked in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        {400},
    ),
    # Chunks, RFC 9112 section 7.1.
    bad_chunk(b"0x5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"+5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"-5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"_5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"0_5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b" 5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5 5\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"g\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b";a=b\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"\xb2\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5\rhello\r\n0\r\n\r\n"),
    bad_chunk(b"5\r\nhello\n0\r\n\r\n"),
    bad_chunk(b"5\r\nhelloXX0\r\n\r\n"),
    bad_chunk(b"5\r\nhello0\r\n\r\n"),
    bad_chunk(b"5\r\nhello world\r\n0\r\n\r\n"),
    bad_chunk(b"5;a=\r\nhello\r\n0\n\r\n"),
    bad_chunk(b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"10000000000000005\r\nhello\r\n0\r\n\r\n"),
    bad_chunk(b"0\r\nX : y\r\n\r\n"),
    bad_chunk(b"0\r\n folded\r\n\r\n"),
    bad_chunk(b"0\r\nno colon\r\n\r\n"),
    bad_chunk(b"0\r\nX: a\x00b\r\n\r\n"),
    bad_chunk(b"0\r\nX: y\n\r\n"),
    # Expectations and upgrades.
    bad_header(b"Expect: 200-ok", 417),
    Bad(
        "WebSocket version",
        get(
            b"/",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 8",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
        {426},
    ),
    Bad(
        "WebSocket key",
        get(b"/", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        {400},
    ),
    # Limits.
    bad_header(b"X: " + b"a" * 70_000, 431),
    bad_header(b"X" * 70_000 + b": a", 431),
    bad_header(b"\r\n".join(b"X-%d: a" % n for n in range(250)), 431),
    bad_header(b"\r\n".join(b"X-%d: %s" % (n, b"a" * 1000) for n in range(80)), 431),
]


@dataclass(slots=True)
class Good:
    """
    A request to be served, followed by another one.

    path, query, body, headers: what the application sees, the latter among others.
    """

    name: str
    data: bytes
    path: str = "/"
    query: bytes = b""
    body: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    method: str = "GET"
    closes: bool = False
    version: str = "1.1"


CHUNKED = b"Transfer-Encoding: chunked"

GOOD = [
    Good("plain", GET),
    Good("absolute-form", b"GET http://a/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "/x", b"y"),
    Good("absolute-form in capitals", b"GET HTTP://A/X HTTP/1.1\r\nHost: A\r\n\r\n", "/X"),
    Good("absolute-form with port", b"GET http://a:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n", "/x"),
    Good("absolute-form without path", b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "/"),
    Good("absolute-form, query without path", b"GET http://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n", "/", b"x=1"),
    Good("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "*", method="OPTIONS"),
    Good("empty value", get(b"/", b"X:"), headers=[(b"x", b"")]),
    Good("blank value", get(b"/", b"X: \t "), headers=[(b"x", b"")]),
    Good("obs-text", get(b"/", b"X: \xe9\x80\xff"), headers=[(b"x", b"\xe9\x80\xff")]),
    Good("UTF-8", get(b"/", "X: é€".encode()), headers=[(b"x", "é€".encode())]),
    Good("tab within", get(b"/", b"X: a\tb"), headers=[(b"x", b"a\tb")]),
    Good("no space before the value", get(b"/", b"X:a"), headers=[(b"x", b"a")]),
    Good("white space around the value", get(b"/", b"X: \t a b \t "), headers=[(b"x", b"a b")]),
    Good("colons in the value", get(b"/", b"X: a: b:"), headers=[(b"x", b"a: b:")]),
    Good("capitals in names", get(b"/", b"X-UPPER: A"), headers=[(b"x-upper", b"A")]),
    Good("every token character", get(b"/", b"!#$%&'*+-.^_`|~09azAZ: a"), headers=[(b"!#$%&'*+-.^_`|~09azaz", b"a")]),
    Good(
        "the same name twice", get(b"/", b"X: 1", b"Y: 2", b"x: 3"), headers=[(b"x", b"1"), (b"y", b"2"), (b"x", b"3")]
    ),
    Good("cookies", get(b"/", b"Cookie: a=1", b"Cookie: b=2"), headers=[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
    Good("many fields", get(b"/", *(b"X-%d: a" % n for n in range(190))), headers=[(b"x-189", b"a")]),
    Good("one long field", get(b"/", b"X: " + b"a" * 50_000), headers=[(b"x", b"a" * 50_000)]),
    Good("long query", get(b"/?" + b"q" * 50_000), query=b"q" * 50_000),
    Good("long path", get(b"/" + b"p" * 50_000), "/" + "p" * 50_000),
    Good("percent-encoded path", get(b"/a%20b/%C3%A9%2f"), "/a b/é/"),
    Good("every character of a path", get(b"/!$&'()*+,;=:@-._~aZ09%41/?/?"), "/!$&'()*+,;=:@-._~aZ09A/", b"/?"),
    Good("two slashes", get(b"//a//b"), "//a//b"),
    Good("question mark and nothing", get(b"/a?"), "/a"),
    Good("CRLF in front", b"\r\n" + GET),
    Good("two CRLF in front", b"\r\n\r\n" + GET),
    Good("GET with a body", get(b"/", b"Content-Length: 5") + b"hello", body=b"hello"),
    Good("GET with a body in chunks", get(b"/", CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", body=b"hello"),
    Good("GET with content-length 0", get(b"/", b"Content-Length: 0")),
    Good("content-length with zeros", post(b"Content-Length: 005", body=b"hello"), body=b"hello", method="POST"),
    Good("content-length in white space", post(b"Content-Length: \t 5 ", body=b"hello"), body=b"hello", method="POST"),
    Good("POST without a body", post(), method="POST"),
    Good(
        "chunk sizes in capitals",
        post(CHUNKED, body=b"A\r\n0123456789\r\n0\r\n\r\n"),
        body=b"0123456789",
        method="POST",
    ),
    Good(
        "chunk sizes in small letters",
        post(CHUNKED, body=b"a\r\n0123456789\r\n0\r\n\r\n"),
        body=b"0123456789",
        method="POST",
    ),
    Good("chunk sizes with zeros", post(CHUNKED, body=b"0005\r\nhello\r\n000\r\n\r\n"), body=b"hello", method="POST"),
    Good(
        "chunk extensions", post(CHUNKED, body=b'5;a=b;c;d="e f"\r\nhello\r\n0;x\r\n\r\n'), body=b"hello", method="POST"
    ),
    Good("no chunks", post(CHUNKED, body=b"0\r\n\r\n"), method="POST"),
    Good(
        "trailers",
        post(CHUNKED, b"Trailer: X", body=b"5\r\nhello\r\n0\r\nX: y\r\nZ: z\r\n\r\n"),
        body=b"hello",
        method="POST",
    ),
    Good(
        "Chunked", post(b"tRANSFER-eNCODING:\t Chunked ", body=b"5\r\nhello\r\n0\r\n\r\n"), body=b"hello", method="POST"
    ),
    Good("300 chunks", post(CHUNKED, body=b"1\r\nx\r\n" * 300 + b"0\r\n\r\n"), body=b"x" * 300, method="POST"),
    Good(
        "body that looks like a request",
        post(b"Content-Length: %d" % len(AFTER), body=AFTER),
        body=AFTER,
        method="POST",
    ),
    Good(
        "TE",
        get(b"/", b"TE: trailers, deflate;q=0.5", b"Connection: TE"),
        headers=[(b"te", b"trailers, deflate;q=0.5")],
    ),
    Good("Connection: close, TE", get(b"/", b"Connection: close, TE", b"TE: trailers"), closes=True),
    Good("Upgrade: IRC", get(b"/", *IRC), headers=[(b"upgrade", b"IRC/6.9")]),
    Good("Upgrade: h2c with a body", post(*H2C, b"Content-Length: 5", body=b"hello"), body=b"hello", method="POST"),
    Good(
        "Upgrade: h2c with chunks", post(*H2C, CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"), body=b"hello", method="POST"
    ),
    Good("Upgrade to something", get(b"/", b"Connection: keep-alive, Upgrade", b"Upgrade: TLS/1.0, foo/2")),
    Good(
        "WebSocket in HTTP/1.0",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        closes=True,
        version="1.0",
    ),
    Good("HEAD", b"HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n", "/x", method="HEAD"),
    Good("host with port", b"GET / HTTP/1.1\r\nHost: a.b-c_d:8000\r\n\r\n", headers=[(b"host", b"a.b-c_d:8000")]),
    Good("IPv4 host", b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n", headers=[(b"host", b"127.0.0.1:8000")]),
    Good("IPv6 host", b"GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n", headers=[(b"host", b"[::1]:8000")]),
    Good("host at the end", b"GET / HTTP/1.1\r\nX: y\r\nHost:a\r\n\r\n", headers=[(b"x", b"y"), (b"host", b"a")]),
    Good("HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n", closes=True, version="1.0"),
    Good("HTTP/1.0 with host", b"GET /?x HTTP/1.0\r\nHost: a\r\n\r\n", query=b"x", closes=True, version="1.0"),
    Good(
        "HTTP/1.0 with a body",
        b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello",
        body=b"hello",
        method="POST",
        closes=True,
        version="1.0",
    ),
    Good("HTTP/1.0 that stays", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", version="1.0"),
    Good("underscore names", get(b"/", b"X_A: 1", b"X-A: 2"), headers=[(b"x-a", b"2")]),
]
