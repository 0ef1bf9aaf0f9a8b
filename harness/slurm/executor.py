"""The only import of submitit: its executor, with our script and without its pickles.

submitit keeps the parameters, the arrays and the ``sbatch`` call. The text is the rendered template in
the run folder, which was synced before; it exec's our supervisor, so nothing is pickled or unpickled.
``map_array`` of the parent builds a plain SlurmExecutor, which would lose our script: hence the override
of ``_internal_process_submissions``, which both ``submit`` and ``map_array`` come through.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import DelayedSubmission, FailedSubmissionError
from submitit.slurm.slurm import SlurmJob

from harness.model.case import Submission
from harness.slurm.commands import CommandError, clean_environment, run_command


def supervise(run_folder: str, job_key: str) -> None:
    """What a submitted job does, as submitit sees it. Never called: the script exec's the supervisor itself."""
    raise RuntimeError(f"{job_key} of {run_folder} is run by harness.runtime.supervisor, not by submitit")


class TemplateExecutor(submitit.SlurmExecutor):
    """Submits rendered scripts, one ``sbatch`` each."""

    def __init__(self, folder: Path, timeout_s: float) -> None:
        try:
            super().__init__(folder=folder)
        except RuntimeError:
            raise CommandError(
                "srun: command not found; is this a login node of a Slurm cluster? "
                "Load Slurm's module, or use --site local, which needs no Slurm"
            ) from None
        self._timeout_s = timeout_s
        self._script: Path | None = None
        self._options: list[str] = []
        self._round = 0

    def send(self, submission: Submission, script: Path, name: str, exclude: Sequence[str] = ()) -> str:
        """Submit one script; returns the job id that ``sbatch`` printed.

        A later round sends the planned script with another name, for some of an array's tasks: options of the
        command line go before those in the script. Which round it is, the environment says, and goes on
        saying when Slurm starts the job again.

        Raises:
            CommandTimeout: sbatch did not answer; the job may have been queued all the same.
            CommandError: sbatch is missing or refused.
        """
        first = submission.jobs[0]
        self.update_parameters(job_name=name, nodes=first.nodes, time=first.time_limit_min, wckey=None)
        self._script = script
        self._round = submission.round
        self._options = [f"--exclude={','.join(exclude)}"] if exclude else []
        if submission.round:
            self._options.append(f"--job-name={name}")
            if submission.tasks:
                self._options.append(f"--array={','.join(str(t) for t in submission.tasks)}")
        run_folder = str(script.parent.parent)
        keys = [job.key for job in submission.jobs]
        if len(keys) > 1:
            jobs = self.map_array(supervise, [run_folder] * len(keys), keys)
        else:
            jobs = [self.submit(supervise, run_folder, keys[0])]
        return str(jobs[0].job_id).split("_")[0]

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        assert self._script is not None  # set by send()
        return self._script.read_text(encoding="utf-8")

    def _num_tasks(self) -> int:
        return 1  # the batch step; ranks are started by our supervisor

    def _internal_process_submissions(self, delayed_submissions: Sequence[DelayedSubmission]) -> list[Any]:
        assert self._script is not None  # set by send()
        program, *rest = self._make_submission_command(self._script)
        output = run_command(
            [program, *self._options, *rest],
            timeout_s=self._timeout_s,
            environment={**clean_environment(os.environ), "HARNESS_ROUND": str(self._round)},
        )
        try:
            job_id = self._get_job_id_from_submission_command(output)
        except FailedSubmissionError:
            raise CommandError(f"sbatch: said {output.strip()[:200]!r}, which names no job") from None
        if len(delayed_submissions) == 1:
            return [SlurmJob(folder=self.folder, job_id=job_id, tasks=[0])]
        return [
            SlurmJob(folder=self.folder, job_id=f"{job_id}_{n}", tasks=[0])
            for n in range(len(delayed_submissions))
        ]
