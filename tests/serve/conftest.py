"""
Folders for sockets, and certificates.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.serve.certificates import Authorities, authority, new_authorities, server_certificate


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    An empty directory with a short path: that of a UNIX socket may have 107 bytes.
    """
    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        yield Path(name)


class Certificates(NamedTuple):
    """
    Names of PEM files, and a client's context that knows the root alone.

    key, leaf: the server's, for localhost; encrypted: the same key with a password; other_key: another.
    fullchain: leaf and intermediate; chain: the intermediate. both: key and full chain in one file.
    root: what a client has to know. by_name: a directory for tls:.
    """

    key: Path
    encrypted: Path
    other_key: Path
    leaf: Path
    chain: Path
    fullchain: Path
    both: Path
    root: Path
    by_name: Path
    trust: ssl.SSLContext


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """
    A root, an intermediate authority, and a server's certificate.
    """
    folder = tmp_path_factory.mktemp("pem")
    root = authority("a root")
    middle = authority("an intermediate", root)
    leaf = server_certificate("localhost", middle)
    other = server_certificate("other.test", middle)
    (folder / "by-name").mkdir()
    files = {
        "key.pem": leaf.key_pem,
        "encrypted.pem": leaf.encrypted_key_pem("secret"),
        "other-key.pem": other.key_pem,
        "leaf.pem": leaf.pem,
        "chain.pem": middle.pem,
        "fullchain.pem": leaf.fullchain_pem,
        "both.pem": leaf.fullchain_pem + leaf.key_pem,
        "root.pem": root.pem,
        "by-name/localhost.pem": leaf.both_pem,
        "by-name/other.test.pem": other.both_pem,
    }
    for name, pem in files.items():
        (folder / name).write_bytes(pem)
    trust = ssl.create_default_context(cafile=str(folder / "root.pem"))
    named = [folder / name for name in list(files)[:8]]
    return Certificates(*named, by_name=folder / "by-name", trust=trust)


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Authorities:
    """
    Those that issue certificates as a test asks for them.
    """
    return new_authorities(tmp_path_factory.mktemp("authorities"))


def ssl_endpoint(key: Path, certificate: Path | None = None, more: str = "") -> str:
    """
    TLS on a port of the system's choice.
    """
    return f"ssl:0:interface=127.0.0.1:privateKey={key}" + (f":certKey={certificate}" if certificate else "") + more
