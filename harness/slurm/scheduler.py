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


class SlurmScheduler:
    """See ``harness.scheduler.Scheduler``."""

    one_at_a_time = False
    free = False

    def __init__(self, run: RunDir, site: Mapping[str, Any], run_id: str) -> None:
        self._run, self._run_id = run, run_id
        self._accounting: bool = site["accounting"]
        self._timeout_s: float = site["scheduler"]["call_timeout_s"]

    def submit(self, submission: Submission) -> str:
        """One ``sbatch``."""
        from harness.slurm.executor import TemplateExecutor

        executor = TemplateExecutor(self._run.path, self._timeout_s)
        return executor.send(submission, self._run.script(submission.name), submission.job_name(self._run_id))

    def rows(self, jobs: Mapping[str, str], finished: Collection[str]) -> dict[str, JobRow]:
        """One ``sacct``; and one ``squeue`` where the accounts may speak of an earlier start.

        A job that Slurm starts again has an ended record (NODE_FAIL, PREEMPTED, ...) and, until it runs, no
        other: only the controller knows that it is pending.
        """
        keys = {job_id: key for key, job_id in jobs.items()}
        arrays = list(dict.fromkeys(job_id.split("_")[0] for job_id in keys))  # an array is asked for as one
        answer = query.ask(arrays, accounting=self._accounting, timeout_s=self._timeout_s)
        found = {keys[row.job_id]: row for row in answer if row.job_id in keys}
        doubtful = [row.job_id for key, row in found.items() if is_over(row.state) and key not in finished]
        if doubtful and self._accounting:
            for row in query.in_queue(doubtful, timeout_s=self._timeout_s):
                if row.job_id in keys:
                    found[keys[row.job_id]] = row
        return found

    def find(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """By name, in the queue and in the accounts."""
        names = {s.job_name(self._run_id): s.name for s in submissions}
        found = query.find_by_name(names, accounting=self._accounting, timeout_s=self._timeout_s)
        return {names[name]: job_id for name, job_id in found.items() if name in names}

    def cancel(self, job_ids: Sequence[str]) -> None:
        """One ``scancel``."""
        run_command(["scancel", *job_ids], timeout_s=self._timeout_s)
