"""What one `harness advance` costs a login node, of a run of many cases, at each stage of the run.

    python -m tests.bench.advance_cost

The budget: under 2 s of processor time and 300 MB for 500 cases. The last advance writes results.h5 and the
report as well, which is more than a step, and is shown apart. The first is repeated on further runs, whose jobs
are cancelled at once; the last is repeated on the same run, its results removed.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import ours, scheduler_calls
from tests.bench.bench_cluster import ROOT, BenchCluster, BenchError, Cost, alone
from tests.bench.scheduler_calls import Calls
from tests.bench.settings import CASES, REPEATS
from tests.bench.table import print_table, spread, write_json

STEP_DEADLINE_S = 120
RUN_DEADLINE_S = 120 + 2.0 * CASES
BETWEEN_S = 5.0
UNFINISHED = 4
RESULTS = ("results.h5", "report.html")
STAGES = {
    "submit": "first: everything is submitted",
    "poll": "later: one look, cases queued and running",
    "collect": "last: results.h5 and the report as well",
}
PACKINGS: dict[ours.Packing, str] = {"jobs": "a case a job", "sequence": "in sequence"}
_PLAN_ONLY = Path(__file__).parent / "competitors" / "ours_planned.py"


@dataclass
class _Run:
    """One run, and what its advances cost, by stage."""

    cluster: BenchCluster
    packing: ours.Packing
    number: int
    steps: dict[str, list[tuple[Cost, Calls]]] = field(
        default_factory=lambda: {stage: [] for stage in STAGES}
    )

    def __post_init__(self) -> None:
        self.folder = self.cluster.new_folder(f"advance-{self.packing}-{self.number}")
        campaign, site = ours.write(self.folder, CASES, self.packing)
        self.cluster.give(self.folder)
        self.run = self.folder / "run"
        cost = self._timed(str(_PLAN_ONLY), str(campaign), str(site), str(self.run))
        if cost.exit_code:
            raise BenchError(f"planning: exit code {cost.exit_code}: {self._said()}")

    def advance(self, stage: str) -> bool:
        """One advance; whether the run is complete, which makes its stage ``collect``."""
        since = scheduler_calls.reset(self.cluster)
        cost = self._timed("-m", "harness", "advance", str(self.run))
        calls = scheduler_calls.count(self.cluster, since)
        if cost.exit_code not in (0, UNFINISHED):
            raise BenchError(f"advance: exit code {cost.exit_code}: {self._said()}")
        complete = cost.exit_code == 0
        self.steps["collect" if complete else stage].append((cost, calls))
        return complete

    def cancel(self) -> None:
        """End its jobs and forget it."""
        self._timed("-m", "harness", "cancel", str(self.run))
        self.cluster.settle()
        shutil.rmtree(self.folder)

    def _timed(self, *arguments: str) -> Cost:
        return self.cluster.timed(
            [sys.executable, *arguments],
            log=self._log,
            timeout_s=STEP_DEADLINE_S,
            folder=self.folder,
            environment={"PYTHONPATH": str(ROOT)},
        )

    @property
    def _log(self) -> Path:
        return self.folder / "said.log"

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-1000:]


def _measure(cluster: BenchCluster, packing: ours.Packing) -> dict[str, list[tuple[Cost, Calls]]]:
    """All stages of one packing."""
    first: list[tuple[Cost, Calls]] = []
    for number in range(1, REPEATS):
        cluster.settle()
        short = _Run(cluster, packing, number)
        short.advance("submit")
        first += short.steps["submit"]
        short.cancel()
    cluster.settle()
    run = _Run(cluster, packing, 0)
    run.advance("submit")
    end = time.monotonic() + RUN_DEADLINE_S
    while not run.advance("poll"):
        if time.monotonic() > end:
            run.cancel()
            raise BenchError(f"advance: not complete within {RUN_DEADLINE_S:.0f} s")
        time.sleep(BETWEEN_S)
    cluster.settle()
    for _ in range(1, REPEATS):
        for name in RESULTS:
            (run.run / name).unlink()
        run.advance("collect")
        if not all((run.run / name).exists() for name in RESULTS):
            raise BenchError(f"the last advance did not write {' and '.join(RESULTS)} again")
    run.steps["submit"] += first
    shutil.rmtree(run.folder)
    return run.steps


def main(cluster: BenchCluster) -> None:
    """Measure and print."""
    lines: list[tuple[str, ...]] = []
    data: list[dict[str, Any]] = []
    for packing, packed in PACKINGS.items():
        try:
            steps = _measure(cluster, packing)
        except BenchError as error:
            print(f"  {packed}: no figure, since {error}")
            continue
        for stage, title in STAGES.items():
            costs = [cost for cost, _ in steps[stage]]
            lines.append(
                (
                    f"{packed}, {title}",
                    str(len(costs)),
                    spread([cost.cpu_s for cost in costs]),
                    spread([cost.wall_s for cost in costs]),
                    spread([cost.peak_mb for cost in costs], 0),
                    spread([calls.of_login for _, calls in steps[stage]], 0),
                )
            )
            runs = [{"cost": asdict(cost), "calls": asdict(calls)} for cost, calls in steps[stage]]
            data.append({"packing": packing, "stage": stage, "runs": runs})
    print_table(
        f"one `harness advance` of {CASES} trivial cases: median (smallest to largest); aim: under 2 s and 300 MB",
        ("", "n", "own time, s", "wall, s", "peak, MB", "scheduler calls"),
        lines,
    )
    write_json("advance", {"cases": CASES, "stages": data})


if __name__ == "__main__":
    alone(main)
