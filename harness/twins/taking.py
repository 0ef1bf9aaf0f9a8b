"""Puts the records of twins from the cache into a run folder that is being made, and takes their jobs out of the plan.

Each has a job key of its own, ``twin-0000``, that no scheduler ever sees: the ledger begins with its end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness import ledger
from harness.model import event as ev
from harness.model.campaign import Campaign
from harness.model.case import CACHED, Case, Job, Plan, Submission
from harness.model.event import Event
from harness.model.site import Site
from harness.packing import pack
from harness.rundir import RunDir, append_line, lines_of, write_atomic, write_json
from harness.twins.cache import Cache, Damaged, Entry
from harness.workloads import REGISTRY


@dataclass(frozen=True)
class Origin:
    """Where the records of a twin in a run were made."""

    run: str
    run_id: str
    ended_wall_ns: int

    @property
    def words(self) -> str:
        """For people: where from, and of when."""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.ended_wall_ns / 1e9))
        return f"from the cache: run {self.run} of {when}"


def origin(entry: Entry) -> Origin:
    """Where an entry comes from."""
    return Origin(entry.source["run"], entry.source["run_id"], entry.source["ended_wall_ns"])


def cached(run: RunDir) -> dict[str, Origin]:
    """Which twins of a run were taken from the cache, by case id; none in a run of an older harness."""
    if not run.twins.exists():
        return {}
    return {case_id: Origin(**said) for case_id, said in run.read_json(run.twins, "cached")["cached"].items()}


def less(plan: Plan, case_ids: Collection[str], campaign: Campaign, site: Site) -> Plan:
    """The plan with jobs for all cases but these; they stay among its cases."""
    if not case_ids:
        return plan
    others = [case for case in plan.cases if case.case_id not in case_ids]
    return replace(plan, submissions=pack(others, campaign, site, REGISTRY))


def use(
    cache: Cache | None,
    run: RunDir,
    plan: Plan,
    keys: Mapping[str, str],
    campaign: Campaign,
    site: Site,
) -> tuple[Plan, Plan, list[str]]:
    """Take what is kept of a plan's twins into a run folder that is being made.

    Args:
        cache: where from; None: nothing is taken.
        run: the folder, under its temporary name.
        plan: what is to be run.
        keys: of its twins.
        campaign: how the rest is packed into jobs.
        site: where the rest runs.

    Returns:
        The plan of what is submitted; the same with the twins' jobs as well, for the run folder; and words for
        people on entries that could not be used.

    Raises:
        OSError: the run folder cannot be written.
    """
    taken, notes = _taken(cache, run, plan, keys) if cache is not None else ({}, [])
    for case_id, (submission, entry) in taken.items():
        _note(run, submission.jobs[0].key, case_id, entry)
    origins = {case_id: vars(origin(entry)) for case_id, (_, entry) in taken.items()}
    write_json(run.twins, {"keys": dict(keys), "cached": origins})
    rest = less(plan, taken, campaign, site)
    whole = replace(rest, submissions=(*rest.submissions, *(s for s, _ in taken.values())))
    return rest, whole, notes


def _taken(
    cache: Cache, run: RunDir, plan: Plan, keys: Mapping[str, str]
) -> tuple[dict[str, tuple[Submission, Entry]], list[str]]:
    """The twins whose records lie in the run folder now; what is damaged leaves the cache and the folder."""
    taken: dict[str, tuple[Submission, Entry]] = {}
    notes = []
    for case_id, key in keys.items():
        case = plan.case(case_id)
        submission = _submission(case, len(taken))
        try:
            entry = cache.find(key, case_id)
            if entry is None:
                continue
            _take(run, submission.jobs[0].key, case_id, entry)
        except Damaged as error:
            notes.append(f"{case.label} is run again: {cache.root / key} is damaged ({error}), and removed")
            cache.remove(key)
            shutil.rmtree(run.job(submission.jobs[0].key), ignore_errors=True)
            continue
        cache.used(entry)
        taken[case_id] = submission, entry
    return taken, notes


def _submission(case: Case, number: int) -> Submission:
    """A place in the plan for a case whose job is never sent."""
    name = f"twin-{number:04d}"
    job = Job(name, case.nodes, case.ranks_per_node, case.time_limit_min, (case.case_id,), requeue=False)
    return Submission(name, (job,), template="", partition=case.partition)


def _take(run: RunDir, key: str, case_id: str, entry: Entry) -> None:
    """The records as files of a job of this run.

    Raises:
        Damaged: they are not what was kept, or cannot be understood.
        OSError: they cannot be written.
    """
    folder = run.case(key, case_id)
    entry.copy(folder)
    (folder / "events.jsonl").replace(run.events(key))
    length = run.events(key).stat().st_size
    try:
        lines = [_moved(line, key, length) for line in lines_of((folder / "attempts.jsonl").read_bytes())]
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"attempts.jsonl cannot be understood ({type(error).__name__}: {error})") from None
    write_atomic(run.attempts(key), b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    (folder / "attempts.jsonl").unlink()


def _moved(line: Mapping[str, Any], key: str, events_bytes: int) -> dict[str, Any]:
    """A line of ``attempts.jsonl`` as it reads in a job of another key, whose events are of this length."""
    if line["what"] != "attempt":
        return {**line, "events_bytes": events_bytes}
    attempt = dict(line["attempt"])
    attempt["streams"] = [
        # work/KEY/CASE/attempt-R.E/NODE.stream
        {**stream, "path": "/".join(("work", key, *stream["path"].split("/")[2:]))}
        for stream in attempt["streams"]
    ]
    return {**line, "attempt": {**attempt, "job_key": key}}


def _note(run: RunDir, key: str, case_id: str, entry: Entry) -> None:
    """On record: the job has ended, and where its records come from."""
    source, now_ns = entry.source, time.time_ns()
    facts = {
        "state": CACHED,
        "reason": origin(entry).words,
        "nodes": ",".join(source["nodes"]),
        "job_id": "",
        "failures": {},
    }
    ledger.write(run, ledger.ENDED, key, facts=facts)
    told = {k: v for k, v in source.items() if k != "files"}
    event = Event(
        ev.TWIN_CACHED,
        now_ns,
        time.monotonic_ns(),
        os.uname().nodename,
        "driver",
        case_id,
        data={**told, "age_s": max(0, now_ns - source["ended_wall_ns"]) // 10**9},
    )
    append_line(run.driver_events, event.to_json())


def kept(cache: Cache, keys: Mapping[str, str]) -> Iterator[tuple[str, Origin]]:
    """Which twins would come from the cache now, as far as their descriptions tell; nothing is changed."""
    for case_id, key in keys.items():
        with contextlib.suppress(Damaged):
            if (entry := cache.find(key, case_id)) is not None:
                yield case_id, origin(entry)
