"""
The scenarios: one table. A new one is a row here, and a Measure if it needs another kind of load.
"""

import json
from dataclasses import dataclass

from benchmarks.apps import CHUNK, CHUNKS, DOCUMENT, HELLO, LARGE
from benchmarks.client import Request
from benchmarks.lifetimes import FirstAnswer, IdleMemory
from benchmarks.load_h2 import H2Load
from benchmarks.load_tls import HandshakeLoad
from benchmarks.load_wrk import WrkLoad
from benchmarks.load_ws import EchoLoad
from benchmarks.measure import Measure
from benchmarks.servers import Door


@dataclass(frozen=True, slots=True)
class Scenario:
    """
    One thing to measure.

    app: name of the application in apps.py.
    door: which command lines of a server it needs.
    """

    name: str
    title: str
    app: str
    door: Door
    measure: Measure


# Chrome on Linux asking for a page in a site that it has been to: twelve fields with the Host that wrk adds.
BROWSER = {
    "Connection": "keep-alive",
    "Cache-Control": "max-age=0",
    "Upgrade-Insecure-Requests": "1",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "navigate",
    "Referer": "http://127.0.0.1/articles/2024/index.html",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cookie": "sessionid=4f0a9c1b7e2d4f0a9c1b7e2d4f0a9c1b; csrftoken=Zx81kQpLw0vTn5RrYb3uHc7EaSd2Gf6J",
}

HELLO_REQUEST = Request(length=len(HELLO), answer=HELLO)
BROWSER_REQUEST = Request(length=len(HELLO), answer=HELLO, headers=BROWSER)
JSON_BODY = json.dumps(DOCUMENT).encode()
JSON_REQUEST = Request(length=len(JSON_BODY), answer=JSON_BODY)
POSTED = b"x" * 64 * 1024
POST_REQUEST = Request(length=5, answer=b"65536", method="POST", body=POSTED)
LARGE_REQUEST = Request(length=len(LARGE))
# Zeros that are nowhere in memory until they are read.
UPLOADED = bytes(100 * 1024 * 1024)
UPLOAD_REQUEST = Request(length=9, answer=b"104857600", method="POST", body=UPLOADED)
STREAM_REQUEST = Request(length=CHUNKS * len(CHUNK), answer=CHUNKS * CHUNK)

SCENARIOS = (
    Scenario("get", "GET, 13 bytes", "hello", "http", WrkLoad(HELLO_REQUEST)),
    Scenario("get-browser", "GET with a browser's 12 headers", "hello", "http", WrkLoad(BROWSER_REQUEST)),
    Scenario("json", "JSON, 1 KiB", "json", "http", WrkLoad(JSON_REQUEST)),
    Scenario("post", "POST, 64 KiB", "length", "http", WrkLoad(POST_REQUEST)),
    Scenario("large", "answer of 1 MiB in one message", "large", "http", WrkLoad(LARGE_REQUEST)),
    Scenario("stream", "answer of 16 chunks of 4 KiB", "stream", "http", WrkLoad(STREAM_REQUEST)),
    Scenario("tls", "GET over TLS, 13 bytes", "hello", "tls", WrkLoad(HELLO_REQUEST)),
    Scenario("tls-large", "answer of 1 MiB over TLS", "large", "tls", WrkLoad(LARGE_REQUEST)),
    Scenario("tls-handshake", "full TLS handshake and one GET", "hello", "tls", HandshakeLoad(HELLO_REQUEST)),
    Scenario("h2", "GET over HTTP/2, 10 streams", "hello", "h2", H2Load(HELLO_REQUEST, 10)),
    Scenario("h2-one", "GET over HTTP/2, 1 stream", "hello", "h2", H2Load(HELLO_REQUEST, 1)),
    Scenario("h2-large", "answer of 1 MiB over HTTP/2", "large", "h2", H2Load(LARGE_REQUEST, 10, connections=4)),
    Scenario("h2-upload", "upload of 100 MiB over HTTP/2", "count", "h2", H2Load(UPLOAD_REQUEST, 1, connections=1)),
    Scenario("h2-tls", "GET over HTTP/2 and TLS, 10 streams", "hello", "h2-tls", H2Load(HELLO_REQUEST, 10)),
    Scenario(
        "h2-tls-large",
        "answer of 1 MiB over HTTP/2 and TLS",
        "large",
        "h2-tls",
        H2Load(LARGE_REQUEST, 10, connections=4),
    ),
    Scenario("ws-32", "WebSocket echo, 32 bytes", "echo", "websocket", EchoLoad(32)),
    Scenario("ws-4096", "WebSocket echo, 4 KiB", "echo", "websocket", EchoLoad(4096)),
    Scenario("idle", "idle keep-alive connection, 3,000 open", "hello", "http", IdleMemory(HELLO_REQUEST)),
    Scenario("start", "process start to first answer", "hello", "http", FirstAnswer(HELLO_REQUEST)),
)
