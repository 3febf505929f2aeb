"""
Results for people and for programs: the printed table, Markdown, JSON.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.limits import Judged, judge
from benchmarks.measure import Load
from benchmarks.results import Comparison, Ratio, Result
from benchmarks.servers import SUBJECT


@dataclass(slots=True)
class Report:
    """
    Everything that one run found.

    versions: of each server and of what it stands on, by server.
    """

    machine: dict[str, str]
    versions: dict[str, dict[str, str]]
    rounds: int
    load: Load
    comparisons: list[Comparison] = field(default_factory=list)


def number(value: float | None, digits: int = 3) -> str:
    """
    So many significant digits, thousands with commas, a dash for what was not measured.
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:#.{digits}g}"


def span(ratio: Ratio | None) -> str:
    """
    A ratio with its range.
    """
    return "-" if ratio is None else f"{ratio.middle:.2f} ({ratio.low:.2f}..{ratio.high:.2f})"


def verdicts(judged: list[Judged], server: str) -> str:
    """
    The limits that *server* is the peer of.
    """
    found = [one for one in judged if (one.peer == server if one.peer else server in one.limit.peers)]
    return ", ".join(f"<= {one.limit.at_most:.2f} {one.verdict}" for one in found)


COLUMNS = ("server", "", "per second", "per CPU s", "p50 ms", "p99 ms", "busy", "txasgi/peer", "limit")


def row(comparison: Comparison, result: Result, judged: list[Judged]) -> list[str]:
    """
    One server's cells, as COLUMNS has them.
    """
    busy = result.middle("busy")
    return [
        result.server + (f" ({result.command})" if result.choice else ""),
        number(result.cost),
        number(result.middle("per_second")),
        number(result.middle("per_cpu_second")),
        number(result.middle("p50_ms")),
        number(result.middle("p99_ms")),
        "-" if busy is None else f"{busy:.0%}",
        span(comparison.ratio(result.server)),
        verdicts(judged, result.server),
    ]


def table(comparison: Comparison) -> str:
    """
    One scenario as printed text.
    """
    unit = comparison.scenario.measure.unit
    judged = judge(comparison)
    rows = [[name or unit for name in COLUMNS]]
    rows += [row(comparison, result, judged) for result in comparison.results if result.measured]
    widths = [max(len(cells[n]) for cells in rows) for n in range(len(COLUMNS))]
    lines = [f"{comparison.scenario.name}: {comparison.scenario.title}"]
    for cells in rows:
        aligned = [cells[0].ljust(widths[0])]
        aligned += [cell.rjust(width) for cell, width in zip(cells[1:-1], widths[1:-1], strict=True)]
        lines.append("  " + "  ".join([*aligned, cells[-1]]).rstrip())
    failed = [result for result in comparison.results if not result.measured]
    lines += [f"  {result.server}: FAILED, {brief(result.failure)}" for result in failed]
    return "\n".join(lines)


def brief(failure: str | None) -> str:
    """
    A failure in one line: the first, and the last that the server wrote. The JSON has all of it.
    """
    first, *rest = (failure or "no samples").splitlines()
    return f"{first[:160]}: {rest[-1].strip()[:160]}" if rest else first[:160]


def limit_table(comparisons: list[Comparison]) -> str:
    """
    All limits on the scenarios that were run, as printed text.
    """
    lines = ["limits (design, section 6)"]
    for comparison in comparisons:
        for one in judge(comparison):
            against = " or ".join(one.limit.peers)
            lines.append(
                f"  {one.limit.scenario:13} against {against:19} at most {one.limit.at_most:.2f}  "
                f"{span(one.ratio):20}  {one.verdict}"
            )
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """
    The report as Markdown, to paste into a page: versions, costs, limits, throughput.
    """
    machine = report.machine
    h2load = f" and h2load {machine['h2load']}" if "h2load" in machine else ""
    lines = [
        f"Measured {machine['date']} on {machine['cpu']}, {machine['kernel']}, {machine['python']}.",
        f"{report.rounds} rounds of {report.load.seconds} s, {report.load.connections} connections.",
        f"Load by wrk {machine['wrk']}{h2load}; {machine['cores']}; txasgi at commit {machine['commit']}.",
        "",
        *versions_markdown(report),
        "",
        *commands_markdown(report),
        "",
        *costs_markdown(report),
        "",
        *limits_markdown(report),
        "",
        *loads_markdown(report),
    ]
    return "\n".join(lines) + "\n"


