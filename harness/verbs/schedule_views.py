"""What people see of schedules: list and history. Nothing is changed, and the scheduler is asked only if told to."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.model.verdict import EXIT_PASS, EXIT_USAGE
from harness.schedule import past as pasts
from harness.schedule.folder import (
    ENDED,
    INSTALLED,
    SKIPPED,
    STARTED,
    TOLD,
    TROUBLE,
    ScheduleDir,
    ScheduleError,
    Spec,
)
from harness.schedule.when import last_due, next_due, zone_of
from harness.slurm.commands import CommandError
from harness.verbs.schedule_changes import default_parent


def show(options: argparse.Namespace) -> int:
    """Every schedule that is known of, and how it is."""
    from harness.schedule import entries
    from harness.schedule.install import table

    tables: dict[str, bytes] = {}
    for how in ("cron", "scrontab") if options.ask else ("cron",):
        with contextlib.suppress(ScheduleError):
            tables[how] = table(how).read()
    found = [Path(given) for given in options.folder]
    if not found:
        found = sorted(p.parent for p in default_parent().glob("*/schedule.json"))
        found += [Path(path) for text in tables.values() for path in entries.schedules_in(text).values()]
    rows = [_row(f, tables, ask=options.ask) for f in dict.fromkeys(ScheduleDir(p).path for p in found)]
    if options.json:
        print(json.dumps(rows, indent=1))
        return EXIT_PASS
    if not rows:
        print(f"no schedule in {default_parent().absolute()}, and none in your crontab")
    for row in rows:
        if "problem" in row:
            print(f"{row['folder']}\n  {row['problem']}")
            continue
        print(f"{row['campaign']} on {row['site']}, {row['when']}, by {row['how']}: {row['state']}")
        print(f"  next {row['next'] or 'never'}, last {row['last'] or 'never'}")
        print(f"  {row['folder']}")
    return EXIT_USAGE if any("problem" in row for row in rows) and options.folder else EXIT_PASS


def _row(path: Path, tables: Mapping[str, bytes], *, ask: bool) -> dict[str, Any]:
    from harness.schedule.install import is_installed

    folder = ScheduleDir(path)
    try:
        spec = folder.read()
    except ScheduleError as error:
        return {"folder": str(path), "problem": str(error)}
    past = pasts.read(folder.lines(), spec.since_s)
    state = spec.state
    if state == INSTALLED:
        found = (
            is_installed(folder, tables, spec.how) if spec.how != "self" else _in_queue(folder, spec, ask=ask)
        )
        state = {"yes": INSTALLED, "unknown": f"{INSTALLED} on {spec.host}"}.get(
            found, f"{INSTALLED}, but {found}"
        )
    last = f"{past.open_run} runs" if past.open_run else ""
    if not last and past.outcome is not None:
        from harness.schedule.mail import words

        last = f"{past.outcome['moment']} {words(past.outcome)}"
    due = next_due(spec.when, time.time(), zone_of(spec.zone)).words
    return {
        "folder": str(path),
        "id": folder.id,
        "campaign": spec.campaign_name,
        "site": spec.site_name,
        "when": spec.when.words(),
        "how": spec.how,
        "state": state,
        "next": due if spec.state == INSTALLED else "",
        "last": last,
        "trouble": past.trouble,
    }


def _in_queue(folder: ScheduleDir, spec: Spec, *, ask: bool) -> str:
    from harness.schedule.entries import job_name
    from harness.schedule.whole import SlurmChain

    if not ask:
        return "unknown"
    try:
        return (
            "yes"
            if SlurmChain(folder, job_name(folder, spec)).pending()
            else "no job of it waits in the queue"
        )
    except CommandError as error:
        return f"unknown ({error})"


def history(options: argparse.Namespace) -> int:
    """What a schedule did."""
    folder = ScheduleDir(options.folder)
    spec = folder.read()
    lines = [line for line in folder.lines() if line["what"] != TOLD or line["why"]][-max(1, options.lines) :]
    if options.json:
        print(json.dumps(lines, indent=1))
        return EXIT_PASS
    for line in lines:
        print(_history_line(line))
    past = pasts.read(folder.lines(), spec.since_s)
    due = last_due(spec.when, time.time(), zone_of(spec.zone))
    if pasts.missed(past, due) is not None or isinstance(pasts.decide(past, due), pasts.Start):
        print(f"{due.name}  is due")
    return EXIT_PASS


def _history_line(line: Mapping[str, Any]) -> str:
    from harness.schedule.mail import words

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line["wall_s"]))
    what = line["what"]
    if what == STARTED:
        job = f", job {line['by']['job']}" if line["by"]["job"] else ""
        text = f"started {line['run']} on {line['by']['host']}{job}"
    elif what == ENDED:
        text = f"ended {line['run']}: {words(line)}; {line['report']}"
    elif what == TROUBLE:
        text = f"trouble: {line['why']}"
    elif what == TOLD:
        text = f"no mail to {line['to']}: {line['why']}"
    else:
        text = f"{'skipped' if what == SKIPPED else 'failed'} {line['moment']}: {line['why']}"
    return f"{when}  {text}"
