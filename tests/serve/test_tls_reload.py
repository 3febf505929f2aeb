"""
Certificates that are replaced while the server runs.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.certificates import (
    Authorities,
    Signed,
    client_certificate,
    ocsp_response,
    revocation_list,
    server_certificate,
    write,
)
from tests.serve.conftest import ssl_endpoint
from tests.serve.handshakes import (
    WebSocket,
    alert_of,
    ask_over,
    chain_serials,
    client_file,
    open_files,
    resident_bytes,
    served_chain,
    served_serial,
    shake,
    stapled_serial,
    tls_client,
)
from tests.serve.processes import (
    DEADLINE_S,
    LOCAL,
    Process,
    address_of,
    ask,
    dial,
    read_answer,
    request,
    serving,
    until,
)

PASSWORD = "open sesame"


class Renewable:
    """
    A server and the two files of its certificate.
    """

    def __init__(self, folder: Path, authorities: Authorities) -> None:
        self.folder = folder
        self.authorities = authorities
        self.key = folder / "key.pem"
        self.certificate = folder / "certificate.pem"
        self.current = authorities.server()
        self.install(self.current)

    @property
    def endpoint(self) -> str:
        return ssl_endpoint(self.key, self.certificate)

    def start(self, process: Process) -> Renewable:
        self.process = process
        self.location = process.location
        return self

    def install(self, one: Signed) -> None:
        write(self.key, one.encrypted_key_pem(PASSWORD))
        write(self.certificate, one.fullchain_pem)

    def lines_after(self, mark: int, text: str) -> list[str]:
        return [line for line in list(self.process.err)[mark:] if text in line]

    def reload(self, text: str, mark: int) -> str:
        """
        Send SIGHUP; the first line with this text after so many.
        """
        self.process.send_signal(signal.SIGHUP)
        line: str = until(lambda: self.lines_after(mark, text), f"a line with {text!r}")[0]
        return line

    def renew(self) -> Signed:
        """
        Put a good certificate in place, and wait until it is served.
        """
        self.current = self.authorities.server()
        mark = len(list(self.process.err))
        self.install(self.current)
        self.reload("certificates reloaded for", mark)
        until(lambda: served_serial(self.location) == self.current.serial, "the new certificate")
        return self.current


@pytest.fixture(scope="module")
def renewable(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities) -> Iterator[Renewable]:
    """
    One process for all that can be renewed again.
    """
    folder = tmp_path_factory.mktemp("renewable")
    made = Renewable(folder, authorities)
    endpoint = made.endpoint + rf":keyPassword=pass\:{PASSWORD}"
    with serving(folder, "-e", endpoint, "served:app") as process:
        yield made.start(process)
        assert PASSWORD not in process.err.text()


# A good set


def test_new_certificate(renewable: Renewable) -> None:
    """
    On SIGHUP new files are read, and the next client gets the new certificate with its chain.
    """
    first = renewable.renew()
    mark = len(list(renewable.process.err))
    second = renewable.authorities.server()
    renewable.install(second)
    assert first.serial == served_serial(renewable.location)
    line = renewable.reload("certificates reloaded for", mark)
    assert " INFO " in line and "ssl:0" in line
    until(lambda: served_serial(renewable.location) == second.serial, "the new certificate")
    assert chain_serials(second) == served_chain(renewable.location)
    assert ask(renewable.location, trust=tls_client(renewable.authorities.root_file)).status == 200


def test_open_connections_go_on(renewable: Renewable) -> None:
    """
    A request that is under way, an idle connection and a WebSocket go on over a reload.
    """
    under_way = shake(renewable.location)
    under_way.sendall(request("/body", "Content-Length: 2", method="POST") + b"?")
    with (
        under_way,
        shake(renewable.location) as idle,
        shake(renewable.location) as upgraded,
    ):
        websocket = WebSocket(upgraded)
        websocket.send("before")
        assert websocket.receive() == "before"
        assert ask_over(idle).status == 200

        renewable.renew()

        websocket.send("after")
        assert websocket.receive() == "after"
        assert ask_over(idle).status == 200
        under_way.sendall(b"!")
        assert read_answer(under_way, "POST").body == b"?!"


def test_session_from_before(renewable: Renewable) -> None:
    """
    A client with a session from before a reload is served, whether the session is resumed or not.
    """
    renewable.renew()
    for version in ("TLSv1.2", "TLSv1.3"):
        context = tls_client(renewable.authorities.root_file, version=version)
        with shake(renewable.location, context) as first:
            assert ask_over(first).status == 200
            session = first.session
        renewable.renew()
        with shake(renewable.location, context, session=session) as second:
            assert ask_over(second).status == 200


def test_handshake_over_a_reload(renewable: Renewable) -> None:
    """
    A client that has connected and not yet spoken when the certificates are replaced gets either of them.
    """
    before = renewable.renew()
    with socket.create_connection(address_of(renewable.location), DEADLINE_S) as sock:
        after = renewable.renew()
        with tls_client(renewable.authorities.root_file).wrap_socket(sock, server_hostname="localhost") as shaken:
            peer = shaken.getpeercert()
            assert peer is not None and int(str(peer["serialNumber"]), 16) in (before.serial, after.serial)
            assert ask_over(shaken).status == 200


def test_key_stays(renewable: Renewable) -> None:
    """
    A new certificate for the old key is as good.
    """
    old = renewable.renew()
    new = server_certificate("localhost", renewable.authorities.intermediate, key=old.key)
    mark = len(list(renewable.process.err))
    write(renewable.certificate, new.fullchain_pem)
    renewable.reload("certificates reloaded for", mark)
    until(lambda: served_serial(renewable.location) == new.serial, "the new certificate")


# A bad set


def spoil(renewable: Renewable, how: str) -> None:
    """
    Replace files so that they are of no use.
    """
    authorities, one = renewable.authorities, renewable.authorities.server()
    match how:
        case "wrong key":
            write(renewable.key, one.encrypted_key_pem(PASSWORD))
        case "wrong certificate":
            write(renewable.certificate, one.fullchain_pem)
        case "expired":
            renewable.install(authorities.server(begins=-30, ends=-1))
        case "garbage":
            write(renewable.certificate, b"\x00\xffgarbage\n" * 20)
        case "garbage in PEM":
            write(renewable.certificate, one.pem[:300], b"\n-----END CERTIFICATE-----\n")
        case "garbage for a key":
            write(renewable.key, b"-----BEGIN PRIVATE KEY-----\nZ2FyYmFnZQ==\n-----END PRIVATE KEY-----\n")
        case "empty":
            write(renewable.certificate)
        case "missing certificate":
            renewable.certificate.unlink()
        case "missing key":
            renewable.key.unlink()
        case "chain out of order":
            renewable.install(one)
            write(renewable.certificate, one.pem, authorities.root.pem, authorities.intermediate.pem)
        case "another chain":
            renewable.install(one)
            write(renewable.certificate, one.pem, authorities.rsa_intermediate.pem)
        case "another password":
            renewable.install(one)
            write(renewable.key, one.encrypted_key_pem("other words"))


# How a set is spoiled, and what the line says of it.
SPOILED = [
    ("wrong key", "(?i)belong|match"),
    ("wrong certificate", "(?i)belong|match"),
    ("expired", "(?i)expired"),
    ("garbage", r"certificate\.pem.*PEM"),
    ("garbage in PEM", r"certificate\.pem"),
    ("garbage for a key", r"key\.pem"),
    ("empty", r"certificate\.pem.*PEM"),
    ("missing certificate", r"certificate\.pem.*No such file"),
    ("missing key", r"key\.pem.*No such file"),
    ("chain out of order", "(?i)not issued by"),
    ("another chain", "(?i)not issued by"),
    ("another password", "(?i)password"),
]


@pytest.mark.parametrize(("how", "reason"), SPOILED, ids=[row[0] for row in SPOILED])
def test_bad_set(how: str, reason: str, renewable: Renewable) -> None:
    """
    A set that is of no use is not taken: one line says why, the old set is served, and a good one is taken later.
    """
    old = renewable.renew()
    with shake(renewable.location) as kept:
        assert ask_over(kept).status == 200
        mark = len(list(renewable.process.err))
        spoil(renewable, how)
        line = renewable.reload("not reloaded: ", mark)
        endpoint, _, why = line.partition(" not reloaded: ")
        assert " ERROR " in endpoint and "certificates of ssl:0" in endpoint
        assert re.search(reason, why), line
        assert old.serial == served_serial(renewable.location)
        assert ask_over(kept).status == 200
    assert ask(renewable.location, trust=tls_client(renewable.authorities.root_file)).status == 200
    renewable.renew()


def test_one_endpoint_of_two_is_bad(folder: Path, authorities: Authorities) -> None:
    """
    A bad set of one endpoint does not keep another from its good one.
    """
    first, second = authorities.server(), authorities.server()
    files = [write(folder / f"{number}.pem", one.both_pem) for number, one in enumerate((first, second))]
    with serving(folder, "-e", ssl_endpoint(files[0]), "-e", ssl_endpoint(files[1]), "served:app") as process:
        bad, good = process.listening(2)
        new = authorities.server()
        write(files[0], b"garbage")
        write(files[1], new.both_pem)
        process.send_signal(signal.SIGHUP)
        assert str(files[0]) in process.wait_for("not reloaded: ")
        assert str(files[1]) in process.wait_for("certificates reloaded for")
        until(lambda: served_serial(good) == new.serial, "the new certificate")
        assert first.serial == served_serial(bad)


# What else is read


def test_revocation_list_and_response_are_read_again(folder: Path, authorities: Authorities) -> None:
    """
    On SIGHUP a new CRL and a new OCSP response count, for clients with a session from before too.
    """
    alice, bob = (client_certificate(name, authorities.client_root) for name in ("alice", "bob"))
    one = authorities.server()
    both = write(folder / "both.pem", one.both_pem)
    crl = write(folder / "crl.pem", revocation_list(authorities.client_root, bob))
    response = write(folder / "response.ocsp", ocsp_response(one))
    endpoint = ssl_endpoint(both, None, f":clientCA={authorities.client_root_file}:crl={crl}")
    stapling = ssl_endpoint(both, None, f":ocsp={response}")
    context = tls_client(certificate=client_file(folder, "alice", alice), version="TLSv1.3")
    with serving(folder, "-e", endpoint, "-e", stapling, "served:app") as process:
        verifying, stapled = process.listening(2)
        with shake(verifying, context) as sock:
            assert ask_over(sock).status == 200
            session = sock.session

        new = authorities.server()
        write(crl, revocation_list(authorities.client_root, alice, bob))
        write(both, new.both_pem)
        write(response, ocsp_response(new))
        process.send_signal(signal.SIGHUP)
        until(lambda: served_serial(stapled) == new.serial, "the new certificate")
        assert new.serial == stapled_serial(stapled)
        until(lambda: len([line for line in process.err if "certificates reloaded for" in line]) == 2, "both")
        assert "certificate revoked" == alert_of(verifying, context)
        # A session must not be a way around it.
        with pytest.raises(ssl.SSLError, match=r"(?i)alert certificate revoked"):
            with shake(verifying, context, session=session) as sock:
                ask_over(sock)


# SIGHUP by itself


def test_hangup_without_tls(folder: Path) -> None:
    """
    SIGHUP does not end a server without TLS: not while it serves, and not while it stops.
    """
    with serving(folder, "-e", LOCAL, "served:app") as process:
        location = process.location
        for _ in range(3):
            process.send_signal(signal.SIGHUP)
            assert ask(location).status == 200
        with dial(location) as sock:
            sock.sendall(request("/body", "Content-Length: 2", method="POST") + b"?")
            process.wait_for("app: POST /body")
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGHUP)
            sock.sendall(b"!")
            assert read_answer(sock, "POST").body == b"?!"
        assert process.wait() == 0


def test_hangup_while_it_starts(folder: Path) -> None:
    """
    SIGHUP does not end a server whose application is still starting.
    """
    with serving(folder, "-e", LOCAL, "served:slow_to_start") as process:
        process.wait_for("app: starting")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait() != -signal.SIGHUP
        assert "app: cancelled startup" in process.err


def test_many_hangups(renewable: Renewable) -> None:
    """
    Signals that come faster than files can be read do no harm.
    """
    one = renewable.renew()
    for _ in range(100):
        renewable.process.send_signal(signal.SIGHUP)
    assert one.serial == served_serial(renewable.location)
    renewable.renew()


# Slow


class Load:
    """
    A wrk that runs until it is told to stop.
    """

    def __init__(self, location: str, *fields: str) -> None:
        given = [argument for field in fields for argument in ("-H", field)]
        command = ["wrk", "-t1", "-c32", "-d300s", "--timeout", "20s", *given, location + "/"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def stop(self) -> str:
        """
        What it says about its requests.
        """
        self.process.send_signal(signal.SIGINT)
        said, _ = self.process.communicate(timeout=60)
        return said


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk on PATH")
@pytest.mark.parametrize("fields", [[], ["Connection: close"]], ids=["kept connections", "a connection each"])
def test_no_request_fails_while_certificates_are_replaced(
    fields: list[str], folder: Path, authorities: Authorities
) -> None:
    """
    Under load 50 replacements are each seen at once, and no request fails.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    arguments = ("--no-access-log", "-e", ssl_endpoint(both), "shapes:app")
    with serving(folder, *arguments) as process:
        load = Load(process.location, *fields)
        try:
            for _ in range(50):
                new = authorities.server()
                write(both, new.both_pem)
                process.send_signal(signal.SIGHUP)
                until(lambda new=new: served_serial(process.location) == new.serial, "the new certificate")
                # Let there be requests in between.
                time.sleep(0.1)
        finally:
            said = load.stop()
        found = re.search(r"(\d+) requests in", said)
        assert found is not None and int(found[1]) > 500, said
        assert "Socket errors" not in said and "Non-2xx" not in said, said
        assert [line for line in process.err if " WARNING " in line or " ERROR " in line] == []


