"""Ranks and nodes are lost on the emulated cluster: what is recovered, how it is proved, what is said of the rest."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.store import Results
from tests import lost_records
from tests.cluster.driving import run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_TORCH = """
    workload: torch.train
    nodes: 2
    steps: 60
    warmup_steps: 3
    digest_every_steps: 10
    checkpoint: {every_steps: 10, keep: 3}
    recovery: {policy: warm-restart, max_restarts: 4, spares: %d}
    detection: {lease_s: 2, step_s: 4}
"""
_MPI = """
    workload: mpi.halo
    nodes: %d
    steps: 1500
    warmup_steps: 3
    checkpoint: {every_steps: 100}
    recovery: {policy: new-step, max_restarts: 3, %s}
    detection: {lease_s: 2, step_s: 4}
"""
CAMPAIGN = f"""\
schema: 1
name: recovery
seed: 11
packing: {{mode: jobs}}
groups:
  - name: processes
    {_TORCH % 0}
    faults:
      - {{kind: rank.kill, target: {{rank: 1}}, at: {{step: 15}}, expect: recovered}}
      - {{kind: rank.freeze, target: {{rank: 0}}, at: {{step: 25}}, expect: recovered}}
      - {{kind: rank.slow_step, target: {{rank: 1}}, at: {{step: 33}}, for_s: 0.5, expect: unharmed}}
      - {{kind: checkpoint.flip_bit, at: {{step: 44}}, expect: recovered}}
      - {{kind: rank.raise, target: {{rank: 0}}, at: {{step: 47}}, expect: recovered}}
  - name: spare
    {_TORCH % 1}
    faults:
      - {{kind: node.power_off, target: {{node: 1}}, at: {{step: 25}}, expect: recovered}}
  - name: mpi-spare
    {_MPI % (2, "spares: 1")}
    faults:
      - {{kind: node.power_off, target: {{node: 1}}, at: {{step: 220}}, expect: recovered}}
  - name: shrink
    {_MPI % (2, "shrink: true")}
    faults:
      - {{kind: node.kill_processes, target: {{node: 1}}, at: {{step: 220}}, expect: recovered}}
  - name: batch-host
    {_MPI % (2, "spares: 1")}
    faults:
      - {{kind: node.power_off, target: {{role: batch_host}}, at: {{step: 220}}, expect: recovered}}
  - name: requeued
    workload: mpi.halo  # 8000: the last checkpoint lies 0.4 s ahead, which is 2000 steps where nothing else runs
    nodes: 2
    steps: 8000
    warmup_steps: 3
    checkpoint: {{every_steps: 5000}}
    recovery: {{policy: requeue, max_restarts: 2}}
    faults:
      - {{kind: job.requeue, at: {{step: 220}}, expect: recovered}}
  - name: no-spare
    {_MPI % (2, "spares: 0")}
    faults:
      - kind: node.kill_processes
        target: {{node: 1}}
        at: {{step: 220}}
        expect: failed
        because: "1 of its nodes are left, it needs 2"
  - name: livelock
    {_TORCH % 0}
    faults:
      - kind: rank.raise
        target: {{rank: 1}}
        at: {{step: 15}}
        count: 5
        expect: failed
        because: each time at step 15
  - name: control
    {_TORCH % 0}
    faults:
      - {{kind: rank.kill, target: {{rank: 1}}, at: {{step: 25}}, expect: recovered}}
      - {{kind: control.position, target: {{rank: 0}}, at: {{event: restore.begin}}, expect: caught}}
"""


class Ended:
    """The campaign\'s run, read once."""

    def __init__(self, folder: Path, output: str) -> None:
        self.folder, self.output = folder, output
        with Results(folder / "results.h5") as results:
            names = ("cases", "attempts", "faults", "events", "detections", "checkpoints", "jobs")
            self.tables = {name: results.rows(name) for name in names}

    def case(self, group: str) -> dict[str, Any]:
        (case,) = [c for c in self.tables["cases"] if c["group"] == group and not c["is_twin"]]
        return case

    def of(self, table: str, group: str) -> list[dict[str, Any]]:
        case_id = self.case(group)["case_id"]
        return [row for row in self.tables[table] if row["case_id"] == case_id]

    def verdict(self, group: str) -> str:
        label = self.case(group)["label"]
        cases = json.loads((self.folder / "summary.json").read_text())["cases"]
        return next(c["verdict"] for c in cases if c["label"] == label)


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest) -> Iterator[Ended]:
    cluster: Any = request.getfixturevalue("cluster")
    folder, result = run(cluster, "recovery", CAMPAIGN, timeout=500)
    yield Ended(folder, result.stdout + result.stderr)


GROUPS = (
    "processes",
    "spare",
    "mpi-spare",
    "shrink",
    "batch-host",
    "requeued",
    "no-spare",
    "livelock",
    "control",
)


@pytest.mark.parametrize("group", GROUPS)
def test_every_case_ends_as_was_declared(ended: Ended, group: str) -> None:
    assert ended.verdict(group) == "pass", ended.output
    faults = ended.of("faults", group)
    assert [(f["requested"], f["observed"], f["healed"]) for f in faults if f["attempt"] >= 0] == [
        (True, True, True)
    ] * len([f for f in faults if f["attempt"] >= 0])


