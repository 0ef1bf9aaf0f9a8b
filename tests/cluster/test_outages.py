"""What a driver asks of Slurm, and how it does without: caps, limits, no accounting, no controller."""

import json
import threading
import time
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
    run,
    start,
    started_once,
    wait,
    write,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

# ---- gentle ----


def test_the_controller_counts_one_sbatch_and_one_question_a_poll(cluster: Any) -> None:
    site = cluster.site(SHARED_NODES)
    cluster.forget_requests()
    folder, result = run(cluster, "gentle", TRIVIAL % (30, "0.1"), site)
    assert result.returncode == 0, result.stdout + result.stderr
    asked = cluster.requests()
    calls = json.loads((folder / "scheduler.json").read_text())["calls"]
    assert ledger(folder, "again") == []
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
    folder, result = run(cluster, "capped", campaign, site)
    assert result.returncode == 0, result.stdout + result.stderr
    calls = json.loads((folder / "scheduler.json").read_text())
    seconds = (json.loads((folder / "ledger.jsonl").read_text().splitlines()[-1])["wall_ns"]) / 1e9
    first = ledger(folder, "submitting")[0]["wall_ns"] / 1e9
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
        folder, result = run(cluster, "few", TRIVIAL % (8, "0.5"), site)
    assert result.returncode == 0, result.stdout + result.stderr
    started_once(folder)
    assert ledger(folder, "deferred") == []  # it was never asked for more


def test_a_limit_that_nobody_told_us_of_defers_and_loses_nothing(clusters: Any, monkeypatch: Any) -> None:
    cluster = clusters("--nodes", "2", "--conf", "AccountingStorageEnforce=limits,qos")
    site = cluster.site(
        SHARED_NODES, ("max_nodes: 4", "max_nodes: 2"), ("max_time_min: 60", "max_time_min: 4")
    )
    campaign = TRIVIAL.replace("mode: jobs", "mode: sequence, max_cases: 1") % (2, "1")
    other = cluster.run_as_user(["sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 6"])
    assert other.returncode == 0, other.stderr
    with cluster.limits("MaxSubmitJobs=2"):
        folder, result = run(cluster, "unexpected", campaign, site)
    assert result.returncode == 0, result.stdout + result.stderr
    started_once(folder)
    assert "AssocMaxSubmitJobLimit" in ledger(folder, "deferred")[0]["why"]


# ---- without accounting, and without a controller ----


def _controller_away(cluster: Any, seconds: float, *, frozen: bool = False) -> threading.Thread:
    def away() -> None:
        with cluster.controller_frozen() if frozen else cluster.controller_stopped():
            time.sleep(seconds)

    thread = threading.Thread(target=away)
    thread.start()
    return thread


@pytest.mark.parametrize("accounting", [True, False], ids=["accounts", "no accounts"])
def test_the_controller_is_away_for_a_minute_while_cases_run(clusters: Any, accounting: bool) -> None:
    # A cluster of its own, as below. What slurmctld has not yet saved when it is killed, it has forgotten.
    cluster = clusters("--nodes", "4", *([] if accounting else ["--no-accounting"]))
    name = "away" if accounting else "away-unaccounted"
    folder, driver = start(cluster, name, TRIVIAL % (3, "15"), cluster.site())
    claims = "work/*/progress.json"
    wait("all cases run", lambda: len(list(folder.glob(claims))) == 3)
    began = max(path.stat().st_mtime for path in folder.glob(claims))
    saved = cluster.folder / "slurmctld" / "job_state"
    wait("slurmctld has saved that", lambda: saved.exists() and saved.stat().st_mtime > began)
    away = _controller_away(cluster, 60)
    try:
        output, _ = driver.communicate(timeout=250)
    finally:
        away.join()
    assert driver.returncode == 0, output
    started_once(folder)
    assert (
        "Unable to contact slurm controller" in output or accounting
    )  # with accounts, only sbatch would notice


def test_the_controller_goes_away_just_when_cases_begin(clusters: Any) -> None:
    # Frozen, as by a stalled disk. One that is killed in the midst of starting jobs forgets some, and cancels them
    # itself when it is back; and its nodes are busy for minutes: hence a cluster of its own.
    cluster = clusters("--nodes", "4", "--conf", "MinJobAge=301")
    campaign = TRIVIAL % (2, "1") + "  - {name: halo, workload: mpi.halo, nodes: 1, steps: 20}\n"
    begun_jobs = cluster.shared / "begun-jobs"
    site = cluster.site()
    prologue = (
        f"prologue: ['touch {begun_jobs}', 'sleep 4']\n"  # what comes after it meets a frozen controller
    )
    site.write_text(site.read_text() + prologue)
    folder, driver = start(cluster, "begins", campaign, site)
    wait("a job begins", begun_jobs.exists)
    away = _controller_away(cluster, 25, frozen=True)
    try:
        output, _ = driver.communicate(timeout=250)
    finally:
        away.join()
    assert driver.returncode == 0, output
    started_once(folder)
    events = [json.loads(line) for path in folder.glob("work/*/events.jsonl") for line in path.open()]
    assert "controller.away" in {e["kind"] for e in events}  # it did matter
    assert ledger(folder, "suspect") == []


def test_without_accounting_a_campaign_passes_and_a_lost_node_is_found(
    cluster_without_accounting: Any,
) -> None:
    cluster = cluster_without_accounting
    assert cluster.run_as_user(["sacct"]).returncode != 0
    folder, _, _ = loses_its_node(cluster, "unaccounted", LONG, cluster.site())
    assert [list(line["why"].values()) for line in ledger(folder, "again")] == [["machine"]]
    assert json.loads((folder / "scheduler.json").read_text())["calls"].get("sacct") is None


def test_without_accounting_a_job_that_slurm_forgot_is_not_waited_for_for_ever(
    clusters: Any,
) -> None:
    cluster = clusters("--nodes", "2", "--no-accounting", "--conf", "MinJobAge=2")
    campaign = LONG + "retry: {unknown: 0}\n"
    site = cluster.site(("max_nodes: 4", "max_nodes: 2"))
    folder = cluster.shared / "forgotten"
    path = write(cluster, "forgotten.yaml", campaign)
    detached = [*HARNESS, "run", path, "--site", str(site), "--folder", str(folder), "--detach"]
    assert cluster.run_as_user(detached).returncode == 0
    wait("the case runs", lambda: begun(folder))
    claim = json.loads((folder / "work/0000/claim.json").read_text())
    cluster.run_as_user(["scancel", "--signal=KILL", "--full", claim["job_id"]])
    forgotten = ["bash", "-c", f"squeue -h -t all -j {claim['job_id']} || true"]
    wait("the controller forgets it", lambda: not cluster.run_as_user(forgotten).stdout.strip(), 150)
    result = cluster.run_as_user([*HARNESS, "resume", str(folder)], timeout=200)
    assert result.returncode == 3, result.stdout + result.stderr
    (end,) = ledger(folder, "ended")
    assert "Slurm knows no such job any more" in end["facts"]["reason"]
