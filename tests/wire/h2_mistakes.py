"""
Frames that break RFC 9113, header blocks that break RFC 7541, requests that are malformed; and what only looks so.
"""

from __future__ import annotations

from tests.wire.h2_frames import (
    ALTSVC,
    DATA,
    DEFAULT_WINDOW,
    ENABLE_CONNECT_PROTOCOL,
    ENABLE_PUSH,
    END_HEADERS,
    FRAME_BYTES,
    GOAWAY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME_SIZE,
    NO_RFC7540_PRIORITIES,
    ORIGIN,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Code,
    asked,
    block,
    continuation,
    data,
    frame,
    get,
    headers,
    integer,
    literal,
    ping,
    priority,
    priority_update,
    rst_stream,
    settings,
    text,
    window_update,
)

from txasgi.seam import Field

PROTOCOL = {Code.PROTOCOL_ERROR}
SIZE = {Code.FRAME_SIZE_ERROR}
FLOW = {Code.FLOW_CONTROL_ERROR}
CLOSED = {Code.STREAM_CLOSED}
COMPRESSION = {Code.COMPRESSION_ERROR}

OPENED = frame(HEADERS, 0, 3, block(asked()))
GET_BLOCK = block(asked())


# What breaks the connection, sent while stream 1 is in the middle of its body, and the codes that say so.
BREAKS: dict[str, tuple[bytes, set[Code]]] = {
    # Section 5.1 and 5.1.1: streams
    "DATA on stream 0": (data(0, b"x"), PROTOCOL),
    "DATA on an idle stream": (data(5, b"x"), PROTOCOL | CLOSED),
    "HEADERS on stream 0": (get(0), PROTOCOL),
    "HEADERS on stream 2": (get(2), PROTOCOL),
    "HEADERS on a lower stream": (get(7) + get(3), PROTOCOL | CLOSED),
    "RST_STREAM on stream 0": (rst_stream(0), PROTOCOL),
    "RST_STREAM on an idle stream": (rst_stream(5), PROTOCOL),
    "WINDOW_UPDATE on an idle stream": (window_update(5, 1), PROTOCOL),
    "PRIORITY on stream 0": (priority(0), PROTOCOL),
    "SETTINGS on stream 1": (frame(SETTINGS, 0, 1), PROTOCOL),
    "PING on stream 1": (frame(PING, 0, 1, bytes(8)), PROTOCOL),
    "GOAWAY on stream 1": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL),
    "CONTINUATION on stream 0": (continuation(0, GET_BLOCK, end=True), PROTOCOL),
    "PUSH_PROMISE": (frame(PUSH_PROMISE, END_HEADERS, 1, (2).to_bytes(4) + GET_BLOCK), PROTOCOL),
    "PUSH_PROMISE on stream 0": (frame(PUSH_PROMISE, END_HEADERS, 0, (2).to_bytes(4) + GET_BLOCK), PROTOCOL),
    # Section 4.2: sizes
    "HEADERS of 16385 bytes": (frame(HEADERS, END_HEADERS, 3, bytes(FRAME_BYTES + 1)), SIZE),
    "SETTINGS of 16386 bytes": (frame(SETTINGS, 0, 0, bytes(FRAME_BYTES + 2)), SIZE),
    "an unknown frame of 16385 bytes": (frame(0xBB, 0, 0, bytes(FRAME_BYTES + 1)), SIZE),
    "the head of HEADERS of 16 MiB": (frame(HEADERS, END_HEADERS, 3, length=0xFFFFFF), SIZE),
    "SETTINGS of 5 bytes": (frame(SETTINGS, 0, 0, bytes(5)), SIZE),
    "SETTINGS of 7 bytes": (frame(SETTINGS, 0, 0, bytes(7)), SIZE),
    "SETTINGS ACK with a setting": (frame(SETTINGS, 1, 0, bytes(6)), SIZE),
    "PING of 7 bytes": (ping(bytes(7)), SIZE),
    "PING of 9 bytes": (ping(bytes(9)), SIZE),
    "PING of nothing": (ping(b""), SIZE),
    "RST_STREAM of 3 bytes": (frame(RST_STREAM, 0, 1, bytes(3)), SIZE),
    "RST_STREAM of 5 bytes": (frame(RST_STREAM, 0, 1, bytes(5)), SIZE),
    "WINDOW_UPDATE of 3 bytes": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), SIZE),
    "WINDOW_UPDATE of 5 bytes": (frame(WINDOW_UPDATE, 0, 1, bytes(5)), SIZE),
    "GOAWAY of 7 bytes": (frame(GOAWAY, 0, 0, bytes(7)), SIZE),
    "PRIORITY_UPDATE of 3 bytes": (frame(PRIORITY_UPDATE, 0, 0, bytes(3)), SIZE),
    "HEADERS too short for its priority": (frame(HEADERS, END_HEADERS | PRIORITIZED, 3, bytes(4)), SIZE | PROTOCOL),
    # Section 6.1 and 6.2: padding
    "DATA of padding and more": (frame(DATA, PADDED, 1, b"\x05abcd"), PROTOCOL),
    "DATA without its length of padding": (frame(DATA, PADDED, 1), SIZE | PROTOCOL),
    "HEADERS of padding and more": (frame(HEADERS, END_HEADERS | PADDED, 3, b"\xff" + GET_BLOCK), PROTOCOL),
    "HEADERS without its length of padding": (frame(HEADERS, END_HEADERS | PADDED, 3), SIZE | PROTOCOL),
    # Section 6.5.2, RFC 8441, RFC 9218: settings
    "ENABLE_PUSH of 2": (settings((ENABLE_PUSH, 2)), PROTOCOL),
    "INITIAL_WINDOW_SIZE of 2^31": (settings((INITIAL_WINDOW_SIZE, 2**31)), FLOW),
    "INITIAL_WINDOW_SIZE of 2^32-1": (settings((INITIAL_WINDOW_SIZE, 2**32 - 1)), FLOW),
    "MAX_FRAME_SIZE of 0": (settings((MAX_FRAME_SIZE, 0)), PROTOCOL),
    "MAX_FRAME_SIZE of 16383": (settings((MAX_FRAME_SIZE, 16383)), PROTOCOL),
    "MAX_FRAME_SIZE of 2^24": (settings((MAX_FRAME_SIZE, 2**24)), PROTOCOL),
    "ENABLE_CONNECT_PROTOCOL of 2": (settings((ENABLE_CONNECT_PROTOCOL, 2)), PROTOCOL),
    "NO_RFC7540_PRIORITIES of 2": (settings((NO_RFC7540_PRIORITIES, 2)), PROTOCOL),
    # Section 6.9: windows
    "WINDOW_UPDATE of 0": (window_update(0, 0), PROTOCOL),
    "WINDOW_UPDATE beyond 2^31-1": (window_update(0, LARGEST_WINDOW), FLOW),
    "WINDOW_UPDATE beyond it by and by": (window_update(0, 2**30) * 2, FLOW),
    "INITIAL_WINDOW_SIZE that lifts a window beyond it": (
        window_update(1, LARGEST_WINDOW - DEFAULT_WINDOW) + settings((INITIAL_WINDOW_SIZE, DEFAULT_WINDOW + 1)),
        FLOW,
    ),
    # Section 6.10 and 4.3: header blocks stay together
    "CONTINUATION behind nothing": (continuation(1, GET_BLOCK, end=True), PROTOCOL),
    "CONTINUATION on an idle stream": (continuation(3, GET_BLOCK, end=True), PROTOCOL),
    "CONTINUATION behind END_HEADERS": (get(3) + continuation(3, end=True), PROTOCOL),
    "CONTINUATION behind DATA": (data(1, b"x") + continuation(1, end=True), PROTOCOL),
    "CONTINUATION of another stream": (OPENED + continuation(1, end=True), PROTOCOL),
    "DATA in a header block": (OPENED + data(3, b"x"), PROTOCOL),
    "DATA of another stream in a header block": (OPENED + data(1, b"x"), PROTOCOL),
    "HEADERS in a header block": (OPENED + get(5), PROTOCOL),
    "PING in a header block": (OPENED + ping(), PROTOCOL),
    "SETTINGS in a header block": (OPENED + settings(), PROTOCOL),
    "RST_STREAM in a header block": (OPENED + rst_stream(3), PROTOCOL),
    "WINDOW_UPDATE in a header block": (OPENED + window_update(0, 1), PROTOCOL),
    "an unknown frame in a header block": (OPENED + frame(0xBB), PROTOCOL),
    # RFC 9218 section 7.1
    "PRIORITY_UPDATE on a stream": (frame(PRIORITY_UPDATE, 0, 1, (1).to_bytes(4) + b"u=1"), PROTOCOL),
    "PRIORITY_UPDATE of stream 0": (priority_update(0), PROTOCOL),
    # Section 3.4
    "a request of HTTP/1.1": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", SIZE | PROTOCOL),
    "a second preface": (PREFACE, SIZE | PROTOCOL),
    "a ClientHello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), SIZE | PROTOCOL),
    "ones": (b"\xff" * 100, SIZE | PROTOCOL),
}


