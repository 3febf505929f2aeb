"""
The opening handshake over HTTP/1.1: RFC 6455 section 4.2, RFC 7692 section 7.1, and what comes right behind it.
"""

import base64
import re
import threading
import zlib
from collections.abc import Iterator

import pytest

from txasgi.asgi.websocket import WebSocketOptions
from txasgi.testing.conform.websocket_peer import BINARY, close, content, departure, frame, raised, text
from txasgi.testing.rig import Rig, Script, response_body, response_start
from txasgi.testing.transports import MemoryTransport
from txasgi.ws import engine

# Of the example in RFC 6455 section 1.3.
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT_VALUE = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ACCEPT = {"type": "websocket.accept"}

Fields = list[tuple[bytes, bytes]]
FIELDS: Fields = [
    (b"Host", b"example.com"),
    (b"Upgrade", b"websocket"),
    (b"Connection", b"Upgrade"),
    (b"Sec-WebSocket-Key", KEY),
    (b"Sec-WebSocket-Version", b"13"),
]


@pytest.fixture(scope="module", autouse=True)
def _loaded() -> None:
    engine.load()


def fields(*more: tuple[bytes, bytes], **instead: bytes | None) -> Fields:
    """
    Those of a right handshake; with values given instead, or None to leave one out.
    """
    changed = {name.replace("_", "-").encode(): value for name, value in instead.items()}
    kept = [(name, changed.get(name.lower(), value)) for name, value in FIELDS]
    return [(name, value) for name, value in kept if value is not None] + list(more)


def request(lines: Fields, start: bytes = b"GET /chat HTTP/1.1") -> bytes:
    return start + b"\r\n" + b"".join(b"%b: %b\r\n" % field for field in lines) + b"\r\n"


class Handshake:
    """
    One connection, an application that does what the test says, and what came back.
    """

    def __init__(self, **options: bool) -> None:
        self.script = Script()
        self.rig = Rig(self.script, websocket=WebSocketOptions(**options))
        self.transport: MemoryTransport = self.rig.connect()
        self.written = b""

    def send(self, data: bytes) -> None:
        self.transport.receive(data)
        self.rig.settle()

    def accept(self, **more: object) -> None:
        self.script.call.send({**ACCEPT, **more})
        self.rig.settle()

    def answers(self) -> list[tuple[int, dict[bytes, bytes]]]:
        """
        Status and fields of every answer so far; a field that came twice is an error.
        """
        self.written += self.transport.take()
        found = []
        for head in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n((?:[^\r]+\r\n)*)\r\n", self.written):
            lines = [line.partition(b": ") for line in head[1].splitlines()]
            names = [name.lower() for name, _, _ in lines]
            assert len(names) == len(set(names)), names
            found.append((int(head[0]), {name.lower(): value for name, _, value in lines}))
        return found

    @property
    def status(self) -> int | None:
        answers = self.answers()
        return answers[-1][0] if answers else None

    def kinds(self) -> list[str]:
        """
        The types of the scopes that the application was called with.
        """
        return [call.scope["type"] for call in self.script.calls]


@pytest.fixture
def wire() -> Iterator[Handshake]:
    handshake = Handshake()
    yield handshake
    handshake.rig.close()
    assert [] == handshake.rig.errors


# What is answered


def test_example(wire: Handshake) -> None:
    """
    The example of RFC 6455 section 1.3 gets its Sec-WebSocket-Accept, in a 101 that says what it upgrades to.
    """
    wire.send(request(fields()))
    assert ["websocket"] == wire.kinds() and wire.status is None
    wire.accept()

    ((status, answer),) = wire.answers()
    assert 101 == status
    assert ACCEPT_VALUE == answer[b"sec-websocket-accept"]
    assert (b"websocket", b"upgrade") == (answer[b"upgrade"].lower(), answer[b"connection"].lower())
    assert b"content-length" not in answer and b"transfer-encoding" not in answer


def test_byte_by_byte(wire: Handshake) -> None:
    """
    A handshake may come in any pieces.
    """
    for byte in request(fields()):
        wire.transport.receive(bytes([byte]))
    wire.rig.settle()
    wire.accept()

    assert 101 == wire.status


