"""
What sslscan and testssl.sh find in a server with the default configuration.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tests.serve.certificates import Authorities, write
from tests.serve.conftest import ssl_endpoint
from tests.serve.processes import Process, address_of, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, authorities: Authorities) -> Iterator[Process]:
    """
    A server with an ECDSA and an RSA certificate.
    """
    folder = tmp_path_factory.mktemp("scanned")
    ec = write(folder / "ec.pem", authorities.server().both_pem)
    rsa = write(folder / "rsa.pem", authorities.server(kind="rsa").both_pem)
    endpoint = ssl_endpoint(ec, ec, f":privateKey={rsa}:certKey={rsa}")
    with serving(folder, "-e", endpoint, "--no-access-log", "shapes:app") as running:
        yield running


@pytest.mark.skipif(shutil.which("sslscan") is None, reason="no sslscan on PATH")
def test_sslscan(process: Process, folder: Path) -> None:
    """
    sslscan finds TLS 1.2 and 1.3 alone, no cipher that is less than strong, and no weakness.
    """
    port = address_of(process.location)[1]
    command = ["sslscan", f"--xml={folder}/found.xml", f"127.0.0.1:{port}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    # Certificates come with bytes that XML does not allow.
    text = re.sub(r"<certificates>.*?</certificates>", "", (folder / "found.xml").read_text(), flags=re.DOTALL)
    (found,) = ET.fromstring(text)

    spoken = {(one.get("type"), one.get("version")) for one in found.iter("protocol") if one.get("enabled") != "0"}
    assert {("tls", "1.2"), ("tls", "1.3")} == spoken
    assert [one.get("vulnerable") for one in found.iter("heartbleed")] in ([], ["0", "0"])
    assert [one.get("supported") for one in found.iter("renegotiation")] == ["0"]
    assert [one.get("supported") for one in found.iter("compression")] in ([], ["0"])
    ciphers = {str(one.get("cipher")): str(one.get("strength")) for one in found.iter("cipher")}
    assert len(ciphers) == 9
    # It calls those of TLS 1.3 acceptable.
    assert {"strong", "acceptable"} >= set(ciphers.values())
    assert [name for name in ciphers if not re.fullmatch(r"TLS_.*|ECDHE-.*(GCM-SHA\d+|CHACHA20-POLY1305)", name)] == []
    assert {128, 192} >= {int(str(one.get("bits"))) for one in found.iter("group")}


# What testssl.sh calls bad or cannot find out, and why it may.
EXPLAINED = {
    r"engine_problem": "about the openssl that it runs, not about the server",
    r"sessionresumption_ticket": "it closes before TLS 1.3's tickets have come; test_tls_endpoints resumes sessions",
    r"cert_revocation.*": "certificates made by a test name no CRL and no OCSP responder",
    r"OCSP_stapling.*": "nor is there a response to staple, unless the operator has one",
    r"DNS_CAArecord.*": "localhost has no records",
    r"certificate_transparency.*": "certificates made by a test are in no log",
    r"HSTS": "a field of the application's or, with --header, of the operator's",
    r"security_headers|X-.*|Content-Security-Policy|Referrer-Policy": "the application's fields",
    r"banner_.*|cookie_.*": "the application's too",
}


@pytest.mark.skipif(shutil.which("testssl") is None, reason="no testssl on PATH")
def test_testssl(process: Process, authorities: Authorities, folder: Path) -> None:
    """
    testssl.sh finds nothing that is not explained: no weak protocol or cipher, no vulnerability, chains in order.
    """
    port = address_of(process.location)[1]
    # Without a network: no names are looked up, nothing is fetched.
    command = ["testssl", "--quiet", "--color", "0", "--warnings", "off", "--nodns", "none", "--ip", "127.0.0.1"]
    command += ["--openssl", str(shutil.which("openssl")), "--add-ca", str(authorities.root_file)]
    command += ["--jsonfile", str(folder / "found.json"), f"localhost:{port}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    findings = json.loads((folder / "found.json").read_text())

    by_id = {one["id"]: one for one in findings}
    # It has looked at all of it.
    for name in (
        "TLS1_2",
        "TLS1_3",
        "cipherlist_STRONG",
        "cert_chain_of_trust <cert#2>",
        "heartbleed",
        "LUCKY13",
        "RC4",
    ):
        assert by_id[name]["severity"] == "OK", done.stdout
    unexplained = [
        f"{one['severity']} {one['id']}: {one['finding']}"
        for one in findings
        if one["severity"] not in ("OK", "INFO", "DEBUG")
        and not any(re.fullmatch(pattern, one["id"]) for pattern in EXPLAINED)
    ]
    assert unexplained == []
