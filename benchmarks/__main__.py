"""
The command: python -m benchmarks, from the root of the repository.
"""

import argparse
import json
import resource
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.chart import svg
from benchmarks.environments import InstallError, prepare, versions
from benchmarks.limits import LIMITS
from benchmarks.machine import describe
from benchmarks.measure import Load, MeasureError
from benchmarks.processes import Cores
from benchmarks.report import Report, document, limit_table, markdown, table
from benchmarks.rounds import Stage, compare, tell
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.servers import SERVERS, Server

# 3,000 idle connections and then some, in this process and in each server.
OPEN_FILES = 16_384


def arguments() -> argparse.Namespace:
    """
    The command line.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure txasgi beside its peers.")
    servers = [server.name for server in SERVERS]
    scenarios = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--server", action="append", choices=servers, help="only this one; may be repeated")
    parser.add_argument("--scenario", action="append", choices=scenarios, help="only this one; may be repeated")
    parser.add_argument("--rounds", type=positive, default=5, help="samples of each server (5)")
    parser.add_argument("--seconds", type=positive, default=3, help="length of a sample, whole seconds (3)")
    parser.add_argument("--connections", type=positive, default=64, help="held open by the load (64)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a chart there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there, to paste into a page")
    parser.add_argument("--list", action="store_true", help="name scenarios, servers and limits, measure nothing")
    return parser.parse_args()


def positive(text: str) -> int:
    """
    A whole number from 1 up.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def show_list() -> None:
    """
    Print what there is to choose from.
    """
    print("scenarios")
    for scenario in SCENARIOS:
        bounds = [
            f"{limit.at_most:.2f} x {' or '.join(limit.peers)}" for limit in LIMITS if limit.scenario == scenario.name
        ]
        bound = f"at most {', '.join(bounds)}" if bounds else "no limit"
        print(f"  {scenario.name:13} {scenario.title:40} {scenario.measure.unit:22} {bound}")
    print("servers")
    for server in SERVERS:
        for door, lines in server.doors.items():
            for line in lines:
                print(f"  {server.name:10} {door:10} {line.text}")


def raise_open_files() -> None:
    """
    Let this process and its servers hold OPEN_FILES descriptors, as far as the hard limit allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def measure(report: Report, scenarios: list[Scenario], servers: list[Server], cores: Cores) -> None:
    """
    Run the scenarios one after the other into *report*, and print each table as soon as it is there.
    """
    with tempfile.TemporaryDirectory(prefix="txasgi-benchmarks-") as folder:
        stage = Stage(Path(folder), cores)
        stage.set()
        for scenario in scenarios:
            tell(f"{scenario.name}: {scenario.title}")
            comparison = compare(scenario, servers, stage, report.rounds, report.load)
            report.comparisons.append(comparison)
            print(table(comparison) + "\n", flush=True)


def write(report: Report, chosen: argparse.Namespace) -> None:
    """
    The limits on the screen, and the files that were asked for.
    """
    print(limit_table(report.comparisons))
    if chosen.json:
        chosen.json.write_text(json.dumps(document(report), indent=1) + "\n")
    if chosen.markdown:
        chosen.markdown.write_text(markdown(report))
    if chosen.svg:
        chosen.svg.write_text(svg(report))


def main() -> int:
    """
    Measure and report. The status says whether measuring was possible, never whether a limit was held.
    """
    chosen = arguments()
    if chosen.list:
        show_list()
        return 0
    for number in (signal.SIGINT, signal.SIGTERM):
        # Set for SIGINT as well: a shell starts what it puts in the background with that one ignored.
        signal.signal(number, signal.default_int_handler)
    servers = [server for server in SERVERS if not chosen.server or server.name in chosen.server]
    scenarios = [scenario for scenario in SCENARIOS if not chosen.scenario or scenario.name in chosen.scenario]
    cores = Cores()
    report = None
    try:
        machine = describe(cores, scenarios)
        prepare(servers)
        raise_open_files()
        cores.take_load()
        found = {server.name: versions(server) for server in servers}
        report = Report(machine, found, chosen.rounds, Load(chosen.seconds, chosen.connections))
        measure(report, scenarios, servers, cores)
    except (InstallError, MeasureError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        tell("interrupted; what follows is of the scenarios that were completed")
    if report is not None:
        write(report, chosen)
    return 0 if report and len(report.comparisons) == len(scenarios) else 130


if __name__ == "__main__":
    sys.exit(main())
