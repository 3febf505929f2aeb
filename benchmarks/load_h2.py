"""
HTTP/2 load by h2load: one thread, so many connections, each with so many streams at a time.

A sample is a number of requests, all of them answered, and takes about as long as it should: the number is what
the server did in its last run, by the second. To stop h2load after a time would break off a request on every
stream, and the server's work on these could be neither counted nor left out: 10 % of all, where a server is slow.
"""

import re
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.client import Request, WrongAnswerError
from benchmarks.measure import Load, MeasureError, Sample, cost_of_load
from benchmarks.processes import ServerProcess

INSTALL_H2LOAD = "h2load and nghttp are needed to make HTTP/2 load: apt-get install nghttp2-client"

# What the client lets come unacknowledged, of a stream and of a connection: 2**30 - 1 bytes. A server never waits.
WINDOW_BITS = "30"

# The file in the servers' folder that h2load sends, where a request has a body.
BODY_FILE = "h2-body"

ANSWER_S = 30.0

# Others may use the machine: the same number of requests may take several times as long as before.
SLOWER = 10

TOLD = re.compile(
    r"^Application protocol: (?P<protocol>\S+)\n.*"
    r"^finished in \S+, (?P<per_second>[\d.]+) req/s.*"
    r"^requests: (?P<total>\d+) total, (?P<started>\d+) started, (?P<done>\d+) done, (?P<succeeded>\d+) succeeded, "
    r"(?P<failed>\d+) failed, (?P<errored>\d+) errored, (?P<timeout>\d+) timeout\n"
    r"^status codes: (?P<status_2xx>\d+) 2xx.*"
    r"^traffic: [^\n]*\((?P<data>\d+)\) data$",
    re.MULTILINE | re.DOTALL,
)


