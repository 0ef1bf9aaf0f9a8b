"""When faults strike and whom a detector blames, on real ranks: moments over the case, random times, lost order."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.rundir import read_lines

pytestmark = [pytest.mark.timeout(240), pytest.mark.mpi]

HALO = """\
schema: 1
name: strikes
seed: 11
groups:
  - name: halo
    workload: mpi.halo
    nodes: 2
    steps: %d
    params: {rows: %d, columns: 64}
    checkpoint: {every_steps: 10}
    detection: {step_s: 1.5, start_s: 8}
    recovery: {policy: new-step, max_restarts: 9}
    faults:
"""


def events(folder: Path, faults: str, steps: int = 60, rows: int = 64) -> list[dict[str, Any]]:
    """What the supervisor wrote of the case with faults."""
    (folder / "c.yaml").write_text(HALO % (steps, rows) + faults)
    command = [
        sys.executable, "-m", "harness", "run", str(folder / "c.yaml"), "--site", "local", "--folder",
        str(folder / "run"), "--plain",
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=200)
    lines = [line for path in (folder / "run").glob("work/*/events.jsonl") for line in read_lines(path)]
    hit = {line["case_id"] for line in lines if line["kind"].startswith("fault.")}
    return [line for line in lines if line["case_id"] in hit]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


def test_a_moment_is_counted_over_all_attempts_of_its_case(tmp_path: Path) -> None:
    lines = events(
        tmp_path,
        "      - {kind: rank.kill, target: {rank: 1}, at: {step: 25}, expect: recovered}\n"
        "      - {kind: rank.kill, target: {rank: 0}, at: {event: restore.begin, time: 2}, expect: recovered}\n"
        "      - {kind: rank.kill, target: {rank: 1}, at: {step: 35}, expect: recovered}\n"
        "      - {kind: rank.kill, target: {rank: 0}, at: {event: checkpoint.begin, time: 5}, expect: recovered}\n",
    )
    # Checkpoints begin after 10 and 20 steps, and then, from the second attempt on, after 30, 40 and 50.
    struck = [(line["data"]["fault_id"][-2:], line["attempt"]) for line in of_kind(lines, "fault.requested")]
    assert struck == [("f0", 0), ("f2", 1), ("f1", 2), ("f3", 3)]
    step = of_kind(lines, "fault.requested")[-1]["data"]["step"]
    assert step == 49
    assert len(of_kind(lines, "fault.observed")) == 4


def test_random_times_that_fall_into_a_recovery_do_not_strike_together(tmp_path: Path) -> None:
    lines = events(
        tmp_path,
        "      - {kind: rank.kill, target: {random: rank}, at: {mtbf_s: 0.05}, count: 3, expect: recovered}\n",
        steps=5000,
        rows=256,
    )
    requests = of_kind(lines, "fault.requested")
    assert len({line["attempt"] for line in requests}) == len(requests) == 3
    assert [("delayed_s" in line["data"]) for line in requests] == [False, True, True]


def test_the_rank_that_leaves_its_order_is_blamed_and_what_is_healed_was_looked_at(tmp_path: Path) -> None:
    kinds = ("rank.skip_collective", "rank.reorder_collective")
    lines = events(
        tmp_path,
        "".join(
            f"      - {{kind: {kind}, target: {{rank: {rank}}}, at: {{step: {12 + 10 * n}}}, expect: recovered}}\n"
            for n, (kind, rank) in enumerate((kind, rank) for kind in kinds for rank in (0, 1))
        ),
    )
    blamed = [(line["data"]["what"], line["rank"]) for line in of_kind(lines, "detected")]
    assert blamed == [("deadlock", 0), ("deadlock", 1), ("deadlock", 0), ("deadlock", 1)]
    healed = [json.dumps(line["data"]["evidence"]) for line in of_kind(lines, "fault.healed")]
    assert len(healed) == 4
    assert all("gone" in words or "ended" in words for words in healed)
