"""The answers of sacct and squeue, as rows; which of the two is asked, and how often."""

import subprocess
from pathlib import Path

import pytest

from harness.slurm import query
from harness.slurm.commands import CommandError, CommandTimeout, clean_environment, run_command
from harness.slurm.query import JobRow


def test_sacct_rows_are_read_and_pending_arrays_expanded() -> None:
    text = (
        "12|hh.a.0000|COMPLETED|0:0|p[1-2]|2026-01-01T00:00:00|2026-01-01T00:01:00\n"
        "13_0|hh.a.0001|NODE_FAIL|1:0|p3|2026-01-01T00:00:00|2026-01-01T00:01:00\n"
        "13_[1-2,5%4]|hh.a.0001|PENDING|0:0|None assigned|Unknown|Unknown\n"
        "a line of another shape\n"
    )
    pending = ("hh.a.0001", "PENDING", "0:0", "None assigned", "Unknown", "Unknown")
    assert query.parse_sacct(text) == [
        JobRow("12", "hh.a.0000", "COMPLETED", "0:0", "p[1-2]", "2026-01-01T00:00:00", "2026-01-01T00:01:00"),
        JobRow("13_0", "hh.a.0001", "NODE_FAIL", "1:0", "p3", "2026-01-01T00:00:00", "2026-01-01T00:01:00"),
        JobRow("13_1", *pending),
        JobRow("13_2", *pending),
        JobRow("13_5", *pending),
    ]


def test_squeue_rows_are_read() -> None:
    assert query.parse_squeue(
        "7_[0-1]|hh.a.0000|PENDING|0||N/A|N/A|2|Nodes required for job are DOWN, DRAINED|\n"
    ) == [
        JobRow(
            job_id,
            "hh.a.0000",
            "PENDING",
            "0",
            "",
            "N/A",
            "N/A",
            2,
            "Nodes required for job are DOWN, DRAINED",
        )
        for job_id in ("7_0", "7_1")
    ]


def _fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f'#!/bin/bash\necho {name} "$@" >> {folder}/calls\n{body}\n')
    path.chmod(0o755)


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for Slurm's commands, first on PATH: for tables of outages only."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def test_one_poll_of_many_jobs_is_one_call(fakes: Path) -> None:
    _fake(fakes, "sacct", 'echo "1|n|RUNNING|0:0|p1|s|e"')
    assert query.ask(["2", "1", "10", "1"], accounting=True, timeout_s=5) == [
        JobRow("1", "n", "RUNNING", "0:0", "p1", "s", "e")
    ]
    assert (fakes / "calls").read_text() == (
        "sacct -n -P -X -j 1,2,10 --format=JobID,JobName,State,ExitCode,NodeList,Start,End\n"
    )


def test_the_controller_is_asked_when_accounting_is_away(fakes: Path) -> None:
    _fake(fakes, "sacct", "echo 'sacct: error: Connection refused' >&2; exit 1")
    _fake(fakes, "squeue", 'echo "1|n|RUNNING|0|p1|s|e|0|None|"')
    assert query.ask(["1"], accounting=True, timeout_s=5) == [
        JobRow("1", "n", "RUNNING", "0", "p1", "s", "e", restarts=0, reason="None")
    ]


def test_silence_of_both_is_an_error_and_no_answer(fakes: Path) -> None:
    _fake(fakes, "sacct", "exit 1")
    _fake(fakes, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(CommandError, match="Unable to contact slurm controller"):
        query.ask(["1"], accounting=True, timeout_s=5)


def test_no_open_job_is_no_question(fakes: Path) -> None:
    assert query.ask([], accounting=True, timeout_s=5) == []
    assert not (fakes / "calls").exists()


def test_a_command_that_hangs_is_killed_and_its_outcome_is_unknown(fakes: Path) -> None:
    _fake(fakes, "sbatch", "sleep 60")
    with pytest.raises(CommandTimeout) as caught:
        run_command(["sbatch", "x.sh"], timeout_s=0.3)
    assert str(caught.value) == "sbatch: no answer within 0.3 s; the controller may be away"
    left = subprocess.run(["pgrep", "-f", f"{fakes}/sbatch"], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def test_a_missing_command_says_what_to_do(fakes: Path) -> None:
    with pytest.raises(CommandError) as caught:
        run_command(["sbatchx"], timeout_s=1)
    assert str(caught.value) == (
        "sbatchx: command not found; is this a login node of a Slurm cluster? "
        "Load Slurm's module, or use --site local, which needs no Slurm"
    )


def test_variables_that_would_change_slurms_clients_are_left_out() -> None:
    given = {
        "SBATCH_PARTITION": "x",
        "SLURM_JOB_ID": "1",
        "SQUEUE_FORMAT": "x",
        "SACCT_FORMAT": "x",
        "SRUN_X": "1",
        "SLURM_CONF": "/etc/slurm.conf",
        "HOME": "/root",
        "SLURM_TIME_FORMAT": "relative",
        "LC_ALL": "de_DE",
    }
    assert clean_environment(given) == {
        "SLURM_CONF": "/etc/slurm.conf",
        "HOME": "/root",
        "LC_ALL": "C",
        "SLURM_TIME_FORMAT": "%Y-%m-%dT%H:%M:%S",
    }


def test_starts_are_every_record_of_a_job_but_those_of_lost_nodes(fakes: Path) -> None:
    _fake(
        fakes,
        "sacct",
        """cat <<END
5|n|COMPLETED|0:0|p1|2026-01-01T00:02:00|e
5|n|NODE_FAIL|0:0|p[1-2]|2026-01-01T00:01:00|e
5|n|RESIZING|0:0|p[1-2]|2026-01-01T00:01:00|e
END""",
    )
    assert [(r.state, r.nodes) for r in query.starts(["5"], timeout_s=5)] == [
        ("NODE_FAIL", "p[1-2]"),
        ("COMPLETED", "p1"),
    ]


def test_nodes_of_a_partition(fakes: Path) -> None:
    _fake(fakes, "sinfo", 'echo "p1|idle"; echo "p2|down*"')
    assert query.nodes_of("batch", timeout_s=5) == {"p1": "idle", "p2": "down*"}
    assert (fakes / "calls").read_text() == "sinfo -h -N -o %N|%T -p batch\n"
