"""
What was measured, and the arithmetic on it: medians, and ratios taken round by round.
"""

from dataclasses import dataclass, field
from statistics import median

from benchmarks.measure import Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import SUBJECT


@dataclass(slots=True)
class Result:
    """
    One command line of one server in one scenario.

    command, words: name and text of the command line.
    choice: if the server has several, the cost of each by name, None if it failed; this one is the fastest.
    failure: why there are no more samples. A result with a failure counts as not measured.
    """

    server: str
    command: str
    words: str
    choice: dict[str, float | None] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    @property
    def measured(self) -> bool:
        """
        Whether the figures count.
        """
        return self.failure is None and bool(self.samples)

    @property
    def cost(self) -> float:
        """
        The median cost; only of a result that is measured.
        """
        return median(sample.cost for sample in self.samples)

    def middle(self, name: str) -> float | None:
        """
        The median of another figure of the samples, by its name there; None if there is no such figure.
        """
        values = [value for sample in self.samples if (value := getattr(sample, name)) is not None]
        return median(values) if values else None


@dataclass(frozen=True, slots=True)
class Ratio:
    """
    Cost of the subject by that of a peer: the median of the rounds, and the lowest and highest.
    """

    middle: float
    low: float
    high: float


@dataclass(slots=True)
class Comparison:
    """
    One scenario with the results of all servers that take part.
    """

    scenario: Scenario
    results: list[Result]

    def result(self, server: str) -> Result | None:
        """
        The result of *server* if it was measured.
        """
        return next((found for found in self.results if found.server == server and found.measured), None)

    def ratio(self, peer: str) -> Ratio | None:
        """
        txasgi by *peer*, each round's samples against each other; None unless both were measured.
        """
        ours, theirs = self.result(SUBJECT), self.result(peer)
        if ours is None or theirs is None or peer == SUBJECT:
            return None
        ratios = [
            mine.cost / other.cost for mine, other in zip(ours.samples, theirs.samples, strict=False) if other.cost > 0
        ]
        return Ratio(median(ratios), min(ratios), max(ratios)) if ratios else None

    def best(self, peers: tuple[str, ...]) -> str | None:
        """
        The peer with the lowest cost among *peers*, or None unless all of them were measured.
        """
        found = [result for peer in peers if (result := self.result(peer)) is not None]
        if len(found) < len(peers):
            return None
        return min(found, key=lambda result: result.cost).server
