"""What the driver needs of whatever runs jobs: Slurm, this machine, or, in tests, a model of Slurm."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from harness.model.case import Submission
from harness.rundir import RunDir
from harness.slurm.query import JobRow


class Scheduler(Protocol):
    """Runs submissions. Every method is bounded in time and raises CommandError when there is no answer."""

    one_at_a_time: bool
    """Whether a submission is started only when the one before has ended."""
    free: bool
    """Whether asking costs nothing, so that it can be done at every look."""

    def submit(self, submission: Submission, exclude: Sequence[str] = ()) -> str:
        """Queue one submission, which is to use none of the nodes ``exclude``; returns its job id.

        Raises:
            CommandError: it failed. Only where ``harness.slurm.commands.refusal_of`` says so is nothing queued.
        """

    def rows(
        self, jobs: Mapping[str, str], finished: Collection[str], settled: Collection[str] = ()
    ) -> dict[str, JobRow]:
        """How these jobs are, in one question: job key -> row; unknown ones are left out.

        Args:
            jobs: job key -> job id.
            finished: keys of jobs whose supervisor has said its last word.
            settled: keys of jobs that were queued long enough ago to be known everywhere: one that nobody
                knows is *gone*.

        Raises:
            CommandError: nothing is known.
        """

    def reasons(self, jobs: Mapping[str, str]) -> dict[str, str]:
        """Why those of the jobs that wait do so: job key -> reason.

        Raises:
            CommandError: no answer.
        """

    def find(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """Submission -> job id, of those that were queued.

        Raises:
            CommandError: no answer, so that a missing one means nothing.
        """

    def nodes(self, partition: str | None) -> dict[str, str]:
        """Node -> state, of a partition or of all.

        Raises:
            CommandError: no answer.
        """

    def starts(self, jobs: Mapping[str, str]) -> dict[str, list[JobRow]]:
        """Every start of these jobs on record, job key -> rows; those of which nothing is known are left out.

        Args:
            jobs: job key -> job id.

        Raises:
            CommandError: no answer.
        """

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End these jobs.

        Raises:
            CommandError: it is not known whether they were ended.
        """


def create(run: RunDir, site: Mapping[str, Any], run_id: str) -> Scheduler:
    """The scheduler of a site."""
    if site["launcher"] == "local":
        from harness.local import LocalScheduler

        return LocalScheduler(run)
    from harness.slurm.scheduler import SlurmScheduler

    return SlurmScheduler(run, site, run_id)
