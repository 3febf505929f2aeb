"""
Contexts as time goes by: what the timer notices, what is said, and what stays in use.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from tests.serve.certificates import Signed, authority, server_certificate
from twisted.internet.task import Clock

from txasgi.errors import EndpointError
from txasgi.net.certificates import Directory, Pairs
from txasgi.net.contexts import TICKET_KEY_S, WATCH_S, ServerContexts, TLSSettings

NAME = "ssl:8443"
DAY_S = 86400.0


def certificate(name: str, **options: Any) -> Signed:
    """
    For one name, from an authority that nobody looks at.
    """
    return server_certificate(name, authority("somebody"), **options)


class Watched:
    """
    A file with a key and its certificate, and the contexts made of it, watched on a clock that the test moves.
    """

    def __init__(self, folder: Path, ends: float = 90) -> None:
        self.path = folder / "both.pem"
        self.clock = Clock()
        self.write(certificate("localhost", ends=ends))
        self.began = dt.datetime.now(dt.UTC)
        self.contexts = ServerContexts(
            NAME, Pairs([(str(self.path), str(self.path))], None, (), None), TLSSettings(), self.now
        )
        self.contexts.start_watching(self.clock)

    def now(self) -> dt.datetime:
        return self.began + dt.timedelta(seconds=self.clock.seconds())

    def write(self, one: Signed) -> None:
        """
        In place of the file, as a careful program does.
        """
        new = self.path.with_suffix(".new")
        new.write_bytes(one.both_pem)
        os.replace(new, self.path)

    @property
    def serial(self) -> int:
        """
        Of the certificate that a connection made now gets.
        """
        found = self.contexts.serverConnectionForTLS(None).get_certificate(as_cryptography=True)
        assert found is not None
        return found.serial_number

    def pass_time(self, seconds: float) -> None:
        """
        In the steps of the timer.
        """
        for _ in range(int(seconds / WATCH_S)):
            self.clock.advance(WATCH_S)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """
    What is logged from here on.
    """
    caplog.set_level(logging.DEBUG, "txasgi")
    return caplog


def test_renewed(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    A new file is noticed at the next look, and said once.
    """
    watched = Watched(tmp_path)
    new = certificate("localhost")
    watched.write(new)
    watched.clock.advance(WATCH_S - 1)
    assert watched.serial != new.serial
    watched.clock.advance(1)
    assert watched.serial == new.serial
    watched.pass_time(100)
    assert lines.messages == [f"certificates reloaded for {NAME}"]


def test_written_in_place(tmp_path: Path) -> None:
    """
    A file that keeps its inode and its size is noticed by its time.
    """
    watched = Watched(tmp_path)
    before = os.stat(watched.path)
    new = certificate("localhost")
    watched.path.write_bytes(new.both_pem.ljust(before.st_size, b"\n"))
    os.utime(watched.path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    watched.clock.advance(WATCH_S)
    assert watched.serial == new.serial


def test_bad_file_is_complained_of_once(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    A file that cannot be used is named in one line, not in one every ten seconds, and looked at when it changes.
    """
    watched = Watched(tmp_path)
    serial = watched.serial
    watched.path.write_bytes(b"half a fi")
    watched.pass_time(100)
    (complaint,) = lines.messages
    assert complaint.startswith(f"certificates of {NAME} not reloaded: ") and str(watched.path) in complaint
    assert watched.serial == serial
    new = certificate("localhost")
    watched.write(new)
    watched.clock.advance(WATCH_S)
    assert watched.serial == new.serial


def test_expired_file(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    A certificate that is over does not take the place of one that is not.
    """
    watched = Watched(tmp_path)
    serial = watched.serial
    watched.write(certificate("localhost", begins=-9, ends=-1))
    watched.clock.advance(WATCH_S)
    assert watched.serial == serial
    (complaint,) = lines.messages
    assert "expired on" in complaint


def test_missing_file(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    A file that is gone leaves everything as it is.
    """
    watched = Watched(tmp_path)
    serial = watched.serial
    watched.path.unlink()
    watched.pass_time(30)
    assert watched.serial == serial
    (complaint,) = lines.messages
    assert "No such file" in complaint


def test_warned_daily(tmp_path: Path, lines: pytest.LogCaptureFixture) -> None:
    """
    From a week before its end on a certificate is warned of once a day, and after its end too.
    """
    watched = Watched(tmp_path, ends=7.5)
    assert lines.messages == []
    watched.pass_time(DAY_S + 60)
    (warning,) = lines.messages
    assert "less than 7 days" in warning and str(watched.path) in warning
    watched.pass_time(2 * DAY_S)
    assert len(lines.messages) == 3
    watched.pass_time(6 * DAY_S)
    assert "expired on" in lines.messages[-1]


def test_ticket_keys_are_renewed(tmp_path: Path) -> None:
    """
    The key of session tickets is a context's own, so a context is not used for longer than a key may be.
    """
    watched = Watched(tmp_path)
    before = watched.contexts.serverConnectionForTLS(None).get_context()
    watched.pass_time(TICKET_KEY_S)
    assert watched.contexts.serverConnectionForTLS(None).get_context() is before
    watched.pass_time(2 * WATCH_S)
    assert watched.contexts.serverConnectionForTLS(None).get_context() is not before


def test_stopped(tmp_path: Path) -> None:
    """
    When nobody listens, nothing is looked at.
    """
    watched = Watched(tmp_path)
    watched.contexts.stop_watching()
    assert watched.clock.getDelayedCalls() == []


def test_directory_with_one_that_is_over(tmp_path: Path) -> None:
    """
    In a directory, a certificate that is over does not keep the others from being renewed.
    """
    for name, ends in (("a.test", -1), ("b.test", 9)):
        (tmp_path / f"{name}.pem").write_bytes(certificate(name, begins=-9, ends=ends).both_pem)
    contexts = ServerContexts("tls:x", Directory(str(tmp_path), None), TLSSettings())
    new = certificate("b.test")
    (tmp_path / "b.test.pem").write_bytes(new.both_pem)
    assert contexts.reload()
    assert [one.own.serial_number for one in contexts.certified.by_name["b.test"]] == [new.serial]


def test_weak_key(tmp_path: Path) -> None:
    """
    What OpenSSL will not use is refused at the start, with its reason and the file.
    """
    path = tmp_path / "weak.pem"
    weak = certificate("localhost", key=rsa.generate_private_key(65537, 1024))
    path.write_bytes(weak.both_pem)
    with pytest.raises(EndpointError, match=r"weak\.pem: .*key too small"):
        ServerContexts(NAME, Pairs([(str(path), str(path))], None, (), None), TLSSettings())


def test_key_exchange(tmp_path: Path) -> None:
    """
    A client that knows it gets the key exchange that a quantum computer does not break.
    """
    if SSL.OPENSSL_VERSION_NUMBER < 0x30500000:
        pytest.skip("OpenSSL before 3.5 does not know it")
    server = Watched(tmp_path).contexts.serverConnectionForTLS(None)
    server.set_accept_state()
    server.set_app_data(SimpleNamespace(factory=SimpleNamespace(wrappedFactory=None)))
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
    client.set_connect_state()
    for _ in range(3):
        for one, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    assert client.get_group_name() == "X25519MLKEM768"
