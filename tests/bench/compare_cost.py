"""What `harness compare` costs on a million series: 2,000 nodes x 500 metrics, each with repeats in both files.

    python -m tests.bench.compare_cost [--nodes 2000] [--metrics 500] [--repeats 6]

Two generated files, written through ``harness.store``: one case a repeat, on all nodes, one figure of each metric a
node. B is 1 % noise away from A, and ten series are 20 % worse; the bench fails if another set is found. Timed is a
process of its own that does what `harness compare A B --by-node` does: read both files, test, correct, and find the
worst hundred. The budget is 2 s (SuperBench's analyser: 115 s, on limits alone, without a test).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.store import SAMPLE_KEYS, TABLES, TEXT, Writer
from tests.bench.big_results import ATTRIBUTES, START_NS

S = 1_000_000_000
WORSE = 10
FACTS = {
    "kernel": "6.1.0",
    "machine": "x86_64",
    "cpus": 64,
    "memory_bytes": 2**38,
    "versions": {"torch": "2.4.1"},
}


def _rows(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    empty: dict[str, Any] = {TEXT: "", "?": False}
    return {f.name: [row.get(f.name, empty.get(f.type, 0)) for row in rows] for f in TABLES[name]}


def make(
    path: Path, nodes: int, metrics: int, repeats: int, seed: int, worse: Sequence[tuple[int, int]]
) -> None:
    """One file; ``worse`` names (metric, node) that are 20 % slower."""
    hosts = [f"n{i:05}" for i in range(nodes)]
    cases = [
        {
            "case_id": f"check-{r}", "label": f"check/n{nodes}/r{r}", "group": "check", "workload": "node.check",
            "scaling_mode": "none", "nodes": nodes, "ranks": nodes, "ranks_per_node": 1, "repeat": r, "seed": r,
            "steps": 1, "params": "{}", "axes": "{}", "faults": "[]", "gates": "[]", "attempts": 1,
            "outcome": "completed", "evidence": "complete",
        }
        for r in range(repeats)
    ]  # fmt: skip
    attempts = [
        {
            "case_id": c["case_id"], "job_key": "0001", "nodes": json.dumps(hosts), "rank_nodes": json.dumps(hosts),
            "start_wall_ns": START_NS, "end_wall_ns": START_NS + S, "duration_ns": S, "outcome": "completed",
            "last_step": 0, "restored_step": -1, "world": nodes,
        }
        for c in cases
    ]  # fmt: skip
    facts = json.dumps(FACTS)
    random = np.random.default_rng(seed)
    each = np.tile(np.arange(nodes, dtype="i4"), repeats)
    case = np.repeat(np.arange(repeats, dtype="i4"), nodes)
    columns: dict[str, Any] = dict(zip((f.name for f in SAMPLE_KEYS), (case, case, each, each), strict=True))
    said = {"unit": "us", "type": "f8", "direction": "lower", "definition": "generated"}
    slow: dict[int, list[int]] = {}
    for metric, node in worse:
        slow.setdefault(metric, []).append(node)
    for metric in range(metrics):
        level = np.random.default_rng(metric).uniform(10, 1000, nodes)  # the same in both files
        values = np.tile(level, repeats) * np.exp(0.01 * random.standard_normal(nodes * repeats))
        values[np.isin(each, slow.get(metric, []))] *= 1.2
        columns[f"metric_{metric:03}_us"] = values
    with Writer(path, {**ATTRIBUTES, "run_id": f"generated-{seed}"}) as writer:
        writer.table("cases", _rows("cases", cases))
        writer.table("attempts", _rows("attempts", attempts))
        writer.table("nodes", _rows("nodes", [{"name": h, "facts": facts} for h in hosts]))
        keys = {f.name for f in SAMPLE_KEYS}
        writer.samples("node.check", "figures", columns, {n: said for n in columns if n not in keys})


_TIMED = """
import json, resource, sys, time
begin = time.perf_counter()
import analysis
from analysis.compare import Asked, compare
imported = time.perf_counter()
with analysis.load(sys.argv[1]) as a, analysis.load(sys.argv[2]) as b:
    found = compare(a, b, Asked(by_node=True))
done = time.perf_counter()
worst = [(x.metric, x.node) for x in found.lines(("worse",), 100)]
print(json.dumps({"cpu_s": time.process_time(), "import_s": imported - begin, "compare_s": done - imported,
                  "words_s": time.perf_counter() - done, "series": found.series, "counts": found.counts(),
                  "worst": worst, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def measure(a: Path, b: Path) -> dict[str, Any]:
    """One comparison in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _TIMED, str(a), str(b)],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(nodes: int = 2000, metrics: int = 500, repeats: int = 6, times: int = 5) -> None:
    """Generate, measure, print, keep."""
    from tests.bench.table import print_table, spread, write_json  # asks the machine what it is

    worse = [((37 * i) % metrics, (211 * i) % nodes) for i in range(WORSE)]
    with tempfile.TemporaryDirectory(prefix="compare-cost-") as folder:
        a, b = Path(folder) / "a.h5", Path(folder) / "b.h5"
        make(a, nodes, metrics, repeats, 1, ())
        make(b, nodes, metrics, repeats, 2, worse)
        size_mb = (a.stat().st_size + b.stat().st_size) / 1e6
        found = [measure(a, b) for _ in range(times)]
    seen = {(int(m.split("_")[1]), int(n[1:])) for m, n in found[0]["worst"]}
    if seen != set(worse):
        raise SystemExit(f"found {sorted(seen)} worse, and made {sorted(worse)}")
    rows = [
        ["whole process, s", spread([f["import_s"] + f["compare_s"] + f["words_s"] for f in found])],
        ["  processor time of it, s", spread([f["cpu_s"] for f in found])],
        ["  imports, s", spread([f["import_s"] for f in found])],
        ["  read and compare, s", spread([f["compare_s"] for f in found])],
        ["  the worst in words, s", spread([f["words_s"] for f in found])],
        ["peak memory, MB", spread([f["peak_mb"] for f in found], 0)],
    ]
    title = f"compare: {nodes} nodes x {metrics} metrics, {repeats} repeats in each file ({size_mb:.0f} MB)"
    print_table(f"{title}; all {WORSE} worse series found, no other", ["", "median (range)"], rows)
    write_json("compare_cost", {"nodes": nodes, "metrics": metrics, "repeats": repeats, "runs": found})


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--nodes", type=int, default=2000)
    options.add_argument("--metrics", type=int, default=500)
    options.add_argument("--repeats", type=int, default=6)
    options.add_argument("--times", type=int, default=5)
    main(**vars(options.parse_args()))
