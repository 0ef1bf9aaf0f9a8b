"""What follows from the end of a job: why its cases failed, which nodes are to be avoided, what is done once more."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from harness import failures, ledger
from harness.ledger import Ledger
from harness.model import event as ev
from harness.model.case import Submission
from harness.model.design import NOT_NEEDED
from harness.reconcile import Again, End
from harness.rundir import RunDir, RunFolderError, read_lines, write_json


def end(
    run: RunDir, action: End, submission: Submission, known: Ledger, suspects: set[str], *, blames_nodes: bool
) -> None:
    """Write down that a job has ended, and why its cases failed, where that is for us to know.

    Args:
        run: its run's folder.
        action: what was decided.
        submission: the job's.
        known: what was done until now.
        suspects: nodes that are suspected already; those that this job makes suspect are added.
        blames_nodes: whether a node may be suspected at all: not where there is but one.
    """
    facts = dict(action.facts)
    facts["failures"] = _failures(run, action.key, submission, facts, known)
    found = _suspects(run, action.key, submission, facts) if blames_nodes else {}
    for node, why in found.items():
        if node not in suspects:
            suspects.add(node)
            ledger.write(run, ledger.SUSPECT, node, why=f"{why} (job {facts.get('job_id', '')})")
    ledger.write(run, ledger.ENDED, action.key, facts=facts)


def _failures(
    run: RunDir, key: str, submission: Submission, facts: Mapping[str, Any], known: Ledger
) -> dict[str, str]:
    """Case -> class of failure, of the cases that failed other than by what was asked of them."""
    if facts["state"] in ("REFUSED", "SKIPPED", NOT_NEEDED) or {submission.name, key} & known.cancelled:
        return {}
    lines = list(read_lines(run.attempts(key)))
    events = list(read_lines(run.events(key)))
    faulted = {e["case_id"] for e in events if e["kind"] == ev.FAULT_REQUESTED}
    job = next(job for job in submission.jobs if job.key == key)
    classes = {
        case_id: failures.of_case(case_id, lines, facts["state"])
        for case_id in job.case_ids
        if case_id not in faulted
    }
    return {case_id: failure for case_id, failure in classes.items() if failure}


def _suspects(run: RunDir, key: str, submission: Submission, facts: Mapping[str, Any]) -> dict[str, str]:
    first = _first_restart(run, key, submission.round)
    events: list[dict[str, Any]] = []
    of_this_round = False
    for line in read_lines(run.events(key)):
        if line["kind"] == ev.JOB_STARTED:
            of_this_round = line["data"]["restart"] >= first
        if of_this_round:
            events.append(line)
    if any(e["kind"] == ev.FAULT_REQUESTED for e in events):
        return {}  # the node was broken by us
    return failures.lost_nodes(events, str(facts.get("nodes", "")), facts["failures"].values())


def _first_restart(run: RunDir, key: str, round_: int) -> int:
    if not round_:
        return 0
    with contextlib.suppress(RunFolderError):
        return int(run.read_json(run.round(key, round_), "first_restart")["first_restart"])
    return 0


def open_round(run: RunDir, action: Again) -> None:
    """Open a round: first what its supervisors must know, then the line that makes it count."""
    for key, cases in action.redo.items():
        restarts = [
            line["data"]["restart"] for line in read_lines(run.events(key)) if line["kind"] == ev.JOB_STARTED
        ]
        run.job(key).mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(
            run.round(key, action.round),
            {"cases": sorted(cases), "why": dict(cases), "first_restart": max(restarts, default=-1) + 1},
        )
    ledger.write(
        run,
        ledger.AGAIN,
        f"{action.of}.{action.round}",
        of=action.of,
        round=action.round,
        keys=sorted(action.redo),
        why={case: failure for cases in action.redo.values() for case, failure in cases.items()},
    )
