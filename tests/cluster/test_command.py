"""Users' programs on a real Slurm: MPI programs of two libraries, what they leave behind, how they are cancelled."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import analysis
from analysis.verdict import CaseVerdict, judge
from harness.model.verdict import Verdict
from harness.store import Results
from tests.cluster.driving import on_login

pytestmark = pytest.mark.timeout(300)

HARNESS = [sys.executable, "-m", "harness"]
EXAMPLE = Path(__file__).parents[2] / "configs/campaigns/command.yaml"
MARK = "4217.19"  # seconds that a process of ours sleeps, by which it is found if it is left behind

CAMPAIGN = r"""
schema: 1
name: programs
seed: 5
groups:
  - name: mpich
    workload: command
    nodes: 2
    ranks_per_node: 2
    command:
      world: mpi
      run:
        - "{python}"
        - -c
        - "from mpi4py import MPI; c = MPI.COMM_WORLD; print('rank', c.rank, 'of', c.size, 'sum', c.allreduce(1))"
      success: {output: '^rank {rank} of {ranks} sum {ranks}$', ranks: all}
  - name: wrong-world
    workload: command
    nodes: 2
    ranks_per_node: 2
    command:
      world: mpi
      mpi: none
      run: ["{python}", -c, "from mpi4py import MPI; print('rank', MPI.COMM_WORLD.rank, 'of', MPI.COMM_WORLD.size)"]
      success: {output: '^rank \d of {ranks}$'}
  - name: plain
    workload: command
    nodes: 2
    ranks_per_node: 2
    command:
      script: |
        echo "rank $RANK of $WORLD_SIZE on $(hostname) in job $SLURM_JOB_ID"
        env | grep -E '^(SLURM_PROCID|SLURM_NTASKS|SLURM_STEP_ID|PMI|HARNESS_TOKEN)' && echo LEAK
        setsid sleep MARK & (setsid sh -c 'sleep MARK & sleep MARK' >/dev/null 2>&1 </dev/null &)
      success: {output: '^rank {rank} of 4 on p\d in job \d+$', no_output: LEAK}
  - name: mpi-leaves
    workload: command
    nodes: 2
    ranks_per_node: 2
    command:
      world: mpi
      script: |
        (setsid sh -c 'sleep MARK & sleep MARK' >/dev/null 2>&1 </dev/null &)
        [ "$SLURM_PROCID" = 3 ] && kill -ABRT $$
        sleep MARK
      success: {output: done}
  - name: missing
    workload: command
    nodes: 2
    command: {world: mpi, run: [/opt/no/such/program], success: {output: done}}
"""


def _run(cluster: Any, campaign: Path, name: str) -> tuple[Path, dict[str, CaseVerdict], Any]:
    """Run a campaign as the cluster's user; its folder, the verdict of each case by label, and what was printed."""
    folder = cluster.shared / name
    result = cluster.run_as_user(
        [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(folder)], timeout=250
    )
    with analysis.load(folder / "results.h5") as results:
        return folder, {v.label: v for v in judge(results)}, result


def _write(cluster: Any, name: str, text: str) -> Path:
    path: Path = cluster.shared / name
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def programs(cluster: Any) -> Any:
    return _run(cluster, _write(cluster, "programs.yaml", CAMPAIGN.replace("MARK", MARK)), "programs")


