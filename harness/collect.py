"""Run folder -> results.h5. Reads everything, aggregates nothing, and says by name what is missing.

Needs neither Slurm nor the job's programs; it can be run again at any time, also while the run goes on. It goes case by
case and keeps no samples, so its memory does not grow with them. The file is a new one each time, put in the place of
the old one when it is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import __version__, arrival, collect_faults, collect_proofs, collect_streams, ledger, twins
from harness.model import attempt as at
from harness.model import event as ev
from harness.model.attempt import Attempt
from harness.model.case import Case, Plan
from harness.model.event import Event
from harness.rundir import RunDir, read_lines
from harness.store import TABLES, StoreError, Writer, samples_of
from harness.streams import RankRecords

WAIT_S = 600.0  # for another `collect` of the same run


@dataclass
class Collected:
    """All rows of fixed tables, before they are written; samples go to the file at once."""

    writer: Writer
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in TABLES})
    facts: dict[tuple[str, str], dict[str, dict[str, str]]] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )  # case -> what is missing
    cached: Mapping[str, twins.Origin] = field(default_factory=dict)  # case -> whence its records

    def host(self, name: str, case_id: str) -> str:
        """A host's name; with a twin from the cache it is of another time, and its monotonic clock another one."""
        origin = self.cached.get(case_id)
        return f"{name}@{origin.run_id}" if origin is not None else name

    def node(self, name: str, case_id: str) -> int:
        """Row of a node, as it was with a case."""
        return self.nodes.setdefault(self.host(name, case_id), len(self.nodes))


def collect(run: RunDir) -> Path:
    """Write ``results.h5`` of a run as it is now; returns its path.

    Raises:
        RunFolderError: this is no run folder.
        StoreError: two definitions of one metric, the file could not be verified after writing, or another
            ``collect`` of the run does not end.
        OSError: the file cannot be written; the one that was there stays.
    """
    plan = run.read_plan()
    with _alone(run), Writer(run.results, _attributes(run, plan)) as writer:
        out = Collected(writer, cached=twins.cached(run))
        _collect(run, plan, out)
        for name, fields in TABLES.items():
            writer.table(name, {f.name: [row[f.name] for row in out.rows[name]] for f in fields})
    return run.results