def test_scope_headers(wire: Handshake) -> None:
    """
    Origin, cookies and whatever else come to the application as they were sent; other bytes than ASCII too.
    """
    more = [(b"Origin", b"https://evil.example"), (b"Cookie", b"a=b"), (b"X-Odd", b"\xff\xfe")]
    wire.send(request(fields(*more), b"GET /%ff%C3%A9?q=%ff HTTP/1.1"))

    scope = wire.script.call.scope
    assert [(name.lower(), value) for name, value in fields(*more)] == list(scope["headers"])
    assert scope["raw_path"] == b"/%ff%C3%A9" and scope["query_string"] == b"q=%ff"
    assert scope["path"].endswith("é")


@pytest.mark.parametrize("start", [b"GET /\xff HTTP/1.1", b"GET /?\xc3\xa9 HTTP/1.1"])
def test_raw_bytes_in_target(wire: Handshake, start: bytes) -> None:
    """
    Bytes in the target that are no ASCII are refused, or passed on; nothing breaks.
    """
    wire.send(request(fields(), start))

    if wire.script.calls:
        wire.accept()
    assert wire.status in (101, 400)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ([b"chat"], ["chat"]),
        ([b"chat, superchat"], ["chat", "superchat"]),
        ([b"chat", b"superchat ,third"], ["chat", "superchat", "third"]),
        ([b"v1.a+b_c!#$%&'*-.^`|~"], ["v1.a+b_c!#$%&'*-.^`|~"]),
    ],
)
def test_subprotocols(wire: Handshake, more: list[bytes], expected: list[str]) -> None:
    """
    Subprotocols from one or several lines come in their order, and any of them can be chosen.
    """
    wire.send(request(fields(*((b"Sec-WebSocket-Protocol", value) for value in more))))
    assert expected == wire.script.call.scope["subprotocols"]
    wire.accept(subprotocol=expected[-1])

    assert expected[-1].encode() == wire.answers()[0][1][b"sec-websocket-protocol"]


@pytest.mark.parametrize(
    "instead",
    [
        {"upgrade": b"WebSocket"},
        {"upgrade": b"h2c, websocket"},
        {"connection": b"keep-alive, Upgrade"},
        {"connection": b"upgrade"},
        {"sec_websocket_key": b"AAAAAAAAAAAAAAAAAAAAAA=="},
    ],
)
def test_variants(wire: Handshake, instead: dict[str, bytes]) -> None:
    """
    Names of protocols and options are compared without regard to case, and may stand in a list.
    """
    wire.send(request(fields(**instead)))
    wire.accept()

    assert 101 == wire.status


# What is refused


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"AAAA",
        b"dGhlIHNhbXBsZSBub25j",
        base64.b64encode(bytes(15)),
        base64.b64encode(bytes(17)),
        base64.b64encode(bytes(32)),
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBsZSBub25jZQ=",
        b"dGhlIHNhbXBsZSBub25jZQ===",
        b"dGhl IHNhbXBsZSBub25jZQ==",
        b"dGhl!IHNhbXBsZSBub25jZQ==",
        b"-_-_IHNhbXBsZSBub25jZQ==",
        b"dGhlIHNhbXBsZSBub25jZQ==x",
        b"dGhlIHNhbXBsZSBub25j\xff\xff==",
        b"dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_wrong_key(wire: Handshake, key: bytes) -> None:
    """
    A key that is not base64 of 16 bytes is a 400, and the application does not run (section 4.2.1).
    """
    wire.send(request(fields(sec_websocket_key=key)))

    assert (400, []) == (wire.status, wire.kinds())


def test_no_key(wire: Handshake) -> None:
    """
    Without a key it is a 400.
    """
    wire.send(request(fields(sec_websocket_key=None)))

    assert (400, []) == (wire.status, wire.kinds())


@pytest.mark.parametrize("second", [KEY, b"AAAAAAAAAAAAAAAAAAAAAA=="])
def test_two_keys(wire: Handshake, second: bytes) -> None:
    """
    Two keys are a 400, be they the same or not (section 11.3.1).
    """
    wire.send(request(fields((b"Sec-WebSocket-Key", second))))

    assert (400, []) == (wire.status, wire.kinds())


@pytest.mark.parametrize("version", [b"12", b"8", b"0", b"14", b"013", b"1 3", b"13a", b"13, 8", b"\xff", b""])
def test_wrong_version(wire: Handshake, version: bytes) -> None:
    """
    Another version is a 426 that names the one we speak, and the application does not run (section 4.4).
    """
    wire.send(request(fields(sec_websocket_version=version)))

    ((status, answer),) = wire.answers()
    assert (426, b"13", []) == (status, answer[b"sec-websocket-version"], wire.kinds())


