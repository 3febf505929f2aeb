"""
What the figures were taken on.
"""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.environments import ROOT
from benchmarks.load_wrk import wrk_version
from benchmarks.processes import Cores


def describe(cores: Cores) -> dict[str, str]:
    """
    Date, processor, kernel, Python, load generator, and the commit of the checkout.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores",
        "cores": f"server on {cores.server}, load on {cores.load}",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "wrk": wrk_version(),
        "commit": commit(),
    }


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
