"""
What the figures were taken on.
"""

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.environments import ROOT
from benchmarks.load_h2 import h2load_version
from benchmarks.load_wrk import wrk_version
from benchmarks.processes import Cores
from benchmarks.scenarios import Scenario
from benchmarks.servers import H2_DOORS


def describe(cores: Cores, scenarios: Iterable[Scenario]) -> dict[str, str]:
    """
    Date, processor, kernel, Python, load generators, and the commit of the checkout.

    Raises MeasureError if a load generator for *scenarios* is missing.
    """
    found = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores",
        "cores": f"server on {cores.server}, load on {cores.load}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "wrk": wrk_version(),
        "commit": commit(),
    }
    if any(scenario.door in H2_DOORS for scenario in scenarios):
        found["h2load"] = h2load_version()
    return found


def cpu_model() -> str:
    """
    The processor's name as the kernel gives it.
    """
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def commit() -> str:
    """
    The commit of the checkout, marked if files differ from it; "unknown" outside a repository.
    """
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