def test_wrong_version_says_upgrade(wire: Handshake) -> None:
    """
    A 426 carries Upgrade, and Connection names it (RFC 9110 sections 15.5.22 and 7.8: both a MUST).
    """
    wire.send(request(fields(sec_websocket_version=b"12")))

    ((_, answer),) = wire.answers()
    assert b"websocket" == answer.get(b"upgrade", b"").lower()
    assert b"upgrade" in answer.get(b"connection", b"").lower()


def test_no_version(wire: Handshake) -> None:
    """
    Without a version the handshake is refused (section 4.2.1).
    """
    wire.send(request(fields(sec_websocket_version=None)))

    assert wire.status in (400, 426) and [] == wire.kinds()


@pytest.mark.parametrize("second", [b"13", b"8"])
def test_two_versions(wire: Handshake, second: bytes) -> None:
    """
    Two lines with a version are refused: there must be one in a request (section 11.3.5).
    """
    wire.send(request(fields((b"Sec-WebSocket-Version", second))))

    assert wire.status in (400, 426) and [] == wire.kinds()


@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"a b", b"a;q=1", b"a, b@c", b'"chat"', b"a/b", b"caf\xc3\xa9", b"a\tb"]
)
def test_wrong_subprotocol(wire: Handshake, value: bytes) -> None:
    """
    A subprotocol that is no token is a 400 (section 4.1, CVE-2026-42544).
    """
    wire.send(request(fields((b"Sec-WebSocket-Protocol", value))))

    assert (400, []) == (wire.status, wire.kinds())


