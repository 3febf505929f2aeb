"""
Runs a scenario: starts the servers, takes the rounds in turn, keeps each server's fastest command line.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path

from benchmarks.client import WrongAnswerError
from benchmarks.environments import programs
from benchmarks.measure import Load, MeasureError
from benchmarks.processes import Cores, ServerError, ServerProcess, free_port
from benchmarks.results import Comparison, Result
from benchmarks.scenarios import Scenario
from benchmarks.servers import HYPERCORN_FILE, HYPERCORN_SETTINGS, TLS_DOORS, CommandLine, Server

APP_MODULE = "benchmark_apps"
WARM_UP_S = 1

# What a server or its load may do wrong. It ends that server's part in the scenario and is reported there.
FAILURES = (WrongAnswerError, ServerError, MeasureError, OSError, subprocess.SubprocessError)


@dataclass(frozen=True, slots=True)
class Stage:
    """
    Where the servers run: a working directory with the application and the certificate, and a core.
    """

    folder: Path
    cores: Cores

    def set(self) -> None:
        """
        Put the files in place.
        """
        shutil.copy(Path(__file__).parent / "apps.py", self.folder / f"{APP_MODULE}.py")
        (self.folder / HYPERCORN_FILE).write_text(HYPERCORN_SETTINGS)
        make_certificate(self.folder)

    def start(self, server: Server, line: CommandLine, scenario: Scenario) -> ServerProcess:
        """
        Start *server* for *scenario*; not awaited.
        """
        port = free_port()
        words = line.words(programs(server), port, f"{APP_MODULE}:{scenario.app}", self.folder)
        certificate = self.folder / "cert.pem" if scenario.door in TLS_DOORS else None
        return ServerProcess(words, port, certificate, self.folder, self.cores.server)


def make_certificate(folder: Path) -> None:
    """
    cert.pem and key.pem for every server, self-signed, ECDSA on P-256: what a site with a recent certificate has.
    """
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*words.split(), *names, *files], check=True, capture_output=True, timeout=30)


def tell(text: str) -> None:
    """
    Progress, for whoever waits; not part of the report.
    """
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Candidate:
    """
    One command line of a server, on its way through the rounds.
    """

    server: Server
    line: CommandLine
    result: Result


def compare(scenario: Scenario, servers: list[Server], stage: Stage, rounds: int, load: Load) -> Comparison:
    """
    Measure *scenario* for all *servers* that can do it, with every command line that they have for it.
    """
    candidates = [
        Candidate(server, line, Result(server.name, line.name, " ".join(line.text.split())))
        for server in servers
        for line in server.doors.get(scenario.door, ())
    ]
    if scenario.measure.fresh_starts:
        with_new_processes(scenario, candidates, stage, load)
    else:
        with_kept_processes(scenario, candidates, stage, rounds, load)
    results = [candidate.result for candidate in candidates]
    taking_part = [server.name for server in servers if scenario.door in server.doors]
    return Comparison(scenario, [fastest(results, name) for name in taking_part])


def fastest(results: list[Result], server: str) -> Result:
    """
    Of the results of *server*, one for each command line, that of the lowest cost.
    """
    own = [result for result in results if result.server == server]
    best = min(own, key=lambda result: result.cost if result.measured else inf)
    if len(own) > 1:
        best.choice = {result.command: result.cost if result.measured else None for result in own}
    return best


def with_kept_processes(scenario: Scenario, candidates: list[Candidate], stage: Stage, rounds: int, load: Load) -> None:
    """
    All servers up at once, each round a turn of every one; the others idle on the same core meanwhile.
    """
    with ExitStack() as stack:
        running = []
        for candidate in candidates:
            with noted(candidate, "start"):
                process = stack.enter_context(stage.start(candidate.server, candidate.line, scenario))
                scenario.measure.check(process)
                running.append((process, candidate))
        for number in range(1, rounds + 1):
            # Every other round goes backwards, so that nobody always comes after the same neighbour.
            for process, candidate in running if number % 2 else reversed(running):
                if candidate.result.failure is None:
                    with noted(candidate, f"round {number}", process):
                        scenario.measure.sample(process, Load(WARM_UP_S, load.connections))
                        take(scenario, process, candidate, load, number)


def with_new_processes(scenario: Scenario, candidates: list[Candidate], stage: Stage, load: Load) -> None:
    """
    One server up at a time, a new process for each sample and one before them that is only checked.
    """
    for number in range(scenario.measure.fresh_starts + 1):
        for candidate in candidates if number % 2 else reversed(candidates):
            if candidate.result.failure is None:
                with (
                    noted(candidate, f"round {number}"),
                    stage.start(candidate.server, candidate.line, scenario) as process,
                ):
                    if number:
                        take(scenario, process, candidate, load, number)
                    else:
                        scenario.measure.check(process)


def take(scenario: Scenario, process: ServerProcess, candidate: Candidate, load: Load, number: int) -> None:
    """
    One sample of *candidate*, which runs as *process*.
    """
    sample = scenario.measure.sample(process, load)
    candidate.result.samples.append(sample)
    name = f"{candidate.server.name} ({candidate.line.name})"
    tell(f"  round {number} {name}: {sample.cost:.4g} {scenario.measure.unit}")


@contextmanager
def noted(candidate: Candidate, when: str, process: ServerProcess | None = None) -> Iterator[None]:
    """
    Whatever goes wrong inside becomes the candidate's failure, and the others go on.
    """
    try:
        yield
    except FAILURES as error:
        failure = f"{when}: {error}"
        if process is not None and process.popen.poll() is not None:
            failure += f"\nended with status {process.popen.returncode}\n{process.last_words()}"
        candidate.result.failure = failure
        tell(f"  {candidate.server.name} ({candidate.line.name}) fails, {failure}")
