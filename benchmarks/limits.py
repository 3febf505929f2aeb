"""
The numbers to hold, section 6 of the design, as one table.

They are reported, never asserted: no time fails a test.
"""

from dataclasses import dataclass
from typing import Literal

from benchmarks.results import Comparison, Ratio

Verdict = Literal["held", "missed", "not measured"]


@dataclass(frozen=True, slots=True)
class Limit:
    """
    In a scenario, txasgi's cost is *at_most* so many times that of the best of some peers.
    """

    scenario: str
    peers: tuple[str, ...]
    at_most: float


LIMITS = (
    Limit("get", ("granian",), 0.75),
    Limit("get", ("uvicorn",), 0.50),
    Limit("get-browser", ("granian",), 0.75),
    Limit("get-browser", ("uvicorn",), 0.50),
    Limit("json", ("uvicorn", "granian"), 1.0),
    Limit("post", ("uvicorn", "granian"), 1.0),
    Limit("large", ("uvicorn", "granian"), 1.0),
    Limit("stream", ("uvicorn", "granian"), 1.0),
    Limit("tls", ("granian",), 0.95),
    Limit("tls-large", ("uvicorn", "granian"), 1.0),
    Limit("tls-handshake", ("uvicorn", "granian"), 1.0),
    Limit("h2", ("granian",), 0.85),
    Limit("h2-one", ("granian",), 0.85),
    Limit("h2-large", ("granian",), 1.0),
    Limit("h2-tls", ("granian",), 0.85),
    Limit("h2-tls-large", ("granian",), 1.0),
    Limit("ws-32", ("uvicorn",), 0.65),
    Limit("ws-4096", ("uvicorn",), 0.65),
    Limit("idle", ("uvicorn",), 1.0),
    Limit("idle", ("granian",), 1.0),
    Limit("start", ("daphne",), 1.0),
)


@dataclass(frozen=True, slots=True)
class Judged:
    """
    A limit after the rounds. peer is the best one, whose ratio counts.
    """

    limit: Limit
    peer: str | None
    ratio: Ratio | None

    @property
    def verdict(self) -> Verdict:
        """
        By the median of the rounds; the range says how sure that is.
        """
        if self.ratio is None:
            return "not measured"
        return "held" if self.ratio.middle <= self.limit.at_most else "missed"


def judge(comparison: Comparison) -> list[Judged]:
    """
    Every limit on the scenario of *comparison*.
    """
    judged = []
    for limit in LIMITS:
        if limit.scenario == comparison.scenario.name:
            peer = comparison.best(limit.peers)
            judged.append(Judged(limit, peer, comparison.ratio(peer) if peer else None))
    return judged
