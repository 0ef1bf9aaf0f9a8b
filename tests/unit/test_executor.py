"""submitit's executor sends our script, single and as an array, and nothing of its own."""

import json
from pathlib import Path

import pytest

from harness.model.case import Job, Submission
from harness.slurm.commands import CommandError
from harness.slurm.executor import TemplateExecutor

SINGLE = Submission("0000", (Job("0000", 2, 1, 5, ("a",), False),), "mpi.sh.j2")
ARRAY = Submission(
    "0001", (Job("0001_0", 2, 1, 5, ("b",), True), Job("0001_1", 2, 1, 5, ("c",), True)), "x.j2"
)
TEXT = "#!/bin/bash\n#SBATCH --nodes=2\nexec python -m harness.runtime.supervisor RUN 0001\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH whose sbatch keeps what it was given; a run folder with one script."""
    (tmp_path / "run/jobs").mkdir(parents=True)
    (tmp_path / "run/jobs/s.sh").write_text(TEXT)
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        f'#!/bin/bash\ncp "${{@: -1}}" {tmp_path}/sent\n'
        f'echo "$HARNESS_ROUND" "${{@:1:$#-1}}" > {tmp_path}/options\n'
        f"env | grep -c ^SBATCH_ > {tmp_path}/inherited\n"
        f'echo "$#" >> {tmp_path}/calls\necho "Submitted batch job 4711"\n'
    )
    (tmp_path / "srun").write_text("#!/bin/bash\n")
    for name in ("sbatch", "srun"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SBATCH_PARTITION", "of the user's shell")
    return tmp_path


@pytest.mark.parametrize("submission", [SINGLE, ARRAY], ids=["single", "array"])
def test_one_sbatch_sends_the_rendered_script(place: Path, submission: Submission) -> None:
    executor = TemplateExecutor(place / "run", timeout_s=10)
    assert executor.send(submission, place / "run/jobs/s.sh", "hh.1.s") == "4711"
    assert (place / "sent").read_text() == TEXT
    assert (place / "calls").read_text() == "1\n"
    assert (place / "inherited").read_text() == "0\n"


def test_nothing_is_pickled_and_no_file_is_added(place: Path) -> None:
    TemplateExecutor(place / "run", timeout_s=10).send(ARRAY, place / "run/jobs/s.sh", "hh.1.s")
    assert [str(p.relative_to(place / "run")) for p in sorted((place / "run").rglob("*"))] == [
        "jobs",
        "jobs/s.sh",
    ]


def test_submitits_parameters_come_from_the_same_job(place: Path) -> None:
    executor = TemplateExecutor(place / "run", timeout_s=10)
    executor.send(SINGLE, place / "run/jobs/s.sh", "hh.1.s")
    assert json.loads(json.dumps(executor.parameters)) == {
        "job_name": "hh.1.s",
        "nodes": 2,
        "time": 5,
        "wckey": None,
    }


def test_an_answer_that_names_no_job_is_an_error(place: Path) -> None:
    (place / "sbatch").write_text("#!/bin/bash\necho hello\n")
    with pytest.raises(CommandError, match="sbatch: said 'hello', which names no job"):
        TemplateExecutor(place / "run", timeout_s=10).send(SINGLE, place / "run/jobs/s.sh", "n")


def test_a_later_round_sends_the_same_script_for_some_tasks_under_its_own_name(place: Path) -> None:
    again = ARRAY.again(2, ["0001_1"])
    executor = TemplateExecutor(place / "run", timeout_s=10)
    assert executor.send(again, place / "run/jobs/s.sh", again.job_name("ab"), ["p3", "p4"]) == "4711"
    assert (place / "sent").read_text() == TEXT
    assert (place / "options").read_text() == "2 --exclude=p3,p4 --job-name=hh.ab.0001.2 --array=1\n"


def test_the_first_round_says_so_and_adds_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_ROUND", "7")  # left over from a job around us
    TemplateExecutor(place / "run", timeout_s=10).send(ARRAY, place / "run/jobs/s.sh", "n")
    assert (place / "options").read_text() == "0\n"