@pytest.mark.parametrize("framing", [(b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")])
def test_body(wire: Handshake, framing: tuple[bytes, bytes]) -> None:
    """
    A handshake with a body is a 400: body and frames could not be told apart.
    """
    wire.send(request(fields(framing)) + b"hello")

    assert (400, []) == (wire.status, wire.kinds())


def test_empty_body(wire: Handshake) -> None:
    """
    A Content-Length of 0 is no body.
    """
    wire.send(request(fields((b"Content-Length", b"0"))))
    wire.accept()

    assert 101 == wire.status


def test_no_host(wire: Handshake) -> None:
    """
    Without Host it is a 400, as for every request.
    """
    wire.send(request(fields(host=None)))

    assert (400, []) == (wire.status, wire.kinds())


def test_refused_connection_ends(wire: Handshake) -> None:
    """
    What comes behind a refused handshake is not taken for another request.
    """
    wire.send(request(fields(sec_websocket_key=b"AAAA")) + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")

    assert ([400], []) == ([status for status, _ in wire.answers()], wire.kinds())
    assert wire.transport.half_closed or wire.transport.disconnecting


# What is plain HTTP


@pytest.mark.parametrize(
    "lines",
    [
        fields(upgrade=None),
        fields(upgrade=None, connection=None),
        fields(connection=None),
        fields(connection=b"keep-alive"),
        fields(upgrade=b"h2c"),
        fields(upgrade=b"websockets"),
    ],
)
def test_plain_http(wire: Handshake, lines: Fields) -> None:
    """
    Without Upgrade: websocket and Connection: Upgrade it is a request as any other.
    """
    wire.send(request(lines))
    assert ["http"] == wire.kinds()
    wire.script.call.send(response_start(204), response_body())

    assert 204 == wire.status


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"OPTIONS"])
def test_other_method(wire: Handshake, method: bytes) -> None:
    """
    Only GET makes a WebSocket (section 4.2.1).
    """
    wire.send(request(fields(), method + b" / HTTP/1.1"))

    assert ["http"] == wire.kinds() or wire.status in (400, 405)


def test_http_1_0(wire: Handshake) -> None:
    """
    In HTTP/1.0 an Upgrade is ignored (RFC 9110 section 7.8).
    """
    wire.send(request(fields(), b"GET / HTTP/1.0"))
    assert ["http"] == wire.kinds()
    wire.script.call.send(response_start(204), response_body())

    assert 204 == wire.status


# permessage-deflate

DEFLATE = b"permessage-deflate"
Parameters = dict[str, str | None]


def parsed(element: bytes) -> tuple[str, Parameters]:
    """
    Name and parameters of an extension in the answer.
    """
    name, *rest = [part.strip() for part in element.decode("ascii").split(";")]
    pairs = [part.partition("=") for part in rest]
    parameters = {key: value if equals else None for key, equals, value in pairs}
    assert len(parameters) == len(pairs)
    return name, parameters


def check_agreed(offer: Parameters, answer: Parameters) -> None:
    """
    That the answer is one that RFC 7692 section 7.1 allows for this offer.
    """
    flags = {"server_no_context_takeover", "client_no_context_takeover"}
    windows = {"server_max_window_bits", "client_max_window_bits"}
    assert set(answer) <= flags | windows
    assert all(answer[name] is None for name in flags & set(answer))
    for name in windows & set(answer):
        value = answer[name]
        assert value is not None and re.fullmatch("8|9|1[0-5]", value)
        limit = offer.get(name)
        assert limit is None or int(value) <= int(limit.strip('"'))
    # Section 7.1.1.1 and 7.1.2.1: what the client asks for must be in the answer.
    assert set(offer) & {"server_no_context_takeover", "server_max_window_bits"} <= set(answer)
    # Section 7.1.2.2: not if the client did not say that it can.
    assert "client_max_window_bits" not in answer or "client_max_window_bits" in offer


def extensions_of(wire: Handshake, *values: bytes) -> list[tuple[str, Parameters]]:
    """
    What is agreed to for these lines of Sec-WebSocket-Extensions.
    """
    wire.send(request(fields(*((b"Sec-WebSocket-Extensions", value) for value in values))))
    wire.accept()
    ((status, answer),) = wire.answers()
    assert 101 == status
    agreed = answer.get(b"sec-websocket-extensions")
    return [] if agreed is None else [parsed(element) for element in agreed.split(b",")]


@pytest.mark.parametrize(
    "parameters",
    [
        b"",
        b"; client_max_window_bits",
        b";client_max_window_bits",
        b"; client_max_window_bits=10",
        b"; client_max_window_bits=15",
        b"; client_max_window_bits=8",
        b"; server_max_window_bits=9",
        b"; server_max_window_bits=12",
        b"; server_max_window_bits=15",
        b"; server_no_context_takeover",
        b"; client_no_context_takeover",
        b"; server_no_context_takeover; client_no_context_takeover",
        b"; client_max_window_bits; server_max_window_bits=10; server_no_context_takeover; client_no_context_takeover",
    ],
)
def test_deflate_agreed(wire: Handshake, parameters: bytes) -> None:
    """
    Each valid offer of permessage-deflate is agreed to, with what it asks for.
    """
    ((name, answer),) = extensions_of(wire, DEFLATE + parameters)

    assert "permessage-deflate" == name
    check_agreed(parsed(DEFLATE + parameters)[1], answer)


@pytest.mark.parametrize(
    "parameters",
    [
        # As a token or as a quoted string: the same (RFC 6455 section 9.1).
        b'; server_max_window_bits="10"',
        b'; client_max_window_bits="10"',
        # zlib cannot deflate with 8.
        b"; server_max_window_bits=8",
    ],
)
def test_deflate_agreed_or_declined(wire: Handshake, parameters: bytes) -> None:
    """
    Offers that a server need not be able to meet are met, or declined.
    """
    for _, answer in extensions_of(wire, DEFLATE + parameters):
        check_agreed(parsed(DEFLATE + parameters)[1], answer)


@pytest.mark.parametrize(
    "parameters",
    [
        b"; server_max_window_bits",
        b"; server_max_window_bits=7",
        b"; server_max_window_bits=16",
        b"; server_max_window_bits=0",
        b"; server_max_window_bits=010",
        b"; server_max_window_bits=+10",
        b"; server_max_window_bits=abc",
        b"; server_max_window_bits=1_0",
        b"; client_max_window_bits=7",
        b"; client_max_window_bits=16",
        b"; client_max_window_bits=09",
        b"; client_max_window_bits=x",
        b"; server_no_context_takeover=1",
        b"; client_no_context_takeover=true",
        b"; server_max_window_bits=10; server_max_window_bits=10",
        b"; client_max_window_bits; client_max_window_bits=10",
        b"; server_no_context_takeover; server_no_context_takeover",
        b"; unheard_of",
        b"; unheard_of=1",
        b"; SERVER_MAX_WINDOW_BITS=99",
    ],
)
def test_deflate_declined(wire: Handshake, parameters: bytes) -> None:
    """
    An offer with a parameter that is unknown, repeated or has a wrong value is declined (RFC 7692 section 7.1).
    """
    assert [] == extensions_of(wire, DEFLATE + parameters)


@pytest.mark.parametrize(
    "values",
    [
        [DEFLATE + b"; unheard_of, " + DEFLATE],
        [DEFLATE + b"; unheard_of", DEFLATE],
        [DEFLATE + b"; server_max_window_bits=99, " + DEFLATE],
        [b"x-webkit-deflate-frame, " + DEFLATE],
        [b"permessage-bzip2; a=1; b, " + DEFLATE],
        [b'unheard-of; a="x, y; z", ' + DEFLATE],
    ],
)
def test_deflate_fallback(wire: Handshake, values: list[bytes]) -> None:
    """
    The first offer that can be met is taken, from one line or several, and only one.
    """
    ((name, answer),) = extensions_of(wire, *values)

    assert "permessage-deflate" == name
    check_agreed({}, answer)


def test_first_offer_wins(wire: Handshake) -> None:
    """
    Of several offers that can be met the client prefers the first (RFC 7692 section 5).
    """
    values = DEFLATE + b"; server_max_window_bits=10, " + DEFLATE
    ((_, answer),) = extensions_of(wire, values)

    assert "10" == answer["server_max_window_bits"]


@pytest.mark.parametrize("value", [b"x-webkit-deflate-frame", b"permessage-bzip2", b"deflate-stream", b"permessage"])
def test_other_extensions(wire: Handshake, value: bytes) -> None:
    """
    Extensions that are not known are declined.
    """
    assert [] == extensions_of(wire, value)


@pytest.mark.parametrize("value", [b"\xff\xfe", b";", b"permessage-deflate; =1", b"a b", b'a; b="c', b"a; b=\x80"])
def test_malformed_extensions(wire: Handshake, value: bytes) -> None:
    """
    An extensions field that breaks the grammar is a 400 (RFC 6455 section 9.1).
    """
    wire.send(request(fields((b"Sec-WebSocket-Extensions", value))))

    assert (400, []) == (wire.status, wire.kinds())


def test_deflate_off() -> None:
    """
    Switched off, no offer is met.
    """
    wire = Handshake(deflate=False)
    assert [] == extensions_of(wire, DEFLATE)
    wire.rig.close()


@pytest.mark.parametrize("bits", [8, 9, 10, 15])
def test_server_keeps_to_the_window(wire: Handshake, bits: int) -> None:
    """
    What the server deflates can be inflated with the window that the client asked for.
    """
    agreed = extensions_of(wire, DEFLATE + b"; server_max_window_bits=%d" % bits)
    if not agreed:
        assert 8 == bits
        return
    message = bytes(n * n % 251 for n in range(400)) * 50
    wire.transport.take()
    wire.script.call.send({"type": "websocket.send", "bytes": message})
    sent = wire.transport.take()

    assert 0xC2 == sent[0]
    payload = sent[2 if sent[1] < 126 else 4 if sent[1] == 126 else 10 :]
    inflate = zlib.decompressobj(-int(agreed[0][1]["server_max_window_bits"] or 15))
    assert message == inflate.decompress(payload + b"\x00\x00\xff\xff")


# Right behind the handshake


def test_frames_behind_the_handshake(wire: Handshake) -> None:
    """
    Frames in the same read, and in reads before the accept, are kept and delivered after it.
    """
    wire.send(request(fields()) + text("one") + text("two")[:3])
    wire.send(text("two")[3:] + text("three"))
    call = wire.script.call
    assert {"type": "websocket.connect"} == call.receive()
    waiting = call.receiving()
    assert not waiting.done()
    wire.accept()

    messages = [waiting.result(), call.receive(), call.receive()]
    assert [("text", "one"), ("text", "two"), ("text", "three")] == [content(message) for message in messages]


def test_one_byte_behind_the_handshake(wire: Handshake) -> None:
    """
    A single byte behind the handshake is the first of a frame.
    """
    wire.send(request(fields()) + text("x")[:1])
    wire.accept()
    wire.send(text("x")[1:])

    assert {"type": "websocket.connect"} == wire.script.call.receive()
    assert ("text", "x") == content(wire.script.call.receive())


def test_frames_behind_the_handshake_are_bounded(wire: Handshake) -> None:
    """
    Before the accept only so much is taken: reading pauses, and goes on after it without a loss.
    """
    waiting = [frame(BINARY, bytes([number]) * 1000) for number in range(256)]
    wire.send(request(fields()))
    taken = 0
    while wire.transport.reading and taken < len(waiting):
        wire.send(waiting[taken])
        taken += 1
    assert taken < 130

    call = wire.script.call
    assert {"type": "websocket.connect"} == call.receive()
    wire.accept()
    for number in range(256):
        while wire.transport.reading and taken < len(waiting):
            wire.send(waiting[taken])
            taken += 1
        assert ("bytes", bytes([number]) * 1000) == content(call.receive())


def test_much_in_one_read_behind_the_handshake(wire: Handshake) -> None:
    """
    A read with far more than may be kept is not lost, and pauses reading.
    """
    messages = [bytes([number]) * 4000 for number in range(100)]
    wire.send(request(fields()) + b"".join(frame(BINARY, message) for message in messages))
    assert not wire.transport.reading

    call = wire.script.call
    assert {"type": "websocket.connect"} == call.receive()
    wire.accept()
    assert [("bytes", message) for message in messages] == [content(call.receive()) for _ in messages]
    assert wire.transport.reading


def test_bytes_behind_a_refused_handshake(wire: Handshake) -> None:
    """
    Frames behind a handshake that the application denies are dropped, and are no request.
    """
    wire.send(request(fields()) + text("GET / HTTP/1.1\r\n") + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    wire.script.call.send({"type": "websocket.close"})
    wire.rig.settle()

    assert ([403], ["websocket"]) == ([status for status, _ in wire.answers()], wire.kinds())
    # Reads on: closing with unread input would reset the connection, and the answer be lost (RFC 9112 section 9.6).
    assert wire.transport.half_closed and not wire.transport.disconnecting
    assert wire.transport.reading


def test_client_leaves_with_bytes_behind_the_handshake(wire: Handshake) -> None:
    """
    A client that sends frames and leaves before the accept is a disconnect 1006.
    """
    wire.send(request(fields()) + text("one"))
    wire.transport.lose()
    call = wire.script.call

    assert {"type": "websocket.connect"} == call.receive()
    assert 1006 == departure(call.receive())[0]
    assert isinstance(raised(call, ACCEPT), OSError)


def test_close_behind_the_handshake(wire: Handshake) -> None:
    """
    A close frame right behind the handshake is answered after the accept.
    """
    wire.send(request(fields()) + close(4000))
    call = wire.script.call
    assert {"type": "websocket.connect"} == call.receive()
    wire.accept()

    assert (4000, "") == departure(call.receive())
    assert wire.transport.take().endswith(b"\x88\x02\x0f\xa0")


# Beside other requests


def test_after_a_request(wire: Handshake) -> None:
    """
    A connection that has served a request can become a WebSocket.
    """
    wire.send(request([(b"Host", b"a")], b"GET / HTTP/1.1"))
    wire.script.call.send(response_start(204), response_body())
    wire.send(request(fields()))
    wire.accept()
    wire.send(text("a"))

    assert [204, 101] == [status for status, _ in wire.answers()]
    assert {"type": "websocket.connect"} == wire.script.call.receive()
    assert ("text", "a") == content(wire.script.call.receive())


def test_pipelined(wire: Handshake) -> None:
    """
    A handshake sent behind a request that is not answered yet waits for its turn, with the frames behind it.
    """
    wire.send(request([(b"Host", b"a")], b"GET / HTTP/1.1") + request(fields()) + text("a") + text("b"))
    assert ["http"] == wire.kinds()
    wire.script.call.send(response_start(204), response_body())
    wire.rig.settle()
    assert ["http", "websocket"] == wire.kinds()
    wire.accept()

    assert [204, 101] == [status for status, _ in wire.answers()]
    call = wire.script.call
    assert {"type": "websocket.connect"} == call.receive()
    assert [("text", "a"), ("text", "b")] == [content(call.receive()) for _ in range(2)]
    wire.send(text("c"))
    assert ("text", "c") == content(call.receive())


def test_denied_connection_ends(wire: Handshake) -> None:
    """
    After a denial the connection ends: the client may have taken it for a tunnel.
    """
    wire.send(request(fields()))
    wire.script.call.send({"type": "websocket.close"})
    wire.rig.settle()

    assert 403 == wire.status
    assert wire.transport.half_closed or wire.transport.disconnecting


def test_two_accepts_while_the_library_loads(wire: Handshake, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The first accept of a process waits for a thread; a second one meanwhile raises, and there is one 101.
    """
    go_on = threading.Event()
    load = engine.load

    def slow_load() -> None:
        go_on.wait(10)
        load()

    monkeypatch.setattr(engine, "_machine", None)
    monkeypatch.setattr(engine, "load", slow_load)
    wire.send(request(fields()))
    accepts = [wire.script.call.sending(ACCEPT) for _ in range(2)]
    go_on.set()
    wire.rig.settle_threads(lambda: all(accept.done() for accept in accepts))

    assert 1 == sum(accept.exception() is None for accept in accepts)
    assert [101] == [status for status, _ in wire.answers()]
