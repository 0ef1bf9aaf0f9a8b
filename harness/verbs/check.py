"""The verb check, and what every verb that plans does first: campaign and site read, checked, planned, costed."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.model.verdict import EXIT_PASS, EXIT_USAGE

if TYPE_CHECKING:
    from harness.config import Draft, Problem
    from harness.cost import Summary
    from harness.model.campaign import Campaign
    from harness.model.case import Plan
    from harness.prepare import Input


@dataclass(frozen=True)
class Planned:
    """A campaign that fits its site, but for what it may cost."""

    given: Input
    plan: Plan
    cost: Summary

    @property
    def campaign(self) -> Campaign:
        """The campaign."""
        return self.given.campaign


@dataclass(frozen=True)
class Examined:
    """What is known of a campaign on a site before anything is written or submitted."""

    draft: Draft | None  # None: the file could not be read
    site_name: str | None  # None: the site is wrong
    planned: Planned | None  # None: there are errors
    problems: tuple[Problem, ...]  # warnings included

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What keeps the campaign from being run."""
        return tuple(p for p in self.problems if not p.warning)


def examine(options: argparse.Namespace) -> Examined:
    """Campaign and site of a command line, everything wrong with them at once, the plan and its cost."""
    from harness import config
    from harness.cost import findings, summary
    from harness.plan import expand
    from harness.prepare import Input
    from harness.resources import configs_dir

    problems: list[config.Problem] = []
    draft = site = planned = None
    site_text = ""
    try:
        draft = config.read_campaign(options.campaign, [configs_dir() / "campaigns"], options.set or ())
    except config.ConfigError as error:  # the other file's errors are told in the same breath
        problems += error.problems
    try:
        site, site_text = config.load_site(options.site, [configs_dir() / "sites"])
    except config.ConfigError as error:
        problems += error.problems
    if draft is not None:
        problems = [*(config.fit(draft, site) if site is not None else draft.problems), *problems]
    fits = all(problem.warning for problem in problems)
    if fits and draft is not None and draft.campaign is not None and site is not None:
        plan = expand(draft.campaign, site)
        cost = summary(plan)
        planned = Planned(
            Input(draft.campaign, draft.text, site, site_text, options.command), plan=plan, cost=cost
        )
        problems += [draft.problem(finding) for finding in findings(cost, draft.campaign)]
    return Examined(draft, site.name if site is not None else None, planned, tuple(problems))


def check(options: argparse.Namespace) -> int:
    """Everything that can be said of a campaign on a site before any sbatch."""
    seen = examine(options)
    unused: list[str] = []
    if seen.planned is not None:
        wrong, unused = _templates(seen.planned)
        seen = dataclasses.replace(seen, problems=(*seen.problems, *wrong))
    if options.json:
        print(json.dumps({**_data(seen), "unused": unused}, indent=1))
        return EXIT_USAGE if seen.errors else EXIT_PASS
    for problem in seen.problems:
        print(f"warning: {problem}" if problem.warning else str(problem), file=sys.stderr)
    if seen.planned is not None and seen.draft is not None:
        for name, words in (*_words(seen.planned, seen.draft), *(("unused", words) for words in unused)):
            print(f"{name:<12} {words}")
    return EXIT_USAGE if seen.errors else EXIT_PASS