# RFC 7541
GARBLED = {
    "index 0": b"\x80",
    "an index beyond the table": b"\xbf",
    "an index far beyond the table": integer(2**20, 7, 0x80),
    "an index of many bytes": b"\xff" + b"\xff" * 10 + b"\x7f",
    "an index that does not end": b"\xff\xff",
    "an index that is long and small": b"\xff" + b"\x80" * 20 + b"\x00",
    "a name that is not indexed": integer(70, 4) + text(b"x"),
    "a string that is cut off": b"\x00" + integer(10, 7) + b"abc",
    "a string of 4 GiB": b"\x00" + integer(2**32, 7) + b"abc",
    "no value": b"\x00" + text(b"x"),
    "Huffman code that is padded with zeros": b"\x00\x81\xf2" + text(b"x"),
    "Huffman code that is padded with a byte": b"\x00\x82\xf3\xff" + text(b"x"),
    "Huffman code with EOS": b"\x00\x84\xff\xff\xff\xff" + text(b"x"),
    "a larger table than allowed": integer(4097, 5, 0x20),
    "a table of 4 GiB": integer(2**32 - 1, 5, 0x20),
    "a change of the table between fields": literal(b"x", b"y") + b"\x20",
}


EITHER: dict[str, tuple[bytes, int, set[Code]]] = {
    "WINDOW_UPDATE of 0": (window_update(1, 0), 1, PROTOCOL),
    "WINDOW_UPDATE beyond 2^31-1": (window_update(1, LARGEST_WINDOW), 1, FLOW),
    "DATA behind END_STREAM": (data(1, b"", end=True) + data(1, b"x"), 1, CLOSED),
    "HEADERS behind END_STREAM": (get(3, b"/hang") + get(3), 3, CLOSED | PROTOCOL),
    "DATA behind trailers": (headers(1, [(b"x", b"y")]) + data(1, b"x"), 1, CLOSED),
    "DATA of 16385 bytes": (data(1, bytes(FRAME_BYTES + 1)), 1, SIZE),
    "PRIORITY of 4 bytes": (frame(PRIORITY, 0, 1, bytes(4)), 1, SIZE),
    "PRIORITY of 6 bytes": (frame(PRIORITY, 0, 1, bytes(6)), 1, SIZE),
    "trailers without an end": (headers(1, [(b"x", b"y")], end=False), 1, PROTOCOL),
    "trailers with a pseudo field": (headers(1, [(b":path", b"/")]), 1, PROTOCOL),
    "trailers in upper case": (headers(1, [(b"X", b"y")]), 1, PROTOCOL),
    "trailers with a line end": (headers(1, [(b"x", b"y\r\nz: z")]), 1, PROTOCOL),
}


