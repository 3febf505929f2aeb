"""
HTTP/1.1 load by wrk: one thread, so many connections, each with one request at a time.
"""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Request, ask
from benchmarks.measure import Load, MeasureError, Sample, cost_of_load
from benchmarks.processes import ServerProcess

INSTALL_WRK = "wrk is needed to make load: apt-get install wrk"

# wrk reports for people; its Lua hook writes the same for us on a line of its own. Times are in microseconds.
REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n@{"done":%d,"us":%d,"p50":%d,"p99":%d,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"""

# wrk ends by closing connections in the middle of an answer, which is no error; one in a thousand is more.
ERRORS_ALLOWED = 0.001


def wrk_version() -> str:
    """
    The version that wrk tells. Raises MeasureError if there is no wrk.
    """
    if shutil.which("wrk") is None:
        raise MeasureError(INSTALL_WRK)
    done = subprocess.run(["wrk", "--version"], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.split(" [")[0].removeprefix("wrk ").strip()


def script(request: Request) -> str:
    """
    The Lua script that makes wrk send *request*. wrk builds the bytes once, not for each request.
    """
    lines = [f"wrk.method = {quoted(request.method)}"]
    lines += [f"wrk.headers[{quoted(name)}] = {quoted(value)}" for name, value in request.headers.items()]
    if request.body:
        lines.append(f"wrk.body = {quoted(request.body.decode('ascii'))}")
    return "\n".join(lines) + REPORT


def quoted(text: str) -> str:
    """
    A Lua string literal of plain ASCII.
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@dataclass(frozen=True, slots=True)
class WrkLoad:
    """
    CPU per request, throughput and latency under wrk.
    """

    request: Request
    unit: str = "µs CPU per request"
    fresh_starts: int = 0

    def check(self, server: ServerProcess) -> None:
        """
        The answer is right twice over one connection.
        """
        server.await_answer(self.request)
        ask(server.port, server.certificate, self.request, timeout_s=10, times=2)

    def sample(self, server: ServerProcess, load: Load) -> Sample:
        """
        Run wrk once.
        """
        file = server.folder / f"{server.port}.lua"
        file.write_text(script(self.request))
        scheme = "https" if server.certificate else "http"
        url = f"{scheme}://127.0.0.1:{server.port}{self.request.path}"
        cpu_s, started = server.cpu_s(), time.perf_counter()
        found = run(url, file, load)
        cost, busy = cost_of_load(server, cpu_s, time.perf_counter() - started, found["done"])
        errors = sum(found[kind] for kind in ("connect", "read", "write", "status", "timeout"))
        if found["status"] or errors > found["done"] * ERRORS_ALLOWED:
            raise MeasureError(f"errors under load: {found}")
        per_second = found["done"] / found["us"] * 1e6
        return Sample(cost, per_second, found["p50"] / 1000, found["p99"] / 1000, busy, errors)


def run(url: str, file: Path, load: Load) -> dict[str, int]:
    """
    What wrk counted, by the names of REPORT.
    """
    words = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(load.connections),
        "--duration",
        f"{load.seconds}s",
    ]
    done = subprocess.run(
        [*words, "--script", str(file), url],
        capture_output=True,
        text=True,
        timeout=load.seconds + 30,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith("@"):
            found: dict[str, int] = json.loads(line[1:])
            return found
    raise MeasureError(f"wrk told nothing: {done.stdout[-300:]}{done.stderr[-300:]}")
