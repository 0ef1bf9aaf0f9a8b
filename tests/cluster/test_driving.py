"""Driving a campaign on a real Slurm that fails, refuses, and goes away, as an ordinary user."""

import json
import os
import random
from collections import Counter
from typing import Any

import pytest

from tests.cluster.driving import (
    HARNESS,
    LONG,
    SHARED_NODES,
    TRIVIAL,
    begun,
    ledger,
    loses_its_node,
    rows,
    run,
    start,
    started_once,
    wait,
    write,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

KILLS = int(os.environ.get("HARNESS_KILLS", "200"))


# ---- durable ----


def test_a_driver_killed_at_200_random_moments_loses_and_repeats_nothing(cluster: Any) -> None:
    rng = random.Random(7)
    site = cluster.site(SHARED_NODES)
    campaign = write(cluster, "kills.yaml", TRIVIAL % (24, "0.2"))
    folder = cluster.shared / "kills"
    inside = [*HARNESS, "run", campaign, "--site", str(site), "--folder", str(folder), "--plain"]
    quoted = " ".join(f"'{word}'" for word in inside)
    delays = " ".join(f"{rng.uniform(0.15, 0.9):.2f}" for _ in range(KILLS))
    script = f"for d in {delays}; do timeout -s KILL $d {quoted} >/dev/null 2>&1; echo $?; done"
    killed = Counter(cluster.run_as_user(["bash", "-c", script], timeout=380).stdout.split())
    assert killed["137"] > KILLS // 2  # the others came to the end of the run before their moment
    last = cluster.run_as_user(inside, timeout=120)
    assert last.returncode == 0, last.stdout + last.stderr
    started_once(folder)
    left = cluster.run_as_user(["squeue", "-h", "-o", "%j"]).stdout.split()
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    assert [name for name in left if run_id in name] == []


def test_two_drivers_at_once_do_no_harm(cluster: Any) -> None:
    folder, first = start(cluster, "two", TRIVIAL % (4, "2"), cluster.site(SHARED_NODES))
    wait("a job is queued", lambda: (folder / "ledger.jsonl").exists())
    second = cluster.run_as_user([*HARNESS, "resume", str(folder)])
    assert second.returncode == 2
    assert "another `harness run` (or resume, or advance) drives it" in second.stderr
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    started_once(folder)


# ---- states and failures ----


def test_a_case_whose_node_fails_runs_again_elsewhere_and_the_node_is_named(cluster: Any) -> None:
    folder, node, output = loses_its_node(cluster, "node-fails", LONG)
    assert f"suspect  {node}" in output
    (again,) = ledger(folder, "again")
    assert (again["round"], again["keys"], list(again["why"].values())) == (1, ["0000"], ["machine"])
    assert [line["exclude"] for line in ledger(folder, "submitting")] == [[], [node]]
    first, second = rows(folder, "attempts")
    assert (first["outcome"], second["outcome"]) == ("lost", "completed")
    assert json.loads(second["nodes"]) != [node]
    assert next((s["round"], s["state"]) for s in rows(folder, "starts")) == (0, "NODE_FAIL")


CANCELLED = LONG.replace("halo, workload", "halo, time_limit_min: 3, workload")


def test_who_cancelled_a_job_is_said_and_it_is_not_tried_again(cluster: Any) -> None:
    folder, driver = start(cluster, "by-root", CANCELLED)
    wait("the case runs", lambda: begun(folder))
    job_id = json.loads((folder / "work/0000/claim.json").read_text())["job_id"]
    cluster.run_as_root(["scancel", job_id])
    output, _ = driver.communicate(timeout=100)
    assert driver.returncode == 3, output
    (end,) = ledger(folder, "ended")
    assert (end["facts"]["state"], list(end["facts"]["failures"].values())) == (
        "CANCELLED by 0",
        ["cancelled"],
    )
    assert "CANCELLED by 0 (root)" in end["facts"]["reason"]
    assert ledger(folder, "again") == []


HUNGRY = """\
schema: 1
name: hungry
seed: 1
retry: {memory: 1}
groups:
  - name: hungry
    workload: command
    nodes: 1
    time_limit_min: 1
    command: {run: [python3, -c, "x = bytearray(2 << 30); print('done')"], success: {output: "^done$"}}
"""


def test_a_program_that_is_killed_for_memory_is_called_so_and_tried_again_as_told(cluster: Any) -> None:
    site = cluster.site(("exclusive: true ", "memory_mb: 700\n  exclusive: true "))
    folder, result = run(cluster, "hungry", HUNGRY, site)
    assert result.returncode == 1, result.stdout + result.stderr
    assert [list(end["facts"]["failures"].values()) for end in ledger(folder, "ended")] == [
        ["memory"],
        ["memory"],
    ]
    assert len(rows(folder, "attempts")) == 2


LATE = """\
schema: 1
name: late
seed: 1
groups:
  - name: late
    workload: command
    nodes: 1
    time_limit_min: 1
    command: {run: [sleep, "1000"], success: {output: never}}
"""


def test_a_case_beyond_its_time_limit_is_called_so(cluster: Any) -> None:
    folder, result = run(cluster, "late", LATE)
    assert result.returncode == 1, result.stdout + result.stderr
    (end,) = ledger(folder, "ended")
    assert list(end["facts"]["failures"].values()) == ["time_limit"]
    assert "not finished within its 1 minutes" in rows(folder, "cases")[0]["reason"]


def test_a_preempted_job_runs_again_when_there_is_room(clusters: Any) -> None:
    cluster = clusters(
        "--nodes", "2", "--conf", "PreemptType=preempt/partition_prio", "--conf", "PreemptMode=CANCEL",
        "--conf", "PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP",
    )  # fmt: skip
    campaign = LONG.replace("nodes: 1", "nodes: 2").replace("6000", "4000")
    folder, driver = start(cluster, "preempted", campaign, cluster.site(("max_nodes: 4", "max_nodes: 2")))
    wait("the case runs", lambda: begun(folder))
    urgent = cluster.run_as_user(["srun", "-p", "urgent", "-N2", "--exclusive", "sleep", "3"], timeout=90)
    assert urgent.returncode == 0, urgent.stderr
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert [list(end["facts"]["failures"].values()) for end in ledger(folder, "ended")] == [
        ["preempted"],
        [],
    ]
    assert ledger(folder, "suspect") == []


# ---- groups that wait for each other ----

GATED = """\
schema: 1
name: gated
seed: 1
groups:
  - name: health
    role: pre-check
    workload: command
    nodes: 1
    time_limit_min: 1
    command: {run: [echo, "%s"], success: {output: healthy}}
  - {name: halo, workload: mpi.halo, nodes: 2, steps: 20}
  - name: tidy
    role: post-check
    workload: command
    nodes: 1
    time_limit_min: 1
    command: {run: [echo, tidy], success: {output: tidy}}
"""


def test_measurements_run_after_a_pre_check_that_passed(cluster: Any) -> None:
    folder, result = run(cluster, "healthy", GATED % "healthy")
    assert result.returncode == 0, result.stdout + result.stderr
    order = sorted(rows(folder, "attempts"), key=lambda a: a["start_wall_ns"])
    groups = {c["case_id"]: c["group"] for c in rows(folder, "cases")}
    assert [groups[a["case_id"]] for a in order] == ["health", "halo", "tidy"]


def test_nothing_is_measured_when_the_pre_check_fails_and_the_post_check_runs(cluster: Any) -> None:
    folder, result = run(cluster, "sick", GATED % "a fever")
    assert result.returncode == 1, result.stdout + result.stderr
    outcomes = {c["group"]: (c["outcome"], c["reason"]) for c in rows(folder, "cases")}
    assert outcomes["halo"] == ("not_run", "not run: it needs health, and health/n1/r0 is fail")
    assert outcomes["tidy"][0] == "completed"