def test_each_loss_of_a_rank_is_detected_blamed_on_it_and_recovered_by_a_fork(ended: Ended) -> None:
    attempts = ended.of("attempts", "processes")
    assert [a["policy"] for a in attempts] == ["first", "warm-restart", "warm-restart", "warm-restart"]
    assert [(d["what"], d["rank"]) for d in ended.of("detections", "processes")] == [
        ("dead", 1),
        ("frozen", 0),
        ("dead", 0),
    ]
    assert len({a["slurm_job_id"] for a in attempts}) == 1


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(ended: Ended) -> None:
    rows = ended.of("checkpoints", "processes")
    assert {(r["step"], r["event"]) for r in rows if r["attempt"] == 3 and r["event"] != "committed"} >= {
        (30, "restored")
    }
    refused = [e for e in ended.of("events", "processes") if e["kind"] == "checkpoint.refused"]
    assert refused and all("step-00000040" in e["data"] for e in refused)


@pytest.mark.parametrize("group", ["spare", "mpi-spare"])
def test_a_spare_takes_the_place_of_a_lost_node_which_is_named_and_not_used_again(
    ended: Ended, group: str
) -> None:
    first, second = ended.of("attempts", group)
    lost = json.loads(first["nodes"])[1]
    assert lost in first["reason"]
    assert lost not in json.loads(second["nodes"])
    assert json.loads(second["nodes"])[0] == json.loads(first["nodes"])[0]
    assert [(d["what"], d["node"]) for d in ended.of("detections", group)] == [("silent", lost)]


@pytest.mark.parametrize("group", ["spare", "mpi-spare"])
def test_a_power_off_loses_at_most_two_seconds_of_records_and_the_gap_has_its_name(
    ended: Ended, group: str
) -> None:
    (fault,) = ended.of("faults", group)
    with Results(ended.folder / "results.h5") as results:
        lost = lost_records.of_fault(results, fault)
    assert lost is not None
    assert lost[0] == "gap"
    assert 0 <= lost[1] < 2


def test_without_a_spare_the_halo_goes_on_with_fewer_ranks_and_the_same_answer(ended: Ended) -> None:
    assert [len(json.loads(a["rank_nodes"])) for a in ended.of("attempts", "shrink")] == [2, 1]


def test_a_survivor_takes_over_from_the_lost_batch_host(ended: Ended) -> None:
    first, second = ended.of("attempts", "batch-host")
    assert (first["outcome"], second["outcome"]) == ("lost", "completed")
    assert json.loads(first["nodes"])[0] not in json.loads(second["nodes"])
    key = second["job_key"]
    assert [p.name for p in (ended.folder / "work" / key).glob("successor-*")] == ["successor-0.1.json"]


def test_before_a_requeue_the_ranks_save_what_they_have(ended: Ended) -> None:
    first, second = ended.of("attempts", "requeued")
    saved = re.fullmatch(r"received SIGTERM; saved after (\d+) steps", first["reason"])
    assert saved is not None, first["reason"]
    assert (second["policy"], second["restored_step"]) == ("requeue", int(saved[1]))


def test_a_failure_at_the_same_step_ends_after_max_restarts(ended: Ended) -> None:
    case = ended.case("livelock")
    assert (case["attempts"], case["outcome"]) == (5, "failed")
    assert "not recovered after 5 attempts (max_restarts 4), each time at step 15" in case["reason"]


CUT_OFF = """\
schema: 1
name: cut-off
seed: 12
groups:
  - name: cut-off
    workload: mpi.halo
    nodes: 2
    steps: 1200
    warmup_steps: 3
    checkpoint: {every_steps: 50}
    recovery: {policy: new-step, max_restarts: 1, spares: 1}
    detection: {lease_s: 1.5, step_s: 4}
    faults:
      - {kind: node.link_down, target: {role: batch_host}, at: {step: 200}, for_s: 4, expect: recovered}
"""


def test_a_survivor_takes_over_from_a_cut_off_batch_host_which_says_no_more(cluster: Any) -> None:
    """Shared storage is in its reach, and its link is back while the second attempt runs."""
    folder, result = run(cluster, "cut-off", CUT_OFF, timeout=120)
    with Results(folder / "results.h5") as results:
        (case,) = [c["case_id"] for c in results.rows("cases") if not c["is_twin"]]
        first, second = (a for a in results.rows("attempts") if a["case_id"] == case)
        (fault,) = results.rows("faults")
    assert (first["outcome"], second["outcome"]) == ("lost", "completed"), result.stdout
    assert (fault["requested"], fault["observed"], fault["healed"]) == (True, True, True)
    cut_off, heir = json.loads(first["nodes"])[0], json.loads(second["nodes"])[0]
    assert cut_off not in json.loads(second["nodes"])
    lines = (folder / "work" / second["job_key"] / "events.jsonl").read_text().splitlines()
    said = [(e["host"], e["kind"]) for e in map(json.loads, lines)]
    assert {host for host, _ in said[said.index((heir, "job.started")) :]} == {heir}
    assert (cut_off, "attempt.ended") not in said
