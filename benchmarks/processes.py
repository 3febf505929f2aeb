"""
A server's process: started on one core, awaited, read in /proc, ended by its own process id.
"""

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.client import Request, ask

START_S = 30.0
STOP_S = 5.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1

# As client.ask(): port, certificate, request, seconds to wait.
Ask = Callable[[int, Path | None, Request, float], None]

# Below the range that the kernel takes client ports from (32768 and up): no load connection is in the way.
PORTS = range(20_000, 30_000)


class ServerError(Exception):
    """
    A server did not start, answered wrongly or went away; the message says which and shows its last words.
    """


class Cores:
    """
    Which core serves and which core makes the load; the same one if there is only one.
    """

    def __init__(self) -> None:
        allowed = sorted(os.sched_getaffinity(0))
        # Interrupts favour the first core, so the server gets the last.
        self.load, self.server = allowed[0], allowed[-1]

    def take_load(self) -> None:
        """
        Pin this process, and so every load generator it starts, to the load core.
        """
        os.sched_setaffinity(0, {self.load})


def free_port() -> int:
    """
    A loopback port that nobody listens on.
    """
    for port in random.sample(PORTS, 100):
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port found on 127.0.0.1")


class ServerProcess:
    """
    One running server. Used as a context manager, so that it is ended however the block is left.

    words: the whole command line; it listens on *port*.
    certificate: what clients are to trust, if it speaks TLS.
    folder: working directory, where the application, the certificate and the log are.
    """

    def __init__(self, words: list[str], port: int, certificate: Path | None, folder: Path, core: int) -> None:
        self.port = port
        self.certificate = certificate
        self.folder = folder
        self.log = folder / f"{port}.log"
        self.stopped = False
        self.started = time.perf_counter()
        with self.log.open("wb") as log:
            # Its own session: a Ctrl-C at the terminal reaches this command only, which ends the servers.
            self.popen = subprocess.Popen(
                words,
                cwd=folder,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=pinned(core),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def await_answer(self, request: Request, pause_s: float = 0.02, how: Ask = ask) -> float:
        """
        Wait until the server answers *request*, asked *how*, and return the seconds since its start.

        Raises ServerError if it ends or is silent for START_S.
        """
        deadline = self.started + START_S
        while time.perf_counter() < deadline:
            if self.popen.poll() is not None:
                raise ServerError(f"ended with status {self.popen.returncode}\n{self.last_words()}")
            try:
                how(self.port, self.certificate, request, START_S)
            except OSError:
                time.sleep(pause_s)
            else:
                return time.perf_counter() - self.started
        raise ServerError(f"no answer within {START_S:g} s\n{self.last_words()}")

    def last_words(self) -> str:
        """
        The end of what the server wrote to its standard streams.
        """
        text = self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-12:])

    def cpu_s(self) -> float:
        """
        CPU seconds, user and system, of the server and all its children so far.
        """
        # Fields 14 to 17 in proc(5): utime, stime, and both of the children that have ended.
        return sum(sum(map(int, fields[11:15])) for fields in self.tree().values()) * TICK_S

    def rss_bytes(self) -> int:
        """
        Resident memory of the server and all its children now.
        """
        # Not from stat or statm, which sum per-core counters and may be off by hundreds of KiB.
        total = 0
        for pid in self.tree():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def tree(self) -> dict[int, list[str]]:
        """
        What stat() tells of the server and of all that it has started, by process id.
        """
        # Known by their session, which the server leads: that finds a worker whose parent has ended, too.
        session = str(self.popen.pid)
        found = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal() and (fields := stat(int(entry.name))) and fields[3] == session:
                found[int(entry.name)] = fields
        return found

    def stop(self) -> None:
        """
        End the server: SIGTERM, and SIGKILL to whatever of its process tree is left after STOP_S.
        """
        if self.stopped:
            return
        self.stopped = True
        born = {pid: fields[19] for pid, fields in self.tree().items()}
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait(STOP_S)
        for pid, start_time in born.items():
            kill_orphan(pid, start_time)


def stat(pid: int) -> list[str]:
    """
    The fields of /proc/PID/stat from the third on, the state; empty if there is no such process.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The second field, the name in parentheses, may itself hold blanks and parentheses.
    return text[text.rindex(")") + 2 :].split()


def kill_orphan(pid: int, start_time: str) -> None:
    """
    Kill *pid* if it still is the process that started at *start_time*, field 22 of its stat.
    """
    fields = stat(pid)
    if fields and fields[19] == start_time:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pinned(core: int) -> Callable[[], None]:
    """
    What the child does between fork and exec.

    It takes its core, and asks to be ended should this command be killed outright.
    """
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


def environment(folder: Path) -> dict[str, str]:
    """
    The servers' environment variables: ours less what would change how Python or a server behaves.
    """
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")}
    return {**kept, "PYTHONPATH": str(folder)}
