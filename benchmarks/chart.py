"""
The report as one SVG picture: a panel of bars for each scenario, shorter is better.
"""

from html import escape

from benchmarks.report import Report, number
from benchmarks.results import Comparison
from benchmarks.servers import SUBJECT

COLUMNS = 2
PANEL_PX = 460
GAP_PX = 24
NAME_PX = 84
VALUE_PX = 64
BAR_PX = 18
STEP_PX = 24
HEAD_PX = 46

OURS, THEIRS, FAILED = "#0b6e4f", "#9aa5b1", "#b42318"
INK, FAINT, PAPER = "#1f2933", "#616e7c", "#ffffff"


def text(x: float, y: float, content: str, size: int = 12, fill: str = INK, more: str = "") -> str:
    """
    One line of text with its baseline at *y*.
    """
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{more}>{escape(content)}</text>'


def panel(comparison: Comparison, left: float, top: float) -> list[str]:
    """
    One scenario: a bar for each server, to the scale of the longest.
    """
    scenario = comparison.scenario
    parts = [
        text(left, top + 14, scenario.title, 14, more=' font-weight="600"'),
        text(left, top + 31, scenario.measure.unit, 11, FAINT),
    ]
    longest = max((result.cost for result in comparison.results if result.measured), default=0.0)
    for n, result in enumerate(comparison.results):
        y = top + HEAD_PX + n * STEP_PX
        baseline = y + BAR_PX - 5
        parts.append(text(left, baseline, result.server))
        if not result.measured:
            parts.append(text(left + NAME_PX, baseline, "failed", fill=FAILED))
            continue
        width = max(0.0, result.cost) / longest * (PANEL_PX - NAME_PX - VALUE_PX) if longest > 0 else 0.0
        fill = OURS if result.server == SUBJECT else THEIRS
        parts.append(f'<rect x="{left + NAME_PX:g}" y="{y:g}" width="{width:.1f}" height="{BAR_PX}" fill="{fill}"/>')
        parts.append(text(left + NAME_PX + width + 6, baseline, number(result.cost)))
    return parts


def svg(report: Report) -> str:
    """
    The whole picture.
    """
    rows = -(-len(report.comparisons) // COLUMNS)
    height_of_panel = HEAD_PX + STEP_PX * len(report.versions) + GAP_PX
    width = COLUMNS * PANEL_PX + (COLUMNS + 1) * GAP_PX
    height = GAP_PX + rows * height_of_panel + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
        '<g font-family="system-ui, sans-serif">',
        f"<title>{escape(SUBJECT)} and its peers: cost, less is better</title>",
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
    ]
    for n, comparison in enumerate(report.comparisons):
        left = GAP_PX + n % COLUMNS * (PANEL_PX + GAP_PX)
        parts += panel(comparison, left, GAP_PX + n // COLUMNS * height_of_panel)
    machine = report.machine
    foot = f"Shorter is better. {machine['date']}, {machine['cpu']}, {machine['python']}"
    parts += [text(GAP_PX, height - 14, foot, 11, FAINT), "</g>", "</svg>"]
    return "\n".join(parts) + "\n"
