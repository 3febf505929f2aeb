"""
Autobahn's frame machine, entered already open. Imported by `engine.load()`, as importing Autobahn takes a while.
"""

from __future__ import annotations

import codecs
from collections import deque
from typing import Any

from _nvx_xormasker import ffi, lib
from autobahn.websocket.compress_deflate import PerMessageDeflate
from autobahn.websocket.protocol import TrafficStats, WebSocketProtocol, WebSocketServerProtocol

from txasgi.ws.handshake import Deflate

_BYTES = ffi.typeof("uint8_t[]")
_SSE2 = 2

# Registered with IANA as Bad Gateway; Autobahn takes its neighbours only.
if 1014 not in WebSocketProtocol.CLOSE_STATUS_CODES_ALLOWED:
    WebSocketProtocol.CLOSE_STATUS_CODES_ALLOWED.append(1014)


def unmasked(mask: bytes, payload: bytes) -> bytes:
    """
    The payload without its mask, by Autobahn's C code; ours to call, as its Python wrapper copies three times.
    """
    buffer = bytearray(payload)
    masker = lib.nvx_xormask_new(mask)
    lib.nvx_xormask_set_impl(masker, _SSE2)
    lib.nvx_xormask_process(masker, ffi.from_buffer(_BYTES, buffer), len(buffer))
    lib.nvx_xormask_free(masker)
    return bytes(buffer)


class _Deflate(PerMessageDeflate):
    """
    Autobahn's permessage-deflate, that goes on behind a message whose last block has BFINAL (RFC 7692 section 7.2.3.4).
    """

    def start_decompress_message(self) -> None:
        """
        Take a new decompressor where the old one has seen the end of its stream.
        """
        if self._decompressor is not None and self._decompressor.eof:
            self._decompressor = None
        super().start_decompress_message()  # type: ignore[no-untyped-call]  # it has no annotations


def inflater(deflate: Deflate, memory_level: int) -> Any:
    """
    Autobahn's permessage-deflate, as agreed in the handshake.
    """
    return _Deflate(  # type: ignore[no-untyped-call]  # likewise
        True,
        deflate.server_no_context_takeover,
        deflate.client_no_context_takeover,
        deflate.server_window_bits,
        deflate.client_window_bits,
        memory_level,
    )


class _Silent:
    """
    In place of Autobahn's logger: what went wrong is told to the engine.
    """

    def debug(self, *_args: object, **_kwargs: object) -> None:
        """
        Nothing.
        """

    warn = info = error = debug


class _Server:
    """
    In place of Autobahn's factory, of which only this is read.
    """

    isServer = True


class FrameMachine(WebSocketServerProtocol):
    """
    Autobahn's protocol without connection, handshake, timers and logger.

    Its constructor and `_connectionMade` are not run: they cost 170 microseconds, most of it for a debug line. What the
    frame code reads is set here.
    """

    log = _Silent()
    factory = _Server()
    websocket_version = 13
    requireMaskedClientFrames = True
    maskServerFrames = False
    applyMask = True
    # UTF-8 is validated by decoding, which is thirty times as fast.
    utf8validateIncoming = False
    utf8validateIncomingCurrentMessage = False
    trackedTimings: Any = None
    logFrames = logOctets = False
    # "Drop" means here: stop processing. How the connection ends is decided in _fail_connection.
    failByDrop = True
    echoCloseCodeReason = True
    closeHandshakeTimeout = 0
    closeHandshakeTimeoutCall = None
    autoPingTimeoutCall = None
    autoPingPending = None
    failedByMe = False
    closedByMe = False
    wasClean = False
    current_frame: Any = None
    inside_message = False

    def __init__(self, engine: Any, max_size: int, deflate: Any) -> None:
        self._engine = engine
        self.maxMessagePayloadSize = self.maxFramePayloadSize = max_size
        self._perMessageCompress = deflate
        self.trafficStats = TrafficStats()
        self.state = self.STATE_OPEN
        self.data = b""
        self.send_queue: deque[Any] = deque()
        self._buffer = bytearray()
        self._decoder: Any = None

    def feed(self, data: bytes) -> None:
        """
        Bytes of one frame.
        """
        self._dataReceived(data)

    # What Autobahn calls, from here on.

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        self._engine.write_raw(data)

    def _onMessageBegin(self, isBinary: bool) -> None:
        self.message_data_total_length = 0
        self._decoder = None if isBinary else codecs.getincrementaldecoder("utf-8")()
        self._buffer = bytearray()

    def _onMessageFrameBegin(self, length: int) -> None:
        self.onMessageFrameBegin(length)

    def _onMessageFrameData(self, payload: bytes) -> None:
        if self._decoder is not None:
            try:
                self._decoder.decode(payload)
            except UnicodeDecodeError:
                self._invalid_payload("invalid UTF-8")
                return
        self._buffer += payload

    def _onMessageFrameEnd(self) -> None:
        pass

    def _onMessageEnd(self) -> None:
        if self.failedByMe:
            return
        buffer, self._buffer = self._buffer, bytearray()
        if self._decoder is None:
            self._engine.deliver(bytes(buffer))
            return
        try:
            text = buffer.decode()
        except UnicodeDecodeError:
            self._invalid_payload("a text message ends within a character")
        else:
            self._engine.deliver(text)

    def _onPing(self, payload: bytes) -> None:
        self.sendPong(payload)  # type: ignore[no-untyped-call]  # it has no annotations

    def _onPong(self, payload: bytes) -> None:
        self._engine.ponged(payload)

    def _fail_connection(self, code: int = 1001, reason: str = "going away") -> None:
        if not self.failedByMe and self.state != self.STATE_CLOSED:
            self.failedByMe = True
            if self.state == self.STATE_OPEN:
                self.sendCloseFrame(code, reason.encode()[:123])
            self.state = self.STATE_CLOSED
            self._engine.ended(code, reason)

    def dropConnection(self, abort: bool = False) -> None:
        # The closing handshake is complete: the peer's close frame came, and ours is sent.
        if self.state != self.STATE_CLOSED:
            self.state = self.STATE_CLOSED
            code = self.remoteCloseCode
            self._engine.ended(1005 if code is None else code, self.remoteCloseReason or "")
