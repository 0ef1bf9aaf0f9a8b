"""Schedules are made, installed and removed here. Without --install or --prepare nothing is changed."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.model.verdict import EXIT_PASS
from harness.schedule import past as pasts
from harness.schedule.folder import (
    INSTALLED,
    PREPARED,
    REMOVED,
    ScheduleDir,
    ScheduleError,
    Spec,
    differences,
)
from harness.schedule.when import next_due, parse, zone_name, zone_of
from harness.verbs import UsageError

if TYPE_CHECKING:
    from harness.model.case import Plan
    from harness.prepare import Input

_IN_A_JOB = ("self", "scrontab")


def command(spec: Spec, folder: ScheduleDir) -> argparse.Namespace:
    """The command line of a run of this schedule."""
    return argparse.Namespace(
        campaign=spec.campaign,
        site=spec.site,
        set=list(spec.overrides),
        command=["harness", "schedule", "tick", str(folder.path)],
    )


def add(options: argparse.Namespace) -> int:
    """Show what a schedule would be; with --install or --prepare, make it."""
    from harness.schedule import install as installing
    from harness.schedule import mail
    from harness.verbs.before import read

    when = parse(options.every, options.at, options.on)
    if options.keep < 1:
        raise UsageError(f"--keep {options.keep}: at least one run must be kept; write 1 or more")
    if options.job_minutes < 5:
        raise UsageError(
            f"--job-minutes {options.job_minutes}: is too short for a job to do anything; write 5 or more"
        )
    if options.mail and not mail.is_address(options.mail):
        raise UsageError(
            f"--mail {options.mail!r}: is no address of one person; write it as name@example.org"
        )
    given, planned = read(options)
    how = _how(options.how, given.site.launcher)
    if how in _IN_A_JOB and options.job_minutes > given.site.limits.max_time_min:
        raise UsageError(
            f"--job-minutes {options.job_minutes}: site {given.site.name} allows at most "
            f"{given.site.limits.max_time_min}; lower it"
        )
    folder = ScheduleDir(options.folder or default_parent() / given.campaign.name)
    python = installing.python_here(sys.executable)
    needed = installing.needs(python, os.environ)
    spec = Spec(
        campaign=_path_of(options.campaign, "campaign"),
        site=_path_of(options.site, "site"),
        campaign_name=given.campaign.name,
        site_name=given.site.name,
        every=when.every,
        at=when.at,
        on=when.on,
        zone=zone_name(),
        how=how,
        keep=options.keep,
        mail=options.mail,
        mail_on=options.mail_on,
        overrides=tuple(options.set or ()),
        job_minutes=options.job_minutes,
        job_options=tuple(options.job_option),
        python=python,
        environment={**installing.carried(os.environ), **{name: os.environ[name] for name in needed}},
        needs=needed,
        since_s=time.time(),
        host=os.uname().nodename,
    )
    folder.refuse_other()
    if folder.file.exists():
        spec = _merged(folder, spec, replacing=options.replace)
    texts = installing.texts(folder, spec, _site_facts(given))
    _show(folder, spec, texts, given, planned)
    if not (options.install or options.prepare):
        print("\nNothing was installed. The same command with --install does that.")
        return EXIT_PASS
    return _put(folder, spec, texts, entry=options.install)


def _put(folder: ScheduleDir, spec: Spec, texts: Mapping[str, str], *, entry: bool) -> int:
    from harness.schedule import install as installing

    if not entry:
        folder.write(replace(spec, state=PREPARED))
        if "script" in texts:
            folder.write_script(texts["script"])
        print(
            f"\nmade {folder.path}; the entry is yours to install, or: harness schedule install {_quoted(folder.path)}"
        )
        return EXIT_PASS
    folder.write(replace(spec, state=INSTALLED))  # before the entry, whose first tick reads it
    first = next_due(spec.when, time.time(), zone_of(spec.zone))
    try:
        done = installing.install(folder, spec, texts, first.epoch_s)
    except ScheduleError:
        folder.write(replace(spec, state=PREPARED))
        raise
    print(f"\n{done}; first due {first.words}")
    print(f"  what it did:   harness schedule history {_quoted(folder.path)}")
    print(f"  to remove it:  harness schedule remove {_quoted(folder.path)}")
    return EXIT_PASS


def _how(given: str | None, launcher: str) -> str:
    from harness.schedule.install import Table

    if launcher == "local":
        if given not in (None, "cron"):
            raise UsageError(f"--how {given}: the site is this machine, without Slurm; use --how cron")
        return "cron"
    if given is not None:
        return given
    with contextlib.suppress(ScheduleError):
        Table("scrontab").read()
        return "scrontab"
    return "self"


def default_parent() -> Path:
    """Where schedules go: beside the runs."""
    cluster = os.environ.get("HARNESS_CLUSTER", "")
    return Path(cluster) / "shared" / "schedules" if cluster else Path("schedules")


def _quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def _path_of(given: str, noun: str) -> str:
    from harness.document import find
    from harness.resources import configs_dir

    return os.path.abspath(find(given, [configs_dir() / f"{noun}s"], noun))


def _site_facts(given: Input) -> dict[str, str | None]:
    site = given.site
    return {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "requeue": "yes" if site.requeue else None,
    }


def _merged(folder: ScheduleDir, spec: Spec, *, replacing: bool) -> Spec:
    """The new spec over one that is there: only with --replace, unless it says the same."""
    old = folder.read()
    changed = differences(old, spec)
    if changed and not replacing:
        raise UsageError(
            f"{folder.path}: is another schedule already ({'; '.join(changed)}); add --replace to change it, or choose "
            "another --folder"
        )
    if changed and old.state == INSTALLED and old.how != spec.how:
        raise UsageError(
            f"{folder.path}: is installed by --how {old.how}; first `harness schedule remove {_quoted(folder.path)}`, "
            "then add it again"
        )
    return replace(spec, since_s=old.since_s) if not changed and old.state == INSTALLED else spec


def _show(folder: ScheduleDir, spec: Spec, texts: Mapping[str, str], given: Input, planned: Plan) -> None:
    from harness.cost import summary
    from harness.schedule.entries import job_name

    cost = summary(planned)
    first = next_due(spec.when, time.time(), zone_of(spec.zone))
    print(f"{spec.campaign_name} on {spec.site_name}, {spec.when.words()} ({spec.zone or 'local time'})")
    print(f"  next      {first.words}")
    print(
        f"  each time {cost.jobs} jobs, {cost.node_hours_expected:.1f} node-hours expected, "
        f"{cost.node_hours_max:.1f} at most"
    )
    print(f"  campaign  {spec.campaign}  (read again each time)")
    print(f"  site      {spec.site}")
    print(f"  folder    {folder.path}  (a run folder each time; the newest {spec.keep} are kept whole)")
    if spec.mail and spec.mail_on != "never":
        what = "how it ended" if spec.mail_on == "always" else "what is not a pass"
        print(f"  mail      {what}, to {spec.mail}")
    print(f"  environment as here: {', '.join(spec.environment) or 'nothing'}")
    if spec.how == "cron":
        print(
            "\nAt the top of your crontab on this host; looks every few minutes, and drives by single steps:\n"
        )
        print(texts["entry"], end="")
    elif spec.how == "scrontab":
        print(
            "\nAt the top of your scrontab; starts a small job at each moment (in the controller's local time):\n"
        )
        print(texts["entry"], end="")
        print(f"\nWhat it does not finish in its time is taken over by this job, {folder.script}:\n")
    else:
        print(f"\nA small job, submitted now to begin at the next moment, {folder.script}:\n")
    if "script" in texts:
        print(texts["script"], end="")
    if spec.how in _IN_A_JOB and cost.largest_job_nodes >= given.site.limits.max_nodes:
        print(
            f"\nnote: a job of this campaign takes all {given.site.limits.max_nodes} nodes, and must wait while the "
            f"schedule's own job ({job_name(folder, spec)}) holds part of one; that leaves after two idle minutes, and "
            "comes back later. --how cron, or another partition by --job-option, does without."
        )


def install(options: argparse.Namespace) -> int:
    """Install the entry of a schedule that is there."""
    from harness.schedule import install as installing
    from harness.verbs.before import read

    folder = ScheduleDir(options.folder)
    spec = folder.read()
    given, _ = read(command(spec, folder))
    fresh = replace(spec, host=os.uname().nodename)
    if spec.state != INSTALLED:
        fresh = replace(fresh, since_s=time.time())
    return _put(folder, fresh, installing.texts(folder, fresh, _site_facts(given)), entry=True)


def remove(options: argparse.Namespace) -> int:
    """Take the entry away; what it did stays."""
    from harness.schedule import install as installing

    folder = ScheduleDir(options.folder)
    spec = folder.read()
    folder.write(replace(spec, state=REMOVED))  # from now on a tick does nothing, wherever it comes from
    for done in installing.uninstall(folder, spec):
        print(done)
    if spec.how == "cron" and spec.host != os.uname().nodename:
        print(
            f"note: it was installed on {spec.host}; each host has a crontab of its own, so do this there as well"
        )
    open_run = pasts.read(folder.lines()).open_run
    if open_run is not None:
        run = folder.runs / open_run
        print(
            f"its run {open_run} has not ended:  harness resume {_quoted(run)}, or harness cancel {_quoted(run)}"
        )
    print(f"what it did is still in {folder.path}")
    return EXIT_PASS
