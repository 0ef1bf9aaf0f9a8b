"""Site ``local``: jobs as plain processes on this machine. It imitates no Slurm; it starts supervisors.

A submission is one detached runner process, known by its pid and start time, which runs the
submission's jobs in turn and starts a job again when its supervisor asks for it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from harness.model.case import Plan, Submission
from harness.rundir import RunDir
from harness.runtime.launcher import EXIT_REQUEUE
from harness.slurm.commands import CommandError, clean_environment, run_command
from harness.slurm.query import JobRow
from harness.workloads import REGISTRY

MAX_RESTARTS = 20  # a bound on the runner alone; a case's own limit is its max_restarts


def start_time(pid: int) -> str:
    """Start time of a process in clock ticks since boot, proc(5) field 22; "" when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


# By the workload's launcher.
NEEDS = {"torch": ("torch", "numpy", "xxhash"), "mpi": ("mpi4py", "numpy", "xxhash"), "command": ()}


def check_imports(plan: Plan, python: str) -> None:
    """Whether the interpreter of the jobs has what the plan's workloads import; asked before anything is started.

    Raises:
        CommandError: something is missing; the message says what, for which workload, and how to install it.
    """
    wanted = {name: c.workload for c in plan.cases for name in NEEDS[REGISTRY[c.workload].launcher]}
    code = (
        "import importlib.util, sys; print(*[n for n in sys.argv[1:] if importlib.util.find_spec(n) is None])"
    )
    missing = run_command([python, "-c", code, *wanted], timeout_s=30, environment=dict(os.environ)).split()
    if missing:
        needs = "; ".join(f"{wanted[name]} needs {name}" for name in missing)
        raise CommandError(f"{python}: {needs}, not installed there: pip install 'hpc-harness[torch,mpi]'")


def submit(run: RunDir, submission: Submission) -> str:
    """Start a submission's runner; returns its id, ``local.<pid>.<start time>``."""
    run.logs.mkdir(exist_ok=True)
    log = run.logs / f"{submission.name}-local.out"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.local", str(run.path), submission.script, *_places(submission)],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            cwd=run.path,
            env={
                **clean_environment(os.environ),
                # A program of the user's gets the rest of it back.
                "PYTHONPATH": ":".join(filter(None, (str(run.code), os.environ.get("PYTHONPATH")))),
                "HARNESS_ROUND": str(submission.round),
            },
        )
    finally:
        os.close(descriptor)
    return f"local.{process.pid}.{start_time(process.pid)}"


def _places(submission: Submission) -> list[str]:
    """Which of the planned submission's jobs a later round runs; all, when none is named."""
    return [str(t) for t in submission.tasks]


def is_alive(job_id: str) -> bool:
    """Whether the runner of that id still runs."""
    _, pid, started = job_id.split(".")
    now = start_time(int(pid))
    return bool(now) and now == started


def cancel(job_id: str, deadline_s: float = 20.0) -> None:
    """End a runner and its supervisor: first asked, so that they write down how it ended, then made to."""
    _, pid, _ = job_id.split(".")
    if not is_alive(job_id):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + deadline_s
        with contextlib.suppress(ProcessLookupError):  # the group is empty: the supervisor, too, has ended
            os.killpg(int(pid), number)
            while time.monotonic() < end:
                time.sleep(0.1)
                os.killpg(int(pid), 0)


class LocalScheduler:
    """See ``harness.scheduler.Scheduler``. A submission's job id is that of its runner."""

    one_at_a_time = True  # they share the machine
    free = True

    def __init__(self, run: RunDir) -> None:
        self._run = run

    def submit(self, submission: Submission, exclude: Sequence[str] = ()) -> str:
        """Start the runner."""
        return submit(self._run, submission)

    def rows(
        self, jobs: Mapping[str, str], finished: Collection[str], settled: Collection[str] = ()
    ) -> dict[str, JobRow]:
        """From the process table: a job whose runner is gone without its last word has failed."""
        found = {}
        for key, job_id in jobs.items():
            if key in finished or not is_alive(job_id):
                state = "COMPLETED" if key in finished else "FAILED"
                found[key] = JobRow(job_id, "", state, "", "this machine")
        return found

    def reasons(self, jobs: Mapping[str, str]) -> dict[str, str]:
        """They wait for each other."""
        return {}

    def find(self, submissions: Sequence[Submission]) -> dict[str, str]:
        """Those that have begun: the ledger's line follows the start at once, so only a kill in between asks."""
        begun = [s for s in submissions if any(self._run.claim(job.key, s.round).exists() for job in s.jobs)]
        ended = [s for s in begun if all(self._run.end(job.key, s.round).exists() for job in s.jobs)]
        return {s.name: "local.0.0" for s in ended}

    def nodes(self, partition: str | None) -> dict[str, str]:
        """None that could be excluded."""
        return {}

    def starts(self, jobs: Mapping[str, str]) -> dict[str, list[JobRow]]:
        """Nobody but the jobs themselves keeps a record."""
        return {}

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End the runners."""
        for job_id in job_ids:
            cancel(job_id)


def main(arguments: list[str]) -> int:
    """The runner: ``python -m harness.local RUN SUBMISSION [PLACE ...]``; without places, all jobs in turn."""
    run, name = RunDir(arguments[0]), arguments[1]
    places = {int(place) for place in arguments[2:]}
    plan = run.read_plan()
    submission = next(s for s in plan.submissions if s.name == name)
    worst = 0
    for index, job in enumerate(submission.jobs):
        if places and index not in places:
            continue
        for restart in range(MAX_RESTARTS + 1):
            code = subprocess.call(
                ["bash", str(run.script(name))],
                env={
                    **os.environ,
                    "HARNESS_LOCAL_JOB": f"local-{job.key}",
                    "HARNESS_ARRAY_INDEX": str(index),
                    "HARNESS_RESTART_COUNT": str(restart),
                },
            )
            if code != EXIT_REQUEUE:
                break
        worst = max(worst, abs(code))
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
