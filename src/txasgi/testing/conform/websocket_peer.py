"""
What the tests of WebSocket share: frames, the peer, and the base of each group. Frames are made here, byte by byte,
so that wrong ones can be made too.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from txasgi.asgi.task import Application, Message, Receive, Send
from txasgi.asgi.websocket import WebSocketOptions
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

    multiplexed: the WebSocket shares its connection with others.
    """

    multiplexed: bool

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
    def alive(self) -> bool:
        """
        The connection can carry something further, beside the WebSocket or after it.
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


class WebSocketGroup:
    """
    What the groups of tests share.

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