@contextlib.contextmanager
def _alone(run: RunDir) -> Iterator[None]:
    """One at a time: of two, the one that began last has seen more, so its file must be the last put in place."""
    descriptor = os.open(run.collecting, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise StoreError(
                        f"{run.path}: another `harness collect` of this run has not ended within {WAIT_S:.0f} s; "
                        "end it, or wait for it"
                    ) from None
                time.sleep(0.1)
            except OSError:
                break  # a file system without locks: both files are whole, and a later collect has all
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _collect(run: RunDir, plan: Plan, out: Collected) -> None:
    identity = run.read_identity()
    known = ledger.read(run)
    current = known.current(plan)
    events: list[Event] = [Event.from_json(line) for line in read_lines(run.driver_events)]
    attempts: dict[str, list[Attempt]] = {c.case_id: [] for c in plan.cases}
    endings: dict[str, Mapping[str, Any]] = {}
    progress: dict[tuple[str, int], dict[int, Sequence[tuple[int, int]]]] = {}
    _jobs(run, plan, known, identity, out)
    _starts(run, out)
    events += _of_driver(run)
    for submission in plan.submissions:
        for job in submission.jobs:
            events += [Event.from_json(line) for line in read_lines(run.events(job.key))]
            newest: dict[tuple[str, int], Attempt] = {}
            for line in read_lines(run.attempts(job.key)):
                if line["what"] == "attempt":
                    attempt = Attempt.from_json(line["attempt"])
                    newest[attempt.case_id, attempt.index] = attempt
                    endings.pop(attempt.case_id, None)  # of an earlier round
                elif line["what"] == "case_ended":
                    endings[line["case_id"]] = line
            for (case_id, _), attempt in sorted(newest.items(), key=lambda item: (item[0][1], item[0][0])):
                attempts[case_id].append(attempt)
    for case in plan.cases:
        mine, ending = attempts[case.case_id], endings.get(case.case_id)
        for attempt in mine:
            running = (
                not attempt.outcome
                and attempt is mine[-1]
                and ending is None
                and attempt.job_key not in known.ended
            )
            _attempt(run, case, attempt, len(out.rows["cases"]), out, events, progress, running=running)
        unsettled = arrival.unsettled(run, known, current, case.case_id, ending, begun=bool(mine))
        _case(case, mine, ending, known, plan, unsettled, out)
    events = [e if e.kind == ev.TWIN_CACHED else replace(e, host=out.host(e.host, e.case_id)) for e in events]
    events.sort(key=lambda e: e.wall_ns)
    _events(events, out)
    of_case: dict[str, list[Event]] = {}
    for event in events:
        of_case.setdefault(event.case_id, []).append(event)
    silent = [e for e in events if e.kind == ev.NODE_SILENT and not e.case_id]
    for case in plan.cases:
        of_this = of_case.get(case.case_id, [])
        faults, detections = collect_faults.rows(case, attempts[case.case_id], of_this, silent, progress)
        out.rows["faults"] += faults
        out.rows["detections"] += detections
        out.rows["checkpoints"] += collect_proofs.checkpoints(of_this)
        out.rows["digests"] += collect_proofs.digests(of_this)
    facts = _node_facts(events)
    out.rows["nodes"] = [
        {"name": name, "facts": json.dumps(facts.get(name, {}), sort_keys=True)} for name in out.nodes
    ]


def _jobs(run: RunDir, plan: Plan, known: ledger.Ledger, identity: Mapping[str, Any], out: Collected) -> None:
    current = known.current(plan)
    slurm = (
        run.read_json(run.starts, "starts", "restarts")
        if run.starts.exists()
        else {"starts": {}, "restarts": {}}
    )
    for planned in plan.submissions:
        path = run.script(planned.name)
        script = path.read_text(encoding="utf-8") if planned.name in identity["scripts"] else ""
        for job in planned.jobs:
            submission, index = current[job.key]
            facts = known.ended.get(job.key, {})
            job_id = known.submitted.get(submission.name, "")
            if job_id and not job_id.startswith("local"):
                job_id = submission.task_id(index, job_id)
            restarts = [
                int(line["data"]["restart"])
                for line in read_lines(run.events(job.key))
                if line["kind"] == ev.JOB_STARTED
            ]
            out.rows["jobs"].append(
                {
                    "job_key": job.key,
                    "slurm_job_id": "" if job_id.startswith("local") else job_id,
                    "name": submission.job_name(identity["run_id"]),
                    "state": facts.get("state", ""),
                    "exit_code": facts.get("exit_code", ""),
                    "nodes": facts.get("nodes", ""),
                    "start": facts.get("start", ""),
                    "end": facts.get("end", ""),
                    # A start that died before its supervisor could write shows in Slurm's records alone.
                    "restarts": max(
                        *restarts,
                        slurm["restarts"].get(job.key, 0),
                        sum(len(v) for k, v in slurm["starts"].items() if k.rpartition("#")[0] == job.key)
                        - 1,
                        0,
                    ),
                    "script_sha256": identity["scripts"].get(planned.name, ""),
                    "script": script,
                }
            )


def _starts(run: RunDir, out: Collected) -> None:
    """Slurm's own records of starts, as the driver asked for them at the end; none before, or without accounting."""
    if not run.starts.exists():
        return
    for place, rows in sorted(run.read_json(run.starts, "starts")["starts"].items()):
        key, _, round_ = place.rpartition("#")
        for row in rows:
            said = {name: row[name] for name in ("state", "exit_code", "nodes", "start", "end")}
            out.rows["starts"].append(
                {"job_key": key, "round": int(round_), "slurm_job_id": row["job_id"], **said}
            )


# What the driver did that explains what happened to cases: ledger line -> event.
_DRIVER_EVENTS = {
    ledger.AGAIN: ev.JOB_AGAIN,
    ledger.SUSPECT: ev.NODE_SUSPECTED,
    ledger.JUDGED: ev.GROUP_JUDGED,
    ledger.WEIGHED: ev.REPEATS_WEIGHED,
    ledger.DEFERRED: ev.SUBMISSION_DEFERRED,
}


def _of_driver(run: RunDir) -> list[Event]:
    return [
        Event(_DRIVER_EVENTS[line["what"]], line["wall_ns"], 0, "", "driver", data=line)
        for line in read_lines(run.ledger)
        if line["what"] in _DRIVER_EVENTS
    ]


def _attempt(
    run: RunDir,
    case: Case,
    attempt: Attempt,
    case_row: int,
    out: Collected,
    events: list[Event],
    progress: dict[tuple[str, int], dict[int, Sequence[tuple[int, int]]]],
    *,
    running: bool,
) -> None:
    row = len(out.rows["attempts"])
    folder = run.attempt(attempt.job_key, case.case_id, attempt.folder)
    problems = out.problems[case.case_id]
    steps: set[str] = set()
    restored, first = -1, 0
    ranks_read: set[int] = set()
    for found in collect_streams.of_attempt(folder, case, attempt, running=running):
        if found.expected is not None and found.expected.problem:
            found = replace(found, detail=f"{found.detail}; {found.expected.problem}".removeprefix("; "))
            if found.status == collect_streams.COMPLETE:  # of what its agent recorded itself, some is missing
                problems.append(f"records of {found.node} in attempt {attempt.index}: {found.detail}")
        out.rows["streams"].append(found.row(case, attempt, run.path))
        if found.status not in collect_streams.WHOLE and found.node in attempt.nodes:
            problems.append(
                f"stream of {found.node} in attempt {attempt.index} is {found.status}: {found.detail}"
            )
        for number, records in found.content.ranks.items():
            for problem in records.problems:
                problems.append(f"rank {number} in attempt {attempt.index}: {problem}")
            if attempt.outcome == at.COMPLETED and not records.closed:
                problems.append(f"rank {number} in attempt {attempt.index} did not close its records")
            ranks_read.add(number)
            events += records.events
            _samples(case, case_row, row, number, found.node, records, out)
            for event in records.events:
                if event.kind == ev.RANK_STARTED and event.data.get("slurm_step_id"):
                    steps.add(f"{event.data.get('slurm_job_id', '')}.{event.data['slurm_step_id']}")
                elif event.kind == ev.CHECKPOINT_RESTORED:
                    restored = first = max(restored, int(event.data["step"]))
                elif event.kind == ev.TELEMETRY_ABSENT:
                    fact = {"node": found.node, "what": event.data["what"], "reason": event.data["reason"]}
                    if fact not in out.rows["telemetry_absent"]:
                        out.rows["telemetry_absent"].append(fact)
            # A case without faults needs none; a program may inject its own.
            if number >= 0 and (case.faults or case.command is not None):
                if (far := collect_streams.progress(records)) is not None:
                    progress.setdefault((case.case_id, attempt.index), {})[number] = far
    missing = sorted(set(range(len(attempt.rank_nodes) or case.ranks)) - ranks_read)
    if attempt.outcome == at.COMPLETED and missing:
        problems.append(f"attempt {attempt.index} has no records of ranks {missing}")
    out.rows["attempts"].append(
        {
            "case_id": case.case_id,
            "index": attempt.index,
            "job_key": attempt.job_key,
            "slurm_job_id": attempt.slurm_job_id,
            "restart": attempt.restart,
            "epoch": attempt.epoch,
            "nodes": json.dumps(attempt.nodes),
            "step_ids": json.dumps(sorted(steps)),
            "rank_nodes": json.dumps(attempt.rank_nodes),
            "start_wall_ns": attempt.start_wall_ns,
            "end_wall_ns": attempt.end_wall_ns,
            "duration_ns": attempt.end_mono_ns - attempt.start_mono_ns if attempt.end_mono_ns else -1,
            "outcome": attempt.outcome or (at.UNSETTLED if running else at.LOST),
            "reason": attempt.reason,
            "failure": attempt.failure,
            "first_step": first,
            "last_step": attempt.last_step,
            "restored_step": restored,
            "policy": attempt.policy or _begun(case, attempt),
            "world": len(attempt.rank_nodes) or case.ranks,
        }
    )


def _begun(case: Case, attempt: Attempt) -> str:
    """How an attempt was begun: the first, after a requeue, or again in its allocation by the case's policy."""
    if attempt.epoch:
        return case.recovery
    return "requeue" if attempt.restart else "first"


def _samples(
    case: Case, case_row: int, attempt_row: int, rank: int, node: str, records: RankRecords, out: Collected
) -> None:
    """Append what a rank sampled to the file."""
    for table, values in records.samples.items():
        if not len(values) or (rank < 0 and case.case_id in out.cached):  # how hosts were in another run
            continue
        where = (samples_of(case.workload, case.group), table) if rank >= 0 else ("telemetry", table)
        facts = {
            c["name"]: {k: str(c[k]) for k in ("unit", "type", "direction", "definition")}
            for c in records.columns[table]
        }
        if out.facts.setdefault(where, facts) != facts:
            out.problems[case.case_id].append(
                f"table {where[0]}/{table} of rank {rank} is defined differently from "
                "the one of an earlier rank; its samples were left out"
            )
            continue
        keys = {"case": case_row, "attempt": attempt_row, "rank": rank, "node": out.node(node, case.case_id)}
        columns = {name: np.full(len(values), value, dtype="i4") for name, value in keys.items()}
        out.writer.samples(*where, {**columns, **{name: values[name] for name in facts}}, facts)


def _case(
    case: Case,
    attempts: Sequence[Attempt],
    ending: Mapping[str, Any] | None,
    known: ledger.Ledger,
    plan: Plan,
    unsettled: str,
    out: Collected,
) -> None:
    key = next(j.key for s in plan.submissions for j in s.jobs if case.case_id in j.case_ids)
    if unsettled:
        outcome, reason = at.UNSETTLED, unsettled
    elif ending is not None:
        outcome, reason = ending["outcome"], ending["reason"]
    elif attempts:
        outcome = attempts[-1].outcome or at.LOST
        reason = known.ended.get(key, {}).get("reason") or attempts[-1].reason or "nobody wrote how it ended"
    else:
        outcome = "not_run"
        reason = known.ended.get(key, {}).get("reason") or "its job has not reached it"
    problems = [*out.problems.get(case.case_id, []), *([unsettled] if unsettled else [])]
    out.rows["cases"].append(
        {
            "case_id": case.case_id,
            "label": case.label,
            "group": case.group,
            "workload": case.workload,
            "scaling_mode": case.scaling_mode,
            "scaling_base": case.scaling_base,
            "nodes": case.nodes,
            "ranks": case.ranks,
            "ranks_per_node": case.ranks_per_node,
            "repeat": case.repeat,
            "seed": case.seed,
            "steps": case.steps,
            "warmup_steps": case.warmup_steps,
            "params": json.dumps(dict(case.params), sort_keys=True),
            "axes": json.dumps(dict(case.axes)),
            "command": json.dumps(case.command, sort_keys=True) if case.command is not None else "",
            "environment": json.dumps(dict(case.environment), sort_keys=True),
            "partition": case.partition,
            "faults": json.dumps(case.to_json()["faults"]),
            "gates": json.dumps(case.to_json()["gates"]),
            "recovery": case.recovery,
            "shrink": case.shrink,
            "twin": case.twin,
            "is_twin": case.is_twin,
            "deterministic": case.deterministic,
            "attempts": len(attempts),
            "outcome": outcome,
            "reason": reason,
            "evidence": "unknown: " + "; ".join(problems) if problems else "complete",
            "source": 0,
        }
    )


def _node_facts(events: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """What agents and ranks said of the machines they ran on."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for event in events:
        if event.kind == ev.NODE_FACTS:
            found[event.host].update(event.data)
        elif event.kind == ev.RANK_STARTED:
            found[event.host].setdefault("versions", {}).update(event.data.get("versions", {}))
    return found


def _events(events: Sequence[Event], out: Collected) -> None:
    for event in events:
        out.rows["events"].append(
            {
                "wall_ns": event.wall_ns,
                "mono_ns": event.mono_ns,
                "host": event.host,
                "source": event.source,
                "kind": event.kind,
                "case_id": event.case_id,
                "attempt": event.attempt,
                "rank": event.rank,
                "data": json.dumps(dict(event.data), sort_keys=True),
            }
        )
        if event.kind == ev.CHECK:
            out.rows["checks"].append(
                {
                    "case_id": event.case_id,
                    "attempt": event.attempt,
                    "rank": event.rank,
                    **{k: event.data[k] for k in ("name", "passed", "expected", "observed", "detail")},
                }
            )


def _attributes(run: RunDir, plan: Plan) -> dict[str, Any]:
    """What is true of the whole file."""
    identity, site = run.read_identity(), run.read_site()
    if site["launcher"] == "local":
        oversubscribed = any(case.ranks > (os.cpu_count() or 1) for case in plan.cases)
    else:
        cpus = {name: run.read_site(name)["node"]["cpus"] for name in {c.partition for c in plan.cases}}
        oversubscribed = any(case.ranks_per_node > cpus[case.partition] for case in plan.cases)
    return {
        "campaign": identity["campaign"],
        "description": identity["description"],
        "run_id": identity["run_id"],
        "run_folder": str(run.path.absolute()),
        "site": site["name"],
        "site_kind": site["kind"],
        "launcher": site["launcher"],
        "emulated": site["kind"] == "emulated",
        "oversubscribed": oversubscribed,
        "campaign_yaml": run.campaign_text.read_text(encoding="utf-8"),
        "expected": json.dumps(
            {name: run.read_site(name).get("expected", []) for name in ("", *site.get("partitions", {}))}
        ),
        "site_yaml": run.site_text.read_text(encoding="utf-8"),
        "created_wall_ns": identity["created_wall_ns"],
        "collected_wall_ns": time.time_ns(),
        "harness_version": __version__,
        "planned_with_version": identity["harness_version"],
        "git_commit": identity["git_commit"],
        "code_sha256": identity["code_sha256"],
        "command": identity["command"],
        "environment": json.dumps(identity["environment"], sort_keys=True),
        "slurm_version": identity["slurm_version"],
    }
