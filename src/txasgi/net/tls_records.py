"""
The record layer of TLS (RFC 8446 section 5): ciphertext in, plaintext out, and back, by an OpenSSL connection between
two memory BIOs. Knows no transport.

pyOpenSSL's own `recv` and `bio_read` allocate a buffer for each call and end each read with an exception, which makes
a small request and its answer 5 microseconds; calling the same functions of OpenSSL below it takes 1.8. So there are
two classes that do the same: `LeanRecords`, which reaches below pyOpenSSL, and `Records`, which doesn't, for a
pyOpenSSL that is built in another way. `records_for` picks.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

try:
    from OpenSSL._util import ffi, lib
except ImportError:
    ffi = lib = None

# The largest plaintext of a record (RFC 8446 section 5.1).
RECORD_BYTES = 16384
# Read at once; four records.
READ_BYTES = 4 * RECORD_BYTES
# A memory BIO never gives memory back: this is how much ciphertext it is given at once, either way.
FEED_BYTES = 2 * RECORD_BYTES

# What a read ended with: more may be waiting; more ciphertext is wanted; the peer sent close_notify.
MORE, WANTING, ENDED = range(3)


class Records:
    """
    By the public interface of pyOpenSSL.

    connection: an OpenSSL.SSL.Connection without a socket.
    state: what the last `decrypt` ended with.
    """

    __slots__ = ("_connection", "_error", "state")

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        # To be raised when what came before it was returned.
        self._error: SSL.Error | None = None
        self.state = WANTING

    def handshake(self, data: bytes | memoryview) -> bool:
        """
        Go on with the handshake, given more ciphertext. Returns whether it is complete; raises SSL.Error.
        """
        self._feed(data)
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def decrypt(self, data: bytes | memoryview) -> bytes:
        """
        Take ciphertext (FEED_BYTES at most, or b"" to read on) and return what plaintext is whole, READ_BYTES at most.

        Sets `state`. Raises SSL.Error when the peer broke the protocol, not before the plaintext ahead of that was
        returned, with the state MORE.
        """
        if data:
            self._feed(data)
        whole = b""
        self.state = MORE
        try:
            while len(whole) <= READ_BYTES - RECORD_BYTES:
                whole += self._recv()
        except SSL.WantReadError:
            self.state = WANTING
        except SSL.ZeroReturnError:
            self.state = ENDED
        except SSL.Error as error:
            if not whole:
                raise
            self._error = error
        return whole

    def _recv(self) -> bytes:
        self._raise_kept()
        return self._connection.recv(RECORD_BYTES)

    def _raise_kept(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                # It knows this frame by its traceback.
                del error

    def _feed(self, data: bytes | memoryview) -> None:
        if data:
            self._connection.bio_write(data)

    def encrypt(self, data: bytes) -> bytes:
        """
        Plaintext (FEED_BYTES at most) to ciphertext, in front of it what else was waiting to be sent.

        Raises SSL.Error when nothing can be sent any more.
        """
        if data:
            self._connection.sendall(data)
        return self.take()

    def take(self) -> bytes:
        """
        Ciphertext that waits to be sent: a flight of the handshake, an alert, tickets; b"" for none.
        """
        whole = b""
        try:
            while True:
                whole += self._connection.bio_read(READ_BYTES)
        except SSL.WantReadError:
            return whole

    def close(self) -> None:
        """
        Make close_notify, for `take` (RFC 8446 section 6.1). Raises SSL.Error during a handshake.
        """
        self._connection.shutdown()


class LeanRecords(Records):
    """
    By OpenSSL's own functions. buffer: READ_BYTES and some of memory, shared by all that are used in one thread.
    """

    __slots__ = ("_buffer", "_in", "_out", "_ssl")

    def __init__(self, connection: SSL.Connection, buffer: Any) -> None:
        Records.__init__(self, connection)
        self._buffer = buffer
        # Owned by the connection, which we hold.
        self._ssl: Any = connection._ssl
        self._in: Any = connection._into_ssl
        self._out: Any = connection._from_ssl

    def decrypt(self, data: bytes | memoryview) -> bytes:
        """
        As in Records.
        """
        if data:
            _bio_write(self._in, data if data.__class__ is bytes else _from_buffer(data), len(data))
        buffer, ssl = self._buffer, self._ssl
        # Before OpenSSL 4, what others left in the thread's queue of errors is taken for ours.
        _clear_errors()
        size = _ssl_read(ssl, buffer, READ_BYTES)
        if size <= 0:
            self._raise_kept()
            self._ended(size)
            return b""
        while size <= READ_BYTES - RECORD_BYTES:
            more = _ssl_read(ssl, buffer + size, RECORD_BYTES)
            if more <= 0:
                try:
                    self._ended(more)
                except SSL.Error as error:
                    self._error = error
                    self.state = MORE
                break
            size += more
        else:
            self.state = MORE
        plain: bytes = _unpack(buffer, size)
        return plain

    def _ended(self, result: int) -> None:
        reason = _get_error(self._ssl, result)
        if reason == _WANT_READ:
            self.state = WANTING
        elif reason == _ZERO_RETURN:
            self.state = ENDED
        else:
            connection: Any = self._connection
            connection._raise_ssl_error(self._ssl, result)
            raise SSL.Error([])

    def encrypt(self, data: bytes) -> bytes:
        """
        As in Records.
        """
        if data:
            size = len(data)
            done = _ssl_write(self._ssl, data, size)
            while done != size:
                if done <= 0:
                    connection: Any = self._connection
                    connection._raise_ssl_error(self._ssl, done)
                    raise SSL.Error([])
                # A context that writes one record at a time.
                data = data[done:]
                size -= done
                done = _ssl_write(self._ssl, data, size)
        return self.take()

    def take(self) -> bytes:
        """
        As in Records.
        """
        buffer = self._buffer
        size = _bio_read(self._out, buffer, READ_BYTES)
        if size <= 0:
            return b""
        sealed: bytes = _unpack(buffer, size)
        while size == READ_BYTES:
            size = _bio_read(self._out, buffer, READ_BYTES)
            if size > 0:
                sealed += _unpack(buffer, size)
        return sealed


_NEEDED = (
    "BIO_read",
    "BIO_write",
    "ERR_clear_error",
    "SSL_ERROR_WANT_READ",
    "SSL_ERROR_ZERO_RETURN",
    "SSL_get_error",
    "SSL_read",
    "SSL_write",
)
if ffi is not None and all(hasattr(lib, name) for name in _NEEDED):
    _bio_read, _bio_write = lib.BIO_read, lib.BIO_write
    _ssl_read, _ssl_write = lib.SSL_read, lib.SSL_write
    _clear_errors, _get_error = lib.ERR_clear_error, lib.SSL_get_error
    _WANT_READ, _ZERO_RETURN = lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_ZERO_RETURN
    _from_buffer, _unpack = ffi.from_buffer, ffi.unpack
else:
    ffi = None


def new_buffer() -> Any:
    """
    Memory for `records_for`; None where only pyOpenSSL's own interface can be used.
    """
    return ffi.new("char[]", READ_BYTES) if ffi is not None else None


def records_for(connection: SSL.Connection, buffer: Any) -> Records:
    """
    What drives this connection.
    """
    lean = buffer is not None and all(hasattr(connection, name) for name in ("_ssl", "_into_ssl", "_from_ssl"))
    return LeanRecords(connection, buffer) if lean else Records(connection)
