"""
A WebSocket client over HTTP/2 (RFC 8441), for `conform.websocket`: h2 reads the answer, wsproto the frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from txasgi.seam import Field
from txasgi.testing.conform.websocket_peer import Frame
from txasgi.testing.h2_client import H2Client, Hold
from txasgi.testing.h2_crowd import crowd
from txasgi.testing.h2_stream import ClientStream
from txasgi.testing.rig import Rig
from txasgi.testing.websocket_frames import FrameReader

Leaving = Literal["cancel", "end", "loss"]
"""
How a client is gone: by RST_STREAM CANCEL, by END_STREAM without a close frame, or with its connection.
"""


class H2WebSocketPeer:
    """
    One client; `WebSocketPeer` tells what its calls do.

    leaving: what `leave` does.
    hold: how `clog` stops reading.
    crowded: the connection has other streams, which stand still; the Rig needs `beside`.
    """

    multiplexed = True

    def __init__(self, rig: Rig, leaving: Leaving = "cancel", hold: Hold = "transport", crowded: bool = False) -> None:
        self.rig = rig
        self._leaving = leaving
        self._hold: Hold = hold
        self._crowded = crowded
        self._connection: H2Client | None = None
        self._stream: ClientStream | None = None
        self._frames: FrameReader | None = None

    @property
    def _connected(self) -> tuple[H2Client, ClientStream]:
        assert self._connection is not None and self._stream is not None, "open() comes first"
        return self._connection, self._stream

    @property
    def status(self) -> int | None:
        """
        Of the answer.
        """
        return self._read().answer.status or None

    @property
    def headers(self) -> list[Field]:
        """
        Of the answer.
        """
        return self._read().answer.headers

    @property
    def body(self) -> bytes:
        """
        Of an answer that refuses.
        """
        stream = self._read()
        return stream.body() if self._frames is None else b""

    @property
    def complete(self) -> bool:
        """
        An answer that refuses is whole.
        """
        stream = self._read()
        return self._frames is None and stream.answer.complete and not stream.answer.reset

    @property
    def closed(self) -> bool:
        """
        The server has ended the stream, or all of the connection.
        """
        connection, _ = self._connected
        return self._read().over or connection.ended

    @property
    def alive(self) -> bool:
        """
        Another stream may be opened.
        """
        connection, _ = self._connected
        self._read()
        return connection.alive

    @property
    def untaken(self) -> int:
        """
        Bytes that wait for the server's windows.
        """
        connection, _ = self._connected
        return 0 if self.closed else self._read().untaken + connection.pending

    @property
    def received(self) -> int:
        """
        Bytes of all frames.
        """
        self._read()
        return self._frames.received if self._frames is not None else 0

    def open(
        self,
        target: bytes = b"/",
        headers: Iterable[Field] = (),
        subprotocols: Iterable[str] = (),
        extensions: Iterable[str] = (),
        secure: bool = False,
    ) -> None:
        """
        Extended CONNECT (RFC 8441 section 4), once the server has said that it may come.
        """
        connection = self._connection = H2Client(self.rig, hold=self._hold, secure=secure)
        assert connection.h2.remote_settings.enable_connect_protocol == 1
        if self._crowded:
            crowd(connection)
        fields = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https" if secure else b"http"),
            (b":authority", b"example.com"),
            (b":path", target),
            (b"sec-websocket-version", b"13"),
            *headers,
        ]
        offered = ", ".join(subprotocols)
        if offered:
            fields.append((b"sec-websocket-protocol", offered.encode()))
        fields += [(b"sec-websocket-extensions", extension.encode()) for extension in extensions]
        self._stream = connection.open(fields, end=False)

    def send_raw(self, data: bytes, read_bytes: int = 65536) -> None:
        """
        Send frames, in DATA of that size at most; ignored once the server has ended the stream.
        """
        connection, stream = self._connected
        if not self.closed:
            connection.send(stream, data, read_bytes)

    def frames(self) -> list[Frame]:
        """
        What came; taken.
        """
        self._read()
        return self._frames.take() if self._frames is not None else []

    def leave(self) -> None:
        """
        RST_STREAM, END_STREAM or connectionLost.
        """
        connection, stream = self._connected
        if self._leaving == "loss":
            connection.leave()
        elif self._leaving == "cancel":
            connection.reset(stream)
        else:
            connection.send(stream, end=True)

    def clog(self) -> None:
        """
        Read nothing any more.
        """
        connection, _ = self._connected
        connection.clog()

    def unclog(self) -> None:
        """
        Read on.
        """
        connection, _ = self._connected
        connection.unclog()

    def _read(self) -> ClientStream:
        connection, stream = self._connected
        connection.read()
        # Only 2xx opens a tunnel (RFC 9110 section 9.3.6).
        if self._frames is None and 200 <= stream.answer.status < 300:
            self._check(stream.answer.headers)
            self._frames = FrameReader(stream.answer.headers)
        if self._frames is not None:
            self._frames.read(stream.take())
        return stream

    def _check(self, headers: list[Field]) -> None:
        names = {name for name, _ in headers}
        # RFC 8441 section 5, RFC 9110 section 9.3.6.
        assert not names & {b"sec-websocket-accept", b"upgrade", b"connection", b"content-length"}
