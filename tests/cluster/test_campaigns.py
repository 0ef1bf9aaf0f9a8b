"""Campaigns with axes, packing and an order of groups, as the ordinary user of a real Slurm cluster."""

import json
import sys
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest

from harness.rundir import RunDir
from harness.store import Results

pytestmark = pytest.mark.timeout(300)


def test_a_sweep_shares_its_allocations_and_keeps_its_order(cluster: Any) -> None:
    folder = cluster.shared / "sweep"
    command = [sys.executable, "-m", "harness", "run", "sweep", "--site", "emulated", "--folder", str(folder)]
    result = cluster.run_as_user([*command, "-s", "groups.grid.repeats=1", "-s", "steps=6"], timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    plan = RunDir(folder).read_plan()
    with Results(folder / "results.h5") as results:
        attempts = results.rows("attempts")
    allocated = {job.key: job.nodes for s in plan.submissions for job in s.jobs}
    assert [(s.after, s.needs) for s in plan.submissions] == [
        ((), ()),
        ((), ("can-talk",)),
        (("grid",), ("can-talk",)),
        (("grid",), ("can-talk",)),
        (("can-talk", "grid", "messages"), ()),
    ]
    sizes, times = defaultdict(set), defaultdict(list)
    for attempt in attempts:
        case = plan.case(attempt["case_id"])
        sizes[case.group].add((len(json.loads(attempt["nodes"])), allocated[attempt["job_key"]]))
        times[case.group] += [attempt["start_wall_ns"], attempt["end_wall_ns"]]
    assert sizes["grid"] == {(1, 4), (2, 4), (4, 4)}  # of the job of four nodes, its first ones
    order = ["can-talk", "grid", "messages", "still-talk"]
    assert all(max(times[a]) < min(times[b]) for a, b in pairwise(order))
    again = cluster.run_as_user(
        [*command[:3], "plan", str(folder / "campaign.yaml"), "--site", "emulated", "--json"]
    )
    assert {c["case_id"] for c in json.loads(again.stdout)["cases"]} == {c.case_id for c in plan.cases}
