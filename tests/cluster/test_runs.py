"""Runs on a real Slurm cluster that do not go smoothly."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.driving import HARNESS, on_login, rows, write

pytestmark = pytest.mark.timeout(300)

HALO = "schema: 1\nname: small\nseed: 1\ngroups:\n  - {name: halo, workload: mpi.halo, nodes: 2, steps: %d}\n"
TRAIN = """\
schema: 1
name: head
seed: 5
groups:
  - name: train
    workload: torch.train
    nodes: 2
    steps: 60
    checkpoint: {every_steps: 10}
    recovery: {policy: requeue}
    faults:
      - {kind: node.power_off, target: {node: 0}, at: {step: 35}, expect: recovered}
"""


def test_the_batch_host_loses_its_power_and_the_job_recovers(cluster: Any) -> None:
    folder = cluster.shared / "head"
    result = cluster.run_as_user(
        [
            *HARNESS,
            "run",
            write(cluster, "head.yaml", TRAIN),
            "--site",
            "emulated",
            "--folder",
            str(folder),
        ],
        timeout=240,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (fault,) = rows(folder, "faults")
    first, second = [a for a in rows(folder, "attempts") if a["case_id"] == fault["case_id"]]
    assert fault["target"] == f"node {json.loads(first['nodes'])[0]}"  # it was the batch host
    assert (first["outcome"], second["outcome"], second["restart"]) == ("lost", "completed", 1)
    assert (fault["requested"], fault["observed"], fault["healed"]) == (True, True, True)
    assert json.loads(fault["evidence"])["fault.observed"]["evidence"]["seen"] == "after the restart"
    offs = [json.loads(line) for line in (cluster.folder / "power.jsonl").read_text().splitlines()]
    assert [a["node"] for a in offs if a["action"] == "off"][-1] == json.loads(first["nodes"])[0]


def test_a_job_whose_key_is_claimed_runs_nothing(cluster: Any) -> None:
    folder = cluster.shared / "twice"
    campaign = write(cluster, "twice.yaml", HALO % 20)
    command = [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(folder)]
    assert cluster.run_as_user(command).returncode == 0
    again = cluster.run_as_user(["sbatch", "--wait", str(folder / "jobs/0000.sh")])
    assert again.returncode == 0, again.stderr
    job_id = again.stdout.split()[-1]
    log = (folder / "logs" / f"0000-{job_id}.out").read_text()
    assert log == "0000 is claimed by another job; nothing to do here\n"
    attempts = [json.loads(line) for line in (folder / "work/0000/attempts.jsonl").read_text().splitlines()]
    assert {a["attempt"]["index"] for a in attempts if a["what"] == "attempt"} == {0}


def test_a_killed_driver_goes_on_and_nothing_runs_twice(cluster: Any) -> None:
    folder = cluster.shared / "killed"
    campaign = write(cluster, "killed.yaml", HALO % 20)
    inside = [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(folder)]
    with subprocess.Popen(on_login(cluster, inside), stdout=subprocess.DEVNULL) as first:
        end = time.monotonic() + 60
        while not (folder / "ledger.jsonl").exists():
            assert time.monotonic() < end, "nothing was submitted within a minute"
            time.sleep(0.02)
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except OSError:
                continue
            if str(folder).encode() in words and b"run" in words and b"exec" not in words:
                os.kill(int(entry.parent.name), signal.SIGKILL)
        first.wait(timeout=30)
    result = cluster.run_as_user(inside)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.startswith(f"going on with {folder}")
    assert [(a["index"], a["outcome"]) for a in rows(folder, "attempts")] == [(0, "completed")]
    # It may have been submitted twice (a driver killed inside sbatch cannot know), and was executed once. The
    # accounts are not asked: they know a job some seconds late.
    logs = [path.read_text() for path in (folder / "logs").glob("0000-*.out")]
    assert sum("claimed by another job" not in log for log in logs) == 1


def test_cancelled_jobs_end_as_unknown_and_say_so(cluster: Any) -> None:
    folder = cluster.shared / "cancelled"
    campaign = write(cluster, "cancelled.yaml", HALO % 200000)
    inside = [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(folder)]
    with subprocess.Popen(
        on_login(cluster, inside),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as first:
        end = time.monotonic() + 60
        while not (folder / "work/0000/progress.json").exists():
            assert time.monotonic() < end, "the case did not begin within a minute"
            time.sleep(0.1)
        os.killpg(first.pid, signal.SIGINT)  # what Ctrl-C at a terminal sends
        _, errors = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "what was submitted goes on without this command" in errors
    assert f"harness cancel {folder}" in errors
    cancelled = cluster.run_as_user([*HARNESS, "cancel", str(folder)])
    assert cancelled.returncode == 0, cancelled.stderr
    result = cluster.run_as_user(inside)
    assert result.returncode == 3, result.stdout + result.stderr
    (case,) = rows(folder, "cases")
    assert (case["outcome"], case["reason"]) == ("interrupted", "received SIGTERM")
    assert rows(folder, "jobs")[0]["state"].startswith("CANCELLED")
    kinds = [e["kind"] for e in rows(folder, "events")]
    assert ("job.signalled" in kinds, "job.requeue_asked" in kinds) == (True, False)
    assert {s["status"] for s in rows(folder, "streams")} == {"complete"}
    why = json.loads((folder / "summary.json").read_text())["cases"][0]["why"]
    assert "its job was cancelled (Slurm says CANCELLED by" in why


def test_worlds_of_one_fail_the_case_in_clear_words(cluster: Any) -> None:
    # Our own template would refuse it; whoever overrides that still learns of it.
    (cluster.shared / "permissive").mkdir()
    permissive = '{% extends "harness/mpi.sh.j2" %}\n{% block possible %}{% endblock %}\n'
    (cluster.shared / "permissive/mpi.sh.j2").write_text(permissive)
    site = cluster.site(
        ("plugin: pmi2", "plugin: none"),
        ("launcher: slurm", f"launcher: slurm\ntemplates: {cluster.shared}/permissive"),
    )
    folder = cluster.shared / "worlds"
    campaign = write(cluster, "worlds.yaml", HALO % 20)
    result = cluster.run_as_user(
        [*HARNESS, "run", str(campaign), "--site", str(site), "--folder", str(folder)]
    )
    assert result.returncode == 1, result.stdout + result.stderr
    (case,) = rows(folder, "cases")
    assert case["outcome"] == "failed"
    assert "2 ranks were started, but MPI made 2 worlds of one" in case["reason"]


def test_a_folder_that_cannot_be_written_is_said(cluster: Any) -> None:
    campaign = write(cluster, "ro.yaml", HALO % 20)
    result = cluster.run_as_user(
        [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", "/usr/run"]
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "/usr/run: cannot be made (Permission denied); choose a --folder on shared storage that you can write to\n"
    )


def test_site_emulated_is_refused_outside_an_emulated_cluster(cluster: Any, tmp_path: Path) -> None:
    result = subprocess.run(
        [*HARNESS, "run", "quickstart", "--site", "emulated", "--folder", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert result.stderr.startswith('site "emulated" is an emulated cluster, and this shell is not on one')
    assert not (tmp_path / "run").exists()
