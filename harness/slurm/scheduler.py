"""Slurm as the driver's scheduler: submitit's executor to submit, one batched question, look-ups by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness.model.case import Submission
from harness.rundir import RunDir
from harness.slurm import query
from harness.slurm.commands import run_command
from harness.slurm.query import JobRow
from harness.slurm.states import is_over

# What sacct calls a job whose name has not yet reached the accounts.
_UNNAMED = "allocation"


class SlurmScheduler:
    """See ``harness.scheduler.Scheduler``."""

    one_at_a_time = False
    free = False

    def __init__(self, run: RunDir, site: Mapping[str, Any], run_id: str) -> None:
        self._run, self._run_id = run, run_id
        self._accounting: bool = site["accounting"]
        self._timeout_s: float = site["scheduler"]["call_timeout_s"]

    def submit(self, submission: Submission, exclude: Sequence[str] = ()) -> str:
        """One ``sbatch``."""
        from harness.slurm.executor import TemplateExecutor

        executor = TemplateExecutor(self._run.path, self._timeout_s)
        name = submission.job_name(self._run_id)
        return executor.send(submission, self._run.script(submission.script), name, exclude)

    def rows(
        self, jobs: Mapping[str, str], finished: Collection[str], settled: Collection[str] = ()
    ) -> dict[str, JobRow]:
        """One ``sacct``; and one ``squeue`` where the accounts may speak of an earlier start, or not at all.

        A job that Slurm starts again has an ended record (NODE_FAIL, PREEMPTED, ...) and, until it runs, no
        other: only the controller knows that it is pending.
        """
        keys = {job_id: key for key, job_id in jobs.items()}
        arrays = list(dict.fromkeys(job_id.split("_")[0] for job_id in keys))  # an array is asked for as one
        answer = query.ask(arrays, accounting=self._accounting, timeout_s=self._timeout_s)
        found = {keys[row.job_id]: row for row in answer if row.job_id in keys and self._is_ours(row)}
        missing = [jobs[key] for key in settled if key not in found]
        if self._accounting:
            doubtful = [r.job_id for key, r in found.items() if is_over(r.state) and key not in finished]
            if doubtful or missing:
                for row in query.in_queue([*doubtful, *missing], timeout_s=self._timeout_s):
                    key = keys.get(row.job_id)
                    if key is not None and (key not in found or not is_over(row.state)):
                        found[key] = row  # where both call it over, the accounts say by whom
        for job_id in missing:  # the controller answered, and knows nothing of it
            found.setdefault(keys[job_id], JobRow(job_id, "", "", gone=True))
        return found

    def reasons(self, jobs: Mapping[str, str]) -> dict[str, str]:
        """One ``squeue``: why jobs wait, job key -> Slurm's word."""
        keys = {job_id: key for key, job_id in jobs.items()}
        rows = query.in_queue(list(jobs.values()), timeout_s=self._timeout_s)
        return {keys[r.job_id]: r.reason for r in rows if r.job_id in keys and r.state == "PENDING"}

    def _is_ours(self, row: JobRow) -> bool:
        """Job ids come round again in old accounts; names do not."""
        return row.name == _UNNAMED or row.name.startswith(f"hh.{self._run_id}.")

    def find(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """By name, in the queue and in the accounts."""
        names = {s.job_name(self._run_id): s.name for s in submissions}
        found = query.find_by_name(names, accounting=self._accounting, timeout_s=self._timeout_s)
        return {names[name]: job_id for name, job_id in found.items() if name in names}

    def nodes(self, partition: str | None) -> dict[str, str]:
        """One ``sinfo``."""
        return query.nodes_of(partition, timeout_s=self._timeout_s)

    def starts(self, jobs: Mapping[str, str]) -> dict[str, list[JobRow]]:
        """One ``sacct --duplicates``; nothing without accounting."""
        if not self._accounting:
            return {}
        keys = {job_id: key for key, job_id in jobs.items()}
        found: dict[str, list[JobRow]] = {}
        for row in query.starts((job_id.split("_")[0] for job_id in keys), timeout_s=self._timeout_s):
            if row.job_id in keys and self._is_ours(row):
                found.setdefault(keys[row.job_id], []).append(row)
        return found

    def cancel(self, job_ids: Sequence[str]) -> None:
        """One ``scancel``."""
        run_command(["scancel", *job_ids], timeout_s=self._timeout_s)
