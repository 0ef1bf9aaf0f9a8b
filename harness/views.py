"""How each case of a run is, for people: from plan, ledger and run folder, and what Slurm last said of its jobs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.ledger import Ledger
from harness.model.case import CACHED, Case, Plan
from harness.model.design import NOT_NEEDED, WORDS
from harness.rundir import RunDir, RunFolderError, content_of, lines_of
from harness.slurm.query import JobRow

# How a case that has not begun is called, by the state of its job; other states are called as Slurm calls them.
_WAITING = {"PENDING": "queued", "RUNNING": "waiting", "COMPLETED": "waiting"}


@dataclass
class CaseView:
    """How one case is."""

    case: Case
    state: str
    """planned, queued, waiting (its job runs, its turn has not come), running, requeued, healing, an outcome, or
    what Slurm calls it; not_needed: the repeats before it were enough"""
    step: int = 0
    attempts: int = 0
    reason: str = ""
    job_id: str = ""
    cached: str = ""
    """Whence its records are, where an earlier run made them"""


def views(run: RunDir, plan: Plan, known: Ledger, rows: Mapping[str, JobRow]) -> list[CaseView]:
    """All cases as they are, in the plan's order; ``rows`` is Slurm's last word, by job key."""
    cases = {case.case_id: case for case in plan.cases}
    found: dict[str, CaseView] = {}
    current = known.current(plan)
    for job in (job for s in plan.submissions for job in s.jobs):
        submission, index = current[job.key]
        state, job_id = "planned", ""
        if submission.name in known.submitted:
            job_id = submission.task_id(index, known.submitted[submission.name])
            row = rows.get(job.key)
            state = _state(row) if row is not None else "queued"
        said = _said(content_of(run.attempts(job.key)))
        now: dict[str, Any] = {}
        if said and job.key not in known.ended:  # one that has not begun has no progress
            with contextlib.suppress(RunFolderError):
                now = run.read_json(run.progress(job.key))
        redone = _redone(known, job.key)
        for case_id in job.case_ids:
            view = CaseView(cases[case_id], state, job_id=job_id)
            found[case_id] = _fill(
                view, said.get(case_id, ()), now, known.ended.get(job.key), redone.get(case_id, "")
            )
    return [found[c.case_id] for c in plan.cases]


@functools.lru_cache(maxsize=4096)
def _said(attempts: bytes) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """What a job's attempts say of each case. Remembered: between two looks, most jobs have written nothing."""
    said: dict[str, list[Mapping[str, Any]]] = {}
    for line in lines_of(attempts):
        if line["what"] == "attempt":
            said.setdefault(line["attempt"]["case_id"], []).append(line)
        elif line["what"] == "case_ended":
            said.setdefault(line["case_id"], []).append(line)
    return said


def _reached(attempt: Mapping[str, Any]) -> int:
    """How many steps an attempt that has ended is known to have come to, its fastest rank's last one included."""
    return int(max(attempt["last_step"] + 1, attempt.get("last_begun", -1), attempt.get("saved_step", 0)))


def _state(row: JobRow) -> str:
    return "gone" if row.gone else _WAITING.get(row.state, row.state.lower())


def _redone(known: Ledger, key: str) -> dict[str, str]:
    """Cases that the newest round of a job does once more, and why."""
    lines = [line for line in known.rounds if key in line["keys"]]
    return dict(lines[-1]["why"]) if lines else {}


def _fill(
    view: CaseView,
    said: Sequence[Mapping[str, Any]],
    now: Mapping[str, Any],
    ended: Mapping[str, Any] | None,
    redone: str,
) -> CaseView:
    case_id = view.case.case_id
    final, saved = False, 0
    for line in said:
        if line["what"] == "attempt":
            view.attempts = line["attempt"]["index"] + 1
            view.state = line["attempt"]["outcome"] or "running"
            view.reason = line["attempt"]["reason"]
            view.step = max(view.step, _reached(line["attempt"])) if line["attempt"]["outcome"] else saved
            saved = max(saved, line["attempt"].get("saved_step", 0))
            final = False
        else:
            view.state, view.reason = line["outcome"], line["reason"]
            final = True
    if final and ended is not None and ended.get("state") == CACHED:
        view.cached = ended["reason"]
    if final and (ended is not None or not redone or view.state == "completed"):
        return view
    if final:
        view.state, view.reason = "retrying", f"{redone.replace('_', ' ')}: {view.reason}"
    elif ended is not None and ended.get("state") == NOT_NEEDED:
        view.state, view.reason = "not_needed", ended["reason"].removeprefix(WORDS)
    elif ended is not None:
        view.state = "lost" if view.attempts else "not_run"
        view.reason = ended.get("reason") or view.reason or "its job ended before it ran"
    elif view.state == "running" and view.attempts:
        if (now.get("case_id"), now.get("attempt")) == (case_id, view.attempts - 1):
            view.step = max(view.step, now["step"])
    elif view.attempts:
        restarts = view.case.recovery == "requeue" and view.state != "completed"
        view.state = "requeued" if restarts else "healing" if view.case.faults else view.state
    return view
