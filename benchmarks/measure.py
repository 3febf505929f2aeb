"""
What a measurement is: the contract between scenarios and rounds.
"""

from dataclasses import dataclass
from typing import Protocol

from benchmarks.processes import ServerProcess


class MeasureError(Exception):
    """
    The load did not run as it should; the message says how.
    """


@dataclass(frozen=True, slots=True)
class Load:
    """
    How hard and how long one sample is: whole seconds, and connections held open meanwhile.
    """

    seconds: int
    connections: int


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One server's figures in one round.

    cost: in the unit of the measure; less is better. Ratios and limits are about this.
    busy: share of its core that the server used; well below 1, the load was the bottleneck and per_second
        means little.
    """

    cost: float
    per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    busy: float | None = None
    errors: int = 0

    @property
    def per_cpu_second(self) -> float | None:
        """
        What a second of the server's CPU does; None if the cost is no CPU time.
        """
        return None if self.busy is None or not self.cost else 1e6 / self.cost


class Measure(Protocol):
    """
    A way to take samples of a running server.

    unit: of Sample.cost, for the reader.
    fresh_starts: 0 if one process is kept through all rounds; it is checked first, and each sample follows a
        short one that is thrown away. Otherwise the number of rounds, whatever was asked for, each with a new
        process that is handed to sample() just started and not awaited, after one that was only checked.
    """

    @property
    def unit(self) -> str: ...

    @property
    def fresh_starts(self) -> int: ...

    def check(self, server: ServerProcess) -> None:
        """
        Wait for the server to answer and to do the scenario's work right.

        Raises WrongAnswerError, ServerError or OSError.
        """

    def sample(self, server: ServerProcess, load: Load) -> Sample:
        """
        Measure once. Raises MeasureError, WrongAnswerError, ServerError or OSError.
        """


def cost_of_load(server: ServerProcess, cpu_s: float, wall_s: float, done: int) -> tuple[float, float]:
    """
    CPU microseconds for each of *done* requests, and share of the core, since cpu_s was read *wall_s* ago.
    """
    if not done:
        raise MeasureError("not one request was completed")
    used = server.cpu_s() - cpu_s
    return used / done * 1e6, used / wall_s
