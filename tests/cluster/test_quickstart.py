"""The quickstart campaign on a real Slurm cluster, as its ordinary user: what `make demo` runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.store import Results

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def finished(cluster: Any) -> Any:
    """The finished run: its folder, and what `harness run` printed."""
    folder = cluster.shared / "quick start"
    result = cluster.run_as_user(
        [sys.executable, "-m", "harness", "run", "quickstart", "--site", "emulated", "--folder", str(folder)],
        timeout=500,
    )
    return folder, result


@pytest.fixture(scope="module")
def results(finished: Any) -> Any:
    """Its results, open."""
    folder, result = finished
    assert (folder / "results.h5").exists(), result.stdout + result.stderr
    with Results(folder / "results.h5") as opened:
        yield opened


def _group(results: Results, table: str, key: str, value: str) -> list[dict[str, Any]]:
    return [row for row in results.rows(table) if row[key] == value]


def test_all_cases_pass(finished: Any) -> None:
    _, result = finished
    assert result.returncode == 0, result.stdout + result.stderr
    verdicts = [line.split()[0] for line in result.stdout.splitlines() if line[:8].strip().isupper()]
    assert verdicts == ["PASS"] * 31


def test_torch_and_mpi_ranks_ran_on_different_nodes_under_slurm_steps(results: Results) -> None:
    cases = {c["case_id"]: c for c in results.rows("cases")}
    seen = set()
    for attempt in results.rows("attempts"):
        case = cases[attempt["case_id"]]
        hosts = json.loads(attempt["rank_nodes"])
        steps = json.loads(attempt["step_ids"])
        assert (len(hosts), len(set(hosts))) == (case["ranks"], case["nodes"])
        assert attempt["slurm_job_id"] != ""
        assert steps or attempt["outcome"] != "completed"
        if case["nodes"] == 4:
            seen.add((case["workload"], tuple(sorted(hosts))))
    assert seen == {
        ("torch.collectives", ("p1", "p2", "p3", "p4")),
        ("mpi.halo", ("p1", "p2", "p3", "p4")),
    }


def test_host_names_were_the_nodes_own(results: Results) -> None:
    started = _group(results, "events", "kind", "rank.started")
    assert started
    assert all(json.loads(e["data"])["host"] == e["host"] for e in started)


def test_each_powered_off_node_was_seen_off_and_is_back(cluster: Any, results: Results) -> None:
    faults = results.rows("faults")
    assert [(f["kind"], f["requested"], f["observed"], f["healed"]) for f in faults] == [
        ("node.power_off", True, True, True)
    ] * 2
    for fault in faults:
        evidence = json.loads(fault["evidence"])
        assert evidence["fault.observed"]["evidence"]["power"] == "off"
        assert evidence["fault.observed"]["evidence"]["agent"].startswith("no beat from its agent for")
        assert evidence["fault.healed"]["evidence"]["power"] == "on"
    # The cluster's own record, written by the power control and not by the harness's job.
    actions = [json.loads(line) for line in (cluster.folder / "power.jsonl").read_text().splitlines()]
    first = min(f["requested_wall_ns"] for f in faults)
    offs = [a["node"] for a in actions if a["action"] == "off" and a["effect_wall_ns"] >= first]
    assert sorted(offs) == sorted(f["target"].removeprefix("node ") for f in faults)


def test_nothing_was_refused_or_left_unhealed(results: Results) -> None:
    kinds = {row["kind"] for row in results.rows("events")}
    assert kinds & {"fault.refused", "fault.unhealed", "supervisor.failed"} == set()


def test_slurm_requeued_the_job_and_it_resumed_on_healthy_nodes(cluster: Any, results: Results) -> None:
    for fault in results.rows("faults"):
        first, second = _group(results, "attempts", "case_id", fault["case_id"])
        assert (first["outcome"], second["outcome"]) == ("node_lost", "completed")
        assert (first["restart"], second["restart"]) == (0, 1)
        (hit,) = json.loads(fault["nodes"])
        assert hit in json.loads(first["rank_nodes"])
        assert hit not in json.loads(second["rank_nodes"])
        assert second["first_step"] == second["restored_step"] >= 30
        accounts = cluster.run_as_user(
            ["sacct", "-n", "-P", "-X", "-D", "-j", second["slurm_job_id"], "--format=State"]
        ).stdout.split()
        assert accounts == ["NODE_FAIL", "COMPLETED"]


def test_the_end_equals_the_undisturbed_twins_bit_for_bit(results: Results) -> None:
    twins = {c["case_id"]: c["twin"] for c in results.rows("cases") if c["twin"]}
    assert len(twins) == 2
    digests: dict[str, set[str]] = {}
    for event in _group(results, "events", "kind", "result"):
        data = json.loads(event["data"])
        if data["name"] == "params_digest":
            digests.setdefault(event["case_id"], set()).add(data["value"])
    for case_id, twin in twins.items():
        assert len(digests[twin]) == 1
        assert digests[case_id] == digests[twin]


def test_the_file_says_that_the_cluster_is_emulated(results: Results) -> None:
    assert (results.attributes["emulated"], results.attributes["launcher"]) == (True, "slurm")
    assert results.attributes["slurm_version"].startswith("slurm")


def test_host_telemetry_is_there_and_gpu_telemetry_is_absent_for_a_reason(results: Results) -> None:
    assert ("telemetry", "host") in results.sample_tables()
    absent = {(row["node"], row["what"]) for row in results.rows("telemetry_absent")}
    assert absent == {(f"p{n}", "gpu") for n in (1, 2, 3, 4)}


def test_the_three_reports_are_beside_the_results(finished: Any) -> None:
    folder, _ = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["schema"] == 1
    assert (folder / "junit.xml").read_text().count("<testcase") == 31
    assert (folder / "report.html").stat().st_size > 10_000


def test_analysis_runs_where_neither_torch_nor_submitit_can_be_imported(
    finished: Any, tmp_path: Path
) -> None:
    folder, _ = finished
    for name in ("torch", "submitit", "mpi4py"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not on this laptop')\n")
    for module in ("scaling", "report"):
        arguments = ["--out", str(tmp_path)] if module == "report" else []
        done = subprocess.run(
            [sys.executable, "-m", f"analysis.{module}", str(folder / "results.h5"), *arguments],
            env={
                "PYTHONPATH": f"{tmp_path}:{Path.cwd()}",
                "PATH": "/usr/bin:/bin",
                "MPLCONFIGDIR": str(tmp_path),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


def test_one_sbatch_a_submission_and_about_one_sacct_a_poll_were_run(finished: Any, results: Results) -> None:
    folder, _ = finished
    calls = json.loads((folder / "scheduler.json").read_text())["calls"]
    attempts = results.rows("attempts")
    seconds = (max(a["end_wall_ns"] for a in attempts) - min(a["start_wall_ns"] for a in attempts)) / 1e9
    assert calls["sbatch"] == 7
    assert 2 <= calls["sacct"] <= seconds + 30  # the site polls once a second at most
    assert set(calls) <= {"sbatch", "sacct", "squeue"}


def test_nodes_tell_what_they_are(results: Results) -> None:
    for node in results.rows("nodes"):
        facts = json.loads(node["facts"])
        assert facts["cpus"] >= 1
        assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
        assert {"torch", "mpi4py"} <= set(facts["versions"])
