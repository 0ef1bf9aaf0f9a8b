"""Keeps the records of a run's twins that have passed, for later runs of the same case, code and site."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from harness.model import attempt as at
from harness.model.case import Plan
from harness.rundir import RunDir, RunFolderError, brief, read_lines
from harness.twins.cache import Cache, Damaged


def keepable(run: RunDir) -> dict[str, str]:
    """Twins that ran in this run and may be kept, each with its key; none in a run of an older harness."""
    if not run.twins.exists():
        return {}
    said = run.read_json(run.twins, "keys", "cached")
    return {case_id: key for case_id, key in said["keys"].items() if case_id not in said["cached"]}


def keep(run: RunDir, passed: Collection[str], cache: Cache | None) -> list[str]:
    """Keep those of a run's twins that have passed. What goes wrong is said, and harms nothing.

    Args:
        run: a run that has ended.
        passed: cases whose verdict is pass.
        cache: where to; None: nothing is kept.

    Returns:
        Twins that could not be kept, in words.
    """
    notes: list[str] = []
    if cache is None:
        return notes
    plan = run.read_plan()
    for case_id, key in keepable(run).items():
        if case_id not in passed:
            continue
        label = plan.case(case_id).label
        try:
            if not cache.add(key, *_records(run, plan, case_id)):
                notes.append(f"{label} is not kept for later runs: its records are too large")
        except (OSError, Damaged, RunFolderError) as error:
            why = brief(error) if isinstance(error, OSError) else error
            notes.append(f"{label} is not kept for later runs: {why}")
    return notes


def _records(run: RunDir, plan: Plan, case_id: str) -> tuple[dict[str, Any], dict[str, Path | bytes]]:
    """Where a twin comes from, and what it recorded: its part of its job, without checkpoints.

    Raises:
        RunFolderError: it did not come to its end here.
    """
    key = next(j.key for s in plan.submissions for j in s.jobs if case_id in j.case_ids)
    attempts = [line for line in read_lines(run.attempts(key)) if _case_of(line) == case_id]
    events = [line for line in read_lines(run.events(key)) if line["case_id"] == case_id]
    done = [line["attempt"] for line in attempts if line["what"] == "attempt"]
    if not done or attempts[-1].get("outcome") != at.COMPLETED:
        raise RunFolderError("its records do not say that it completed")
    files: dict[str, Path | bytes] = {"attempts.jsonl": _text(attempts), "events.jsonl": _text(events)}
    for attempt in done:
        for stream in attempt["streams"]:
            path = run.path / stream["path"]
            if path.exists():  # a node that was lost may have left none
                files["/".join(path.parts[-2:])] = path
    identity = run.read_identity()
    facts = {
        "case_id": case_id,
        "label": plan.case(case_id).label,
        "verdict": "pass",
        "run": str(run.path),
        "run_id": identity["run_id"],
        "job_key": key,
        "slurm_job_id": done[-1]["slurm_job_id"],
        "nodes": list(dict.fromkeys(done[-1]["rank_nodes"])),
        "ended_wall_ns": done[-1]["end_wall_ns"],
        "kept_by": os.uname().nodename,
        "harness_version": identity["harness_version"],
        "git_commit": identity["git_commit"],
        "code_sha256": identity["code_sha256"],
        "environment": identity["environment"],
    }
    return facts, files


def _case_of(line: Mapping[str, Any]) -> str:
    said = line["attempt"] if line["what"] == "attempt" else line
    return str(said.get("case_id", ""))


def _text(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)
