"""Our side of the recovery bench: campaigns of one faulted case, run on the emulated cluster, and what came of them.

Times are those of /faults in results.h5, as METRICS.md defines them: relative to t1, when the call that produces
the effect had returned on its node.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.collect_streams import GAP
from harness.store import open_results
from tests import lost_records
from tests.bench.bench_cluster import ROOT, BenchCluster, BenchError
from tests.bench.environments import FOLDER

FIRST_STEP, STEPS_BETWEEN = 20, 20  # of the faults of one run
RUN_S, FAULT_S = 180.0, 120.0  # what a run may take, and each of its faults more
MPI_STEPS = 10  # steps of mpi.halo for each of torch.train: they are that much shorter


@dataclass(frozen=True)
class Way:
    """How a case recovers; the tuning of our side.

    Args:
        workload: torch.train or mpi.halo, as large as they are unless told otherwise.
        recovery: the campaign's `recovery`, without `max_restarts`.
        detection: the campaign's `detection`.
        memory: steps between checkpoints in the memory of the nodes; 0: on shared storage alone.
    """

    workload: str
    recovery: Mapping[str, Any]
    detection: Mapping[str, float]
    memory: int = 0


@dataclass(frozen=True)
class Times:
    """Of one fault, in s after t1; None for what was not recorded."""

    detected_s: float | None
    left_s: float | None
    running_s: float | None
    restored_s: float | None
    first_step_s: float
    recovered_s: float | None
    unrecorded_s: float | None
    """How long before the fault the last record of a lost node ended; None where it lost none, or that is unknown."""


def _flow(values: Mapping[str, Any]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in values.items()) + "}"


def campaign(name: str, way: Way, kind: str, target: Mapping[str, Any], count: int) -> str:
    """The file: one case of four ranks on two nodes, the same fault ``count`` times, and no twin."""
    longer = MPI_STEPS if way.workload == "mpi.halo" else 1
    moments = [longer * (FIRST_STEP + 5 + STEPS_BETWEEN * n) for n in range(count)]
    checkpoint = {"every_steps": 10 * longer}
    if way.memory:
        checkpoint["memory_every_steps"] = way.memory
    faults = [
        f"      - {{kind: {kind}, target: {_flow(target)}, at: {{step: {step}}}, expect: recovered}}"
        for step in moments
    ]
    lines = [
        "schema: 1",
        f"name: {name}",
        "seed: 1",
        "packing: {mode: jobs}",
        "groups:",
        f"  - name: {name}",
        f"    workload: {way.workload}",
        "    nodes: 2",
        "    ranks_per_node: 2",
        "    twin: false",
        f"    steps: {moments[-1] + longer * STEPS_BETWEEN}",
        "    time_limit_min: 10",
        f"    checkpoint: {_flow(checkpoint)}",
        f"    recovery: {_flow({**way.recovery, 'max_restarts': count + 3})}",
        *([f"    detection: {_flow(way.detection)}"] if way.detection else []),
        "    faults:",
        *faults,
    ]
    return "\n".join(lines) + "\n"


def run(cluster: BenchCluster, name: str, text: str, timeout_s: float) -> Path:
    """Run a campaign to its end as the cluster's user; where its results are, in a folder of its own.

    Raises:
        BenchError: it was out of time or left no results; what it said is kept.
    """
    folder = cluster.new_folder(name)
    (folder / "campaign.yaml").write_text(text, encoding="utf-8")
    cluster.give(folder)
    site = str(ROOT / "configs" / "sites" / "emulated.yaml")
    argv = [
        sys.executable, "-m", "harness", "run", "campaign.yaml", "--site", site,
        "--folder", str(folder / "run"), "--plain",
    ]  # fmt: skip
    log = cluster.shared / f"{name}.log"
    cost = cluster.timed(
        argv, log=log, folder=folder, timeout_s=timeout_s, environment={"PYTHONPATH": str(ROOT)}
    )
    if cost.timed_out or not (folder / "run" / "results.h5").exists():
        kept = FOLDER / f"failed-{name}.log"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, kept)
        raise BenchError(
            f"{name}: exit code {cost.exit_code}{', out of time' if cost.timed_out else ''}; "
            f"what it said is in {kept}"
        )
    log.unlink()
    return folder


def faults(
    cluster: BenchCluster, name: str, way: Way, kind: str, target: Mapping[str, Any], count: int
) -> list[Times]:
    """The same fault ``count`` times in one job, and what came after each whose effect was observed.

    Raises:
        BenchError: the case recovered from none of them.
    """
    text = campaign(name.rpartition("-")[0], way, kind, target, count)
    folder = run(cluster, name, text, RUN_S + FAULT_S * count)
    found = read(folder / "run" / "results.h5")
    shutil.rmtree(folder)
    if not found:
        raise BenchError(f"{name}: none of {count} faults has a first new step on record")
    return found


def read(results: Path) -> list[Times]:
    """Of each fault that was done and recovered from, in the order of the file."""
    with open_results(results) as opened:
        return [
            _times(row, lost_records.of_fault(opened, row))
            for row in opened.rows("faults")
            if row["observed"] and row["first_step_wall_ns"]
        ]


def _times(row: Mapping[str, Any], lost: tuple[str, float] | None) -> Times:
    def after(name: str) -> float | None:
        value = row[f"{name}_wall_ns"]
        return (value - row["injected_wall_ns"]) / 1e9 if value else None

    first = after("first_step")
    assert first is not None
    names = ("detected", "left", "running", "loaded")
    gap_s = lost[1] if lost is not None and lost[0] == GAP else None
    return Times(*(after(name) for name in names), first, after("recovered"), gap_s)


def rows_of(results: Path, names: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Some of the fixed tables of a results file."""
    with open_results(results) as opened:
        return {name: opened.rows(name) for name in names}
