"""
HTTP/2 with clients that others wrote: curl, httpx, nghttp, h2load, Chromium; what is agreed on, and what a stop does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.apps.test_demo_browser import CHROMIUM, Tab, tab
from tests.serve.apps.loads import MIB, mebibyte
from tests.serve.conftest import Certificates, ssl_endpoint
from tests.serve.handshakes import Running, alert_of, resident_bytes, serving_all, shake, tls_client
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

__all__ = ["tab"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
GOAWAY = 7
INADEQUATE_SECURITY = 12

needs_nghttp = pytest.mark.skipif(shutil.which("nghttp") is None, reason="no nghttp (Debian: nghttp2-client)")
needs_h2load = pytest.mark.skipif(shutil.which("h2load") is None, reason="no h2load (Debian: nghttp2-client)")
# How curl comes to speak HTTP/2, and where.
WAYS = {
    "ALPN": ("https", "--http2"),
    "prior knowledge": ("http", "--http2-prior-knowledge"),
    "Upgrade": ("http", "--http2"),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Running]:
    """
    A server that tells scopes, without and with TLS.
    """
    endpoints = {"http": LOCAL, "https": ssl_endpoint(certificates.key, certificates.fullchain)}
    with serving_all(tmp_path_factory.mktemp("scopes"), endpoints, "served:app") as found:
        yield found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Running]:
    """
    A server of downloads and uploads.
    """
    endpoints = {"http": LOCAL, "https": ssl_endpoint(certificates.key, certificates.fullchain)}
    with serving_all(tmp_path_factory.mktemp("loads"), endpoints, "--no-access-log", "loads:app") as found:
        yield found


def url(location: str, target: str = "/") -> str:
    """
    As a client asks for it that checks names: those of certificates are not addresses.
    """
    return f"{location.replace('127.0.0.1', 'localhost').rstrip('/')}{target}"


class Curled(NamedTuple):
    """
    What curl says of its last answer: the version as in %{http_version}, all that it wrote, and what it told.
    """

    version: str
    status: int
    body: bytes
    told: str


def curl(location: str, *arguments: str, target: str = "/", trust: Path | None = None) -> Curled:
    """
    Run curl, which must succeed.
    """
    port = address_of(location)[1]
    command = ["curl", "-sSv", "--resolve", f"localhost:{port}:127.0.0.1", "-w", "\n%{http_version} %{http_code}"]
    command += ["--cacert", str(trust)] if trust else []
    done = subprocess.run(
        [*command, *arguments, url(location, target)], capture_output=True, timeout=8 * DEADLINE_S, check=False
    )
    told = done.stderr.decode("latin-1")
    assert done.returncode == 0, told[-2000:]
    body, _, last = done.stdout.rpartition(b"\n")
    version, status = last.decode().split()
    return Curled(version, int(status), body, told)


class TestCurl:
    """
    libcurl.
    """

    @pytest.mark.parametrize("way", WAYS)
    def test_scope(self, way: str, running: Running, certificates: Certificates) -> None:
        """
        The application hears of HTTP/2, of the connection's scheme, and of a Host header.
        """
        scheme, option = WAYS[way]
        location = running.at[scheme]
        found = curl(location, option, "-H", "X-Asked: yes", target="/a%20b?q=1", trust=certificates.root)

        assert (found.version, found.status) == ("2", 200)
        scope = json.loads(found.body)
        assert (scope["http_version"], scope["scheme"], scope["method"]) == ("2", scheme, "GET")
        assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", "/a%20b", "q=1")
        assert ["x-asked", "yes"] in scope["headers"]
        names = [name for name, _ in scope["headers"]]
        assert names.count("host") == 1 and not any(name.startswith(":") for name in names)
        if way != "Upgrade":
            assert scope["headers"][0] == ["host", f"localhost:{address_of(location)[1]}"]

    @pytest.mark.parametrize("way", WAYS)
    def test_body(self, way: str, running: Running, certificates: Certificates, tmp_path: Path) -> None:
        """
        A body comes back as it was sent; one that goes with Upgrade is answered in HTTP/1.1.
        """
        sent = bytes(range(256)) * 2000
        (tmp_path / "body").write_bytes(sent)
        scheme, option = WAYS[way]
        arguments = (option, "--data-binary", f"@{tmp_path / 'body'}")
        found = curl(running.at[scheme], *arguments, target="/body", trust=certificates.root)

        assert (found.status, found.body) == (200, sent)
        assert found.version == ("1.1" if way == "Upgrade" else "2")

    # curl 7.88 cannot use a connection again that began by prior knowledge, whoever serves.
    @pytest.mark.parametrize("way", ["ALPN", "Upgrade"])
    def test_head(self, way: str, running: Running, certificates: Certificates) -> None:
        """
        HEAD has no body, and the connection is there for more.
        """
        scheme, option = WAYS[way]
        location = running.at[scheme]
        found = curl(location, option, "-I", url(location, "/first"), target="/second", trust=certificates.root)

        assert (found.version, found.status) == ("2", 200)
        assert found.told.count("Connected to") == 1
        assert found.body.count(b"HTTP/2 200") == 2

    def test_continue(self, running: Running) -> None:
        """
        Expect: 100-continue is answered with 100 before the body is sent.
        """
        arguments = ("--http2-prior-knowledge", "-H", "Expect: 100-continue", "-d", "hello")
        found = curl(running.at["http"], *arguments, target="/body")

        assert (found.status, found.body) == (200, b"hello")
        assert found.told.index("< HTTP/2 100") < found.told.index("< HTTP/2 200")

    def test_at_once(self, loaded: Running, certificates: Certificates, tmp_path: Path) -> None:
        """
        Fifty answers of a MiB share a connection and are whole.
        """
        location = loaded.at["https"]
        arguments = ["--http2", "-Z", "--parallel-max", "50"]
        for number in range(50):
            arguments += ["-o", str(tmp_path / str(number)), url(location, f"/download/1?{number}")]
        found = curl(location, *arguments, target="/last", trust=certificates.root)

        assert (found.version, found.status) == ("2", 200)
        assert {(tmp_path / str(number)).read_bytes() for number in range(50)} == {mebibyte(0)}

    def test_http_1(self, running: Running, certificates: Certificates) -> None:
        """
        Who asks for HTTP/1.1 gets it.
        """
        for scheme in ("http", "https"):
            found = curl(running.at[scheme], "--http1.1", trust=certificates.root)
            assert (found.version, json.loads(found.body)["http_version"]) == ("1.1", "1.1")


class TestHttpx:
    """
    httpx, with the package h2. It writes what it offers by ALPN into the context that it is given: each has its own.
    """

    def test_request(self, running: Running, certificates: Certificates) -> None:
        """
        HTTP/2 is agreed on by ALPN; cookies come in one field.
        """
        headers = [("cookie", "a=1"), ("cookie", "b=2"), ("X-Mixed", "Case")]
        with httpx.Client(http2=True, verify=tls_client(certificates.root), timeout=DEADLINE_S) as client:
            answer = client.get(url(running.at["https"], "/x"), headers=headers)
            body = client.post(url(running.at["https"], "/body"), content=b"hello" * 100_000)

        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        assert answer.json()["http_version"] == "2"
        fields = answer.json()["headers"]
        assert ["x-mixed", "Case"] in fields
        assert [value for name, value in fields if name == "cookie"] == ["a=1; b=2"]
        assert (body.http_version, body.content) == ("HTTP/2", b"hello" * 100_000)

    def test_prior_knowledge(self, running: Running) -> None:
        """
        Without TLS a client may begin with HTTP/2 at once.
        """
        with httpx.Client(http2=True, http1=False, timeout=DEADLINE_S) as client:
            answer = client.get(url(running.at["http"]))

        assert (answer.http_version, answer.json()["scheme"]) == ("HTTP/2", "http")

    def test_a_hundred(self, loaded: Running, certificates: Certificates) -> None:
        """
        A hundred uploads and downloads at once, on one connection, do not get mixed up.
        """
        location = loaded.at["https"]

        async def upload(client: httpx.AsyncClient, number: int) -> bool:
            body = mebibyte(number)[: 1000 * number]
            answer = await client.post(url(location, "/upload"), content=body)
            return bool(answer.json() == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()})

        async def download(client: httpx.AsyncClient, number: int) -> bool:
            answer = await client.get(url(location, f"/{number}"))
            return answer.content == f"/{number}".encode()

        async def all_at_once() -> list[bool]:
            limits = httpx.Limits(max_connections=1)
            async with httpx.AsyncClient(
                http2=True, verify=tls_client(certificates.root), timeout=4 * DEADLINE_S, limits=limits
            ) as client:
                tasks = [(upload if number % 2 else download)(client, number) for number in range(100)]
                return await asyncio.gather(*tasks)

        assert asyncio.run(all_at_once()) == [True] * 100


def nghttp(*arguments: str) -> str:
    """
    What nghttp tells of the frames that it gets.
    """
    done = subprocess.run(["nghttp", *arguments], capture_output=True, timeout=4 * DEADLINE_S, check=False)
    told = done.stdout.decode("latin-1")
    assert done.returncode == 0, told + done.stderr.decode("latin-1")
    return told


@needs_nghttp
class TestNghttp:
    """
    nghttp, which shows frames.
    """

    @pytest.mark.parametrize("way", ["https", "http", "Upgrade"])
    def test_many_streams(self, way: str, running: Running) -> None:
        """
        Fifty requests on one connection are all answered.
        """
        location = running.at["https" if way == "https" else "http"]
        told = nghttp("-nvy", "-m50", *(["-u"] if way == "Upgrade" else []), url(location))

        assert told.count(":status: 200") == 50
        assert ("HTTP Upgrade success" in told) == (way == "Upgrade")
        assert "RST_STREAM" not in told

    def test_settings(self, running: Running) -> None:
        """
        The server's SETTINGS are those of its documentation, and the client's are acknowledged.
        """
        told = nghttp("-nvy", url(running.at["http"]))
        received = told[told.index("recv SETTINGS frame") :]
        named = dict(re.findall(r"\[(\w+)\(0x[0-9a-f]+\):(\d+)\]", received.partition("\n[")[0]))

        assert named["SETTINGS_MAX_CONCURRENT_STREAMS"] == "100"
        assert named["SETTINGS_MAX_HEADER_LIST_SIZE"] == "65536"
        assert named["SETTINGS_ENABLE_CONNECT_PROTOCOL"] == "1"
        assert "recv SETTINGS frame <length=0, flags=0x01" in told

    def test_body_and_trailers(self, running: Running, tmp_path: Path) -> None:
        """
        A body with padding, DATA in many frames, and trailers comes back as it was sent.
        """
        sent = bytes(range(33, 127)) * 3000
        (tmp_path / "body").write_bytes(sent)
        arguments = ("-y", "-b", "100", "-d", str(tmp_path / "body"), "--trailer", "x-after: all")
        assert nghttp(*arguments, url(running.at["http"], "/body")).encode() == sent

    def test_push(self, loaded: Running) -> None:
        """
        What the application promises is pushed to a client that takes it, and only to such a one.
        """
        pushed = nghttp("-nvy", url(loaded.at["http"], "/promise"))
        refused = nghttp("-nvy", "--no-push", url(loaded.at["http"], "/promise"))

        assert pushed.count("recv PUSH_PROMISE frame") == 1
        assert pushed.count(":status: 200") == 2
        assert "PUSH_PROMISE" not in refused
        assert refused.count(":status: 200") == 1


class Loaded(NamedTuple):
    """
    What h2load reports. statuses: by the first digit, "2xx".
    """

    total: int
    started: int
    done: int
    succeeded: int
    failed: int
    errored: int
    statuses: dict[str, int]

    @classmethod
    def read(cls, report: str) -> Loaded:
        words = "total", "started", "done", "succeeded", "failed", "errored"
        found = re.search("requests: " + ", ".join(rf"(\d+) {word}" for word in words), report)
        assert found is not None, report
        statuses = {status: int(count) for count, status in re.findall(r"(\d+) (\dxx)", report)}
        return cls(*map(int, found.groups()), statuses)


def h2load(*arguments: str) -> Loaded:
    done = subprocess.run(["h2load", *arguments], capture_output=True, timeout=8 * DEADLINE_S, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Loaded.read(done.stdout)


@needs_h2load
class TestH2load:
    """
    h2load, which makes haste.
    """

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("version", ["--npn-list=h2", "--h1"], ids=["2", "1.1"])
    def test_all_succeed(self, scheme: str, version: str, loaded: Running) -> None:
        """
        2,000 requests on 10 connections are all answered with 200.
        """
        streams = "1" if version == "--h1" else "10"
        found = h2load("-n2000", "-c10", f"-m{streams}", version, url(loaded.at[scheme]))

        assert (found.succeeded, found.failed, found.errored) == (2000, 0, 0)
        assert found.statuses == {"2xx": 2000, "3xx": 0, "4xx": 0, "5xx": 0}

    def test_small_windows(self, loaded: Running) -> None:
        """
        Clients with small windows get all of their answers.
        """
        found = h2load("-n40", "-c4", "-m10", "-w12", "-W14", url(loaded.at["http"], "/download/1"))

        assert (found.succeeded, found.failed, found.errored) == (40, 0, 0)


class TestVersions:
    """
    --http, and what is agreed on.
    """

    def agreed(self, location: str, *offered: str) -> str | None:
        with shake(location, tls_client(alpn=offered)) as sock:
            return sock.selected_alpn_protocol()

    def test_auto(self, running: Running) -> None:
        """
        The server prefers h2, takes http/1.1, and serves HTTP/1.1 to who offers nothing.
        """
        location = running.at["https"]
        assert self.agreed(location, "http/1.1", "h2") == "h2"
        assert self.agreed(location, "h2") == "h2"
        assert self.agreed(location, "http/1.1") == "http/1.1"
        assert ask(location, trust=tls_client()).scope["http_version"] == "1.1"

    def test_only_1(self, folder: Path, certificates: Certificates) -> None:
        """
        With --http 1 nobody gets HTTP/2: not by ALPN, not by a preface, not by Upgrade.
        """
        endpoints = {"http": LOCAL, "https": ssl_endpoint(certificates.key, certificates.fullchain)}
        with serving_all(folder, endpoints, "--http", "1", "served:app") as found:
            assert self.agreed(found.at["https"], "h2", "http/1.1") == "http/1.1"
            with dial(found.at["http"]) as sock:
                sock.sendall(PREFACE + EMPTY_SETTINGS)
                assert read_answer(sock).status in (400, 405, 501, 505)
            fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
            with dial(found.at["http"]) as sock:
                sock.sendall(request("/", *fields))
                answer = read_answer(sock)
            assert (answer.status, answer.scope["http_version"]) == (200, "1.1")

    def test_only_2(self, folder: Path, certificates: Certificates) -> None:
        """
        With --http 2 ALPN offers h2 alone (RFC 7301 section 3.2), and without TLS HTTP/2 may begin at once.
        """
        endpoints = {"http": LOCAL, "https": ssl_endpoint(certificates.key, certificates.fullchain)}
        with serving_all(folder, endpoints, "--http", "2", "served:app") as found:
            location = found.at["https"]
            assert self.agreed(location, "http/1.1", "h2") == "h2"
            assert curl(found.at["http"], "--http2-prior-knowledge").version == "2"
            old = tls_client(alpn=["http/1.1"])
            assert alert_of(location, old) == "no application protocol"

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_http_1_where_only_2_is(self, scheme: str, folder: Path, certificates: Certificates) -> None:
        """
        With --http 2 a request of HTTP/1.1 is answered with 505 in HTTP/1.1, and the connection is closed.
        """
        endpoint = LOCAL if scheme == "http" else ssl_endpoint(certificates.key, certificates.fullchain)
        with serving(folder, "-e", endpoint, "--http", "2", "served:app") as process:
            with shake(process.location) if scheme == "https" else dial(process.location) as sock:
                sock.sendall(request())
                said = b""
                while more := sock.recv(65536):
                    said += more
        assert said.startswith(b"HTTP/1.1 505 ")

    @pytest.mark.parametrize("cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA"])
    def test_forbidden_cipher(self, cipher: str, folder: Path, certificates: Certificates) -> None:
        """
        HTTP/2 with a cipher of RFC 9113 appendix A ends with INADEQUATE_SECURITY, or is not agreed on.
        """
        tls = ["--port", "0", "--ssl-certfile", str(certificates.fullchain), "--ssl-keyfile", str(certificates.key)]
        with serving(folder, *tls, "--ssl-ciphers", f"{cipher}:@SECLEVEL=0", "served:app") as process:
            context = tls_client(version="TLSv1.2", ciphers=f"{cipher}:@SECLEVEL=0", alpn=["h2", "http/1.1"])
            with shake(process.location, context) as sock:
                assert sock.cipher()[0] == cipher
                if sock.selected_alpn_protocol() == "h2":
                    sock.sendall(PREFACE + EMPTY_SETTINGS + GET)
                    last = frames(sock)[-1]
                    assert (last[0], int.from_bytes(last[1][4:8])) == (GOAWAY, INADEQUATE_SECURITY)
            assert [] == [line for line in process.err if line.startswith("app: GET")]


# :method GET, :scheme https, :path /, :authority a: END_STREAM and END_HEADERS.
GET = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x87\x84\x01\x01a"


def frames(sock: socket.socket) -> list[tuple[int, bytes]]:
    """
    Types and payloads of all frames until the server closes.
    """
    received = b""
    while more := sock.recv(65536):
        received += more
    found = []
    while received:
        end = 9 + int.from_bytes(received[:3])
        found.append((received[3], received[9:end]))
        received = received[end:]
    return found


@pytest.mark.slow
class TestLarge:
    """
    100 MiB.
    """

    SIZE = 100

    @pytest.mark.parametrize("way", ["ALPN", "prior knowledge"])
    def test_download(self, way: str, loaded: Running, certificates: Certificates, tmp_path: Path) -> None:
        """
        A download of 100 MiB is whole, and is not held in memory.
        """
        scheme, option = WAYS[way]
        before = resident_bytes(loaded.process)
        target = f"/download/{self.SIZE}"
        curl(loaded.at[scheme], option, "-o", str(tmp_path / "got"), target=target, trust=certificates.root)
        grown = resident_bytes(loaded.process) - before

        whole = hashlib.sha256()
        for number in range(self.SIZE):
            whole.update(mebibyte(number))
        assert (tmp_path / "got").stat().st_size == self.SIZE * MIB
        assert hashlib.sha256((tmp_path / "got").read_bytes()).digest() == whole.digest()
        assert grown < 32 * MIB

    @pytest.mark.parametrize("way", ["ALPN", "prior knowledge"])
    def test_upload(self, way: str, loaded: Running, certificates: Certificates, tmp_path: Path) -> None:
        """
        An upload of 100 MiB is whole, and is not held in memory.
        """
        whole = hashlib.sha256()
        with (tmp_path / "sent").open("wb") as sent:
            for number in range(self.SIZE):
                whole.update(mebibyte(number))
                sent.write(mebibyte(number))
        scheme, option = WAYS[way]
        before = resident_bytes(loaded.process)
        arguments = (option, "-X", "POST", "-T", str(tmp_path / "sent"))
        found = curl(loaded.at[scheme], *arguments, target="/upload", trust=certificates.root)

        assert json.loads(found.body) == {"size": self.SIZE * MIB, "sha256": whole.hexdigest()}
        assert resident_bytes(loaded.process) - before < 32 * MIB


@pytest.mark.slow
@needs_h2load
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("target", ["/", "/slow", "/download/1"])
def test_stop_under_load(scheme: str, target: str, folder: Path, certificates: Certificates, tmp_path: Path) -> None:
    """
    A graceful stop in the middle of 20,000 requests fails none that an application has begun: as many were begun as
    were answered, and as h2load counts as successes.

    What h2load had under way and the server refused, it may send to another server (RFC 9113 section 8.7), but cannot
    tell from a failure; so those of its log are compared with what the application has counted.
    """
    endpoint = LOCAL if scheme == "http" else ssl_endpoint(certificates.key, certificates.fullchain)
    log = tmp_path / "log"
    with serving(folder, "-e", endpoint, "--no-access-log", "loads:app") as process:
        command = ["h2load", "-n20000", "-c10", "-m10", f"--log-file={log}", url(process.location, target)]
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            # Some answers have come.
            until(lambda: log.exists() and log.stat().st_size > 4096, "h2load's log")
            assert load.poll() is None
            assert process.stop() == 0
            report, complaints = load.communicate(timeout=4 * DEADLINE_S)
        finally:
            if load.poll() is None:
                load.kill()
                load.wait()
        begun, answered = map(int, re.findall(r"\d+", process.wait_for("app: begun")))
    assert load.returncode == 0, complaints
    statuses = Counter(line.split("\t")[1] for line in log.read_text().splitlines())
    found = Loaded.read(report)
    assert begun == answered
    assert 0 < statuses["200"] == begun < 20_000
    assert found.statuses["2xx"] == begun
    assert found.statuses["5xx"] == found.statuses["4xx"] == 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH")
class TestChromium:
    """
    A browser.
    """

    @pytest.fixture
    def process(self, folder: Path) -> Iterator[Process]:
        with serving(folder, "--port", "0", "--dev-tls", "scopes:app") as found:
            yield found

    def test_page(self, process: Process, tab: Tab) -> None:
        """
        A page comes by HTTP/2, and so do a hundred requests that its scripts make at once.
        """
        tab.visit(url(process.location, "/page"))

        assert tab.evaluate('performance.getEntriesByType("navigation")[0].nextHopProtocol') == "h2"
        assert json.loads(tab.evaluate("document.body.innerText"))["http_version"] == "2"
        asked: Any = tab.evaluate(
            "Promise.all([...Array(100).keys()].map(n => fetch('/fetched/' + n).then(r => r.json())))"
            ".then(all => all.map(scope => scope.http_version + scope.path))"
        )
        assert asked == [f"2/fetched/{number}" for number in range(100)]
        by: Any = tab.evaluate(
            "[...new Set(performance.getEntriesByType('resource').filter(e => e.name.includes('/fetched/'))"
            ".map(e => e.nextHopProtocol))]"
        )
        assert by == ["h2"]

    def test_upload(self, process: Process, tab: Tab) -> None:
        """
        A script's upload arrives.
        """
        tab.visit(url(process.location, "/page"))

        assert tab.evaluate("fetch('/x', {method: 'POST', body: 'x'.repeat(3e6)}).then(r => r.status)") == 200

    def test_websocket(self, process: Process, tab: Tab) -> None:
        """
        A WebSocket of the page shares its connection (RFC 8441).
        """
        tab.visit(url(process.location, "/page"))
        scope, echoed, code = tab.evaluate(
            """
            new Promise((done) => {
              const socket = new WebSocket(location.origin.replace("https", "wss") + "/ws");
              const got = [];
              socket.onopen = () => socket.send("hello ".repeat(50000));
              socket.onmessage = (event) => { got.push(event.data); if (got.length == 2) socket.close(4000, "bye"); };
              socket.onclose = (event) => done([...got, event.code]);
            })
            """
        )

        assert json.loads(scope)["http_version"] == "2"
        assert json.loads(scope)["scheme"] == "wss"
        assert (echoed, code) == ("hello " * 50000, 4000)
        assert tab.faults == []
