"""
Frames of an open WebSocket: bytes in, messages out, and back. The only door to Autobahn.

Theory of operation. A WebSocket enters here already open; Autobahn's handshake never runs (rebuilding the request as
bytes for its parser became CVE-2026-44546 elsewhere). The common frame, one that is a whole text or binary message,
masked, not compressed, complete in the buffer, is taken straight from the buffer by position. Any other frame is handed
to Autobahn, one at a time and as it arrives: fragmentation, control frames, the closing handshake, inflation and every
check of RFC 6455 are Autobahn's. One at a time, because Autobahn copies what is behind a frame for each frame.

When the listener says that it is behind, the rest of the bytes stays here unread, so that one read full of small frames
cannot flood it.

Autobahn takes 0.2 s to import: `load()` does that, once, and may run in a thread.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from txasgi.ws.handshake import Deflate

_FIN_TEXT, _FIN_BINARY = 0x81, 0x82
_PING = 0x9
_RSV1 = 0x40
# Below this an integer XOR is cheaper than preparing Autobahn's C masker (0.8 microseconds); measured.
_SMALL_BYTES = 128
_JOIN_BYTES = 65536
# zlib's memLevel to go with a window of 2 ** 12, as the websockets library has it.
_DEFLATE_MEMORY_LEVEL = 5

_machine: Any = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """
    max_size: the largest message, and frame, in bytes after inflation.
    """

    # Uvicorn, websockets and gunicorn: 16 MiB; Daphne 1 MiB; Autobahn has no limit unless told.
    max_size: int = 16 * 1024 * 1024


class Listener(Protocol):
    """
    Whom an engine tells.
    """

    def message(self, payload: str | bytes) -> None:
        """
        A whole message.
        """

    def pong(self, payload: bytes) -> None:
        """
        A pong.
        """

    def closed(self, code: int, reason: str) -> None:
        """
        The WebSocket is closed, or failed: nothing more comes, and nothing can be sent.

        code: the peer's close code, 1005 if it gave none; what we failed the connection with otherwise.
        """


def loaded() -> bool:
    """
    Whether an Engine can be made.
    """
    return _machine is not None


def load() -> None:
    """
    Import Autobahn.
    """
    global _machine
    from txasgi.ws import machine

    _machine = machine


def truncated_reason(reason: str) -> bytes:
    """
    A close reason as UTF-8, cut to the 123 bytes that fit a control frame, between characters.
    """
    return reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore").encode()


def frame(first: int, payload: bytes) -> bytes:
    """
    A frame from the server, which is not masked (RFC 6455 section 5.2). first: FIN, RSV bits and opcode.
    """
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


class Engine:
    """
    One open WebSocket.

    write: bytes to the peer.
    paused: set by the listener while it is behind; `resume()` goes on.
    """

    __slots__ = (
        "_closed",
        "_deflate",
        "_header",
        "_left",
        "_listener",
        "_machine",
        "_options",
        "_unread",
        "_write",
        "paused",
    )

    def __init__(
        self,
        write: Callable[[bytes], None],
        listener: Listener,
        options: EngineOptions,
        deflate: Deflate | None = None,
    ) -> None:
        self._write = write
        self._listener: Any = listener
        self._options = options
        self._deflate: Any = None
        # The machine is made for the first frame that needs it.
        self._machine: Any = None
        if deflate is not None:
            self._deflate = _machine.inflater(deflate, _DEFLATE_MEMORY_LEVEL)
            self._machine = _machine.FrameMachine(self, options.max_size, self._deflate)
        # Bytes not looked at; the header of the frame that goes to Autobahn; how much of its payload is to come.
        self._unread = b""
        self._header = b""
        self._left = 0
        self._closed = False
        self.paused = False

    # In

    def receive(self, data: bytes) -> None:
        """
        Bytes from the peer.
        """
        if self._unread:
            data = self._unread + data
            self._unread = b""
        at, end = 0, len(data)
        limit = self._options.max_size
        machine = self._machine
        while at < end and not self._closed:
            if self.paused:
                self._unread = data[at:]
                return
            first = data[at]
            if (
                (first == _FIN_TEXT or first == _FIN_BINARY)
                and end - at > 5
                and not self._left
                and not self._header
                and (machine is None or not machine.inside_message)
            ):
                size = data[at + 1]
                begin = 0
                # Bit 7 is the mask, which must be there; lengths of 8 bytes are left to Autobahn.
                if 128 <= size < 254:
                    size -= 128
                    begin = at + 6
                elif size == 254:
                    size = data[at + 2] << 8 | data[at + 3]
                    if size > 125:
                        begin = at + 8
                stop = begin + size
                if begin and stop <= end and size <= limit:
                    if self._whole(first, data[begin - 4 : begin], data[begin:stop], size):
                        at = stop
                        continue
            at = self._to_machine(data, at, end)
            machine = self._machine

    def _whole(self, first: int, mask: bytes, payload: bytes, size: int) -> bool:
        """
        A whole message in one frame; False leaves it to Autobahn to say what is wrong.
        """
        message: str | bytes
        if size < _SMALL_BYTES:
            key = int.from_bytes((mask * ((size >> 2) + 1))[:size], "little")
            payload = (int.from_bytes(payload, "little") ^ key).to_bytes(size, "little")
        else:
            payload = _machine.unmasked(mask, payload)
        if first == _FIN_BINARY:
            message = payload
        else:
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                return False
        self._listener.message(message)
        return True

    def _to_machine(self, data: bytes, at: int, end: int) -> int:
        """
        Hand bytes of one frame to Autobahn: what is there of its header, or of its payload. Returns how far.
        """
        machine = self._machine
        if machine is None:
            machine = self._machine = _machine.FrameMachine(self, self._options.max_size, None)
        if self._left:
            stop = min(end, at + self._left)
            self._left -= stop - at
            machine.feed(data[at:stop])
            return stop
        header = self._header + data[at : at + 14]
        need = _header_bytes(header)
        before = len(self._header)
        if len(header) < need:
            self._header = header
            machine.feed(header[before:])
            return end
        self._header = b""
        self._left = _payload_bytes(header)
        machine.feed(header[before:need])
        return at + need - before

    def resume(self) -> None:
        """
        The listener caught up: go on with what is unread.
        """
        self.paused = False
        if self._unread and not self._closed:
            unread, self._unread = self._unread, b""
            self.receive(unread)

    # Out

    def send(self, payload: str | bytes) -> int:
        """
        A message, text or binary. Returns its size in bytes.
        """
        if isinstance(payload, str):
            first, data = _FIN_TEXT, payload.encode()
        else:
            first, data = _FIN_BINARY, payload
        size = len(data)
        deflate = self._deflate
        if deflate is not None:
            deflate.start_compress_message()
            data = deflate.compress_message_data(data) + deflate.end_compress_message()
            first |= _RSV1
        self._write(frame(first, data))
        return size

    def ping(self) -> bytes:
        """
        Send a ping; returns its payload, which the pong will bring back.
        """
        payload = os.urandom(4)
        if not self._closed:
            self._write(frame(0x80 | _PING, payload))
        return payload

    def close(self, code: int, reason: str) -> None:
        """
        Begin the closing handshake: send a close frame, wait for the peer's. `Listener.closed` tells the end.
        """
        if self._machine is None:
            self._machine = _machine.FrameMachine(self, self._options.max_size, None)
        self._machine.sendCloseFrame(code, truncated_reason(reason) if reason else None)

    def stop(self) -> None:
        """
        Nothing more goes either way, and nobody is told any more.
        """
        self._closed = True
        self._listener = None
        self._unread = b""
        self._machine = None
        self._deflate = None

    # From the machine

    def write_raw(self, data: bytes) -> None:
        """
        A frame that Autobahn made.
        """
        if not self._closed:
            self._write(data)

    def deliver(self, payload: str | bytes) -> None:
        """
        A message that Autobahn put together.
        """
        if not self._closed:
            self._listener.message(payload)

    def ponged(self, payload: bytes) -> None:
        """
        A pong came.
        """
        if not self._closed:
            self._listener.pong(payload)

    def ended(self, code: int, reason: str) -> None:
        """
        The closing handshake is complete, or the connection failed.
        """
        if not self._closed:
            self._closed = True
            self._unread = b""
            self._listener.closed(code, reason)


def _header_bytes(header: bytes) -> int:
    """
    How long the frame header is that begins like this; 2 as long as that is not known.
    """
    if len(header) < 2:
        return 2
    size = header[1] & 0x7F
    return 2 + (2 if size == 126 else 8 if size == 127 else 0) + (4 if header[1] & 0x80 else 0)


def _payload_bytes(header: bytes) -> int:
    size = header[1] & 0x7F
    if size < 126:
        return size
    return int.from_bytes(header[2 : 4 if size == 126 else 10], "big")
