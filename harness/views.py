"""How each case of a run is, for people: from plan, ledger and run folder, and what Slurm last said of its jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.ledger import Ledger
from harness.model.case import Case, Plan, Submission
from harness.rundir import RunDir, RunFolderError, read_lines
from harness.slurm.query import JobRow

# How a case that has not begun is called, by the state of its job; other states are called as Slurm calls them.
_WAITING = {"PENDING": "queued", "RUNNING": "waiting", "COMPLETED": "waiting"}


@dataclass
class CaseView:
    """How one case is."""

    case: Case
    state: str
    """planned, queued, waiting (its job runs, its turn has not come), running, requeued, healing, an outcome, or
    what Slurm calls it"""
    step: int = 0
    attempts: int = 0
    reason: str = ""
    job_id: str = ""


def task_id(submission: Submission, index: int, job_id: str) -> str:
    """Slurm's id of one job of a submission: ``12``, or ``12_3`` in an array."""
    return f"{job_id}_{index}" if submission.is_array else job_id


def views(run: RunDir, plan: Plan, known: Ledger, rows: Mapping[str, JobRow]) -> list[CaseView]:
    """All cases as they are, in the plan's order; ``rows`` is Slurm's last word, by job key."""
    cases = {case.case_id: case for case in plan.cases}
    found: dict[str, CaseView] = {}
    for submission in plan.submissions:
        for index, job in enumerate(submission.jobs):
            state, job_id = "planned", ""
            if submission.name in known.submitted:
                job_id = task_id(submission, index, known.submitted[submission.name])
                row = rows.get(job.key)
                state = _WAITING.get(row.state, row.state.lower()) if row is not None else "queued"
            lines = list(read_lines(run.attempts(job.key)))
            now: dict[str, Any] = {}
            if job.key not in known.ended:
                with contextlib.suppress(RunFolderError):
                    now = run.read_json(run.progress(job.key))
            for case_id in job.case_ids:
                view = CaseView(cases[case_id], state, job_id=job_id)
                found[case_id] = _fill(view, lines, now, known.ended.get(job.key))
    return [found[c.case_id] for c in plan.cases]


def _fill(
    view: CaseView,
    lines: Sequence[Mapping[str, Any]],
    now: Mapping[str, Any],
    ended: Mapping[str, Any] | None,
) -> CaseView:
    case_id = view.case.case_id
    for line in lines:
        if line["what"] == "attempt" and line["attempt"]["case_id"] == case_id:
            view.attempts = line["attempt"]["index"] + 1
            view.state = line["attempt"]["outcome"] or "running"
            view.reason = line["attempt"]["reason"]
            view.step = line["attempt"]["last_step"] + 1
        elif line["what"] == "case_ended" and line["case_id"] == case_id:
            view.state, view.reason = line["outcome"], line["reason"]
            return view
    if ended is not None:
        view.state = "lost" if view.attempts else "not_run"
        view.reason = ended.get("reason") or view.reason or "its job ended before it ran"
    elif view.state == "running" and view.attempts:
        if (now.get("case_id"), now.get("attempt")) == (case_id, view.attempts - 1):
            view.step = now["step"]
    elif view.attempts:
        restarts = view.case.recovery == "requeue" and view.state != "completed"
        view.state = "requeued" if restarts else "healing" if view.case.faults else view.state
    return view
