"""False alarms: many steps in which nothing happens, and decoys that only look like faults. Detections are counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
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
        "    ranks_per_node: 2",
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


def campaign(steps: int) -> str:
    """The file: so many quiet steps on both workloads, then as many decoys on each."""
    torch = int(TORCH_SHARE * steps)
    quiet = {"torch.train": torch, "mpi.halo": steps - torch}
    groups = [line for workload, n in quiet.items() for line in _group(workload, n, False)]
    groups += [line for workload, n in DECOY_STEPS.items() for line in _group(workload, n, True)]
    head = ["schema: 1", "name: quiet", "seed: 1", "packing: {mode: sequence}", "groups:"]
    return "\n".join([*head, *groups]) + "\n"


def count(cluster: BenchCluster, steps: int) -> Quiet:
    """Run it and count.

    Raises:
        BenchError: there are no results.
    """
    folder = run(cluster, "quiet", campaign(steps), DEADLINE_S + STEP_S * steps)
    tables = rows_of(folder / "run" / "results.h5", ("cases", "attempts", "faults", "detections"))
    shutil.rmtree(folder)
    return _count(tables["cases"], tables["attempts"], tables["faults"], tables["detections"])


def _count(
    cases: Sequence[dict[str, Any]],
    attempts: Sequence[dict[str, Any]],
    faults: Sequence[dict[str, Any]],
    detections: Sequence[dict[str, Any]],
) -> Quiet:
    decoyed = {fault["case_id"] for fault in faults}
    done = {case["case_id"]: 0 for case in cases}
    worlds = dict.fromkeys(done, 0)
    for attempt in attempts:
        done[attempt["case_id"]] = max(done[attempt["case_id"]], attempt["last_step"] + 1)
        worlds[attempt["case_id"]] = len(json.loads(attempt["nodes"])) * 2
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