@pytest.mark.slow
def test_files_are_looked_at(folder: Path, authorities: Authorities) -> None:
    """
    New files are noticed within 10 s without a signal, a bad set is told of once, and nothing is read twice.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    with serving(folder, "-e", ssl_endpoint(both), "served:app") as process:

        def lines(text: str) -> int:
            return len([line for line in process.err if text in line])

        location = process.location
        new = authorities.server()
        write(both, new.both_pem)
        # DEADLINE_S is 15.
        until(lambda: served_serial(location) == new.serial, "the new certificate")
        assert lines("certificates reloaded for") == 1

        write(both, b"garbage")
        process.wait_for("not reloaded: ")
        # Two more looks at the same files.
        time.sleep(21)
        assert (1, 1) == (lines("certificates reloaded for"), lines("not reloaded: "))
        assert new.serial == served_serial(location)

        # Overwritten in place: the same inode.
        newer = authorities.server()
        both.write_bytes(newer.both_pem)
        until(lambda: served_serial(location) == newer.serial, "the newer certificate")


@pytest.mark.slow
def test_reloads_leave_nothing_behind(folder: Path, authorities: Authorities) -> None:
    """
    300 reloads leave the memory of the process flat, and no file open.
    """
    both = write(folder / "both.pem", authorities.server().both_pem)
    made = [authorities.server() for _ in range(5)]
    with serving(folder, "-e", ssl_endpoint(both), "served:app") as process:
        location = process.location

        def reload(times: int) -> tuple[int, int]:
            for number in range(times):
                new = made[number % len(made)]
                write(both, new.both_pem)
                process.send_signal(signal.SIGHUP)
                until(lambda new=new: served_serial(location) == new.serial, "the new certificate")
            return resident_bytes(process), open_files(process)

        before, files = reload(100)
        after, more_files = reload(300)
        assert files == more_files
        assert after - before < 3 << 20