NOTHING = {
    "an unknown frame": frame(0xBB, 0xFF, 0, b"whatever"),
    "an unknown frame on an idle stream": frame(0xBB, 0xFF, 77, b"whatever"),
    "an unknown frame on an open stream": frame(0xBB, 0xFF, 1, b"whatever"),
    "an unknown setting": settings((0xBBBB, 2**32 - 1), (0, 7)),
    "unknown flags": frame(PING, 0xFE, 0, bytes(8)) + frame(WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\x01"),
    "a reserved bit": frame(PING, 0, 2**31, bytes(8)) + frame(WINDOW_UPDATE, 0, 0, b"\x80\0\0\x01"),
    "ALTSVC": frame(ALTSVC, 0, 0, b"\0\x01ah2=:1"),
    "ORIGIN": frame(ORIGIN, 0, 0, b"\0\x01a"),
    "PING ACK that nobody asked for": ping(ack=True),
    "RST_STREAM with an unknown code": rst_stream(1, 0xBBBBBBBB),
    "PRIORITY on an idle stream": priority(99, 1),
    "PRIORITY_UPDATE of an idle stream": priority_update(3, b"u=0, i"),
    "empty SETTINGS": settings(),
    "the same setting twice": settings((INITIAL_WINDOW_SIZE, 2**31 - 1), (INITIAL_WINDOW_SIZE, 1000)),
    "no table": settings((HEADER_TABLE_SIZE, 0)),
    "a table of 4 GiB": settings((HEADER_TABLE_SIZE, 2**32 - 1)),
    "a table of nothing and of everything": settings((HEADER_TABLE_SIZE, 0), (HEADER_TABLE_SIZE, 2**32 - 1)),
    "frames of 16 MiB": settings((MAX_FRAME_SIZE, 2**24 - 1)),
}


def changed(**fields: bytes | None) -> list[Field]:
    """
    The fields of a request with other pseudo fields; None is one that is not there.
    """
    found = {b":method": b"GET", b":scheme": b"http", b":authority": b"a", b":path": b"/"}
    given = {b":" + name.encode(): value for name, value in fields.items()}
    return [(name, value) for name, value in (found | given).items() if value is not None]


def added(name: bytes, value: bytes = b"x") -> list[Field]:
    return asked(b"GET", b"/", (name, value))


CONNECT = {"method": b"CONNECT", "protocol": b"websocket"}

# Section 8.2 and 8.3: malformed
MALFORMED: dict[str, list[Field]] = {
    **{f"{name!r} as a name": added(name) for name in (b"X", b"xY", b"", b"x:", b"x y", b"x\0", b"x\r\ny", b"x\n")},
    **{f"{name!r} as a name": added(name) for name in (b"x\x7f", b"x\xff", b"x\t", b" x", b"x ", b"x(y)", b"x,y")},
    **{f"{value!r} as a value": added(b"x", value) for value in (b"a\rb", b"a\nb", b"a\0b", b"\0", b"a\r\nb: c")},
    **{
        f"{value!r} as a value": added(b"x", value)
        for value in (b" a", b"a ", b"\ta", b"a\t", b"\r\n\r\nGET / HTTP/1.1")
    },
    **{f"{value!r} as a cookie": added(b"cookie", value) for value in (b"a\0b", b"a\r\nb: c")},
    **{f"the field {name!r}": added(name) for name in (b"connection", b"keep-alive", b"proxy-connection", b"upgrade")},
    "the field b'transfer-encoding'": added(b"transfer-encoding", b"chunked"),
    "the field b'upgrade' for h2c": added(b"upgrade", b"h2c"),
    "connection: close": added(b"connection", b"close"),
    "te: gzip": added(b"te", b"gzip"),
    "te: trailers, deflate": added(b"te", b"trailers, deflate"),
    "no :method": changed(method=None),
    "no :scheme": changed(scheme=None),
    "no :path": changed(path=None),
    "no field at all": [],
    "no pseudo field": [(b"host", b"a")],
    "empty :method": changed(method=b""),
    "empty :path": changed(path=b""),
    "empty :scheme": changed(scheme=b""),
    "two :method": [*asked(), (b":method", b"GET")],
    "two :scheme": [*asked(), (b":scheme", b"https")],
    "two :path": [*asked(), (b":path", b"/admin")],
    "two :authority": [*asked(), (b":authority", b"b")],
    ":status": [*asked(), (b":status", b"200")],
    "an unknown pseudo field": [*asked(), (b":x", b"y")],
    "a pseudo field without a name": [*asked(), (b":", b"y")],
    ":PATH": [*changed(path=None), (b":PATH", b"/")],
    "a pseudo field behind others": [*changed(path=None), (b"x", b"y"), (b":path", b"/")],
    "a second :path behind others": [*asked(), (b"x", b"y"), (b":path", b"/admin")],
    ":path with a line end": changed(path=b"/\r\nX: y"),
    ":path with NUL": changed(path=b"/\0"),
    ":path with a blank": changed(path=b"/ HTTP/1.1"),
    ":path without /": changed(path=b"x"),
    ":path of a URL": changed(path=b"http://b/"),
    "* for GET": changed(path=b"*"),
    ":method with a blank": changed(method=b"GET /admin"),
    ":method with a line end": changed(method=b"GET\r\n"),
    ":authority with a line end": changed(authority=b"a\r\nx: y"),
    ":authority with a user": changed(authority=b"user@a"),
    ":authority with a path": changed(authority=b"a/admin"),
    ":authority and another host": added(b"host", b"b"),
    "two hosts": [*changed(authority=None), (b"host", b"a"), (b"host", b"b")],
    "neither :authority nor host": changed(authority=None),
    ":protocol without CONNECT": changed(protocol=b"websocket"),
    ":protocol without :path": changed(**CONNECT, path=None),
    ":protocol without :scheme": changed(**CONNECT, scheme=None),
    ":protocol without :authority": changed(**CONNECT, authority=None),
    "CONNECT with :path": changed(method=b"CONNECT", scheme=None),
    "CONNECT with :scheme": changed(method=b"CONNECT", path=None),
    **{
        f"content-length {value!r}": [*changed(method=b"POST"), (b"content-length", value)]
        for value in (b"", b"x", b"-1", b"+5", b"5 ", b"0x5", b"1,5", b"5, 5", b"9" * 30, b"1e3", b"\xb2", b"5_0")
    },
    "two content-length": [*changed(method=b"POST"), (b"content-length", b"4"), (b"content-length", b"5")],
}

RIGHT: dict[str, list[Field]] = {
    "* for OPTIONS": changed(method=b"OPTIONS", path=b"*"),
    "te: trailers": added(b"te", b"trailers"),
    "an empty value": added(b"x", b""),
    "a value with blanks inside": added(b"x", b"a \t b"),
    "a value with bytes over 127": added(b"x", b"\x80\xff"),
    "the same host twice": added(b"host", b"a"),
    "host alone": [*changed(authority=None), (b"host", b"a")],
    "another order": [(b":path", b"/"), (b":authority", b"a"), (b":scheme", b"http"), (b":method", b"GET")],
    "another scheme": changed(scheme=b"https"),
    "an unknown method": changed(method=b"M-SEARCH"),
    "many cookies": [*asked(), *((b"cookie", b"a=%d" % number) for number in range(50))],
    "every character of a token": added(b"!#$%&'*+-.^_`|~09az"),
    "content-length 0": [*changed(method=b"POST"), (b"content-length", b"0")],
    "content-length 00": [*changed(method=b"POST"), (b"content-length", b"00")],
    "a name that is also a pseudo field's": added(b"path", b"/admin"),
}
