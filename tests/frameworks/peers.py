"""Independent peers: a TCP connection driven by hand, and what is said on it."""

import socket
import struct
from typing import Self

# Bounds a wait that a right server ends at once. Long, because the machine may be busy.
DEADLINE_S = 10.0


class Dialogue:
    """
    One TCP connection, driven by hand, for what a good HTTP client does not do.

    received: the bytes that have come and that no read_until() has given out.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self._socket = socket.create_connection(address, timeout=DEADLINE_S)
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, sent: bytes) -> None:
        """
        Send these bytes now.
        """
        self._socket.sendall(sent)

    def request(self, method: str, path: str, *fields: str) -> None:
        """
        Send the head of a request.
        """
        self.send("\r\n".join([f"{method} {path} HTTP/1.1", "Host: peer", *fields, "", ""]).encode())

    def send_chunk(self, piece: bytes) -> None:
        """
        Send one chunk of a chunked body; an empty one ends it.
        """
        self.send(b"%x\r\n%s\r\n" % (len(piece), piece))

    def read_until(self, marker: bytes) -> bytes:
        """
        Return everything up to the end of *marker*.
        """
        while marker not in self.received:
            came = self._socket.recv(65536)
            assert came, f"the server closed before {marker!r}, after {self.received!r}"
            self.received += came
        end = self.received.index(marker) + len(marker)
        found, self.received = self.received[:end], self.received[end:]
        return found

    def read_to_end(self) -> bytes:
        """
        Return everything up to the end of the connection.
        """
        while came := self._socket.recv(65536):
            self.received += came
        found, self.received = self.received, b""
        return found

    def leave(self) -> None:
        """
        Close the connection: the server reads an end of file, and resets answer what it still sends.
        """
        self._socket.close()

    def vanish(self) -> None:
        """
        Reset the connection, as a crashed client or an impatient proxy does.
        """
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