def versions_markdown(report: Report) -> list[str]:
    """
    A row for each server with its own version and those of what it stands on.
    """
    lines = ["| server | version | with |", "|---|---|---|"]
    for server, versions in report.versions.items():
        (_, own), *beside = versions.items()
        lines.append(f"| {server} | {own} | {', '.join(f'{name} {found}' for name, found in beside)} |")
    return lines


def commands_markdown(report: Report) -> list[str]:
    """
    Every command line that was measured, once.
    """
    results = [result for comparison in report.comparisons for result in comparison.results]
    return ["```", *dict.fromkeys(result.words for result in results if result.measured), "```"]


def costs_markdown(report: Report) -> list[str]:
    """
    A row for each scenario, a column for each server; a peer's cell has txasgi's ratio to it.
    """
    servers = list(report.versions)
    lines = [
        "Median cost, less is better; in parentheses txasgi by that server, median (lowest..highest round).",
        "",
        f"| work | unit | {' | '.join(servers)} |",
        f"|---|---|{'---|' * len(servers)}",
    ]
    for comparison in report.comparisons:
        cells = []
        for server in servers:
            result, ratio = comparison.result(server), comparison.ratio(server)
            failed = any(found.server == server for found in comparison.results)
            cell = number(result.cost) if result else "failed" if failed else "-"
            if ratio is not None:
                cell += f" ({ratio.middle:.2f}, {ratio.low:.2f}..{ratio.high:.2f})"
            cells.append(cell)
        unit = comparison.scenario.measure.unit
        lines.append(f"| {comparison.scenario.title} | {unit} | {' | '.join(cells)} |")
    return lines


def limits_markdown(report: Report) -> list[str]:
    """
    A row for each limit.
    """
    lines = ["| work | against | at most | measured | |", "|---|---|---|---|---|"]
    for comparison in report.comparisons:
        for one in judge(comparison):
            against = "best of " * (len(one.limit.peers) > 1) + ", ".join(one.limit.peers)
            ratio = span(one.ratio)
            title = comparison.scenario.title
            lines.append(f"| {title} | {against} | {one.limit.at_most:.2f} | {ratio} | {one.verdict} |")
    return lines


def loads_markdown(report: Report) -> list[str]:
    """
    A row for each server under each load.
    """
    lines = [
        "Under load; per CPU s is what a second of the server's CPU does, busy the share of its core that it used.",
        "",
        "| work | server | per second | per CPU s | p50 ms | p99 ms | busy |",
        "|---|---|---|---|---|---|---|",
    ]
    for comparison in report.comparisons:
        for result in comparison.results:
            if result.measured and result.middle("per_second") is not None:
                cells = row(comparison, result, [])
                lines.append(f"| {comparison.scenario.title} | {cells[0]} | {' | '.join(cells[2:7])} |")
    return lines


def document(report: Report) -> dict[str, Any]:
    """
    Everything, for json.dumps.
    """
    return {
        "subject": SUBJECT,
        "machine": report.machine,
        "versions": report.versions,
        "rounds": report.rounds,
        "load": asdict(report.load),
        "scenarios": [scenario_document(comparison) for comparison in report.comparisons],
    }


def scenario_document(comparison: Comparison) -> dict[str, Any]:
    """
    One scenario: every sample of every server, ratios and limits.
    """
    scenario = comparison.scenario
    results = []
    for result in comparison.results:
        ratio = comparison.ratio(result.server)
        results.append(
            {
                **asdict(result),
                "median_cost": result.cost if result.measured else None,
                "ratio": asdict(ratio) if ratio else None,
            }
        )
    limits = [
        {**asdict(one.limit), "ratio": asdict(one.ratio) if one.ratio else None, "verdict": one.verdict}
        for one in judge(comparison)
    ]
    return {
        "name": scenario.name,
        "title": scenario.title,
        "unit": scenario.measure.unit,
        "results": results,
        "limits": limits,
    }
