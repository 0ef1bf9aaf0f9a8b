"""`harness replay` on real ranks: faults that struck by the clock strike again, at those steps and in that order."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)

CAMPAIGN = """\
schema: 1
name: clock
seed: 5
groups:
  - name: g
    workload: torch.train
    nodes: 1
    ranks_per_node: 2
    steps: 250
    warmup_steps: 1
    checkpoint: {every_steps: 10}
    recovery: {policy: warm-restart, max_restarts: 9}
    time_limit_min: 3
    faults:
      - {kind: rank.kill, target: {random: rank}, at: {mtbf_s: 0.7}, count: 2, expect: recovered}
      - {kind: rank.slow_step, target: {rank: 1}, at: {step: 1}, for_s: 0.3, expect: unharmed}
      - {kind: rank.raise, target: {rank: 0}, at: {after_s: 9000}, expect: recovered}
"""


def harness(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, text=True, capture_output=True, timeout=110)


def struck(run: Path) -> list[tuple[str, str, int, int, int]]:
    """Fault, attempt, rank and step of each strike, by attempt and step."""
    found = []
    for file in run.glob("work/*/events.jsonl"):
        for line in map(json.loads, file.read_text().splitlines()):
            if line["kind"] == "fault.requested":
                data = line["data"]
                found.append((data["fault_id"], data["fault"], line["attempt"], line["rank"], data["step"]))
    return sorted(found, key=lambda strike: (strike[2], strike[4], strike))


def test_a_case_meets_the_same_faults_at_the_same_steps_and_a_replay_can_be_replayed(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(CAMPAIGN)
    first = harness("run", tmp_path / "c.yaml", "--site", "local", "--folder", tmp_path / "run", "--plain")
    before = struck(tmp_path / "run")
    assert [kind for _, kind, *_ in before].count("rank.kill") == 2, first.stdout + first.stderr
    shutil.rmtree(tmp_path / "run" / "logs")  # what a replay needs is on record elsewhere

    again = harness(
        "replay", tmp_path / "run", "--case", "g/n1/r0/fault", "--folder", tmp_path / "again", "--plain"
    )
    assert (again.returncode, again.stderr) == (0, ""), again.stdout
    assert "left out: rank.raise of rank 0 at 9000 s after the first step: it never struck" in again.stdout
    assert struck(tmp_path / "again") == before
    verdicts = [line.split()[:2] for line in again.stdout.splitlines() if line.startswith("PASS")]
    assert sorted(verdicts) == [["PASS", "g/n1/r0/fault"], ["PASS", "g/n1/r0/twin"]]

    told = harness("replay", tmp_path / "again", "--case", "g/n1/r0/fault", "--dry-run")
    assert told.stdout.splitlines()[-2].endswith(": nothing of it differs")
