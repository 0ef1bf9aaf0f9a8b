"""Verbs that submit nothing: plan, render, schema; and how a verb reads its campaign and site."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model.verdict import (
    EXIT_PASS,
)
from harness.rundir import RunDir

if TYPE_CHECKING:
    from harness.model.case import Plan
    from harness.prepare import Input


def read(options: argparse.Namespace) -> tuple[Input, Plan]:
    """Campaign and site of a command line, checked against each other, and the plan; warnings go to stderr.

    Raises:
        ConfigError: all that is wrong with the two files, at once.
    """
    from harness import config
    from harness.plan import expand
    from harness.prepare import Input
    from harness.resources import configs_dir

    read: dict[str, Any] = {}
    paths: dict[str, Path] = {}
    problems: list[config.Problem] = []
    for noun, load, given in (
        ("campaign", config.load_campaign, options.campaign),
        ("site", config.load_site, options.site),
    ):
        try:
            paths[noun] = config.find(given, [configs_dir() / f"{noun}s"], noun)
            read[noun] = load(paths[noun])
        except config.ConfigError as error:  # the other file's errors are told in the same breath
            problems += error.problems
    if problems:
        raise config.ConfigError(problems)
    (campaign, campaign_text), (site, site_text) = read["campaign"], read["site"]
    found = config.check(campaign, site, path=str(paths["campaign"]), text=campaign_text)
    for problem in found:
        if problem.warning:
            print(f"warning: {problem}", file=sys.stderr)
    if any(not p.warning for p in found):
        raise config.ConfigError(p for p in found if not p.warning)
    return Input(campaign, campaign_text, site, site_text, options.command), expand(campaign, site)


def plan(options: argparse.Namespace) -> int:
    """Cases, jobs, and an upper bound of their cost."""
    from harness.plan import summary

    given, planned = read(options)
    cost = summary(planned)
    if options.json:
        print(
            json.dumps(
                {
                    "campaign": given.campaign.name,
                    "site": given.site.name,
                    "summary": _plain(cost),
                    **planned.to_json(),
                },
                indent=1,
            )
        )
        return EXIT_PASS
    labels = {c.case_id: c for c in planned.cases}
    for submission in planned.submissions:
        kind = f"array of {len(submission.jobs)}" if submission.is_array else "job"
        first = submission.jobs[0]
        print(
            f"{submission.name}  {kind}, {first.nodes} nodes, {first.time_limit_min} min, {submission.template}"
        )
        for job in submission.jobs:
            for case_id in job.case_ids:
                case = labels[case_id]
                fault = "".join(
                    f"  {f.kind} of node {f.target_node} at step {f.at_step}" for f in case.faults
                )
                print(
                    f"    {job.key}  {case_id}  {case.label:<28} {case.workload}, {case.ranks} ranks{fault}"
                )
    print(", ".join(f"{k.replace('_', ' ')} {v}" for k, v in _plain(cost).items()))
    return EXIT_PASS


def _plain(value: Any) -> dict[str, Any]:
    import dataclasses

    return (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else dict(value)
    )


def render(options: argparse.Namespace) -> int:
    """The scripts, as they would be submitted."""
    from harness.render import render as to_text
    from harness.resources import templates_dir

    given, planned = read(options)
    folder = Path(options.out).absolute() if options.out else Path("runs/RUN").absolute()
    if options.out:
        folder.mkdir(parents=True, exist_ok=True)
    for submission in planned.submissions:
        text = to_text(
            submission,
            planned,
            given.site,
            run_id="00000000",
            run_folder=str(folder),
            python=given.site.python or sys.executable,
            code_path=str(RunDir(folder).code),
            templates=templates_dir(),
        )
        if options.out:
            (folder / f"{submission.name}.sh").write_text(text, encoding="utf-8")
            print(folder / f"{submission.name}.sh")
        else:
            print(f"# ---- {submission.name}.sh ----\n{text}")
    return EXIT_PASS


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