def _templates(planned: Planned) -> tuple[list[Problem], list[str]]:
    """What is wrong with the scripts, and what is given and used by none of them."""
    from harness import unused
    from harness.config import Problem
    from harness.model.fields import did_you_mean
    from harness.prepare import scripts, templates_used
    from harness.render import RenderError, variables
    from harness.rundir import RunDir
    from harness.templates import Templates, sources

    given, plan = planned.given, planned.plan
    problems = []
    try:
        templates = given.templates
        used = templates_used(plan, templates)
        known = sorted(variables(plan.submissions[0], plan, given.site))
        for source, line, name in unused.unknown_names(used, templates, known):
            hint = did_you_mean(name, known, "remove it")
            text = f"{name}, is no variable of scripts, allowed: {', '.join(known)}; {hint}"
            problems.append(Problem(source.path, line, text))
        if not problems:
            run = RunDir(Path("runs/RUN").absolute())
            scripts(given, plan, run, run_id="0", templates=templates, slurm=None)
        for path, hint in unused.unused_files(templates):
            text = f"no template of the harness, nor one that extends it, uses this file; {hint}"
            problems.append(Problem(str(path), 0, text, warning=True))
        files = sorted({file.name for folder in templates.folders for file in folder.glob("*.j2")})
        every = [source for name in files for source in sources(name, templates)]
        plain = templates_used(plan, Templates(templates.builtin))
        keys = unused.unused_keys(given.site, used, plain, templates)  # what own templates dropped
        for name in dict.fromkeys(s.partition for s in plan.submissions if s.partition):
            there = templates_used(plan, templates, name)
            part = given.site.partitions[name]
            keys += [f"partitions.{name}.{k}" for k in unused.unused_keys(part, there, every, templates)]
    except RenderError as error:
        return [*problems, Problem("templates", 0, str(error))], []
    groups = given.campaign.groups
    params = [(groups[index].name, name) for index, name in unused.unused_params(given.campaign)]
    return problems, [
        *(f"{key} of site {given.site.name}: no template of this plan mentions it" for key in keys),
        *(f"{name} of group {group}: its command never mentions it" for group, name in params),
    ]


def _words(planned: Planned, draft: Draft) -> Iterator[tuple[str, str]]:
    """Lines of what a plan is and costs."""
    cost, limits = planned.cost, _limits(planned)
    files = ", ".join(path for path, _ in draft.document.files)
    yield "campaign", f"{planned.campaign.name}, from {files}"
    for text, groups in _overrides(draft):
        yield "", f"-s {text}" + (f" in {', '.join(groups)}" if groups else "")
    yield "site", planned.given.site.name
    least = f", {cost.perhaps_not_needed} of them only if needed" if cost.perhaps_not_needed else ""
    yield "cases", f"{cost.cases}{least}, of which {cost.twins} twins"
    array = f"largest array {cost.largest_array} of {limits['max_array_size']} allowed"
    yield (
        "jobs",
        f"{cost.jobs} by {cost.submissions} sbatch; {array if cost.largest_array > 1 else 'no arrays'}",
    )
    queue = limits["max_jobs_in_queue"]
    yield "queue", "no limit" if queue is None else f"{min(cost.jobs, queue)} of {queue} allowed at a time"
    yield (
        "largest job",
        f"{cost.largest_job_nodes} nodes of {limits['max_nodes']} allowed; longest {cost.longest_job_min} min of "
        f"{limits['max_time_min']} allowed",
    )
    most = limits["max_node_hours"]
    yield (
        "node-hours",
        f"{cost.node_hours_expected:g} expected, {cost.node_hours_max:g} at most"
        + ("" if most is None else f", {most:g} allowed"),
    )


def _overrides(draft: Draft) -> list[tuple[str, list[str]]]:
    """Each override, and the groups in which it changed something."""
    from harness.overrides import touched

    return [(text, touched(draft.document, text)) for text in draft.document.overrides]


def _data(seen: Examined) -> dict[str, Any]:
    draft, planned = seen.draft, seen.planned
    campaign = draft.campaign if draft is not None else None
    overrides: Sequence[tuple[str, list[str]]] = _overrides(draft) if draft is not None else ()
    return {
        "campaign": campaign.name if campaign is not None else None,
        "site": seen.site_name,
        "fits": not seen.errors,
        "problems": [dataclasses.asdict(problem) for problem in seen.problems],
        "files": [path for path, _ in draft.document.files] if draft is not None else [],
        "overrides": [{"set": text, "groups": groups} for text, groups in overrides],
        "summary": dataclasses.asdict(planned.cost) if planned is not None else None,
        "limits": _limits(planned) if planned is not None else None,
    }


def _limits(planned: Planned) -> dict[str, Any]:
    """What is allowed: of partitions that differ, the most."""
    from harness.packing import queue_limit

    site = planned.given.site
    used = [site.on(name).limits for name in dict.fromkeys(s.partition for s in planned.plan.submissions)]
    return {
        "max_nodes": max(limits.max_nodes for limits in used),
        "max_time_min": max(limits.max_time_min for limits in used),
        "max_array_size": site.limits.max_array_size,
        "max_jobs_in_queue": queue_limit(planned.campaign, site),
        "max_node_hours": planned.campaign.limits.max_node_hours,
    }
