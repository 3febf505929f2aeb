"""
What every wire that carries WebSocket must do, written once: a subclass per wire says how a client gets to the server.

    class TestOverHttp1(WebSocketConformance):
        def make(self, application, **gate_options):
            rig = Rig(application, **gate_options)
            return rig, H1WebSocketPeer(rig)

pytest collects the subclass. The client is a `WebSocketPeer`; frames are made here, byte by byte, so that wrong ones
can be made too, and read by the peer with a library that is not ours.

Where RFC 6455 or ASGI leave a choice, each of the choices passes.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Any, Protocol

from txasgi.asgi.task import Application, Message, Receive, Send
from txasgi.asgi.websocket import WebSocketOptions
from txasgi.errors import ApplicationError, ClientDisconnected
from txasgi.seam import Field
from txasgi.testing.rig import Call, Rig, Script

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 4, 2, 1
KIB, MIB = 1024, 1024 * 1024

# Of the examples in RFC 6455 section 5.7.
KEY = b"\x37\xfa\x21\x3d"

Frame = tuple[str, Any]
"""
("text", str), ("bytes", bytes), ("ping", bytes), ("pong", bytes) or ("close", (code, reason)).
"""


class WebSocketPeer(Protocol):
    """
    A client with one connection. Each call runs the rig until nothing is left to do.
    """

    @property
    def status(self) -> int | None:
        """
        Of the answer to the opening handshake; None as long as there is none.
        """

    @property
    def headers(self) -> list[Field]:
        """
        Of that answer, names in lower case.
        """

    @property
    def body(self) -> bytes:
        """
        Of an answer that refuses, as far as it has come.
        """

    @property
    def complete(self) -> bool:
        """
        An answer that refuses has come to its end.
        """

    @property
    def closed(self) -> bool:
        """
        The server has ended the connection, or the stream.
        """

    @property
    def untaken(self) -> int:
        """
        Bytes sent that the server does not take now.
        """

    @property
    def received(self) -> int:
        """
        Bytes of all frames so far, as they were on the wire.
        """

    def open(
        self,
        target: bytes = b"/",
        headers: Iterable[Field] = (),
        subprotocols: Iterable[str] = (),
        extensions: Iterable[str] = (),
        secure: bool = False,
    ) -> None:
        """
        Send the opening handshake.

        secure: over TLS.
        """

    def send_raw(self, data: bytes, read_bytes: int = 65536) -> None:
        """
        Send frames. The server gets them in reads of that size, as soon as it takes them.
        """

    def frames(self) -> list[Frame]:
        """
        Whole messages, inflated, and control frames, in the order in which they came; taken.
        """

    def leave(self) -> None:
        """
        Be gone without a close frame.
        """

    def clog(self) -> None:
        """
        Read nothing any more.
        """

    def unclog(self) -> None:
        """
        Read on.
        """


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    """
    The payload under a mask (RFC 6455 section 5.3).
    """
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


def header(
    opcode: int, length: int, fin: bool = True, rsv: int = 0, key: bytes | None = KEY, form: int | None = None
) -> bytes:
    """
    The head of a frame (RFC 6455 section 5.2).

    rsv: RSV1 | RSV2 | RSV3.
    key: None for a frame without a mask.
    form: 7, 16 or 64 bits for the length; None for the shortest.
    """
    if form is None:
        form = 7 if length < 126 else 16 if length < 65536 else 64
    first = fin << 7 | rsv << 4 | opcode
    mask = 0x80 if key is not None else 0
    if form == 7:
        head = struct.pack("!BB", first, mask | length)
    elif form == 16:
        head = struct.pack("!BBH", first, mask | 126, length)
    else:
        head = struct.pack("!BBQ", first, mask | 127, length)
    return head + (key or b"")


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, key: bytes = KEY) -> bytes:
    """
    A frame from the client.
    """
    return header(opcode, len(payload), fin, rsv, key) + masked(payload, key)


def text(message: str) -> bytes:
    """
    A text message in one frame.
    """
    return frame(TEXT, message.encode())


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """
    A close frame.
    """
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def deflate(payload: bytes, compressor: Any = None) -> bytes:
    """
    Deflated as RFC 7692 section 7.2.1 says; without a compressor, in a context of its own.
    """
    compressor = compressor or zlib.compressobj(wbits=-15)
    data: bytes = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


def content(message: Message) -> Frame:
    """
    What a websocket.receive brought: ("text", str) or ("bytes", bytes).
    """
    assert message["type"] == "websocket.receive", message
    given = [(key, message[key]) for key in ("text", "bytes") if message.get(key) is not None]
    assert len(given) == 1, message
    assert type(given[0][1]) is {"text": str, "bytes": bytes}[given[0][0]]
    return given[0]


def departure(message: Message) -> tuple[int, str]:
    """
    Code and reason of a websocket.disconnect.
    """
    assert message["type"] == "websocket.disconnect", message
    assert type(message["code"]) is int
    return message["code"], message.get("reason") or ""


def raised(call: Call, message: Message) -> BaseException | None:
    """
    What send() raises for this message.
    """
    sending = call.sending(message)
    assert sending.done(), "send() waits"
    return sending.exception()


class _Logged(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


ACCEPT: Message = {"type": "websocket.accept"}
DEFLATE = "permessage-deflate"


class Rationed:
    """
    An application that accepts, and takes as many messages as it is let.

    taken: what receive() gave.
    """

    def __init__(self) -> None:
        self.taken: list[Message] = []
        self.rations = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send(ACCEPT)
        while True:
            await self.rations.acquire()
            self.taken.append(await receive())


class WebSocketConformance:
    """
    Subclass it and say `make`.

    http_version: of the scope.
    opened_status: the status that accepts.

    After each test nothing may be logged that the test did not take with `faults`, and no error left in a loop.
    """

    http_version = "1.1"
    opened_status = 101

    def make(self, application: Application, **gate_options: Any) -> tuple[Rig, WebSocketPeer]:
        """
        A rig, and a client of it that did not connect yet.
        """
        raise NotImplementedError

    def setup_method(self) -> None:
        """
        For pytest.
        """
        self.rigs: list[Rig] = []
        self.log = _Logged()
        logging.getLogger("txasgi").addHandler(self.log)

    def teardown_method(self) -> None:
        """
        For pytest.
        """
        logging.getLogger("txasgi").removeHandler(self.log)
        errors = []
        for rig in self.rigs:
            rig.close()
        # Of a task that failed unseen the loop hears when it is collected; what is older than this test is no matter.
        gc.collect(1)
        for rig in self.rigs:
            errors += rig.errors
        assert errors == []
        assert [record.getMessage() for record in self.log.records] == []

    # What the tests are written with

    @property
    def rig(self) -> Rig:
        """
        The last one.
        """
        return self.rigs[-1]

    def faults(self) -> list[logging.LogRecord]:
        """
        What was logged; taken.
        """
        records, self.log.records = self.log.records, []
        return records

    def peer(self, application: Application, **gate_options: Any) -> WebSocketPeer:
        """
        A client in front of this application.
        """
        rig, peer = self.make(application, **gate_options)
        self.rigs.append(rig)
        return peer

    def asked(self, *, limits: WebSocketOptions | None = None, **handshake: Any) -> tuple[Call, WebSocketPeer]:
        """
        A handshake that the application has heard of and did not answer.
        """
        script = Script()
        peer = self.peer(script, websocket=limits or WebSocketOptions())
        peer.open(**handshake)
        assert script.call.receive() == {"type": "websocket.connect"}
        return script.call, peer

    def opened(self, *, limits: WebSocketOptions | None = None, **handshake: Any) -> tuple[Call, WebSocketPeer]:
        """
        A WebSocket that is open.
        """
        call, peer = self.asked(limits=limits, **handshake)
        self.accept(call)
        assert peer.status == self.opened_status
        return call, peer

    def accept(self, call: Call, **more: Any) -> None:
        """
        The application accepts; the first time in a process this waits for a thread.
        """
        accepting = call.sending({**ACCEPT, **more})
        if not accepting.done():
            self.rig.settle_threads(accepting.done)
        accepting.result()
        self.rig.settle()

    def rationed(self, limits: WebSocketOptions) -> tuple[Rationed, WebSocketPeer]:
        """
        A WebSocket that is open, for many messages.
        """
        application = Rationed()
        peer = self.peer(application, websocket=limits)
        peer.open()
        if peer.status is None:
            self.rig.settle_threads(lambda: peer.status is not None)
        return application, peer

    def take(self, application: Rationed, count: int) -> None:
        """
        Let it take so many messages more.
        """
        count += len(application.taken)
        for _ in range(count - len(application.taken)):
            application.rations.release()
        self.settle_until(lambda: len(application.taken) == count)

    def settle_until(self, done: Callable[[], bool], turns: int = 20_000) -> None:
        """
        Run the loop until *done*, for work that takes many of its turns.
        """
        for _ in range(turns):
            if done():
                return
            self.rig.settle()
        raise AssertionError("it does not come to an end")

    def close_code(self, sent: bytes, read_bytes: int = 65536, **more: Any) -> int | str:
        """
        The code with which the server closes when it gets these frames, or what happens instead.

        The application must hear of it, and the connection must come to its end though the peer answers nothing.
        """
        call, peer = self.opened(**more)
        peer.send_raw(sent, read_bytes)
        frames = peer.frames()
        heard = call.receiving()
        while heard.done() and heard.result()["type"] == "websocket.receive":
            heard = call.receiving()
        self.rig.advance(12)
        codes = [value[0] for kind, value in frames if kind == "close"]
        if not codes:
            return f"no close frame in time ({[kind for kind, _ in frames]}, closed: {peer.closed})"
        if not heard.done() or heard.result()["type"] != "websocket.disconnect":
            return f"{codes}, and the application is not told"
        if not peer.closed:
            return f"{codes}, and the connection stays"
        self.end(call)
        return codes[0] if len(codes) == 1 else str(codes)

    def end(self, call: Call) -> None:
        """
        The application returns, unless it was cancelled because its client is gone.
        """
        if not call.ended:
            call.finish()

    def wrong_codes(self, cases: Mapping[str, tuple[bytes, int]], **more: Any) -> dict[str, Any]:
        """
        The cases (name -> frames, expected code) that end otherwise: in one read, and byte by byte.
        """
        wrong: dict[str, Any] = {}
        for name, (sent, code) in cases.items():
            for how, read_bytes in (("one read", 1 << 30), ("byte by byte", 1)):
                observed = self.close_code(sent, read_bytes, **more)
                if observed != code:
                    wrong[f"{name}, {how}"] = {"expected": code, "observed": observed}
        return wrong

    # The opening handshake

    def test_scope(self) -> None:
        """
        The scope has what ASGI lists for a WebSocket, and no method.
        """
        state = {"pool": object()}
        script = Script()
        peer = self.peer(script, state=state, root_path="/root")
        peer.open(b"/a%20b/%C3%A9?x=%20y", [(b"x-thing", b"one"), (b"x-thing", b"\xfftwo")], ["chat", "superchat"])

        scope = script.call.scope
        assert scope["type"] == "websocket"
        assert scope["asgi"]["version"] == "3.0" and scope["asgi"]["spec_version"] in ("2.4", "2.5")
        assert scope["http_version"] == self.http_version
        assert scope["scheme"] == "ws"
        assert scope["path"] == "/root/a b/é"
        assert scope["raw_path"] == b"/root/a%20b/%C3%A9"
        assert scope["query_string"] == b"x=%20y"
        assert scope["root_path"] == "/root"
        assert [value for name, value in scope["headers"] if name == b"x-thing"] == [b"one", b"\xfftwo"]
        assert all(name == name.lower() for name, _ in scope["headers"])
        assert scope["subprotocols"] == ["chat", "superchat"]
        assert scope["extensions"]["websocket.http.response"] == {}
        assert scope["client"][0] == "192.0.2.7" and scope["server"][0] == "127.0.0.1"
        assert scope["state"] == state and scope["state"] is not state
        assert scope["state"]["pool"] is state["pool"]
        assert "method" not in scope
        script.call.send({"type": "websocket.close"})

    def test_scope_without_extras(self) -> None:
        """
        Without subprotocols and lifespan state the scope has an empty list and no state.
        """
        call, _ = self.asked()

        assert call.scope["subprotocols"] == []
        assert "state" not in call.scope

    def test_secure_scheme(self) -> None:
        """
        Over TLS the scheme is wss.
        """
        call, _ = self.asked(secure=True)

        assert call.scope["scheme"] == "wss"

    def test_nothing_is_answered_before_the_application_decides(self) -> None:
        """
        The handshake stays unanswered, and a second receive waits, until the application has decided.
        """
        call, peer = self.asked()
        receiving = call.receiving()

        assert peer.status is None and not receiving.done()

        receiving.cancel()
        self.accept(call)

        assert peer.status == self.opened_status

    def test_accept(self) -> None:
        """
        Accepted without more, the answer names no subprotocol and no extension that was not offered.
        """
        _, peer = self.opened()

        names = [name for name, _ in peer.headers]
        assert b"sec-websocket-protocol" not in names
        assert b"sec-websocket-extensions" not in names

    def test_accept_with_subprotocol_and_headers(self) -> None:
        """
        The chosen subprotocol and the application's headers, in their order, are in the answer.
        """
        call, peer = self.asked(subprotocols=["chat", "superchat"])
        cookies = [(b"set-cookie", b"a=1"), (b"x-other", b"  spaced "), (b"set-cookie", b"b=2")]
        self.accept(call, subprotocol="superchat", headers=cookies)

        assert peer.status == self.opened_status
        assert [v for n, v in peer.headers if n == b"sec-websocket-protocol"] == [b"superchat"]
        assert [v for n, v in peer.headers if n == b"set-cookie"] == [b"a=1", b"b=2"]
        assert (b"x-other", b"spaced") in peer.headers

    def test_wrong_accept(self) -> None:
        """
        An accept with bad headers or a subprotocol that was not offered raises, and a right one still opens.
        """
        for wrong in (
            {"headers": [(b"x-a", b"b\r\nx-c: d")]},
            {"headers": [(b"x a", b"b")]},
            {"headers": [("x-a", "b")]},
            {"headers": [(b":status", b"200")]},
            {"headers": [(b"sec-websocket-protocol", b"chat")]},
            {"subprotocol": "other"},
            {"subprotocol": ""},
            {"subprotocol": b"chat"},
        ):
            call, peer = self.asked(subprotocols=["chat"])

            assert isinstance(raised(call, {**ACCEPT, **wrong}), ApplicationError), wrong
            assert peer.status is None, wrong

            self.accept(call, subprotocol="chat")
            assert peer.status == self.opened_status, wrong

    def test_handshake_fields_are_the_servers(self) -> None:
        """
        Headers of the application cannot double or replace those that make the handshake.
        """
        call, peer = self.asked(extensions=[DEFLATE])
        ours = (b"sec-websocket-accept", b"sec-websocket-extensions", b"connection", b"upgrade", b"transfer-encoding")
        raised(call, {**ACCEPT, "headers": [(name, b"x") for name in ours]})
        if peer.status is None:
            self.accept(call)

        assert peer.status == self.opened_status
        assert not [name for name, value in peer.headers if value == b"x"]

    def test_accept_with_server_and_date(self) -> None:
        """
        Server and Date of the application are sent instead of the server's, not beside them.
        """
        call, peer = self.asked()
        self.accept(call, headers=[(b"server", b"mine"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")])

        assert [value for name, value in peer.headers if name == b"server"] == [b"mine"]
        assert [value for name, value in peer.headers if name == b"date"] == [b"Thu, 01 Jan 1970 00:00:00 GMT"]

    def test_accept_twice(self) -> None:
        """
        A second accept raises, and the connection stays open.
        """
        call, peer = self.opened()

        assert isinstance(raised(call, ACCEPT), ApplicationError)
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_close_before_accept(self) -> None:
        """
        Closed before it was accepted, the answer is 403, and receive gives the disconnect.
        """
        call, peer = self.asked()
        call.send({"type": "websocket.close", "code": 4001, "reason": "no"})

        assert peer.status == 403 and peer.complete
        assert departure(call.receive())[0] == 1006
        call.finish()
        assert [(str(o.status), o.kind == "open") for o in self.rig.outcomes] == [("403", False)]

    def test_messages_before_the_decision(self) -> None:
        """
        What is neither a decision nor known raises, and the decision is still open.
        """
        call, peer = self.asked()
        for wrong in (
            {"type": "websocket.send", "text": "early"},
            {"type": "http.response.start", "status": 200},
            {"type": "websocket.http.response.body", "body": b""},
            {"type": "websocket.receive", "text": "x"},
            {"type": "unheard.of"},
            {},
        ):
            assert isinstance(raised(call, wrong), ApplicationError), wrong
        assert peer.status is None

        self.accept(call)
        assert peer.status == self.opened_status

    def test_exception_before_accept(self) -> None:
        """
        An exception before the decision is a 500, logged once with its traceback.
        """
        call, peer = self.asked()
        call.fail(ValueError("broken"))

        assert peer.status == 500 and peer.complete
        assert [ValueError] == [record.exc_info[0] for record in self.faults() if record.exc_info]

    def test_return_before_accept(self) -> None:
        """
        A return without a decision is a 500, logged once.
        """
        call, peer = self.asked()
        call.finish()

        assert peer.status == 500 and peer.complete
        assert len(self.faults()) == 1

    def test_peer_leaves_before_accept(self) -> None:
        """
        A client that leaves before the decision is a disconnect 1006; accept raises ClientDisconnected, not logged.
        """
        call, peer = self.asked()
        receiving = call.receiving()
        peer.leave()

        assert departure(receiving.result())[0] == 1006
        error = raised(call, ACCEPT)
        assert isinstance(error, ClientDisconnected) and isinstance(error, OSError)
        call.fail(error)

    # Denial response

    def test_denial(self) -> None:
        """
        A denial response is answered as the application says it, and receive gives the disconnect.
        """
        call, peer = self.asked()
        call.send(
            {"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Basic")]},
            {"type": "websocket.http.response.body", "body": b"who are you?"},
        )

        assert (peer.status, peer.body, peer.complete) == (401, b"who are you?", True)
        assert (b"www-authenticate", b"Basic") in peer.headers
        assert departure(call.receive())[0] == 1006
        call.finish()
        assert [outcome.status for outcome in self.rig.outcomes] == [401]

    def test_streamed_denial(self) -> None:
        """
        The body of a denial response may come in pieces, each sent at once.
        """
        call, peer = self.asked()
        call.send({"type": "websocket.http.response.start", "status": 503, "headers": []})
        for piece in (b"one ", b"", b"two "):
            call.send({"type": "websocket.http.response.body", "body": piece, "more_body": True})
        assert (peer.status, peer.body, peer.complete) == (503, b"one two ", False)

        call.send({"type": "websocket.http.response.body", "body": b"three"})
        assert (peer.body, peer.complete) == (b"one two three", True)

    def test_denial_without_body(self) -> None:
        """
        A denial response may have an empty body.
        """
        call, peer = self.asked()
        call.send(
            {"type": "websocket.http.response.start", "status": 404},
            {"type": "websocket.http.response.body"},
        )

        assert (peer.status, peer.body, peer.complete) == (404, b"", True)

    def test_wrong_denial(self) -> None:
        """
        A denial response with a bad status or header raises, and what is right then still answers.
        """
        start: Message = {"type": "websocket.http.response.start"}
        for wrong in (
            {**start},
            {**start, "status": "403"},
            {**start, "status": 99},
            {**start, "status": 101},
            {**start, "status": 403, "headers": [(b"x", b"a\nb")]},
        ):
            call, peer = self.asked()
            assert isinstance(raised(call, wrong), ApplicationError), wrong
            assert peer.status is None, wrong

            call.send({**start, "status": 403}, {"type": "websocket.http.response.body", "body": b"no"})
            assert peer.status == 403, wrong
            assert peer.body == b"no", wrong

    def test_denial_excludes_the_rest(self) -> None:
        """
        Once a denial response has begun, accept, send, close and a second start raise.
        """
        call, peer = self.asked()
        start = {"type": "websocket.http.response.start", "status": 403}
        call.send(start)
        for wrong in (ACCEPT, start, {"type": "websocket.close"}, {"type": "websocket.send", "text": "x"}):
            assert isinstance(raised(call, wrong), ApplicationError), wrong
        call.send({"type": "websocket.http.response.body", "body": b"no"})

        assert (peer.status, peer.body, peer.complete) == (403, b"no", True)
        assert isinstance(raised(call, {"type": "websocket.http.response.body", "body": b"more"}), ApplicationError)

    def test_denial_after_accept(self) -> None:
        """
        A denial response after the accept raises, and the connection stays open.
        """
        call, peer = self.opened()

        wrong = {"type": "websocket.http.response.start", "status": 403}
        assert isinstance(raised(call, wrong), ApplicationError)
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_denial_that_breaks_off(self) -> None:
        """
        A denial response that the application does not complete is not shown as complete.
        """
        call, peer = self.asked()
        call.send(
            {"type": "websocket.http.response.start", "status": 404},
            {"type": "websocket.http.response.body", "body": b"half", "more_body": True},
        )
        call.fail(ValueError("broken"))

        assert not peer.complete and peer.closed
        assert len(self.faults()) == 1

    def test_denial_without_end(self) -> None:
        """
        A denial response of which only the start was sent is a 500, or broken off.
        """
        call, peer = self.asked()
        call.send({"type": "websocket.http.response.start", "status": 404})
        call.finish()

        assert (peer.status, peer.complete) == (500, True) or (not peer.complete and peer.closed)
        assert len(self.faults()) == 1

    # Messages

    def test_send(self) -> None:
        """
        Text and bytes reach the client as such, empty ones too.
        """
        call, peer = self.opened()
        sent: list[Frame] = [("text", "zoë €"), ("bytes", b"\x00\xff"), ("text", ""), ("bytes", b""), ("text", "end")]
        for kind, value in sent:
            call.send({"type": "websocket.send", kind: value})
        call.send({"type": "websocket.send", "text": None, "bytes": b"a"})
        call.send({"type": "websocket.send", "text": "b", "bytes": None})

        assert [*sent, ("bytes", b"a"), ("text", "b")] == peer.frames()

    def test_send_subclasses(self) -> None:
        """
        Subclasses of str, bytes and int do what these do: Django's SafeString, an IntEnum of close codes.
        """

        class Text(str):
            __slots__ = ()

        class Bytes(bytes):
            __slots__ = ()

        class Code(IntEnum):
            AWAY = 4001

        call, peer = self.opened(extensions=[DEFLATE], subprotocols=["chat"])
        call.send({"type": "websocket.send", "text": Text("zoë")}, {"type": "websocket.send", "bytes": Bytes(b"zo")})
        call.send({"type": "websocket.close", "code": Code.AWAY, "reason": Text("é")})
        assert peer.frames() == [("text", "zoë"), ("bytes", b"zo"), ("close", (4001, "é"))]

        call, peer = self.opened()
        call.send({"type": "websocket.send", "text": Text("zoë")}, {"type": "websocket.send", "bytes": Bytes(b"zo")})
        assert peer.frames() == [("text", "zoë"), ("bytes", b"zo")]

    def test_send_of_every_length(self) -> None:
        """
        Messages at the boundaries of the three forms of a length arrive whole (RFC 6455 section 5.2).
        """
        call, peer = self.opened()
        for size in (125, 126, 127, 65535, 65536, 200_000):
            call.send({"type": "websocket.send", "bytes": bytes(range(256)) * (size // 256) + bytes(size % 256)})
            ((kind, value),) = peer.frames()
            assert (kind, len(value)) == ("bytes", size)
            assert value[:256] == bytes(range(256))[:size] or size < 256

    def test_wrong_send(self) -> None:
        """
        A send with both, with none or with the wrong type raises, sends nothing, and the connection stays open.
        """
        call, peer = self.opened()
        for wrong in (
            {"text": "a", "bytes": b"a"},
            {},
            {"text": None, "bytes": None},
            {"text": b"a"},
            {"bytes": "a"},
            {"text": 1},
            {"text": "\ud800"},
        ):
            error = raised(call, {"type": "websocket.send", **wrong})
            assert isinstance(error, (ApplicationError, UnicodeEncodeError)), (wrong, error)
        for wrong in ({"type": "http.response.body", "body": b""}, {"type": "nothing"}, {"text": "a"}):
            assert isinstance(raised(call, wrong), ApplicationError), wrong
        assert peer.frames() == []

        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_receive(self) -> None:
        """
        Text and bytes reach the application as such, in their order, empty ones too.
        """
        call, peer = self.opened()
        peer.send_raw(text("zoë €") + frame(BINARY, b"\x00\xff") + text("") + frame(BINARY) + text("end"))

        expected = [("text", "zoë €"), ("bytes", b"\x00\xff"), ("text", ""), ("bytes", b""), ("text", "end")]
        assert expected == [content(call.receive()) for _ in range(5)]

    def test_receive_waits(self) -> None:
        """
        receive() waits for a message; of two that wait, one gets it.
        """
        call, peer = self.opened()
        first, second = call.receiving(), call.receiving()
        assert not first.done() and not second.done()

        peer.send_raw(text("a"))
        assert sorted([first.done(), second.done()], reverse=True) == [True, False]
        peer.send_raw(text("b"))
        assert sorted(content(task.result()) for task in (first, second)) == [("text", "a"), ("text", "b")]

    def test_cancelled_receive_loses_nothing(self) -> None:
        """
        A receive() that was cancelled takes no message with it.
        """
        call, peer = self.opened()
        waiting = call.receiving()
        waiting.cancel()
        peer.send_raw(text("a"))
        assert content(call.receive()) == ("text", "a")

        # Cancelled in the turn in which the message comes.
        waiting = call.receiving()
        self.rig.loop.call_soon(waiting.cancel)
        peer.send_raw(text("b"))
        got = [] if waiting.cancelled() else [content(waiting.result())]
        assert (got or [content(call.receive())]) == [("text", "b")]

    def test_fragments(self) -> None:
        """
        A message in fragments reaches the application as one, control frames between them are served.
        """
        call, peer = self.opened()
        euro = "€".encode()
        peer.send_raw(frame(TEXT, b"a" + euro[:1], fin=False) + frame(PING, b"1") + frame(CONTINUATION, b"", fin=False))
        peer.send_raw(frame(CONTINUATION, euro[1:2], fin=False) + frame(PONG, b"2") + frame(CONTINUATION, euro[2:]))
        peer.send_raw(frame(BINARY, b"x", fin=False) + frame(CONTINUATION, b"y", fin=False) + frame(CONTINUATION))

        assert peer.frames() == [("pong", b"1")]
        assert content(call.receive()) == ("text", "a€")
        assert content(call.receive()) == ("bytes", b"xy")

    def test_large_messages(self) -> None:
        """
        A message far larger than any buffer passes, both ways, whether the application waits for it or comes later.
        """
        call, peer = self.opened()
        large = bytes(range(256)) * 8192
        waiting = call.receiving()
        peer.send_raw(frame(BINARY, large))
        assert content(waiting.result()) == ("bytes", large)

        peer.send_raw(frame(BINARY, large))
        assert content(call.receive()) == ("bytes", large)

        call.send({"type": "websocket.send", "bytes": large})
        assert [("bytes", large)] == peer.frames()

    # Closing

    def test_own_close(self) -> None:
        """
        The application's code and reason reach the client; with the client's answer the connection ends.
        """
        messages: list[tuple[Message, tuple[int, str]]] = [
            ({}, (1000, "")),
            ({"code": 4001}, (4001, "")),
            ({"code": 3000, "reason": "zoë"}, (3000, "zoë")),
            ({"code": 1001, "reason": None}, (1001, "")),
            ({"reason": "bye"}, (1000, "bye")),
        ]
        plain = (1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3999, 4999)
        messages.extend(({"code": code}, (code, "")) for code in plain)
        for message, expected in messages:
            call, peer = self.opened()
            call.send({"type": "websocket.close", **message})
            assert [("close", expected)] == peer.frames()
            assert not peer.closed, "closed before the client could answer"

            peer.send_raw(close(expected[0]))
            assert peer.closed
            assert departure(call.receive())[0] == expected[0]
            call.finish()
            assert peer.frames() == []

    def test_work_after_own_close_goes_on(self) -> None:
        """
        An application that has closed by itself may go on working: it is not cancelled when the client has answered.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.close"})
        peer.send_raw(close(1000))
        peer.leave()
        self.rig.advance(60)

        assert not call.cancelled and not call.ended
        call.finish()

    def test_invalid_close_codes(self) -> None:
        """
        Codes that must not be sent, and what is no code, raise; the connection stays open (RFC 6455 section 7.4).
        """
        call, peer = self.opened()
        for code in (1005, 1006, 1015, 999, 5000, 0, -1, 70000, "1000", 1000.5):
            error = raised(call, {"type": "websocket.close", "code": code})
            assert isinstance(error, ApplicationError), (code, error)
        for reason in (b"bytes", 1):
            error = raised(call, {"type": "websocket.close", "reason": reason})
            assert isinstance(error, ApplicationError), (reason, error)
        assert peer.frames() == []

        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_long_reason(self) -> None:
        """
        A reason is cut to 123 bytes of valid UTF-8, as a control frame has room for 125.
        """
        for reason, expected in (("x" * 123, "x" * 123), ("x" * 124, "x" * 123), ("é" * 100, "é" * 61)):
            call, peer = self.opened()
            call.send({"type": "websocket.close", "code": 4000, "reason": reason})
            assert [("close", (4000, expected))] == peer.frames()

    def test_after_own_close(self) -> None:
        """
        After its close, send() and a second close raise ApplicationError.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.close"})

        for message in ({"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}, ACCEPT):
            assert isinstance(raised(call, message), ApplicationError), message
        peer.send_raw(close(1000))
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ApplicationError)
        assert peer.frames() == [("close", (1000, ""))]

    def test_messages_behind_own_close(self) -> None:
        """
        Messages that cross the application's close hold nothing up: the client's close behind them is seen.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        call.send({"type": "websocket.close"})
        peer.send_raw(frame(BINARY, bytes(1000)) * 1000 + close(1000))

        assert peer.closed and not peer.untaken
        assert departure(call.receive())[0] == 1000

    def test_own_close_with_a_full_queue(self) -> None:
        """
        An application that closes with messages left unread is not kept from the client's close by them.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        peer.send_raw(frame(BINARY, bytes(1000)) * 1000)
        assert peer.untaken
        call.send({"type": "websocket.close", "code": 4000})
        assert peer.frames() == [("close", (4000, ""))]
        peer.send_raw(close(4000))

        assert peer.closed and not peer.untaken
        call.finish()
        assert [("open", self.opened_status), ("close", 4000)] == [(o.kind, o.status) for o in self.rig.outcomes]

    def test_close_handshake_deadline(self) -> None:
        """
        A client that does not answer the close within 10 seconds is dropped.
        """
        call, peer = self.opened(limits=WebSocketOptions(ping_interval_s=0))
        call.send({"type": "websocket.close"})
        self.rig.advance(9)
        assert not peer.closed

        self.rig.advance(2.5)
        assert peer.closed
        departure(call.receive())

    def test_peer_closes(self) -> None:
        """
        The client's close reaches the application with code and reason, is answered with its code, and ends it all.
        """
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999):
            call, peer = self.opened()
            receiving = call.receiving()
            peer.send_raw(close(code, "zoë".encode()))

            assert departure(receiving.result()) == (code, "zoë")
            ((kind, (answer, _)),) = peer.frames()
            assert (kind, answer) == ("close", code)
            assert peer.closed
            call.finish()
            assert peer.frames() == []

    def test_peer_closes_without_code(self) -> None:
        """
        A close without a code is a disconnect 1005 (RFC 6455 section 7.1.5), answered with none or with 1000.
        """
        call, peer = self.opened()
        peer.send_raw(close())

        assert departure(call.receive()) == (1005, "")
        assert peer.frames() in ([("close", (1005, ""))], [("close", (1000, ""))])
        assert peer.closed

    def test_longest_reason_of_the_peer(self) -> None:
        """
        A reason of 123 bytes is the longest there can be, and is passed on whole.
        """
        call, peer = self.opened()
        peer.send_raw(close(4000, b"x" * 123))

        assert departure(call.receive()) == (4000, "x" * 123)
        assert (peer.frames()[0][0], 4000) == ("close", 4000)

    def test_messages_before_the_close(self) -> None:
        """
        Messages that came before the client's close are delivered before the disconnect, those behind it never.
        """
        call, peer = self.opened()
        peer.send_raw(b"".join(map(text, "abc")) + close(4000) + text("behind") + frame(PING))
        peer.send_raw(text("far behind"))

        assert [content(call.receive()) for _ in range(3)] == [("text", "a"), ("text", "b"), ("text", "c")]
        assert [departure(call.receive())[0] for _ in range(2)] == [4000, 4000]
        assert [kind for kind, _ in peer.frames()] == ["close"]

    def test_close_behind_a_full_queue(self) -> None:
        """
        A close behind more messages than may wait is seen when the application has taken them.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        peer.send_raw(text("x") * 50 + close(4000))

        assert [content(call.receive()) for _ in range(50)] == [("text", "x")] * 50
        assert departure(call.receive())[0] == 4000
        assert peer.closed

    def test_peer_leaves(self) -> None:
        """
        A client that leaves without a close is a disconnect 1006, behind the messages that it had sent.
        """
        call, peer = self.opened()
        peer.send_raw(text("last words"))
        peer.leave()

        assert content(call.receive()) == ("text", "last words")
        assert departure(call.receive()) == (1006, "")

    def test_peer_leaves_in_the_middle(self) -> None:
        """
        A client that leaves in the middle of a frame or message is a disconnect 1006, and half a message is no message.
        """
        for half in (frame(TEXT, b"hello")[:-1], frame(TEXT, b"hello", fin=False), header(TEXT, 70000), b"\x81"):
            call, peer = self.opened()
            peer.send_raw(half)
            peer.leave()

            assert departure(call.receive())[0] == 1006

    def test_send_to_nobody(self) -> None:
        """
        send() after the client has left or closed raises ClientDisconnected, an OSError, which is not logged.
        """
        for closed in (False, True):
            call, peer = self.opened()
            if closed:
                peer.send_raw(close(1001))
            peer.leave()
            error = raised(call, {"type": "websocket.send", "text": "x"})
            assert isinstance(error, ClientDisconnected) and isinstance(error, OSError)
            assert departure(call.receive())[0] == (1001 if closed else 1006)
            assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)
            assert isinstance(raised(call, {"type": "websocket.close"}), (ClientDisconnected, type(None)))
            call.fail(error)

    def test_exception_because_of_the_disconnect(self) -> None:
        """
        An exception that was raised because of ClientDisconnected is not logged either; another one is.
        """
        for cause, count in ((True, 0), (False, 1)):
            call, peer = self.opened()
            peer.leave()
            error = ValueError("broken")
            if cause:
                error.__cause__ = raised(call, {"type": "websocket.send", "text": "x"})
            call.fail(error)
            assert count == len(self.faults())

    def test_every_receive_hears_of_the_disconnect(self) -> None:
        """
        Each receive() that waits gets the disconnect, and so does each later one.
        """
        call, peer = self.opened()
        waiting = [call.receiving() for _ in range(3)]
        peer.send_raw(close(4321, b"off"))

        assert [departure(task.result()) for task in waiting] == [(4321, "off")] * 3
        assert [departure(call.receive()) for _ in range(3)] == [(4321, "off")] * 3

    def test_receive_in_a_loop_lets_others_run(self) -> None:
        """
        An application that calls receive() on and on after the disconnect does not keep the loop from others.
        """
        turns = 0
        seen = []

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def application(scope: Any, receive: Receive, send: Send) -> None:
            await receive()
            await send(ACCEPT)
            work = asyncio.get_running_loop().create_task(others())
            while (await receive())["type"] != "websocket.disconnect":
                pass
            for _ in range(1000):
                await receive()
                seen.append(turns)
            work.cancel()

        peer = self.peer(application)
        peer.open()
        if peer.status is None:
            self.rig.settle_threads(lambda: peer.status is not None)
        peer.leave()
        self.settle_until(lambda: len(seen) == 1000)

        assert len(set(seen)) > 100

    # The application's end

    def test_exception_while_open(self) -> None:
        """
        An exception while the connection is open closes it with 1011, and is logged once with its traceback.
        """
        call, peer = self.opened()
        call.fail(ValueError("secret"))

        ((kind, (code, reason)),) = peer.frames()
        assert (kind, code) == ("close", 1011) and "secret" not in reason
        peer.send_raw(close(1011))
        assert peer.closed
        assert [ValueError] == [record.exc_info[0] for record in self.faults() if record.exc_info]

    def test_return_while_open(self) -> None:
        """
        An application that returns while the connection is open closes it with 1000, and nothing is logged.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.send", "text": "bye"})
        call.finish()

        assert peer.frames() == [("text", "bye"), ("close", (1000, ""))]
        peer.send_raw(close(1000))
        assert peer.closed

    def test_exception_after_own_close(self) -> None:
        """
        An exception after the application's close is logged once, and adds nothing on the wire.
        """
        call, peer = self.opened()
        call.send({"type": "websocket.close", "code": 4000})
        call.fail(ValueError("late"))
        peer.send_raw(close(4000))

        assert peer.frames() == [("close", (4000, ""))]
        assert len(self.faults()) == 1

    def test_drain(self) -> None:
        """
        When the server goes away the client gets a close 1012, and with its answer the connection ends.
        """
        call, peer = self.opened()
        gone: list[bool] = []
        self.rig.front.drain(lambda: gone.append(True))
        self.rig.settle()

        ((kind, (code, _)),) = peer.frames()
        assert (kind, code) == ("close", 1012) and not gone
        peer.send_raw(close(1012))
        assert departure(call.receive())[0] == 1012
        call.finish()
        assert peer.closed
        assert [("open", self.opened_status), ("close", 1012)] == [(o.kind, o.status) for o in self.rig.outcomes]

    def test_drain_while_sending(self) -> None:
        """
        An application that goes on sending when the server goes away hears that the client is gone; nothing is logged.
        """
        call, peer = self.opened()
        self.rig.front.drain(lambda: None)
        self.rig.settle()
        error = raised(call, {"type": "websocket.send", "text": "x"})
        assert isinstance(error, ClientDisconnected)
        call.fail(error)
        peer.send_raw(close(1012))

        assert [kind for kind, _ in peer.frames()] == ["close"]
        assert peer.closed

    def test_drain_before_accept(self) -> None:
        """
        A handshake that is not decided when the server goes away does not stay open for long when it is accepted.
        """
        call, peer = self.asked()
        self.rig.front.drain(lambda: None)
        self.rig.settle()
        if peer.status is None:
            raised(call, ACCEPT)
            self.rig.settle()

        refused = peer.status is not None and peer.status >= 400
        assert refused or [(kind, value[0]) for kind, value in peer.frames()] == [("close", 1012)]

    def test_outcomes(self) -> None:
        """
        A WebSocket is reported when it opens and when it ends, with the close code and the bytes of its messages.
        """

        def own_close(call: Call, peer: WebSocketPeer) -> None:
            call.send({"type": "websocket.close", "code": 4002})
            peer.send_raw(close(4002))

        def returned(call: Call, peer: WebSocketPeer) -> None:
            call.finish()
            peer.send_raw(close(1000))

        def failed(call: Call, peer: WebSocketPeer) -> None:
            call.fail(ValueError())
            peer.send_raw(close(1011))

        endings: list[tuple[Callable[[Call, WebSocketPeer], None], int]] = [
            (lambda call, peer: peer.send_raw(close(4001)), 4001),
            (lambda call, peer: peer.send_raw(close()), 1005),
            (lambda call, peer: peer.leave(), 1006),
            (lambda call, peer: peer.send_raw(frame(3)), 1002),
            (own_close, 4002),
            (returned, 1000),
            (failed, 1011),
        ]
        for end, code in endings:
            call, peer = self.opened()
            call.send({"type": "websocket.send", "text": "12345"}, {"type": "websocket.send", "bytes": b"678"})
            assert [("open", self.opened_status)] == [(o.kind, o.status) for o in self.rig.outcomes]
            end(call, peer)
            peer.leave()
            if not call.ended:
                departure(call.receive())
                call.finish()
            assert [("open", self.opened_status), ("close", code)] == [(o.kind, o.status) for o in self.rig.outcomes]
            assert self.rig.outcomes[-1].size == 8
        self.faults()

    # What the peer must not do

    def test_wrong_headers(self) -> None:
        """
        A frame that is wrong by its header fails the connection with 1002 before any of its payload has come.
        """
        cases = {
            f"RSV {rsv}, opcode {op}": header(op, 5, rsv=rsv) for rsv in (1, 2, 4, 7) for op in (TEXT, BINARY, PING)
        }
        cases |= {
            f"RSV {rsv} in a continuation": frame(TEXT, b"a", fin=False) + header(0, 5, rsv=rsv) for rsv in (1, 4)
        }
        cases |= {f"reserved opcode {opcode}": header(opcode, 5) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)}
        cases |= {f"not masked, opcode {opcode}": header(opcode, 5, key=None) for opcode in (TEXT, BINARY, PING, CLOSE)}
        cases |= {f"empty, not masked, opcode {opcode}": header(opcode, 0, key=None) for opcode in (TEXT, PONG)}
        cases |= {f"control frame of {n}": header(op, n) for n in (126, 65536) for op in (CLOSE, PING, PONG)}
        cases |= {f"fragmented control frame {op}": header(op, 2, fin=False) for op in (CLOSE, PING, PONG)}
        cases |= {f"continuation of nothing, fin {fin}": header(CONTINUATION, 5, fin=fin) for fin in (True, False)}
        done = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b")
        cases["continuation of what was complete"] = done + header(CONTINUATION, 5)
        cases |= {
            f"opcode {opcode} in a fragmented message": frame(TEXT, b"a", fin=False) + header(opcode, 5)
            for opcode in (TEXT, BINARY)
        }
        cases |= {f"length {n} in 16 bits": header(BINARY, n, form=16) for n in (0, 1, 125)}
        cases |= {f"length {n} in 64 bits": header(BINARY, n, form=64) for n in (0, 126, 65535)}
        cases |= {f"length {n:x}": header(BINARY, n, form=64) for n in (1 << 63, (1 << 64) - 1)}

        assert self.wrong_codes({name: (sent, 1002) for name, sent in cases.items()}) == {}

    def test_wrong_frames(self) -> None:
        """
        So does one that comes whole, with more behind it.
        """
        begun = frame(TEXT, b"a", fin=False)
        cases = {
            "RSV1": frame(TEXT, b"hello", rsv=RSV1),
            "RSV2 and RSV3": frame(BINARY, b"hello", rsv=RSV2 | RSV3),
            "reserved opcode": frame(3, b"hello"),
            "reserved control opcode": frame(11),
            "not masked": header(TEXT, 5, key=None) + b"hello",
            "text in a fragmented message": begun + text("hello"),
            "bytes in a fragmented message": begun + frame(BINARY, b"hello"),
            "text behind a ping in a fragmented message": begun + frame(PING) + text("hello"),
            "continuation of nothing": frame(CONTINUATION, b"hello"),
            "continuation behind a whole message": text("hello") + frame(CONTINUATION, b"hello"),
            "length 5 in 16 bits": header(TEXT, 5, form=16) + masked(b"hello"),
            "length 5 in 64 bits": header(TEXT, 5, form=64) + masked(b"hello"),
            "long ping": frame(PING, bytes(126)),
            "fragmented ping": frame(PING, b"hello", fin=False),
        }
        assert self.wrong_codes({name: (sent + text("behind"), 1002) for name, sent in cases.items()}) == {}

    def test_wrong_header_behind_a_message(self) -> None:
        """
        Messages before a wrong frame, in the same read, are delivered.
        """
        call, peer = self.opened()
        peer.send_raw(text("a") + text("b") + header(TEXT, 3, rsv=RSV2))

        assert [(kind, value[0]) for kind, value in peer.frames()] == [("close", 1002)]
        assert [content(call.receive()) for _ in range(2)] == [("text", "a"), ("text", "b")]
        assert departure(call.receive())[0] in (1002, 1006)
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)

    def test_nothing_is_taken_after_a_failure(self) -> None:
        """
        What comes behind a wrong frame is neither delivered nor answered (RFC 6455 section 7.1.7).
        """
        call, peer = self.opened()
        peer.send_raw(frame(3) + text("behind") + frame(PING, b"behind"))
        peer.send_raw(text("later") + frame(PING, b"later"))
        peer.send_raw(close(1002))

        assert [kind for kind, _ in peer.frames()] == ["close"]
        departure(call.receive())
        assert peer.closed

    def test_wrong_close_frames(self) -> None:
        """
        A close frame of one byte or with a code that must not be sent is answered with 1002 (RFC 6455 section 7.4).
        """
        codes = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
        cases = {f"code {code}": (close(code), 1002) for code in codes}
        cases["one byte"] = (frame(CLOSE, b"\x03"), 1002)
        cases["reason that is no UTF-8"] = (close(1000, b"\xff\xfe"), 1007)
        cases["reason that ends in half a character"] = (close(1000, b"ab\xe2\x82"), 1007)

        assert self.wrong_codes(cases) == {}

    def test_invalid_utf8(self) -> None:
        """
        A text that is no UTF-8 is closed with 1007, in one frame and in fragments (RFC 6455 section 8.1).
        """
        bad = {
            "stray continuation": b"a\x80b",
            "never allowed": b"\xff",
            "overlong": b"\xc0\xaf",
            "overlong of three": b"\xe0\x80\xaf",
            "surrogate": b"\xed\xa0\x80",
            "surrogate pair": b"\xed\xa0\x80\xed\xb0\x80",
            "beyond U+10FFFF": b"\xf4\x90\x80\x80",
            "beyond four bytes": b"\xf8\x88\x80\x80\x80",
            "cut off": b"\xce\xba\xe1\xbd",
            "half, then another": b"\xe2\x82a",
        }
        cases = {name: (frame(TEXT, b"x" + payload), 1007) for name, payload in bad.items()}
        for name, payload in bad.items():
            sent = frame(TEXT, b"x" + payload[:1], fin=False) + frame(CONTINUATION, payload[1:])
            cases[f"{name}, in fragments"] = (sent, 1007)
        cases["a continuation byte after a whole message"] = (text("é") + frame(TEXT, b"\xa9"), 1007)

        assert self.wrong_codes(cases) == {}

    def test_valid_utf8(self) -> None:
        """
        Every character may be sent: NUL, noncharacters, the last one.
        """
        call, peer = self.opened()
        for message in ("\x00", "\x7f\x80", "\ufeff", "\ufffe\uffff", "\U0010ffff", "\ud7ff\ue000", "κόσμε"):
            peer.send_raw(text(message))
            assert content(call.receive()) == ("text", message)

    def test_invalid_utf8_early(self) -> None:
        """
        In a long frame or fragment that is no UTF-8, 1007 comes as soon as the wrong bytes do.
        """
        start = masked(b"x" * 100_000 + b"\xff" + b"x" * 100_000)
        cases = {
            "in a frame": (header(TEXT, 1_000_000) + start, 1007),
            "in a fragment": (header(TEXT, 1_000_000, fin=False) + start, 1007),
            "in a later fragment": (frame(TEXT, b"a", fin=False) + header(CONTINUATION, 1_000_000) + start, 1007),
            "at the end of a fragment that is not the last": (frame(TEXT, b"a\xff", fin=False), 1007),
        }
        wrong = {}
        for name, (sent, code) in cases.items():
            observed = self.close_code(sent)
            if observed != code:
                wrong[name] = observed
        assert wrong == {}

    def test_binary_is_no_text(self) -> None:
        """
        Bytes that are no UTF-8 pass in binary messages, in one frame and in fragments.
        """
        call, peer = self.opened()
        peer.send_raw(frame(BINARY, b"\xff\x80") + frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xc0"))

        assert [content(call.receive()) for _ in range(2)] == [("bytes", b"\xff\x80"), ("bytes", b"\xff\xc0")]

    # Limits

    def test_largest_message(self) -> None:
        """
        A message of exactly max_size passes, in one frame, in fragments and deflated.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_size=1000), extensions=[DEFLATE])
        peer.send_raw(frame(BINARY, bytes(1000)))
        peer.send_raw(frame(BINARY, bytes(600), fin=False) + frame(CONTINUATION, bytes(400)))
        peer.send_raw(frame(BINARY, deflate(bytes(1000)), rsv=RSV1))
        # The limit is of bytes.
        peer.send_raw(text("é" * 500))

        assert [("bytes", bytes(1000))] * 3 + [("text", "é" * 500)] == [content(call.receive()) for _ in range(4)]

    def test_too_big(self) -> None:
        """
        A frame, or fragments, that announce more than max_size are closed with 1009 before the payload comes.
        """
        some = frame(BINARY, bytes(600), fin=False)
        cases = {
            "frame": header(BINARY, 1001),
            "whole frame": frame(BINARY, bytes(1001)),
            "whole text": frame(TEXT, b"a" * 1001) + text("behind"),
            "text": header(TEXT, 1001),
            "huge frame": header(BINARY, (1 << 63) - 1),
            "first fragment": header(BINARY, 1001, fin=False),
            "second fragment": some + header(CONTINUATION, 401),
            "second huge fragment": some + header(CONTINUATION, 1 << 62, fin=False),
            "many fragments": some + frame(CONTINUATION, bytes(4), fin=False) * 100 + header(CONTINUATION, 1),
        }
        limits = WebSocketOptions(max_size=1000)

        assert self.wrong_codes({name: (sent, 1009) for name, sent in cases.items()}, limits=limits) == {}

    def test_default_limit(self) -> None:
        """
        Without more, a message may have 16 MiB.
        """
        assert self.close_code(header(BINARY, 16 * MIB + 1)) == 1009
        _, peer = self.opened()
        peer.send_raw(header(BINARY, 16 * MIB))
        assert peer.frames() == [] and not peer.closed

    def test_too_big_inflated(self) -> None:
        """
        A message that inflates to more than max_size is closed with 1009.
        """
        squeezed = deflate(bytes(1001))
        cases = {
            "frame": (frame(BINARY, squeezed, rsv=RSV1), 1009),
            "fragments": (frame(BINARY, squeezed[:5], fin=False, rsv=RSV1) + frame(CONTINUATION, squeezed[5:]), 1009),
            "text": (frame(TEXT, deflate(b"a" * 1001), rsv=RSV1), 1009),
        }
        assert self.wrong_codes(cases, limits=WebSocketOptions(max_size=1000), extensions=[DEFLATE]) == {}

    def test_deflate_bomb(self) -> None:
        """
        A frame of 1 MiB that would inflate to 1 GiB is closed with 1009, and takes no more memory than max_size does.
        """
        compressor = zlib.compressobj(wbits=-15, level=9)
        # A whole piece after another, each in a context of its own.
        piece = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
        bomb = frame(BINARY, piece * 1024, rsv=RSV1)
        assert len(bomb) < 2 * MIB
        call, peer = self.opened(limits=WebSocketOptions(max_size=4 * MIB), extensions=[DEFLATE])
        tracemalloc.start()
        try:
            peer.send_raw(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert [(kind, value[0]) for kind, value in peer.frames()] == [("close", 1009)]
        assert peak < 24 * MIB
        departure(call.receive())

    # Ping and pong

    def test_ping(self) -> None:
        """
        A ping is answered with its payload, though the application does nothing.
        """
        _, peer = self.opened()
        for payload in (b"", b"hello", b"\xff" * 125):
            peer.send_raw(frame(PING, payload))
            assert [("pong", payload)] == peer.frames()

    def test_unsolicited_pong(self) -> None:
        """
        A pong that nobody asked for is ignored (RFC 6455 section 5.5.3).
        """
        call, peer = self.opened()
        peer.send_raw(frame(PONG, b"hello") + frame(PONG) + text("a"))

        assert peer.frames() == []
        assert content(call.receive()) == ("text", "a")

    def test_ping_flood(self) -> None:
        """
        While the client reads nothing, its pings are not taken without end.
        """
        _, peer = self.opened()
        peer.clog()
        peer.send_raw(frame(PING, bytes(125)) * 40_000)
        assert peer.untaken > 2 * MIB

        last = frame(PING, b"last")
        peer.send_raw(last)
        peer.unclog()
        self.rig.settle()
        assert not peer.untaken
        assert peer.frames()[-1] == ("pong", b"last")

    def keep_alive(self, peer: WebSocketPeer, seconds: float) -> int:
        """
        Let time pass, a second at a time, and answer every ping; how many there were.
        """
        count = 0
        for _ in range(int(seconds)):
            self.rig.advance(1)
            for kind, payload in peer.frames():
                if kind == "ping":
                    count += 1
                    peer.send_raw(frame(PONG, payload))
        return count

    def test_keepalive(self) -> None:
        """
        The client is pinged every 20 seconds, and stays as long as it answers.
        """
        call, peer = self.opened()
        self.rig.advance(19)
        assert peer.frames() == []

        assert self.keep_alive(peer, 3) == 1
        assert 8 <= self.keep_alive(peer, 200) <= 10
        assert not peer.closed
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_keepalive_without_answer(self) -> None:
        """
        A client that does not answer a ping within 20 seconds is ended: a disconnect 1006.
        """
        call, peer = self.opened()
        receiving = call.receiving()
        self.rig.advance(38)
        assert not peer.closed and not receiving.done()

        self.rig.advance(6)
        assert departure(receiving.result())[0] == 1006
        self.rig.advance(11)
        assert peer.closed
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)
        self.end(call)
        assert (self.rig.outcomes[-1].kind, self.rig.outcomes[-1].status) == ("close", 1006)

    def test_keepalive_options(self) -> None:
        """
        Interval and timeout can be set; an interval of 0 is no pings, a timeout of 0 no end without an answer.
        """
        _, peer = self.opened(limits=WebSocketOptions(ping_interval_s=0))
        self.rig.advance(120)
        assert peer.frames() == [] and not peer.closed

        _, peer = self.opened(limits=WebSocketOptions(ping_interval_s=5, ping_timeout_s=3))
        self.rig.advance(6.5)
        assert [kind for kind, _ in peer.frames()] == ["ping"]
        self.rig.advance(4.5)
        assert peer.closed

        _, peer = self.opened(limits=WebSocketOptions(ping_interval_s=5, ping_timeout_s=0))
        self.rig.advance(60)
        assert not peer.closed

    def test_slow_application_is_no_dead_peer(self) -> None:
        """
        A client whose pong waits behind messages that the application does not take is not ended for it.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=2))
        peer.send_raw(frame(BINARY, bytes(1000)) * 1000)
        assert peer.untaken
        self.keep_alive(peer, 70)
        assert not peer.closed

        for _ in range(1000):
            assert content(call.receive()) == ("bytes", bytes(1000))
        self.keep_alive(peer, 70)
        assert not peer.closed
        call.send({"type": "websocket.send", "text": "still here"})
        assert peer.frames() == [("text", "still here")]

    def test_keepalive_while_send_waits(self) -> None:
        """
        A client that reads nothing answers no ping either, and is ended for it, though a send() waits.
        """
        call, peer = self.opened()
        peer.clog()
        waiting = call.sending({"type": "websocket.send", "bytes": bytes(MIB)})
        assert not waiting.done()
        self.rig.advance(90)

        assert peer.closed
        assert isinstance(waiting.exception(), (ClientDisconnected, type(None)))
        if not call.ended:
            assert departure(call.receive())[0] == 1006

    # Back pressure

    def test_queue_is_finite(self) -> None:
        """
        What the application does not take stays with the client, and none of it is lost.
        """
        application, peer = self.rationed(WebSocketOptions(max_queue=4))
        for number in range(2000):
            peer.send_raw(text(f"{number:01000}"))
        assert peer.untaken > MIB

        self.take(application, 2000)
        assert list(range(2000)) == [int(value) for _, value in map(content, application.taken)]
        assert not peer.untaken

    def test_queue_of_large_messages_is_finite(self) -> None:
        """
        Of large messages, too, only about max_queue are taken before the application takes them.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=4))
        for _ in range(16):
            peer.send_raw(frame(BINARY, bytes(MIB)))
        assert peer.untaken >= 10 * MIB

        for _ in range(16):
            assert content(call.receive()) == ("bytes", bytes(MIB))
        assert not peer.untaken

    def test_queue_is_finite_in_bytes(self) -> None:
        """
        Of large messages fewer than max_queue are taken ahead: what waits is counted in bytes, too.
        """
        call, peer = self.opened(limits=WebSocketOptions(max_queue=32))
        for _ in range(24):
            peer.send_raw(frame(BINARY, bytes(MIB)))
        assert peer.untaken >= 16 * MIB

        for _ in range(24):
            assert content(call.receive()) == ("bytes", bytes(MIB))
        assert not peer.untaken

    def test_many_messages_in_one_read(self) -> None:
        """
        Of 10,000 messages in one read about max_queue are parsed before the application takes them: a ping behind
        them is not answered until then.
        """
        application, peer = self.rationed(WebSocketOptions(max_queue=4))
        peer.send_raw(b"".join(text(f"{number}") for number in range(10_000)) + frame(PING, b"end"), 1 << 20)
        assert peer.frames() == []

        self.take(application, 9900)
        assert peer.frames() == []
        self.take(application, 100)
        assert list(range(10_000)) == [int(value) for _, value in map(content, application.taken)]
        assert peer.frames() == [("pong", b"end")]

    def test_send_waits(self) -> None:
        """
        send() waits while the client reads nothing, and everything arrives in its order when it reads on.
        """
        call, peer = self.opened()
        peer.clog()
        messages = [bytes([number]) * 16384 for number in range(100)]
        sends = [call.sending({"type": "websocket.send", "bytes": message}) for message in messages]
        assert any(not task.done() for task in sends)
        assert sum(task.done() for task in sends) < 50, "a client that reads nothing is sent to without end"

        peer.unclog()
        self.rig.settle()
        assert all(task.done() for task in sends)
        assert [task.result() for task in sends] == [None] * 100
        assert [("bytes", message) for message in messages] == peer.frames()

    def test_send_that_waits_ends_with_the_client(self) -> None:
        """
        A send() that waits ends when the client leaves, with ClientDisconnected if it raises.
        """
        call, peer = self.opened()
        peer.clog()
        sends = [call.sending({"type": "websocket.send", "bytes": bytes(MIB)}) for _ in range(3)]
        assert not sends[-1].done()
        peer.leave()

        assert all(task.done() for task in sends)
        assert all(isinstance(task.exception(), (ClientDisconnected, type(None))) for task in sends)
        assert isinstance(raised(call, {"type": "websocket.send", "text": "x"}), ClientDisconnected)

    def test_close_behind_what_waits(self) -> None:
        """
        A close behind messages for a client that reads nothing comes behind them when it reads on.
        """
        call, peer = self.opened()
        peer.clog()
        call.sending({"type": "websocket.send", "bytes": bytes(MIB)})
        call.sending({"type": "websocket.close", "code": 4000})
        peer.unclog()
        self.rig.settle()

        assert [("bytes", bytes(MIB)), ("close", (4000, ""))] == peer.frames()
        peer.send_raw(close(4000))
        assert peer.closed

    # permessage-deflate

    def test_deflate(self) -> None:
        """
        With permessage-deflate, messages pass deflated both ways, and plain ones still may come.
        """
        call, peer = self.opened(extensions=[DEFLATE])
        assert [value for name, value in peer.headers if name == b"sec-websocket-extensions"]
        compressor = zlib.compressobj(wbits=-15)
        for message in ("", "a", "zoë", "x" * 100_000, "x" * 100_000):
            peer.send_raw(frame(TEXT, deflate(message.encode(), compressor), rsv=RSV1))
            assert content(call.receive()) == ("text", message)
            call.send(
                {"type": "websocket.send", "text": message}, {"type": "websocket.send", "bytes": message.encode()}
            )
            assert [("text", message), ("bytes", message.encode())] == peer.frames()
        peer.send_raw(text("plain"))
        assert content(call.receive()) == ("text", "plain")
        assert peer.received < 20_000

    def test_deflate_in_fragments(self) -> None:
        """
        A deflated message in fragments has RSV1 on the first alone; control frames between them are plain.
        """
        call, peer = self.opened(extensions=[DEFLATE])
        squeezed = deflate("zoë".encode() * 100)
        sent = frame(TEXT, squeezed[:3], fin=False, rsv=RSV1) + frame(PING, b"p") + frame(CONTINUATION, fin=False)
        sent += frame(CONTINUATION, squeezed[3:4], fin=False) + frame(CONTINUATION, squeezed[4:])
        for read_bytes in (65536, 1):
            peer.send_raw(sent, read_bytes)
            assert content(call.receive()) == ("text", "zoë" * 100)
            assert peer.frames() == [("pong", b"p")]

    def test_deflate_examples(self) -> None:
        """
        The examples of RFC 7692 section 7.2.3 are understood, one after the other.
        """
        call, peer = self.opened(extensions=[DEFLATE])
        for squeezed in (
            "f248cdc9c90700",
            "f200110000",
            "000500faff48656c6c6f00",
            "f248050000 00ffffcac9c90700",
            "f348cdc9c9070000",
            "f248cdc9c90700",
        ):
            peer.send_raw(frame(TEXT, bytes.fromhex(squeezed), rsv=RSV1))
            assert content(call.receive()) == ("text", "Hello"), squeezed
        # Section 7.2.3.6: an empty message.
        peer.send_raw(frame(TEXT, b"\x00", rsv=RSV1) + frame(BINARY, b"\x00", rsv=RSV1))
        assert [content(call.receive()), content(call.receive())] == [("text", ""), ("bytes", b"")]

    def test_deflate_without_context(self) -> None:
        """
        Asked for no context takeover, the server says so and starts each message anew, and so may the client.
        """
        offer = f"{DEFLATE}; server_no_context_takeover; client_no_context_takeover"
        call, peer = self.opened(extensions=[offer])
        (answer,) = [value for name, value in peer.headers if name == b"sec-websocket-extensions"]
        assert b"server_no_context_takeover" in answer
        message = "".join(chr(0x100 + n * 7919 % 5000) for n in range(2000))
        for _ in range(3):
            call.send({"type": "websocket.send", "text": message})
            assert [("text", message)] == peer.frames()
            peer.send_raw(frame(TEXT, deflate(message.encode()), rsv=RSV1))
            assert content(call.receive()) == ("text", message)

    def test_deflate_with_small_window(self) -> None:
        """
        Asked for a small window, the server says so and keeps to it (RFC 7692 section 7.1.2.1).
        """
        call, peer = self.opened(extensions=[f"{DEFLATE}; server_max_window_bits=9"])
        noise = b"".join(struct.pack("!I", n * 2654435761 % (1 << 32)) for n in range(500))
        call.send({"type": "websocket.send", "bytes": noise * 20})

        assert [("bytes", noise * 20)] == peer.frames()

    def test_deflate_off(self) -> None:
        """
        Switched off, permessage-deflate is not agreed to, and RSV1 is a protocol error.
        """
        limits = WebSocketOptions(deflate=False)
        _, peer = self.opened(limits=limits, extensions=[DEFLATE])
        assert not [value for name, value in peer.headers if name == b"sec-websocket-extensions"]

        sent = frame(TEXT, deflate(b"x"), rsv=RSV1)
        assert self.close_code(sent, limits=limits, extensions=[DEFLATE]) == 1002

    def test_wrong_deflate(self) -> None:
        """
        RSV bits where they have no meaning are 1002, corrupt deflate and deflated text that is no UTF-8 are 1007.
        """
        corrupt = b"\x07\xff\xff\xff\xff"
        cases = {
            "RSV1 in a continuation": (frame(TEXT, b"a", fin=False) + header(CONTINUATION, 5, rsv=RSV1), 1002),
            "RSV1 in a ping": (header(PING, 5, rsv=RSV1), 1002),
            "RSV1 in a close": (header(CLOSE, 2, rsv=RSV1), 1002),
            "RSV2": (header(TEXT, 5, rsv=RSV1 | RSV2), 1002),
            "RSV3": (header(TEXT, 5, rsv=RSV3), 1002),
            "corrupt": (frame(BINARY, corrupt, rsv=RSV1), 1007),
            "corrupt in fragments": (frame(BINARY, corrupt[:1], fin=False, rsv=RSV1) + frame(0, corrupt[1:]), 1007),
            "no UTF-8": (frame(TEXT, deflate(b"abc\xff"), rsv=RSV1), 1007),
            "half a character": (frame(TEXT, deflate(b"abc\xe2\x82"), rsv=RSV1), 1007),
        }
        assert self.wrong_codes(cases, extensions=[DEFLATE]) == {}

    def test_invalid_utf8_deflated_early(self) -> None:
        """
        A deflated fragment that holds no UTF-8 is closed with 1007 before the message ends.
        """
        squeezed = deflate(b"\xff" + bytes(range(128)) * 100)
        assert self.close_code(frame(TEXT, squeezed, fin=False, rsv=RSV1), extensions=[DEFLATE]) == 1007
