"""A results file as large as asked, written through ``harness.store``: what benches of readers are run on.

    python -m tests.bench.big_results FOLDER/results.h5 [--cases 2000] [--samples 10000000]

Generated, with a seed of its own: scaling groups of `mpi.halo` and `torch.collectives`, each case with four ranks on
up to four nodes and a completed attempt, and telemetry of hosts. Nothing in it was measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.model.metrics import METRICS
from harness.store import SAMPLE_KEYS, TABLES, TEXT, Writer

S = 1_000_000_000
START_NS = 1_760_000_000 * S
RANKS = 4
REPEATS = 10
NODES = (1, 2, 4)
SIZES = tuple(1 << power for power in range(10, 24, 2))
HALO, COLLECTIVES, TELEMETRY = "mpi.halo", "torch.collectives", "telemetry"
SHARES = {HALO: 0.55, COLLECTIVES: 0.40, TELEMETRY: 0.05}  # of the samples
ATTRIBUTES: dict[str, Any] = {
    "campaign": "generated",
    "description": "generated, nothing was measured",
    "run_id": "generated-1",
    "emulated": False,
    "oversubscribed": False,
    "launcher": "slurm",
    "site": "generated",
    "site_kind": "production",
    "campaign_yaml": "campaign: generated\n",
    "site_yaml": "name: generated\n",
    "created_wall_ns": START_NS,
    "collected_wall_ns": START_NS + 3600 * S,
    "harness_version": "0.1.0",
    "planned_with_version": "0.1.0",
    "git_commit": "0" * 40,
    "code_sha256": "0" * 64,
    "command": "harness run generated.yaml",
    "environment": "{}",
    "slurm_version": "slurm-wlm 22.05.8",
}


def _rows(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of a fixed table; what a row does not say is empty."""
    empty: dict[str, Any] = {TEXT: "", "?": False}
    return {f.name: [row.get(f.name, empty.get(f.type, 0)) for row in rows] for f in TABLES[name]}


