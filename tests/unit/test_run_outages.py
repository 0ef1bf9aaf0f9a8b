"""`harness run` against an sbatch that is missing, refuses, hangs, or lies. Stand-ins: for outages only."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import cli, ledger
from harness import driver as driver_module
from harness.driver import Driver, SchedulerAway
from harness.prepare import open_or_make
from harness.rundir import RunDir, write_json
from harness.verbs.before import read

CAMPAIGN = "schema: 1\nname: tiny\nseed: 1\ngroups: [{name: g, workload: mpi.halo, nodes: 1, steps: 8}]\n"
SITE = """\
schema: 1
name: somewhere
kind: production
launcher: slurm
limits: {max_nodes: 4, max_time_min: 60}
node: {cpus: 4, exclusive: true}
mpi: {plugin: pmi2}
paths: {visible_after_s: 0}
requeue: true
accounting: true
scheduler: {poll_s: 1, call_timeout_s: 1}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "c.yaml").write_text(CAMPAIGN)
    (tmp_path / "s.yaml").write_text(SITE)
    return tmp_path


def _fake(place: Path, name: str, body: str) -> None:
    path = place / "bin" / name
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> {place}/calls\n{body}\n')
    path.chmod(0o755)


def _run(place: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "harness", "run", "c.yaml", "--site", "s.yaml", "--folder", "run"],
        cwd=place,
        env={
            "PATH": f"{place}/bin:/usr/bin:/bin" if (place / "bin/srun").exists() else f"{place}/bin:/bin",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HOME": str(place),
        },
        text=True,
        capture_output=True,
        timeout=60,
    )


def _without_slurm(place: Path) -> None:
    """A PATH that has everything but Slurm."""
    for name in ("git", "bash", "env"):
        found = next(p for p in (Path("/usr/bin") / name, Path("/bin") / name) if p.exists())
        (place / "bin" / name).symlink_to(found)


def test_a_missing_sbatch_is_said_and_nothing_is_left(place: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "harness", "run", "c.yaml", "--site", "s.yaml", "--folder", "run"],
        cwd=place,
        env={"PATH": f"{place}/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert (result.returncode, result.stdout, result.stderr) == (
        3,
        "",
        "sbatch: command not found; is this a login node of a Slurm cluster? "
        "Load Slurm's module, or use --site local, which needs no Slurm\n",
    )
    assert sorted(p.name for p in place.iterdir()) == ["bin", "c.yaml", "s.yaml"]


def test_a_refusal_is_the_reason_of_every_case_it_concerns(place: Path) -> None:
    _fake(
        place,
        "sbatch",
        '[ "$1" = --version ] && { echo slurm 22.05.8; exit; }\n'
        "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1",
    )
    _fake(place, "srun", "exit 0")
    result = _run(place)
    assert (result.returncode, result.stderr) == (3, "")
    assert "UNKNOWN g/n1/r0" in result.stdout
    assert "Invalid account" in json.loads((place / "run/summary.json").read_text())["cases"][0]["why"]
    assert (place / "calls").read_text().count("sbatch /") + (place / "calls").read_text().count(
        "sbatch run"
    ) <= 1


def _planned(place: Path) -> RunDir:
    _fake(place, "sbatch", "echo slurm 22.05.8")
    _fake(place, "srun", "exit 0")
    asked = cli.build_parser("run").parse_args(["run", "c.yaml", "--site", "s.yaml"])
    asked.command = []
    with pytest.MonkeyPatch.context() as there:
        there.chdir(place)
        there.setenv("PATH", f"{place}/bin:/usr/bin:/bin")
        open_or_make(place / "run", *read(asked))
    run = RunDir(place / "run")
    site = run.read_site()
    write_json(run.site, {**site, "scheduler": {**site["scheduler"], "poll_s": 0.05}})
    return run


