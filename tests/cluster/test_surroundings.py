"""What surrounds a run on a real Slurm cluster: the user's environment, the network, a disk that fills up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import failures
from harness.store import Results
from tests.cluster.driving import on_login
from tests.conftest import cluster_up, fill_up
from tests.unit.test_render import NASTY, STUB, text_of, tiny_plan, tiny_site

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

HARNESS = [sys.executable, "-m", "harness"]
HALO = "schema: 1\nname: small\nseed: 1\ngroups:\n  - {name: halo, workload: mpi.halo, nodes: 2, steps: %d}\n"

# What a user's shell may hold that changes what sbatch, srun and the rest do, or what they print.
MISLEADING = {
    "LC_ALL": "de_DE.UTF-8",
    "LANG": "de_DE.UTF-8",
    "TZ": "America/New_York",
    "SBATCH_ACCOUNT": "nonsense",
    "SBATCH_ARRAY_INX": "0-3",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_NO_KILL": "off",
    "SBATCH_PARTITION": "nonsense",
    "SBATCH_QOS": "nonsense",
    "SBATCH_TIMELIMIT": "1",
    "SBATCH_WAIT": "1",
    "SACCT_FORMAT": "jobid",
    "SCANCEL_STATE": "PENDING",
    "SCANCEL_PARTITION": "nonsense",
    "SINFO_FORMAT": "%P",
    "SLURM_BITSTR_LEN": "1",
    "SLURM_CLUSTERS": "nonsense",
    "SLURM_CPUS_PER_TASK": "64",
    "SLURM_EXCLUSIVE": "1",
    "SLURM_JOB_ID": "999999",
    "SLURM_MPI_TYPE": "none",
    "SLURM_NNODES": "3",
    "SLURM_NTASKS": "7",
    "SLURM_PARTITION": "nonsense",
    "SLURM_STEP_GRES": "gpu:9",
    "SLURM_TIMELIMIT": "1",
    "SLURM_TIME_FORMAT": "relative",
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_STATES": "PENDING",
    "SQUEUE_USERS": "nobody",
    "SRUN_CPUS_PER_TASK": "64",
    "SRUN_CONTAINER": "/nowhere",
}


def misled(command: list[str]) -> list[str]:
    return ["env", *(f"{name}={value}" for name, value in MISLEADING.items()), *command]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_users_own_variables_for_slurm_change_nothing(cluster: Any) -> None:
    folder = cluster.shared / "misled"
    campaign = write(cluster.shared, "misled.yaml", HALO % 20)
    command = [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(folder)]
    result = cluster.run_as_user(misled(command))
    assert result.returncode == 0, result.stdout + result.stderr
    with Results(folder / "results.h5") as results:
        (job,) = results.rows("jobs")
    assert job["state"] == "COMPLETED"
    assert job["start"].startswith("20"), job["start"]  # a time, and not a relative one


def test_a_users_own_variables_for_slurm_keep_no_job_from_being_cancelled(cluster: Any) -> None:
    folder = cluster.shared / "misled-cancel"
    campaign = write(cluster.shared, "misled-cancel.yaml", HALO % 200000)
    command = [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(folder), "--detach"]
    assert cluster.run_as_user(misled(command)).returncode == 0
    end = time.monotonic() + 60
    while not (folder / "work/0000/progress.json").exists():
        assert time.monotonic() < end, "the case did not begin within a minute"
        time.sleep(0.1)
    cancelled = cluster.run_as_user(misled([*HARNESS, "cancel", str(folder)]))
    assert cancelled.returncode == 0, cancelled.stderr
    while cluster.run_as_user(["squeue", "-h", "-u", "alice", "-t", "RUNNING"]).stdout:
        assert time.monotonic() < end, "the job still runs, a minute after it was begun"
        time.sleep(0.2)


def test_nodes_have_no_way_out_and_need_none(cluster: Any) -> None:
    """Every run in these tests is on such nodes; that they are such is seen here."""
    for node in ("p1", "p4"):
        routes = cluster.command(["exec", "--folder", str(cluster.folder), node, "--", "ip", "route"])
        assert [line for line in routes.stdout.splitlines() if line.startswith("default")] == []
        outside = cluster.command(
            [
                *("exec", "--folder", str(cluster.folder), node, "--", sys.executable, "-c"),
                "import socket; socket.create_connection(('192.0.2.1', 80), 5)",
            ]
        )
        assert "Network is unreachable" in outside.stderr


def test_values_arrive_in_a_real_job_as_they_were_written(cluster: Any) -> None:
    """Folder, log, interpreter and variables of the worst kind, through sbatch and slurmd."""
    folder = cluster.shared / 'it\'s a "run" of $USER (100%) #1 `x` %j'
    (folder / "logs").mkdir(parents=True, mode=0o777)
    for path in (folder, folder / "logs"):
        path.chmod(0o777)
    python = write(folder, "py $(thon)", STUB)
    python.chmod(0o755)
    values = {f"NASTY_{n}": value for n, value in enumerate(NASTY)}
    site = tiny_site(
        kind="emulated", partition="batch", node={"cpus": 1, "exclusive": False}, environment=values
    )
    plan = tiny_plan()
    text = text_of(
        plan.submissions[0], plan, site, run_folder=str(folder), python=str(python), code_path=f"{folder}/c"
    )
    script = write(cluster.shared, "nasty.sh", text)
    result = cluster.run_as_user(["sbatch", "--wait", str(script)])
    assert result.returncode == 0, result.stdout + result.stderr
    (log,) = (folder / "logs").iterdir()
    assert log.name == f"0000-{result.stdout.split()[-1]}.out"
    arguments, where, seen = json.loads(log.read_text())
    assert (arguments[2:], where) == ([str(folder), "0000"], str(folder))
    assert {name: seen[name] for name in values} == values
    assert not Path("/tmp/harness-escaped").exists()


@pytest.mark.parametrize(
    "value", ["a #b", '"', "'; ls; '", "\\", "hetjob x", "$(ls)", "x --uid=0", "%j", " two  words "]
)
def test_sbatch_takes_an_option_whole(cluster: Any, value: str) -> None:
    """It says which partition it does not know: the text as it was written."""
    text = text_of(
        tiny_plan().submissions[0], tiny_plan(), tiny_site(partition=value), run_folder=str(cluster.shared)
    )
    result = cluster.run_as_user(["sbatch", str(write(cluster.shared, "option.sh", text))])
    assert (result.returncode, result.stderr) == (
        1,
        f"sbatch: error: invalid partition specified: {value}\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
    )


def test_a_shared_disk_that_fills_up_is_the_reason_that_is_given(
    small_disk: Callable[[str], Path],
) -> None:
    """The job's supervisor cannot write that; its exit code says it."""
    disk = small_disk("8m")
    with cluster_up("--nodes", "2", "--share", str(disk)) as there:
        run = disk / "run"
        campaign = write(there.shared, "long.yaml", HALO % 10000)
        inside = [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(run), "--plain"]
        with subprocess.Popen(on_login(there, inside), stderr=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + 60
            while not list(run.glob("work/*/*/attempt-*/*.stream")):
                assert time.monotonic() < end, "nothing was recorded within a minute"
                time.sleep(0.05)
            filler = fill_up(disk)
            _, errors = process.communicate(timeout=150)
        assert process.returncode == 3, errors
        assert "No space left on device; free some space there, and give the same command again" in errors
        filler.unlink()
        again = there.run_as_user(inside, timeout=150)
        assert again.returncode == 3, again.stdout + again.stderr
        (case,) = json.loads((run / "summary.json").read_text())["cases"]
        with Results(run / "results.h5") as results:
            (job,) = results.rows("jobs")
    assert case["verdict"] == "unknown"
    # A line may still fit where a file's last block has room; the supervisor's last document does not.
    assert "No space left on device" in " ".join(case["evidence"])
    assert (job["state"], job["exit_code"]) == ("FAILED", f"{failures.EXIT_STORAGE}:0")
