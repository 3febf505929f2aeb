"""
The record layer, by pyOpenSSL's interface and below it: the same bytes for both.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from txasgi.net import tls_records
from txasgi.net.tls_records import (
    ENDED,
    FEED_BYTES,
    MORE,
    READ_BYTES,
    RECORD_BYTES,
    WANTING,
    LeanRecords,
    Records,
    new_buffer,
    records_for,
)

Pair = tuple[Records, SSL.Connection]


@pytest.fixture(params=["public", "lean"])
def pair(request: pytest.FixtureRequest, certificate: bytes) -> Pair:
    """
    A server's records and a client, their handshake done.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_privatekey(load_pem_private_key(certificate, None))
    context.use_certificate(x509.load_pem_x509_certificate(certificate))
    server = SSL.Connection(context, None)
    server.set_accept_state()
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    records = LeanRecords(server, new_buffer()) if request.param == "lean" else Records(server)
    complete = False
    while not complete:
        with pytest.raises(SSL.WantReadError):
            client.recv(1)
        complete = records.handshake(client.bio_read(FEED_BYTES))
        client.bio_write(records.take())
    return records, client


def received(client: SSL.Connection) -> bytes:
    whole = b""
    try:
        while True:
            whole += client.recv(READ_BYTES)
    except SSL.WantReadError:
        return whole


def sealed(client: SSL.Connection, data: bytes) -> bytes:
    client.sendall(data)
    return client.bio_read(2 * len(data) + 1000)


def test_lean_where_it_can_be(pair: Pair) -> None:
    """
    The functions below pyOpenSSL are used where they are, and its own interface where not.
    """
    _, client = pair
    assert type(records_for(client, new_buffer())) is LeanRecords
    assert type(records_for(client, None)) is Records


def test_without_the_functions_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without them there is no buffer to share.
    """
    monkeypatch.setattr(tls_records, "ffi", None)
    assert new_buffer() is None


def test_small(pair: Pair) -> None:
    """
    A record in is plaintext out, and the other way, and nothing is left.
    """
    records, client = pair
    assert records.decrypt(sealed(client, b"question")) == b"question"
    assert records.state == WANTING
    client.bio_write(records.encrypt(b"answer"))
    assert received(client) == b"answer"
    assert records.take() == b""


def test_byte_by_byte(pair: Pair) -> None:
    """
    A record that comes in pieces is nothing until it is whole.
    """
    records, client = pair
    *pieces, last = (bytes([byte]) for byte in sealed(client, b"question"))
    for piece in pieces:
        assert records.decrypt(piece) == b""
        assert records.state == WANTING
    assert records.decrypt(last) == b"question"


def test_memoryview(pair: Pair) -> None:
    """
    Ciphertext may be part of a larger read.
    """
    records, client = pair
    data = b"xx" + sealed(client, b"question") + b"xx"
    assert records.decrypt(memoryview(data)[2:-2]) == b"question"


def test_several_records_at_once(pair: Pair) -> None:
    """
    What several records bring is one piece.
    """
    records, client = pair
    assert records.decrypt(sealed(client, b"a") + sealed(client, b"b") + sealed(client, b"c")) == b"abc"
    assert records.state == WANTING


def test_more_than_a_read(pair: Pair) -> None:
    """
    More than fits at once stays where it is, and `state` says so.
    """
    records, client = pair
    data = bytes(range(256)) * (6 * RECORD_BYTES // 256)
    whole = b""
    ciphertext = sealed(client, data)
    first = records.decrypt(ciphertext)
    assert records.state == MORE
    assert len(first) <= READ_BYTES
    whole = first
    while records.state == MORE:
        whole += records.decrypt(b"")
    assert whole == data


@pytest.mark.parametrize("size", [1, RECORD_BYTES, RECORD_BYTES + 1, FEED_BYTES])
def test_sizes_out(size: int, pair: Pair) -> None:
    """
    Everything up to FEED_BYTES is encrypted in one call.
    """
    records, client = pair
    client.bio_write(records.encrypt(b"x" * size))
    assert received(client) == b"x" * size


def test_close_notify(pair: Pair) -> None:
    """
    The peer's close_notify ends the reading, behind what came before it; ours is seen by the peer.
    """
    records, client = pair
    last = sealed(client, b"last")
    client.shutdown()
    assert records.decrypt(last + client.bio_read(1000)) == b"last"
    assert records.state == ENDED
    records.close()
    client.bio_write(records.take())
    with pytest.raises(SSL.ZeroReturnError):
        client.recv(1)


@pytest.mark.parametrize("spoil", [lambda record: b"GET /" + record, lambda record: record[:-1] + b"?"])
def test_broken(spoil: Callable[[bytes], bytes], pair: Pair) -> None:
    """
    What is no record, or was changed on its way, is an SSL.Error with a reason, and leaves an alert for the peer.
    """
    records, client = pair
    with pytest.raises(SSL.Error) as raised:
        records.decrypt(spoil(sealed(client, b"question")))
    assert raised.value.args[0]
    # Content type 23: an alert of TLS 1.3 is encrypted.
    assert records.take()[:1] == b"\x17"
    with pytest.raises(SSL.Error):
        records.decrypt(b"")


def test_errors_of_others(pair: Pair) -> None:
    """
    An error that somebody else left in the queue of OpenSSL (before 4.0) is not taken for one of this connection.
    """
    records, client = pair
    tls_records.lib.ERR_put_error(20, 0, 1, b"elsewhere", 1)
    assert records.decrypt(sealed(client, b"question")) == b"question"
    tls_records.lib.ERR_put_error(20, 0, 1, b"elsewhere", 1)
    assert records.decrypt(b"") == b""
    assert records.state == WANTING
