"""How long it takes to see what would be run: `harness plan` and `harness render`, against ReFrame's dry run.

    python -m tests.bench.compare_planning

On the login node of the emulated cluster, as its ordinary user, the same trivial cases for both. None of them
submits anything. Start of the program included: it is what a person waits for.
"""

from __future__ import annotations

import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import harness
from tests.bench import environments, ours, rows
from tests.bench.bench_cluster import ROOT, BenchCluster, BenchError, Cost, alone
from tests.bench.rounds import in_rounds
from tests.bench.settings import CASES, REPEATS, SETTINGS
from tests.bench.table import print_table, spread, write_json

ONE_DEADLINE_S = 60 + 0.5 * CASES


@dataclass(frozen=True)
class _What:
    key: str
    title: str
    version: str
    argv: Callable[[Path], list[str]]
    why_not: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def _all() -> list[_What]:
    reframe = environments.reframe()

    def what(key: str, title: str, verb: str, packing: ours.Packing) -> _What:
        def argv(folder: Path) -> list[str]:
            campaign, site = ours.write(folder, CASES, packing)
            out = ["--out", str(folder / "scripts")] if verb == "render" else []
            return [sys.executable, "-m", "harness", verb, str(campaign), "--site", str(site), *out]

        return _What(key, title, harness.__version__, argv, environment={"PYTHONPATH": str(ROOT)})

    def dry_run(folder: Path) -> list[str]:
        return [*rows.reframe_argv(reframe, folder), "--dry-run"]

    return [
        what("plan_jobs", "harness plan, a case a job", "plan", "jobs"),
        what("plan_sequence", "harness plan, in sequence", "plan", "sequence"),
        what("render_jobs", "harness render, a case a job", "render", "jobs"),
        _What(
            "reframe_dry_run",
            "ReFrame --dry-run",
            reframe.version,
            dry_run,
            reframe.why_not,
            {"BENCH_CASES": str(CASES)},
        ),
    ]


def _once(cluster: BenchCluster, what: _What, number: int) -> Cost:
    folder = cluster.new_folder(f"{what.key}-{number}")
    argv = what.argv(folder)
    cluster.give(folder)
    log = cluster.shared / f"{what.key}-{number}.log"
    cost = cluster.timed(argv, log=log, timeout_s=ONE_DEADLINE_S, folder=folder, environment=what.environment)
    if cost.exit_code or cost.timed_out:
        raise BenchError(f"{what.key}: exit code {cost.exit_code}: {log.read_text(errors='replace')[-1000:]}")
    shutil.rmtree(folder)
    log.unlink()
    return cost


def main(cluster: BenchCluster, budget_s: float) -> None:
    """Measure and print."""
    everything = {what.key: what for what in _all()}
    cluster.settle()
    results = in_rounds(
        list(everything),
        lambda key, number: _once(cluster, everything[key], number),
        repeats=REPEATS,
        budget_s=budget_s,
        impossible={key: what.why_not for key, what in everything.items() if what.why_not},
    )
    print_table(
        f"what {CASES} trivial cases would run, nothing submitted: median (smallest to largest); aim: under 1 s",
        ("", "n", "wall, s", "own time, s", "peak, MB"),
        [
            (
                f"{what.title} {what.version}",
                str(len(costs)),
                spread([c.wall_s for c in costs]),
                spread([c.cpu_s for c in costs]),
                spread([c.peak_mb for c in costs], 0),
            )
            for key, what in everything.items()
            for costs in (results.values[key],)
        ],
    )
    for key, why in results.why_not.items():
        print(f"  {everything[key].title}: no figure, since {why}")
    if results.short or results.stopped:
        why = "somebody stopped it" if results.stopped else "the time was up; BENCH_MINUTES gives more"
        print(f"  n below {REPEATS}: {why}")
    write_json(
        "planning",
        {
            "cases": CASES,
            "rows": [
                {
                    "row": key,
                    "version": what.version,
                    "why_not": results.why_not.get(key, ""),
                    "wall_s_median": statistics.median(c.wall_s for c in costs) if costs else None,
                    "runs": [asdict(c) for c in costs],
                }
                for key, what in everything.items()
                for costs in (results.values[key],)
            ],
        },
    )
    if results.stopped:
        raise KeyboardInterrupt


if __name__ == "__main__":
    alone(lambda cluster: main(cluster, 60 * SETTINGS.minutes))
