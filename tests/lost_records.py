"""What the records of a node that lost its power lack, and what its stream is called: for tests and the bench."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from harness.store import Results, samples_of


def of_fault(results: Results, fault: Mapping[str, Any]) -> tuple[str, float] | None:
    """Status of the stream of the node that was hit, and how long before the fault its last step ended, in s.

    The case runs a workload of ours, whose steps say when they began. All nodes share this machine's clocks. None: the
    fault or samples of that node are not on record.
    """
    attempts = results.rows("attempts")
    mine = (fault["case_id"], fault["attempt"])
    numbers = [n for n, a in enumerate(attempts) if (a["case_id"], a["index"]) == mine]
    node = fault["target"].removeprefix("node ")
    statuses = [
        s["status"]
        for s in results.rows("streams")
        if (s["case_id"], s["attempt"], s["node"]) == (*mine, node)
    ]
    if not numbers or not statuses or not fault["injected_wall_ns"]:
        return None
    (case,) = [c for c in results.rows("cases") if c["case_id"] == fault["case_id"]]
    samples = results.samples(
        samples_of(case["workload"], case["group"]), "steps", ["start_mono_ns", "step_time_ns"]
    )
    names = [row["name"] for row in results.rows("nodes")]
    here = (samples["attempt"] == numbers[0]) & (samples["node"] == names.index(node))
    if not here.any():
        return None
    last_mono_ns = int((samples["start_mono_ns"] + samples["step_time_ns"])[here].max())
    wall_ns = last_mono_ns + time.time_ns() - time.monotonic_ns()
    return statuses[0], (fault["injected_wall_ns"] - wall_ns) / 1e9
