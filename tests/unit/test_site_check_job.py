"""What `harness site check` says of a job that Slurm refused, or that left no report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.sites import check as checking
from harness.sites.evidence import Evidence, Line
from harness.sites.judge import exit_code, judge, will_not_start
from harness.sites.limits import Ceiling
from harness.slurm.commands import CommandError
from tests.unit.site_evidence import seen, site


@pytest.mark.parametrize(
    ("said", "place", "change"),
    [
        ("Invalid account or account/partition combination specified", "account", "name one: the file has no account"),
        ("invalid partition specified: batch", "partition", "correct partition = batch"),
        ("Invalid qos specification", "qos", "name one: the file has no qos"),
        ("Invalid feature specification", "constraint", "name one: the file has no constraint"),
        ("Memory specification can not be satisfied", "node.memory_mb", "name one: the file has no node.memory_mb"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "limits.max_time_min",
         "correct limits.max_time_min = 30"),
    ],
)  # fmt: skip
def test_a_refused_job_names_the_key_that_sbatch_means(said: str, place: str, change: str) -> None:
    text = f"sbatch: exit code 1, said: sbatch: error: {said}"
    lines = judge(site(), Evidence(folder="/x", refused=text, config={"MaxArraySize": "1001"}))
    assert lines[0] == Line("wrong", place, f"sbatch refused the job: sbatch: error: {said}", change)
    assert exit_code(lines) == 1


@pytest.mark.parametrize(
    ("job", "out", "line"),
    [
        (
            {"JobState": "PENDING", "Reason": "Resources"}, "",
            Line("unknown", "job", "still waiting (Resources) after 600 s, and cancelled",
                 "try again with a longer --wait-min than 10"),
        ),
        (
            {"JobState": "PENDING", "Reason": "PartitionTimeLimit"}, "",
            Line("wrong", "limits.max_time_min", "the job will not start: PartitionTimeLimit",
                 "correct limits.max_time_min = 30"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "93:0"}, "",
            Line("wrong", "paths.shared", "the job's node does not see /shared/x, or cannot write in it",
                 "give a --folder that all nodes see, and name such folders in paths.shared"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "92:0"}, "",
            Line("wrong", "python", "there is no such interpreter on the job's node: /opt/env/bin/python",
                 "name one that all nodes have"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "1:0"}, "Lmod: unknown\nmodule cuda of the site file cannot be loaded\n",
            Line("wrong", "modules", "cuda cannot be loaded: Lmod: unknown | module cuda of the site file cannot be "
                 "loaded", "`module avail` on a node lists them"),
        ),
        (
            {"JobState": "FAILED", "ExitCode": "1:0"}, "/usr/bin/python3.6: No module named 'harness'\n",
            Line("wrong", "python", "/opt/env/bin/python cannot run the harness: /usr/bin/python3.6: No module named "
                 "'harness'", "name a Python of 3.10 or newer"),
        ),
        (
            {"JobState": "NODE_FAIL", "ExitCode": "0:0"}, "",
            Line("unknown", "job", "the job is NODE_FAIL (exit code 0:0) and left no report; it printed nothing into "
                 "/shared/x", "run again with --keep and look into the folder"),
        ),
    ],
)  # fmt: skip
def test_a_job_that_left_no_report_says_why(job: dict[str, str], out: str, line: Line) -> None:
    found = seen(report=None, job={"Requeue": "1", **job}, out=out, waited_s=600.0, deadline_s=600.0)
    assert judge(site(), found)[0] == line


def test_a_refusal_for_now_is_unknown_and_says_so() -> None:
    for said, place in (
        ("AssocMaxSubmitJobLimit sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
         "limits.max_jobs_in_queue"),
        ("Required partition not available (inactive or drain)", "partition"),
    ):  # fmt: skip
        lines = judge(
            site(), Evidence(folder="/x", refused=f"sbatch: exit code 1, said: {said}", for_now=True)
        )
        assert lines[0] == Line(
            "unknown", place, f"sbatch does not take the job now: {said}", "try again when that has passed"
        )
        assert exit_code(lines) == 3


def test_only_keys_that_the_file_sets_are_blamed() -> None:
    given = site(
        ("gpus: 1", "gpus: 0"), ("partition: batch", "partition: batch\ngres: nvme:1\nexclude_nodes: [n1]")
    )

    def told(said: str) -> Line:
        return judge(given, Evidence(folder="/x", refused=f"sbatch: exit code 1, said: {said}"))[0]

    said = "Requested node configuration is not available"
    keys = ["limits.max_nodes", "gres", "exclude_nodes"]
    assert told(said) == Line(
        "wrong",
        ", ".join(keys),
        f"sbatch refused the job: {said}",
        "correct limits.max_nodes = 4 or gres = nvme:1 or exclude_nodes = n1",
    )
    assert told("Invalid generic resource (gres) specification").change == "correct gres = nvme:1"
    assert told("QOSMaxNodePerJobLimit: Job violates accounting/QOS policy").place == "limits.max_nodes"


def test_words_that_nobody_knows_blame_no_key() -> None:
    (line, *_) = judge(site(), Evidence(folder="/x", refused="sbatch: exit code 1, said: the moon is full"))
    assert line == Line(
        "wrong",
        "job",
        "sbatch refused the job: the moon is full",
        "see what it says; the file says partition = batch",
    )


def test_a_limit_of_all_jobs_together_is_waited_for_unless_one_job_is_beyond_it() -> None:
    def hopeless(reason: str, most: int) -> bool:
        limit = Ceiling("limits.max_nodes", most, "GrpTRES", shared=True)
        return will_not_start(reason, Evidence(folder="/x", nodes=2, ceilings=(limit,)))

    assert [hopeless("AssocGrpNodeLimit", most) for most in (1, 2)] == [True, False]
    assert [hopeless(one, 9) for one in ("QOSMaxNodePerJobLimit", "BadConstraints", "Priority")] == [
        True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
            "submit_trouble",
        ),
        ("sbatch: error: invalid partition specified: x", "refused"),
    ],
)
def test_only_a_plain_refusal_is_taken_as_one(
    said: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sbatch(command: Any, **_: Any) -> str:
        raise CommandError(f"sbatch: exit code 1, said: {said}", 1)

    monkeypatch.setattr(checking, "run_command", sbatch)
    monkeypatch.setattr(checking, "_cancel_lost", lambda name: f"looked for {name}")
    number, problem = checking._submit(site(), tmp_path / "job.sh", "hh.x", (), lambda text: None)
    assert (number, [key for key in problem if key != "for_now"]) == ("", [found])
    assert ("looked for hh.x" in str(problem)) == (found == "submit_trouble")


def test_a_lost_job_is_cancelled_when_the_controller_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["", None, "41", "", ""]
    cancelled: list[str] = []

    def answer(command: Any, **_: Any) -> str:
        if command[0] == "scancel":
            cancelled.extend(command[1:])
            return ""
        assert command[:4] == ["squeue", "--noheader", "--name", "hh.x"] or command[3] == "hh.x"
        if (said := answers.pop(0)) is None:
            raise CommandError("squeue: exit code 1, said: Socket timed out", 1)
        return said

    monkeypatch.setattr(checking, "run_command", answer)
    monkeypatch.setattr("time.sleep", lambda s: None)
    assert checking._cancel_lost("hh.x") == "job 41 was queued and is cancelled"
    assert cancelled == ["41"]
    assert checking._cancel_lost("hh.x", 0.0) == (
        "a job may be queued: when the controller answers, `scancel --name hh.x`"
    )


def test_a_controller_that_did_not_answer_leaves_it_unknown() -> None:
    lines = judge(site(), Evidence(folder="/x", submit_trouble="sbatch: no answer within 30 s"))
    assert (lines[0].status, exit_code(lines)) == ("unknown", 3)
