"""Verbs that submit nothing: plan, schema; and how a verb reads its campaign and site."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from harness.model.verdict import (
    EXIT_PASS,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.model.case import Plan, Submission
    from harness.prepare import Input
    from harness.twins import Origin


def read(options: argparse.Namespace) -> tuple[Input, Plan]:
    """Campaign and site of a command line, checked against each other, and the plan; warnings go to stderr.

    Raises:
        ConfigError: all that is wrong with the two files, at once.
    """
    from harness.config import ConfigError
    from harness.verbs.check import examine

    seen = examine(options)
    for problem in seen.problems:
        if problem.warning:
            print(f"warning: {problem}", file=sys.stderr)
    if seen.errors or seen.planned is None:
        raise ConfigError(seen.errors)
    return seen.planned.given, seen.planned.plan


def plan(options: argparse.Namespace) -> int:
    """Cases, jobs, and an upper bound of their cost."""
    from harness.cost import of_lot, summary

    given, planned = read(options)
    cost = summary(planned)
    kept = _kept(given, planned)
    if options.json:
        print(
            json.dumps(
                {
                    "campaign": given.campaign.name,
                    "site": given.site.name,
                    "summary": _plain(cost),
                    "cached_twins": {case_id: vars(origin) for case_id, origin in kept.items()},
                    **planned.to_json(),
                },
                indent=1,
            )
        )
        return EXIT_PASS
    width = max(len(c.label) for c in planned.cases)
    for submission in planned.submissions:
        kind = f"array of {len(submission.jobs)}" if submission.is_array else "job"
        first = submission.jobs[0]
        print(
            f"{submission.name}  {kind}, {first.nodes} nodes, {first.time_limit_min} min, {submission.template}"
            f"{_waits(submission)}"
        )
        for job in submission.jobs:
            for case_id in job.case_ids:
                case = planned.case(case_id)
                fault = "".join(f"  {f.kind} of {f.target} at {f.trigger}" for f in case.faults)
                print(
                    f"    {job.key}  {case_id}  {case.label:<{width}}  {case.workload}, {case.ranks} ranks{fault}"
                )
    for lot in planned.lots:
        least, most = of_lot(planned, lot)
        print(f"{lot.name}: {lot.words}; {least:g} to {most:g} node-hours by time limits")
    for comparison in planned.comparisons:
        print(f"{comparison.name}: {comparison.words}")
    for case_id, origin in kept.items():
        print(f"{planned.case(case_id).label} would not be run, its records come {origin.words}")
    print(", ".join(f"{k.replace('_', ' ')} {v}" for k, v in _plain(cost).items()))
    return EXIT_PASS


def _kept(given: Input, planned: Plan) -> Mapping[str, Origin]:
    """Twins that would not be run, since an earlier run has made their records."""
    from harness import twins
    from harness.freeze import code_sha256
    from harness.prepare import twin_keys

    cache = twins.Cache.of_user()
    if cache is None or not any(case.is_twin for case in planned.cases):
        return {}
    return dict(twins.kept(cache, twin_keys(given, planned, code_sha256())))


def _waits(submission: Submission) -> str:
    parts = [f"partition {submission.partition}"] if submission.partition else []
    parts += [f"wave {submission.wave} of {submission.lot}, if needed"] if submission.wave else []
    parts += [
        f"{key} {', '.join(n)}" for key, n in (("needs", submission.needs), ("after", submission.after)) if n
    ]
    return "".join(f"; {part}" for part in parts)


def _plain(value: Any) -> dict[str, Any]:
    import dataclasses

    return (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else dict(value)
    )


def schema(options: argparse.Namespace) -> int:
    """A schema for editors and readers."""
    if options.of == "results":
        from harness import store

        print(
            json.dumps(
                {
                    "schema": store.SCHEMA_NAME,
                    "version": store.SCHEMA_VERSION,
                    "history": {str(k): v for k, v in store.HISTORY.items()},
                    "tables": {name: [vars(f) for f in fields] for name, fields in store.TABLES.items()},
                    "sample_keys": [vars(f) for f in store.SAMPLE_KEYS],
                },
                indent=1,
            )
        )
        return EXIT_PASS
    from harness import config

    print(
        json.dumps(
            config.campaign_json_schema() if options.of == "campaign" else config.site_json_schema(), indent=1
        )
    )
    return EXIT_PASS