def test_an_sbatch_that_timed_out_but_queued_the_job_is_found_by_name_and_not_sent_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _planned(place)
    run_id = run.read_json(run.identity)["run_id"]
    _fake(place, "sbatch", "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1")
    _fake(place, "squeue", f'echo "77|hh.{run_id}.0000|RUNNING|0|p1|s|e|0|None|"')
    _fake(place, "sacct", f'echo "77|hh.{run_id}.0000|COMPLETED|0:0|p1|s|e"')
    # Once it is found, the accounts call it over, and the queue does not know it any more.
    _fake(
        place, "squeue", f'case "$*" in *--name*) echo "77|hh.{run_id}.0000|RUNNING|0|p1|s|e|0|None|";; esac'
    )
    monkeypatch.setenv("PATH", f"{place}/bin:/usr/bin:/bin")
    Driver(run).drive(lambda views, trouble: None)
    calls = (place / "calls").read_text().splitlines()
    assert [c.split()[0] for c in calls if not c.endswith("--version")].count("sbatch") == 1
    lines = [json.loads(line) for line in run.ledger.read_text().splitlines()]
    assert [(line["what"], line.get("job_id")) for line in lines][:2] == [
        ("submitting", None),
        ("submitted", "77"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        "echo 'Submitted'; exit 0",
        "kill -9 $$",
        "echo 'sbatch: error: Batch job submission failed: Unable to contact slurm controller' >&2; exit 1",
        "echo 'sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received' >&2; exit 1",
        "exit 1",
    ],
    ids=["names no job", "killed", "controller away", "zero bytes", "says nothing"],
)
def test_a_failure_that_leaves_the_outcome_open_is_looked_up_and_not_called_a_refusal(
    place: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    run = _planned(place)
    run_id = run.read_json(run.identity)["run_id"]
    _fake(place, "sbatch", body)
    _fake(place, "sacct", f'echo "77|hh.{run_id}.0000|COMPLETED|0:0|p1|s|e"')
    _fake(
        place, "squeue", f'case "$*" in *--name*) echo "77|hh.{run_id}.0000|RUNNING|0|p1|s|e|0|None|";; esac'
    )
    monkeypatch.setenv("PATH", f"{place}/bin:/usr/bin:/bin")
    Driver(run).drive(lambda views, trouble: None)
    lines = [json.loads(line) for line in run.ledger.read_text().splitlines()]
    assert [(line["what"], line.get("job_id")) for line in lines][:2] == [
        ("submitting", None),
        ("submitted", "77"),
    ]


def test_a_ctrl_c_during_sbatch_waits_for_the_job_id(place: Path) -> None:
    _fake(
        place,
        "sbatch",
        '[ "$1" = --version ] && { echo slurm 22.05.8; exit; }\n'
        f"touch {place}/begun; sleep 0.8; echo Submitted batch job 5",
    )
    _fake(place, "srun", "exit 0")
    _fake(place, "sacct", "exit 0")
    with subprocess.Popen(
        [sys.executable, "-m", "harness", "run", "c.yaml", "--site", "s.yaml", "--folder", "run"],
        cwd=place,
        env={"PATH": f"{place}/bin:/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        end = time.monotonic() + 30
        while not (place / "begun").exists():
            assert time.monotonic() < end, "sbatch was not called within 30 s"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "still queued or running: 5\n" in errors
    assert f"harness cancel {place / 'run'}" in errors


def test_cancel_finds_a_job_whose_id_was_never_learnt(place: Path) -> None:
    run = _planned(place)
    run_id = run.read_json(run.identity)["run_id"]
    ledger.write(run, ledger.SUBMITTING, "0000")
    _fake(place, "squeue", f'echo "77|hh.{run_id}.0000|RUNNING|0|p1|s|e|0|None|"')
    _fake(place, "sacct", "exit 0")
    _fake(place, "scancel", "exit 0")
    result = _harness(place, "cancel", "run")
    assert (result.returncode, result.stdout, result.stderr) == (0, "cancelled 77\n", "")
    assert (place / "calls").read_text().splitlines()[-1] == "scancel 77"


def test_cancel_while_the_controller_is_away_says_so(place: Path) -> None:
    run = _planned(place)
    run_id = run.read_json(run.identity)["run_id"]
    ledger.write(run, ledger.SUBMITTING, "0000")
    _fake(place, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    result = _harness(place, "cancel", "run")
    assert (result.returncode, result.stdout) == (3, "")
    assert result.stderr.startswith(
        f"of unknown outcome: hh.{run_id}.0000; the controller was asked, and: squeue: "
    )


def _harness(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=place,
        env={"PATH": f"{place}/bin:/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])},
        text=True,
        capture_output=True,
        timeout=60,
    )


def test_an_sbatch_that_hangs_is_retried_under_its_name_and_given_up_in_words(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _planned(place)
    _fake(place, "sbatch", "sleep 60")
    _fake(place, "squeue", "sleep 60")
    monkeypatch.setenv("PATH", f"{place}/bin:/usr/bin:/bin")
    monkeypatch.setattr(driver_module, "GIVE_UP_S", 3.0)
    told: list[str] = []

    def tell(views: Any, trouble: str) -> None:
        told.append(trouble)

    with pytest.raises(SchedulerAway, match="no answer within 1 s; the controller may be away"):
        Driver(run).drive(tell)
    words = "the scheduler does not answer, trying again: sbatch: no answer within 1 s; the controller may be away"
    assert words in told
    assert os.path.exists(run.ledger)
