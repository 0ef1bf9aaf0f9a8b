"""Memory that grows over a case, by METRICS.md's rule: Theil-Sen's slope is above zero, and the growth matters.

A leak is a slope whose 95 % interval lies above zero, with a growth over the case above a limit: 100 MB on a GPU,
500 MB on a host. The figures are the node's, not the program's: what else grew there counts too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis import text
from analysis.resample import Interval
from analysis.results import CampaignResults, Row
from analysis.slopes import FEWEST, theil_sen
from harness.store import Table

HOST_LIMIT_BYTES = 500e6
GPU_LIMIT_BYTES = 100e6
_TABLES = (("host", "memory_used_bytes", HOST_LIMIT_BYTES), ("gpu", "gpu_memory_used_bytes", GPU_LIMIT_BYTES))


@dataclass(frozen=True)
class Growth:
    """Memory of one node, or of one of its GPUs, over the attempt that completed a case."""

    where: str
    bytes_per_s: float
    interval: Interval
    growth_bytes: float
    seconds: float
    limit_bytes: float

    @property
    def leak(self) -> bool:
        """METRICS.md's rule."""
        return self.interval[0] > 0 and self.growth_bytes > self.limit_bytes

    @property
    def words(self) -> str:
        """In one line."""
        low, high = (text.size(abs(x)) for x in self.interval)
        return (
            f"memory of {self.where} grew by {text.size(self.growth_bytes)} in {text.seconds(self.seconds)} "
            f"({low} to {high} a second)"
        )


@dataclass(frozen=True)
class Memory:
    """What telemetry says of a case's memory; ``unknown`` says what it does not, or is empty."""

    growths: tuple[Growth, ...]
    unknown: str
    recorded: bool = True

    @property
    def leaks(self) -> tuple[Growth, ...]:
        """Those that are leaks."""
        return tuple(g for g in self.growths if g.leak)


def _of_table(
    results: CampaignResults, samples: Table, table: str, column: str, limit: float
) -> tuple[list[Growth], int]:
    """Growths, and how many places had too few samples."""
    devices = samples.get("gpu", np.zeros(len(samples["node"]), dtype=np.int64))
    found, few = [], 0
    for node, device in sorted(set(zip(samples["node"].tolist(), devices.tolist(), strict=True))):
        mine = (samples["node"] == node) & (devices == device)
        order = np.argsort(samples["wall_ns"][mine], kind="stable")
        wall = samples["wall_ns"][mine][order]
        used = samples[column][mine][order].astype(np.float64)
        whole = np.isfinite(used) & (used >= 0)
        if int(np.sum(whole)) < FEWEST:
            few += 1
            continue
        seconds = (wall[whole] - wall[whole][0]) / 1e9
        slope = theil_sen(seconds, used[whole])
        if slope is None:
            few += 1
            continue
        name = results.nodes[node] if 0 <= node < len(results.nodes) else "?"
        where = name if table == "host" else f"GPU {device} of {name}"
        found.append(Growth(where, slope.value, slope.interval, slope.change, slope.span, limit))
    return found, few


def of_case(results: CampaignResults, case: Row) -> Memory:
    """Memory over the attempt that completed a case.

    Raises:
        StoreError: the telemetry is damaged.
    """
    completed = results.completed(case["case_id"])
    if completed is None or not results.has_samples("telemetry", "host"):
        return Memory((), "memory was not recorded", False)
    growths: list[Growth] = []
    few, seen = 0, 0
    for table, column, limit in _TABLES:
        if not results.has_samples("telemetry", table) or column not in results.facts("telemetry", table):
            continue
        columns = ["wall_ns", column] + (["gpu"] if table == "gpu" else [])
        where = {"case": case["case_id"], "attempt": completed["index"]}
        samples = results.samples("telemetry", table, columns, where)
        seen += len(samples["node"])
        found, too_few = _of_table(results, samples, table, column, limit)
        growths += found
        few += too_few
    if not seen:
        return Memory((), "memory was not recorded during it", False)
    words = f"memory of {text.count(few, 'place')}: too few samples to tell whether it grows" if few else ""
    return Memory(tuple(growths), words)
