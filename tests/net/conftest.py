"""
Fixtures of the transport and listening contracts: the same tests over Twisted's own transports and over ours.
"""

from __future__ import annotations

import datetime as dt
import inspect
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.net.rig import NATIVE, TLS_NATIVE, TLS_VARIANTS, TWISTED, TWISTED_TLS, VARIANTS, Rig
from tests.net.tls_rig import TWISTED_TLS_LACKS, TLSRig
from twisted.internet.task import Clock, Cooperator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    A native transport or socket that is left to the garbage collector fails its test.
    What Twisted's own TLS does not do is not asked of it.
    """
    for item in items:
        if getattr(item, "callspec", None) is None:
            continue
        variant = item.callspec.params.get("variant")
        if variant == TWISTED_TLS and (reason := TWISTED_TLS_LACKS.get(item.originalname)):
            item.add_marker(pytest.mark.skip(reason=reason))
        if variant in (*NATIVE, *TLS_NATIVE):
            for kind in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"error::{kind}"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """
    Run an async test on the loop of its rig, with a deadline.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    pyfuncitem.funcargs["rig"].run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    """
    Which listeners the test runs on: Twisted's own are the oracle for the native ones.
    """
    return request.param


@pytest.fixture
def rig(variant: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """
    A rig of the variant, closed and checked after the test.
    """
    # sun_path holds 108 bytes: pytest's own folders can be longer.
    folder = tempfile.mkdtemp(prefix="net-")
    made = iter(range(1000))

    def path() -> str:
        return os.path.join(folder, f"{next(made)}.sock")

    if variant in TLS_VARIANTS:
        rig: Rig = TLSRig(variant, path, request.getfixturevalue("certificate"))
    else:
        rig = Rig(variant, path)
    # Twisted's own TLS asks for the installed reactor, and there is none in these tests.
    if variant == TWISTED:
        monkeypatch.setattr("twisted.protocols.tls._get_default_clock", lambda: rig.reactor)
    if variant == TWISTED_TLS:
        # Its pull producers do.
        cooperator = Cooperator(scheduler=lambda call: rig.reactor.callLater(0, call))
        monkeypatch.setattr("twisted.internet._producer_helpers.cooperate", cooperator.cooperate)
    try:
        yield rig
        rig.close()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def clock() -> Clock:
    """
    The clock of connections in memory.
    """
    return Clock()


@pytest.fixture
def key_log(tmp_path: Path) -> str:
    """
    A file for the secrets of one connection.
    """
    return str(tmp_path / "keys")


@pytest.fixture(scope="session")
def certificate() -> bytes:
    """
    PEM of a key and of its self-signed certificate for 127.0.0.1.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, SHA256())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
