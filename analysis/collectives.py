"""Collectives: bandwidth of each case at each message size, from raw elapsed times of every rank.

Definitions (METRICS.md; factors as in nccl-tests, doc/PERFORMANCE.md): an iteration takes as long as its
slowest rank, t; algorithm bandwidth is S / t with S the size of the larger buffer of a rank; bus bandwidth
is algorithm bandwidth x factor. Left out: the warm-up, and an iteration that a rank did not report. One rank sends
nothing: its calls have a time and no bandwidth.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis import text
from analysis.commandline import main as run
from analysis.load import CampaignResults, Row, samples_of
from analysis.series import Summary, slowest_rank, summarise
from harness.store import Column

TABLE = "collectives"
OPERATIONS = {"torch.allreduce": "all-reduce"}


@dataclass(frozen=True)
class Measurement:
    """One case at one message size; summaries are over iterations: median, lowest, highest, count."""

    case_id: str
    label: str
    group: str
    nodes: int
    ranks: int
    repeat: int
    operation: str
    message_bytes: int
    time_s: Summary
    algorithm_bandwidth_bytes_per_s: Summary | None  # None on one rank: nothing is sent
    bus_bandwidth_bytes_per_s: Summary | None  # None on one rank: no bus is crossed
    incomplete: int  # iterations left out because a rank's sample is missing


def bus_factor(operation: str, ranks: int) -> float:
    """Bus bandwidth over algorithm bandwidth for ``ranks`` ranks; 0 on one rank.

    Raises:
        ValueError: METRICS.md has no factor for the operation.
    """
    if ranks < 2:
        return 0.0
    if operation == "all-reduce":
        return 2 * (ranks - 1) / ranks
    if operation in ("reduce-scatter", "all-gather", "all-to-all", "gather", "scatter"):
        return (ranks - 1) / ranks
    if operation in ("broadcast", "reduce", "send-receive"):
        return 1.0
    raise ValueError(
        f"no bus factor for {operation!r}; METRICS.md has them for all-reduce, reduce-scatter, "
        "all-gather, all-to-all, gather, scatter, broadcast, reduce, send-receive"
    )


def operation(case: Row) -> str:
    """The operation that a case's workload measures, as METRICS.md names it; ``unknown`` for a stranger."""
    return OPERATIONS.get(case["workload"], "unknown")


def iterations(results: CampaignResults, case: Row, message_bytes: int) -> tuple[Column, int]:
    """Time of each judged iteration at one size: that of its slowest rank, in ns, shape (n,).

    The second value counts the iterations that were left out because a rank did not report them.

    Raises:
        StoreError: the case has no table ``collectives``, or it is damaged.
    """
    samples = results.judged(case["case_id"], TABLE)
    here = samples["message_bytes"] == message_bytes
    steps = slowest_rank({k: v[here] for k, v in samples.items()}, "elapsed_ns", case["ranks"])
    return steps.slowest, steps.incomplete


def sizes(results: CampaignResults, case: Row) -> list[int]:
    """Message sizes that a completed case measured, ascending, in bytes."""
    if not results.has_samples(samples_of(case), TABLE):
        return []
    return [int(s) for s in np.unique(results.judged(case["case_id"], TABLE)["message_bytes"])]


def measure(results: CampaignResults, case: Row, message_bytes: int) -> Measurement | None:
    """One case at one size; None when no iteration was reported by every rank."""
    times_ns, incomplete = iterations(results, case, message_bytes)
    times_s = times_ns[times_ns > 0] / 1e9
    if not len(times_s):
        return None
    name = operation(case)
    bandwidth = message_bytes / times_s
    several = case["ranks"] > 1
    bus = None
    if several and name != "unknown":
        bus = summarise(bandwidth * bus_factor(name, case["ranks"]))
    return Measurement(
        case["case_id"],
        case["label"],
        case["group"],
        case["nodes"],
        case["ranks"],
        case["repeat"],
        name,
        message_bytes,
        summarise(times_s),
        summarise(bandwidth) if several else None,
        bus,
        incomplete,
    )


def analyse(results: CampaignResults) -> tuple[Measurement, ...]:
    """Every completed case at every size, in the order of the file's cases."""
    found = (measure(results, case, size) for case in results.cases for size in sizes(results, case))
    return tuple(m for m in found if m is not None)


def table(measurements: Sequence[Measurement]) -> str:
    """The measurements as plain columns."""
    rows = []
    for m in measurements:
        bus = m.bus_bandwidth_bytes_per_s
        spread = m.algorithm_bandwidth_bytes_per_s
        rows.append(
            (
                m.label,
                m.operation,
                m.nodes,
                m.ranks,
                text.size(m.message_bytes),
                text.seconds(m.time_s.median),
                text.si(spread.median, "B/s") if spread else "-",
                text.si(bus.median, "B/s") if bus else "-",
                f"{text.si(spread.low, 'B/s')} to {text.si(spread.high, 'B/s')}"
                if spread
                else "nothing is sent",
                m.time_s.n,
            )
        )
    header = (
        "case",
        "operation",
        "nodes",
        "ranks",
        "size",
        "time",
        "algorithm bw",
        "bus bw",
        "range of alg. bw",
        "n",
    )
    return text.columns(header, rows, left=(0, 1))


def _act(results: CampaignResults) -> tuple[Any, str, int]:
    found = analyse(results)
    data = {"stamp": results.stamp, "measurements": [asdict(m) for m in found]}
    if not found:
        return data, "no collectives: no completed case recorded a table `collectives`", 0
    words = [f"{results.stamp}: for information, these figures judge nothing"] if results.stamp else []
    words.append(table(found))
    return data, "\n".join(words), 0


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m analysis.collectives results.h5 [--json]``."""
    return run("collectives", "Bandwidth of collectives by case and message size.", _act, argv)


if __name__ == "__main__":
    sys.exit(main())
