"""A server process for one application: started, asked, watched and ended."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
from tests.frameworks.peers import DEADLINE_S, Dialogue
from websockets.sync.client import ClientConnection, connect

APPS = Path(__file__).parent / "apps"

TRACEBACK = re.compile(r"^.*Traceback \(most recent call last\).*$", re.MULTILINE)

# A traceback below the line that chains it to the one before, or below "---- 1 ----" in a group.
JOINED_TRACEBACK = re.compile(
    r"\n[ |]*(?:The above exception was|During handling of)[^\n]*\n[ |]*\n[^\n]*Traceback \(most recent[^\n]*"
    r"|\n[ |+-]*- \d+ -+\n[ |]*Traceback \(most recent[^\n]*"
)


class Lines:
    """
    The lines that another process writes into a pipe, kept in order.

    A thread reads them, so that waiting for one is waiting for a condition and not for a time.
    """

    def __init__(self, pipe: IO[str], copy: Path | None = None) -> None:
        self._pipe = pipe
        self._copy = copy
        self._lines: list[str] = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._pipe, open(self._copy or os.devnull, "a", encoding="utf-8") as copy:
            for line in self._pipe:
                copy.write(line)
                copy.flush()
                with self._changed:
                    self._lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def first(self, wanted: Callable[[str], object], what: str, within_s: float = DEADLINE_S) -> str:
        """
        Wait for the first line that is *wanted* and return it; *what* names it in the failure.
        """
        deadline = time.monotonic() + within_s
        seen = 0
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if wanted(line):
                        return line
                seen = len(self._lines)
                left_s = deadline - time.monotonic()
                if self._ended or left_s <= 0:
                    why = "the process ended" if self._ended else f"waited {within_s} s"
                    raise AssertionError(f"no {what}: {why}; the last are:\n{self.text(last=20)}")
                self._changed.wait(left_s)

    def wait_for(self, line: str) -> None:
        """
        Wait until exactly this line has come.
        """
        self.first(line.__eq__, f"line {line!r}")

    def wait_for_end(self) -> None:
        """
        Wait until the process has closed its end, so that nothing can come any more.
        """
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), f"still open after {DEADLINE_S} s"

    def __contains__(self, line: str) -> bool:
        return line in self._lines

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._lines))

    def text(self, last: int = 0) -> str:
        """
        Everything so far, or the *last* lines of it.
        """
        return "\n".join(self._lines[-last:])


class Server:
    """
    One running server process and what it has said.

    log: standard error.
    notes: what the application has written with witness.note().
    """

    def __init__(self, application: str, options: tuple[str, ...], folder: Path) -> None:
        notes, notes_for_the_application = os.pipe()
        self.log_file = folder / "stderr.log"
        self.process = subprocess.Popen(
            command(application, options),
            cwd=folder,
            env={**os.environ, "NOTES_FD": str(notes_for_the_application), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="backslashreplace",
            pass_fds=(notes_for_the_application,),
        )
        os.close(notes_for_the_application)
        assert self.process.stderr is not None
        self.log = Lines(self.process.stderr, copy=self.log_file)
        self.notes = Lines(os.fdopen(notes, encoding="utf-8"))
        self.url = ""
        self._known: list[str] = []

    def wait_until_it_listens(self) -> None:
        """
        Learn the URL from the line that the server prints for its listener.
        """
        line = self.log.first(re.compile(r"https?://\S+").search, "line with the URL of a listener")
        self.url = line[line.index("http") :].split()[0].rstrip("/")

    @property
    def address(self) -> tuple[str, int]:
        """
        Where the server listens.
        """
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    def client(self) -> httpx.Client:
        """
        An HTTP client with its own connections, for a with statement.
        """
        return httpx.Client(base_url=self.url, timeout=DEADLINE_S, trust_env=False)

    def dial(self) -> Dialogue:
        """
        A TCP connection that is driven by hand.
        """
        return Dialogue(self.address)

    def websocket(self, path: str, **options: object) -> ClientConnection:
        """
        An open WebSocket; raises InvalidStatus where the server refuses.
        """
        settings = {
            "open_timeout": DEADLINE_S,
            "close_timeout": DEADLINE_S,
            "ping_interval": None,
            "proxy": None,
        }
        return connect(self.url.replace("http", "ws", 1) + path, **{**settings, **options})

    def cue(self, key: str) -> None:
        """
        Let the application go on where it waits for witness.cue(key).
        """
        with self.client() as client:
            assert client.post(f"/cue/{key}").status_code == 204

    def still_serves(self) -> None:
        """
        Assert that a new client is served and that what came before it has left no traceback.

        Each traceback fails only the first test that asks, and check_log() at the end.
        """
        with self.client() as client:
            assert client.get("/items/still").status_code == 200
        known, self._known = self._known, self.unexpected_tracebacks()
        assert self._known[len(known) :] == []

    def faults(self, key: str) -> int:
        """
        How many records of the log tell of the DeliberateFault with this key.

        A record begins with its time. Within one a task group may show the same fault twice, as Django's does.
        """
        return self.faults_told()[key]

    def faults_told(self) -> Counter[str]:
        """
        The records of the log that tell of a DeliberateFault, counted by key.
        """
        records = re.split(r"^(?=\d{4}-\d\d-\d\d )", self.log.text(), flags=re.MULTILINE)
        found = (set(re.findall(r"DeliberateFault: (.*)$", record, re.MULTILINE)) for record in records)
        return Counter(key for keys in found for key in keys)

    def unexpected_tracebacks(self) -> list[str]:
        """
        The tracebacks in the log that end in anything but a DeliberateFault.
        """
        return [found for found in tracebacks(self.log.text()) if "DeliberateFault: " not in found]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """
        End the process by its own pid and return its exit status, with all that it wrote read.
        """
        self.process.send_signal(how)
        return self.wait_until_it_has_ended()

    def wait_until_it_has_ended(self) -> int:
        """
        Return the exit status, with all that the process wrote read.
        """
        status = self.process.wait(DEADLINE_S)
        self.log.wait_for_end()
        self.notes.wait_for_end()
        return status

    def check_log(self) -> None:
        """
        Assert that the log has no unexpected traceback and tells of each fault exactly once.
        """
        assert self.unexpected_tracebacks() == []
        told = self.faults_told()
        assert dict.fromkeys(told, 1) == told


def command(application: str, options: tuple[str, ...]) -> list[str]:
    """
    The command line that serves *application* on a port of the system's choice.
    """
    listener = ["-e", "tcp:0:interface=127.0.0.1"]
    return [sys.executable, "-m", "txasgi", *listener, "--app-dir", str(APPS), *options, application]


def tracebacks(log: str) -> list[str]:
    """
    The tracebacks in a log; a chain or a group of exceptions counts as one.
    """
    return TRACEBACK.split(JOINED_TRACEBACK.sub("\n(joined)", log))[1:]


@contextmanager
def launched(application: str, *options: str, folder: Path) -> Iterator[Server]:
    """
    A server process in *folder* that is gone, one way or another, at the end of the with statement.
    """
    server = Server(application, options, folder)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.wait_until_it_has_ended()


@contextmanager
def running(application: str, *options: str, folder: Path) -> Iterator[Server]:
    """
    Serve *application* until the end of the with statement, then check how it ended and what it logged.
    """
    with launched(application, *options, folder=folder) as server:
        server.wait_until_it_listens()
        yield server
        if server.process.poll() is None:
            assert server.stop() == 0
        server.check_log()