def _case(number: int, steps: int) -> dict[str, Any]:
    """The number-th case: groups of ``REPEATS`` repeats at each node count, half of them strong scaling."""
    group, within = divmod(number, REPEATS * len(NODES))
    repeat, nodes = within // len(NODES), NODES[within % len(NODES)]
    halo = group % 2 == 0
    params = (
        {"rows": 1024, "columns": 1024} if halo else {"operation": "all-reduce", "message_bytes": list(SIZES)}
    )
    return {
        "case_id": f"{number:012x}",
        "label": f"g{group:03}/n{nodes}/r{repeat}",
        "group": f"g{group:03}",
        "workload": HALO if halo else COLLECTIVES,
        "scaling_mode": "strong" if halo else "none",
        "scaling_base": 1 if halo else 0,
        "nodes": nodes,
        "ranks": RANKS,
        "ranks_per_node": RANKS // nodes,
        "repeat": repeat,
        "seed": number,
        "steps": steps,
        "warmup_steps": min(3, steps // 4),
        "params": json.dumps(params),
        "axes": "{}",
        "faults": "[]",
        "gates": "[]",
        "recovery": "none",
        "deterministic": True,
        "attempts": 1,
        "outcome": "completed",
        "evidence": "complete",
    }


def _attempt(number: int, case: Mapping[str, Any], start_ns: int) -> dict[str, Any]:
    nodes = [f"n{n + 1}" for n in range(case["nodes"])]
    return {
        "case_id": case["case_id"],
        "job_key": f"{number:04}",
        "slurm_job_id": str(1000 + number),
        "nodes": json.dumps(nodes),
        "step_ids": "[]",
        "rank_nodes": json.dumps([nodes[rank // case["ranks_per_node"]] for rank in range(RANKS)]),
        "start_wall_ns": start_ns,
        "end_wall_ns": start_ns + S,
        "duration_ns": S,
        "outcome": "completed",
        "last_step": case["steps"] - 1,
        "restored_step": -1,
        "policy": "first",
        "world": RANKS,
    }


def _job(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """Its job."""
    return {
        "job_key": attempt["job_key"],
        "slurm_job_id": attempt["slurm_job_id"],
        "name": f"hh.generated.{attempt['job_key']}",
        "state": "COMPLETED",
        "exit_code": "0:0",
        "nodes": ",".join(json.loads(attempt["nodes"])),
        "start": "2025-10-09T08:53:20",
        "end": "2025-10-09T08:53:21",
        "script": "#!/bin/bash\n",
    }


def _facts(columns: Sequence[str]) -> dict[str, dict[str, str]]:
    return {
        name: {k: str(getattr(METRICS[name], k)) for k in ("unit", "type", "direction", "definition")}
        for name in columns
    }


def _keys(row: int, per_rank: int, nodes: int) -> dict[str, Any]:
    rank = np.repeat(np.arange(RANKS, dtype="i4"), per_rank)
    both = np.full(RANKS * per_rank, row, dtype="i4")
    return {"case": both, "attempt": both, "rank": rank, "node": (rank * nodes // RANKS).astype("i4")}


def _halo(row: int, case: Mapping[str, Any], steps: int, rng: np.random.Generator) -> dict[str, Any]:
    """Steps of a stencil: 4 ms a node count, with noise."""
    count = RANKS * steps
    time_ns = (4e6 / case["nodes"] * (1 + 0.02 * rng.standard_normal(count))).astype("i8")
    start = START_NS // 1000 + np.cumsum(time_ns)
    return {
        **_keys(row, steps, case["nodes"]),
        "step": np.tile(np.arange(steps, dtype="i8"), RANKS),
        "start_mono_ns": start,
        "step_time_ns": time_ns,
    }


def _collectives(row: int, case: Mapping[str, Any], steps: int, rng: np.random.Generator) -> dict[str, Any]:
    """An all-reduce of every size: 20 us and 2 GB/s, with noise."""
    sizes = np.tile(np.asarray(SIZES, dtype="i8"), RANKS * steps)
    elapsed = ((20_000 + sizes / 2) * (1 + 0.05 * rng.random(len(sizes)))).astype("i8")
    return {
        **_keys(row, steps * len(SIZES), case["nodes"]),
        "step": np.tile(np.repeat(np.arange(steps, dtype="i8"), len(SIZES)), RANKS),
        "message_bytes": sizes,
        "elapsed_ns": elapsed,
    }


def _telemetry(row: int, count: int, rng: np.random.Generator) -> dict[str, Any]:
    both = np.full(count, row, dtype="i4")
    return {
        "case": both,
        "attempt": both,
        "rank": np.full(count, -1, dtype="i4"),
        "node": np.zeros(count, dtype="i4"),
        "wall_ns": START_NS + row * 2 * S + np.arange(count, dtype="i8") * (S // max(1, count)),
        "cpu_percent": 50 + 20 * rng.random(count),
        "memory_used_bytes": (2**31 + 2**20 * rng.integers(0, 9, count)).astype("i8"),
    }


_MAKERS = {HALO: (_halo, "steps"), COLLECTIVES: (_collectives, "collectives")}


def make(path: Path, cases: int = 2000, samples: int = 10_000_000) -> int:
    """Write the file; returns the number of samples in it, which is about what was asked for."""
    rng = np.random.default_rng(5)
    drafts = [_case(number, 0) for number in range(cases)]
    per_rank = {
        workload: max(1, round(samples * SHARES[workload] / RANKS / max(1, n)))
        for workload in _MAKERS
        if (n := sum(case["workload"] == workload for case in drafts))
    }
    per_rank[COLLECTIVES] = max(1, per_rank.get(COLLECTIVES, 0) // len(SIZES))
    rows = [_case(number, per_rank[draft["workload"]]) for number, draft in enumerate(drafts)]
    attempts = [_attempt(number, case, START_NS + number * 2 * S) for number, case in enumerate(rows)]
    hosts = max(1, round(samples * SHARES[TELEMETRY] / max(1, cases)))
    written = 0
    with Writer(path, ATTRIBUTES) as writer:
        writer.table("cases", _rows("cases", rows))
        writer.table("attempts", _rows("attempts", attempts))
        writer.table("jobs", _rows("jobs", [_job(attempt) for attempt in attempts]))
        writer.table(
            "nodes", _rows("nodes", [{"name": f"n{n + 1}", "facts": "{}"} for n in range(max(NODES))])
        )
        for number, case in enumerate(rows):
            maker, table = _MAKERS[case["workload"]]
            columns = maker(number, case, case["steps"], rng)
            written += _write(writer, case["workload"], table, columns)
            written += _write(writer, TELEMETRY, "host", _telemetry(number, hosts, rng))
    return written


def _write(writer: Writer, workload: str, table: str, columns: Mapping[str, Any]) -> int:
    keys = {field.name for field in SAMPLE_KEYS}
    writer.samples(workload, table, columns, _facts([name for name in columns if name not in keys]))
    return len(columns["case"])


def main() -> int:
    """Write one, and say how long it took."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.big_results", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=10_000_000)
    options = parser.parse_args()
    began = time.perf_counter()
    written = make(options.path, options.cases, options.samples)
    seconds = time.perf_counter() - began
    print(f"{options.path}: {written:,} samples of {options.cases:,} cases in {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
