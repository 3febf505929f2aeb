"""
Frames of a WebSocket server, read by wsproto; the same whatever carries them.
"""

from __future__ import annotations

import struct
from typing import Any

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameDecoder, MessageDecoder, Opcode

from txasgi.seam import Field
from txasgi.testing.conform.websocket_peer import Frame


class FrameReader:
    """
    What comes behind an answer that opens a WebSocket.

    answer: header fields of that answer; the extension it agrees to is worn.

    received: bytes so far.
    """

    def __init__(self, answer: list[Field]) -> None:
        self.received = 0
        extensions = []
        if agreed := dict(answer).get(b"sec-websocket-extensions"):
            deflate = PerMessageDeflate()
            deflate.finalize(agreed.decode())
            extensions.append(deflate)
        self._decoder = FrameDecoder(client=True, extensions=[*extensions])
        self._messages = MessageDecoder()
        self._parts: list[Any] = []
        self._frames: list[Frame] = []

    def read(self, data: bytes) -> None:
        """
        Read more.
        """
        self.received += len(data)
        self._decoder.receive_bytes(data)
        while (frame := self._decoder.process_buffer()) is not None:
            payload: Any = frame.payload
            if frame.opcode is Opcode.CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                self._frames.append(("close", (code, bytes(payload[2:]).decode())))
            elif frame.opcode.iscontrol():
                self._frames.append((frame.opcode.name.lower(), payload))
            else:
                frame = self._messages.process_frame(frame)
                self._parts.append(frame.payload)
                if frame.message_finished:
                    is_text = frame.opcode is Opcode.TEXT
                    whole = "".join(self._parts) if is_text else b"".join(self._parts)
                    self._frames.append(("text" if is_text else "bytes", whole))
                    self._parts.clear()

    def take(self) -> list[Frame]:
        """
        `WebSocketPeer.frames`
        """
        frames, self._frames = self._frames, []
        return frames
