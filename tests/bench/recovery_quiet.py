"""False alarms: many steps in which nothing happens, and decoys that only look like faults. Detections are counted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Any

from tests.bench.bench_cluster import BenchCluster
from tests.bench.recovery_ours import rows_of, run

TORCH_SHARE = 0.2  # of the steps; those of torch.train take ten times as long
DECOY_STEPS = {"torch.train": 1500, "mpi.halo": 15000}
DECOYS = 5  # of each kind
SMALL = {
    "torch.train": "{layers: 1, width: 8, heads: 1, sequence: 4, batch: 1, vocabulary: 16}",
    "mpi.halo": "{rows: 64, columns: 64}",
}
RANKS_PER_NODE = {
    "torch.train": 2,
    "mpi.halo": 1,
}  # ranks of MPI spin while they wait: four on two cores crawl
DEADLINE_S, STEP_S = 300.0, 0.05  # what may pass: so much, and so much for each step


@dataclass(frozen=True)
class Quiet:
    """What was counted."""

    steps: int
    """Finished by every rank, of cases without any fault."""
    rank_steps: int
    decoys: int
    """Requested and observed."""
    decoys_wanted: int
    decoy_steps: int
    detections: list[dict[str, Any]]
    """Each is a false alarm."""
    restarts: int


def _group(workload: str, steps: int, decoys: bool) -> list[str]:
    every = min(500 if workload == "torch.train" else 5000, max(1, steps // 4))
    lines = [
        f"  - name: {'decoys' if decoys else 'quiet'}-{workload.replace('.', '-')}",
        f"    workload: {workload}",
        "    nodes: 2",
        f"    ranks_per_node: {RANKS_PER_NODE[workload]}",
        f"    steps: {steps}",
        "    time_limit_min: 50",
        f"    params: {SMALL[workload]}",
        f"    checkpoint: {{every_steps: {every}}}",
        f"    recovery: {{policy: {'warm-restart' if workload == 'torch.train' else 'new-step'}}}",
    ]
    if decoys:
        lines.append("    twin: false")
        moment = f"{{steps: [{steps // 20}, {steps - steps // 20}]}}"
        lines += [
            "    faults:",
            *(
                f"      - {{kind: {kind}, target: {{random: rank}}, at: {moment}, for_s: {for_s}, count: {DECOYS}, "
                "expect: unharmed}"
                for kind, for_s in (("rank.slow_step", 1.5), ("rank.pause", 0.4))
            ),
            *(
                f"      - {{kind: storage.slow, target: {{rank: 0}}, at: {{event: checkpoint.begin, time: {n}}}, "
                "for_s: 1.5, expect: unharmed}"
                for n in (1, 2)
            ),
        ]
    return lines


def campaign(workload: str, steps: int) -> str:
    """The file: so many quiet steps of a workload, then as many decoys on it."""
    head = ["schema: 1", "name: quiet", "seed: 1", "packing: {mode: sequence}", "groups:"]
    groups = [*_group(workload, steps, False), *_group(workload, DECOY_STEPS[workload], True)]
    return "\n".join([*head, *groups]) + "\n"


def count(cluster: BenchCluster, steps: int) -> Quiet:
    """Run it and count.

    Raises:
        BenchError: there are no results.
    """
    torch = int(TORCH_SHARE * steps)
    found = []
    for workload, quiet in (
        ("torch.train", torch),
        ("mpi.halo", steps - torch),
    ):  # one has the cores, then the other
        folder = run(cluster, "quiet", campaign(workload, quiet), DEADLINE_S + STEP_S * quiet)
        tables = rows_of(folder / "run" / "results.h5", ("cases", "attempts", "faults", "detections"))
        shutil.rmtree(folder)
        found.append(_count(tables["cases"], tables["attempts"], tables["faults"], tables["detections"]))
    return Quiet(*(reduce(add, column) for column in zip(*map(_values, found), strict=True)))


def _values(quiet: Quiet) -> tuple[Any, ...]:
    return tuple(getattr(quiet, field.name) for field in fields(quiet))


def _count(
    cases: Sequence[dict[str, Any]],
    attempts: Sequence[dict[str, Any]],
    faults: Sequence[dict[str, Any]],
    detections: Sequence[dict[str, Any]],
) -> Quiet:
    decoyed = {fault["case_id"] for fault in faults}
    done = {case["case_id"]: 0 for case in cases}
    worlds = {case["case_id"]: case["ranks"] for case in cases}
    for attempt in attempts:
        done[attempt["case_id"]] = max(done[attempt["case_id"]], attempt["last_step"] + 1)
    quiet = [case for case in done if case not in decoyed]
    return Quiet(
        steps=sum(done[case] for case in quiet),
        rank_steps=sum(done[case] * worlds[case] for case in quiet),
        decoys=sum(fault["observed"] for fault in faults),
        decoys_wanted=len(faults),
        decoy_steps=sum(done[case] for case in decoyed),
        detections=list(detections),
        restarts=len(attempts) - len(done),
    )