def _processes() -> list[bytes]:
    """Command lines with our mark, on whichever node."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if MARK.encode() in words and b"pytest" not in words:
            found.append(words)
    return found


def test_an_mpi_program_of_mpich_finds_its_world_by_pmi2(programs: Any) -> None:
    _, verdicts, _ = programs
    assert verdicts["mpich/n2/r0"].verdict is Verdict.PASS
    assert "8 checks of the answer hold" in verdicts["mpich/n2/r0"].why


def test_worlds_of_one_fail_by_the_programs_own_words(programs: Any) -> None:
    _, verdicts, _ = programs
    assert verdicts["wrong-world/n2/r0"].verdict is Verdict.FAIL
    assert verdicts["wrong-world/n2/r0"].why == (
        "check \"output '^rank \\\\d of {ranks}$'\" failed on rank 0: expected a line like '^rank \\\\d of 4$', "
        "observed none of 1 lines"
    )


def test_ranks_of_a_plain_world_are_not_told_that_they_are_alone(programs: Any) -> None:
    folder, verdicts, _ = programs
    assert verdicts["plain/n2/r0"].verdict is Verdict.PASS
    with Results(folder / "results.h5") as results:
        (attempt,) = [a for a in results.rows("attempts") if a["case_id"] == verdicts["plain/n2/r0"].case_id]
    steps = json.loads(attempt["step_ids"])
    assert len(steps) == 2, "the agents' steps, and no step of its own"


def test_nothing_of_a_program_is_left_on_any_node(programs: Any) -> None:
    _, verdicts, _ = programs
    assert _processes() == []
    assert verdicts["mpi-leaves/n2/r0"].why.startswith("failed: rank 3 on p")
    assert "its program crashed, killed by SIGABRT after " in verdicts["mpi-leaves/n2/r0"].why


def test_a_program_that_is_not_there_is_said_with_its_node(programs: Any) -> None:
    _, verdicts, _ = programs
    why = verdicts["missing/n2/r0"].why
    assert "/opt/no/such/program: not on node p" in why
    assert "is it on shared storage?" in why


def test_the_worked_example_passes(cluster: Any) -> None:
    if shutil.which("hpcc") is None:
        pytest.skip("needs Debian's package hpcc; `make test` as root installs it")
    folder, verdicts, result = _run(cluster, _write(cluster, "example.yaml", EXAMPLE.read_text()), "example")
    assert result.returncode == 0, result.stdout + result.stderr
    assert {label: v.verdict for label, v in verdicts.items()} == dict.fromkeys(
        (
            *("copy/n2/size_mb=8/r0", "copy/n2/size_mb=32/r0", "hpcc/n1/r0", "hpcc/n2/r0", "solve/n2/r0"),
            *("survive/n2/r0/fault", "survive/n2/r0/twin"),
        ),
        Verdict.PASS,
    )
    with Results(folder / "results.h5") as results:
        worlds = [c["observed"] for c in results.rows("checks") if "CommWorldProcs" in c["name"]]
        errors = results.samples("command.hpcc", "random_access_errors", ["random_access_errors"])
        peak = results.samples("command.solve", "peak", ["step", "peak"])
    assert sorted(worlds) == ["the line 'CommWorldProcs=1'", "the line 'CommWorldProcs=2'"]
    assert errors["random_access_errors"].tolist() == [0.0, 0.0]
    assert sorted(peak["step"].tolist()) == sorted([*range(40)] * 2)


def test_a_program_whose_job_is_cancelled_is_not_called_a_failure_of_the_program(cluster: Any) -> None:
    text = (
        "schema: 1\nname: long\nseed: 1\ngroups:\n"
        "  - {name: long, workload: command, nodes: 2, command: {success: {output: done}, script: 'sleep MARK'}}\n"
    )
    campaign, folder = _write(cluster, "long.yaml", text.replace("MARK", MARK)), cluster.shared / "long"
    inside = [*HARNESS, "run", str(campaign), "--site", "emulated", "--folder", str(folder)]
    with subprocess.Popen(
        on_login(cluster, inside),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        end = time.monotonic() + 60
        while len(_processes()) < 2:
            assert time.monotonic() < end, "the program did not begin within a minute"
            time.sleep(0.1)
        assert cluster.run_as_user([*HARNESS, "cancel", str(folder)]).returncode == 0
        first.wait(timeout=100)
    cluster.run_as_user([*HARNESS, "collect", str(folder)])
    with Results(folder / "results.h5") as results:
        (case,) = results.rows("cases")
    assert (case["outcome"], case["reason"]) == ("interrupted", "received SIGTERM")
    assert _processes() == []
