"""Driving a campaign on a real Slurm that fails, refuses, and goes away, as an ordinary user."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from harness.store import Results

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

HARNESS = [sys.executable, "-m", "harness"]
KILLS = int(os.environ.get("HARNESS_KILLS", "200"))
SHARED_NODES = ("exclusive: true ", "exclusive: false ")

TRIVIAL = """\
schema: 1
name: trivial
seed: 1
packing: {mode: jobs}
groups:
  - name: trivial
    workload: command
    nodes: 1
    repeats: %d
    time_limit_min: 1
    command: {run: [bash, -c, "sleep %s; echo done"], success: {output: "^done$"}}
"""


def _write(cluster: Any, name: str, text: str) -> str:
    (cluster.shared / name).write_text(text)
    return str(cluster.shared / name)


def _run(cluster: Any, name: str, text: str, site: object = "emulated", **options: Any) -> Any:
    campaign = _write(cluster, f"{name}.yaml", text)
    folder = cluster.shared / name
    command = [*HARNESS, "run", campaign, "--site", str(site), "--folder", str(folder), "--plain"]
    return folder, cluster.run_as_user(command, **{"timeout": 300, **options})


def _start(
    cluster: Any, name: str, text: str, site: object = "emulated"
) -> tuple[Path, subprocess.Popen[str]]:
    campaign = _write(cluster, f"{name}.yaml", text)
    folder = cluster.shared / name
    inside = [*HARNESS, "run", campaign, "--site", str(site), "--folder", str(folder), "--plain"]
    return folder, subprocess.Popen(
        [
            sys.executable,
            "-m",
            "harness.devcluster",
            "exec",
            "--folder",
            str(cluster.folder),
            "login",
            "--",
            *inside,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _rows(folder: Path, table: str) -> list[dict[str, Any]]:
    with Results(folder / "results.h5") as results:
        return results.rows(table)


def _ledger(folder: Path, what: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [line for line in lines if line["what"] == what]


def _wait(what: str, true: Any, deadline_s: float = 90) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.05)


def _begun(folder: Path, key: str = "0000") -> bool:
    progress = folder / "work" / key / "progress.json"
    return progress.exists() and json.loads(progress.read_text())["state"] == "running"


def _started_once(folder: Path) -> None:
    """Every job key was executed by one Slurm job, every case has one attempt that completed."""
    for events in folder.glob("work/*/events.jsonl"):
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        ids = {line["data"]["job_id"] for line in lines if line["kind"] == "job.started"}
        assert len(ids) == 1, f"{events.parent.name} was executed by {ids}"
    attempts = Counter(a["case_id"] for a in _rows(folder, "attempts"))
    cases = _rows(folder, "cases")
    assert attempts == {c["case_id"]: 1 for c in cases}
    assert {c["outcome"] for c in cases} == {"completed"}


# ---- durable ----


def test_a_driver_killed_at_200_random_moments_loses_and_repeats_nothing(cluster: Any) -> None:
    rng = random.Random(7)
    site = cluster.site(SHARED_NODES)
    campaign = _write(cluster, "kills.yaml", TRIVIAL % (24, "0.2"))
    folder = cluster.shared / "kills"
    inside = [*HARNESS, "run", campaign, "--site", str(site), "--folder", str(folder), "--plain"]
    quoted = " ".join(f"'{word}'" for word in inside)
    delays = " ".join(f"{rng.uniform(0.15, 0.9):.2f}" for _ in range(KILLS))
    script = f"for d in {delays}; do timeout -s KILL $d {quoted} >/dev/null 2>&1; echo $?; done"
    killed = Counter(cluster.run_as_user(["bash", "-c", script], timeout=380).stdout.split())
    assert killed["137"] > KILLS // 2  # the others came to the end of the run before their moment
    last = cluster.run_as_user(inside, timeout=120)
    assert last.returncode == 0, last.stdout + last.stderr
    _started_once(folder)
    left = cluster.run_as_user(["squeue", "-h", "-o", "%j"]).stdout.split()
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    assert [name for name in left if run_id in name] == []


def test_two_drivers_at_once_do_no_harm(cluster: Any) -> None:
    folder, first = _start(cluster, "two", TRIVIAL % (4, "2"), cluster.site(SHARED_NODES))
    _wait("a job is queued", lambda: (folder / "ledger.jsonl").exists())
    second = cluster.run_as_user([*HARNESS, "resume", str(folder)])
    assert second.returncode == 2
    assert "another `harness run` (or resume, or advance) drives it" in second.stderr
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    _started_once(folder)


# ---- states and failures ----

LONG = (
    "schema: 1\nname: long\nseed: 1\ngroups:\n  - {name: halo, workload: mpi.halo, nodes: 1, steps: 6000}\n"
)


def test_a_case_whose_node_fails_runs_again_elsewhere_and_the_node_is_named(cluster: Any) -> None:
    folder, driver = _start(cluster, "node-fails", LONG)
    _wait("the case runs", lambda: _begun(folder))
    started = json.loads((folder / "work/0000/events.jsonl").read_text().splitlines()[0])
    (node,) = started["data"]["nodes"]
    cluster.power("off", node)
    try:
        output, _ = driver.communicate(timeout=200)
    finally:
        cluster.power("on", node)
    assert driver.returncode == 0, output
    assert f"suspect  {node}" in output
    (again,) = _ledger(folder, "again")
    assert (again["round"], again["keys"], list(again["why"].values())) == (1, ["0000"], ["machine"])
    assert [line["exclude"] for line in _ledger(folder, "submitting")] == [[], [node]]
    first, second = _rows(folder, "attempts")
    assert (first["outcome"], second["outcome"]) == ("lost", "completed")
    assert json.loads(second["nodes"]) != [node]
    assert next((s["round"], s["state"]) for s in _rows(folder, "starts")) == (0, "NODE_FAIL")


CANCELLED = LONG.replace("halo, workload", "halo, time_limit_min: 3, workload")


def test_who_cancelled_a_job_is_said_and_it_is_not_tried_again(cluster: Any) -> None:
    folder, driver = _start(cluster, "by-root", CANCELLED)
    _wait("the case runs", lambda: _begun(folder))
    job_id = json.loads((folder / "work/0000/claim.json").read_text())["job_id"]
    cluster.run_as_root(["scancel", job_id])
    output, _ = driver.communicate(timeout=100)
    assert driver.returncode == 3, output
    (end,) = _ledger(folder, "ended")
    assert (end["facts"]["state"], list(end["facts"]["failures"].values())) == (
        "CANCELLED by 0",
        ["cancelled"],
    )
    assert "CANCELLED by 0 (root)" in end["facts"]["reason"]
    assert _ledger(folder, "again") == []


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
    folder, result = _run(cluster, "hungry", HUNGRY, site)
    assert result.returncode == 1, result.stdout + result.stderr
    assert [list(end["facts"]["failures"].values()) for end in _ledger(folder, "ended")] == [
        ["memory"],
        ["memory"],
    ]
    assert len(_rows(folder, "attempts")) == 2


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
    folder, result = _run(cluster, "late", LATE)
    assert result.returncode == 1, result.stdout + result.stderr
    (end,) = _ledger(folder, "ended")
    assert list(end["facts"]["failures"].values()) == ["time_limit"]
    assert "not finished within its 1 minutes" in _rows(folder, "cases")[0]["reason"]


def test_a_preempted_job_runs_again_when_there_is_room(clusters: Any) -> None:
    cluster = clusters(
        "--nodes", "2", "--conf", "PreemptType=preempt/partition_prio", "--conf", "PreemptMode=CANCEL",
        "--conf", "PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=INFINITE State=UP",
    )  # fmt: skip
    campaign = LONG.replace("nodes: 1", "nodes: 2").replace("6000", "4000")
    folder, driver = _start(cluster, "preempted", campaign, cluster.site(("max_nodes: 4", "max_nodes: 2")))
    _wait("the case runs", lambda: _begun(folder))
    urgent = cluster.run_as_user(["srun", "-p", "urgent", "-N2", "--exclusive", "sleep", "3"], timeout=90)
    assert urgent.returncode == 0, urgent.stderr
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert [list(end["facts"]["failures"].values()) for end in _ledger(folder, "ended")] == [
        ["preempted"],
        [],
    ]
    assert _ledger(folder, "suspect") == []


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
    folder, result = _run(cluster, "healthy", GATED % "healthy")
    assert result.returncode == 0, result.stdout + result.stderr
    order = sorted(_rows(folder, "attempts"), key=lambda a: a["start_wall_ns"])
    groups = {c["case_id"]: c["group"] for c in _rows(folder, "cases")}
    assert [groups[a["case_id"]] for a in order] == ["health", "halo", "tidy"]


def test_nothing_is_measured_when_the_pre_check_fails_and_the_post_check_runs(cluster: Any) -> None:
    folder, result = _run(cluster, "sick", GATED % "a fever")
    assert result.returncode == 1, result.stdout + result.stderr
    outcomes = {c["group"]: (c["outcome"], c["reason"]) for c in _rows(folder, "cases")}
    assert outcomes["halo"] == ("not_run", "not run: it needs health, and health/n1/r0 is fail")
    assert outcomes["tidy"][0] == "completed"


# ---- gentle ----


def test_the_controller_counts_one_sbatch_and_one_question_a_poll(cluster: Any) -> None:
    site = cluster.site(SHARED_NODES)
    cluster.forget_requests()
    folder, result = _run(cluster, "gentle", TRIVIAL % (30, "0.1"), site)
    assert result.returncode == 0, result.stdout + result.stderr
    asked = cluster.requests()
    calls = json.loads((folder / "scheduler.json").read_text())["calls"]
    assert _ledger(folder, "again") == []
    assert asked.controller["REQUEST_SUBMIT_BATCH_JOB"] == 1
    # The last sacct, of every start, is asked once, and not in a poll; our own count and Slurm's agree.
    assert asked.accounts["DBD_GET_JOBS_COND"] == calls["sacct"]
    assert asked.controller["REQUEST_JOB_INFO"] == calls.get("squeue", 0)
    assert calls["sbatch"] == 1
    said = cluster.run_as_user([*HARNESS, "status", "--scheduler", str(folder)]).stdout.splitlines()[-1]
    assert said == "asked of the scheduler: " + ", ".join(f"{k} {v}" for k, v in sorted(calls.items()))


def test_calls_a_minute_are_capped_and_the_run_still_ends(cluster: Any) -> None:
    site = cluster.site(("poll_s: 1 ", "calls_per_minute: 6\n  poll_s: 1 "))
    campaign = TRIVIAL.replace("repeats: %d", "repeats: 1") % "12"
    folder, result = _run(cluster, "capped", campaign, site)
    assert result.returncode == 0, result.stdout + result.stderr
    calls = json.loads((folder / "scheduler.json").read_text())
    seconds = (json.loads((folder / "ledger.jsonl").read_text().splitlines()[-1])["wall_ns"]) / 1e9
    first = _ledger(folder, "submitting")[0]["wall_ns"] / 1e9
    assert (
        sum(calls["calls"].values()) <= 6 * (1 + (seconds - first) // 60) + 1
    )  # and one for every start, at the end


def test_no_more_jobs_are_queued_than_the_site_allows(clusters: Any) -> None:
    cluster = clusters("--nodes", "2", "--conf", "AccountingStorageEnforce=limits,qos")
    site = cluster.site(
        SHARED_NODES,
        ("max_nodes: 4", "max_nodes: 2"),
        ("max_time_min: 60", "max_time_min: 60\n  max_jobs_in_queue: 3"),
    )
    with cluster.limits("MaxSubmitJobs=3"):
        folder, result = _run(cluster, "few", TRIVIAL % (8, "0.5"), site)
    assert result.returncode == 0, result.stdout + result.stderr
    _started_once(folder)
    assert _ledger(folder, "deferred") == []  # it was never asked for more


def test_a_limit_that_nobody_told_us_of_defers_and_loses_nothing(clusters: Any, monkeypatch: Any) -> None:
    cluster = clusters("--nodes", "2", "--conf", "AccountingStorageEnforce=limits,qos")
    site = cluster.site(
        SHARED_NODES, ("max_nodes: 4", "max_nodes: 2"), ("max_time_min: 60", "max_time_min: 4")
    )
    campaign = TRIVIAL.replace("mode: jobs", "mode: sequence, max_cases: 1") % (2, "1")
    other = cluster.run_as_user(["sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 6"])
    assert other.returncode == 0, other.stderr
    with cluster.limits("MaxSubmitJobs=2"):
        folder, result = _run(cluster, "unexpected", campaign, site)
    assert result.returncode == 0, result.stdout + result.stderr
    _started_once(folder)
    assert "AssocMaxSubmitJobLimit" in _ledger(folder, "deferred")[0]["why"]


# ---- without accounting, and without a controller ----


def _controller_away(cluster: Any, seconds: float, *, frozen: bool = False) -> threading.Thread:
    def away() -> None:
        with cluster.controller_frozen() if frozen else cluster.controller_stopped():
            time.sleep(seconds)

    thread = threading.Thread(target=away)
    thread.start()
    return thread


@pytest.mark.parametrize("accounting", [True, False], ids=["accounts", "no accounts"])
def test_the_controller_is_away_for_a_minute_while_cases_run(
    accounting: bool, request: pytest.FixtureRequest
) -> None:
    cluster: Any = request.getfixturevalue("cluster" if accounting else "cluster_without_accounting")
    name = "away" if accounting else "away-unaccounted"
    folder, driver = _start(cluster, name, TRIVIAL % (3, "15"), cluster.site())
    _wait("a case runs", lambda: any(folder.glob("work/*/progress.json")))
    away = _controller_away(cluster, 60)
    try:
        output, _ = driver.communicate(timeout=250)
    finally:
        away.join()
    assert driver.returncode == 0, output
    _started_once(folder)
    assert (
        "Unable to contact slurm controller" in output or accounting
    )  # with accounts, only sbatch would notice


def test_the_controller_goes_away_just_when_cases_begin(clusters: Any) -> None:
    # Frozen, as by a stalled disk. One that is killed in the midst of starting jobs forgets some, and cancels them
    # itself when it is back; and its nodes are busy for minutes: hence a cluster of its own.
    cluster = clusters("--nodes", "4", "--conf", "MinJobAge=301")
    campaign = TRIVIAL % (2, "1") + "  - {name: halo, workload: mpi.halo, nodes: 1, steps: 20}\n"
    folder, driver = _start(cluster, "begins", campaign, cluster.site())
    _wait("a supervisor begins", lambda: any(folder.glob("work/*/claim.json")))
    away = _controller_away(cluster, 25, frozen=True)
    try:
        output, _ = driver.communicate(timeout=250)
    finally:
        away.join()
    assert driver.returncode == 0, output
    _started_once(folder)
    events = [json.loads(line) for path in folder.glob("work/*/events.jsonl") for line in path.open()]
    assert "controller.away" in {e["kind"] for e in events}  # it did matter
    assert _ledger(folder, "suspect") == []


def test_without_accounting_a_campaign_passes_and_a_lost_node_is_found(
    cluster_without_accounting: Any,
) -> None:
    cluster = cluster_without_accounting
    assert cluster.run_as_user(["sacct"]).returncode != 0
    folder, driver = _start(cluster, "unaccounted", LONG, cluster.site())
    _wait("the case runs", lambda: _begun(folder))
    started = json.loads((folder / "work/0000/events.jsonl").read_text().splitlines()[0])
    (node,) = started["data"]["nodes"]
    cluster.power("off", node)
    try:
        output, _ = driver.communicate(timeout=200)
    finally:
        cluster.power("on", node)
    assert driver.returncode == 0, output
    assert [list(line["why"].values()) for line in _ledger(folder, "again")] == [["machine"]]
    assert json.loads((folder / "scheduler.json").read_text())["calls"].get("sacct") is None


def test_without_accounting_a_job_that_slurm_forgot_is_not_waited_for_for_ever(
    clusters: Any,
) -> None:
    cluster = clusters("--nodes", "2", "--no-accounting", "--conf", "MinJobAge=2")
    campaign = LONG + "retry: {unknown: 0}\n"
    site = cluster.site(("max_nodes: 4", "max_nodes: 2"))
    folder = cluster.shared / "forgotten"
    path = _write(cluster, "forgotten.yaml", campaign)
    detached = [*HARNESS, "run", path, "--site", str(site), "--folder", str(folder), "--detach"]
    assert cluster.run_as_user(detached).returncode == 0
    _wait("the case runs", lambda: _begun(folder))
    claim = json.loads((folder / "work/0000/claim.json").read_text())
    cluster.run_as_user(["scancel", "--signal=KILL", "--full", claim["job_id"]])
    forgotten = ["bash", "-c", f"squeue -h -t all -j {claim['job_id']} || true"]
    _wait("the controller forgets it", lambda: not cluster.run_as_user(forgotten).stdout.strip(), 150)
    result = cluster.run_as_user([*HARNESS, "resume", str(folder)], timeout=200)
    assert result.returncode == 3, result.stdout + result.stderr
    (end,) = _ledger(folder, "ended")
    assert "Slurm knows no such job any more" in end["facts"]["reason"]