def h2load_version() -> str:
    """
    The version that h2load tells. Raises MeasureError if there is no h2load or no nghttp.
    """
    if shutil.which("h2load") is None or shutil.which("nghttp") is None:
        raise MeasureError(INSTALL_H2LOAD)
    done = subprocess.run(["h2load", "--version"], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.strip().rpartition("/")[2]


def url(server_port: int, certificate: Path | None, request: Request) -> str:
    """
    Where *request* goes. Without a certificate it is HTTP/2 from the first byte.
    """
    return f"{'https' if certificate else 'http'}://127.0.0.1:{server_port}{request.path}"


def header_words(request: Request) -> list[str]:
    """
    The header options of nghttp and h2load.
    """
    return [f"--header={name}: {value}" for name, value in request.headers.items()]


def ask(port: int, certificate: Path | None, request: Request, timeout_s: float, times: int = 1) -> None:
    """
    Send *request* so many *times* over one connection, all at once, and check what was answered.

    By nghttp, which prints bodies and no status; that is left to h2load.
    Raises OSError if nothing was answered, WrongAnswerError if the answers are wrong.
    """
    words = ["nghttp", "--no-verify-peer", f"--multiply={times}", *header_words(request)]
    if request.body:
        words.append("--data=-")
    done = subprocess.run(
        [*words, url(port, certificate, request)],
        input=request.body,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    body = done.stdout
    if not body:
        raise ConnectionError(f"no answer: {done.stderr[-300:].decode(errors='replace')}")
    if len(body) != times * request.length:
        raise WrongAnswerError(f"{len(body)} bytes answered, expected {times} x {request.length}: {body[:80]!r}")
    if request.answer is not None and body != times * request.answer:
        raise WrongAnswerError(f"{body[:80]!r} answered, expected {times} x {request.answer[:80]!r}")


@dataclass(frozen=True, slots=True)
class H2Load:
    """
    CPU per request, throughput and latency under h2load.

    streams: requests at a time on each connection.
    connections: fewer than the command says, if not None.
    paces: requests a second in the last run, by the server's port.
    """

    request: Request
    streams: int
    connections: int | None = None
    unit: str = "µs CPU per request"
    fresh_starts: int = 0
    paces: dict[int, float] = field(default_factory=dict, compare=False)

    def check(self, server: ServerProcess) -> None:
        """
        The answer is right, once and then twice over one connection.
        """
        server.await_answer(self.request, how=ask)
        ask(server.port, server.certificate, self.request, ANSWER_S, times=2)
        if self.request.body:
            (server.folder / BODY_FILE).write_bytes(self.request.body)

    def sample(self, server: ServerProcess, load: Load) -> Sample:
        """
        Run h2load once, or twice if this server's pace is not known yet: then first for a time.
        """
        connections = min(self.connections or load.connections, load.connections)
        pace = self.paces.get(server.port)
        if pace is None:
            pace = self.run(server, connections, load, [f"--duration={load.seconds}s"])["per_second"]
        requests = max(connections * self.streams, round(pace * load.seconds))
        log = server.folder / f"{server.port}.h2load"
        log.unlink(missing_ok=True)
        cpu_s, started = server.cpu_s(), time.perf_counter()
        found = self.run(server, connections, load, [f"--requests={requests}", f"--log-file={log}"])
        wall_s = time.perf_counter() - started
        check_counts(found, requests, requests * self.request.length)
        cost, busy = cost_of_load(server, cpu_s, wall_s, requests)
        self.paces[server.port] = found["per_second"]
        ranked = sorted(latencies_us(log, requests))
        p50, p99 = ranked[len(ranked) // 2] / 1000, ranked[len(ranked) * 99 // 100] / 1000
        return Sample(cost, found["per_second"], p50, p99, busy)

    def run(self, server: ServerProcess, connections: int, load: Load, amount: list[str]) -> dict[str, float]:
        """
        What h2load counted, by the names of TOLD. *amount* says when it ends.

        Raises MeasureError if a request ended otherwise than with 2xx or not at all, or if it was not HTTP/2.
        """
        words = ["h2load", "--threads=1", f"--clients={connections}", f"--max-concurrent-streams={self.streams}"]
        words += [f"--window-bits={WINDOW_BITS}", f"--connection-window-bits={WINDOW_BITS}", "--npn-list=h2"]
        words += header_words(self.request)
        if self.request.body:
            words.append(f"--data={server.folder / BODY_FILE}")
        words += [*amount, url(server.port, server.certificate, self.request)]
        limit_s = load.seconds * SLOWER + ANSWER_S
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired as error:
            raise MeasureError(f"h2load still waited for answers after {limit_s:g} s") from error
        return counts(done.stdout, done.stderr)


def counts(output: str, errors: str) -> dict[str, float]:
    """
    The numbers in the *output* of h2load.

    Raises MeasureError if they are not there, or tell of another protocol or of requests that went wrong.
    """
    told = TOLD.search(output)
    if told is None:
        raise MeasureError(f"h2load told nothing: {output[-300:]}{errors[-300:]}")
    found = told.groupdict()
    protocol = found.pop("protocol")
    if protocol not in ("h2", "h2c"):
        raise MeasureError(f"the server took {protocol}")
    numbers = {name: float(value) for name, value in found.items()}
    # The status is counted when it comes: of requests that were broken off, too.
    if numbers["done"] != numbers["succeeded"] or numbers["errored"] or numbers["status_2xx"] < numbers["done"]:
        raise MeasureError(f"not all requests ended with 2xx: {found}")
    return numbers


def check_counts(found: dict[str, float], requests: int, data: int) -> None:
    """
    Raise MeasureError unless so many *requests* ended, with 2xx, and their bodies together have *data* bytes.
    """
    if not requests == found["total"] == found["done"] == found["status_2xx"]:
        raise MeasureError(f"of {requests} requests not all ended with 2xx: {found}")
    if found["data"] != data:
        raise MeasureError(f"{found['data']:.0f} bytes of bodies came, expected {data}")


def latencies_us(log: Path, requests: int) -> list[int]:
    """
    What each of so many *requests* took until its answer was whole, from the log of h2load.
    """
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    statuses = {status for _, status, _ in rows}
    if len(rows) != requests or statuses != {"200"}:
        raise MeasureError(f"{len(rows)} of {requests} requests are in the log of h2load, with status {statuses}")
    return [int(took) for _, _, took in rows]
