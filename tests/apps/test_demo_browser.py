"""
The demo application as a person meets it: the server as a process, the page in a headless Chromium.

Chromium is driven over its debugging port, not with --dump-dom and virtual time: virtual time stands still
while a request is in the air, and the clock's never ends.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import IO, Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_S = 30.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"),
]

# What a person waits for, then does, then waits for; the document as it then stands.
VISIT = """
new Promise((done) => {
  const $ = (selector) => document.querySelector(selector);
  const echoes = () => [...document.querySelectorAll("#echo-log .echo .what")].map((e) => e.textContent);
  const said = (text) => echoes().includes(text);
  const steps = [
    () => said("hello from the page") && Number($("#clock-tick").textContent) >= 2,
    () => { $("#echo-text").value = "typed <b>by hand</b>"; $("#echo-form").requestSubmit(); return true; },
    () => said("typed <b>by hand</b>"),
    () => { $("#upload-random").click(); return true; },
    () => $("#upload-state").dataset.state === "good",
    () => { $("#close-code").value = "4001"; $("#close-form").requestSubmit(); return true; },
    () => $("#echo-log .said"),
  ];
  const poll = setInterval(() => {
    while (steps.length && steps[0]()) steps.shift();
    if (steps.length) return;
    clearInterval(poll);
    done(document.documentElement.outerHTML);
  }, 20);
})
"""


@contextmanager
def process(command: list[str]) -> Iterator[IO[str]]:
    """
    Run *command*; its standard error. It is asked to end, and made to if it does not.
    """
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as running:
        assert running.stderr is not None
        try:
            yield running.stderr
        finally:
            running.terminate()
            try:
                running.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                running.kill()


def announced(stream: IO[str], pattern: str) -> str:
    """
    What *pattern* finds first in the lines of *stream*; the rest is read and dropped, so that none blocks.
    """
    found: Queue[str] = Queue()
    seen: list[str] = []

    def read() -> None:
        for line in stream:
            seen.append(line)
            if match := re.search(pattern, line):
                found.put(match[0])
        found.put("")

    Thread(target=read, daemon=True).start()
    first = found.get(timeout=PATIENCE_S)
    assert first, f"{pattern!r} never came; standard error was:\n{''.join(seen)}"
    return first


class Tab:
    """
    One page of a browser, driven with its DevTools protocol.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.ids = count(1)
        self.session: dict[str, str] = {}
        self.faults: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def visit(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"]["value"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.ids)
        self.connection.send(json.dumps({"id": number, "method": method, "params": params} | self.session))
        while (message := self._next()).get("id") != number:
            pass
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.connection.recv(timeout=PATIENCE_S))
        if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.faults.append(message["params"])
        return message


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    assert CHROMIUM is not None
    quiet = ["disable-background-networking", "disable-component-update", "disable-sync", "disable-quic"]
    flags = ["headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run", *quiet]
    # The one of --dev-tls is nobody's.
    flags += ["ignore-certificate-errors"]
    flags += ["remote-debugging-port=0", f"user-data-dir={tmp_path / 'profile'}"]
    with (
        process([CHROMIUM, *(f"--{flag}" for flag in flags), "about:blank"]) as stderr,
        connect(announced(stderr, r"ws://127\.0\.0\.1:\S+"), max_size=None) as connection,
    ):
        yield Tab(connection)


@pytest.fixture(params=[[], ["--dev-tls"]], ids=["plain", "TLS"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    server = ["-m", "txasgi", "--port", "0", *request.param, "txasgi.apps.demo:app"]
    with process([sys.executable, *server]) as stderr:
        scheme = "https" if request.param else "http"
        yield announced(stderr, scheme + r"://127\.0\.0\.1:[1-9]\d*") + "/"


def test_page_in_a_browser(url: str, tab: Tab) -> None:
    """
    The scope is shown, the clock ticks, messages come back, an upload is counted, and a close has its code.
    """
    tab.visit(url)
    page = tab.evaluate(VISIT)

    assert '<th scope="row">method</th><td><code>GET</code></td>' in page
    assert '<th scope="row">user-agent</th>' in page
    assert re.search(r'<time id="clock-time" datetime="\d{4}-.*?Z">\d\d:\d\d:\d\d</time>', page)
    for text in ("hello from the page", "typed &lt;b&gt;by hand&lt;/b&gt;"):
        assert re.search(rf'<span class="what">{re.escape(text)}</span><span class="ms">\d+\.\d ms</span>', page)
    assert "all 10,000,000 bytes arrived" in page
    assert "closed with code 4001" in page
    assert tab.faults == []
