"""
--ssl-* and --dev-tls, and what is said about TLS that cannot be.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat
from tests.serve.certificates import (
    Authorities,
    client_certificate,
    ocsp_response,
    revocation_list,
    write,
)
from tests.serve.handshakes import (
    alert_of,
    ask_over,
    chain_serials,
    client_file,
    served_certificate,
    served_chain,
    served_serial,
    shake,
    tls_client,
)
from tests.serve.processes import ask, ended, serving

# Must never be shown.
PASSWORD = "open sesame"
WRONG_PASSWORD = "0pen 5esame"


@dataclass(frozen=True, slots=True)
class Files:
    """
    A directory that holds whatever a command line of these tests names.
    """

    folder: Path
    authorities: Authorities
    serial: int
    chain: list[int]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities) -> Files:
    folder = tmp_path_factory.mktemp("options")
    one, other = authorities.server(), authorities.server()
    rsa = authorities.server(kind="rsa")
    client = client_certificate("alice", authorities.client_root)
    client_file(folder, "alice", client)
    for name, parts in {
        "key.pem": [one.key_pem],
        "cert.pem": [one.fullchain_pem],
        "leaf.pem": [one.pem],
        "both.pem": [one.both_pem],
        "other-key.pem": [other.key_pem],
        "rsa-key.pem": [rsa.key_pem],
        "rsa.pem": [rsa.fullchain_pem],
        "pkcs8.pem": [one.encrypted_key_pem(PASSWORD)],
        "old.pem": [one.encrypted_key_pem(PASSWORD, PrivateFormat.TraditionalOpenSSL)],
        "pkcs8-both.pem": [one.encrypted_key_pem(PASSWORD), one.fullchain_pem],
        "disordered.pem": [one.pem, authorities.root.pem, authorities.intermediate.pem],
        "foreign-chain.pem": [one.pem, authorities.rsa_intermediate.pem],
        "rsa-intermediate.pem": [authorities.rsa_intermediate.pem],
        "reversed.pem": [authorities.intermediate.pem, one.pem],
        "garbage.pem": [b"\x00\x01garbage\xff\n" * 10],
        "broken.pem": [one.pem[:200], b"\n-----END CERTIFICATE-----\n"],
        "broken-key.pem": [b"-----BEGIN PRIVATE KEY-----\nZ2FyYmFnZQ==\n-----END PRIVATE KEY-----\n"],
        "empty.pem": [],
        "ca.pem": [authorities.client_root.pem],
        "crl.pem": [revocation_list(authorities.client_root)],
        "good.ocsp": [ocsp_response(one)],
        "other.ocsp": [ocsp_response(other)],
        "password.txt": [PASSWORD.encode() + b"\r\nmore\n"],
        "wrong-password.txt": [WRONG_PASSWORD.encode() + b"\n"],
        "empty-directory/readme.txt": [b"nothing"],
        "keys/key.pem": [one.key_pem],
        "certificates/cert.pem": [one.fullchain_pem],
        "mismatch/key.pem": [other.key_pem],
        "mismatch/cert.pem": [one.fullchain_pem],
        "good/both.pem": [one.both_pem],
    }.items():
        write(folder / name, *parts)
    return Files(folder, authorities, one.serial, chain_serials(one))


# --ssl-*


@pytest.mark.parametrize(
    ("arguments", "environment", "toml"),
    [
        (["--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"], {}, ""),
        (["--ssl-certfile", "both.pem"], {}, ""),
        (["--ssl-certfile", "pkcs8-both.pem", "--ssl-keyfile-password", PASSWORD], {}, ""),
        (["--ssl-certfile", "cert.pem", "--ssl-keyfile", "old.pem", "--ssl-keyfile-password", PASSWORD], {}, ""),
        ([], {"TXASGI_SSL_CERTFILE": "cert.pem", "TXASGI_SSL_KEYFILE": "key.pem"}, ""),
        (["--ssl-certfile", "pkcs8-both.pem"], {"TXASGI_SSL_KEYFILE_PASSWORD": PASSWORD}, ""),
        ([], {}, 'ssl-certfile = "cert.pem"\nssl-keyfile = "key.pem"\n'),
        ([], {}, f'ssl-certfile = "pkcs8-both.pem"\nssl-keyfile-password = "{PASSWORD}"\n'),
        (["--ssl-certfile", "both.pem"], {"TXASGI_SSL_CERTFILE": "nowhere.pem"}, 'ssl-certfile = "nor-here.pem"\n'),
    ],
    ids=["two files", "one file", "password", "old form", "environment", "and password", "TOML", "and its", "first"],
)
def test_certfile(arguments: list[str], environment: dict[str, str], toml: str, files: Files, folder: Path) -> None:
    """
    Key and certificate can be given on the command line, in the environment and in TOML, for --host and --port.
    """
    config = write(folder / "serve.toml", toml.encode())
    given = ("--config", str(config), "--port", "0", *arguments, "served:app")
    with serving(files.folder, *given, env=environment) as process:
        assert process.location.startswith("https://127.0.0.1:")
        assert files.chain == served_chain(process.location)
        scope = ask(process.location, trust=tls_client(files.authorities.root_file)).scope
        assert scope["scheme"] == "https"
        assert "tls" not in scope["extensions"]
        assert process.stop() == 0
        assert PASSWORD not in process.err.text() + process.out.text()


def test_host_and_ciphers(files: Files) -> None:
    """
    --host and --ssl-ciphers are those of the TLS listener.
    """
    arguments = ("--host", "127.0.0.9", "--port", "0", "--ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384")
    with serving(files.folder, *arguments, "--ssl-certfile", "both.pem", "served:app") as process:
        assert process.location.startswith("https://127.0.0.9:")
        with shake(process.location, tls_client(version="TLSv1.2")) as sock:
            cipher = sock.cipher()
            assert cipher is not None and cipher[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
            assert ask_over(sock).status == 200
        with pytest.raises(ssl.SSLError, match=r"(?i)alert handshake failure"):
            shake(process.location, tls_client(version="TLSv1.2", ciphers="ECDHE-ECDSA-AES128-GCM-SHA256"))
        with shake(process.location, tls_client(version="TLSv1.3")) as sock:
            assert ask_over(sock).status == 200


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("none", "none"),
        ("0", "none"),
        ("optional", "optional"),
        ("1", "optional"),
        ("required", "required"),
        ("2", "required"),
    ],
)
def test_cert_reqs(value: str, meaning: str, files: Files) -> None:
    """
    --ssl-cert-reqs takes words, and the numbers of Python's ssl module as Uvicorn does.
    """
    arguments = ("--port", "0", "--ssl-certfile", "both.pem", "--ssl-ca-certs", "ca.pem", "--ssl-cert-reqs", value)
    with serving(files.folder, *arguments, "served:app") as process:
        location = process.location
        with shake(location, tls_client(certificate=files.folder / "alice.pem")) as sock:
            told = ask_over(sock).scope["extensions"].get("tls", {})
            assert told.get("client_cert_name") == (None if meaning == "none" else "CN=alice")
        if meaning == "required":
            assert "certificate required" == alert_of(location, tls_client(version="TLSv1.3"))
        else:
            assert ask(location, trust=tls_client()).status == 200


def test_cert_reqs_in_toml(files: Files) -> None:
    """
    A number is a number in TOML, and words are words in the environment.
    """
    toml = 'port = 0\nssl-certfile = "both.pem"\nssl-ca-certs = "ca.pem"\nssl-cert-reqs = 2\n'
    write(files.folder / "requiring.toml", toml.encode())
    with serving(files.folder, "--config", "requiring.toml", "served:app") as process:
        assert "certificate required" == alert_of(process.location, tls_client(version="TLSv1.3"))
    environment = {"TXASGI_SSL_CERT_REQS": "optional"}
    with serving(files.folder, "--config", "requiring.toml", "served:app", env=environment) as process:
        assert ask(process.location, trust=tls_client()).scope["extensions"]["tls"]["client_cert_chain"] == []


@pytest.mark.parametrize("how", ["argument", "environment", "TOML"])
def test_tls_extension(how: str, files: Files) -> None:
    """
    --tls-extension can be given everywhere.
    """
    write(files.folder / "telling.toml", b"tls-extension = true\n")
    arguments = {"argument": ["--tls-extension"], "TOML": ["--config", "telling.toml"]}.get(how, [])
    environment = {"TXASGI_TLS_EXTENSION": "yes"} if how == "environment" else {}
    given = ("--port", "0", "--ssl-certfile", "both.pem", *arguments, "served:app")
    with serving(files.folder, *given, env=environment) as process:
        told = ask(process.location, trust=tls_client()).scope["extensions"]["tls"]
        assert (told["client_cert_chain"], told["client_cert_name"], told["client_cert_error"]) == ([], None, None)
        assert x509.load_pem_x509_certificate(told["server_cert"].encode()).serial_number == files.serial


# --dev-tls


@pytest.mark.parametrize("how", ["argument", "environment", "TOML"])
def test_dev_tls(how: str, folder: Path) -> None:
    """
    --dev-tls serves a certificate of its own for localhost, warns that it is self-signed, and leaves no file behind.
    """
    arguments = ["--dev-tls"] if how == "argument" else []
    environment = {"TXASGI_DEV_TLS": "1"} if how == "environment" else {}
    if how == "TOML":
        (folder / "dev.toml").write_text("dev-tls = true\n")
        arguments = ["--config", "dev.toml"]
    before = list(folder.iterdir())
    with serving(folder, "--port", "0", *arguments, "served:app", env=environment) as process:
        assert process.location.startswith("https://127.0.0.1:")
        (warning,) = [line for line in process.err if "self-signed" in line]
        assert " WARNING " in warning
        assert [line for line in process.err if " WARNING " in line] == [warning]
        certificate = served_certificate(process.location)
        trust = ssl.create_default_context(cadata=certificate.public_bytes(Encoding.PEM).decode())
        with shake(process.location, trust) as sock:
            assert ask_over(sock).scope["scheme"] == "https"
        assert before == list(folder.iterdir())


# What cannot be together

CONFLICTS = [
    (tls, place)
    for tls in (["--ssl-certfile", "both.pem"], ["--dev-tls"])
    for place in (["-e", "tcp:0:interface=127.0.0.1"], ["--uds", "a.sock"], ["--fd", "0"])
]


@pytest.mark.parametrize(("tls", "place"), CONFLICTS, ids=[f"{tls[0]} {place[0]}" for tls, place in CONFLICTS])
def test_conflict(tls: list[str], place: list[str], files: Files) -> None:
    """
    TLS for --host and --port cannot be had together with another place to listen.
    """
    found = ended(files.folder, *tls, *place, "shapes:app")
    assert found.status == 2
    long = {"-e": "endpoint"}.get(place[0], place[0])
    assert tls[0].removeprefix("--") in found.complaint and long in found.complaint


@pytest.mark.parametrize(
    "option",
    [
        ("--ssl-keyfile", "key.pem"),
        ("--ssl-keyfile-password", PASSWORD),
        ("--ssl-ca-certs", "ca.pem"),
        ("--ssl-cert-reqs", "required"),
        ("--ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ],
    ids=lambda option: option[0],
)
def test_conflict_of_the_others(option: tuple[str, str], files: Files) -> None:
    """
    The other --ssl- options cannot be together with an endpoint either, and none is taken for nothing.
    """
    found = ended(files.folder, *option, "-e", "tcp:0:interface=127.0.0.1", "shapes:app")
    assert found.status == 2
    assert option[0].removeprefix("--") in found.complaint
    assert PASSWORD not in found.err


def test_conflict_in_a_file(files: Files) -> None:
    """
    What is in one TOML file must fit together too.
    """
    toml = 'ssl-certfile = "both.pem"\nendpoint = ["tcp:0:interface=127.0.0.1"]\n'
    write(files.folder / "conflict.toml", toml.encode())
    found = ended(files.folder, "--config", "conflict.toml", "shapes:app")
    assert found.status == 2
    assert "ssl-certfile" in found.complaint and "endpoint" in found.complaint


def test_dev_tls_and_certfile(files: Files) -> None:
    """
    A certificate of one's own and a self-signed one are one too many.
    """
    found = ended(files.folder, "--port", "0", "--dev-tls", "--ssl-certfile", "both.pem", "shapes:app")
    assert found.status in (1, 2)
    assert found.complaint


# Bad input: what the line names, and the options.
WRONG_OPTIONS = [
    (1, ["missing.pem", "No such file"], ["--ssl-certfile", "missing.pem"]),
    (1, ["missing.pem", "No such file"], ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "missing.pem"]),
    (1, ["cert.pem"], ["--ssl-certfile", "cert.pem"]),
    (1, ["other-key.pem", "cert.pem"], ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "other-key.pem"]),
    (1, ["pkcs8.pem", "encrypted"], ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "pkcs8.pem"]),
    (
        1,
        ["pkcs8.pem", "password"],
        ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "pkcs8.pem", "--ssl-keyfile-password", WRONG_PASSWORD],
    ),
    (1, ["garbage.pem"], ["--ssl-certfile", "both.pem", "--ssl-ca-certs", "garbage.pem", "--ssl-cert-reqs", "2"]),
    (1, ["NOTHING"], ["--ssl-certfile", "both.pem", "--ssl-ciphers", "NOTHING"]),
    (2, ["ssl-cert-reqs", "3"], ["--ssl-certfile", "both.pem", "--ssl-ca-certs", "ca.pem", "--ssl-cert-reqs", "3"]),
]


@pytest.mark.parametrize(
    ("status", "said", "arguments"), WRONG_OPTIONS, ids=[" ".join(row[2])[:60] for row in WRONG_OPTIONS]
)
def test_wrong_option(status: int, said: list[str], arguments: list[str], files: Files) -> None:
    """
    What keeps TLS from being served is said in one line that names the file, and not the password.
    """
    found = ended(files.folder, "--port", "0", *arguments, "shapes:app")
    assert found.status == status
    assert [] == [words for words in said if words not in found.complaint]
    assert PASSWORD not in found.err and WRONG_PASSWORD not in found.err


def ssl_(more: str, key: str = "key.pem", certificate: str = "cert.pem") -> str:
    return f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={certificate}{more}"


def tls_(directory: str, more: str = "") -> str:
    return f"tls:{directory}:0:interface=127.0.0.1{more}"


# What the line says, and the endpoint.
WRONG = [
    # Files
    (["missing.pem: No such file"], ssl_("", key="missing.pem")),
    (["missing.pem: No such file"], ssl_("", certificate="missing.pem")),
    (["missing.pem: No such file"], ssl_(":extraCertChain=missing.pem")),
    (["missing.pem: No such file"], ssl_(":clientCA=missing.pem")),
    (["missing.pem: No such file"], ssl_(":clientCA=ca.pem:crl=missing.pem")),
    (["missing.ocsp: No such file"], ssl_(":ocsp=missing.ocsp")),
    (["missing.txt: No such file"], ssl_(":keyPasswordFile=missing.txt", key="pkcs8.pem")),
    (["keys: Is a directory"], ssl_("", key="keys")),
    # Keys
    (["no PEM", "leaf.pem"], ssl_("", key="leaf.pem")),
    (["no PEM", "garbage.pem"], ssl_("", key="garbage.pem")),
    (["empty.pem"], ssl_("", key="empty.pem")),
    (["broken-key.pem"], ssl_("", key="broken-key.pem")),
    (["other-key.pem", "cert.pem", "belong"], ssl_("", key="other-key.pem")),
    (["rsa-key.pem", "cert.pem", "belong"], ssl_(":privateKey=rsa-key.pem:certKey=cert.pem")),
    (["privateKey"], "ssl:0:interface=127.0.0.1"),
    # Passwords
    (["pkcs8.pem", "encrypted"], ssl_("", key="pkcs8.pem")),
    (["old.pem", "encrypted"], ssl_("", key="old.pem")),
    (["pkcs8.pem", "password"], ssl_(rf":keyPassword=pass\:{WRONG_PASSWORD}", key="pkcs8.pem")),
    (["old.pem", "password"], ssl_(rf":keyPassword=pass\:{WRONG_PASSWORD}", key="old.pem")),
    (["pkcs8.pem", "password"], ssl_(r":keyPassword=env\:WRONG", key="pkcs8.pem")),
    (["pkcs8.pem", "password"], ssl_(":keyPasswordFile=wrong-password.txt", key="pkcs8.pem")),
    (["NOT_THERE"], ssl_(r":keyPassword=env\:NOT_THERE", key="pkcs8.pem")),
    (["keyPassword"], ssl_(f":keyPassword={PASSWORD}", key="pkcs8.pem")),
    # The password is right, something else is not.
    (["rsa.pem", "pkcs8.pem"], ssl_(rf":keyPassword=pass\:{PASSWORD}", key="pkcs8.pem", certificate="rsa.pem")),
    (["wat"], ssl_(rf":keyPassword=pass\:{PASSWORD}:wat=1", key="pkcs8.pem")),
    (["keyPasswordFile"], ssl_(rf":keyPassword=pass\:{PASSWORD}:keyPasswordFile=password.txt", key="pkcs8.pem")),
    # Certificates
    (["no PEM", "key.pem"], ssl_("", certificate="key.pem")),
    (["no PEM", "garbage.pem"], ssl_("", certificate="garbage.pem")),
    (["empty.pem"], ssl_("", certificate="empty.pem")),
    (["broken.pem"], ssl_("", certificate="broken.pem")),
    (["disordered.pem", "certificate 1 is not issued by"], ssl_("", certificate="disordered.pem")),
    (["foreign-chain.pem", "is not issued by"], ssl_("", certificate="foreign-chain.pem")),
    (["reversed.pem", "key.pem"], ssl_("", certificate="reversed.pem")),
    (["is not issued by"], ssl_(":extraCertChain=rsa-intermediate.pem", certificate="leaf.pem")),
    (["garbage.pem"], ssl_(":extraCertChain=garbage.pem", certificate="leaf.pem")),
    # Words
    (["minVersion", "TLSv1.1"], ssl_(":minVersion=TLSv1.1")),
    (["minVersion", "SSLv3"], ssl_(":minVersion=SSLv3")),
    (["ciphers", "NOTHING"], ssl_(":ciphers=NOTHING")),
    (["ciphersuites", "TLS_NOTHING"], ssl_(":ciphersuites=TLS_NOTHING")),
    (["wat="], ssl_(":wat=1")),
    (["minVersion"], ssl_(":minVersion=TLSv1.2:minVersion=TLSv1.3")),
    (["sessionTickets", "maybe"], ssl_(":sessionTickets=maybe")),
    (["'80a'"], "ssl:80a:privateKey=both.pem"),
    # Clients
    (["clientVerify", "clientCA"], ssl_(":clientVerify=required")),
    (["clientVerify", "clientCA"], ssl_(":clientVerify=optional")),
    (["clientVerify", "perhaps"], ssl_(":clientCA=ca.pem:clientVerify=perhaps")),
    (["clientCA", "garbage.pem"], ssl_(":clientCA=garbage.pem")),
    (["clientCA", "key.pem"], ssl_(":clientCA=key.pem")),
    (["crl", "clientCA"], ssl_(":crl=crl.pem")),
    (["crl", "garbage.pem"], ssl_(":clientCA=ca.pem:crl=garbage.pem")),
    (["crl", "leaf.pem"], ssl_(":clientCA=ca.pem:crl=leaf.pem")),
    # Stapling
    (["other.ocsp"], ssl_(":ocsp=other.ocsp")),
    (["garbage.pem"], ssl_(":ocsp=garbage.pem")),
    (["empty.pem"], ssl_(":ocsp=empty.pem")),
    # Self-signed
    (["selfSigned", "privateKey"], "ssl:0:interface=127.0.0.1:selfSigned=yes:privateKey=key.pem"),
    (["selfSigned", "certKey"], "ssl:0:interface=127.0.0.1:selfSigned=yes:certKey=cert.pem"),
    (["selfSigned", "maybe"], "ssl:0:interface=127.0.0.1:selfSigned=maybe"),
    # Directories
    (["missing"], tls_("missing")),
    (["cert.pem", "not a directory"], tls_("cert.pem")),
    (["empty-directory"], tls_("empty-directory")),
    (["keys holds", "certificate"], tls_("keys")),
    (["certificates holds", "private key"], tls_("certificates")),
    (["mismatch"], tls_("mismatch")),
    (["minVersion", "TLSv1.0"], tls_("good", ":minVersion=TLSv1.0")),
    (["ciphers", "NOTHING"], tls_("good", ":ciphers=NOTHING")),
    (["clientCA"], tls_("good", ":clientVerify=required")),
    (["garbage.pem"], tls_("good", ":clientCA=ca.pem:crl=garbage.pem")),
    (["wat="], tls_("good", ":wat=1")),
    (["privateKey"], tls_("good", ":privateKey=key.pem")),
]


@pytest.mark.parametrize(("said", "endpoint"), WRONG, ids=[row[1].replace(PASSWORD, "")[-60:] for row in WRONG])
def test_wrong_endpoint(said: list[str], endpoint: str, files: Files) -> None:
    """
    An endpoint that cannot be served is named in one line, with the file and without the password, and ends with 1.
    """
    found = ended(files.folder, "-e", endpoint, "shapes:app", env={"WRONG": WRONG_PASSWORD})
    assert found.status == 1
    assert f"endpoint '{endpoint.partition(':keyPassword')[0][:40]}" in found.complaint
    assert [] == [words for words in said if words not in found.complaint]
    assert PASSWORD not in found.err and WRONG_PASSWORD not in found.err


def test_unreadable_file(files: Files) -> None:
    """
    A key that may not be read is named.
    """
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    key = write(files.folder / "unreadable.pem", b"")
    key.chmod(0)
    found = ended(files.folder, "-e", ssl_("", key="unreadable.pem"), "shapes:app")
    assert found.status == 1
    assert "unreadable.pem: Permission denied" in found.complaint


@pytest.mark.parametrize("level", ["info", "debug"])
def test_password_is_not_logged(level: str, files: Files) -> None:
    """
    Whatever is logged, a password is not.
    """
    endpoint = ssl_(rf":keyPassword=pass\:{PASSWORD}", key="pkcs8.pem")
    with serving(files.folder, "--log-level", level, "-e", endpoint, "served:app") as process:
        assert files.serial == served_serial(process.location)
        assert process.stop() == 0
        assert PASSWORD not in process.err.text() + process.out.text()


def test_check_config(files: Files) -> None:
    """
    --check-config reads the certificates and does not listen; what is wrong is said as at a start.
    """
    good = ended(files.folder, "--check-config", "--ssl-certfile", "both.pem", "shapes:app")
    assert (good.status, good.err) == (0, "")
    bad = ended(files.folder, "--check-config", "--ssl-certfile", "cert.pem", "shapes:app")
    assert bad.status == 1 and "cert.pem" in bad.complaint
    bad = ended(files.folder, "--check-config", "-e", tls_("mismatch"), "shapes:app")
    assert bad.status == 1 and "mismatch" in bad.complaint
